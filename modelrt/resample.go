package modelrt

import (
	"math"
	"slices"
)

// kernel is a resampling filter. It is stretched by the scale when an image shrinks, so that every source pixel counts
// (antialiasing), as PIL's filters of the same names are.
type kernel struct {
	support float64 // the filter is 0 beyond it
	weight  func(float64) float64
}

// kernels are the values of Preprocess.Interpolation.
var kernels = map[string]kernel{
	"box":      {0.5, box},
	"bilinear": {1, triangle},
	"bicubic":  {2, cubic},
	"lanczos":  {3, lanczos},
}

func box(x float64) float64 {
	if x > -0.5 && x <= 0.5 {
		return 1
	}
	return 0
}

func triangle(x float64) float64 { return max(0, 1-math.Abs(x)) }

// cubic is Keys' cubic convolution with a = -0.5 (IEEE Trans. ASSP 29, 1981).
func cubic(x float64) float64 {
	const a = -0.5
	x = math.Abs(x)
	switch {
	case x < 1:
		return ((a+2)*x-(a+3))*x*x + 1
	case x < 2:
		return ((a*x-5*a)*x+8*a)*x - 4*a
	}
	return 0
}

func lanczos(x float64) float64 {
	if x <= -3 || x >= 3 {
		return 0
	}
	return sinc(x) * sinc(x/3)
}

func sinc(x float64) float64 {
	if x == 0 {
		return 1
	}
	x *= math.Pi
	return math.Sin(x) / x
}

// taps is one axis of a resampling: output o is the sum of weights[o*most+i] × source[first[o]+i], i < count[o].
type taps struct {
	first, count []int32
	weights      []float32
	most         int // room for each output's weights
}

// build computes the taps that take [from, from+span) of an axis of in samples to out samples. Samples beyond the axis do not
// exist: the weights of those that do are scaled to sum to 1. With reverse the source is stored from its far end; the taps are those of the
// axis as it reads, stored backwards. Buffers are reused.
func (t *taps) build(k kernel, in int, from, span float64, out int, reverse bool) {
	scale := span / float64(out)
	stretch := max(scale, 1)
	support := k.support * stretch
	t.most = min(int(math.Ceil(support))*2+1, in)
	t.first = slices.Grow(t.first[:0], out)[:out]
	t.count = slices.Grow(t.count[:0], out)[:out]
	t.weights = slices.Grow(t.weights[:0], out*t.most)[:out*t.most]
	for o := range out {
		centre := from + (float64(o)+0.5)*scale
		a := max(int(centre-support+0.5), 0)
		b := min(int(centre+support+0.5), in)
		var sum float64
		for i := a; i < b; i++ {
			sum += k.weight((float64(i) - centre + 0.5) / stretch)
		}
		if sum == 0 {
			sum = 1
		}
		w := t.weights[o*t.most:][:b-a]
		for i := a; i < b; i++ {
			w[i-a] = float32(k.weight((float64(i)-centre+0.5)/stretch) / sum)
		}
		if reverse {
			slices.Reverse(w)
			a = in - b
		}
		t.first[o], t.count[o] = int32(a), int32(len(w))
	}
}

// of returns where output o begins, and its weights.
func (t *taps) of(o int) (first int, weights []float32) {
	return int(t.first[o]), t.weights[o*t.most:][:t.count[o]]
}

// shade turns raw words into gray values: out[i] = lut[words[i]]. The lut has 256 or 65,536 entries, as the words need.
func shade[T uint8 | uint16](out []float32, words []T, lut []float32) {
	out = out[:len(words)]
	switch w := any(words).(type) {
	case []uint8:
		l := (*[1 << 8]float32)(lut)
		for i, v := range w {
			out[i] = l[v]
		}
	case []uint16:
		l := (*[1 << 16]float32)(lut)
		for i, v := range w {
			out[i] = l[v]
		}
	}
}

// combine sets acc to the weighted sum of rows, of which there is one for each weight. Eight at a time: the sum is then read and
// written once for eight products.
func combine(acc []float32, rows [][]float32, weights []float32) {
	clear(acc)
	n := len(acc)
	for len(weights) >= 8 {
		w := (*[8]float32)(weights)
		r0, r1, r2, r3 := rows[0][:n], rows[1][:n], rows[2][:n], rows[3][:n]
		r4, r5, r6, r7 := rows[4][:n], rows[5][:n], rows[6][:n], rows[7][:n]
		for x := range acc {
			acc[x] += (w[0]*r0[x] + w[1]*r1[x]) + (w[2]*r2[x] + w[3]*r3[x]) +
				((w[4]*r4[x] + w[5]*r5[x]) + (w[6]*r6[x] + w[7]*r7[x]))
		}
		rows, weights = rows[8:], weights[8:]
	}
	if len(weights) >= 4 {
		w0, w1, w2, w3 := weights[0], weights[1], weights[2], weights[3]
		r0, r1, r2, r3 := rows[0][:n], rows[1][:n], rows[2][:n], rows[3][:n]
		for x := range acc {
			acc[x] += (w0*r0[x] + w1*r1[x]) + (w2*r2[x] + w3*r3[x])
		}
		rows, weights = rows[4:], weights[4:]
	}
	for i, w := range weights {
		r := rows[i][:n]
		for x := range acc {
			acc[x] += w * r[x]
		}
	}
}

// dot is the sum of the products of two slices of the same length.
func dot(w, r []float32) float32 {
	r = r[:len(w)]
	var a, b, c, d float32
	i := 0
	for ; i+4 <= len(w); i += 4 {
		w, r := (*[4]float32)(w[i:]), (*[4]float32)(r[i:])
		a += w[0] * r[0]
		b += w[1] * r[1]
		c += w[2] * r[2]
		d += w[3] * r[3]
	}
	for ; i < len(w); i++ {
		a += w[i] * r[i]
	}
	return (a + b) + (c + d)
}
