package kernel

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// linearNode is a product [rows, 64] by [64, 40] with everything that it may have.
func linearNode() *node {
	r := rand.New(rand.NewPCG(1, 1))
	const k, n, rows, rank = 64, 40, 3, 5
	w := bytesOf(PackF32(random(r, k*n), k, n))
	a, b := PackF32(random(r, k*rank), k, rank), PackF32(random(r, rank*n), rank, n)
	return &node{op: "Linear", domain: "chatxray", attributes: map[string]any{"form": int64(F32), "before": int64(2), "k": int64(k), "n": int64(n), "epsilon": float32(1e-5)},
		in: []value{floatsOf("x", random(r, rows*k), rows, k), {"w", []int64{int64(len(w))}, w, false}, floatsOf("scale", random(r, k), k), floatsOf("shift", random(r, k), k),
			floatsOf("bias", random(r, n), n), floatsOf("residual", random(r, rows*n), rows, n), floatsOf("a", a, int64(len(a))), floatsOf("b", b, int64(len(b)))},
		out: []value{floatsOf("y", make([]float32, rows*n), rows, n)}}
}

func embedNode(ids ...int64) *node {
	w := bytesOf(PackF32(random(rand.New(rand.NewPCG(2, 2)), 64*40), 64, 40))
	n := int64(len(ids))
	return &node{op: "Embed", domain: "chatxray", attributes: map[string]any{"form": int64(F32), "before": int64(0), "k": int64(64), "n": int64(40), "epsilon": float32(0)},
		in:  []value{{"ids", []int64{n}, ids, false}, {"w", []int64{int64(len(w))}, w, false}},
		out: []value{floatsOf("y", make([]float32, n*64), n, 64)}}
}

func attentionNode() *node {
	x := newTexts(4, 2, 20, 20, 0, 2, 32)
	r := rand.New(rand.NewPCG(3, 3))
	return x.node(random(r, 4*x.width()), []int32{0, 0, 1, 1}, []int32{0, 1, 5, 6}, []int32{1, 2, 6, 7}, make([]float32, 4*80))
}

// cut is an input with another shape, its values cut or filled up with zeros.
func cut(n *node, i int, shape ...int64) {
	count := int64(1)
	for _, d := range shape {
		count *= d
	}
	v := &n.in[i]
	v.shape = shape
	switch d := v.data.(type) {
	case []float32:
		v.data = append(d, make([]float32, 100000)...)[:count]
	case []uint8:
		v.data = append(d, make([]uint8, 100000)...)[:count]
	case []int32:
		v.data = append(d, make([]int32, 100)...)[:count]
	case []int64:
		v.data = append(d, make([]int64, 100)...)[:count]
	}
}

// Each thing that does not fit is refused in its own words, before memory is touched.
func TestOperatorsRefuse(t *testing.T) {
	for _, n := range []*node{linearNode(), attentionNode(), embedNode(0, 39)} {
		if err := n.run(t); err != nil {
			t.Fatalf("%s as it should be: %v", n.op, err)
		}
	}
	set := func(name string, v any) func(*node) { return func(n *node) { n.attributes[name] = v } }
	shape := func(i int, dims ...int64) func(*node) { return func(n *node) { cut(n, i, dims...) } }
	numbers := func(i int, v ...int32) func(*node) { return func(n *node) { n.in[i].data = v } }
	linear, attention, embed := linearNode, attentionNode, func() *node { return embedNode(1, 2) }
	for _, c := range []struct {
		name  string
		make  func() *node
		spoil func(*node)
		want  string
	}{
		{"no such form", linear, set("form", int64(3)), "form, before, k or n is wrong"},
		{"negative form", linear, set("form", int64(-1)), "form, before, k or n is wrong"},
		{"no such work before", linear, set("before", int64(10)), "form, before, k or n is wrong"},
		{"no k", linear, set("k", int64(0)), "form, before, k or n is wrong"},
		{"huge n", linear, set("n", int64(1)<<40), "form, before, k or n is wrong"},
		{"k of no block", linear, func(n *node) { n.attributes["form"], n.attributes["k"] = int64(Q41), int64(63) }, "form, before, k or n is wrong"},
		{"no epsilon", linear, func(n *node) { delete(n.attributes, "epsilon") }, "epsilon"},
		{"narrow x", linear, shape(0, 3, 63), "x is not as wide"},
		{"x of five dimensions", linear, shape(0, 1, 1, 1, 3, 64), "more than four dimensions"},
		{"x without its gates", linear, set("before", int64(3)), "x is not as wide"},
		{"short w", linear, shape(1, 64*64*4-4), "w is not as large"},
		{"no scale", linear, func(n *node) { n.in[2] = absent }, "scale does not fit"},
		{"short scale", linear, shape(2, 63), "scale does not fit"},
		{"scale without a norm", linear, set("before", int64(0)), "scale does not fit"},
		{"short shift", linear, shape(3, 63), "shift does not fit"},
		{"shift without a norm", linear, func(n *node) { n.attributes["before"], n.in[2] = int64(0), absent }, "shift does not fit"},
		{"long bias", linear, shape(4, 41), "bias does not fit"},
		{"short residual", linear, shape(5, 2, 40), "residual does not fit"},
		{"short LoRA a", linear, shape(6, 32), "LoRA does not fit"},
		{"long LoRA b", linear, shape(7, 321), "LoRA does not fit"},
		{"LoRA a alone", linear, shape(7, 0), "LoRA does not fit"},
		{"LoRA b alone", linear, func(n *node) { n.in[6] = absent }, "LoRA does not fit"},
		{"LoRA of a rank beyond all", linear, func(n *node) { cut(n, 7, 64*1025); cut(n, 6, 64*1056) }, "LoRA does not fit"},

		{"heads that do not share", attention, set("kv_heads", int64(3)), "heads, kv_heads, dim, window or scale"},
		{"no heads", attention, set("heads", int64(0)), "heads, kv_heads, dim, window or scale"},
		{"huge heads", attention, set("dim", int64(1025)), "heads, kv_heads, dim, window or scale"},
		{"negative window", attention, set("window", int64(-1)), "heads, kv_heads, dim, window or scale"},
		{"no scale", attention, set("scale", float32(0)), "heads, kv_heads, dim, window or scale"},
		{"constant keys", attention, func(n *node) { n.in[1].fixed = true }, "a cache is a constant"},
		{"constant values", attention, func(n *node) { n.in[2].fixed = true }, "a cache is a constant"},
		{"narrow qkv", attention, shape(0, 4, 159), "qkv, slot, at and upto"},
		{"more qkv than slots", attention, shape(0, 5, 160), "qkv, slot, at and upto"},
		{"few places", attention, shape(4, 3), "qkv, slot, at and upto"},
		{"few ends", attention, shape(5, 3), "qkv, slot, at and upto"},
		{"short keys", attention, shape(1, 2, 2, 16, 20), "caches do not fit"},
		{"values without padding", attention, shape(2, 2, 2, 32, 20), "caches do not fit"},
		{"values of other heads", attention, shape(2, 2, 1, 32, 32), "caches do not fit"},
		{"capacity of no block", attention, func(n *node) { cut(n, 1, 2, 2, 24, 20); cut(n, 2, 2, 2, 24, 32) }, "caches do not fit"},
		{"no slots", attention, func(n *node) { cut(n, 1, 0, 2, 32, 20); cut(n, 2, 0, 2, 32, 32) }, "caches do not fit"},
		{"cos without sin", attention, func(n *node) { n.in[7] = absent }, "cos and sin"},
		{"wide cos", attention, func(n *node) { cut(n, 6, 4, 11); cut(n, 7, 4, 11) }, "cos and sin"},
		{"few cos", attention, func(n *node) { cut(n, 6, 3, 10); cut(n, 7, 3, 10) }, "cos and sin"},
		{"negative slot", attention, numbers(3, 0, 0, -1, 1), "outside the caches"},
		{"no such slot", attention, numbers(3, 0, 0, 1, 2), "outside the caches"},
		{"negative place", attention, numbers(4, -1, 1, 5, 6), "outside the caches"},
		{"place behind the cache", attention, numbers(4, 0, 1, 5, 32), "outside the caches"},
		{"the same place twice", attention, numbers(4, 0, 0, 5, 6), "not behind the one before"},
		{"blind to itself", attention, numbers(5, 1, 2, 6, 6), "outside the caches"},
		{"end behind the cache", attention, numbers(5, 1, 2, 6, 33), "outside the caches"},

		{"short table", embed, shape(1, 64*64*4-4), "ids or w do not fit"},
		{"negative id", func() *node { return embedNode(0, -1) }, func(*node) {}, "outside the table"},
		{"id behind the table", func() *node { return embedNode(0, 40) }, func(*node) {}, "outside the table"},
	} {
		n := c.make()
		c.spoil(n)
		if err := n.run(t); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s, %s: %v, want %q", n.op, c.name, err, c.want)
		}
	}
}

// No rows are no work and no fault.
func TestOperatorsOfNothing(t *testing.T) {
	l := linearNode()
	cut(l, 0, 0, 64)
	cut(l, 5, 0, 40)
	l.out[0].shape, l.out[0].data = []int64{0, 40}, []float32{}
	a := attentionNode()
	for i, dims := range [][]int64{{0, 160}, nil, nil, {0}, {0}, {0}, {0, 10}, {0, 10}} {
		if dims != nil {
			cut(a, i, dims...)
		}
	}
	a.out[0].shape, a.out[0].data = []int64{0, 80}, []float32{}
	for _, n := range []*node{l, a, embedNode()} {
		if err := n.run(t); err != nil {
			t.Errorf("%s: %v", n.op, err)
		}
	}
}

// Linear's parts against the same in float64: norm, bias, residual and LoRA together, and an empty LoRA.
func TestLinearWithEverything(t *testing.T) {
	for _, adapted := range []bool{true, false} {
		n := linearNode()
		if !adapted {
			cut(n, 6, 0)
			cut(n, 7, 0)
		}
		if err := n.run(t); err != nil {
			t.Fatal(err)
		}
		const k, wide, rank = 64, 40, 5
		get := func(i int) []float32 { return n.in[i].data.([]float32) }
		var w []float32
		for at, b := 0, n.in[1].data.([]uint8); at < len(b); at += 4 {
			w = append(w, floatFrom(b[at:]))
		}
		at := func(packed []float32, rows, i, j int) float64 { return float64(packed[(j/Panel*rows+i)*Panel+j%Panel]) }
		var want []float64
		for r := range 3 {
			x := normed(get(0)[r*k:][:k], get(2), get(3))
			low := make([]float64, rank)
			for q := range low {
				for i, v := range x {
					if adapted {
						low[q] += v * at(get(6), k, i, q)
					}
				}
			}
			for j := range wide {
				v := float64(get(4)[j]) + float64(get(5)[r*wide+j])
				for i, u := range x {
					v += u * at(w, k, i, j)
				}
				for q, u := range low {
					if adapted {
						v += u * at(get(7), rank, q, j)
					}
				}
				want = append(want, v)
			}
		}
		if d := farthest(n.out[0].data.([]float32), want); !(d < 1e-4) {
			t.Errorf("adapted %v: %g off", adapted, d)
		}
	}
}

// Attributes and shapes at random: a node either runs or is refused.
func TestOperatorsAtRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	sizes := []int64{-1 << 62, -1, 0, 1, 2, 15, 16, 20, 31, 32, 33, 40, 64, 128, 1024, 1 << 20, 1 << 31, 1 << 62}
	ran := 0
	for range 400 {
		n := []func() *node{linearNode, attentionNode, func() *node { return embedNode(0, 5) }}[r.IntN(3)]()
		for range 1 + r.IntN(2) {
			if r.IntN(2) == 0 {
				names := map[string][]string{"Linear": {"form", "before", "k", "n"}, "Embed": {"form", "k", "n"}, "Attention": {"heads", "kv_heads", "dim", "window"}}[n.op]
				n.attributes[names[r.IntN(len(names))]] = sizes[r.IntN(len(sizes))]
				continue
			}
			i := r.IntN(len(n.in))
			if d, ok := n.in[i].data.([]int32); ok && r.IntN(2) == 0 {
				d[r.IntN(len(d))] = int32(sizes[r.IntN(len(sizes))])
				continue
			}
			shape := append([]int64{}, n.in[i].shape...)
			shape[r.IntN(len(shape))] = int64(r.IntN(80))
			if count := shape[0]; len(shape) < 4 && count < 1000 {
				cut(n, i, shape...)
			}
		}
		if n.run(t) == nil {
			ran++
		}
	}
	if ran == 0 || ran == 400 {
		t.Errorf("%d of 400 ran", ran)
	}
}

// The headers are those of the wrapper's module.
func TestHeadersAreTheWrappers(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/yalue/onnxruntime_go").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"onnxruntime_c_api.h", "onnxruntime_ep_c_api.h"} {
		ours, err := os.ReadFile(filepath.Join("ort", name))
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), name))
		if err != nil {
			t.Fatal(err)
		}
		if string(ours) != string(theirs) {
			t.Errorf("ort/%s is not the one of the module: copy it from there", name)
		}
	}
}

// The C code alone, under the compiler's sanitizers: testdata/driver.c.
func TestSanitizers(t *testing.T) {
	if testing.Short() {
		t.Skip("short")
	}
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Fatal(err) // cgo needs it as well
	}
	for _, sanitizer := range []string{"address,undefined", "thread"} {
		t.Run(sanitizer, func(t *testing.T) {
			program := filepath.Join(t.TempDir(), "driver")
			args := append([]string{"-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fsanitize=" + sanitizer, "-fno-sanitize-recover=all", "-I.", "-o", program, "testdata/driver.c"},
				"attention.c", "kind.c", "linear.c", "team.c", "-lpthread", "-lm")
			if out, err := exec.Command(cc, args...).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if out, err := exec.Command(program).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		})
	}
}

func ExampleForm_Bytes() {
	fmt.Println(F32.Bytes(576, 960), Q41.Bytes(576, 960), Q41.Bytes(577, 960))
	// Output: 2211840 345600 -1
}
