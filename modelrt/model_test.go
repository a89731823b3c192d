package modelrt

import (
	"context"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chatxray/pipeline"
)

// nearly compares readings whose runs took other tokens along: the order of sums may differ in the last bits.
var nearly = cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) < 1e-5 })

// far is the largest difference of two rows of numbers.
func far[A, B float32 | float64](t *testing.T, a []A, b []B) float64 {
	t.Helper()
	if len(a) != len(b) {
		t.Fatalf("%d values, want %d", len(a), len(b))
	}
	worst := 0.0
	for i := range a {
		worst = math.Max(worst, math.Abs(float64(a[i])-float64(b[i])))
	}
	return worst
}

// The tiny model against PyTorch and transformers, layer by layer of the bundle.
func TestReadParity(t *testing.T) {
	eachForm(t, readParity)
}

// eachForm runs a test over every form of float32 of the tiny bundle's language model.
func eachForm(t *testing.T, test func(t *testing.T, m *Model)) {
	for _, form := range tinyBundle(t).Manifest.Base.Forms {
		if form.halved() {
			continue
		}
		t.Run(form.Name, func(t *testing.T) { test(t, openTinyForm(t, form.Name)) })
	}
}

func readParity(t *testing.T, m *Model) {
	g := tinyValues(t)
	before, after := around(m.prompt.template)
	if diff := cmp.Diff(g.Before, before); diff != "" {
		t.Errorf("tokens before the image: %s", diff)
	}
	if diff := cmp.Diff(g.After, after); diff != "" {
		t.Errorf("tokens after the image: %s", diff)
	}
	seen := must(m.see(context.Background(), g.image(), classRoutine))
	logits := firstLogits(t, m, seen.image)
	for _, p := range []struct {
		name      string
		got       []float32
		want      []float64
		tolerance float64
	}{
		{"image_features", m.features.GetData(), g.ImageFeatures, 1e-4},
		{"findings_logits", seen.scores, g.FindingsLogits, 1e-3},
		{"image_embeds", seen.image, g.ImageEmbeds, 1e-4},
		{"first logits", logits, g.FirstLogits, 1e-3},
	} {
		worst := far(t, p.got, p.want)
		t.Logf("%s: largest difference %.2g", p.name, worst)
		if !(worst <= p.tolerance) {
			t.Errorf("%s differs by %g", p.name, worst)
		}
	}
	a := must(m.write(context.Background(), seen, classRoutine))
	if diff := cmp.Diff(g.Greedy, a.tokens); diff != "" {
		t.Errorf("greedy tokens: %s", diff)
	}
	if string(a.text) != g.Text || a.truncated {
		t.Errorf("text %q (truncated %v), want %q", a.text, a.truncated, g.Text)
	}
	rows := rows(t, m, a)
	if len(rows) != len(g.Logprobs) {
		t.Fatalf("%d rows, want %d", len(rows), len(g.Logprobs))
	}
	for r := range rows {
		worst := far(t, rows[r], g.Logprobs[r])
		t.Logf("log-probabilities of row %d: largest difference %.2g", r, worst)
		if !(worst <= 2e-3) {
			t.Errorf("log-probabilities of row %d differ by %g", r, worst)
		}
	}
}

func TestRead(t *testing.T) { eachForm(t, readTiny) }

func readTiny(t *testing.T, m *Model) {
	g := tinyValues(t)
	var labelled []string
	m.label = func(s []string) []pipeline.Finding {
		labelled = s
		found := notSaid(s)
		found[0] = pipeline.Finding{Label: "No Finding", Presence: pipeline.Absent}
		found[2] = pipeline.Finding{Label: "Cardiomegaly", Presence: pipeline.Absent, Sentences: []int{0}}
		found[9] = pipeline.Finding{Label: "Pneumothorax", Presence: pipeline.Absent, Sentences: []int{1}} // not taught
		found[10] = pipeline.Finding{Label: "Pleural Effusion", Presence: pipeline.Present, Sentences: []int{2}}
		return found
	}
	got, err := m.Read(context.Background(), g.image())
	if err != nil {
		t.Fatal(err)
	}
	type line struct {
		Text    string
		Section pipeline.Section
	}
	var lines []line
	for _, s := range got.Sentences {
		lines = append(lines, line{s.Text, s.Section})
		sum := func(row int) (v float64) {
			for _, p := range g.Logprobs[row][s.FirstToken : s.FirstToken+s.Tokens] {
				v += p
			}
			return v
		}
		e := s.Evidence
		for i, pair := range [][2]float64{{e.LogLikelihood, sum(0)}, {e.Decoys[0], sum(1)}, {e.Decoys[1], sum(2)}, {e.Blank, sum(3)}, {e.Drop, sum(0) - (sum(1)+sum(2))/2}} {
			if !(math.Abs(pair[0]-pair[1]) < 2e-4) {
				t.Errorf("%q: figure %d of its evidence is %g, want %g", s.Text, i, pair[0], pair[1])
			}
		}
		text := m.prompt.tokenizer.Decode(got.Tokens[s.FirstToken : s.FirstToken+s.Tokens])
		t.Logf("%q: tokens %q, evidence %+v", s.Text, text, e)
	}
	want := []line{
		{"The heart is enlarged.", pipeline.SectionFindings},
		{"The lungs are clear.", pipeline.SectionFindings},
		{"There is a small pleural effusion.", pipeline.SectionFindings},
		{"Cardiomegaly and pleural effusion.", pipeline.SectionImpression},
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
	if len(labelled) != 4 || labelled[0] != want[0].Text {
		t.Errorf("the labeler was given %q", labelled)
	}
	if e := got.Sentences[0].Evidence; e.Drop < 1 {
		t.Errorf("the enlarged heart is no likelier with this picture than with the decoys: %+v", e)
	}
	if f := got.Findings[2]; f.Score == nil || *f.Score < 0.9 || !f.Conflict {
		t.Errorf("Cardiomegaly: %+v", f)
	}
	if f := got.Findings[9]; f.Presence != pipeline.NotSaid || f.Sentences != nil || f.Score != nil {
		t.Errorf("Pneumothorax, which the bundle was not taught: %+v", f)
	}
	if f := got.Findings[10]; f.Presence != pipeline.Present || *f.Score < 0.9 || f.Conflict {
		t.Errorf("Pleural Effusion: %+v", f)
	}
	if got.StudyInstanceUID != "2.25.1" || got.Language != "en" || !got.Created.Equal(fixed()) || got.RunSeconds <= 0 || got.Truncated {
		t.Errorf("%+v", got)
	}
	if in := got.Inputs[0]; in.SOPInstanceUID != "2.25.3" || in.Modality != "DX" || in.ViewPosition != "PA" || in.Frame != 0 {
		t.Errorf("%+v", in)
	}
	if got.Model.Name != "tiny" || got.Model.Version != "1" || got.Model.Digest != m.bundle.Digest {
		t.Errorf("%+v", got.Model)
	}
	again, err := m.Read(context.Background(), g.image())
	if err != nil {
		t.Fatal(err)
	}
	again.RunSeconds = got.RunSeconds
	if diff := cmp.Diff(got, again, nearly); diff != "" {
		t.Errorf("the second reading differs: %s", diff)
	}
}
