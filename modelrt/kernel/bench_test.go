package kernel

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
)

// BenchmarkProduct measures products of the default bundle's shapes for growing numbers of rows, each form beside ONNX Runtime's MatMul on the same
// values and, for 4 bits, its MatMulNBits, both without spinning threads, as served by default. The matrices of a run take more memory than the caches, as in decoding.
func BenchmarkProduct(b *testing.B) {
	const k, n, matrices = 576, 3072, 12
	Start(runtime.NumCPU())
	r := rand.New(rand.NewPCG(1, 1))
	values := random(r, k*n)
	for _, rows := range []int{1, 2, 4, 8, 16, 32, 64, 128, 256} {
		x, y := random(r, rows*k), make([]float32, rows*n)
		report := func(b *testing.B, bytes int64) {
			seconds := b.Elapsed().Seconds() / float64(b.N)
			b.ReportMetric(2*float64(rows)*k*n/seconds/1e9, "GFLOP/s")
			b.ReportMetric(float64(bytes)/seconds/1e9, "GB/s")
		}
		for f, name := range []string{"f32", "q4_1", "q8_0"} {
			b.Run(fmt.Sprintf("%s/%d", name, rows), func(b *testing.B) {
				var w [matrices][]byte
				for i := range w {
					w[i] = randomMatrix(r, Form(f), k, n)
				}
				b.ResetTimer()
				for i := range b.N {
					if err := Linear(y, x, w[i%matrices], Form(f), rows, k, n, false); err != nil {
						b.Fatal(err)
					}
				}
				report(b, Form(f).Bytes(k, n))
			})
		}
		others := map[string]*node{
			"MatMul": {op: "MatMul", in: []value{floatsOf("x", x, int64(rows), k), fixed(floatsOf("w", values, k, n))}},
			"MatMulNBits": {op: "MatMulNBits", domain: "com.microsoft", attributes: map[string]any{"K": int64(k), "N": int64(n), "bits": int64(4), "block_size": int64(32)},
				in: []value{floatsOf("x", x, int64(rows), k), fixed(value{"w", []int64{n, k / 32, 16}, make([]uint8, n*k/2), false}),
					fixed(floatsOf("scales", values[:n*k/32], n*k/32))}},
		}
		for name, other := range others {
			other.out = []value{floatsOf("y", y, int64(rows), n)}
			b.Run(fmt.Sprintf("%s/%d", name, rows), func(b *testing.B) {
				var s [matrices]*session
				for i := range s {
					var err error
					if s[i], err = other.load(b, runtime.NumCPU()); err != nil {
						b.Fatal(err)
					}
					defer s[i].close()
				}
				b.ResetTimer()
				for i := range b.N {
					if err := s[i%matrices].run(); err != nil {
						b.Fatal(err)
					}
				}
				bytes := int64(4 * k * n)
				if name == "MatMulNBits" {
					bytes = k * n * 5 / 8
				}
				report(b, bytes)
			})
		}
	}
}

// BenchmarkLoop is what a loop costs that does nothing.
func BenchmarkLoop(b *testing.B) {
	Start(runtime.NumCPU())
	w, x, y := randomMatrix(rand.New(rand.NewPCG(1, 1)), F32, 1, 64*Panel), []float32{1}, make([]float32, 64*Panel)
	for range b.N {
		if err := Linear(y, x, w, F32, 1, 1, 64*Panel, false); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAttention(b *testing.B) {
	Start(runtime.NumCPU())
	for _, c := range []struct{ texts, tokens, past int }{{1, 1, 300}, {8, 1, 300}, {1, 256, 0}} {
		b.Run(fmt.Sprintf("%d_texts_of_%d_after_%d", c.texts, c.tokens, c.past), func(b *testing.B) {
			x := newTexts(9, 3, 64, 64, 0, c.texts, 512)
			var slot, at, upto []int32
			for s := range c.texts {
				places, ends := span(c.past, c.past+c.tokens)
				at, upto = append(at, places...), append(upto, ends...)
				for range c.tokens {
					slot = append(slot, int32(s))
				}
			}
			n := x.node(random(rand.New(rand.NewPCG(2, 2)), len(slot)*x.width()), slot, at, upto, make([]float32, len(slot)*x.heads*x.dim))
			s, err := n.load(b, 1)
			if err != nil {
				b.Fatal(err)
			}
			defer s.close()
			b.ResetTimer()
			for range b.N {
				if err := s.run(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
