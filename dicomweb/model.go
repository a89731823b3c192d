package dicomweb

import (
	"encoding/base64"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"chatxray/pipeline"
)

// rawElement is an attribute as JSON or XML have it, before its VR has been looked at.
type rawElement struct {
	tag     pipeline.Tag
	vr      string
	values  []string // text, numbers, tags; names with their groups joined; "" for a value that is empty
	items   []rawDataset
	inline  string // base64
	uri     string // BulkDataURI
	creator string // of a private attribute in XML, whose tag then has no block
}

type rawDataset []rawElement

const (
	maxModelDepth    = 16      // sequences within sequences, as files may have
	maxModelElements = 1 << 20 // of one request
)

// modelled is a data set that came as metadata, and the bulk data that it names.
type modelled struct {
	ds   pipeline.Dataset
	uris map[string]string // by path, as pipeline.Bulk has it
	err  *faulty           // why it is no data set; ds has what could be read
}

// build makes a data set. allows tells which VRs an attribute may have.
func build(raw rawDataset, allows func(pipeline.Tag, string) bool) modelled {
	m := modelled{uris: map[string]string{}}
	m.ds = m.dataset(raw, "", allows)
	m.utf8()
	return m
}

func (m *modelled) fail(r rawElement, format string, a ...any) {
	if m.err == nil {
		m.err = &faulty{err: fmt.Errorf("%w: %v: %s", errModel, r.tag, fmt.Sprintf(format, a...))}
	}
	if len(m.err.attributes) < maxFaulty {
		m.err.attributes = append(m.err.attributes, pipeline.Element{Tag: r.tag, VR: r.vr})
	}
}

// faulty is an error about attributes of an instance. The answer names them.
type faulty struct {
	attributes []pipeline.Element // tag and VR
	err        error
}

// maxFaulty is how many attributes an answer names.
const maxFaulty = 50

func (f *faulty) Error() string { return f.err.Error() }

// Unwrap returns the error without the attributes.
func (f *faulty) Unwrap() error { return f.err }

func (m *modelled) dataset(raw rawDataset, at string, allows func(pipeline.Tag, string) bool) pipeline.Dataset {
	slices.SortStableFunc(raw, func(a, b rawElement) int { return int(int64(a.tag) - int64(b.tag)) })
	out := make(pipeline.Dataset, 0, len(raw))
	for i, r := range raw {
		switch {
		case i > 0 && r.tag == raw[i-1].tag:
			m.fail(r, "it is there twice")
			continue
		case r.tag.Group() <= 2 || r.tag.Element() == 0: // of the file or a message, not of the object
			continue
		case at != "" && r.tag == pipeline.TagSpecificCharacterSet:
			continue
		case !allows(r.tag, r.vr):
			m.fail(r, "the value representation %q is not one that the standard gives this attribute", printable(r.vr))
			continue
		}
		path := fmt.Sprintf("%s%08X", at, uint32(r.tag))
		e := pipeline.Element{Tag: r.tag, VR: r.vr}
		switch {
		case r.uri != "":
			m.uris[path] = r.uri
		case r.inline != "":
			m.inline(&e, r)
		case len(r.items) > 0 && r.vr != "SQ", len(r.values) > 0 && r.vr == "SQ":
			m.fail(r, "its values do not go with %q", printable(r.vr))
		default:
			for n, item := range r.items {
				e.Items = append(e.Items, m.dataset(item, path+"/"+strconv.Itoa(n+1)+"/", allows))
			}
			m.values(&e, r)
		}
		out = append(out, e)
	}
	return out
}

// words are the VRs of bytes.
var words = []string{"OB", "OW", "OL", "OV", "OF", "OD", "UN"}

func (m *modelled) inline(e *pipeline.Element, r rawElement) {
	var err error
	if e.Bytes, err = base64.StdEncoding.DecodeString(strings.Join(strings.Fields(r.inline), "")); err != nil {
		m.fail(r, "its InlineBinary is no base64")
	}
	if !slices.Contains(words, r.vr) {
		m.fail(r, "%q has no InlineBinary", printable(r.vr))
	}
}

func (m *modelled) values(e *pipeline.Element, r rawElement) {
	switch e.VR {
	case "SQ":
	case "OB", "OW", "OL", "OV", "OF", "OD", "UN":
		if len(r.values) > 0 {
			m.fail(r, "%s has an InlineBinary or a BulkDataURI, no values", e.VR)
		}
	case "AT":
		for _, v := range r.values {
			n, err := strconv.ParseUint(v, 16, 32)
			if err != nil || len(v) != 8 {
				m.fail(r, "a value is no tag of eight hexadecimal digits")
			}
			e.Ints = append(e.Ints, int64(n))
		}
	case "US", "UL", "UV":
		for _, v := range r.values {
			n, err := strconv.ParseUint(v, 10, map[string]int{"US": 16, "UL": 32, "UV": 64}[e.VR])
			if err != nil {
				m.fail(r, "a value is no number in the range of %s", e.VR)
			}
			e.Ints = append(e.Ints, int64(n))
		}
	case "SS", "SL", "SV":
		for _, v := range r.values {
			n, err := strconv.ParseInt(v, 10, map[string]int{"SS": 16, "SL": 32, "SV": 64}[e.VR])
			if err != nil {
				m.fail(r, "a value is no number in the range of %s", e.VR)
			}
			e.Ints = append(e.Ints, n)
		}
	case "FL", "FD":
		for _, v := range r.values {
			f, err := strconv.ParseFloat(v, 64)
			if err != nil || e.VR == "FL" && !math.IsInf(f, 0) && math.Abs(f) > math.MaxFloat32 {
				m.fail(r, "a value is no number in the range of %s", e.VR)
			}
			e.Floats = append(e.Floats, f)
		}
	default:
		e.Text = r.values
		if e.VR == "UI" && slices.ContainsFunc(e.Text, func(v string) bool { return v != "" && !pipeline.ValidUID(v) }) {
			m.fail(r, "a value is no UID")
		}
		if (e.VR == "DS" || e.VR == "IS") && slices.ContainsFunc(e.Text, notNumber) {
			m.fail(r, "a value is no number")
		}
		if slices.ContainsFunc(e.Text, func(v string) bool { return strings.ContainsRune(v, 0) }) {
			m.fail(r, "a value has a NUL in it")
		}
	}
}

func notNumber(v string) bool {
	_, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
	return strings.TrimSpace(v) != "" && err != nil
}

// utf8 declares the text as what JSON and XML are written in, where that makes a difference.
func (m *modelled) utf8() {
	if !ascii(m.ds) || len(m.ds.Strings(pipeline.TagSpecificCharacterSet)) > 1 {
		m.ds.SetText(pipeline.TagSpecificCharacterSet, "CS", "ISO_IR 192")
	}
}

func ascii(d pipeline.Dataset) bool {
	for _, e := range d {
		for _, v := range e.Text {
			if strings.ContainsFunc(v, func(r rune) bool { return r > '~' }) {
				return false
			}
		}
		if slices.ContainsFunc(e.Items, func(item pipeline.Dataset) bool { return !ascii(item) }) {
			return false
		}
	}
	return true
}

// set puts bulk data in their place.
func (m *modelled) set(path string, b []byte) {
	d := m.ds
	for fields := strings.Split(path, "/"); ; fields = fields[2:] {
		tag, _ := strconv.ParseUint(fields[0], 16, 32)
		i := slices.IndexFunc(d, func(e pipeline.Element) bool { return e.Tag == pipeline.Tag(tag) })
		if i < 0 {
			return
		}
		if len(fields) == 1 {
			if len(b)%2 == 1 {
				b = append(b, 0)
			}
			d[i].Bytes = b
			if !slices.Contains(words, d[i].VR) {
				m.fail(rawElement{tag: d[i].Tag, vr: d[i].VR}, "%s has no bulk data", d[i].VR)
			}
			return
		}
		n, _ := strconv.Atoi(fields[1])
		d = d[i].Items[n-1]
	}
}

// identity is the instance that a data set says it is; its UIDs are empty where they are missing or wrong.
func (m *modelled) identity() *pipeline.Instance {
	uid := func(t pipeline.Tag) string {
		if v := m.ds.String(t); pipeline.ValidUID(v) {
			return v
		}
		return ""
	}
	return &pipeline.Instance{StudyInstanceUID: uid(pipeline.TagStudyInstanceUID), SeriesInstanceUID: uid(pipeline.TagSeriesInstanceUID),
		SOPInstanceUID: uid(pipeline.TagSOPInstanceUID), SOPClassUID: uid(pipeline.TagSOPClassUID)}
}
