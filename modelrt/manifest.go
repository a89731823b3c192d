package modelrt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"chatxray/modelrt/remote"
	"chatxray/pipeline"
)

// Manifest is manifest.json of a bundle, as docs/bundle.md describes it key by key.
type Manifest struct {
	Version      int                `json:"version"`
	Kind         string             `json:"kind"` // KindRemote, or empty for a model that runs here
	Name         string             `json:"name"`
	Revision     string             `json:"revision"`
	License      string             `json:"license"`
	IntendedUse  string             `json:"intended_use"`
	TrainingData string             `json:"training_data"`
	Languages    []string           `json:"languages"`
	Family       string             `json:"family"` // "llava", also when empty
	Patients     Patients           `json:"patients"`
	Preprocess   Preprocess         `json:"preprocess"`
	Graphs       Graphs             `json:"graphs"`
	Vision       Vision             `json:"vision"`
	Decoder      Decoder            `json:"decoder"`
	Base         Base               `json:"base"`
	Tokenizer    TokenizerFile      `json:"tokenizer"`
	Prompt       Prompt             `json:"prompt"`
	Prompts      map[string]Wording `json:"prompts"` // by language; of the first language what prompt and report do not say
	Structured   StructuredFile     `json:"structured"`
	Generation   Generation         `json:"generation"`
	Report       ReportFormat       `json:"report"`
	Evidence     EvidenceFile       `json:"evidence"`
	Labels       []string           `json:"labels"`
	Boxes        Boxes              `json:"boxes"`
	Remote       *remote.Config     `json:"remote"` // nil unless Kind is KindRemote
	Files        map[string]File    `json:"files"`
}

// Patients says whose images the model was made for.
type Patients struct {
	MinAgeYears int `json:"min_age_years"` // 0 for no limit, also when absent
}

// Graphs names the ONNX graphs around the language model, which is in Base. A model without a vision encoder has no vision graph: its
// adapter takes the patches themselves. A model of text has neither.
type Graphs struct {
	Vision  string `json:"vision"`
	Adapter string `json:"adapter"`
}

// Vision gives the shapes of the vision graph and of the adapter.
type Vision struct {
	Input         string    `json:"input"`     // "image", also when empty, "patches" or "none"
	PatchDim      int       `json:"patch_dim"` // numbers of a patch
	Window        int       `json:"window"`    // side of the vision graph's windows, in embeddings; 0 for none
	FeatureTokens int       `json:"feature_tokens"`
	FeatureDim    int       `json:"feature_dim"`
	ImageTokens   int       `json:"image_tokens"`
	Findings      []string  `json:"findings"`   // labels of findings_logits, in its order; empty where there is no such output
	Thresholds    []float64 `json:"thresholds"` // the head's operating point for each of Findings; empty is 0.5 for each
	Views         []string  `json:"views"`      // views of view_logits, in its order, Frontal among them; empty where there is no such output
}

// Decoder gives the shapes of the decoder graph.
type Decoder struct {
	Layers    int     `json:"layers"`
	Heads     int     `json:"heads"`
	KVHeads   int     `json:"kv_heads"`
	HeadDim   int     `json:"head_dim"`
	Hidden    int     `json:"hidden"`
	Vocab     int     `json:"vocab"`
	MaxLength int     `json:"max_length"` // tokens of prompt and answer
	RopeTheta float64 `json:"rope_theta"` // base of the rotary positions of flat forms
	Positions string  `json:"positions"`  // "rope-1d", also when empty; "mrope-3d", "glm-2d" or "absolute"
	Mask      string  `json:"mask"`       // "causal", also when empty; "prefix" or "image-bidirectional"

	Rotary         int     `json:"rotary"`           // numbers of a head that rotary positions turn; 0 for all
	RopeFactor     float64 `json:"rope_factor"`      // positions are divided by it; 0 for 1. Not those of local layers
	RopeThetaLocal float64 `json:"rope_theta_local"` // base of layers that see a window; 0 where there are none with a base of their own
	RopeSections   []int   `json:"rope_sections"`    // of mrope-3d: pairs of a head turned by time, row and column
}

// rotary is how many numbers of a head are turned.
func (d Decoder) rotary() int {
	if d.Rotary == 0 {
		return d.HeadDim
	}
	return d.Rotary
}

// Base says how the language model is made of a base model, or, without a Part, that its weights are the bundle's own: in its graphs, or in
// a weights.bin that is one of the bundle's files.
type Base struct {
	Part    string `json:"part"`    // name of the run-time part that is the base model, a GGUF file; empty for none
	SHA256  string `json:"sha256"`  // of the base model; adapters name it
	Adapter string `json:"adapter"` // the LoRA that is used where none is asked for, a folder of adapters; empty for none
	Forms   []Form `json:"forms"`
}

// Form is one way to run the language model: two graphs and the weights.bin that is made for them. Forms stand in the order in which
// they are preferred.
type Form struct {
	Name          string `json:"name"` // what the option chooses it by
	Kind          string `json:"kind"` // KindFlat or KindGQA
	Embed         string `json:"embed"`
	Decoder       string `json:"decoder"`
	Layout        string `json:"layout"`
	WeightsSHA256 string `json:"weights_sha256"`
	WeightsBytes  int64  `json:"weights_bytes"`
	Precision     string `json:"precision"` // of a gqa form's caches: "float32", also when empty, "float16" or "bfloat16"
}

// halved says whether the form is of 16 bits.
func (f *Form) halved() bool {
	return f.Precision == precisionFloat16 || f.Precision == precisionBFloat16
}

// The precisions of forms of the kind gqa.
const (
	precisionFloat32  = "float32"
	precisionFloat16  = "float16"
	precisionBFloat16 = "bfloat16"
)

// The kinds of forms.
const (
	KindFlat = "flat" // operators of package kernel, CPU only; the LoRA stands beside the matrices
	KindGQA  = "gqa"  // standard operators and GroupQueryAttention, any device (CUDA: not in float32); the LoRA is added to the matrices
)

// form returns the form called name, or, where name is empty, the first that the device runs.
func (m *Manifest) form(name string, device Device) (*Form, error) {
	var names []string
	for i := range m.Base.Forms {
		f := &m.Base.Forms[i]
		names = append(names, f.Name)
		if f.Name == name || name == "" && (device == CPU || f.halved()) {
			return f, nil
		}
	}
	if name == "" {
		return nil, fmt.Errorf("%w: bundle %s has no form of its language model for the device %s; it has %s", pipeline.ErrUnsupported, m.Name, device, strings.Join(names, ", "))
	}
	return nil, fmt.Errorf("%w: bundle %s has no form %q of its language model; it has %s", pipeline.ErrNotFound, m.Name, name, strings.Join(names, ", "))
}

// TokenizerFile names the tokenizer.
type TokenizerFile struct {
	Type string `json:"type"` // "byte_level_bpe"
	File string `json:"file"`
}

// Prompt is the text around the image.
type Prompt struct {
	Splice   string `json:"splice"` // "replace_sentinel", "overwrite_pads", "prepend" or "rows_with_newline"
	Sentinel string `json:"sentinel"`
	Template string `json:"template"` // the report's prompt, which holds Sentinel once; empty where there is an Instruction

	ChatTemplate string `json:"chat_template"` // a file, Hugging Face's chat_template.jinja; empty for a model without conversations
	Instruction  string `json:"instruction"`   // the report's prompt is the chat template around one message of the user: an image, and this
	BOS          string `json:"bos_token"`     // the chat template's variables of these names, as spelled in the vocabulary
	EOS          string `json:"eos_token"`
	Images       int    `json:"images"` // the most that a conversation may have; 0 for 1

	ImageToken string `json:"image_token"` // stands at every place of an image in the ids; may be empty
	ImageStart string `json:"image_start"` // text before an image
	ImageEnd   string `json:"image_end"`   // and after it
	RowEnd     string `json:"row_end"`     // token after each row of an image's embeddings
}

// Generation bounds the answer.
type Generation struct {
	MaxNewTokens int      `json:"max_new_tokens"`
	StopTokens   []string `json:"stop_tokens"`
	StopStrings  []string `json:"stop_strings"`
}

// ReportFormat says how the answer is divided.
type ReportFormat struct {
	ImpressionPrefix string `json:"impression_prefix"` // what follows it is the impression; empty where there is none
}

// EvidenceFile names the decoys, and says what evidence was worth on planted sentences where that was measured.
type EvidenceFile struct {
	Decoys      string `json:"decoys"`
	Calibration *Curve `json:"calibration"` // nil: uncalibrated
}

// Curve is the share of true ones among planted sentences by the fall of their likelihood: points, ascending, straight lines between them and
// level beyond.
type Curve struct {
	pipeline.Calibration
	Drop []float64 `json:"drop"`
	True []float64 `json:"true_share"`
}

// File is what a bundle's file must be.
type File struct {
	SHA256 pipeline.Digest `json:"sha256"`
	Bytes  int64           `json:"bytes"`
}

// The limits of a manifest. They keep what a hostile one can make us allocate small beside a real model.
const (
	maxManifest   = 1 << 20
	maxTokens     = 1 << 16 // of prompt, image and answer
	maxLayers     = 256
	maxWidth      = 1 << 16
	maxVocabulary = 1 << 20
	maxWeights    = 1 << 40
	maxFeatures   = 1 << 28 // values
	maxViews      = 16
	maxForms      = 8
	maxWord       = 64      // bytes
	maxCache      = 1 << 31 // values, of one row
	manifestName  = "manifest.json"
	weightsName   = "weights.bin"

	imageWeightsName = "image.bin" // external data of vision and adapter, where they have any
)

// ParseManifest reads manifest.json. Every fault is in the error, which wraps pipeline.ErrInvalid (pipeline.ErrUnsupported where
// all that is wrong is a version or kind that this program does not know).
func ParseManifest(b []byte) (*Manifest, error) {
	m, faults := readManifest(b)
	if err := faults.all(); err != nil {
		return nil, err
	}
	return m, nil
}

// manifestFaults is what is wrong with a manifest. Without wrong, what its keys say can be counted on.
type manifestFaults struct{ strange, wrong []error }

func (f manifestFaults) all() error { return errors.Join(slices.Concat(f.strange, f.wrong)...) }

// each replaces every fault.
func (f manifestFaults) each(with func(error) error) {
	for _, list := range [][]error{f.strange, f.wrong} {
		for i, err := range list {
			list[i] = with(err)
		}
	}
}

// readManifest is ParseManifest that also returns a manifest with faults; nil where it is none of this version.
func readManifest(b []byte) (*Manifest, manifestFaults) {
	none := func(sentinel error, format string, a ...any) (*Manifest, manifestFaults) {
		return nil, manifestFaults{wrong: []error{fmt.Errorf("%w %s: %s", sentinel, manifestName, fmt.Sprintf(format, a...))}}
	}
	if len(b) > maxManifest {
		return none(pipeline.ErrInvalid, "larger than %d bytes", maxManifest)
	}
	m := &Manifest{}
	if err := json.Unmarshal(b, m); err != nil {
		return none(pipeline.ErrInvalid, "%v", err)
	}
	if m.Version != 1 {
		return none(pipeline.ErrUnsupported, "version %d of the bundle format; this program reads version 1", m.Version)
	}
	check := m.faults
	if m.Kind == KindRemote {
		check = m.remoteFaults
		m.Preprocess.gray()
	}
	f := manifestFaults{strangeKeys(b, m), check()}
	f.each(func(err error) error { return fmt.Errorf("%s: %w", manifestName, err) })
	return m, f
}

// strangeKeys lists the keys of b that the manifest does not have (spelled exactly) or has twice.
func strangeKeys(b []byte, m *Manifest) (faults []error) {
	canonical, err := json.Marshal(m)
	if err != nil {
		return []error{fmt.Errorf("%w: %v", pipeline.ErrInvalid, err)}
	}
	known := map[string]int{}
	if err := countKeys(json.NewDecoder(bytes.NewReader(canonical)), "", known); err != nil {
		return []error{fmt.Errorf("%w: %v", pipeline.ErrInvalid, err)}
	}
	given := map[string]int{}
	d := json.NewDecoder(bytes.NewReader(b))
	if err := countKeys(d, "", given); err != nil {
		return []error{fmt.Errorf("%w: %v", pipeline.ErrInvalid, err)}
	}
	if _, err := d.Token(); err != io.EOF {
		faults = append(faults, fmt.Errorf("%w: more than one JSON value", pipeline.ErrInvalid))
	}
	for key, n := range given {
		switch {
		case known[key] == 0:
			faults = append(faults, fmt.Errorf("%w: unknown key %s", pipeline.ErrInvalid, key))
		case n > 1:
			faults = append(faults, fmt.Errorf("%w: key %s stands there %d times", pipeline.ErrInvalid, key, n))
		}
	}
	slices.SortFunc(faults, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return faults
}

// countKeys counts the keys of one JSON value by their path, "decoder.layers". encoding/json bounds the depth.
func countKeys(d *json.Decoder, path string, count map[string]int) error {
	t, err := d.Token()
	if err != nil {
		return err
	}
	switch t {
	case json.Delim('{'):
		for d.More() {
			key, err := d.Token()
			if err != nil {
				return err
			}
			at := strings.TrimPrefix(path+"."+key.(string), ".")
			count[at]++
			if err := countKeys(d, at, count); err != nil {
				return err
			}
		}
		_, err = d.Token()
	case json.Delim('['):
		for i := 0; d.More(); i++ {
			if err := countKeys(d, fmt.Sprintf("%s[%d]", path, i), count); err != nil {
				return err
			}
		}
		_, err = d.Token()
	}
	return err
}
