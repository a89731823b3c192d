package kernel

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestBest(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	eachKind(t, func(t *testing.T) {
		for _, c := range []struct {
			logits []float32
			want   int32
			finite bool
		}{
			{[]float32{-3}, 0, true},
			{[]float32{1, 5, 5, 5}, 1, true},
			{[]float32{nan, 2, nan, 2}, 1, false},
			{[]float32{nan, nan}, 0, false},
			{[]float32{-inf, -inf, -1e30}, 2, true},
			{[]float32{-inf, -inf}, 0, false},
			{[]float32{0, inf, 1}, 1, false},
		} {
			id, p := Best(c.logits)
			if id != c.want || (!math.IsNaN(p) && !math.IsInf(p, 0)) != c.finite {
				t.Errorf("of %v the best is %d with %g", c.logits, id, p)
			}
		}
		// Equal ones anywhere among vectors and their rest: the first wins.
		for n := 1; n < 80; n++ {
			for first := range n {
				logits := make([]float32, n)
				for i := first; i < n; i += 3 {
					logits[i] = 4
				}
				if id, _ := Best(logits); int(id) != first {
					t.Fatalf("of %d logits the best is %d, want %d", n, id, first)
				}
			}
		}
	})
}

func TestLogProbability(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 9))
	eachKind(t, func(t *testing.T) {
		for _, n := range []int{1, 15, 16, 17, 100, 1024, 1025, 49152} {
			for _, spread := range []float32{0, 1, 30} {
				logits, sum, top := random(r, n), 0.0, math.Inf(-1)
				for i := range logits {
					logits[i] = logits[i]*spread + 70
					top = max(top, float64(logits[i]))
				}
				for _, v := range logits {
					sum += math.Exp(float64(v) - top)
				}
				for _, id := range []int32{0, int32(n / 2), int32(n - 1)} {
					want := float64(logits[id]) - top - math.Log(sum)
					if got := LogProbability(logits, id); math.Abs(got-want) > 1e-6 {
						t.Errorf("of %d logits, spread %g: %g, want %g", n, spread, got, want)
					}
				}
			}
		}
	})
	for _, id := range []int32{-1, 3} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("token %d of 3 has a probability", id)
				}
			}()
			LogProbability([]float32{1, 2, 3}, id)
		}()
	}
}

// What is done to a product's input equals PyTorch's float64. The products are with the identity.
func TestBeforeEqualsPyTorch(t *testing.T) {
	g := goldenValues(t)
	for i, name := range []string{"rms_norm", "layer_norm", "silu_gate", "gelu_gate", "gelu_tanh_gate", "gelu", "gelu_tanh", "quick_gelu", "relu"} {
		t.Run(name, func(t *testing.T) {
			want := g.Before[name]
			k := len(want)
			x := g.X[:k]
			if kind := i + 1; kind >= 3 && kind <= 5 {
				x = append(append([]float32{}, g.X...), g.Up...)
			}
			identity := make([]float32, k*k)
			for i := range k {
				identity[i*k+i] = 1
			}
			const rows = 3
			var many []float32
			for range rows {
				many = append(many, x...)
			}
			y := make([]float32, rows*k)
			w := PackF32(identity, k, k)
			n := &node{op: "Linear", domain: "chatxray", attributes: map[string]any{"form": int64(F32), "before": int64(i + 1), "k": int64(k), "n": int64(k), "epsilon": g.Epsilon},
				in:  []value{floatsOf("x", many, rows, int64(len(x))), {"w", []int64{int64(4 * len(w))}, bytesOf(w), true}},
				out: []value{floatsOf("y", y, rows, int64(k))}}
			if i < 2 {
				n.in = append(n.in, fixed(floatsOf("scale", g.Scale[:k], int64(k))))
			}
			if i == 1 {
				n.in = append(n.in, floatsOf("shift", g.Shift[:k], int64(k)))
			}
			eachKind(t, func(t *testing.T) {
				clear(y)
				if err := n.run(t); err != nil {
					t.Fatal(err)
				}
				for j, v := range y {
					if w := want[j%k]; math.Abs(float64(v)-w) > 1e-6*max(1, math.Abs(w)) {
						t.Errorf("row %d: of %g it makes %g, want %g", j/k, x[j%k], v, w)
					}
				}
			})
		})
	}
}
