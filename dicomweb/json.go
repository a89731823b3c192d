package dicomweb

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"chatxray/pipeline"
)

// inlineLimit is the length in bytes up to which a binary value stands in the JSON itself.
const inlineLimit = 4096

// appendJSON writes a data set in the DICOM JSON model (PS3.18 annex F), without the File Meta Information. Text is UTF-8, so
// Specific Character Set says that. bulk makes the BulkDataURI of a long binary value from its path (gggeeee[/item/ggggeeee...], items
// from 1); nil writes every value in line.
func appendJSON(b []byte, d pipeline.Dataset, bulk func(path string) string) []byte {
	return model{bulk: bulk}.appendItem(b, d, "")
}

// model is how a data set is written: bulk makes the BulkDataURI of a value; left are the values that the data set leaves out.
type model struct {
	bulk    func(path string) string
	left    map[string][]pipeline.Bulk                           // by the path of the data set that they belong to: "", or ggggeeee/item/
	keyword func(tag pipeline.Tag) (keyword, vr string, ok bool) // for XML; nil writes no keywords
}

// newModel sorts what a header leaves out.
func newModel(left []pipeline.Bulk, bulk func(string) string) model {
	m := model{bulk: bulk, left: map[string][]pipeline.Bulk{}}
	for _, v := range left {
		at := v.Path[:strings.LastIndexByte(v.Path, '/')+1]
		m.left[at] = append(m.left[at], v)
	}
	for _, of := range m.left {
		slices.SortFunc(of, func(a, b pipeline.Bulk) int { return strings.Compare(a.Path, b.Path) })
	}
	return m
}

// each visits the elements of a data set and what it leaves out, in the order of tags. Of one that is left out only e.Tag and e.VR
// are set, and there is true.
func (m model) each(d pipeline.Dataset, at string, visit func(e pipeline.Element, path string, there bool)) {
	left := m.left[at]
	for _, e := range d {
		path := "" // nobody asks for it
		if m.bulk != nil {
			path = string(appendTag([]byte(at), e.Tag))
		}
		for len(left) > 0 && left[0].Path < path {
			m.visitLeft(left[0], visit)
			left = left[1:]
		}
		if e.Tag.Group() != 0x0002 {
			visit(e, path, false)
		}
	}
	for _, v := range left {
		m.visitLeft(v, visit)
	}
}

func (m model) visitLeft(v pipeline.Bulk, visit func(pipeline.Element, string, bool)) {
	tag, err := strconv.ParseUint(v.Path[len(v.Path)-8:], 16, 32)
	if err == nil && v.Length != 0 {
		visit(pipeline.Element{Tag: pipeline.Tag(tag), VR: v.VR}, v.Path, true)
	}
}

func (m model) appendItem(b []byte, d pipeline.Dataset, at string) []byte {
	b = append(b, '{')
	first := true
	m.each(d, at, func(e pipeline.Element, path string, there bool) {
		if !first {
			b = append(b, ',')
		}
		first = false
		b = appendTag(append(b, '"'), e.Tag)
		b = append(append(append(b, `":{"vr":"`...), vrOf(e)...), '"')
		if there {
			b = appendString(append(b, `,"BulkDataURI":`...), m.bulk(path))
		} else {
			b = m.appendValue(b, e, path)
		}
		b = append(b, '}')
	})
	return append(b, '}')
}

// appendTag writes eight hexadecimal digits.
func appendTag(b []byte, t pipeline.Tag) []byte {
	const digits = "0123456789ABCDEF"
	for shift := 28; shift >= 0; shift -= 4 {
		b = append(b, digits[t>>shift&0xF])
	}
	return b
}

func vrOf(e pipeline.Element) string {
	if len(e.VR) != 2 || e.VR[0] < 'A' || e.VR[0] > 'Z' || e.VR[1] < 'A' || e.VR[1] > 'Z' {
		return "UN"
	}
	return e.VR
}

func (m model) appendValue(b []byte, e pipeline.Element, path string) []byte {
	if e.Tag == pipeline.TagSpecificCharacterSet {
		return append(b, `,"Value":["ISO_IR 192"]`...)
	}
	var n int
	var one func(b []byte, i int) []byte
	switch {
	case len(e.Bytes) > inlineLimit && m.bulk != nil:
		return appendString(append(b, `,"BulkDataURI":`...), m.bulk(path))
	case len(e.Bytes) > 0:
		b = append(b, `,"InlineBinary":"`...)
		return append(base64.StdEncoding.AppendEncode(b, e.Bytes), '"')
	case len(e.Items) > 0:
		n, one = len(e.Items), func(b []byte, i int) []byte {
			return m.appendItem(b, e.Items[i], path+"/"+strconv.Itoa(i+1)+"/")
		}
	case len(e.Ints) > 0:
		n, one = len(e.Ints), func(b []byte, i int) []byte { return appendInt(b, e.VR, e.Ints[i]) }
	case len(e.Floats) > 0:
		n, one = len(e.Floats), func(b []byte, i int) []byte { return appendFloat(b, e.Floats[i]) }
	case len(e.Text) > 0:
		n, one = len(e.Text), func(b []byte, i int) []byte { return appendText(b, e.VR, e.Text[i]) }
	default:
		return b
	}
	b = append(b, `,"Value":[`...)
	for i := range n {
		if i > 0 {
			b = append(b, ',')
		}
		b = one(b, i)
	}
	return append(b, ']')
}

func appendText(b []byte, vr, s string) []byte {
	switch {
	case s == "":
		return append(b, "null"...)
	case vr == "PN":
		return appendName(b, s)
	case vr == "DS" || vr == "IS":
		return appendDecimal(b, s)
	}
	return appendString(b, s)
}

// appendName writes the component groups of a person name that have content.
func appendName(b []byte, s string) []byte {
	b = append(b, '{')
	first := true
	groups := strings.SplitN(s, "=", 3)
	for i, name := range [...]string{"Alphabetic", "Ideographic", "Phonetic"} {
		if i >= len(groups) || groups[i] == "" {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(append(append(b, '"'), name...), `":`...)
		b = appendString(b, groups[i])
	}
	return append(b, '}')
}

// appendDecimal writes DS and IS as a number that keeps the digits of the file; as a string where it is none.
func appendDecimal(b []byte, s string) []byte {
	t := strings.TrimPrefix(strings.TrimSpace(s), "+")
	if n := strings.TrimLeft(t, "123456789"); n == "" && t != "" {
		return append(b, t...)
	}
	if json.Valid([]byte(t)) && t != "" && strings.Trim(t, "0123456789+-.eE") == "" {
		return append(b, t...)
	}
	if f, err := strconv.ParseFloat(t, 64); err == nil && !math.IsInf(f, 0) && !math.IsNaN(f) && strings.Trim(t, "0123456789+-.eE") == "" {
		return strconv.AppendFloat(b, f, 'g', -1, 64)
	}
	return appendString(b, s)
}

// appendInt writes AT as a tag and what JavaScript cannot hold as a string.
func appendInt(b []byte, vr string, n int64) []byte {
	switch {
	case vr == "AT":
		return fmt.Appendf(b, `"%08X"`, uint32(n))
	case vr == "UV" && uint64(n) > 1<<53:
		return fmt.Appendf(b, `"%d"`, uint64(n))
	case vr == "SV" && (n > 1<<53 || n < -1<<53):
		return fmt.Appendf(b, `"%d"`, n)
	}
	return strconv.AppendInt(b, n, 10)
}

func appendFloat(b []byte, f float64) []byte {
	switch {
	case math.IsNaN(f):
		return append(b, `"NaN"`...)
	case math.IsInf(f, 1):
		return append(b, `"inf"`...)
	case math.IsInf(f, -1):
		return append(b, `"-inf"`...)
	}
	return strconv.AppendFloat(b, f, 'g', -1, 64)
}

func appendString(b []byte, s string) []byte {
	if plainJSON(s) {
		return append(append(append(b, '"'), s...), '"')
	}
	quoted, err := json.Marshal(s)
	if err != nil { // a string always marshals
		return append(b, `""`...)
	}
	return append(b, quoted...)
}

// plainJSON tells whether a string stands in JSON as it is.
func plainJSON(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7F || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			return false
		}
	}
	return true
}
