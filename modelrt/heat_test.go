package modelrt

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"slices"
	"testing"

	"chatxray/pipeline"
)

// Heat maps of the tiny model against the same occlusion in PyTorch and transformers: testdata/tiny.heat.json, made by testdata/heat.py.
func TestHeatParity(t *testing.T) {
	b, err := os.ReadFile("testdata/tiny.heat.json")
	if err != nil {
		t.Fatal(err)
	}
	var want struct {
		Sentences []string
		Heat      [][]float64
	}
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	m, g := openTiny(t), tinyValues(t)
	r := must(m.Read(context.Background(), g.image()))
	h := must(m.Heat(context.Background(), g.image(), r))
	if h.Rows != 4 || h.Columns != 4 || len(h.Sentences) != len(want.Heat) {
		t.Fatalf("%d maps of %d by %d", len(h.Sentences), h.Rows, h.Columns)
	}
	for i, s := range r.Sentences {
		if s.Text != want.Sentences[i] {
			t.Errorf("sentence %q, want %q", s.Text, want.Sentences[i])
		}
		worst := far(t, h.Sentences[i], want.Heat[i])
		t.Logf("%q: largest difference %.2g, largest value %.2f", s.Text, worst, slices.Max(h.Sentences[i]))
		if !(worst < 1e-4) {
			t.Errorf("%q: the map differs by %g", s.Text, worst)
		}
	}
}

// The tiny model's heart has a place (make_tiny.py): what makes the sentences about it likelier must lie there. The effusion of this picture
// shows in several features at once, of which no window takes enough away to matter.
func TestHeatPoints(t *testing.T) {
	m, g := openTiny(t), tinyValues(t)
	r := must(m.Read(context.Background(), g.image()))
	h := must(m.Heat(context.Background(), g.image(), r))
	for sentence, square := range map[int][4]int{0: {12, 24, 10, 24}, 3: {12, 24, 10, 24}} { // rows and columns of the picture's heart
		best := slices.Index(h.Sentences[sentence], slices.Max(h.Sentences[sentence]))
		y, x := best/4*8, best%4*8
		if y+8 <= square[0] || y >= square[1] || x+8 <= square[2] || x >= square[3] {
			t.Errorf("%q rests on the patch at row %d, column %d: %.2f", r.Sentences[sentence].Text, y, x, h.Sentences[sentence])
		}
	}
}

func TestHeatRefuses(t *testing.T) {
	m, g := openTiny(t), tinyValues(t)
	r := must(m.Read(context.Background(), g.image()))
	other, long, odd := *r, *r, *r
	other.Model.Digest[0]++
	long.Tokens = make([]int32, 500)
	odd.Sentences = []pipeline.Sentence{{FirstToken: len(r.Tokens), Tokens: 2}}
	for want, r := range map[error]*pipeline.Reading{pipeline.ErrConflict: &other, pipeline.ErrInvalid: &long} {
		if _, err := m.Heat(context.Background(), g.image(), r); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	if _, err := m.Heat(context.Background(), g.image(), &odd); !errors.Is(err, pipeline.ErrInvalid) {
		t.Error(err)
	}
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := m.Heat(gone, g.image(), r); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A text that is weighed has the evidence that it had when the model wrote it.
func TestWeigh(t *testing.T) {
	eachForm(t, func(t *testing.T, m *Model) {
		g := tinyValues(t)
		r := must(m.Read(context.Background(), g.image()))
		got := must(m.Weigh(context.Background(), []*pipeline.Image{g.image()}, g.Text))
		for i, s := range r.Sentences {
			w := got[0][i]
			if w.Text != s.Text || math.Abs(w.Evidence.Drop-s.Evidence.Drop) > 2e-3 || w.Evidence.Rank != s.Evidence.Rank {
				t.Errorf("%+v, want %+v", w, s)
			}
		}
		if _, err := m.Weigh(context.Background(), []*pipeline.Image{g.image()}, " "); !errors.Is(err, pipeline.ErrInvalid) {
			t.Error(err)
		}
	})
}

// An image that is among the decoys is not compared with itself.
func TestTwins(t *testing.T) {
	m, g := openTiny(t), tinyValues(t)
	features := slices.Clone(m.decoys[1])
	features[0] += 1e-3
	if got := m.twins(features); got[0] || !got[1] {
		t.Error(got)
	}
	if seen := must(m.see(context.Background(), g.image(), classRoutine)); slices.Contains(seen.twins, true) {
		t.Error(seen.twins)
	}
	own, s := []float64{-1}, []pipeline.Sentence{{Tokens: 1}}
	others := [][]float64{{-2}, {-4}, {-3}}
	if weigh(s, must(besides(own, others, []bool{false, true}))); s[0].Evidence.Drop != 1 || len(s[0].Evidence.Decoys) != 1 || s[0].Evidence.Blank != -3 {
		t.Errorf("%+v", s)
	}
	if _, err := besides(own, others, []bool{true, true}); !errors.Is(err, pipeline.ErrModel) {
		t.Error(err)
	}
}

func TestCurve(t *testing.T) {
	c := &Curve{Calibration: pipeline.Calibration{Set: "x", Sentences: 10, Films: 5, Brier: 0.2}, Drop: []float64{-1, 0, 2}, True: []float64{0.2, 0.4, 0.8}}
	for drop, want := range map[float64]float64{-9: 0.2, -1: 0.2, -0.5: 0.3, 0: 0.4, 1: 0.6, 9: 0.8} {
		if got := c.at(drop); math.Abs(got-want) > 1e-9 {
			t.Errorf("at %v: %v, want %v", drop, got, want)
		}
	}
	if f := c.faults(); len(f) > 0 {
		t.Error(f)
	}
	for _, bad := range []Curve{{Drop: c.Drop, True: c.True}, {Calibration: c.Calibration, Drop: c.Drop, True: []float64{0.2, 0.1, 0.8}},
		{Calibration: c.Calibration, Drop: []float64{0, 0, 1}, True: c.True}, {Calibration: c.Calibration, Drop: []float64{0, math.NaN(), 1}, True: c.True},
		{Calibration: c.Calibration, Drop: c.Drop, True: []float64{0, 0.5, 1.5}}, {Calibration: c.Calibration}} {
		if len(bad.faults()) == 0 {
			t.Errorf("%+v is taken", bad)
		}
	}
}

// What the policies make of two flagged sentences of four, and of a report all of whose sentences are flagged.
func TestPolicy(t *testing.T) {
	g := tinyValues(t)
	for _, c := range []struct {
		policy        Policy
		flagged       []int
		left, dropped int
		held          bool
	}{{Mark, []int{1, 3}, 4, 0, false}, {Drop, []int{1, 3}, 2, 2, false}, {Hold, []int{1}, 4, 0, true}, {Hold, nil, 4, 0, false}, {Drop, []int{0, 1, 2, 3}, 4, 0, true}} {
		m := openTiny(t)
		m.rules.policy = c.policy
		m.rules.check = func(r *pipeline.Reading, _ pipeline.Dataset) [][]pipeline.Flag {
			flags := make([][]pipeline.Flag, len(r.Sentences))
			for _, i := range c.flagged {
				flags[i] = []pipeline.Flag{{Rule: pipeline.RuleSide, Reason: "Because."}}
			}
			return flags
		}
		labelled := 0
		m.label = func(s []string) []pipeline.Finding { labelled = len(s); return notSaid(s) }
		r := must(m.Read(context.Background(), g.image()))
		if len(r.Sentences) != c.left || len(r.Dropped) != c.dropped || (r.Held != "") != c.held || labelled != c.left {
			t.Errorf("%s of %v: %d left, %d dropped, held %q, %d labelled", c.policy, c.flagged, len(r.Sentences), len(r.Dropped), r.Held, labelled)
		}
		for i, s := range r.Sentences {
			if c.policy == Mark && slices.Contains(c.flagged, i) != (len(s.Flags) > 0) {
				t.Errorf("%+v", s)
			}
		}
	}
}
