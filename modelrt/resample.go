package modelrt

// #cgo CFLAGS: -O3
// #include "resample.h"
import "C"

import (
	"math"
	"slices"
	"unsafe"

	"chatxray/pipeline"
)

// filter is a resampling filter. It is stretched by the scale when an image shrinks, so that every source pixel counts
// (antialiasing), as PIL's filters of the same names are.
type filter struct {
	support float64 // the filter is 0 beyond it
	weight  func(float64) float64
}

// kernels are the values of Preprocess.Interpolation.
var kernels = map[string]filter{
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
func (t *taps) build(k filter, in int, from, span float64, out int, reverse bool) {
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

// shade looks up rows of raw words: columns left to left+width of the rows from to to become gray values in a ring, row r in the
// slot r modulo the number of slots, each m.Columns long. lut is m's lookup, or one of the same length.
func shade(ring []float32, m *pipeline.Image, from, to, left, width int, lut []float32) {
	if from >= to || width == 0 {
		return
	}
	slots := len(ring) / m.Columns
	if m.Pix16 != nil {
		words, lut := m.Pix16[from*m.Columns+left:(to-1)*m.Columns+left+width], (*[1 << 16]float32)(lut)
		C.shade_rows(cFloats(ring), C.int(m.Columns), C.int(slots), C.int(from), C.int(to-from),
			(*C.uint16_t)(unsafe.SliceData(words)), C.int(m.Columns), C.int(width), cFloats(lut[:]))
		return
	}
	bytes := (*[1 << 8]float32)(lut)
	for r := from; r < to; r++ {
		out := ring[r%slots*m.Columns:][:width]
		for i, v := range m.Pix8[r*m.Columns+left:][:width] {
			out[i] = bytes[v]
		}
	}
}

// line combines rows of an image, which lie in a ring of shaded rows, and resamples the result along itself: it sets acc[left :
// left+width] to the sum of the first width values of the rows row, row+1 ... times weights, and out to inner's outputs of acc. Row r
// lies in the slot r modulo the number of slots, each stride long.
//
// This and shade are in C because a Go compiler makes no vector code: together four times as fast (bench/preprocess).
func line(out, acc []float32, left, width int, ring []float32, stride, row int, weights []float32, inner *taps) {
	if len(weights) == 0 || width == 0 {
		clear(out)
		return
	}
	C.resample_line(cFloats(out), cFloats(acc), C.int(left), C.int(width), cFloats(ring), C.int(stride), C.int(len(ring)/stride), C.int(row),
		cFloats(weights), C.int(len(weights)), (*C.int32_t)(unsafe.SliceData(inner.first)), (*C.int32_t)(unsafe.SliceData(inner.count)),
		cFloats(inner.weights), C.int(inner.most), C.int(len(out)))
}

func cFloats(s []float32) *C.float { return (*C.float)(unsafe.SliceData(s)) }
