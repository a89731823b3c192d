package dicom_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"chatxray/pipeline"
	"chatxray/pipeline/dicom"
)

// seeds gives a fuzz target small files: our own, and those of the data pack where it is there.
func seeds(f *testing.F, add func([]byte)) {
	for _, p := range pictures {
		for _, s := range dicom.Syntaxes() {
			var file bytes.Buffer
			if s.Encodes && (codecsThere || !s.Encapsulated) && dicom.Write(&file, p.dataset(), s.UID) == nil && file.Len() < 20000 {
				add(file.Bytes())
			}
		}
	}
	for _, b := range [][]byte{
		object(dicom.ExplicitVRLittleEndian, nil),
		object(dicom.ExplicitVRLittleEndian, attribute{0x00081140: nested(4, true)}),
		object(dicom.ExplicitVRLittleEndian, attribute{0x00081140: nested(4, false)}),
		object(dicom.RLELossless, attribute{pipeline.TagPixelData: fragments(nil, rle(1))}),
		file(dicom.ExplicitVRLittleEndian, text(pipeline.TagSpecificCharacterSet, "CS", "\\ISO 2022 IR 87"), uids8,
			text(tagPatientName, "PN", "Yamada^Tarou=\x1B$B;3ED\x1B(B^\x1B$BB@O:\x1B(B"), uids20),
	} {
		add(b)
	}
	dir, err := os.Getwd()
	if err != nil {
		f.Fatal(err)
	}
	data := filepath.Join(dir, "..", "..", "..", "shared", "data", "dicom")
	paths, _ := filepath.Glob(filepath.Join(data, "*", "*.dcm"))
	more, _ := filepath.Glob(filepath.Join(data, "*", "*", "*.dcm"))
	for _, p := range append(paths, more...) {
		if st, err := os.Stat(p); err == nil && st.Size() < 20000 {
			b, err := os.ReadFile(p)
			if err != nil {
				f.Fatal(err)
			}
			add(b)
		}
	}
}

// FuzzOpen: no bytes may make Open panic, take more memory than its bound, or disagree with OpenAt; and what it opens can be opened
// again after it was written.
func FuzzOpen(f *testing.F) {
	seeds(f, func(b []byte) { f.Add(b) })
	f.Fuzz(func(t *testing.T, b []byte) {
		var in *pipeline.Instance
		var err error
		if n := allocated(func() { in, err = dicom.OpenAnonymous(b) }); n > memoryBound(len(b), 0) {
			t.Errorf("%d bytes allocated for a file of %d", n, len(b))
		}
		if err != nil {
			clean(t, err)
			return
		}
		named, err := dicom.OpenAt(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			clean(t, err)
			return
		}
		if named.SOPInstanceUID != in.SOPInstanceUID || len(named.Header) != len(in.Header) {
			t.Error("Open and OpenAt disagree")
		}
		var out bytes.Buffer
		if err := dicom.Write(&out, unicode(in.Header), dicom.ExplicitVRLittleEndian); err != nil {
			clean(t, err)
			return
		}
		again, err := dicom.Open(out.Bytes())
		if err != nil {
			t.Fatalf("what was written does not open: %v", err)
		}
		if again.StudyInstanceUID != in.StudyInstanceUID || again.SOPInstanceUID != in.SOPInstanceUID {
			t.Error("written and opened again, the object has other UIDs")
		}
	})
}

// FuzzDecode: no file may make decoding panic or take more than its bound, and what is decoded has the size that it says.
func FuzzDecode(f *testing.F) {
	seeds(f, func(b []byte) { f.Add(b) })
	f.Fuzz(func(t *testing.T, b []byte) {
		in, err := dicom.OpenAnonymous(b)
		if err != nil {
			return
		}
		rows, _ := in.Header.Int(pipeline.TagRows)
		columns, _ := in.Header.Int(pipeline.TagColumns)
		if rows*columns > 1<<22 {
			return // known to be slow, and bounded by TestHostile
		}
		decodeSafely(t, in, len(b))
	})
}

// FuzzCodestream: the same for the compressed frame alone, in an object of our own that fits it or nearly so.
func FuzzCodestream(f *testing.F) {
	var encapsulated []string
	for _, s := range dicom.Syntaxes() {
		if s.Encapsulated && s.Decodes {
			encapsulated = append(encapsulated, s.UID)
		}
	}
	index := func(uid string) byte {
		for i, s := range encapsulated {
			if s == uid {
				return byte(i)
			}
		}
		return 0
	}
	seeds(f, func(b []byte) {
		in, err := dicom.OpenAnonymous(b)
		if err != nil {
			return
		}
		at := bytes.Index(b, []byte{0xE0, 0x7F, 0x10, 0, 'O', 'B', 0, 0, 0xFF, 0xFF, 0xFF, 0xFF})
		if at < 0 {
			return
		}
		table := int(binary.LittleEndian.Uint32(b[at+16:]))
		first := b[at+20+table:]
		number := func(tag pipeline.Tag) byte { n, _ := in.Header.Int(tag); return byte(n) }
		f.Add(index(in.TransferSyntaxUID), number(pipeline.TagRows), number(pipeline.TagColumns), number(pipeline.TagSamplesPerPixel),
			number(pipeline.TagBitsAllocated), first[8:8+binary.LittleEndian.Uint32(first[4:])])
	})
	f.Fuzz(func(t *testing.T, syntax, rows, columns, samples, allocated byte, codestream []byte) {
		if len(codestream)%2 == 1 {
			codestream = append(codestream, 0)
		}
		photometric := "MONOCHROME2"
		if samples == 3 {
			photometric = "RGB"
		}
		in, err := dicom.Open(object(encapsulated[int(syntax)%len(encapsulated)], attribute{
			pipeline.TagRows: short(pipeline.TagRows, uint16(rows)), pipeline.TagColumns: short(pipeline.TagColumns, uint16(columns)),
			pipeline.TagSamplesPerPixel:           short(pipeline.TagSamplesPerPixel, uint16(samples)),
			pipeline.TagPhotometricInterpretation: text(pipeline.TagPhotometricInterpretation, "CS", photometric),
			pipeline.TagBitsAllocated:             short(pipeline.TagBitsAllocated, uint16(allocated)),
			pipeline.TagBitsStored:                short(pipeline.TagBitsStored, uint16(allocated)),
			pipeline.TagHighBit:                   short(pipeline.TagHighBit, uint16(allocated)-1),
			pipeline.TagPixelData:                 fragments(nil, codestream),
		}))
		if err != nil {
			t.Fatal(err)
		}
		decodeSafely(t, in, len(in.Data))
	})
}

// decodeSafely decodes the first frame.
func decodeSafely(t *testing.T, in *pipeline.Instance, size int) {
	t.Helper()
	var p *dicom.Pixels
	var err error
	n := allocated(func() { p, err = dicom.DecodeFrame(context.Background(), in, 0) })
	if err != nil {
		clean(t, err)
		return
	}
	if want := p.Rows * p.Columns * p.SamplesPerPixel * p.BitsAllocated / 8; len(p.Data) != want {
		t.Errorf("%d bytes decoded in place of %d", len(p.Data), want)
	}
	if most := memoryBound(size, len(p.Data)); n > most {
		t.Errorf("decoding a file of %d bytes allocated %d, more than %d", size, n, most)
	}
}
