package pipeline

import (
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// Tag is a DICOM attribute tag, group in the high and element in the low 16 bits (PS3.5 section 7.1).
type Tag uint32

// Group returns the group number.
func (t Tag) Group() uint16 { return uint16(t >> 16) }

// Element returns the element number.
func (t Tag) Element() uint16 { return uint16(t) }

// String writes the tag as the standard does: (gggg,eeee).
func (t Tag) String() string { return fmt.Sprintf("(%04X,%04X)", t.Group(), t.Element()) }

// Element is one attribute. At most one of the value fields is set, as its VR demands; all empty is a zero-length value.
//
//	Text    AE AS CS DA DS DT IS LO LT PN SH ST TM UC UI UR UT, decoded to UTF-8, padding trimmed, one entry a value
//	Ints    US SS UL SL UV SV, and AT (a tag as number)
//	Floats  FL FD
//	Bytes   OB OW OL OV OF OD UN: as in the file, little endian
//	Items   SQ
type Element struct {
	Tag    Tag
	VR     string
	Text   []string
	Ints   []int64
	Floats []float64
	Bytes  []byte
	Items  []Dataset
}

// Dataset is a DICOM data set: elements in ascending order of their tags, each tag once.
type Dataset []Element

// Get finds an element by its tag.
func (d Dataset) Get(t Tag) (Element, bool) {
	i, ok := d.find(t)
	if !ok {
		return Element{}, false
	}
	return d[i], true
}

func (d Dataset) find(t Tag) (int, bool) {
	i := sort.Search(len(d), func(i int) bool { return d[i].Tag >= t }) // slices.BinarySearchFunc copies the elements that it looks at
	return i, i < len(d) && d[i].Tag == t
}

// Strings returns the text values of an attribute; nil where it is absent or empty.
func (d Dataset) Strings(t Tag) []string {
	if i, ok := d.find(t); ok {
		return d[i].Text
	}
	return nil
}

// String returns the first text value of an attribute; "" where it is absent or empty.
func (d Dataset) String(t Tag) string {
	if s := d.Strings(t); len(s) > 0 {
		return s[0]
	}
	return ""
}

// Int returns the first value of an integer attribute (binary, or IS).
func (d Dataset) Int(t Tag) (int, bool) {
	e, ok := d.Get(t)
	switch {
	case ok && len(e.Ints) > 0:
		return int(e.Ints[0]), true
	case ok && len(e.Text) > 0:
		n, err := strconv.Atoi(strings.TrimSpace(e.Text[0]))
		return n, err == nil
	}
	return 0, false
}

// Floats returns the values of a numeric attribute (FL, FD, DS, IS or a binary integer); nil where one does not parse.
func (d Dataset) Floats(t Tag) []float64 {
	e, _ := d.Get(t)
	if len(e.Floats) > 0 {
		return e.Floats
	}
	var out []float64
	for _, n := range e.Ints {
		out = append(out, float64(n))
	}
	for _, s := range e.Text {
		f, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
		if err != nil {
			return nil
		}
		out = append(out, f)
	}
	return out
}

// Items returns the items of a sequence.
func (d Dataset) Items(t Tag) []Dataset {
	e, _ := d.Get(t)
	return e.Items
}

// Set puts an element in its place, replacing one with the same tag.
func (d *Dataset) Set(e Element) {
	i, ok := d.find(e.Tag)
	if ok {
		(*d)[i] = e
		return
	}
	*d = slices.Insert(*d, i, e)
}

// SetText sets a text attribute; no values make it empty (a Type 2 attribute that is unknown).
func (d *Dataset) SetText(t Tag, vr string, values ...string) {
	d.Set(Element{Tag: t, VR: vr, Text: values})
}

// SetInts sets a binary integer attribute.
func (d *Dataset) SetInts(t Tag, vr string, values ...int64) {
	d.Set(Element{Tag: t, VR: vr, Ints: values})
}

// SetItems sets a sequence; no items make it an empty one.
func (d *Dataset) SetItems(t Tag, items ...Dataset) { d.Set(Element{Tag: t, VR: "SQ", Items: items}) }

// SetBytes sets a binary attribute (OB, OW, UN ...).
func (d *Dataset) SetBytes(t Tag, vr string, b []byte) { d.Set(Element{Tag: t, VR: vr, Bytes: b}) }
