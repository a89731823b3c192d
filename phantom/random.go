package phantom

import "math"

// random is a small generator (splitmix64): the same numbers on every machine, cheap to start anew for each row.
type random uint64

func (r *random) next() uint64 {
	*r += 0x9E3779B97F4A7C15
	z := uint64(*r)
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return z ^ z>>31
}

// unit returns a number from 0 to 1.
func (r *random) unit() float64 { return float64(r.next()>>11) / (1 << 53) }

// around returns a number from -1 to 1 times spread.
func (r *random) around(spread float64) float64 { return (2*r.unit() - 1) * spread }

// normals are 4,096 quantiles of the normal distribution.
var normals = func() (n [4096]float32) {
	for i := range n {
		n[i] = float32(math.Sqrt2 * math.Erfinv(2*(float64(i)+0.5)/float64(len(n))-1))
	}
	return n
}()

// lattice is smooth noise from -1 to 1 with features of about one unit.
func lattice(seed uint64, x, y float64) float64 {
	fx, fy := math.Floor(x), math.Floor(y)
	corner := func(dx, dy float64) float64 {
		r := random(seed ^ uint64(int64(fx+dx))*0x9E3779B97F4A7C15 ^ uint64(int64(fy+dy))*0xC2B2AE3D27D4EB4F)
		return 2*r.unit() - 1
	}
	u, v := smooth(0, 1, x-fx), smooth(0, 1, y-fy)
	return (corner(0, 0)*(1-u)+corner(1, 0)*u)*(1-v) + (corner(0, 1)*(1-u)+corner(1, 1)*u)*v
}
