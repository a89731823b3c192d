package dicomweb

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"strconv"
	"strings"

	"chatxray/pipeline"
)

// jsonElement is an attribute in the DICOM JSON model (PS3.18 section F.2.2).
type jsonElement struct {
	VR           string            `json:"vr"`
	Value        []json.RawMessage `json:"Value"`
	InlineBinary string            `json:"InlineBinary"`
	BulkDataURI  string            `json:"BulkDataURI"`
}

// reader counts what a model has, so that a small request does not become a large one in memory.
type reader struct{ elements int }

func (r *reader) count() error {
	if r.elements++; r.elements > maxModelElements {
		return fmt.Errorf("%w: more than %d attributes", errModel, maxModelElements)
	}
	return nil
}

// maxWeight is what metadata may take in memory.
const maxWeight = 256 << 20

// weigh tells about how many bytes metadata take in memory while they are read: what every attribute, item and value makes, however short it
// is in the text.
func weigh(kind string, b []byte) (n int) {
	if kind == mediaXML {
		return len(b) + 128*bytes.Count(b, []byte("<")) + 64*bytes.Count(b, []byte("="))
	}
	quoted := false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			quoted = !quoted
		case quoted && c == '\\':
			i++
		case quoted:
		case c == '{':
			n += 384
		case c == ',':
			n += 64
		}
	}
	return len(b) + n
}

// readJSON reads the data sets of a JSON model: an array of them, or one.
func readJSON(b []byte) ([]rawDataset, error) {
	var sets []json.RawMessage
	switch b = bytes.TrimSpace(bytes.TrimPrefix(bytes.TrimSpace(b), []byte("\xEF\xBB\xBF"))); {
	case len(b) > 0 && b[0] == '{':
		sets = []json.RawMessage{b}
	default:
		if err := json.Unmarshal(b, &sets); err != nil {
			return nil, fmt.Errorf("%w: it is no array of JSON objects: %v", errModel, jsonText(err))
		}
	}
	r := new(reader)
	out := make([]rawDataset, len(sets))
	for i, set := range sets {
		var err error
		if out[i], err = r.json(set, 0); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// jsonText keeps what a client sent out of a message.
func jsonText(err error) string {
	switch s := err.Error(); {
	case strings.Contains(s, "max depth"):
		return "it is nested more than 10,000 deep"
	case strings.Contains(s, "unexpected end"):
		return "it ends too early"
	}
	return "its syntax is wrong"
}

func (r *reader) json(b []byte, depth int) (rawDataset, error) {
	if depth > maxModelDepth {
		return nil, fmt.Errorf("%w: sequences are nested more than %d deep", errModel, maxModelDepth)
	}
	var set map[string]jsonElement
	if err := json.Unmarshal(b, &set); err != nil {
		return nil, fmt.Errorf("%w: a data set is no JSON object of attributes: %v", errModel, jsonText(err))
	}
	out := make(rawDataset, 0, len(set))
	for name, e := range set {
		if err := r.count(); err != nil {
			return nil, err
		}
		n, err := strconv.ParseUint(name, 16, 32)
		if err != nil || len(name) != 8 {
			return nil, fmt.Errorf("%w: the name %q is no tag of eight hexadecimal digits", errModel, printable(name))
		}
		raw := rawElement{tag: pipeline.Tag(n), vr: e.VR, inline: e.InlineBinary, uri: e.BulkDataURI}
		for _, v := range e.Value {
			if e.VR == "SQ" {
				item := rawDataset{}
				if string(v) != "null" {
					if item, err = r.json(v, depth+1); err != nil {
						return nil, err
					}
				}
				raw.items = append(raw.items, item)
				continue
			}
			text, err := jsonValue(v)
			if err != nil {
				return nil, fmt.Errorf("%w: %v: %v", errModel, raw.tag, err)
			}
			raw.values = append(raw.values, text)
		}
		out = append(out, raw)
	}
	return out, nil
}

// jsonValue reads a string, a number, null or a person name.
func jsonValue(v json.RawMessage) (string, error) {
	switch {
	case string(v) == "null":
		return "", nil
	case v[0] == '"':
		var s string
		err := json.Unmarshal(v, &s)
		return s, err
	case v[0] == '{':
		var name struct{ Alphabetic, Ideographic, Phonetic string }
		if err := json.Unmarshal(v, &name); err != nil {
			return "", fmt.Errorf("a value is no person name")
		}
		return strings.TrimRight(name.Alphabetic+"="+name.Ideographic+"="+name.Phonetic, "="), nil
	case v[0] == '-' || v[0] >= '0' && v[0] <= '9':
		return string(v), nil
	}
	return "", fmt.Errorf("a value is neither text, number nor person name")
}

// readXML reads one data set of the Native DICOM Model (PS3.19 annex A.1). Document types and entities of its own are refused.
func readXML(b []byte) (rawDataset, error) {
	d := xml.NewDecoder(bytes.NewReader(b))
	d.CharsetReader = func(name string, _ io.Reader) (io.Reader, error) {
		return nil, fmt.Errorf("the encoding %q; send UTF-8", printable(name))
	}
	x := xmlReader{d: d}
	start, err := x.next()
	if err != nil || start == nil || start.Name.Local != "NativeDicomModel" {
		return nil, fmt.Errorf("%w: it is no NativeDicomModel in XML", errModel)
	}
	return x.dataset(0)
}

type xmlReader struct {
	reader
	d *xml.Decoder
}

// next returns the next start of an element, or nil at the end of the one around it.
func (x *xmlReader) next() (*xml.StartElement, error) {
	for {
		t, err := x.d.Token()
		if err != nil {
			return nil, fmt.Errorf("%w: the XML is broken or has entities of its own", errModel)
		}
		switch t := t.(type) {
		case xml.StartElement:
			return &t, nil
		case xml.EndElement:
			return nil, nil
		case xml.Directive:
			return nil, fmt.Errorf("%w: a document type is not taken", errModel)
		}
	}
}

func attribute(e *xml.StartElement, name string) string {
	for _, a := range e.Attr {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

func (x *xmlReader) dataset(depth int) (rawDataset, error) {
	if depth > maxModelDepth {
		return nil, fmt.Errorf("%w: sequences are nested more than %d deep", errModel, maxModelDepth)
	}
	out := rawDataset{}
	for {
		e, err := x.next()
		if err != nil {
			return nil, err
		}
		if e == nil {
			return placePrivate(out)
		}
		tag, perr := strconv.ParseUint(attribute(e, "tag"), 16, 32)
		if e.Name.Local != "DicomAttribute" || perr != nil || len(attribute(e, "tag")) != 8 {
			return nil, fmt.Errorf("%w: an element is no DicomAttribute with a tag of eight hexadecimal digits", errModel)
		}
		if err := x.count(); err != nil {
			return nil, err
		}
		raw := rawElement{tag: pipeline.Tag(tag), vr: attribute(e, "vr"), creator: attribute(e, "privateCreator")}
		if err := x.attribute(&raw, depth); err != nil {
			return nil, err
		}
		out = append(out, raw)
	}
}

// attribute reads what is inside of a DicomAttribute.
func (x *xmlReader) attribute(raw *rawElement, depth int) error {
	for {
		e, err := x.next()
		if err != nil || e == nil {
			return err
		}
		if err := x.count(); err != nil {
			return err
		}
		var text string
		switch e.Name.Local {
		case "Value":
			if text, err = x.text(); err == nil {
				err = x.numbered(raw, attribute(e, "number"), text)
			}
		case "PersonName":
			if text, err = x.name(); err == nil {
				err = x.numbered(raw, attribute(e, "number"), text)
			}
		case "Item":
			var item rawDataset
			if item, err = x.dataset(depth + 1); err == nil {
				raw.items = append(raw.items, item)
			}
		case "InlineBinary":
			raw.inline, err = x.text()
		case "BulkData":
			if raw.uri = attribute(e, "uri"); raw.uri == "" {
				raw.uri = attribute(e, "uuid")
			}
			_, err = x.text()
		default:
			err = fmt.Errorf("%w: %v: an element %q", errModel, raw.tag, printable(e.Name.Local))
		}
		if err != nil {
			return err
		}
	}
}

// numbered puts a value where its number says: empty ones between may be left out, but count.
func (x *xmlReader) numbered(raw *rawElement, number, text string) error {
	if n, err := strconv.Atoi(number); err == nil && n > len(raw.values)+1 && n <= len(raw.values)+1024 {
		missing := n - 1 - len(raw.values)
		if x.elements += missing; x.elements > maxModelElements {
			return x.count()
		}
		raw.values = append(raw.values, make([]string, missing)...)
	}
	raw.values = append(raw.values, text)
	return nil
}

// text reads the text of an element without children.
func (x *xmlReader) text() (string, error) {
	var b strings.Builder
	for {
		t, err := x.d.Token()
		if err != nil {
			return "", fmt.Errorf("%w: the XML is broken or has entities of its own", errModel)
		}
		switch t := t.(type) {
		case xml.CharData:
			b.Write(t)
		case xml.EndElement:
			return b.String(), nil
		case xml.StartElement:
			return "", fmt.Errorf("%w: an element %q inside of a value", errModel, printable(t.Name.Local))
		}
	}
}

// name reads the component groups of a person name.
func (x *xmlReader) name() (string, error) {
	var groups [3]string
	for {
		e, err := x.next()
		if err != nil {
			return "", err
		}
		if e == nil {
			return strings.TrimRight(strings.Join(groups[:], "="), "="), nil
		}
		var components [5]string
		for {
			c, err := x.next()
			if err != nil {
				return "", err
			}
			if c == nil {
				break
			}
			text, err := x.text()
			if err != nil {
				return "", err
			}
			for i, name := range nameComponents {
				if name == c.Name.Local {
					components[i] = text
				}
			}
		}
		for i, name := range nameGroups {
			if name == e.Name.Local {
				groups[i] = strings.TrimRight(strings.Join(components[:], "^"), "^")
			}
		}
	}
}

var (
	nameGroups     = [...]string{"Alphabetic", "Ideographic", "Phonetic"}
	nameComponents = [...]string{"FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix"}
)
