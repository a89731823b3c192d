package dicomweb

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
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
	return appendItem(b, d, bulk, "")
}

func appendItem(b []byte, d pipeline.Dataset, bulk func(string) string, at string) []byte {
	b = append(b, '{')
	first := true
	for _, e := range d {
		if e.Tag.Group() == 0x0002 {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = appendTag(append(b, '"'), e.Tag)
		b = append(append(append(b, `":{"vr":"`...), vrOf(e)...), '"')
		path := ""
		if bulk != nil && (len(e.Bytes) > 0 || len(e.Items) > 0) {
			path = string(appendTag([]byte(at), e.Tag))
		}
		b = appendValue(b, e, bulk, path)
		b = append(b, '}')
	}
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

func appendValue(b []byte, e pipeline.Element, bulk func(string) string, path string) []byte {
	if e.Tag == pipeline.TagSpecificCharacterSet {
		return append(b, `,"Value":["ISO_IR 192"]`...)
	}
	var n int
	var one func(b []byte, i int) []byte
	switch {
	case len(e.Bytes) > inlineLimit && bulk != nil:
		return append(appendString(append(b, `,"BulkDataURI":`...), bulk(path)), nil...)
	case len(e.Bytes) > 0:
		b = append(b, `,"InlineBinary":"`...)
		return append(base64.StdEncoding.AppendEncode(b, e.Bytes), '"')
	case len(e.Items) > 0:
		n, one = len(e.Items), func(b []byte, i int) []byte {
			return appendItem(b, e.Items[i], bulk, path+"/"+strconv.Itoa(i+1)+"/")
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
