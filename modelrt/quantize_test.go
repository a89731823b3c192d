package modelrt

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"chatxray/pipeline"
)

// Blocks of 4 and 8 bits are, byte for byte, those of the package gguf: testdata/quantize.py.
func TestQuantizeBlocks(t *testing.T) {
	var golden []struct {
		Values []uint32 `json:"values"` // float32, their bits
		Q41    []byte   `json:"q4_1"`
		Q80    []byte   `json:"q8_0"`
	}
	if err := json.Unmarshal(must(os.ReadFile("testdata/quantize.json")), &golden); err != nil {
		t.Fatal(err)
	}
	if len(golden) < 50 {
		t.Fatalf("%d blocks", len(golden))
	}
	for i, g := range golden {
		x := make([]float32, 32)
		for j, b := range g.Values {
			x[j] = math.Float32frombits(b)
		}
		q4, q8 := make([]byte, 20), make([]byte, 34)
		quantizeQ41(q4, x)
		quantizeQ80(q8, x)
		if !bytes.Equal(q4, g.Q41) || !bytes.Equal(q8, g.Q80) {
			t.Errorf("block %d:\n%x\n%x\n%x\n%x", i, q4, g.Q41, q8, g.Q80)
		}
	}
}

func quantized(t *testing.T, source, form, to string) (string, *Quantization) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	q, err := Quantize(context.Background(), must(Verify(source)), BaseModel{Path: "testdata/tiny.gguf", Cache: t.TempDir()}, form, to, out)
	if err != nil {
		t.Fatal(err)
	}
	return out, q
}

func openQuantized(t *testing.T, dir, adapters string) *Model {
	t.Helper()
	o := tinyOptions(t)
	o.Adapters = adapters
	o.Base = func(context.Context, string) (string, error) {
		return "", errors.New("a bundle of its own asked for a base model")
	}
	m, err := Open(context.Background(), runtimeFor(t), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// The tiny bundle's fp32 form holds values of 4-bit blocks: quantised to 4 bits it says the same, with less, with the same adapter, and takes the
// adapters of its base model.
func TestQuantize(t *testing.T) {
	img := tinyValues(t).image()
	source := openTinyForm(t, "fp32")
	want := must(source.Try(context.Background(), Trial{Image: img}))
	for _, to := range QuantForms() {
		t.Run(to, func(t *testing.T) {
			dir, q := quantized(t, "testdata/tiny", "", to)
			if q.Form != "fp32" || q.Matrices < 8 || q.Bytes >= q.FromBytes/2 {
				t.Errorf("%+v", q)
			}
			m := openQuantized(t, dir, filepath.Join("testdata", "adapters", "tiny"))
			if !slices.Equal(m.Adapters(), []string{"report", "narrow", "uneven", "wide"}) {
				t.Errorf("%q", m.Adapters())
			}
			got := must(m.Try(context.Background(), Trial{Image: img}))
			f := must(m.Follow(context.Background(), Trial{Image: img}, want.Tokens))
			t.Logf("%s: %d of %d tokens agree, %d bytes of %d", to, f.Agreed, len(want.Tokens), q.Bytes, q.FromBytes)
			if f.Agreed < len(want.Tokens)*9/10 || f.Decoded != len(want.Tokens)-1 || f.Each <= 0 {
				t.Errorf("%+v of %d", f, len(want.Tokens))
			}
			if f.Agreed == len(want.Tokens) != slices.Equal(got.Tokens, want.Tokens) {
				t.Errorf("%v, %v", got.Tokens, want.Tokens)
			}
			if m.Ref().Name != "tiny-"+to || m.Ref().Digest == source.Ref().Digest {
				t.Errorf("%+v", m.Ref())
			}
		})
	}
}

// Bundles with weights in the graph or in a file of their own are quantised too. Random weights lose much by it.
func TestQuantizeFamilies(t *testing.T) {
	for _, name := range []string{"llama", "llava", "qwen2vl"} {
		dir := filepath.Join("testdata", "families", name)
		out, q := quantized(t, dir, "", "q8")
		m := openQuantized(t, out, "")
		g := familyValues(t, name)
		r := must(runFamily(context.Background(), m, g, 0))
		_, logits, ids, _ := r.apart(g, 0)
		t.Logf("%s: %d matrices, %d kept, first logits differ by %.3f, %d bytes of %d", name, q.Matrices, len(q.Kept), logits, q.Bytes, q.FromBytes)
		if ids || logits > 1 || logits == 0 {
			t.Errorf("%s: first logits differ by %g, other ids %v", name, logits, ids)
		}
	}
}

func TestQuantizeRefuses(t *testing.T) {
	gqa := copyBundle(t)
	m := must(ParseManifest(tinyManifest(t)))
	forms := slices.DeleteFunc(slices.Clone(m.Base.Forms), func(f Form) bool { return f.Kind == KindFlat })
	for _, f := range m.Base.Forms {
		if f.Kind == KindFlat {
			os.Remove(filepath.Join(gqa, f.Decoder))
			os.Remove(filepath.Join(gqa, f.Embed))
		}
	}
	raw := edited(t, map[string]any{"base/forms": forms})
	put(t, gqa, manifestName, raw)
	if err := Seal(gqa); err != nil {
		t.Fatal(err)
	}
	there := t.TempDir()
	fresh := filepath.Join(t.TempDir(), "out")
	for _, c := range []struct {
		name, dir, form, to, out string
		sentinel                 error
		want                     string
	}{
		{"16 bits", "testdata/tiny", "", "fp16", fresh, pipeline.ErrUnsupported, "are for CUDA"},
		{"a form that is not there", "testdata/tiny", "q5", "q4", fresh, pipeline.ErrNotFound, `no form "q5"`},
		{"a form of another kind", "testdata/tiny", "standard", "q4", fresh, pipeline.ErrUnsupported, "of the kind gqa"},
		{"no form of the kind", gqa, "", "q4", fresh, pipeline.ErrUnsupported, "no form of the kind flat"},
		{"a folder that is there", "testdata/tiny", "", "q4", there, pipeline.ErrInvalid, "exists"},
		{"4 bits to 4 bits", "testdata/tiny", "q4", "q4", fresh, pipeline.ErrUnsupported, "in that form already"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Quantize(context.Background(), must(Verify(c.dir)), BaseModel{Path: "testdata/tiny.gguf", Cache: t.TempDir()}, c.form, c.to, c.out)
			if !errors.Is(err, c.sentinel) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v", err)
			}
			if _, err := os.Stat(fresh); err == nil {
				t.Error("something was left behind")
			}
		})
	}
}
