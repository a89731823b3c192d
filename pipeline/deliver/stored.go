package deliver

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// storeAnswer is what a STOW-RS answer says of each instance (PS3.18 annex I).
type storeAnswer struct {
	stored []string
	failed []failedInstance
}

type failedInstance struct {
	uid    string
	reason string // as 0111H; empty where none is given
}

// The attributes of a store instances response.
const (
	tagReferencedSOPSequence = "00081199"
	tagFailedSOPSequence     = "00081198"
	tagReferencedSOPInstance = "00081155"
	tagFailureReason         = "00081197"
)

// item is a data set: the values and items of its attributes by tag.
type item map[string]element

type element struct {
	values []string
	items  []item
}

func (i item) first(tag string) string {
	if v := i[tag].values; len(v) > 0 {
		return strings.Trim(v[0], " \x00")
	}
	return ""
}

// parseStored reads the DICOM JSON or XML of an answer; an error where it is neither, or no store instances response.
func parseStored(body []byte) (a storeAnswer, err error) {
	var all item
	if b := bytes.TrimSpace(body); len(b) > 0 && b[0] == '<' {
		var m xmlModel
		if err := xml.Unmarshal(b, &m); err != nil || m.XMLName.Local != "NativeDicomModel" {
			return a, errors.New("no Native DICOM Model")
		}
		all = m.item()
	} else {
		b = bytes.TrimSuffix(bytes.TrimPrefix(b, []byte("[")), []byte("]")) // some put the data set into an array
		if all, err = jsonItem(b); err != nil {
			return a, err
		}
	}
	for _, i := range all[tagReferencedSOPSequence].items {
		a.stored = append(a.stored, i.first(tagReferencedSOPInstance))
	}
	for _, i := range all[tagFailedSOPSequence].items {
		f := failedInstance{uid: i.first(tagReferencedSOPInstance)}
		if n, err := strconv.ParseUint(i.first(tagFailureReason), 10, 16); err == nil {
			f.reason = fmt.Sprintf("%04XH", n)
		}
		a.failed = append(a.failed, f)
	}
	if len(a.stored)+len(a.failed) == 0 {
		return a, errors.New("no instance is named")
	}
	return a, nil
}

// jsonItem reads a data set in DICOM JSON (PS3.18 annex F), two levels of it.
func jsonItem(b []byte) (item, error) {
	var raw map[string]struct{ Value []json.RawMessage }
	if err := json.Unmarshal(b, &raw); err != nil {
		return nil, err
	}
	out := item{}
	for tag, e := range raw {
		var x element
		for _, v := range e.Value {
			var text string
			var number json.Number
			switch {
			case json.Unmarshal(v, &text) == nil:
				x.values = append(x.values, text)
			case json.Unmarshal(v, &number) == nil:
				x.values = append(x.values, number.String())
			case slices.Contains([]string{tagReferencedSOPSequence, tagFailedSOPSequence}, tag):
				if i, err := jsonItem(v); err == nil {
					x.items = append(x.items, i)
				}
			}
		}
		out[tag] = x
	}
	return out, nil
}

// xmlModel is a data set in XML (PS3.19 annex A).
type xmlModel struct {
	XMLName    xml.Name
	Attributes []struct {
		Tag    string     `xml:"tag,attr"`
		Values []string   `xml:"Value"`
		Items  []xmlModel `xml:"Item"`
	} `xml:"DicomAttribute"`
}

func (m xmlModel) item() item {
	out := item{}
	for _, a := range m.Attributes {
		x := element{values: a.Values}
		for _, i := range a.Items {
			x.items = append(x.items, i.item())
		}
		out[a.Tag] = x
	}
	return out
}
