package kernel

import (
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

// packRaw packs rows of a GGUF file's blocks, k values each.
func packRaw(t *testing.T, kind, raw string, k, n int) ([]byte, Form) {
	t.Helper()
	b, err := hex.DecodeString(raw)
	if err != nil {
		t.Fatal(err)
	}
	f, size := Q41, 20
	if kind == "Q8_0" {
		f, size = Q80, 34
	}
	w := bytesOf(make([]float32, f.Bytes(k, n)/4))
	for j := range n {
		for block := range k / 32 {
			from := b[(j*k/32+block)*size:][:size]
			if f == Q80 {
				to := w[block*Panel*34:]
				copy(to[2*j:], from[:2])
				for i, q := range from[2:] {
					to[2*Panel+i*Panel+j] = q
				}
				continue
			}
			to := w[block*Panel*20:]
			copy(to[2*j:], from[:2])
			copy(to[2*Panel+2*j:], from[2:4])
			for i := range 32 {
				q := from[4+i%16] >> (i / 16 * 4) & 15
				to[4*Panel+i/8*4*Panel+4*j+i%8/2] |= q << (i % 2 * 4)
			}
		}
	}
	return w, f
}

// Products with rounded activations are those of numpy (testdata/make_golden.py).
func TestEightBitsEqualNumpy(t *testing.T) {
	const k, n, m = 96, 3, 2
	g := goldenValues(t)
	var x []float32
	for _, row := range g.Eight.X {
		x = append(x, row...)
	}
	for kind, want := range g.Eight.Y {
		w, f := packRaw(t, kind, g.Blocks[kind].Raw, k, n)
		eachKind(t, func(t *testing.T) {
			y := make([]float32, m*n)
			if err := Linear8(y, x, w, f, m, k, n, false); err != nil {
				t.Fatal(err)
			}
			for i, v := range y {
				// numpy has no fused multiply-add: rounding twice may cost a unit in the last place.
				if e := want[i/n][i%n]; math.Abs(float64(v)-e) > math.Abs(e)*0x1p-22 {
					t.Errorf("%s: value %d of row %d is %g, want %g", kind, i%n, i/n, v, e)
				}
			}
		})
	}
}

// A row has the same bits alone, in any batch and on every processor, plain C included; so have rows of values too small to be divided, in the exact
// products. A value that is not finite spoils its own row.
func TestEightBitsHaveTheSameBits(t *testing.T) {
	Start(3)
	r := rand.New(rand.NewPCG(11, 12))
	for _, shape := range [][2]int{{32, 31}, {224, 100}, {576, 65}} {
		for _, f := range []Form{Q41, Q80} {
			k, n := shape[0], shape[1]
			const rows = 70
			w, x, before := randomMatrix(r, f, k, n), random(r, rows*k), random(r, rows*n)
			for i := range x {
				if r.IntN(9) == 0 {
					x[i] *= 1e-37
				}
			}
			for i := range k { // a row of zeros, and one of next to nothing
				x[3*k+i], x[4*k+i] = 0, x[4*k+i]*1e-37
			}
			var want, exact []float32
			t.Run(fmt.Sprintf("%s %dx%d", formNames[f], k, n), func(t *testing.T) {
				eachKind(t, func(t *testing.T) {
					for m := 1; m <= rows; m += 1 + m/8 {
						y, z := append([]float32(nil), before[:m*n]...), make([]float32, m*n)
						if err := Linear8(y, x[:m*k], w, f, m, k, n, true); err != nil {
							t.Fatal(err)
						}
						if err := Linear(z, x[:m*k], w, f, m, k, n, false); err != nil {
							t.Fatal(err)
						}
						if want == nil {
							want = make([]float32, rows*n)
							copy(want, before)
							for row := range rows {
								if err := Linear8(want[row*n:][:n], x[row*k:][:k], w, f, 1, k, n, true); err != nil {
									t.Fatal(err)
								}
							}
						}
						if i := firstDifference(y, want); i >= 0 {
							t.Fatalf("of %d rows, row %d differs in column %d: %g and %g", m, i/n, i%n, y[i], want[i])
						}
						if strings.HasSuffix(t.Name(), "plain") {
							continue // has no fused multiply-adds for the exact products
						}
						if exact == nil || len(exact) < len(z) {
							if i := firstDifference(exact, z[:len(exact)]); i >= 0 {
								t.Fatalf("exact: of %d rows, row %d differs from itself in a smaller batch", m, i/n)
							}
							exact = z
						} else if i := firstDifference(z, exact); i >= 0 {
							t.Fatalf("exact: of %d rows, row %d differs in column %d", m, i/n, i%n)
						}
					}
					y := make([]float32, 3*n)
					spoiled := append([]float32(nil), x[:3*k]...)
					spoiled[k+5] = float32(math.Inf(-1))
					if err := Linear8(y, spoiled, w, f, 3, k, n, false); err != nil {
						t.Fatal(err)
					}
					for i, v := range y {
						if math.IsNaN(float64(v)) != (i/n == 1) {
							t.Fatalf("row %d, column %d is %g", i/n, i%n, v)
						}
					}
				})
			})
		}
	}
}

func TestEightBitsRefuses(t *testing.T) {
	w := bytesOf(make([]float32, F32.Bytes(32, 5)/4))
	if Linear8(make([]float32, 5), make([]float32, 32), w, F32, 1, 32, 5, false) == nil {
		t.Error("a matrix without blocks is taken")
	}
}

// A session's entry chooses the rounded products; of a matrix without blocks it changes nothing.
func TestOperatorsRoundWhereAsked(t *testing.T) {
	r := rand.New(rand.NewPCG(13, 14))
	const k, n = 64, 40
	for f, name := range formNames {
		w, x := randomMatrix(r, f, k, n), random(r, 2*k)
		exact, rounded := make([]float32, 2*n), make([]float32, 2*n)
		if err := Linear(exact, x, w, f, 2, k, n, false); err != nil {
			t.Fatal(err)
		}
		if f == F32 {
			copy(rounded, exact)
		} else if err := Linear8(rounded, x, w, f, 2, k, n, false); err != nil {
			t.Fatal(err)
		}
		for eight, want := range map[bool][]float32{false: exact, true: rounded} {
			y := make([]float32, 2*n)
			product := &node{op: "Linear", domain: "chatxray", eight: eight,
				attributes: map[string]any{"form": int64(f), "before": int64(0), "k": int64(k), "n": int64(n), "epsilon": float32(0)},
				in:         []value{floatsOf("x", x, 2, k), {"w", []int64{int64(len(w))}, w, false}}, out: []value{floatsOf("y", y, 2, n)}}
			if err := product.run(t); err != nil {
				t.Fatal(err)
			}
			if i := firstDifference(y, want); i >= 0 {
				t.Errorf("%s, rounded %v: value %d is %g, want %g", name, eight, i, y[i], want[i])
			}
		}
	}
}
