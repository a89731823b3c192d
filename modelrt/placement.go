package modelrt

import (
	"math"

	"chatxray/pipeline"
)

// Placement is where an image lies in a model's tensor. Coordinates are continuous: the top left corner of the top left pixel
// is 0, 0 and its centre 0.5, 0.5, as in an SCOORD (PS3.3 section C.18.6.1.2).
type Placement struct {
	Width, Height int // of the tensor
	// X, Y, W, H is the part of the tensor that the picture fills; the rest is black.
	X, Y, W, H int
	// Left, Top, SourceWidth, SourceHeight is the part of the upright image that is shown there.
	Left, Top, SourceWidth, SourceHeight float64

	rows, columns int // upright
	upright       pipeline.Orientation
}

// Place returns where m lies in the tensor.
func (p Preprocess) Place(m *pipeline.Image) Placement {
	rows, columns := m.UprightSize()
	at := Placement{
		Width: p.Width, Height: p.Height, W: p.Width, H: p.Height,
		SourceWidth: float64(columns), SourceHeight: float64(rows),
		rows: rows, columns: columns, upright: m.Upright,
	}
	across, down := float64(p.Width)/float64(columns), float64(p.Height)/float64(rows)
	shrunk := func(scale float64) {
		at.W = min(max(int(math.Round(float64(columns)*scale)), 1), p.Width)
		at.H = min(max(int(math.Round(float64(rows)*scale)), 1), p.Height)
	}
	switch p.Fit {
	case "pad":
		shrunk(min(across, down))
		at.X, at.Y = (p.Width-at.W)/2, (p.Height-at.H)/2
	case "crop":
		scale := max(across, down)
		at.SourceWidth = min(float64(p.Width)/scale, float64(columns))
		at.SourceHeight = min(float64(p.Height)/scale, float64(rows))
		at.Left, at.Top = (float64(columns)-at.SourceWidth)/2, (float64(rows)-at.SourceHeight)/2
	case "keep":
		shrunk(min(across, down, 1))
		if p.Patch > 0 && min(across, down) < 1 { // as transformers' image processor of Fuyu does
			scale := min(across, down)
			at.W, at.H = max(int(float64(columns)*scale), 1), max(int(float64(rows)*scale), 1)
		}
		at.Width, at.Height = (at.W+p.unit()-1)/p.unit()*p.unit(), (at.H+p.unit()-1)/p.unit()*p.unit()
	case "area":
		at.Width, at.Height = p.area(columns, rows)
		at.W, at.H = at.Width, at.Height
	}
	return at
}

// area gives sides that are multiples of unit and have MinPixels to MaxPixels, as transformers' smart_resize of Qwen2-VL does.
func (p Preprocess) area(columns, rows int) (width, height int) {
	unit, w, h := float64(p.unit()), float64(columns), float64(rows)
	width, height = int(math.RoundToEven(w/unit)*unit), int(math.RoundToEven(h/unit)*unit)
	switch {
	case width*height > p.MaxPixels:
		scale := math.Sqrt(w * h / float64(p.MaxPixels))
		width, height = int(math.Floor(w/scale/unit)*unit), int(math.Floor(h/scale/unit)*unit)
	case width*height < p.MinPixels:
		scale := math.Sqrt(float64(p.MinPixels) / (w * h))
		width, height = int(math.Ceil(w*scale/unit)*unit), int(math.Ceil(h*scale/unit)*unit)
	}
	return max(width, p.unit()), max(height, p.unit())
}

// ToSource takes a point of the tensor to the column and row of the image as it is stored. A point in the black of "pad" comes out
// beyond the image.
func (at Placement) ToSource(x, y float64) (column, row float64) {
	u := at.Left + (x-float64(at.X))*at.SourceWidth/float64(at.W)
	v := at.Top + (y-float64(at.Y))*at.SourceHeight/float64(at.H)
	if at.upright.FlipX {
		u = float64(at.columns) - u
	}
	if at.upright.FlipY {
		v = float64(at.rows) - v
	}
	if at.upright.Transpose {
		return v, u
	}
	return u, v
}

// FromSource is the inverse of ToSource.
func (at Placement) FromSource(column, row float64) (x, y float64) {
	u, v := column, row
	if at.upright.Transpose {
		u, v = row, column
	}
	if at.upright.FlipX {
		u = float64(at.columns) - u
	}
	if at.upright.FlipY {
		v = float64(at.rows) - v
	}
	return float64(at.X) + (u-at.Left)*float64(at.W)/at.SourceWidth,
		float64(at.Y) + (v-at.Top)*float64(at.H)/at.SourceHeight
}
