package modelrt

import (
	"math"
	"testing"
)

// A box around a pixel of the stored image, told in the coordinates of the tensor, comes back to that pixel, however the image lies.
func TestBoxesComeBack(t *testing.T) {
	for _, o := range everyOrientation() {
		for _, fit := range []string{"squash", "pad"} {
			img := formula(120, 80)
			img.Upright = o
			p := fitted(spec(60, 60), fit)
			at := p.Place(img)
			b := Boxes{Syntax: syntaxQwen, Range: 999}
			x1, y1 := at.FromSource(30, 20)
			x2, y2 := at.FromSource(50, 44)
			n := func(v float64, side int) int { return int(math.Round(v / float64(side) * 1000)) }
			v := [4]int{n(min(x1, x2), 60), n(min(y1, y2), 60), n(max(x1, x2), 60), n(max(y1, y2), 60)}
			box, ok := b.box(v, at)
			if !ok || math.Abs(box.Left-30) > 0.2 || math.Abs(box.Right-50) > 0.2 || math.Abs(box.Top-20) > 0.2 || math.Abs(box.Bottom-44) > 0.2 {
				t.Errorf("%s %+v: %+v", fit, o, box)
			}
		}
	}
}

func TestBoxesFind(t *testing.T) {
	at := fitted(spec(100, 100), "squash").Place(formula(200, 400))
	b := Boxes{Syntax: syntaxQwen, Range: 999}
	for _, c := range []struct {
		text string
		want []Box
	}{
		{"An <ref>opacity</ref><box>(250,500),(500,750)</box>.", []Box{{"opacity", 50, 200, 100, 300}}},
		{"<ref>two</ref><box>(0,0),(500,500)</box><box>(500,500),(999,999)</box>", []Box{{"two", 0, 0, 100, 200}, {"two", 100, 200, 199.8, 399.6}}},
		{"<box>(0,0),(500,500)</box>", []Box{{"", 0, 0, 100, 200}}},
		{"outside <box>(0,0),(1000,500)</box>", nil},
		{"backwards <box>(500,0),(400,500)</box>", nil},
		{"no area <box>(5,5),(5,5)</box>", nil},
		{"half <box>(0,0),(500", nil},
		{"words <box>left</box> <ref>x</ref>", nil},
		{"many digits <box>(000000001,0),(5,5)</box>", nil},
	} {
		got := b.find(c.text, at)
		if len(got) != len(c.want) {
			t.Errorf("%s: %+v", c.text, got)
			continue
		}
		for i, w := range c.want {
			g := got[i]
			if g.Label != w.Label || math.Abs(g.Left-w.Left)+math.Abs(g.Top-w.Top)+math.Abs(g.Right-w.Right)+math.Abs(g.Bottom-w.Bottom) > 1e-9 {
				t.Errorf("%s: %+v, want %+v", c.text, g, w)
			}
		}
	}
}

// The marks of boxes are special tokens without a text; a model with boxes reads them all the same.
func TestBoxesOfTokens(t *testing.T) {
	m := openFamily(t, "qwenvl")
	img := picture(make([]uint8, 96*48), 96, 48)
	ids := m.prompt.tokenizer.EncodeTemplate("The heart <ref>is</ref><box>(500,250),(750,500)</box> large.<|im_end|>")
	got := m.Boxes(ids, img)
	if len(got) != 1 || got[0] != (Box{"is", 24, 24, 36, 48}) {
		t.Errorf("%+v", got)
	}
	if plain := openTiny(t); plain.Boxes(ids, img) != nil {
		t.Error("a model without boxes found some")
	}
}
