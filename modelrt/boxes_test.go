package modelrt

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"chatxray/pipeline"
)

// A box around a pixel of the stored image, told in the coordinates of the tensor, comes back to that pixel, however the image lies.
func TestBoxesComeBack(t *testing.T) {
	for _, o := range everyOrientation() {
		for _, fit := range []string{"squash", "pad"} {
			img := formula(120, 80)
			img.Upright = o
			p := fitted(spec(60, 60), fit)
			at := p.Place(img)
			b := Boxes{Syntax: "qwen", Range: 999}
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
	b := Boxes{Syntax: "qwen", Range: 999}
	for _, c := range []struct {
		text string
		want []pipeline.Box
	}{
		{"An <ref>opacity</ref><box>(250,500),(500,750)</box>.", []pipeline.Box{{Label: "opacity", Left: 50, Top: 200, Right: 100, Bottom: 300}}},
		{"<ref>two</ref><box>(0,0),(500,500)</box><box>(500,500),(999,999)</box>", []pipeline.Box{{Label: "two", Left: 0, Top: 0, Right: 100, Bottom: 200}, {Label: "two", Left: 100, Top: 200, Right: 199.8, Bottom: 399.6}}},
		{"<box>(0,0),(500,500)</box>", []pipeline.Box{{Label: "", Left: 0, Top: 0, Right: 100, Bottom: 200}}},
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

// Against the code that Qwen-VL came with, which draws on the latest picture and rounds down to pixels (testdata/boxes.py); and the same texts with the marks
// of Qwen2-VL, whose coordinates have the same range.
func TestBoxesReference(t *testing.T) {
	var golden struct {
		Cases []struct {
			Width, Height int
			Text          string
			Boxes         []struct {
				Corners [4]float64
				Label   string
			}
		}
	}
	if err := json.Unmarshal(must(os.ReadFile("testdata/boxes.json")), &golden); err != nil || len(golden.Cases) < 20 {
		t.Fatal(len(golden.Cases), err)
	}
	second := strings.NewReplacer("<ref>", "<|object_ref_start|>", "</ref>", "<|object_ref_end|>", "<box>", "<|box_start|>", "</box>", "<|box_end|>")
	for _, c := range golden.Cases {
		at := fitted(spec(448, 448), "squash").Place(formula(c.Width, c.Height))
		for syntax, text := range map[string]string{"qwen": c.Text, "qwen2": second.Replace(c.Text)} {
			got := Boxes{syntax, 999}.find(text, at)
			if len(got) != len(c.Boxes) {
				t.Errorf("%s %q: %+v, the reference has %+v", syntax, text, got, c.Boxes)
				continue
			}
			labelled := ""
			for i, b := range got {
				w := c.Boxes[i]
				if w.Label != "" {
					labelled = w.Label
				}
				// The reference names a label once for all boxes behind it.
				if p := [4]float64{math.Floor(b.Left), math.Floor(b.Top), math.Floor(b.Right), math.Floor(b.Bottom)}; p != w.Corners || b.Label != w.Label && b.Label != labelled {
					t.Errorf("%s %q on %d×%d: %+v, the reference draws %+v", syntax, text, c.Width, c.Height, b, w)
				}
			}
		}
	}
}

// saying is a decoder that says tokens behind a prompt of so many places.
type saying struct {
	decoder
	ids    []int32
	prompt int32
}

func (s *saying) run(c *call, b *batch) error {
	err := s.decoder.run(c, b)
	for row, place := range b.wanted {
		if n := b.at[place] - s.prompt + 1; err == nil && n >= 0 && int(n) < len(s.ids) {
			vocab := len(b.logits) / len(b.wanted)
			b.logits[row*vocab+int(s.ids[n])] = 1e4
		}
	}
	return err
}

// Where a model draws boxes, an answer has them and a text that can be read, whole and in pieces; coordinates that are none stay.
func TestChatBoxes(t *testing.T) {
	m := openFamily(t, "qwenvl")
	own := m.engine.decoder
	for _, c := range []struct {
		says, text string
		boxes      []pipeline.Box
	}{
		{"The heart <ref>is</ref><box>(500,250),(750,500)</box> large.", "The heart is large.", []pipeline.Box{{Image: 1, Label: "is", Left: 24, Top: 24, Right: 36, Bottom: 48}}},
		{"The heart <box>is (5,5)</box> large.", "The heart is (5,5) large.", nil},
		{"The heart is large (1,2).", "The heart is large (1,2).", nil},
	} {
		first, last := picture(make([]uint8, 48*48), 48, 48), picture(make([]uint8, 96*48), 96, 48)
		first.Instance.Digest[0], last.Instance.Digest[0] = 1, 2
		w := append(m.prompt.tokenizer.EncodeTemplate(c.says), m.prompt.tokenizer.EncodeTemplate("<|endoftext|>")...)
		r := question(user("Where?", askedAbout(first)), assistant("There."), user("And here?", askedAbout(last)))
		streamed := ""
		m.talks.settling.Wait()
		m.Load() // the engine has nothing to do
		m.engine.decoder = &saying{own, w, int32(len(placesOf(t, m, r).ids))}
		a, err := m.Chat(context.Background(), r, func(p pipeline.ChatPiece) error { streamed += p.Text; return nil })
		if err != nil {
			t.Fatal(err)
		}
		if a.Text != c.text || streamed != c.text || !slices.Equal(a.Boxes, c.boxes) {
			t.Errorf("%q: %q, streamed %q, %+v", c.says, a.Text, streamed, a.Boxes)
		}
	}
	if a := must(openTiny(t).Chat(context.Background(), question(user("Q", askedAbout(tinyValues(t).image()))), nil)); a.Boxes != nil {
		t.Error("a model without boxes drew some")
	}
}
