package dicom

import (
	"encoding/binary"
	"fmt"
	"math"
	"unsafe"

	"chatxray/pipeline"
)

// words are the samples of an image with one sample a pixel, and what they mean. One of Pix8 and Pix16 is set.
type words struct {
	pix8   []uint8
	pix16  []uint16
	format wordFormat
}

// grayWords brings a frame to one word a pixel: native 8- and 16-bit words as they are, without a copy where memory allows;
// 32-bit values by their range to 16 bits; colour to its luminance.
func grayWords(px *Pixels) (words, error) {
	n, err := px.check()
	if err != nil {
		return words{}, err
	}
	f := wordFormat{words: 1 << px.BitsAllocated, stored: px.BitsStored, high: px.HighBit, signed: px.Signed}
	switch {
	case px.SamplesPerPixel == 3:
		return luminance(px, n)
	case px.BitsAllocated == 8:
		return words{pix8: px.Data[:n], format: f}, nil
	case px.BitsAllocated == 16:
		return words{pix16: native16(px.Data[:2*n]), format: f}, nil
	}
	return narrowed(px, n), nil
}

// check returns the number of pixels of a frame that is whole.
func (p *Pixels) check() (int, error) {
	if p.Rows < 1 || p.Columns < 1 || p.Rows > math.MaxUint16 || p.Columns > math.MaxUint16 {
		return 0, fmt.Errorf("%w image: %d rows and %d columns", pipeline.ErrInvalid, p.Rows, p.Columns)
	}
	if a := p.BitsAllocated; a != 8 && a != 16 && a != 32 {
		return 0, fmt.Errorf("%w image: %d bits allocated; 8, 16 and 32 can be read", pipeline.ErrUnsupported, a)
	}
	if p.BitsStored < 1 || p.HighBit >= p.BitsAllocated || p.HighBit+1 < p.BitsStored {
		return 0, fmt.Errorf("%w image: %d bits stored up to bit %d of %d", pipeline.ErrInvalid, p.BitsStored, p.HighBit, p.BitsAllocated)
	}
	if p.SamplesPerPixel != 1 && p.SamplesPerPixel != 3 {
		return 0, fmt.Errorf("%w image: %d samples a pixel; 1 and 3 can be read", pipeline.ErrUnsupported, p.SamplesPerPixel)
	}
	n := p.Rows * p.Columns
	if want := n * p.SamplesPerPixel * p.BitsAllocated / 8; len(p.Data) < want {
		return 0, fmt.Errorf("%w image: %d bytes of pixels where %d are wanted", pipeline.ErrInvalid, len(p.Data), want)
	}
	return n, nil
}

var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// native16 reads little-endian words; where the machine's words are the same it shares b's memory.
func native16(b []byte) []uint16 {
	if littleEndian && uintptr(unsafe.Pointer(unsafe.SliceData(b)))%2 == 0 {
		return unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/2)
	}
	out := make([]uint16, len(b)/2)
	for i := range out {
		out[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	return out
}

// narrowed brings 32-bit values to 16 bits: their range is cut into 65,536 equal steps, exactly one a value where it is smaller.
func narrowed(px *Pixels, n int) words {
	low, high := int64(math.MaxInt64), int64(math.MinInt64)
	at := func(i int) int64 {
		v := int64(binary.LittleEndian.Uint32(px.Data[4*i:]) >> (px.HighBit + 1 - px.BitsStored))
		v &= 1<<px.BitsStored - 1
		if px.Signed && v >= 1<<(px.BitsStored-1) {
			v -= 1 << px.BitsStored
		}
		return v
	}
	for i := range n {
		v := at(i)
		low, high = min(low, v), max(high, v)
	}
	step := max(float64(high-low)/math.MaxUint16, 1)
	out := make([]uint16, n)
	for i := range out {
		out[i] = uint16(math.Round(float64(at(i)-low) / step))
	}
	return words{pix16: out, format: wordFormat{words: 1 << 16, stored: 16, high: 15, base: float64(low), step: step}}
}

// The weights of red, green and blue in luminance (ITU-R BT.601) in 1/65536; the Y of the standard's YBR has the same.
const (
	redWeight   = 19595
	greenWeight = 38470
	blueWeight  = 7471
)

// luminance brings a colour image to gray: the Y of YBR_FULL, the weighted sum of RGB. 32-bit samples keep their upper 16 bits.
func luminance(px *Pixels, n int) (words, error) {
	mask, shift := uint32(1)<<(px.BitsStored-1)<<1-1, px.HighBit+1-px.BitsStored
	size := px.BitsAllocated / 8
	stored := min(px.BitsStored, 16)
	down := px.BitsStored - stored
	pixel, sample := 3, 1
	if px.PlanarConfiguration == 1 {
		pixel, sample = 1, n
	}
	at := func(i int) uint32 {
		var v uint32
		switch b := px.Data[i*size:]; size {
		case 1:
			v = uint32(b[0])
		case 2:
			v = uint32(binary.LittleEndian.Uint16(b))
		default:
			v = binary.LittleEndian.Uint32(b)
		}
		return v >> shift & mask >> down
	}
	var gray func(i int) uint32
	switch px.Photometric {
	case "RGB":
		gray = func(i int) uint32 {
			r, g, b := at(i*pixel), at(i*pixel+sample), at(i*pixel+2*sample)
			return (redWeight*r + greenWeight*g + blueWeight*b + 1<<15) >> 16
		}
	case "YBR_FULL", "YBR_FULL_422":
		gray = func(i int) uint32 { return at(i * pixel) }
	default:
		return words{}, fmt.Errorf("%w photometric interpretation %q of a colour image; RGB and YBR_FULL can be read", pipeline.ErrUnsupported, px.Photometric)
	}
	if px.Signed {
		return words{}, fmt.Errorf("%w image: signed colour samples", pipeline.ErrUnsupported)
	}
	out := words{format: wordFormat{stored: stored, high: stored - 1}}
	if stored <= 8 {
		out.format.words, out.pix8 = 1<<8, make([]uint8, n)
		for i := range out.pix8 {
			out.pix8[i] = uint8(gray(i))
		}
		return out, nil
	}
	out.format.words, out.pix16 = 1<<16, make([]uint16, n)
	for i := range out.pix16 {
		out.pix16[i] = uint16(gray(i))
	}
	return out, nil
}

// colourLookup is the lookup of a colour image's luminance.
func colourLookup(f wordFormat) []float32 {
	values := make([]float32, 1<<f.stored)
	for i := range values {
		values[i] = float32(i) / float32(max(len(values)-1, 1))
	}
	return f.spread(values)
}

// paletteLookup is the lookup of a PALETTE COLOR image: the luminance of each colour (PS3.3 section C.7.6.3.1.5).
func paletteLookup(h pipeline.Dataset, f wordFormat) ([]float32, error) {
	colours, err := palette(h, f.signed)
	if err != nil {
		return nil, err
	}
	values := make([]float32, 1<<f.stored)
	for i := range values {
		var y float64
		for c, weight := range []float64{redWeight, greenWeight, blueWeight} {
			full := 255.0
			if colours[c].bits > 8 {
				full = math.MaxUint16
			}
			y += weight / (1 << 16) * colours[c].at(f.value(i)) / full
		}
		values[i] = float32(min(y, 1))
	}
	return f.spread(values), nil
}
