package dicomweb

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"chatxray/pipeline"
)

// appendXML writes a data set as Native DICOM Model (PS3.19 annex A.1), for clients that do not know JSON.
func (s *server) appendXML(b []byte, d pipeline.Dataset) []byte {
	return model{keyword: s.Keyword}.appendXML(b, d)
}

func (m model) appendXML(b []byte, d pipeline.Dataset) []byte {
	w := bytes.NewBuffer(b)
	w.WriteString(xml.Header + `<NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM" xml:space="preserve">`)
	m.writeXML(w, d, "")
	w.WriteString(`</NativeDicomModel>`)
	return w.Bytes()
}

func (m model) writeXML(w *bytes.Buffer, d pipeline.Dataset, at string) {
	owners := privateOwners(d)
	m.each(d, at, func(e pipeline.Element, path string, there bool) {
		m.startXML(w, e, owners)
		for i, item := range e.Items {
			fmt.Fprintf(w, `<Item number="%d">`, i+1)
			m.writeXML(w, item, path+"/"+strconv.Itoa(i+1)+"/")
			w.WriteString(`</Item>`)
		}
		switch {
		case there, len(e.Bytes) > inlineLimit && m.bulk != nil:
			w.WriteString(`<BulkData uri="`)
			_ = xml.EscapeText(w, []byte(m.bulk(path)))
			w.WriteString(`"/>`)
		case len(e.Bytes) > 0:
			w.WriteString(`<InlineBinary>` + base64.StdEncoding.EncodeToString(e.Bytes) + `</InlineBinary>`)
		}
		for i, v := range textValues(e) {
			if e.VR == "PN" {
				writeXMLName(w, i+1, v)
				continue
			}
			fmt.Fprintf(w, `<Value number="%d">`, i+1)
			_ = xml.EscapeText(w, []byte(v)) // a buffer does not fail
			w.WriteString(`</Value>`)
		}
		w.WriteString(`</DicomAttribute>`)
	})
}

// startXML opens a DicomAttribute. A private attribute is named by its creator and without the block that the data set gives it (table
// A.1.5-2).
func (m model) startXML(w *bytes.Buffer, e pipeline.Element, owners map[pipeline.Tag]string) {
	tag, owner := e.Tag, owners[blockOf(e.Tag)]
	if owner != "" {
		tag &= 0xFFFF00FF
	}
	fmt.Fprintf(w, `<DicomAttribute tag="%08X" vr="%s"`, uint32(tag), vrOf(e))
	if m.keyword != nil {
		if keyword, _, ok := m.keyword(e.Tag); ok {
			w.WriteString(` keyword="` + keyword + `"`)
		}
	}
	if owner != "" {
		w.WriteString(` privateCreator="`)
		_ = xml.EscapeText(w, []byte(owner)) // a buffer does not fail
		w.WriteString(`"`)
	}
	w.WriteString(`>`)
}

// textValues are the values of an element that is neither a sequence nor binary.
func textValues(e pipeline.Element) []string {
	if e.Tag == pipeline.TagSpecificCharacterSet {
		return []string{"ISO_IR 192"}
	}
	out := slices.Clip(e.Text) // what is appended is not the data set's
	for _, n := range e.Ints {
		s := strconv.FormatInt(n, 10)
		if e.VR == "AT" {
			s = fmt.Sprintf("%08X", uint32(n))
		}
		out = append(out, s)
	}
	for _, f := range e.Floats {
		out = append(out, strconv.FormatFloat(f, 'g', -1, 64))
	}
	return out
}

func writeXMLName(w *bytes.Buffer, n int, v string) {
	fmt.Fprintf(w, `<PersonName number="%d">`, n)
	groups := strings.SplitN(v, "=", 3)
	for i, group := range [...]string{"Alphabetic", "Ideographic", "Phonetic"} {
		if i >= len(groups) || groups[i] == "" {
			continue
		}
		w.WriteString("<" + group + ">")
		components := strings.SplitN(groups[i], "^", 5)
		for j, name := range [...]string{"FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix"} {
			if j < len(components) && components[j] != "" {
				w.WriteString("<" + name + ">")
				_ = xml.EscapeText(w, []byte(components[j]))
				w.WriteString("</" + name + ">")
			}
		}
		w.WriteString("</" + group + ">")
	}
	w.WriteString(`</PersonName>`)
}
