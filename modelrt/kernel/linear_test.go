package kernel

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"unsafe"
)

// eachKind runs a test on the loops for every kind of processor that this one is.
func eachKind(t *testing.T, test func(t *testing.T)) {
	all := kinds()
	defer useKind(len(all) - 1)
	for i, name := range all {
		useKind(i)
		t.Run(name, test)
	}
}

func random(r *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	return v
}

// bytesOf are the bytes of a packed matrix.
func bytesOf(v []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), 4*len(v))
}

// randomMatrix is a packed matrix [k, n] of any values, but scales of about 0.1.
func randomMatrix(r *rand.Rand, f Form, k, n int) []byte {
	if f == F32 {
		return bytesOf(PackF32(random(r, k*n), k, n))
	}
	w := bytesOf(make([]float32, f.Bytes(k, n)/4))
	for i := range w {
		w[i] = byte(r.Uint32())
	}
	block, halves := Panel*(2+2+16), 2*Panel
	if f == Q80 {
		block, halves = Panel*(2+32), Panel
	}
	for at := 0; at < len(w); at += block {
		for i := range halves { // 0x2c00 is 1/16
			binary.LittleEndian.PutUint16(w[at+2*i:], uint16(0x2c00+r.IntN(1024)+r.IntN(2)<<15))
		}
	}
	return w
}

var formNames = map[Form]string{F32: "f32", Q41: "q4_1", Q80: "q8_0"}

// A row of a product has the same bits alone and in any batch, added to or not, on one thread and on several, and on every processor with
// fused multiply-adds; and it is the product.
func TestRowsHaveTheSameBitsInEveryBatch(t *testing.T) {
	Start(3)
	r := rand.New(rand.NewPCG(1, 2))
	for _, shape := range [][2]int{{1, 1}, {7, 33}, {96, 31}, {64, 32}, {576, 100}, {1003, 65}} {
		for f, name := range formNames {
			k, n := shape[0], shape[1]
			if f != F32 && k%32 != 0 {
				continue
			}
			const rows = 64
			w, x, before := randomMatrix(r, f, k, n), random(r, rows*k), random(r, rows*n)
			want := make([]float64, rows*n)
			for j := range n {
				column, err := Column(w, f, k, n, j)
				if err != nil {
					t.Fatal(err)
				}
				for row := range rows {
					for i, v := range column {
						want[row*n+j] += float64(v) * float64(x[row*k+i])
					}
				}
			}
			fused := map[bool][]float32{}
			t.Run(fmt.Sprintf("%s %dx%d", name, k, n), func(t *testing.T) {
				eachKind(t, func(t *testing.T) {
					for _, add := range []bool{false, true} {
						alone := slices.Clone(before)
						for row := range rows {
							if err := Linear(alone[row*n:][:n], x[row*k:][:k], w, f, 1, k, n, add); err != nil {
								t.Fatal(err)
							}
						}
						for i, v := range alone {
							exact := want[i]
							if add {
								exact += float64(before[i])
							}
							if math.Abs(float64(v)-exact) > 2e-6*float64(k)+1e-6 {
								t.Fatalf("value %d is %g, want %g", i, v, exact)
							}
						}
						for m := 2; m <= rows; m++ {
							y := slices.Clone(before[:m*n])
							if err := Linear(y, x[:m*k], w, f, m, k, n, add); err != nil {
								t.Fatal(err)
							}
							if i := firstDifference(y, alone); i >= 0 {
								t.Fatalf("of %d rows, add %v, row %d differs from itself alone in column %d: %g and %g", m, add, i/n, i%n, y[i], alone[i])
							}
						}
						if strings.HasSuffix(t.Name(), "plain") {
							continue
						}
						if fused[add] == nil {
							fused[add] = alone
						} else if i := firstDifference(alone, fused[add]); i >= 0 {
							t.Errorf("value %d is %g here and %g on another kind of processor", i, alone[i], fused[add][i])
						}
					}
				})
			})
		}
	}
}

// firstDifference is the first place where a differs from b in a bit, -1 where it does not.
func firstDifference(a, b []float32) int {
	for i, v := range a {
		if math.Float32bits(v) != math.Float32bits(b[i]) {
			return i
		}
	}
	return -1
}

// Many rows take more than one block of them.
func TestManyRows(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	const m, k, n = 521, 224, 40
	for f, name := range formNames {
		w, x := randomMatrix(r, f, k, n), random(r, m*k)
		y, one := make([]float32, m*n), make([]float32, n)
		if err := Linear(y, x, w, f, m, k, n, false); err != nil {
			t.Fatal(err)
		}
		for row := range m {
			if err := Linear(one, x[row*k:][:k], w, f, 1, k, n, false); err != nil {
				t.Fatal(err)
			}
			if i := firstDifference(one, y[row*n:]); i >= 0 {
				t.Fatalf("%s: row %d differs from itself alone in column %d", name, row, i)
			}
		}
	}
}

// NaN and infinities reach their own row and column only.
func TestNotFinite(t *testing.T) {
	eachKind(t, func(t *testing.T) {
		const m, k, n = 13, 64, 40
		r := rand.New(rand.NewPCG(5, 6))
		x, w := random(r, m*k), random(r, k*n)
		x[3*k+5], x[7*k+1] = float32(math.NaN()), float32(math.Inf(1))
		w[9*n+17] = float32(math.Inf(-1))
		y := make([]float32, m*n)
		if err := Linear(y, x, bytesOf(PackF32(w, k, n)), F32, m, k, n, false); err != nil {
			t.Fatal(err)
		}
		for i, v := range y {
			spoiled := i/n == 3 || i/n == 7 || i%n == 17
			if finite := !math.IsNaN(float64(v)) && !math.IsInf(float64(v), 0); finite == spoiled {
				t.Fatalf("row %d, column %d is %g", i/n, i%n, v)
			}
		}
	})
}

func TestLinearRefuses(t *testing.T) {
	w := bytesOf(make([]float32, F32.Bytes(4, 5)/4+1))
	whole := w[:len(w)-4]
	for name, call := range map[string]func() error{
		"no rows":      func() error { return Linear(nil, nil, whole, F32, 0, 4, 5, false) },
		"short x":      func() error { return Linear(make([]float32, 5), make([]float32, 3), whole, F32, 1, 4, 5, false) },
		"short y":      func() error { return Linear(make([]float32, 4), make([]float32, 4), whole, F32, 1, 4, 5, false) },
		"short w":      func() error { return Linear(make([]float32, 5), make([]float32, 4), whole[4:], F32, 1, 4, 5, false) },
		"no such form": func() error { return Linear(make([]float32, 5), make([]float32, 4), nil, 3, 1, 4, 5, false) },
		"k of a block": func() error { return Linear(make([]float32, 5), make([]float32, 4), nil, Q41, 1, 4, 5, false) },
		"unaligned": func() error {
			return Linear(make([]float32, 5), make([]float32, 4), w[1:len(w)-3], F32, 1, 4, 5, false)
		},
		"column outside":  func() error { _, err := Column(whole, F32, 4, 5, 5); return err },
		"negative column": func() error { _, err := Column(whole, F32, 4, 5, -1); return err },
	} {
		if call() == nil {
			t.Errorf("%s is taken", name)
		}
	}
	for _, f := range []struct {
		f    Form
		k, n int
		want int64
	}{{F32, 3, 33, 2 * 32 * 3 * 4}, {Q41, 64, 32, 2 * 640}, {Q80, 32, 1, 1088}, {F32, 0, 1, -1}, {F32, 1, -1, -1}, {F32, 1<<24 + 1, 1, -1}, {-1, 32, 32, -1}, {F32, 1 << 24, 1 << 24, 1 << 50}} {
		if got := f.f.Bytes(f.k, f.n); got != f.want {
			t.Errorf("a matrix %d×%d of form %d has %d bytes, want %d", f.k, f.n, f.f, got, f.want)
		}
	}
}

// golden is testdata/golden.json, made by testdata/make_golden.py.
type golden struct {
	Blocks map[string]struct {
		Raw    string
		Values [][]float32
	}
	X, Up, Scale, Shift []float32
	Epsilon             float32
	Before              map[string][]float64
	Eight               struct {
		X [][]float32
		Y map[string][][]float64
	}
}

func goldenValues(t *testing.T) (g golden) {
	t.Helper()
	b, err := os.ReadFile("testdata/golden.json")
	if err == nil {
		err = json.Unmarshal(b, &g)
	}
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// Blocks mean what PyPI's gguf says they mean, to the last bit.
func TestBlocksEqualGGUF(t *testing.T) {
	const k, n = 96, 3
	for kind, g := range goldenValues(t).Blocks {
		w, f := packRaw(t, kind, g.Raw, k, n)
		eachKind(t, func(t *testing.T) {
			for j, want := range g.Values {
				got, err := Column(w, f, k, n, j)
				if err != nil {
					t.Fatal(err)
				}
				if i := firstDifference(got, want); i >= 0 {
					t.Errorf("%s: value %d of column %d is %g, want %g", kind, i, j, got[i], want[i])
				}
				for i := range k { // as the products see them
					for _, m := range []int{1, 5, 13} {
						x, y := make([]float32, m*k), make([]float32, m*n)
						x[(m-1)*k+i] = 1
						if err := Linear(y, x, w, f, m, k, n, false); err != nil {
							t.Fatal(err)
						}
						if v := y[(m-1)*n+j]; v != want[i] {
							t.Errorf("%s: value %d of column %d is %g in a product of %d rows, want %g", kind, i, j, v, m, want[i])
						}
					}
				}
			}
		})
	}
}

func floatFrom(b []byte) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(b)) }

// normed is a layer norm in float64, epsilon 1e-5.
func normed(x, scale, shift []float32) []float64 {
	mean, square := 0.0, 0.0
	for _, v := range x {
		mean += float64(v) / float64(len(x))
	}
	for _, v := range x {
		square += (float64(v) - mean) * (float64(v) - mean) / float64(len(x))
	}
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = (float64(v)-mean)/math.Sqrt(square+1e-5)*float64(scale[i]) + float64(shift[i])
	}
	return out
}
