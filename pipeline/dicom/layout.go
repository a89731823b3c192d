package dicom

import (
	"fmt"
	"strings"

	"chatxray/pipeline"
)

// The largest image that is decoded: samples, and bytes, of one frame.
const (
	maxFrameSamples = 256 << 20
	maxFrameBytes   = 4 * maxFrameSamples
	maxFrames       = 1 << 20
)

// layout is what the header says about the stored pixels (PS3.3 section C.7.6.3).
type layout struct {
	rows, columns, samples, frames int
	allocated, stored, high        int
	signed                         bool
	photometric                    string
	planar                         int
}

// newLayout reads and checks the image attributes. Errors wrap pipeline.ErrInvalid or pipeline.ErrUnsupported.
func newLayout(ds pipeline.Dataset) (layout, error) {
	var l layout
	err := firstError(
		ushort(ds, pipeline.TagRows, &l.rows, 1, 65535),
		ushort(ds, pipeline.TagColumns, &l.columns, 1, 65535),
		ushort(ds, pipeline.TagSamplesPerPixel, &l.samples, 1, 4),
		ushort(ds, pipeline.TagBitsAllocated, &l.allocated, 1, 64),
		ushort(ds, pipeline.TagBitsStored, &l.stored, 1, 64),
	)
	if err != nil {
		return l, err
	}
	if l.samples != 1 && l.samples != 3 {
		return l, fmt.Errorf("%w image: %d samples per pixel; only 1 and 3 are read", pipeline.ErrUnsupported, l.samples)
	}
	switch l.allocated {
	case 1, 8, 16, 32:
	default:
		return l, fmt.Errorf("%w image: %d bits allocated; only 1, 8, 16 and 32 are read", pipeline.ErrUnsupported, l.allocated)
	}
	if l.stored > l.allocated {
		return l, fmt.Errorf("%w image: Bits Stored %d is more than Bits Allocated %d", pipeline.ErrInvalid, l.stored, l.allocated)
	}
	l.high = l.stored - 1
	if e, ok := ds.Get(pipeline.TagHighBit); ok && len(e.Ints) > 0 {
		if err := ushort(ds, pipeline.TagHighBit, &l.high, l.stored-1, l.allocated-1); err != nil {
			return l, err
		}
	}
	if e, ok := ds.Get(pipeline.TagPixelRepresentation); ok && len(e.Ints) > 0 {
		n := 0
		if err := ushort(ds, pipeline.TagPixelRepresentation, &n, 0, 1); err != nil {
			return l, err
		}
		l.signed = n == 1
	}
	if e, ok := ds.Get(pipeline.TagPlanarConfiguration); ok && len(e.Ints) > 0 && l.samples > 1 {
		if err := ushort(ds, pipeline.TagPlanarConfiguration, &l.planar, 0, 1); err != nil {
			return l, err
		}
	}
	l.photometric = strings.ToUpper(ds.String(pipeline.TagPhotometricInterpretation))
	l.frames = 1
	if e, ok := ds.Get(pipeline.TagNumberOfFrames); ok && len(e.Text) > 0 {
		n := leadingInt(e.Text[0])
		if n < 1 || n > maxFrames {
			return l, fmt.Errorf("%w image: Number of Frames (0028,0008) is no number between 1 and %d", pipeline.ErrInvalid, maxFrames)
		}
		l.frames = n
	}
	if n := int64(l.rows) * int64(l.columns) * int64(l.samples); n > maxFrameSamples {
		return l, fmt.Errorf("%w image: %d rows x %d columns x %d samples are more than the %d Mi samples that are read", pipeline.ErrUnsupported, l.rows, l.columns, l.samples, maxFrameSamples>>20)
	}
	return l, l.checkColour()
}

// checkColour compares Photometric Interpretation with Samples per Pixel.
func (l layout) checkColour() error {
	want := 3
	switch l.photometric {
	case "MONOCHROME1", "MONOCHROME2", "PALETTE COLOR":
		want = 1
	case "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT":
	case "YBR_PARTIAL_422", "YBR_PARTIAL_420", "HSV", "ARGB", "CMYK", "XYB":
		return fmt.Errorf("%w image: Photometric Interpretation %s", pipeline.ErrUnsupported, l.photometric)
	case "":
		return fmt.Errorf("%w image: Photometric Interpretation (0028,0004) is missing", pipeline.ErrInvalid)
	default:
		return fmt.Errorf("%w image: Photometric Interpretation (0028,0004) is none of the standard", pipeline.ErrInvalid)
	}
	if l.samples != want {
		return fmt.Errorf("%w image: Photometric Interpretation %s with %d samples per pixel", pipeline.ErrInvalid, l.photometric, l.samples)
	}
	return nil
}

// wordBytes is the size of a sample once unpacked.
func (l layout) wordBytes() int { return max(1, l.allocated/8) }

// words is the number of samples of one frame.
func (l layout) words() int64 { return int64(l.rows) * int64(l.columns) * int64(l.samples) }

// frameBytes is the size of one frame after decoding.
func (l layout) frameBytes() int64 { return l.words() * int64(l.wordBytes()) }

// storedBits is the size of one native frame in the file: chroma may be shared by two pixels, bits are packed.
func (l layout) storedBits() int64 {
	if l.photometric == "YBR_FULL_422" {
		return int64(l.rows) * int64((l.columns+1)/2) * 4 * int64(l.allocated)
	}
	return l.words() * int64(l.allocated)
}

// pixels describes one decoded frame of this layout.
func (l layout) pixels(data []byte) *Pixels {
	return &Pixels{
		Rows: l.rows, Columns: l.columns, SamplesPerPixel: l.samples, Frames: l.frames,
		BitsAllocated: max(8, l.allocated), BitsStored: l.stored, HighBit: l.high,
		Signed: l.signed, Photometric: l.photometric, PlanarConfiguration: l.planar, Data: data,
	}
}

// ushort reads an attribute of one unsigned short within bounds.
func ushort(ds pipeline.Dataset, t pipeline.Tag, into *int, least, most int) error {
	name, _, _ := Keyword(t)
	e, ok := ds.Get(t)
	switch {
	case !ok:
		return fmt.Errorf("%w image: %s %v is missing", pipeline.ErrInvalid, name, t)
	case e.VR != "US":
		return fmt.Errorf("%w image: %s %v has the value representation %s in place of US", pipeline.ErrInvalid, name, t, e.VR)
	case len(e.Ints) != 1:
		return fmt.Errorf("%w image: %s %v has %d values in place of one", pipeline.ErrInvalid, name, t, len(e.Ints))
	case e.Ints[0] < int64(least) || e.Ints[0] > int64(most):
		return fmt.Errorf("%w image: %s %v is %d, not between %d and %d", pipeline.ErrInvalid, name, t, e.Ints[0], least, most)
	}
	*into = int(e.Ints[0])
	return nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// leadingInt reads the number that a string begins with, as other readers do with values like "1A"; -1 where there is none.
func leadingInt(s string) int {
	n := -1
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' || n > maxFrames {
			break
		}
		n = max(n, 0)*10 + int(s[i]-'0')
	}
	return n
}
