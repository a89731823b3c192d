package dicom_test

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chatxray/pipeline"
	"chatxray/pipeline/dicom"
)

// swapFile turns an element of explicit VR little endian, written by le, into big endian; word is the size of a word of its value.
func swapElement(b []byte, word int) []byte {
	out := append([]byte(nil), b...)
	rev := func(at, n int) {
		for l, r := at, at+n-1; l < r; l, r = l+1, r-1 {
			out[l], out[r] = out[r], out[l]
		}
	}
	rev(0, 2)
	rev(2, 2)
	value := 8
	if b[6] == 0 && b[7] == 0 && len(b) > 12 { // 32-bit length
		rev(8, 4)
		value = 12
	} else {
		rev(6, 2)
	}
	for at := value; at+word <= len(out); at += word {
		rev(at, word)
	}
	return out
}

// TestEveryVR reads values of each value representation in little and big endian.
func TestEveryVR(t *testing.T) {
	const tag pipeline.Tag = 0x00091001
	word := func(n int, v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v)[:n] }
	raw := []byte{1, 2, 3, 4, 5, 6, 7, 8}
	for _, c := range []struct {
		vr    string
		word  int
		value []byte
		want  pipeline.Element
	}{
		{"US", 2, word(2, 0xFFFE), pipeline.Element{Ints: []int64{65534}}},
		{"SS", 2, word(2, 0xFFFE), pipeline.Element{Ints: []int64{-2}}},
		{"UL", 4, word(4, 0xFFFFFFFE), pipeline.Element{Ints: []int64{4294967294}}},
		{"SL", 4, word(4, 0xFFFFFFFE), pipeline.Element{Ints: []int64{-2}}},
		{"UV", 8, word(8, 1<<40), pipeline.Element{Ints: []int64{1 << 40}}},
		{"SV", 8, word(8, math.MaxUint64), pipeline.Element{Ints: []int64{-1}}},
		{"AT", 2, []byte{0x28, 0, 0x10, 0}, pipeline.Element{Ints: []int64{0x00280010}}},
		{"FL", 4, word(4, uint64(math.Float32bits(1.5))), pipeline.Element{Floats: []float64{1.5}}},
		{"FD", 8, word(8, math.Float64bits(-2.25)), pipeline.Element{Floats: []float64{-2.25}}},
		{"OB", 1, raw, pipeline.Element{Bytes: raw}},
		{"OW", 2, raw, pipeline.Element{Bytes: raw}},
		{"OL", 4, raw, pipeline.Element{Bytes: raw}},
		{"OF", 4, raw, pipeline.Element{Bytes: raw}},
		{"OD", 8, raw, pipeline.Element{Bytes: raw}},
		{"OV", 8, raw, pipeline.Element{Bytes: raw}},
		{"UN", 1, raw, pipeline.Element{Bytes: raw}},
		{"UC", 1, []byte(`ab\cd `), pipeline.Element{Text: []string{"ab", "cd"}}},
		{"UR", 1, []byte(`http:a\b`), pipeline.Element{Text: []string{`http:a\b`}}},
		{"UT", 1, []byte(` text `), pipeline.Element{Text: []string{` text`}}},
		{"UI", 1, []byte("1.2.3\x00"), pipeline.Element{Text: []string{"1.2.3"}}},
		{"IS", 1, []byte(" 12 "), pipeline.Element{Text: []string{"12"}}},
		{"TM", 1, nil, pipeline.Element{}},
	} {
		c.want.Tag, c.want.VR = tag, c.vr
		e := le(tag, c.vr, -1, c.value)
		little := file(dicom.ExplicitVRLittleEndian, uids8, e, uids20)
		big := file(dicom.ExplicitVRBigEndian, swapAll(uids8), swapElement(e, c.word), swapAll(uids20))
		for name, b := range map[string][]byte{"little": little, "big": big} {
			in, err := dicom.Open(b)
			if err != nil {
				t.Errorf("%s %s endian: %v", c.vr, name, err)
				continue
			}
			got, _ := in.Header.Get(tag)
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("%s %s endian:\n%s", c.vr, name, d)
			}
		}
	}
}

// swapAll swaps the two elements of uids8 or uids20.
func swapAll(b []byte) []byte {
	n := 8 + int(binary.LittleEndian.Uint16(b[6:]))
	return append(swapElement(b[:n], 1), swapElement(b[n:], 1)...)
}

// TestUnknownVR reads attributes of the standard that were written as UN by the dictionary, private ones not.
func TestUnknownVR(t *testing.T) {
	item := le(0xFFFEE000, "", -1, le(0x00081150, "", -1, []byte("1.2.3\x00")))
	b := file(dicom.ExplicitVRLittleEndian, uids8,
		le(0x00081140, "UN", -1, item), // Referenced Image Sequence, defined length
		le(0x00082112, "UN", 0xFFFFFFFF, append(item, le(0xFFFEE0DD, "", 0, nil)...)), // Source Image Sequence, undefined
		le(0x00082218, "UN", -1, []byte{1, 2, 3, 4}),                                  // Anatomic Region Sequence: no items in it
		le(0x00091001, "UN", -1, []byte("ab")),                                        // private
		uids20, le(pipeline.TagRows, "UN", -1, []byte{2, 0}))
	in, err := dicom.Open(b)
	if err != nil {
		t.Fatal(err)
	}
	for _, tag := range []pipeline.Tag{0x00081140, 0x00082112} {
		if items := in.Header.Items(tag); len(items) != 1 || items[0].String(0x00081150) != "1.2.3" {
			t.Errorf("%v has %v", tag, items)
		}
	}
	if e, _ := in.Header.Get(0x00082218); e.VR != "UN" || len(e.Bytes) != 4 {
		t.Errorf("a sequence that is none came as %v", e)
	}
	if e, _ := in.Header.Get(0x00091001); e.VR != "UN" || string(e.Bytes) != "ab" {
		t.Errorf("the private attribute came as %v", e)
	}
	if n, ok := in.Header.Int(pipeline.TagRows); !ok || n != 2 {
		t.Errorf("Rows came as %d, %v", n, ok)
	}
}

// TestImplicitChoice settles the VR of attributes that may be US or SS.
func TestImplicitChoice(t *testing.T) {
	for _, signed := range []byte{0, 1} {
		b := file(dicom.ImplicitVRLittleEndian,
			le(pipeline.TagSOPClassUID, "", -1, []byte("1.2.840\x00")), le(pipeline.TagSOPInstanceUID, "", -1, []byte("2.25.3")),
			le(pipeline.TagStudyInstanceUID, "", -1, []byte("2.25.1")), le(pipeline.TagSeriesInstanceUID, "", -1, []byte("2.25.2")),
			le(pipeline.TagPixelRepresentation, "", -1, []byte{signed, 0}),
			le(pipeline.TagPixelPaddingValue, "", -1, []byte{0xFE, 0xFF}))
		in, err := dicom.Open(b)
		if err != nil {
			t.Fatal(err)
		}
		want := int64(65534)
		if signed == 1 {
			want = -2
		}
		if e, _ := in.Header.Get(pipeline.TagPixelPaddingValue); len(e.Ints) != 1 || e.Ints[0] != want {
			t.Errorf("with Pixel Representation %d: %v", signed, e)
		}
	}
}

// TestBulkStaysOut keeps pixels, overlays and long binary values out of the header, and what comes after them in.
func TestBulkStaysOut(t *testing.T) {
	b := file(dicom.ExplicitVRLittleEndian, uids8, le(0x00091001, "OB", -1, make([]byte, 2<<20)), uids20,
		le(0x60003000, "OW", -1, make([]byte, 100)), le(0x7FE10010, "LO", -1, []byte("after ")))
	in, err := dicom.Open(b)
	if err != nil {
		t.Fatal(err)
	}
	for _, tag := range []pipeline.Tag{0x00091001, 0x60003000} {
		if _, ok := in.Header.Get(tag); ok {
			t.Errorf("%v is in the header", tag)
		}
	}
	if in.Header.String(0x7FE10010) != "after" {
		t.Error("the attribute behind them is not")
	}
}
