package dicom

import (
	"context"
	"fmt"

	"chatxray/pipeline"
)

// Decode makes the Image of one frame of an instance, counted from 0: native words, the lookup from them to gray 0..1 (dense =
// bright), the shutter and the way upright. The words may share memory with in.Data. Errors are those of DecodeFrame, and
// pipeline.ErrUnsupported for a photometric interpretation that cannot be read.
func Decode(ctx context.Context, in *pipeline.Instance, frame int) (*pipeline.Image, error) {
	px, err := DecodeFrame(ctx, in, frame)
	if err != nil {
		return nil, err
	}
	m, err := develop(in, frame, px, nil)
	if err != nil {
		return nil, fmt.Errorf("frame %d of instance %s: %w", frame+1, in.SOPInstanceUID, err)
	}
	return m, nil
}

// develop makes an Image of stored pixels and the header they came with. chosen, if any, stands in for the object's VOI transformation.
func develop(in *pipeline.Instance, frame int, px *Pixels, chosen voi) (*pipeline.Image, error) {
	w, err := grayWords(px)
	if err != nil {
		return nil, err
	}
	m := &pipeline.Image{
		Instance: in, Frame: frame, Rows: px.Rows, Columns: px.Columns, Pix8: w.pix8, Pix16: w.pix16,
		Bottom: px.Rows, Right: px.Columns, Upright: upright(in.Header),
	}
	shut := shutterOf(in.Header)
	shut.crop(m)
	switch {
	case px.SamplesPerPixel == 3:
		m.LUT = colourLookup(w.format)
	case px.Photometric == "PALETTE COLOR":
		if m.LUT, err = paletteLookup(in.Header, w.format); err != nil {
			return nil, err
		}
	case px.Photometric == "MONOCHROME1" || px.Photometric == "MONOCHROME2":
		m.LUT = grayLookup(in.Header, frame, w.format, px.Photometric, chosen, func() []uint32 { return census(m, w.format.words) })
	default:
		return nil, fmt.Errorf("%w photometric interpretation %q of an image with one sample a pixel", pipeline.ErrUnsupported, px.Photometric)
	}
	shut.mask(m)
	return m, nil
}

const censusSide = 1024 // pixels each way, about, that a census looks at

// census counts the raw words of a grid of pixels inside the rectangular shutter.
func census(m *pipeline.Image, words int) []uint32 {
	counts := make([]uint32, words)
	across, down := max(m.Columns/censusSide, 1), max(m.Rows/censusSide, 1)
	for y := m.Top; y < m.Bottom; y += down {
		if m.Pix16 != nil {
			row := m.Pix16[y*m.Columns:][:m.Columns]
			for x := m.Left; x < m.Right; x += across {
				counts[row[x]]++
			}
			continue
		}
		row := m.Pix8[y*m.Columns:][:m.Columns]
		for x := m.Left; x < m.Right; x += across {
			counts[row[x]]++
		}
	}
	return counts
}
