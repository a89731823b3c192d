package dicom

import (
	"encoding/binary"
	"fmt"
	"image/color"
	"math"

	"chatxray/pipeline"
)

// colours brings a colour frame to interleaved red, green and blue of 8 bits.
func colours(px *Pixels, h pipeline.Dataset) ([]uint8, error) {
	n, err := px.check()
	if err != nil {
		return nil, err
	}
	if px.SamplesPerPixel == 1 {
		return paletteColours(px, h, n)
	}
	if px.Signed {
		return nil, fmt.Errorf("%w image: signed colour samples", pipeline.ErrUnsupported)
	}
	out := make([]uint8, 3*n)
	if px.PlanarConfiguration == 1 {
		for c := range 3 {
			for i := range n {
				out[3*i+c] = px.eight(c*n + i)
			}
		}
	} else {
		for i := range out {
			out[i] = px.eight(i)
		}
	}
	switch px.Photometric {
	case "RGB":
	case "YBR_FULL", "YBR_FULL_422":
		for i := 0; i < len(out); i += 3 {
			out[i], out[i+1], out[i+2] = color.YCbCrToRGB(out[i], out[i+1], out[i+2])
		}
	default:
		return nil, fmt.Errorf("%w photometric interpretation %q of a colour image; RGB, YBR_FULL and PALETTE COLOR can be shown", pipeline.ErrUnsupported, px.Photometric)
	}
	return out, nil
}

// eight brings a sample to 8 bits.
func (p *Pixels) eight(i int) uint8 {
	v := p.word(i) >> (p.HighBit + 1 - p.BitsStored) & (1<<p.BitsStored - 1)
	if p.BitsStored > 8 {
		return uint8(v >> (p.BitsStored - 8))
	}
	return uint8(v * 255 / (1<<p.BitsStored - 1))
}

func (p *Pixels) word(i int) uint64 {
	switch p.BitsAllocated {
	case 8:
		return uint64(p.Data[i])
	case 16:
		return uint64(binary.LittleEndian.Uint16(p.Data[2*i:]))
	}
	return uint64(binary.LittleEndian.Uint32(p.Data[4*i:]))
}

// paletteColours looks the colours of a PALETTE COLOR frame up (PS3.3 section C.7.6.3.1.5).
func paletteColours(px *Pixels, h pipeline.Dataset, n int) ([]uint8, error) {
	tables, err := palette(h, px.Signed)
	if err != nil {
		return nil, err
	}
	f := wordFormat{stored: min(px.BitsStored, 16), high: px.HighBit, signed: px.Signed}
	out := make([]uint8, 3*n)
	for c, t := range tables {
		values := make([]uint8, 1<<f.stored)
		for i := range values {
			v := t.at(f.value(i))
			if t.bits > 8 {
				v = v * 255 / math.MaxUint16
			}
			values[i] = uint8(min(v+0.5, 255))
		}
		for i := range n {
			out[3*i+c] = values[f.index(int(px.word(i)))]
		}
	}
	return out, nil
}

// palette reads the three tables of a PALETTE COLOR image.
func palette(h pipeline.Dataset, signed bool) ([3]*table, error) {
	var colours [3]*table
	for i, tags := range [][2]pipeline.Tag{
		{pipeline.TagRedPaletteColorLookupTableDescriptor, pipeline.TagRedPaletteColorLookupTableData},
		{pipeline.TagGreenPaletteColorLookupTableDescriptor, pipeline.TagGreenPaletteColorLookupTableData},
		{pipeline.TagBluePaletteColorLookupTableDescriptor, pipeline.TagBluePaletteColorLookupTableData},
	} {
		if colours[i] = readTable(h, tags[0], tags[1], signed); colours[i] == nil {
			return colours, fmt.Errorf("%w palette: %v or %v is absent or empty (segmented palettes cannot be read)", pipeline.ErrUnsupported, tags[0], tags[1])
		}
	}
	return colours, nil
}
