package modelrt

import "math"

// rotary is a table of rotary positions: what a position turns each pair of a head by.
type rotary struct {
	half     int
	part     []uint8 // which of a position's three numbers turns the pair; nil where it is always the first
	cos, sin []float32
}

// rotariesOf makes the tables of a decoder, for positions below capacity.
//
// Position p turns pair i of rope-1d by p·theta^(-2i/rotary). Of mrope-3d, sections of the pairs take p from time, row and column. Of glm-2d, the
// first half of the pairs takes the first number and the second half the second, and each half counts its pairs by itself.
func rotariesOf(d Decoder, capacity int) (list []*rotary) {
	if d.Positions == positionsAbsolute {
		return nil
	}
	n := d.rotary()
	var part []uint8
	pairs, round := n/2, n
	switch d.Positions {
	case positionsMrope:
		for p, count := range d.RopeSections {
			for range count {
				part = append(part, uint8(p))
			}
		}
	case positionsGLM:
		pairs, round = n/4, n/2
		for i := range n / 2 {
			part = append(part, uint8(i/pairs))
		}
	}
	table := func(theta, factor float64) *rotary {
		r := &rotary{half: n / 2, part: part, cos: make([]float32, capacity*n/2), sin: make([]float32, capacity*n/2)}
		for p := range capacity {
			for i := range r.half {
				frequency := math.Pow(theta, -float64(2*(i%pairs))/float64(round))
				if d.Positions == positionsGLM {
					frequency = halved(frequency)
				}
				angle := float64(p) / factor * frequency
				r.cos[p*r.half+i], r.sin[p*r.half+i] = float32(math.Cos(angle)), float32(math.Sin(angle))
			}
		}
		return r
	}
	list = append(list, table(d.RopeTheta, max(d.RopeFactor, 1)))
	if d.RopeThetaLocal > 0 {
		list = append(list, table(d.RopeThetaLocal, 1))
	}
	return list
}

// fill writes the rows of positions.
func (r *rotary) fill(cos, sin []float32, positions [][3]int32) {
	for i, p := range positions {
		toCos, toSin := cos[i*r.half:][:r.half], sin[i*r.half:][:r.half]
		if r.part == nil {
			copy(toCos, r.cos[int(p[0])*r.half:])
			copy(toSin, r.sin[int(p[0])*r.half:])
			continue
		}
		for j, part := range r.part {
			at := int(p[part])*r.half + j
			toCos[j], toSin[j] = r.cos[at], r.sin[at]
		}
	}
}
