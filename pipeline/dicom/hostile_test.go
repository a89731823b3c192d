package dicom_test

import (
	"bytes"
	"compress/flate"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"chatxray/pipeline"
	"chatxray/pipeline/dicom"
)

// The tests of this file build their files byte by byte, as no honest writer would.

// le writes one element in explicit VR little endian; a length of -1 is the value's.
func le(t pipeline.Tag, vr string, length int, value []byte) []byte {
	out := binary.LittleEndian.AppendUint16(nil, t.Group())
	out = binary.LittleEndian.AppendUint16(out, t.Element())
	if length < 0 {
		length = len(value)
	}
	switch {
	case vr == "": // implicit, and items
		out = binary.LittleEndian.AppendUint32(out, uint32(length))
	case strings.Contains("OB OW OF OD OL OV SQ UC UN UR UT SV UV", vr):
		out = append(out, vr[0], vr[1], 0, 0)
		out = binary.LittleEndian.AppendUint32(out, uint32(length))
	default:
		out = append(out, vr[0], vr[1])
		out = binary.LittleEndian.AppendUint16(out, uint16(length))
	}
	return append(out, value...)
}

func text(t pipeline.Tag, vr, value string) []byte {
	if len(value)%2 == 1 {
		value += " "
	}
	return le(t, vr, -1, []byte(value))
}

func short(t pipeline.Tag, values ...uint16) []byte {
	var b []byte
	for _, v := range values {
		b = binary.LittleEndian.AppendUint16(b, v)
	}
	return le(t, "US", -1, b)
}

// file is a Part 10 file in a transfer syntax with these elements behind its meta information.
func file(syntax string, elements ...[]byte) []byte {
	meta := text(pipeline.TagTransferSyntaxUID, "UI", syntax)
	meta[len(meta)-1] = bytes.ReplaceAll(meta[len(meta)-1:], []byte(" "), []byte{0})[0]
	out := append(make([]byte, 128), "DICM"...)
	out = append(out, le(pipeline.TagFileMetaInformationGroupLength, "UL", -1, binary.LittleEndian.AppendUint32(nil, uint32(len(meta))))...)
	out = append(out, meta...)
	return append(out, bytes.Join(elements, nil)...)
}

// uids are the attributes that every object has, group 0008 and 0020 apart.
var (
	uids8  = append(text(pipeline.TagSOPClassUID, "UI", "1.2.840.10008.5.1.4.1.1.7"+"\x00"), text(pipeline.TagSOPInstanceUID, "UI", "2.25.33")...)
	uids20 = append(text(pipeline.TagStudyInstanceUID, "UI", "2.25.11"), text(pipeline.TagSeriesInstanceUID, "UI", "2.25.22")...)
)

// attribute is an element that object replaces or adds; nil leaves the usual one out.
type attribute map[pipeline.Tag][]byte

// object is a 2 x 2 image of 16 bits with some of its elements changed.
func object(syntax string, changes attribute) []byte {
	all := []struct {
		tag pipeline.Tag
		b   []byte
	}{
		{pipeline.TagSOPClassUID, uids8},
		{0x00081140, nil},
		{pipeline.TagStudyInstanceUID, uids20},
		{pipeline.TagSamplesPerPixel, short(pipeline.TagSamplesPerPixel, 1)},
		{pipeline.TagPhotometricInterpretation, text(pipeline.TagPhotometricInterpretation, "CS", "MONOCHROME2")},
		{pipeline.TagNumberOfFrames, nil},
		{pipeline.TagRows, short(pipeline.TagRows, 2)},
		{pipeline.TagColumns, short(pipeline.TagColumns, 2)},
		{pipeline.TagBitsAllocated, short(pipeline.TagBitsAllocated, 16)},
		{pipeline.TagBitsStored, short(pipeline.TagBitsStored, 12)},
		{pipeline.TagHighBit, short(pipeline.TagHighBit, 11)},
		{pipeline.TagPixelRepresentation, short(pipeline.TagPixelRepresentation, 0)},
		{pipeline.TagExtendedOffsetTable, nil},
		{pipeline.TagExtendedOffsetTableLengths, nil},
		{pipeline.TagPixelData, le(pipeline.TagPixelData, "OW", -1, []byte{1, 0, 2, 0, 3, 0, 4, 0})},
		{0x7FE10010, nil},
	}
	var parts [][]byte
	for _, a := range all {
		if b, ok := changes[a.tag]; ok {
			a.b = b
		}
		parts = append(parts, a.b)
	}
	return file(syntax, parts...)
}

// fragments is an encapsulated Pixel Data element: the offset table and the fragments.
func fragments(items ...[]byte) []byte {
	out := le(pipeline.TagPixelData, "OB", 0xFFFFFFFF, nil)
	for _, i := range items {
		out = append(out, le(0xFFFEE000, "", -1, i)...)
	}
	return append(out, le(0xFFFEE0DD, "", 0, nil)...)
}

// rle is a 2 x 2 frame of 16 bits whose samples have this low byte.
func rle(low byte) []byte {
	out := make([]byte, 64)
	binary.LittleEndian.PutUint32(out, 2)
	binary.LittleEndian.PutUint32(out[4:], 64)
	binary.LittleEndian.PutUint32(out[8:], 66)
	return append(out, 0xFD, 0, 0xFD, low)
}

// TestHostile lists files that must be refused, and how.
func TestHostile(t *testing.T) {
	const explicit, rleSyntax = dicom.ExplicitVRLittleEndian, dicom.RLELossless
	us := func(tag pipeline.Tag, v ...uint16) []byte { return object(explicit, attribute{tag: short(tag, v...)}) }
	with := func(tag pipeline.Tag, b []byte) []byte { return object(explicit, attribute{tag: b}) }
	offsets := func(n ...uint32) []byte {
		var b []byte
		for _, v := range n {
			b = binary.LittleEndian.AppendUint32(b, v)
		}
		return b
	}
	frames := text(pipeline.TagNumberOfFrames, "IS", "2")
	frames3 := text(pipeline.TagNumberOfFrames, "IS", "3")
	for _, c := range []struct {
		name string
		file []byte
		kind error
		says string // part of the message
	}{
		{"empty", nil, pipeline.ErrInvalid, "too short"},
		{"text", []byte(strings.Repeat("Dear Sir, the attached image. ", 20)), pipeline.ErrInvalid, "no DICM"},
		{"gzip", append([]byte{0x1F, 0x8B, 8}, make([]byte, 400)...), pipeline.ErrInvalid, "no DICM"},
		{"no meta elements", append(make([]byte, 128), "DICM"...), pipeline.ErrInvalid, "Transfer Syntax UID"},
		{"no transfer syntax", file(""), pipeline.ErrInvalid, "Transfer Syntax UID"},
		{"private transfer syntax", object("1.2.826.0.1.3680043.1.99", nil), pipeline.ErrUnknown, "1.2.826.0.1.3680043.1.99"},
		{"transfer syntax that is a name", object("DOE^JANE", nil), pipeline.ErrInvalid, "no valid Transfer Syntax UID"},
		{"known, not decoded", object("1.2.840.10008.1.2.4.110", attribute{pipeline.TagPixelData: fragments(nil, rle(1))}), pipeline.ErrUnsupported, "JPEG XL Lossless"},
		{"no study", with(pipeline.TagStudyInstanceUID, nil), pipeline.ErrInvalid, "Study Instance UID (0020,000D)"},
		{"study is no UID", with(pipeline.TagStudyInstanceUID, text(pipeline.TagStudyInstanceUID, "UI", "1.2.x")), pipeline.ErrInvalid, "Study Instance UID"},
		{"two studies", with(pipeline.TagStudyInstanceUID, text(pipeline.TagStudyInstanceUID, "UI", "1.2\\1.3")), pipeline.ErrInvalid, "Study Instance UID"},
		{"study of 66 digits", with(pipeline.TagStudyInstanceUID, text(pipeline.TagStudyInstanceUID, "UI", "1."+strings.Repeat("2", 64))), pipeline.ErrInvalid, "Study Instance UID"},
		{"length beyond the end", with(0x00081140, le(0x00081140, "UT", 1<<30, nil)), pipeline.ErrInvalid, "claims 1073741824 bytes"},
		{"longest length", with(0x00081140, le(0x00081140, "OB", 0xFFFFFFFE, nil)), pipeline.ErrInvalid, "claims 4294967294 bytes"},
		{"no VR", with(0x00081140, []byte{8, 0, 0x40, 0x11, 'Z', 'Z', 0, 0}), pipeline.ErrInvalid, "none of the standard"},
		{"text of undefined length", with(0x00081140, le(0x00081140, "UT", 0xFFFFFFFF, nil)), pipeline.ErrInvalid, "undefined length"},
		{"sequence without end", with(0x7FE10010, le(0x7FE10010, "SQ", 0xFFFFFFFF, nil)), pipeline.ErrInvalid, "does not end"},
		{"item longer than its sequence", with(0x00081140, le(0x00081140, "SQ", -1, le(0xFFFEE000, "", 400, nil))), pipeline.ErrInvalid, "an item claims 400 bytes"},
		{"no item in a sequence", with(0x00081140, le(0x00081140, "SQ", -1, text(0x00081150, "UI", "1.2"))), pipeline.ErrInvalid, "an item of a sequence should begin"},
		{"delimiter in the open", with(0x00081140, le(0xFFFEE00D, "", 0, nil)), pipeline.ErrInvalid, "not expected"},
		{"twice", with(pipeline.TagColumns, append(short(pipeline.TagColumns, 2), short(pipeline.TagColumns, 3)...)), pipeline.ErrInvalid, "occurs twice"},
		{"two pixel data", object(explicit, attribute{pipeline.TagExtendedOffsetTable: le(pipeline.TagFloatPixelData, "OF", -1, make([]byte, 16))}), pipeline.ErrInvalid, "second pixel data"},
		{"zeros in the middle", with(0x00081140, make([]byte, 64)), pipeline.ErrInvalid, "no attribute"},
		{"no pixels", with(pipeline.TagPixelData, nil), pipeline.ErrNotImage, "no pixel data"},
		{"float pixels", with(pipeline.TagPixelData, le(pipeline.TagFloatPixelData, "OF", -1, make([]byte, 16))), pipeline.ErrNotImage, "floating point"},
		{"fragments in a native syntax", with(pipeline.TagPixelData, fragments(nil, rle(1))), pipeline.ErrInvalid, "fragmented"},
		{"native in a compressed syntax", object(rleSyntax, nil), pipeline.ErrInvalid, "not fragmented"},
		{"pixels cut off", with(pipeline.TagPixelData, le(pipeline.TagPixelData, "OW", 8, []byte{1, 0})), pipeline.ErrInvalid, "claims 8 bytes"},
		{"too few pixels", with(pipeline.TagPixelData, le(pipeline.TagPixelData, "OW", -1, []byte{1, 0, 2, 0})), pipeline.ErrInvalid, "need 8"},
		{"rows of a wrong VR", with(pipeline.TagRows, text(pipeline.TagRows, "SH", "2")), pipeline.ErrInvalid, "Rows (0028,0010) has the value representation SH"},
		{"rows as bytes", with(pipeline.TagRows, le(pipeline.TagRows, "OB", -1, []byte{2, 0})), pipeline.ErrInvalid, "representation OB"},
		{"rows empty", us(pipeline.TagRows), pipeline.ErrInvalid, "0 values"},
		{"two rows", us(pipeline.TagRows, 2, 2), pipeline.ErrInvalid, "2 values"},
		{"half a row", with(pipeline.TagRows, le(pipeline.TagRows, "US", 1, []byte{2})), pipeline.ErrInvalid, "no multiple"},
		{"no rows", with(pipeline.TagRows, nil), pipeline.ErrInvalid, "Rows (0028,0010) is missing"},
		{"zero rows", us(pipeline.TagRows, 0), pipeline.ErrInvalid, "is 0"},
		{"60,000 x 60,000", object(explicit, attribute{pipeline.TagRows: short(pipeline.TagRows, 60000), pipeline.TagColumns: short(pipeline.TagColumns, 60000)}), pipeline.ErrUnsupported, "60000 rows x 60000 columns"},
		{"60,000 x 60,000 compressed", object(rleSyntax, attribute{pipeline.TagRows: short(pipeline.TagRows, 60000), pipeline.TagColumns: short(pipeline.TagColumns, 60000), pipeline.TagPixelData: fragments(nil, rle(1))}), pipeline.ErrUnsupported, "60000 rows x 60000 columns"},
		{"16,000 x 16,000 compressed", object(rleSyntax, attribute{pipeline.TagRows: short(pipeline.TagRows, 16000), pipeline.TagColumns: short(pipeline.TagColumns, 16000), pipeline.TagPixelData: fragments(nil, rle(1))}), pipeline.ErrInvalid, "cannot hold"},
		{"12 bits allocated", us(pipeline.TagBitsAllocated, 12), pipeline.ErrUnsupported, "12 bits allocated"},
		{"no bits", us(pipeline.TagBitsAllocated, 0), pipeline.ErrInvalid, "is 0"},
		{"more stored than allocated", us(pipeline.TagBitsStored, 17), pipeline.ErrInvalid, "Bits Stored 17"},
		{"high bit too high", us(pipeline.TagHighBit, 16), pipeline.ErrInvalid, "HighBit"},
		{"two samples", us(pipeline.TagSamplesPerPixel, 2), pipeline.ErrUnsupported, "2 samples"},
		{"gray of three samples", us(pipeline.TagSamplesPerPixel, 3), pipeline.ErrInvalid, "MONOCHROME2 with 3"},
		{"no photometric", with(pipeline.TagPhotometricInterpretation, nil), pipeline.ErrInvalid, "is missing"},
		{"odd photometric", with(pipeline.TagPhotometricInterpretation, text(pipeline.TagPhotometricInterpretation, "CS", "DOE^JANE")), pipeline.ErrInvalid, "none of the standard"},
		{"minus one frames", with(pipeline.TagNumberOfFrames, text(pipeline.TagNumberOfFrames, "IS", "-1")), pipeline.ErrInvalid, "Number of Frames"},
		{"no frames", with(pipeline.TagNumberOfFrames, text(pipeline.TagNumberOfFrames, "IS", "0")), pipeline.ErrInvalid, "Number of Frames"},
		{"endless frames", with(pipeline.TagNumberOfFrames, text(pipeline.TagNumberOfFrames, "IS", "99999999999999999999")), pipeline.ErrInvalid, "Number of Frames"},
		{"more frames than bytes", with(pipeline.TagNumberOfFrames, frames), pipeline.ErrInvalid, "2 frames"},
		{"no fragments", object(rleSyntax, attribute{pipeline.TagPixelData: fragments(nil)}), pipeline.ErrInvalid, "no fragments"},
		{"more frames than fragments", object(rleSyntax, attribute{pipeline.TagNumberOfFrames: frames, pipeline.TagPixelData: fragments(nil, rle(1))}), pipeline.ErrInvalid, "1 fragments"},
		{"frames cannot be told apart", object(rleSyntax, attribute{pipeline.TagNumberOfFrames: frames, pipeline.TagPixelData: fragments(nil, rle(1), rle(2), rle(3))}), pipeline.ErrUnsupported, "offset table"},
		{"offset table short", object(rleSyntax, attribute{pipeline.TagNumberOfFrames: frames, pipeline.TagPixelData: fragments(offsets(0), rle(1), rle(2), rle(3))}), pipeline.ErrInvalid, "Basic Offset Table"},
		{"offset table into a fragment", object(rleSyntax, attribute{pipeline.TagNumberOfFrames: frames, pipeline.TagPixelData: fragments(offsets(2, 76), rle(1), rle(2), rle(3))}), pipeline.ErrInvalid, "none begins"},
		{"offset table descends", object(rleSyntax, attribute{pipeline.TagNumberOfFrames: frames, pipeline.TagPixelData: fragments(offsets(76, 0), rle(1), rle(2), rle(3))}), pipeline.ErrInvalid, "does not ascend"},
		{"extended offset table short", object(rleSyntax, attribute{pipeline.TagNumberOfFrames: frames3, pipeline.TagExtendedOffsetTable: le(pipeline.TagExtendedOffsetTable, "OV", -1, make([]byte, 8)), pipeline.TagPixelData: fragments(nil, rle(1), rle(2), rle(3))}), pipeline.ErrInvalid, "Extended Offset Table"},
		{"extended offset table odd", object(rleSyntax, attribute{pipeline.TagExtendedOffsetTable: le(pipeline.TagExtendedOffsetTable, "OV", -1, make([]byte, 7)), pipeline.TagPixelData: fragments(nil, rle(1))}), pipeline.ErrInvalid, "multiple of 8"},
		{"fragment cut off", object(rleSyntax, attribute{pipeline.TagPixelData: append(le(pipeline.TagPixelData, "OB", 0xFFFFFFFF, nil), append(le(0xFFFEE000, "", 0, nil), le(0xFFFEE000, "", 500, rle(1))...)...)}), pipeline.ErrInvalid, "claims 500 bytes"},
		{"fragment of undefined length", object(rleSyntax, attribute{pipeline.TagPixelData: append(le(pipeline.TagPixelData, "OB", 0xFFFFFFFF, nil), le(0xFFFEE000, "", 0xFFFFFFFF, nil)...)}), pipeline.ErrInvalid, "fragment"},
		{"RLE cut off", object(rleSyntax, attribute{pipeline.TagPixelData: fragments(nil, rle(1)[:67])}), pipeline.ErrInvalid, "RLE"},
		{"RLE of three segments", object(rleSyntax, attribute{pipeline.TagPixelData: fragments(nil, append([]byte{3}, rle(1)[1:]...))}), pipeline.ErrInvalid, "3 segments"},
		{"DICOMDIR", append(append(make([]byte, 128), "DICM"...), append(text(pipeline.TagMediaStorageSOPClassUID, "UI", "1.2.840.10008.1.3.10"), text(pipeline.TagTransferSyntaxUID, "UI", explicit+"\x00")...)...), pipeline.ErrNotImage, "DICOMDIR"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := openAndDecode(c.file)
			if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %v that says %q", err, c.kind, c.says)
			}
			if err != nil && strings.Contains(err.Error(), "DOE") {
				t.Errorf("the message gives text of the file away: %v", err)
			}
		})
	}
}

// openAndDecode takes a file through both ways of opening, which must agree, and decodes its first frame.
func openAndDecode(b []byte) error {
	in, err := dicom.Open(b)
	if at, err2 := dicom.OpenAt(bytes.NewReader(b), int64(len(b))); (err == nil) != (err2 == nil) {
		return errors.Join(errors.New("Open and OpenAt disagree"), err, err2)
	} else if err == nil && at.Digest != in.Digest {
		return errors.New("Open and OpenAt have different digests")
	}
	if err != nil {
		return err
	}
	_, err = dicom.DecodeFrame(context.Background(), in, 0)
	return err
}

// TestTruncation cuts files at every length: none of the pieces may give a picture.
func TestTruncation(t *testing.T) {
	for _, whole := range [][]byte{
		object(dicom.ExplicitVRLittleEndian, nil),
		object(dicom.RLELossless, attribute{pipeline.TagPixelData: fragments(nil, rle(1))}),
	} {
		if err := openAndDecode(whole); err != nil {
			t.Fatalf("the whole file: %v", err)
		}
		for n := range whole {
			err := openAndDecode(whole[:n])
			if err == nil {
				t.Errorf("cut at %d of %d bytes, it decodes", n, len(whole))
				continue
			}
			clean(t, err)
		}
	}
}

// nested is a sequence in a sequence in a sequence, to the depth wanted.
func nested(depth int, defined bool) []byte {
	var inner []byte
	for range depth {
		if defined {
			inner = le(0x00081140, "SQ", -1, le(0xFFFEE000, "", -1, inner))
			continue
		}
		inner = append(le(0x00081140, "SQ", 0xFFFFFFFF, nil), append(le(0xFFFEE000, "", 0xFFFFFFFF, inner),
			append(le(0xFFFEE00D, "", 0, nil), le(0xFFFEE0DD, "", 0, nil)...)...)...)
	}
	return inner
}

// memoryBound is what a hostile file may cost: 64 MB + 8 times the file + 4 times the declared image.
func memoryBound(file, declared int) uint64 { return 64<<20 + 8*uint64(file) + 4*uint64(declared) }

// allocated measures all bytes that f allocates on Go's heap, whether freed again or not: never less than its peak.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestBombs opens files that would make a careless reader run out of memory or time.
func TestBombs(t *testing.T) {
	many := func(n int, one []byte) []byte { return bytes.Repeat(one, n) }
	private := func(n int, step pipeline.Tag, vr string, value []byte) []byte {
		var b []byte
		for i := range n {
			b = append(b, le(0x00090000+pipeline.Tag(0x1000+i%0xE000)*step+pipeline.Tag(i/0xE000)<<17, vr, -1, value)...)
		}
		return b
	}
	deflate := func(b []byte) []byte {
		var out bytes.Buffer
		w, _ := flate.NewWriter(&out, 1)
		w.Write(b)
		w.Close()
		return out.Bytes()
	}
	item := le(0xFFFEE000, "", 0, nil)
	big := object(dicom.ExplicitVRLittleEndian, attribute{
		pipeline.TagRows: short(pipeline.TagRows, 3000), pipeline.TagColumns: short(pipeline.TagColumns, 3000),
		pipeline.TagPixelData: le(pipeline.TagPixelData, "OW", -1, make([]byte, 18e6)),
	})
	big = big[bytes.Index(big, []byte{8, 0, 0x16, 0}):] // the data set alone
	for _, c := range []struct {
		name     string
		file     []byte
		declared int
		opens    bool
	}{
		{"40 KB of nested sequences", object(dicom.ExplicitVRLittleEndian, attribute{0x00081140: nested(1000, false)}), 0, false},
		{"200 KB of nested sequences", object(dicom.ExplicitVRLittleEndian, attribute{0x00081140: nested(5000, false)}), 0, false},
		{"nested sequences of defined length", object(dicom.ExplicitVRLittleEndian, attribute{0x00081140: nested(1500, true)}), 0, false},
		{"16 nested sequences", object(dicom.ExplicitVRLittleEndian, attribute{0x00081140: nested(16, true)}), 0, true},
		{"a million items", object(dicom.ExplicitVRLittleEndian, attribute{0x00081140: le(0x00081140, "SQ", -1, many(1e6, item))}), 0, true},
		{"300,000 empty attributes", object(dicom.ExplicitVRLittleEndian, attribute{0x00081140: private(300000, 1, "LO", nil)}), 0, false},
		{"a megabyte of backslashes", object(dicom.ExplicitVRLittleEndian, attribute{0x00081140: le(0x00081140, "UC", -1, many(1<<20, []byte("\\")))}), 0, false},
		{"30 MB of short numbers", object(dicom.ExplicitVRLittleEndian, attribute{0x00081140: private(500, 1, "US", make([]byte, 60000))}), 0, false},
		{"Latin-1 that grows", object(dicom.ExplicitVRLittleEndian, attribute{0x00081140: le(0x00081140, "UT", -1, many(4<<20, []byte{0xE4}))}), 0, false},
		{"a million fragments", object(dicom.RLELossless, attribute{pipeline.TagPixelData: append(le(pipeline.TagPixelData, "OB", 0xFFFFFFFF, nil), append(many(1<<20-1, item), le(0xFFFEE0DD, "", 0, nil)...)...)}), 0, true},
		{"zeros", append(object(dicom.ExplicitVRLittleEndian, nil), make([]byte, 8<<20)...), 0, true},
		{"60 MB of zeros deflated", file(dicom.DeflatedExplicitVRLittleEndian, deflate(bytes.Join([][]byte{uids8, uids20, le(0x00291010, "OB", -1, make([]byte, 60<<20))}, nil))), 0, false},
		{"18 MB of pixels deflated", file(dicom.DeflatedExplicitVRLittleEndian, deflate(big)), 18e6, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			start := time.Now()
			var in *pipeline.Instance
			var err error
			n := allocated(func() { in, err = dicom.Open(c.file) })
			if err != nil && c.opens || err == nil && !c.opens {
				t.Errorf("opening gave %v", err)
			}
			if err != nil {
				clean(t, err)
			}
			if most := memoryBound(len(c.file), c.declared); n > most {
				t.Errorf("opening %d bytes allocated %d, more than %d", len(c.file), n, most)
			}
			if d := time.Since(start); d > 5*time.Second {
				t.Errorf("opening took %v", d)
			}
			t.Logf("%d bytes allocated for a file of %d: %v", n, len(c.file), err)
			if in != nil && c.declared > 0 {
				n := allocated(func() { _, err = dicom.DecodeFrame(context.Background(), in, 0) })
				if err != nil || n > memoryBound(len(c.file), c.declared) {
					t.Errorf("decoding allocated %d: %v", n, err)
				}
			}
		})
	}
}

// TestOpenFile keeps the path and not the bytes, and decodes from the disk.
func TestOpenFile(t *testing.T) {
	b := object(dicom.ExplicitVRLittleEndian, nil)
	path := filepath.Join(t.TempDir(), "a.dcm")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := dicom.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := dicom.Open(b)
	if err != nil {
		t.Fatal(err)
	}
	if in.Data != nil || in.Path != path || in.Digest != whole.Digest || in.SOPInstanceUID != "2.25.33" {
		t.Errorf("got %+v", in)
	}
	p, err := dicom.DecodeFrame(context.Background(), in, 0)
	if err != nil || !bytes.Equal(p.Data, []byte{1, 0, 2, 0, 3, 0, 4, 0}) {
		t.Errorf("decoded %v, %v", p, err)
	}
	if _, err := dicom.DecodeFrame(context.Background(), in, 1); !errors.Is(err, pipeline.ErrNotFound) {
		t.Errorf("the second frame of one: %v", err)
	}
	if _, err := dicom.OpenFile(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, err := dicom.OpenFile(t.TempDir()); !errors.Is(err, pipeline.ErrInvalid) {
		t.Errorf("a folder: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := dicom.DecodeFrame(ctx, in, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("a call that was given up: %v", err)
	}
	for _, path := range []string{t.TempDir(), filepath.Join(t.TempDir(), "none")} { // the disk's failures are not the image's
		broken := *in
		broken.Path = path
		_, err := dicom.DecodeFrame(context.Background(), &broken, 0)
		if failure := (*fs.PathError)(nil); !errors.As(err, &failure) || errors.Is(err, pipeline.ErrInvalid) {
			t.Errorf("a file that cannot be read: %v", err)
		}
	}
}

// TestPeek sees what Open sees, but for the digest.
func TestPeek(t *testing.T) {
	b := object(dicom.ExplicitVRLittleEndian, nil)
	whole, err := dicom.Open(b)
	if err != nil {
		t.Fatal(err)
	}
	in, err := dicom.Peek(b)
	if err != nil {
		t.Fatal(err)
	}
	if in.Digest != (pipeline.Digest{}) || whole.Digest == in.Digest {
		t.Errorf("digest %v, and %v of Open", in.Digest, whole.Digest)
	}
	in.Digest = whole.Digest
	if !reflect.DeepEqual(in, whole) {
		t.Errorf("got %+v, Open %+v", in, whole)
	}
	nameless := object(dicom.ExplicitVRLittleEndian, attribute{pipeline.TagSOPClassUID: nil})
	if _, err := dicom.Peek(nameless); !errors.Is(err, pipeline.ErrInvalid) {
		t.Errorf("an object without a UID: %v", err)
	}
	if in, err := dicom.OpenAnonymous(nameless); err != nil || in.Digest != sha256.Sum256(nameless) {
		t.Errorf("got %+v, %v", in, err)
	}
}

// TestMultiFrame maps fragments to frames by each of the rules.
func TestMultiFrame(t *testing.T) {
	frames := text(pipeline.TagNumberOfFrames, "IS", "2")
	one, two := rle(1), rle(2)
	ext := func(tag pipeline.Tag, n ...uint64) []byte {
		var b []byte
		for _, v := range n {
			b = binary.LittleEndian.AppendUint64(b, v)
		}
		return le(tag, "OV", -1, b)
	}
	for name, changes := range map[string]attribute{
		"a fragment a frame": {pipeline.TagPixelData: fragments(nil, one, two)},
		"Basic Offset Table": {pipeline.TagPixelData: fragments([]byte{0, 0, 0, 0, 84, 0, 0, 0}, one[:40], one[40:], two)},
		"Extended Offset Table": {
			pipeline.TagExtendedOffsetTable:        ext(pipeline.TagExtendedOffsetTable, 0, 76),
			pipeline.TagExtendedOffsetTableLengths: ext(pipeline.TagExtendedOffsetTableLengths, 68, 68),
			pipeline.TagPixelData:                  fragments(nil, one, two),
		},
	} {
		t.Run(name, func(t *testing.T) {
			changes[pipeline.TagNumberOfFrames] = frames
			in, err := dicom.Open(object(dicom.RLELossless, changes))
			if err != nil {
				t.Fatal(err)
			}
			for f := range 2 {
				p, err := dicom.DecodeFrame(context.Background(), in, f)
				if err != nil {
					t.Fatal(err)
				}
				if p.Frames != 2 || p.Data[0] != byte(f+1) || p.Data[6] != byte(f+1) {
					t.Errorf("frame %d is %v", f, p.Data)
				}
			}
		})
	}
}
