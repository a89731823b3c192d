package pipeline

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
)

// Digest is a sha256 sum. It is written as lower-case hexadecimal.
type Digest [sha256.Size]byte

// String returns the digest in hexadecimal.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText implements encoding.TextMarshaler.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Digest) UnmarshalText(b []byte) error {
	if len(b) != 2*len(d) {
		return fmt.Errorf("a sha256 sum has %d hexadecimal digits, not %d", 2*len(d), len(b))
	}
	_, err := hex.Decode(d[:], b)
	return err
}

// Instance is one DICOM object that passed the walker: valid UIDs, a transfer syntax of the standard, checked lengths.
// dicom.Open makes it.
type Instance struct {
	StudyInstanceUID  string
	SeriesInstanceUID string
	SOPInstanceUID    string
	SOPClassUID       string
	TransferSyntaxUID string
	Digest            Digest  // of the whole file as received
	Header            Dataset // every attribute but Pixel Data and other bulk data
	Path              string  // where its bytes are, when Data is nil
	Data              []byte  // the whole file, when it is in memory
}

// Orientation is one of the eight ways in which a raster can lie. It says how the stored image is brought upright:
// first transposed (rows become columns), then flipped.
type Orientation struct {
	Transpose bool
	FlipX     bool // left and right, after the transposition
	FlipY     bool // top and bottom, after the transposition
}

// Image is one frame of an Instance, ready to be resampled in one pass: native samples and the lookup from them to 0..1.
// dicom.Decode makes it. Its memory may be shared with the Instance's bytes: read only.
type Image struct {
	Instance *Instance
	Frame    int // from 0
	Rows     int // as stored
	Columns  int // as stored
	// Exactly one of Pix8 and Pix16 is set: Rows×Columns raw stored words, row by row.
	Pix8  []uint8
	Pix16 []uint16
	// LUT maps a raw word (256 or 65,536 of them) to 0..1, 1 = dense (bright): Modality LUT, VOI LUT or window,
	// Presentation LUT Shape, MONOCHROME1, sign, unused high bits and padding are all in it.
	LUT []float32
	// Top, Left, Bottom, Right: the part inside a rectangular shutter, in stored coordinates, half open. Outside reads as 0.
	Top, Left, Bottom, Right int
	Upright                  Orientation
	ViewUnknown              bool // nothing in the header says that the view is frontal: the model has to
}

// UprightSize returns rows and columns after the image has been brought upright.
func (m *Image) UprightSize() (rows, columns int) {
	if m.Upright.Transpose {
		return m.Columns, m.Rows
	}
	return m.Rows, m.Columns
}

// Refusal says why an instance of a study is not read. Reason is one of the words of dicom's table ("lateral",
// "other-modality", ...), Detail one sentence without patient data.
type Refusal struct {
	SOPInstanceUID string `json:"sop_instance_uid"`
	Reason         string `json:"reason"`
	Detail         string `json:"detail"`
}

// The reasons that more than one room gives.
const (
	UnknownView = "unknown-view" // nothing says that it is frontal
	NotFrontal  = "not-frontal"  // the header says nothing, and the model takes it for another view
)

// Error makes a Refusal an error, for the steps that find only in the pixels why an image is not read.
func (r Refusal) Error() string { return r.Detail }

// Unwrap makes a Refusal an ErrNotImage: not an image that we read.
func (r Refusal) Unwrap() error { return ErrNotImage }

// Study is the instances of one study that belong together, in the order of series number, instance number and UID.
type Study struct {
	StudyInstanceUID string
	Instances        []*Instance
}

// InputRef names one image that a Reading is made from.
type InputRef struct {
	SeriesInstanceUID string `json:"series_instance_uid"`
	SOPInstanceUID    string `json:"sop_instance_uid"`
	SOPClassUID       string `json:"sop_class_uid"`
	Frame             int    `json:"frame"` // from 1, as in Referenced Frame Number; 0 where the object has a single frame
	Modality          string `json:"modality"`
	ViewPosition      string `json:"view_position,omitempty"`
	ViewByModel       bool   `json:"view_by_model,omitempty"` // the header does not tell the view; the model took it as frontal
	Digest            Digest `json:"digest"`
}

// ModelRef names the model of a Reading.
type ModelRef struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Digest  Digest `json:"digest"` // of the bundle's manifest, which holds the digest of every file; of a model elsewhere also of what its endpoint says it is
	// Served is what the endpoint of a model elsewhere says that it serves; empty for a model that runs here.
	Served string `json:"served,omitempty"`
}

// Section is the part of a report that a sentence stands in.
type Section string

// The sections.
const (
	SectionFindings   Section = "findings"
	SectionImpression Section = "impression"
)

// Evidence says how much a sentence rests on the image: the fall of its teacher-forced log-likelihood (in nats, summed over
// the sentence's tokens) when the image's features are replaced by those of other patients, and by a blank image's.
type Evidence struct {
	LogLikelihood float64   `json:"log_likelihood"` // with the image
	Decoys        []float64 `json:"decoys"`         // with each other patient's features
	Blank         float64   `json:"blank"`          // with a blank image's features
	// Drop is LogLikelihood minus the mean of Decoys: above 0, this image makes the sentence likelier than another patient's does.
	Drop float64 `json:"drop"`
	// Rank is the place of Drop among the report's sentences: 1 rests most on this image.
	Rank int `json:"rank"`
	// True is the share of true ones among planted sentences of such a Drop (Reading.Calibration says of which); nil where that was not measured.
	// It is no probability of a finding: half of all planted sentences are true.
	True *float64 `json:"true_share,omitempty"`
}

// Heat is where sentences rest on the picture that the model saw: a grid over it, row by row from the upper left.
type Heat struct {
	Rows, Columns int
	// Sentences has for each sentence a value for each place of the grid, in nats: the mean fall of the sentence's log-likelihood when a
	// window around the place shows what other patients' images show there. Above 0, what is there makes the sentence likelier.
	Sentences [][]float64
}

// Calibration says what Evidence.True was measured on, and how well it held for sentences that it was not fitted to.
type Calibration struct {
	Set       string  `json:"set"`       // name of the set of images
	Sentences int     `json:"sentences"` // planted, half of them true
	Films     int     `json:"films"`
	AUROC     float64 `json:"auroc"` // of Drop, true against false
	Brier     float64 `json:"brier"` // out of fold; 0.25 is a coin's
	ECE       float64 `json:"ece"`   // expected calibration error, out of fold
}

// Flag says that a rule found something wrong with a sentence.
type Flag struct {
	Rule   Rule   `json:"rule"`
	Reason string `json:"reason"` // a sentence; may quote the report
}

// Rule names what a flag is about.
type Rule string

// The rules.
const (
	RuleComparison    Rule = "comparison"    // it compares with an earlier image, and none was shown
	RuleContradiction Rule = "contradiction" // another sentence says the opposite
	RuleHead          Rule = "head"          // the findings head says the opposite
	RuleSide          Rule = "side"          // another sentence, or the header, says the other side
)

// Sentence is one sentence of a report, tied to the tokens that the model wrote for it.
type Sentence struct {
	Text       string   `json:"text"`
	Section    Section  `json:"section"`
	FirstToken int      `json:"first_token"` // index into Reading.Tokens
	Tokens     int      `json:"tokens"`      // how many; 0 where the tokens are not known
	Evidence   Evidence `json:"evidence,omitzero"`
	Flags      []Flag   `json:"flags,omitempty"`
}

// Presence is what a report says about a label. "Not said" is not "absent".
type Presence string

// The four values of Presence.
const (
	Present      Presence = "present"
	Absent       Presence = "absent"
	Undetermined Presence = "undetermined"
	NotSaid      Presence = "not said"
)

// Finding is one label of the closed list and what the sentences say about it.
type Finding struct {
	Label     string   `json:"label"` // one of Labels
	Presence  Presence `json:"presence"`
	Sentences []int    `json:"sentences,omitempty"` // indices into Reading.Sentences
	// Score is the findings head's raw output for the label (a sigmoid, not calibrated); nil where the model has no head for it.
	// It never enters a document as certainty.
	Score *float64 `json:"score,omitempty"`
	// Conflict: the head and the sentences point to opposite sides.
	Conflict bool `json:"conflict,omitempty"`
}

// StructuredFinding is what a structured report says about one label. Of a label that is not said there is no side and no sentence.
type StructuredFinding struct {
	Label    string   `json:"label"`
	Status   Presence `json:"status"`
	Side     string   `json:"side,omitempty"`
	Sentence string   `json:"sentence,omitempty"`
}

// Structured is a form of findings that the model filled in.
type Structured struct {
	Schema json.RawMessage `json:"schema"` // JSON Schema of the form; Report meets it
	Report json.RawMessage `json:"report"` // an object whose findings are StructuredFindings, of the model's own making
	// Taught: the bundle was taught to fill in forms, and the reading is made of the form. Else it was held to one after its report in sentences, of
	// which the reading is made, and could only quote that.
	Taught    bool `json:"taught"`
	Truncated bool `json:"truncated,omitempty"` // it did not end within the context; what is missing is "not said"
	// Unsupported are labels whose status is not what the sentences say. Of these a reading that is made of the form keeps at most "undetermined".
	Unsupported []string `json:"unsupported,omitempty"`
}

// Labels is the closed list of fourteen (the CheXpert list), in the order of every table and document.
var Labels = []string{
	"No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Lesion", "Lung Opacity", "Edema", "Consolidation",
	"Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices",
}

// Reading is what a model wrote about a set of images. modelrt makes it; every sentence has evidence, or NoEvidence says why none
// has, and the model is named.
type Reading struct {
	StudyInstanceUID string      `json:"study_instance_uid"`
	Inputs           []InputRef  `json:"inputs"`
	Refused          []Refusal   `json:"refused,omitempty"`
	Model            ModelRef    `json:"model"`
	Language         string      `json:"language"` // RFC 5646
	Tokens           []int32     `json:"tokens"`   // empty for a model elsewhere, whose ids are not known
	Sentences        []Sentence  `json:"sentences"`
	Findings         []Finding   `json:"findings"`             // one for each label of Labels
	Structured       *Structured `json:"structured,omitempty"` // where the report was written as a form
	// Dropped are flagged sentences that the policy took out of the report: they are in no document, and Findings do not count them.
	Dropped []Sentence `json:"dropped,omitempty"`
	// Held says why the report waits for a person before it is delivered; empty where it does not.
	Held string `json:"held,omitempty"`
	// Calibration is what Evidence.True of the sentences was measured on; nil where evidence is uncalibrated.
	Calibration *Calibration `json:"calibration,omitempty"`
	Phantom     bool         `json:"phantom,omitempty"`
	Truncated   bool         `json:"truncated,omitempty"` // the model did not end its report within the token limit
	// NoEvidence says why no sentence has evidence: a model elsewhere may not give the log-probabilities that it is made of. Empty where each has.
	NoEvidence string    `json:"no_evidence,omitempty"`
	Revision   int       `json:"revision"` // counted by the archive from 1; 0 outside of one
	Created    time.Time `json:"created"`
	RunSeconds float64   `json:"run_seconds"` // sum of ONNX Runtime run times; of a model elsewhere the time its endpoint took
}

// DocumentKind names a result format.
type DocumentKind string

// The result formats.
const (
	FindingsSR  DocumentKind = "findings"  // TID 1500 in Comprehensive 3D SR
	NarrativeSR DocumentKind = "narrative" // TID 2000 in Basic Text SR
)

// Document is an encoded DICOM result.
type Document struct {
	Kind              DocumentKind
	StudyInstanceUID  string
	SeriesInstanceUID string
	SOPInstanceUID    string
	SOPClassUID       string
	Bytes             []byte // a DICOM file
	// Header is what Bytes say, where who has made them tells, with Transfer Syntax UID; else they are parsed.
	Header Dataset
}
