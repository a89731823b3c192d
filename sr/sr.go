package sr

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/text/language"

	"chatxray/pipeline"
)

// Input is all that a set of documents is made from.
type Input struct {
	Reading *pipeline.Reading
	// Header is the header of the first image read: patient, study, request and procedure attributes are repeated from it.
	Header pipeline.Dataset
	// Software is the version of this program, for General Equipment and the text of the report.
	Software string
	// Station names the installation that wrote the report (Station Name, at most 16 characters); empty means "CHATXRAY". All
	// replicas of an installation must give the same one, as a retry has to write the same bytes.
	Station string
	// Zone is the time zone of the installation. It counts where the header has no Timezone Offset From UTC.
	Zone *time.Location
	// Predecessors are the documents that this reading replaces. Each kind names those of its own kind.
	Predecessors []pipeline.DocumentRef
}

// Encoder turns a data set into a DICOM file in Explicit VR Little Endian with file meta information, text in UTF-8. It takes SOP class and instance from the
// data set.
type Encoder func(pipeline.Dataset) ([]byte, error)

const explicitVRLittleEndian = "1.2.840.10008.1.2.1" // PS3.5 annex A.2

// format is one kind of result. It registers itself from its own file.
type format struct {
	kind         pipeline.DocumentKind
	class        string // SOP Class UID
	seriesNumber string // each kind is a series of its own
	series       string // Series Description, at most 55 characters
	root         func(*draft) pipeline.Dataset
}

var formats = map[pipeline.DocumentKind]*format{}

func register(f *format) {
	if formats[f.kind] != nil {
		panic("sr: two formats are named " + string(f.kind))
	}
	formats[f.kind] = f
}

// Kinds returns the registered result formats, sorted.
func Kinds() []pipeline.DocumentKind {
	var kinds []pipeline.DocumentKind
	for k := range formats {
		kinds = append(kinds, k)
	}
	slices.Sort(kinds)
	return kinds
}

// Documents writes every kind of document about a reading, in the order of Kinds. An Input that is not whole is refused with an
// error that wraps pipeline.ErrInvalid (no image, no model, a sentence without evidence, a header of another study ...); then no
// document is made at all.
func Documents(in Input, enc Encoder) ([]pipeline.Document, error) {
	d, err := newDraft(in)
	if err != nil {
		return nil, err
	}
	var docs []pipeline.Document
	for _, kind := range Kinds() {
		ds := d.dataset(formats[kind])
		b, err := enc(ds)
		if err != nil {
			return nil, fmt.Errorf("study %s: encoding the %s document: %w", in.Reading.StudyInstanceUID, kind, err)
		}
		ds.SetText(pipeline.TagTransferSyntaxUID, "UI", explicitVRLittleEndian)
		docs = append(docs, pipeline.Document{
			Kind:              kind,
			StudyInstanceUID:  ds.String(pipeline.TagStudyInstanceUID),
			SeriesInstanceUID: ds.String(pipeline.TagSeriesInstanceUID),
			SOPInstanceUID:    ds.String(pipeline.TagSOPInstanceUID),
			SOPClassUID:       ds.String(pipeline.TagSOPClassUID),
			Bytes:             b,
			Header:            ds,
		})
	}
	return docs, nil
}

// Dataset writes one kind of document, without file meta information. Its errors are those of Documents, and
// pipeline.ErrUnsupported for a kind that is not registered.
func Dataset(in Input, kind pipeline.DocumentKind) (pipeline.Dataset, error) {
	f := formats[kind]
	if f == nil {
		return nil, fmt.Errorf("no result format is named %q; there are %q: %w", kind, Kinds(), pipeline.ErrUnsupported)
	}
	d, err := newDraft(in)
	if err != nil {
		return nil, err
	}
	return d.dataset(f), nil
}

// dataset makes a document of the draft.
func (d *draft) dataset(f *format) pipeline.Dataset {
	d.format, d.name = f, identity(d.Reading, f.kind)
	ds := d.header()
	root := f.root(d)
	if at := column(d.language); at >= 0 {
		translate(root, at, true)
	}
	for _, e := range root {
		ds.Set(e)
	}
	ds.SetItems(pipeline.TagCodingSchemeIdentificationSequence, codingSchemes(ds)...)
	return ds
}

// draft is what documents are written from: an Input that passed the check, and what follows from it.
type draft struct {
	Input
	*format         // of the document that is being written
	name     string // its identity
	language language.Tag
	written  time.Time // Reading.Created in the offset of the study
	images   []pipeline.InputRef
	device   string // Device UID of the algorithm
}

func newDraft(in Input) (*draft, error) {
	if err := check(in); err != nil {
		return nil, err
	}
	d := &draft{Input: in, device: DeviceUID(in.Reading.Model)}
	d.language, _ = language.Parse(in.Reading.Language)
	d.written = in.Reading.Created.In(zone(in.Header, in.Zone, in.Reading.Created))
	if d.Station == "" {
		d.Station = "CHATXRAY"
	}
	for _, ref := range in.Reading.Inputs {
		if !slices.ContainsFunc(d.images, func(o pipeline.InputRef) bool {
			return o.SOPInstanceUID == ref.SOPInstanceUID && o.Frame == ref.Frame
		}) {
			d.images = append(d.images, ref)
		}
	}
	return d, nil
}
