package dicom

import (
	"context"
	"fmt"
	"image"
	"image/color"
	"math"
	"slices"
	"sync"

	"chatxray/pipeline"
)

// maxShown is the largest frame that is rendered, in samples: a picture is made in memory.
const maxShown = 96 << 20

// Render makes a picture of one frame, counted from 0: *image.Gray, *Rows where no pixels are put together, or *image.RGBA of a colour
// image. Windows, LUTs, photometric
// interpretation, padding and shutters are those of Decode, unless v names a window; the frame stays as it lies. A region is cut to what
// the frame has; one that lies outside is invalid. Smaller pictures are the mean of the pixels that fall together, larger ones
// are interpolated. Errors are those of Decode.
//
// The memory of a frame read from a file is used again, because new memory of that size costs as much as making a small picture of it: after
// a *Rows has been closed, or when another picture is returned.
func (o *Object) Render(ctx context.Context, frame int, v pipeline.View) (image.Image, error) {
	f, err := o.open()
	if err != nil {
		return nil, err
	}
	if n := f.layout.words(); n > maxShown {
		return nil, fmt.Errorf("%w image: %d samples are more than the %d Mi that are rendered", pipeline.ErrUnsupported, n, maxShown>>20)
	}
	var lent *[]byte
	f.borrow = func(n int64) []byte {
		lent = frameMemory.Get().(*[]byte)
		if int64(cap(*lent)) < n {
			*lent = make([]byte, n)
		}
		return (*lent)[:n]
	}
	m, err := o.render(ctx, f, frame, v)
	f.borrow = nil
	if rows, ok := m.(*Rows); ok && err == nil {
		rows.lent = lent
	} else if lent != nil {
		frameMemory.Put(lent)
	}
	return m, err
}

// frameMemory holds what frames were read into.
var frameMemory = sync.Pool{New: func() any { return new([]byte) }}

// render makes the picture.
func (o *Object) render(ctx context.Context, f *Frames, frame int, v pipeline.View) (image.Image, error) {
	px, err := f.Frame(ctx, frame)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	h := o.walked.header
	columns, rows, err := axes(v, px.Columns, px.Rows, pixelAspect(h))
	if err != nil {
		return nil, err
	}
	if px.SamplesPerPixel == 3 || px.Photometric == "PALETTE COLOR" {
		rgb, err := colours(px, h)
		if err != nil {
			return nil, err
		}
		return shrinkColour(rgb, px.Columns, columns, rows), nil
	}
	var chosen voi
	if v.Window != nil {
		if chosen = window(v.Window.Function, v.Window.Center, v.Window.Width); chosen == nil {
			return nil, fmt.Errorf("%w window: no picture comes of a width of %g", pipeline.ErrInvalid, v.Window.Width)
		}
	}
	m, err := develop(&pipeline.Instance{Header: h}, frame, px, chosen)
	if err != nil {
		return nil, fmt.Errorf("frame %d: %w", frame+1, err)
	}
	if columns.plain && rows.plain {
		return &Rows{m: m, lut: lookup8(m.LUT), columns: columns, rows: rows}, nil
	}
	return shrinkGray(m, columns, rows), nil
}

// pixelAspect is how much taller than wide a pixel is (PS3.3 section C.7.6.3.1.7); 1 where the object does not say, or talks nonsense.
func pixelAspect(h pipeline.Dataset) float64 {
	if r := h.Floats(pipeline.TagPixelAspectRatio); len(r) == 2 && r[0] > 0 && r[1] > 0 && r[0] <= 10*r[1] && r[1] <= 10*r[0] {
		return r[0] / r[1]
	}
	return 1
}

// taps are the stored pixels that make one pixel of a picture along one axis.
type taps struct {
	first   int
	weights []float32
}

// axis is one direction of a picture.
type axis struct {
	from, size int // the stored pixels that it shows
	out        []taps
	plain      bool // one stored pixel each, maybe in the other direction
}

// axes lays out a picture.
func axes(v pipeline.View, width, height int, aspect float64) (columns, rows axis, err error) {
	if v.Left < 0 || v.Top < 0 || v.Width < 0 || v.Height < 0 || v.Left >= width || v.Top >= height {
		return axis{}, axis{}, fmt.Errorf("%w: the region lies outside the image, which has %d columns and %d rows", pipeline.ErrInvalid, width, height)
	}
	w, h := width-v.Left, height-v.Top
	if v.Width > 0 {
		w = min(w, v.Width)
	}
	if v.Height > 0 {
		h = min(h, v.Height)
	}
	outW, outH := w, h
	if v.FitWidth > 0 || v.FitHeight > 0 {
		tall := float64(h) * aspect
		scale := math.Inf(1)
		if v.FitWidth > 0 {
			scale = float64(v.FitWidth) / float64(w)
		}
		if v.FitHeight > 0 {
			scale = min(scale, float64(v.FitHeight)/tall)
		}
		outW, outH = max(1, int(math.Round(float64(w)*scale))), max(1, int(math.Round(tall*scale)))
	}
	return newAxis(v.Left, w, outW, v.FlipX), newAxis(v.Top, h, outH, v.FlipY), nil
}

func newAxis(from, size, out int, flip bool) axis {
	a := axis{from: from, size: size, out: make([]taps, out), plain: size == out}
	ratio := float64(size) / float64(out)
	for i := range out {
		t := &a.out[i]
		if flip {
			t = &a.out[out-1-i]
		}
		switch {
		case a.plain:
			*t = taps{from + i, []float32{1}}
		case out < size:
			*t = box(float64(i)*ratio, float64(i+1)*ratio, size)
			t.first += from
		default:
			x := min(max((float64(i)+0.5)*ratio-0.5, 0), float64(size-1))
			left := int(x)
			t.first, t.weights = from+left, []float32{1}
			if part := float32(x - float64(left)); part > 0 && left+1 < size {
				t.weights = []float32{1 - part, part}
			}
		}
	}
	return a
}

// box weighs the pixels between two positions by how much of each lies between them.
func box(low, high float64, size int) taps {
	first, last := int(low), min(int(math.Ceil(high-1e-9)), size)
	t := taps{first: first}
	for i := first; i < last; i++ {
		part := min(high, float64(i+1)) - max(low, float64(i))
		t.weights = append(t.weights, float32(part/(high-low)))
	}
	return t
}

// Rows is a gray picture whose pixels are looked up when they are asked for: a large one is compressed without lying in memory.
type Rows struct {
	m             *pipeline.Image
	lut           []uint8
	columns, rows axis
	lent          *[]byte
}

// Close gives the memory of the frame back; no pixel may be asked for afterwards.
func (r *Rows) Close() error {
	if r.lent != nil {
		r.m = nil
		frameMemory.Put(r.lent)
		r.lent = nil
	}
	return nil
}

// ColorModel implements image.Image.
func (r *Rows) ColorModel() color.Model { return color.GrayModel }

// Bounds implements image.Image.
func (r *Rows) Bounds() image.Rectangle { return image.Rect(0, 0, len(r.columns.out), len(r.rows.out)) }

// At implements image.Image.
func (r *Rows) At(x, y int) color.Color {
	row := make([]uint8, len(r.columns.out))
	r.Row(y, row)
	return color.Gray{Y: row[x]}
}

// Row writes the pixels of a row.
func (r *Rows) Row(y int, into []uint8) {
	m, at := r.m, r.rows.out[y].first
	left, right := max(r.columns.from, m.Left), min(r.columns.from+r.columns.size, m.Right)
	into = into[:len(r.columns.out)]
	if at < m.Top || at >= m.Bottom || left >= right {
		clear(into)
		return
	}
	clear(into[:left-r.columns.from])
	clear(into[right-r.columns.from:])
	inside := into[left-r.columns.from : right-r.columns.from]
	if m.Pix16 != nil {
		look16(inside, m.Pix16[at*m.Columns+left:], (*[1 << 16]uint8)(r.lut))
	} else {
		for i, p := range m.Pix8[at*m.Columns+left:][:len(inside)] {
			inside[i] = r.lut[p]
		}
	}
	if r.columns.out[0].first > r.columns.from {
		slices.Reverse(into)
	}
}

func look16(out []uint8, in []uint16, lut *[1 << 16]uint8) {
	in = in[:len(out)]
	for i := range out {
		out[i] = lut[in[i]]
	}
}

func lookup8(lut []float32) []uint8 {
	out := make([]uint8, len(lut))
	for i, v := range lut {
		out[i] = uint8(v*255 + 0.5)
	}
	return out
}

// shrinkGray looks up, and takes means or interpolates, in one pass over the stored words.
func shrinkGray(m *pipeline.Image, columns, rows axis) *image.Gray {
	out := image.NewGray(image.Rect(0, 0, len(columns.out), len(rows.out)))
	sum := make([]float32, columns.size)
	left, right := max(columns.from, m.Left), min(columns.from+columns.size, m.Right)
	for y, t := range rows.out {
		clear(sum)
		for i, weight := range t.weights {
			at := t.first + i
			if at < m.Top || at >= m.Bottom || left >= right {
				continue
			}
			into := sum[left-columns.from : right-columns.from]
			if m.Pix16 != nil {
				add16(into, m.Pix16[at*m.Columns+left:], (*[1 << 16]float32)(m.LUT), weight)
			} else {
				add8(into, m.Pix8[at*m.Columns+left:], (*[1 << 8]float32)(m.LUT), weight)
			}
		}
		row := out.Pix[y*out.Stride:]
		for x, t := range columns.out {
			var v float32
			for i, p := range sum[t.first-columns.from:][:len(t.weights)] {
				v += p * t.weights[i]
			}
			row[x] = uint8(min(v, 1)*255 + 0.5)
		}
	}
	return out
}

func add16(sum []float32, in []uint16, lut *[1 << 16]float32, weight float32) {
	in = in[:len(sum)]
	for i := range sum {
		sum[i] += weight * lut[in[i]]
	}
}

func add8(sum []float32, in []uint8, lut *[1 << 8]float32, weight float32) {
	in = in[:len(sum)]
	for i := range sum {
		sum[i] += weight * lut[in[i]]
	}
}

// shrinkColour does the same to interleaved red, green and blue.
func shrinkColour(rgb []uint8, width int, columns, rows axis) *image.RGBA {
	out := image.NewRGBA(image.Rect(0, 0, len(columns.out), len(rows.out)))
	sum := make([]float32, 3*columns.size)
	for y, t := range rows.out {
		clear(sum)
		for i, weight := range t.weights {
			for j, p := range rgb[3*((t.first+i)*width+columns.from):][:len(sum)] {
				sum[j] += weight * float32(p)
			}
		}
		row := out.Pix[y*out.Stride:]
		for x, t := range columns.out {
			var v [3]float32
			for i, w := range t.weights {
				p := sum[3*(t.first-columns.from+i):]
				v[0], v[1], v[2] = v[0]+w*p[0], v[1]+w*p[1], v[2]+w*p[2]
			}
			for c := range v {
				row[4*x+c] = uint8(min(v[c]+0.5, 255))
			}
			row[4*x+3] = 255
		}
	}
	return out
}
