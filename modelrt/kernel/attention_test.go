package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// texts is an attention node and the caches of its slots.
type texts struct {
	heads, kv, dim, rotary, window, slots, capacity int
	keys, values                                    []float32
}

func newTexts(heads, kv, dim, rotary, window, slots, capacity int) *texts {
	x := &texts{heads, kv, dim, rotary, window, slots, capacity, nil, nil}
	x.keys = make([]float32, slots*kv*capacity*dim)
	x.values = make([]float32, slots*kv*capacity*x.pad())
	return x
}

func (x *texts) pad() int   { return (x.dim + KeyBlock - 1) / KeyBlock * KeyBlock }
func (x *texts) width() int { return (x.heads + 2*x.kv) * x.dim }

// angle is by how much pair i of a head turns at a place.
func (x *texts) angle(at int32, i int) float64 {
	return float64(at) * math.Pow(10000, -2*float64(i)/float64(x.rotary))
}

func (x *texts) node(qkv []float32, slot, at, upto []int32, out []float32) *node {
	n, half := int64(len(slot)), x.rotary/2
	a := &node{op: "Attention", domain: "chatxray", attributes: map[string]any{"heads": int64(x.heads), "kv_heads": int64(x.kv), "dim": int64(x.dim), "window": int64(x.window),
		"scale": float32(1 / math.Sqrt(float64(x.dim)))},
		in: []value{floatsOf("qkv", qkv, n, int64(x.width())),
			floatsOf("keys", x.keys, int64(x.slots), int64(x.kv), int64(x.capacity), int64(x.dim)),
			floatsOf("values", x.values, int64(x.slots), int64(x.kv), int64(x.capacity), int64(x.pad())),
			{"slot", []int64{n}, slot, false}, {"at", []int64{n}, at, false}, {"upto", []int64{n}, upto, false}},
		out: []value{floatsOf("out", out, n, int64(x.heads*x.dim))}}
	if x.rotary > 0 {
		cos, sin := make([]float32, len(slot)*half), make([]float32, len(slot)*half)
		for t := range slot {
			for i := range half {
				cos[t*half+i], sin[t*half+i] = float32(math.Cos(x.angle(at[t], i))), float32(math.Sin(x.angle(at[t], i)))
			}
		}
		a.in = append(a.in, floatsOf("cos", cos, n, int64(half)), floatsOf("sin", sin, n, int64(half)))
	}
	return a
}

// feed runs the node and returns [tokens, heads*dim].
func (x *texts) feed(t testing.TB, qkv []float32, slot, at, upto []int32) []float32 {
	t.Helper()
	out := make([]float32, len(slot)*x.heads*x.dim)
	if err := x.node(qkv, slot, at, upto, out).run(t); err != nil {
		t.Fatal(err)
	}
	return out
}

// turned is a head of qkv with rotary position, as float64.
func (x *texts) turned(head []float32, at int32) []float64 {
	out := make([]float64, x.dim)
	for i, v := range head {
		out[i] = float64(v)
	}
	half := x.rotary / 2
	for i := range half {
		c, s := math.Cos(x.angle(at, i)), math.Sin(x.angle(at, i))
		out[i], out[i+half] = out[i]*c-out[i+half]*s, out[i+half]*c+out[i]*s
	}
	return out
}

// reference is one text's attention in float64. upto is how far each token sees.
func (x *texts) reference(qkv []float32, upto []int32) []float64 {
	n, group := len(upto), x.heads/x.kv
	out := make([]float64, 0, n*x.heads*x.dim)
	head := func(t, h int) []float32 { return qkv[t*x.width()+h*x.dim:][:x.dim] }
	for t := range n {
		for h := range x.heads {
			q := x.turned(head(t, h), int32(t))
			first := 0
			if x.window > 0 {
				first = max(0, t+1-x.window)
			}
			scores, top, sum := map[int]float64{}, math.Inf(-1), 0.0
			for p := first; p < int(upto[t]); p++ {
				for i, v := range x.turned(head(p, x.heads+h/group), int32(p)) {
					scores[p] += v * q[i] / math.Sqrt(float64(x.dim))
				}
				top = max(top, scores[p])
			}
			mixed := make([]float64, x.dim)
			for p := first; p < int(upto[t]); p++ {
				e := math.Exp(scores[p] - top)
				sum += e
				for i, v := range head(p, x.heads+x.kv+h/group) {
					mixed[i] += e * float64(v)
				}
			}
			for _, v := range mixed {
				out = append(out, v/sum)
			}
		}
	}
	return out
}

func farthest(got []float32, want []float64) (worst float64) {
	for i, v := range got {
		d := math.Abs(float64(v) - want[i])
		if !(d <= worst) { // NaN is far
			worst = d
		}
	}
	return worst
}

func span(from, to int) (places, upto []int32) {
	for p := from; p < to; p++ {
		places, upto = append(places, int32(p)), append(upto, int32(p+1))
	}
	return places, upto
}

// Every head size and group against float64: a text at once, in pieces, and one token after another, in a cache whose other slots and
// whose rest hold NaN. The last tokens of the prompt see each other as those of an image may. Whichever way a token comes, it gives the same bits.
func TestAttentionEqualsFloat64(t *testing.T) {
	for _, c := range []struct{ heads, kv, dim, rotary, window int }{
		{1, 1, 1, 0, 0}, {3, 3, 20, 20, 0}, {2, 1, 16, 16, 0}, {9, 3, 64, 64, 0}, {8, 2, 80, 32, 0}, {5, 1, 96, 96, 7}, {6, 1, 128, 128, 20}, {7, 1, 33, 0, 16}, {8, 1, 256, 64, 0}, {2, 2, 1024, 0, 0},
	} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			const n, seen = 45, 9 // tokens from 4 to seen see each other
			r := rand.New(rand.NewPCG(uint64(c.dim), 1))
			shape := newTexts(c.heads, c.kv, c.dim, c.rotary, c.window, 1, 48)
			qkv := random(r, n*shape.width())
			at, upto := span(0, n)
			for i := 4; i < seen; i++ {
				upto[i] = seen
			}
			want := shape.reference(qkv, upto)
			var fused []float32
			eachKind(t, func(t *testing.T) {
				var first []float32
				for _, pieces := range [][]int{{n}, {seen, 16, 17, 40, n}, append([]int{seen}, func() (one []int) {
					for i := seen + 1; i <= n; i++ {
						one = append(one, i)
					}
					return one
				}()...)} {
					x := newTexts(c.heads, c.kv, c.dim, c.rotary, c.window, 3, 48)
					for _, cache := range [][]float32{x.keys, x.values} {
						for i := range cache {
							cache[i] = float32(math.NaN())
						}
					}
					var out []float32
					from := 0
					for _, to := range pieces {
						slot := slices.Repeat([]int32{1}, to-from)
						out = append(out, x.feed(t, qkv[from*x.width():to*x.width()], slot, at[from:to], upto[from:to])...)
						from = to
					}
					if d := farthest(out, want); !(d < 5e-6) {
						t.Fatalf("in %d pieces it is %g off", len(pieces), d)
					}
					if first == nil {
						first = out
					} else if i := firstDifference(out, first); i >= 0 {
						t.Fatalf("in %d pieces value %d is %g, at once %g", len(pieces), i, out[i], first[i])
					}
				}
				if t.Name()[len(t.Name())-5:] == "plain" {
					return
				}
				if fused == nil {
					fused = first
				} else if i := firstDifference(first, fused); i >= 0 {
					t.Errorf("value %d is %g here and %g on another kind of processor", i, first[i], fused[i])
				}
			})
		})
	}
}

// Tokens of several texts side by side give the bits that each text gives alone, up to the last place of the caches.
func TestAttentionOfTextsSideBySide(t *testing.T) {
	const slots, n = 4, 32
	r := rand.New(rand.NewPCG(4, 4))
	shape := newTexts(9, 3, 64, 64, 0, slots, n)
	var qkv [slots][]float32
	var alone [slots][]float32
	at, upto := span(0, n)
	for s := range slots {
		qkv[s] = random(r, n*shape.width())
		alone[s] = newTexts(9, 3, 64, 64, 0, 1, n).feed(t, qkv[s], make([]int32, n), at, upto)
	}
	together := newTexts(9, 3, 64, 64, 0, slots, n)
	step, wide := []int{5, 1, 3, 2}, shape.heads*shape.dim
	var done [slots]int
	for {
		var in []float32
		var slot, places, ends []int32
		for i := range slots {
			s := (i + done[0]) % slots // in changing order
			for range step[s] {
				if done[s] < n {
					in = append(in, qkv[s][done[s]*shape.width():][:shape.width()]...)
					slot, places, ends = append(slot, int32(s)), append(places, at[done[s]]), append(ends, upto[done[s]])
					done[s]++
				}
			}
		}
		if len(slot) == 0 {
			break
		}
		out := together.feed(t, in, slot, places, ends)
		for i, s := range slot {
			if j := firstDifference(out[i*wide:][:wide], alone[s][int(places[i])*wide:]); j >= 0 {
				t.Fatalf("text %d, place %d differs from itself alone in value %d", s, places[i], j)
			}
		}
	}
}

// The same as ONNX Runtime's GroupQueryAttention, with rotary positions and a window.
func TestAttentionEqualsONNXRuntime(t *testing.T) {
	for _, c := range []struct{ heads, kv, dim, window int }{{9, 3, 64, 0}, {4, 4, 80, 0}, {8, 2, 128, 11}, {8, 1, 96, 0}} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			const n = 40
			r := rand.New(rand.NewPCG(uint64(c.dim), 2))
			x := newTexts(c.heads, c.kv, c.dim, c.dim, c.window, 1, 48)
			qkv := random(r, n*x.width())
			at, upto := span(0, n)
			got := x.feed(t, qkv, make([]int32, n), at, upto)
			half := c.dim / 2
			cos, sin := make([]float32, n*half), make([]float32, n*half)
			for p := range n {
				for i := range half {
					cos[p*half+i], sin[p*half+i] = float32(math.Cos(x.angle(int32(p), i))), float32(math.Sin(x.angle(int32(p), i)))
				}
			}
			want, cache := make([]float32, len(got)), int64(c.kv*n*c.dim)
			gqa := &node{op: "GroupQueryAttention", domain: "com.microsoft",
				attributes: map[string]any{"num_heads": int64(c.heads), "kv_num_heads": int64(c.kv), "do_rotary": int64(1), "rotary_interleaved": int64(0), "local_window_size": int64(c.window)},
				in: []value{floatsOf("qkv", qkv, 1, n, int64(x.width())), absent, absent,
					floatsOf("past_k", nil, 1, int64(c.kv), 0, int64(c.dim)), floatsOf("past_v", nil, 1, int64(c.kv), 0, int64(c.dim)),
					{"seqlens_k", []int64{1}, []int32{n - 1}, false}, {"total", []int64{1}, []int32{n}, false},
					floatsOf("cos", cos, n, int64(half)), floatsOf("sin", sin, n, int64(half))},
				out: []value{floatsOf("out", want, 1, n, int64(c.heads*c.dim)), floatsOf("present_k", make([]float32, cache), 1, int64(c.kv), n, int64(c.dim)),
					floatsOf("present_v", make([]float32, cache), 1, int64(c.kv), n, int64(c.dim))}}
			if c.window == 0 {
				delete(gqa.attributes, "local_window_size")
			}
			if err := gqa.run(t); err != nil {
				t.Fatal(err)
			}
			wide := make([]float64, len(want))
			for i, v := range want {
				wide[i] = float64(v)
			}
			if d := farthest(got, wide); !(d < 5e-6) {
				t.Errorf("%g off", d)
			}
		})
	}
}

// A query or a key that is not finite spoils what sees it and nothing else, and ends.
func TestAttentionNotFinite(t *testing.T) {
	eachKind(t, func(t *testing.T) {
		const n = 20
		x := newTexts(2, 1, 20, 20, 0, 1, 32)
		qkv := random(rand.New(rand.NewPCG(6, 6)), n*x.width())
		qkv[10*x.width()+2*20] = float32(math.Inf(1)) // token 10's key
		qkv[4*x.width()] = float32(math.NaN())        // token 4's first query
		at, upto := span(0, n)
		out := x.feed(t, qkv, make([]int32, n), at, upto)
		for i, v := range out {
			token, head := i/40, i/20%2
			if bad := math.IsNaN(float64(v)) || math.IsInf(float64(v), 0); bad && token < 10 && (token != 4 || head != 0) || !bad && token == 4 && head == 0 {
				t.Fatalf("token %d, head %d: %g", token, head, v)
			}
		}
	})
}
