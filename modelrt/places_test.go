package modelrt

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"chatxray/pipeline"
)

// Sizes of the fit area against transformers' smart_resize (4.57.1, factor 28, 56² to 28²·1280 pixels).
func TestAreaSizes(t *testing.T) {
	p := Preprocess{Width: 448, Height: 448, Channels: 1, Fit: "area", Interpolation: "bicubic", Mean: []float64{0.5}, Std: []float64{0.5}, VOI: "default",
		Patch: 14, Merge: 2, MinPixels: 56 * 56, MaxPixels: 28 * 28 * 1280}
	if err := p.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][4]int{ // rows, columns; height, width
		{1, 1, 56, 56}, {28, 28, 56, 56}, {14, 14, 56, 56}, {42, 42, 56, 56}, {2500, 2048, 1092, 896}, {3000, 200, 2996, 196}, {56, 10000, 56, 9996},
		{70, 98, 56, 112}, {100, 100, 112, 112}, {997, 1003, 980, 980}, {20, 3999, 28, 4004}, {8192, 8192, 980, 980}, {2571, 1086, 1540, 644},
		{3058, 1508, 1400, 700}, {3277, 2868, 1064, 924}, {3050, 2710, 1036, 924}, {138, 3482, 140, 3472}, {1927, 3218, 756, 1288},
	} {
		if w, h := p.area(c[1], c[0]); h != c[2] || w != c[3] {
			t.Errorf("%d×%d: %d×%d, want %d×%d", c[0], c[1], h, w, c[2], c[3])
		}
	}
	pp := must(NewPreprocessor(p))
	if _, err := pp.prepare(picture(make([]uint8, 60000), 1, 60000)); !errors.Is(err, pipeline.ErrInvalid) {
		t.Errorf("an image of 1×60000: %v", err)
	}
}

func TestLay(t *testing.T) {
	m := openFamily(t, "gemma3")
	p := m.prompt
	one, two := raster{1, 16}, "<start_of_image>"
	if l := must(p.lay("a"+two+"b"+two+"c", []raster{one, one})); slices.Max(l.image) != 31 || l.image[len(l.image)-1] != -1 {
		t.Errorf("%v", l.image)
	}
	for _, c := range []struct {
		text   string
		images []raster
		want   string
	}{
		{"no place", []raster{one}, "places for 0 images, there are 1"},
		{two + "a" + two + "b", []raster{one}, "places for 2 images, there are 1"},
		{strings.Repeat("too long ", 200), nil, "decoder.max_length 256"},
		{strings.Repeat(two, 16) + "a", slices.Repeat([]raster{one}, 16), "the images have 256 tokens"},
		{strings.Repeat(two, 65) + "a", slices.Repeat([]raster{one}, 65), "the images have 1040 tokens"},
		{"", nil, "must end in text"},
	} {
		if _, err := p.lay(c.text, c.images); !errors.Is(err, pipeline.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.20q: %v, want %q", c.text, err, c.want)
		}
	}
}

// Places have the same keys only where their caches are the same.
func TestKeysOfPlaces(t *testing.T) {
	plain := func() *placing {
		p := &placing{step: [3]int32{1, 1, 1}}
		p.text(5, 6)
		p.put(0, 0)
		p.put(0, 1)
		p.text(7, 8)
		return p
	}
	embeds := func(v float32) []uint64 { return imageKeys([]float32{1, 2, v, 4}, 2) }
	want := plain().keys(embeds(3))
	if !slices.Equal(want, plain().keys(embeds(3))) || want[0] != 5 || want[4] != 7 {
		t.Fatalf("%v", want)
	}
	if other := plain().keys(embeds(9)); common(want, other) != 2 || other[4] != 7 {
		t.Errorf("another image: %v, %v", want, other)
	}
	moved := plain()
	moved.position[4] = [3]int32{3, 3, 3}
	if common(want, moved.keys(embeds(3))) != 4 {
		t.Error("another position has the same key")
	}
	block := func(last int32) *placing {
		p := plain()
		p.ids[3] = last
		p.image[3] = -1
		for i := 1; i < 4; i++ {
			p.upto[i] = 4
		}
		return p
	}
	if n := common(block(1).keys(embeds(3)), block(2).keys(embeds(3))); n != 1 {
		t.Errorf("places that see a place which differs: %d in common", n)
	}
	if n := block(1).whole(0, 2); n != 4 {
		t.Errorf("a piece of 2 became %d", n)
	}
	if n := block(1).whole(0, 1); n != 1 {
		t.Errorf("a piece of 1 became %d", n)
	}
}

// Manifests of families: what does not belong together is told.
func TestFamilyManifests(t *testing.T) {
	for _, c := range []struct {
		bundle  string
		changes map[string]any
		want    string
	}{
		{"llava", map[string]any{"family": "alpaca"}, `family: "alpaca" is not known`},
		{"llava", map[string]any{"family": "qwen2vl"}, "decoder.positions"},
		{"llava", map[string]any{"decoder/rotary": 5}, "decoder.rotary: 5"},
		{"llava", map[string]any{"decoder/rope_sections": []int{1, 2, 3}}, "rope_sections"},
		{"llava", map[string]any{"vision/window": 3}, "vision.window"},
		{"llava", map[string]any{"preprocess/pad_value": 2}, "pad_value"},
		{"llava", map[string]any{"base/lora": "lora.safetensors"}, "unknown key base.lora"},
		{"llava", map[string]any{"boxes": map[string]any{"syntax": "yolo", "range": 10}}, "boxes.syntax"},
		{"qwenvl", map[string]any{"boxes/range": 0}, "boxes.range"},
		{"qwenvl", map[string]any{"prompt/image_token": ""}, "prompt.image_token"},
		{"qwen2vl", map[string]any{"decoder/rope_sections": []int{2, 3, 4}}, "rope_sections"},
		{"qwen2vl", map[string]any{"preprocess/min_pixels": 0}, "max_pixels"},
		{"qwen2vl", map[string]any{"preprocess/width": 50}, "50×48 is no size that the fit area makes"},
		{"qwen2vl", map[string]any{"vision/patch_dim": 95}, "vision.patch_dim"},
		{"qwen2vl", map[string]any{"vision/patch_dim": 48 * 5}, "vision.patch_dim"},
		{"qwen2vl", map[string]any{"vision/findings": []string{"Edema"}}, "no findings"},
		{"fuyu", map[string]any{"prompt/row_end": ""}, "prompt.row_end"},
		{"fuyu", map[string]any{"preprocess/fit": "squash"}, "the fit keep or area"},
		{"gemma3", map[string]any{"decoder/rope_factor": 0.5}, "rope_factor"},
		{"blip2", map[string]any{"prompt/sentinel": "x"}, "prompt.sentinel"},
		{"llama", map[string]any{"base/forms": []any{map[string]any{"name": "x", "kind": "flat", "layout": "layout.json.gz", "embed": "embed.onnx", "decoder": "decoder.onnx"}}}, "base.forms x"},
		{"llama", map[string]any{"base/forms": []any{map[string]any{"name": "x", "kind": "flat", "precision": "float16", "embed": "embed.onnx", "decoder": "decoder.onnx"}}}, "base.forms x: precision"},
		{"chatglm", map[string]any{"base/forms": []any{map[string]any{"name": "x", "kind": "gqa", "embed": "embed.onnx", "decoder": "decoder.onnx"}}}, "plain positions and masks only"},
		{"chatglm", map[string]any{"decoder/mask": "causal"}, "decoder.mask"},
	} {
		raw := must(os.ReadFile(filepath.Join("testdata", "families", c.bundle, manifestName)))
		_, err := ParseManifest(changed(t, raw, c.changes))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %v: %v, want %q", c.bundle, c.changes, err, c.want)
		}
	}
}

// A weights.bin of the bundle's own is one of its files: another one is refused, and no graph reads beyond it.
func TestOwnWeights(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/families/llama")); err != nil {
		t.Fatal(err)
	}
	must(Verify(dir))
	b := must(os.ReadFile(filepath.Join(dir, weightsName)))
	put(t, dir, weightsName, append(slices.Clone(b[:len(b)-1]), b[len(b)-1]^1))
	if _, err := Verify(dir); !errors.Is(err, pipeline.ErrInvalid) || !strings.Contains(err.Error(), "weights.bin has the sha256") {
		t.Errorf("other weights: %v", err)
	}
	half := b[:len(b)/2]
	put(t, dir, weightsName, half)
	put(t, dir, manifestName, changed(t, must(os.ReadFile(filepath.Join(dir, manifestName))), map[string]any{
		"files/weights.bin/bytes": len(half), "files/weights.bin/sha256": fmt.Sprintf("%x", sha256.Sum256(half)),
	}))
	if _, err := Verify(dir); !errors.Is(err, pipeline.ErrInvalid) || !strings.Contains(err.Error(), "lies outside") {
		t.Errorf("half the weights: %v", err)
	}
}

// An image of more tokens than the decoder takes is refused before it is encoded, with numbers.
func TestImageTooLarge(t *testing.T) {
	m := openFamily(t, "fuyu")
	m.bundle.Manifest.Decoder.MaxLength = 40
	_, err := m.see(context.Background(), picture(make([]uint8, 48*64), 48, 64), classRoutine)
	if !errors.Is(err, pipeline.ErrInvalid) || !strings.Contains(err.Error(), "48 tokens") {
		t.Errorf("%v", err)
	}
}

// A model of text writes, and says why it gives no evidence.
func TestTextOnly(t *testing.T) {
	m := openFamily(t, "llama")
	if _, _, err := m.scoreOthers(context.Background(), []int32{1}); !errors.Is(err, pipeline.ErrUnsupported) {
		t.Errorf("%v", err)
	}
}
