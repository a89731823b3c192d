package phantom

import "math"

// The detector reads the logarithm of the exposure, dense = high, over this range of line integrals.
const (
	leastDensity = -0.15
	mostDensity  = 5.0
	windowFrom   = 0.90 // what a display should show as black and as white
	windowTo     = 4.05
	photons      = 60000 // per pixel of 0.17 mm, in air
	scatter      = 0.010 // of the exposure in air, behind the patient
)

// expose turns the field into words: scatter, quantum noise, the collimator's edge, bits and photometric interpretation.
func (s *scene) expose(f *field) *Phantom {
	o := s.o
	p := &Phantom{Options: o, Words: make([]uint16, o.Rows*o.Columns), Spacing: max(fieldHeight/float64(o.Rows), fieldWidth/float64(o.Columns))}
	most := float64(int(1)<<o.BitsStored - 1)
	scale := most / (mostDensity - leastDensity)
	word := func(density float64) int { return int(math.Round((density - leastDensity) * scale)) }
	p.low, p.high = word(windowFrom), word(windowTo)
	c := s.collimator()
	answer := answers(photons * p.Spacing * p.Spacing / (0.168 * 0.168))
	left, top := -p.Spacing*float64(o.Columns)/2, (fieldHeight-p.Spacing*float64(o.Rows))/2
	ratio := p.Spacing / f.step
	parallel(o.Rows, func(from, to int) {
		for row := from; row < to; row++ {
			r := random(s.text ^ uint64(row)*0x9E3779B97F4A7C15)
			y := top + p.Spacing*float64(row)
			line := p.Words[row*o.Columns:][:o.Columns]
			fy := float64(row) * ratio
			r0 := min(int(fy), f.rows-1)
			r1, ty := min(r0+1, f.rows-1), float32(fy-float64(r0))
			above, below := f.v[r0*f.columns:], f.v[r1*f.columns:]
			for column := range line {
				fx := float64(column) * ratio
				c0 := min(int(fx), f.columns-1)
				c1, tx := min(c0+1, f.columns-1), float32(fx-float64(c0))
				v := (above[c0]*(1-tx)+above[c1]*tx)*(1-ty) + (below[c0]*(1-tx)+below[c1]*tx)*ty
				d := answer[min(int(v*answerSteps), len(answer)-1)]
				w := float64(d.density-d.noise*normals[r.next()>>52]) - leastDensity
				w = min(max(math.Round(w*c.open(left+p.Spacing*float64(column), y)*scale), 0), most)
				if o.Photometric == Monochrome1 {
					w = most - w
				}
				line[column] = uint16(w)
			}
		}
	})
	if o.Photometric == Monochrome1 {
		p.low, p.high = int(most)-p.high, int(most)-p.low
	}
	return p
}

// answer is what the detector reads behind a line integral: the density, and the standard deviation of its noise.
type answer struct{ density, noise float32 }

const answerSteps = 1024 // a unit of the line integral

// answers tabulates the detector for a number of photons a pixel.
func answers(photons float64) []answer {
	out := make([]answer, 16*answerSteps)
	for i := range out {
		exposure := math.Exp(-(float64(i) + 0.5) / answerSteps)
		exposure += scatter * (1 - exposure)
		out[i] = answer{float32(-math.Log(exposure)), float32(1 / math.Sqrt(photons*exposure))}
	}
	return out
}

// collimator is the edge of the beam: a rectangle, a little turned. Outside, the processing has made the image black.
type collimator struct{ left, top, right, bottom, turn float64 }

func (s *scene) collimator() collimator {
	r := random(s.text + 5)
	return collimator{-fieldWidth/2 + 3 + 4*r.unit(), 3 + 4*r.unit(), fieldWidth/2 - 3 - 4*r.unit(), fieldHeight - 3 - 4*r.unit(), r.around(0.006)}
}

// open is 1 within the beam, 0 outside.
func (c collimator) open(x, y float64) float64 {
	dx, dy := c.turn*(y-fieldHeight/2), c.turn*x
	d := min(x+dx-c.left, c.right-x-dx, y-dy-c.top, c.bottom-y+dy)
	return smooth(0, 0.7, d)
}
