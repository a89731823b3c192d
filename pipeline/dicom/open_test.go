package dicom

import (
	"bytes"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chatxray/pipeline"
)

// counting counts the bytes that are read.
type counting struct {
	io.ReaderAt
	n int
}

func (c *counting) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.ReaderAt.ReadAt(p, off)
	c.n += n
	return n, err
}

// TestHeaderOnly: the header of a file with megabytes of pixels costs a few pages of it.
func TestHeaderOnly(t *testing.T) {
	var d pipeline.Dataset
	d.SetText(pipeline.TagSOPClassUID, "UI", classDX)
	for i, tag := range []pipeline.Tag{pipeline.TagStudyInstanceUID, pipeline.TagSeriesInstanceUID, pipeline.TagSOPInstanceUID} {
		d.SetText(tag, "UI", []string{"1.2", "1.2.3", "1.2.3.4"}[i])
	}
	d.SetText(pipeline.TagPhotometricInterpretation, "CS", "MONOCHROME2")
	for tag, n := range map[pipeline.Tag]int64{pipeline.TagSamplesPerPixel: 1, pipeline.TagRows: 2048, pipeline.TagColumns: 2048,
		pipeline.TagBitsAllocated: 16, pipeline.TagBitsStored: 16, pipeline.TagHighBit: 15, pipeline.TagPixelRepresentation: 0} {
		d.SetInts(tag, "US", n)
	}
	pixels := make([]byte, 8<<20)
	for i := range pixels {
		pixels[i] = byte(i * i >> 3)
	}
	d.SetBytes(pipeline.TagPixelData, "OW", pixels)
	for _, syntax := range []string{ExplicitVRLittleEndian, RLELossless} {
		var b bytes.Buffer
		if err := Write(&b, d, syntax); err != nil {
			t.Fatal(err)
		}
		whole, err := OpenAt(bytes.NewReader(b.Bytes()), int64(b.Len()))
		if err != nil {
			t.Fatal(err)
		}
		r := &counting{ReaderAt: bytes.NewReader(b.Bytes())}
		in, err := headerAt(r, int64(b.Len()))
		if err != nil {
			t.Fatal(err)
		}
		if r.n > 4*pageBytes || b.Len() < 4<<20 {
			t.Errorf("%s: %d of %d bytes were read", syntax, r.n, b.Len())
		}
		whole.Digest = pipeline.Digest{}
		if diff := cmp.Diff(whole, in); diff != "" {
			t.Errorf("%s: not what the whole file gives:\n%s", syntax, diff)
		}
	}
}
