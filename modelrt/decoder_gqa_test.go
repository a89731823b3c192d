package modelrt

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ort "github.com/yalue/onnxruntime_go"

	"chatxray/pipeline"
)

// plain is the gqa decoder without what is made for devices: each slot's caches are Go's memory, given to the wrapper's own call, one text after
// another.
type plain struct {
	d     *gqa
	slots [][]ort.Value
}

func newPlain(t *testing.T, d *gqa) *plain {
	t.Helper()
	p := &plain{d: d}
	shape := ort.NewShape(1, int64(d.shape.KVHeads), int64(d.capacity), int64(d.shape.HeadDim))
	for range d.slots {
		var c []ort.Value
		for range d.caches {
			v := must(ort.NewCustomDataTensor(shape, make([]byte, d.row()*d.element.Bytes()), ort.TensorElementDataType(d.element)))
			t.Cleanup(func() { v.Destroy() })
			c = append(c, v)
		}
		p.slots = append(p.slots, c)
	}
	return p
}

// feed gives x to a slot whose places before past are filled and returns the last token's logits.
func (p *plain) feed(t *testing.T, slot, past int, x []float32) []float32 {
	t.Helper()
	var made tensors
	defer made.destroy()
	n, s := len(x)/p.d.shape.Hidden, p.d.shape
	total := int32(past + n)
	logits := make([]float32, s.Vocab)
	in := []ort.Value{newTensor(&made, x, 1, int64(n), int64(s.Hidden)), newTensor(&made, []int32{total - 1}, 1), newTensor(&made, []int32{total}, 1), newTensor(&made, []int64{int64(n - 1)}, 1)}
	out := []ort.Value{newTensor(&made, logits, 1, 1, int64(s.Vocab))}
	c := must(begin(context.Background()))
	defer c.end()
	if err := c.run(p.d.graph, append(in, p.slots[slot]...), append(out, p.slots[slot]...)); err != nil {
		t.Fatal(err)
	}
	return logits
}

// tinyGQA is the decoder of a form of the tiny bundle with so many slots.
func tinyGQA(t testing.TB, r *Runtime, form string, slots int) *gqa {
	t.Helper()
	b := tinyBundle(t)
	f := must(b.Manifest.form(form, CPU))
	o := tinyOptions(t)
	dir := must(b.Prepare(context.Background(), f, BaseModel{Path: "testdata/tiny.gguf", Cache: o.Cache}))
	d, err := r.newGQA(dir, b.Manifest, f, slots, b.Manifest.Decoder.MaxLength, 1, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.close)
	return d
}

// Texts of all slots, fed in pieces and side by side, going back, copied from one another, give what each gives alone in caches of Go's memory:
// the same logits, the same likeliest token.
func TestGQAEqualsPlain(t *testing.T) {
	d := tinyGQA(t, runtimeFor(t), "standard", 5)
	equalsPlain(t, runtimeFor(t), d, d, 1e-5, true)
}

func equalsPlain(t *testing.T, rt *Runtime, d, oracle *gqa, tolerance float64, likeliest bool) {
	const steps = 400
	slots := d.slots
	if err := d.clear(rt); err != nil {
		t.Fatal(err)
	}
	p := newPlain(t, oracle)
	r := rand.New(rand.NewPCG(11, 1))
	hidden, vocab := d.shape.Hidden, d.shape.Vocab
	fed := make([][]float32, slots) // what each slot holds
	c := must(begin(context.Background()))
	defer c.end()
	var b batch
	for range steps {
		b.clear()
		type asked struct{ slot, past, n int }
		var asks []asked
		for _, s := range r.Perm(slots) {
			past := len(fed[s]) / hidden
			switch r.IntN(8) {
			case 0, 1: // stands still
				continue
			case 2: // goes back
				past = r.IntN(past + 1)
			}
			n := 1
			if r.IntN(4) == 0 {
				n = 1 + r.IntN(9)
			}
			if past+n > d.capacity {
				past = r.IntN(20)
			}
			fed[s] = fed[s][:min(len(fed[s]), past*hidden)]
			past = len(fed[s]) / hidden
			for range n * hidden {
				fed[s] = append(fed[s], float32(r.NormFloat64()))
			}
			b.add(s, past, fed[s][past*hidden:], n, nil)
			b.want()
			asks = append(asks, asked{s, past, n})
		}
		if len(asks) == 0 {
			continue
		}
		if err := d.run(c, &b); err != nil {
			t.Fatal(err)
		}
		for i, a := range asks {
			want, got := p.feed(t, a.slot, a.past, fed[a.slot][a.past*hidden:]), b.logits[i*vocab:][:vocab]
			if far := moved(got, want); !(far < tolerance) || likeliest && slices.Index(got, slices.Max(got)) != slices.Index(want, slices.Max(want)) {
				t.Fatalf("slot %d, %d tokens from %d: logits move by %g", a.slot, a.n, a.past, far)
			}
		}
		if from, to := r.IntN(slots), r.IntN(slots); from != to && r.IntN(10) == 0 {
			n := len(fed[from]) / hidden
			if err := d.share(from, to, n); err != nil {
				t.Fatal(err)
			}
			fed[to] = append(fed[to][:0], fed[from]...)
			for i, cache := range p.slots[from] {
				copy(p.slots[to][i].(*ort.CustomDataTensor).GetData(), cache.(*ort.CustomDataTensor).GetData())
			}
		}
	}
}

// A full slot beside others neither ends them nor is ended by them.
func TestGQAFullSlot(t *testing.T) {
	d := tinyGQA(t, runtimeFor(t), "standard", 3)
	r := rand.New(rand.NewPCG(5, 5))
	hidden := d.shape.Hidden
	x := make([]float32, d.capacity*hidden)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	c := must(begin(context.Background()))
	defer c.end()
	var b batch
	logits := func(slot, past, n int) []float32 {
		b.clear()
		b.add(slot, past, x[past*hidden:(past+n)*hidden], n, nil)
		b.want()
		if err := d.run(c, &b); err != nil {
			t.Fatal(err)
		}
		return slices.Clone(b.logits)
	}
	full := logits(1, 0, d.capacity)
	first := logits(0, 0, 1)
	b.clear()
	for _, s := range []int{0, 2} { // row 1 runs along
		b.add(s, 0, x[:hidden], 1, nil)
		b.want()
	}
	if err := d.run(c, &b); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if far := moved(b.logits[i*d.shape.Vocab:][:d.shape.Vocab], first); !(far < 1e-5) {
			t.Errorf("row %d moves by %g", i, far)
		}
	}
	if far := moved(logits(1, d.capacity-1, 1), full); !(far < 1e-5) {
		t.Errorf("the full slot moves by %g", far)
	}
	b.clear()
	b.add(1, 3, x[:2*hidden], 2, nil)
	b.at[1], b.upto[1], b.position[1] = 9, 10, [3]int32{9, 9, 9}
	b.want()
	if err := d.run(c, &b); !errors.Is(err, pipeline.ErrUnsupported) {
		t.Errorf("places with a gap: %v", err)
	}
}

// halfTolerance is by how much forms of 16 bits may move the first logits.
var halfTolerance = map[string]float64{"half": 2e-3, "brain": 2e-2}

// Forms of 16 bits on the CPU against transformers' values in float32: the same report.
func TestHalfParity(t *testing.T) {
	for name, tolerance := range halfTolerance {
		t.Run(name, func(t *testing.T) { halfParity(t, runtimeFor(t), name, tolerance) })
	}
}

func halfParity(t *testing.T, r *Runtime, name string, tolerance float64) {
	o := tinyOptions(t)
	o.Form = name
	m, err := Open(context.Background(), r, "testdata/tiny", o)
	if err != nil && r.device == CPU && strings.Contains(err.Error(), "Could not find an implementation") {
		t.Skipf("this form needs a GPU: ONNX Runtime's CPU has no kernels for it (%v)", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	g := tinyValues(t)
	seen := must(m.see(context.Background(), g.image(), classRoutine))
	want := make([]float32, len(g.FirstLogits))
	for i, v := range g.FirstLogits {
		want[i] = float32(v)
	}
	far := moved(firstLogits(t, m, seen.image), want)
	t.Logf("the first logits move by %.2g of their size", far)
	if !(far < tolerance) {
		t.Errorf("the first logits move by %g", far)
	}
	a := must(m.write(context.Background(), seen, classRoutine))
	if string(a.text) != g.Text {
		t.Errorf("%q, want %q", a.text, g.Text)
	}
}

// On a GPU the forms of 16 bits are run, and those of float32 are refused.
func TestFormsOfDevices(t *testing.T) {
	m := tinyBundle(t).Manifest
	if f, err := m.form("", CUDA); err != nil || f.Name != "half" {
		t.Errorf("%+v, %v", f, err)
	}
	if f, err := m.form("", CPU); err != nil || f.Name != "q4" {
		t.Errorf("%+v, %v", f, err)
	}
	r := *runtimeFor(t)
	r.device = CUDA
	if _, err := r.newGQA("testdata/tiny", m, must(m.form("standard", CUDA)), 2, 16, 1, false); !errors.Is(err, pipeline.ErrUnsupported) || !strings.Contains(err.Error(), "float16") {
		t.Errorf("%v", err)
	}
	short := *m
	short.Base.Forms = m.Base.Forms[:3]
	if _, err := short.form("", CUDA); !errors.Is(err, pipeline.ErrUnsupported) {
		t.Errorf("%v", err)
	}
}

// A bundle whose weights are its own may have a form of this kind too: what a model of 7B is on a GPU.
func TestGQAOwnWeights(t *testing.T) {
	dir, b := copyBundle(t), tinyBundle(t)
	f := *must(b.Manifest.form("half", CPU))
	prepared := must(b.Prepare(context.Background(), &f, BaseModel{Path: "testdata/tiny.gguf", Cache: t.TempDir()}))
	files := map[string]any{"base/part": "", "base/adapter": "", "files/adapters~1report~1adapter_config.json": nil, "files/adapters~1report~1adapter_model.safetensors": nil}
	for _, other := range b.Manifest.Base.Forms {
		for _, name := range []string{other.Embed, other.Decoder, other.Layout} {
			if name == other.Layout || other.Name != f.Name {
				os.Remove(filepath.Join(dir, name))
				files["files/"+name] = nil
			}
		}
	}
	os.RemoveAll(filepath.Join(dir, loraFolder))
	put(t, dir, weightsName, must(os.ReadFile(filepath.Join(prepared, weightsName))))
	f.Layout, f.WeightsBytes, f.WeightsSHA256 = "", 0, ""
	files["base/forms"] = []Form{f}
	relist(t, dir, files)
	m, err := Open(context.Background(), runtimeFor(t), dir, tinyOptions(t))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	a := must(m.write(context.Background(), must(m.see(context.Background(), tinyValues(t).image(), classRoutine)), classRoutine))
	if string(a.text) != tinyValues(t).Text {
		t.Errorf("%q", a.text)
	}
}
