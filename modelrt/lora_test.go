package modelrt

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"

	"chatxray/modelrt/kernel"
	"chatxray/pipeline"
)

// adapted opens a bundle with the adapters that testdata/adapters.py made for it.
func adapted(t testing.TB, name, form string) *Model {
	t.Helper()
	o := tinyOptions(t)
	o.Form, o.Texts = form, 3
	o.Adapters = filepath.Join("testdata", "adapters", name)
	dir := filepath.Join("testdata", "families", name)
	if name == "tiny" {
		dir = filepath.Join("testdata", name)
	}
	m, err := Open(context.Background(), runtimeFor(t), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// adaptedGolden is what peft makes of the prompts of a bundle's own golden values, by adapter.
func adaptedGolden(t testing.TB, name string) (values familyGolden, by map[string]familyGolden) {
	t.Helper()
	if name == "tiny" {
		g := tinyValues(t)
		raw := must(json.Marshal(map[string]any{"images": []any{map[string]any{
			"pictures": []any{map[string]any{"rows": 32, "columns": 32, "gray": g.image().Pix8}}, "image_features": g.ImageFeatures}}}))
		if err := json.Unmarshal(raw, &values); err != nil {
			t.Fatal(err)
		}
	} else {
		values = familyValues(t, name)
	}
	f := must(os.Open(filepath.Join("testdata", "adapters", name+".json.gz")))
	defer f.Close()
	var made map[string][]struct {
		FirstLogits []float64 `json:"first_logits"`
		Greedy      []int32   `json:"greedy"`
	}
	if err := json.NewDecoder(must(gzip.NewReader(f))).Decode(&made); err != nil {
		t.Fatal(err)
	}
	by = map[string]familyGolden{}
	for adapter, rows := range made {
		g := familyGolden{Reference: "peft", Images: slices.Clone(values.Images)}
		for i, r := range rows {
			g.Images[i].FirstLogits, g.Images[i].Greedy = r.FirstLogits, r.Greedy
		}
		by[adapter] = g
	}
	return values, by
}

// Adapters against peft, which wrote them: logits within 1e-4 and 64 tokens, alone and all at the same time, with texts of the base model among
// them, in an engine that has fewer slots than there are texts, so that each slot is worn by one after the other.
func TestAdapterParity(t *testing.T) {
	for _, c := range []struct{ bundle, form string }{{"tiny", "q4"}, {"tiny", "fp32"}, {"llama", ""}, {"llava", ""}} {
		t.Run(c.bundle+c.form, func(t *testing.T) {
			m := adapted(t, c.bundle, c.form)
			base, by := adaptedGolden(t, c.bundle)
			if len(by) < 3 {
				t.Fatalf("%d adapters", len(by))
			}
			if c.bundle != "tiny" {
				by[""] = base
			}
			check := func(adapter string, g familyGolden, i int) {
				with := must(m.With(adapter))
				r, err := runFamily(context.Background(), with, g, i)
				if err != nil {
					t.Error(err)
					return
				}
				_, logits, _, tokens := r.apart(g, i)
				if logits > 1e-4 || tokens {
					t.Errorf("adapter %q, image %d: first logits differ by %g, other tokens %v\n%v\n%v", adapter, i, logits, tokens, r.greedy, g.Images[i].Greedy)
				}
			}
			for adapter, g := range by {
				for i := range g.Images {
					check(adapter, g, i)
				}
			}
			var wait sync.WaitGroup
			for range 3 {
				for adapter, g := range by {
					for i := range g.Images {
						wait.Go(func() { check(adapter, g, i) })
					}
				}
			}
			wait.Wait()
		})
	}
}

// A reading with an adapter is the same alone and beside readings with others, evidence and all, and is named after it.
func TestAdapterReadings(t *testing.T) {
	img := tinyValues(t).image()
	names := []string{"", "narrow", "uneven", "wide"}
	read := func(m *Model, name string) (string, *pipeline.Reading) {
		with := must(m.With(name))
		r, err := with.Read(context.Background(), img)
		if errors.Is(err, pipeline.ErrModel) { // random numbers may write no sentence
			a := must(with.write(context.Background(), must(with.see(context.Background(), img, classRoutine)), classRoutine))
			others, _, err := with.scoreOthers(context.Background(), a.tokens)
			if err != nil {
				t.Fatal(err)
			}
			return string(must(json.Marshal([]any{a.tokens, a.logprobs, others}))), nil
		}
		if err != nil {
			t.Error(err)
			return "", nil
		}
		r.RunSeconds = 0
		return string(must(json.Marshal(r))), r
	}
	want := map[string]string{}
	for _, n := range names {
		var r *pipeline.Reading
		if want[n], r = read(adapted(t, "tiny", "q4"), n); r != nil && n == "" && (r.Model.Name != "tiny" || r.Model.Digest != must(OpenBundle("testdata/tiny")).Digest) {
			t.Errorf("%+v", r.Model)
		}
	}
	for i, a := range names {
		for _, b := range names[:i] {
			if want[a] == want[b] {
				t.Errorf("%q and %q read alike", a, b)
			}
		}
	}
	m := adapted(t, "tiny", "q4")
	var wait sync.WaitGroup
	for range 4 {
		for _, n := range names {
			wait.Go(func() {
				if got, _ := read(m, n); got != want[n] {
					t.Errorf("adapter %q beside others:\n%s\nalone:\n%s", n, got, want[n])
				}
			})
		}
	}
	wait.Wait()
}

// The evidence of a text with an adapter is what the same adapter makes of it after the blank image, not what another one does.
func TestAdapterEvidence(t *testing.T) {
	m := adapted(t, "tiny", "q4")
	ctx := context.Background()
	c := must(begin(ctx))
	defer c.end()
	blank := m.usualSight(must(m.blank(c)))
	seen := must(m.see(ctx, tinyValues(t).image(), classRoutine))
	for _, n := range m.Adapters() {
		with := must(m.With(n))
		a := must(with.write(ctx, seen, classRoutine))
		others, _, err := with.scoreOthers(ctx, a.tokens)
		if err != nil {
			t.Fatal(err)
		}
		said, at, worst := must(with.composeFor(ctx, m.task.template, []*sight{blank})), 0, 0.0
		err = m.engine.write(&text{ctx: ctx, adapter: with.worn, prompt: said.embeds, keys: said.keys, places: said.places,
			choose: func(logits []float32) (int32, float64, error) {
				p := kernel.LogProbability(logits, a.tokens[at])
				worst = max(worst, math.Abs(p-others[len(others)-1][at]))
				at++
				return a.tokens[at-1], p, nil
			}, take: func(int32, float64) bool { return at < len(a.tokens) }})
		if err != nil || worst > 1e-4 {
			t.Errorf("adapter %s: log-probabilities after a blank image differ by %g: %v", n, worst, err)
		}
	}
}

// No two adapters pass for the same model.
func TestAdapterRefs(t *testing.T) {
	m := adapted(t, "tiny", "q4")
	seen := map[pipeline.Digest]string{}
	for _, n := range m.Adapters() {
		r := must(m.With(n)).Ref()
		if other, twice := seen[r.Digest]; twice {
			t.Errorf("%q and %q have the same digest", n, other)
		}
		seen[r.Digest] = n
		if want := map[string]string{"report": "tiny"}[n]; r.Name != want && r.Name != "tiny:"+n {
			t.Errorf("adapter %q is called %q", n, r.Name)
		}
	}
	if got := m.Adapters(); !slices.Equal(got, []string{"report", "narrow", "uneven", "wide"}) {
		t.Errorf("%q", got)
	}
	if must(m.With("")).Ref() != must(m.With("report")).Ref() {
		t.Error("the bundle's own adapter has two names")
	}
	if _, err := m.With("broad"); !errors.Is(err, pipeline.ErrNotFound) || !strings.Contains(err.Error(), `"wide"`) {
		t.Errorf("%v", err)
	}
	merged := adapted(t, "tiny", "standard")
	if _, err := merged.With("wide"); !errors.Is(err, pipeline.ErrNotFound) || !strings.Contains(err.Error(), "has its adapter in its weights") {
		t.Errorf("%v", err)
	}
}

// A conversation with one adapter knows nothing of the same one with another.
func TestAdapterPrefixes(t *testing.T) {
	m, g := adapted(t, "llama", ""), familyValues(t, "llama")
	reused := func(adapter string) int {
		with := must(m.With(adapter))
		said := must(with.composeFor(context.Background(), g.Images[0].Prompt, nil))
		x := &text{ctx: context.Background(), adapter: with.worn, prompt: said.embeds, keys: said.keys, places: said.places, choose: greedy,
			take: func(int32, float64) bool { return false }}
		if err := m.engine.write(x); err != nil {
			t.Fatal(err)
		}
		return x.reused
	}
	all := len(must(m.composeFor(context.Background(), g.Images[0].Prompt, nil)).keys) - 1
	for _, c := range []struct {
		adapter string
		want    int
	}{{"wide", 0}, {"wide", all}, {"narrow", 0}, {"", 0}, {"wide", all}, {"narrow", all}} {
		if got := reused(c.adapter); got != c.want {
			t.Errorf("adapter %q reuses %d places, want %d", c.adapter, got, c.want)
		}
	}
}

// More adapters cost what they are, and the prompts of the decoys with them; the base model is in memory once.
func TestBaseAdaptersMemory(t *testing.T) {
	const more = 6
	own := filepath.Join("..", "bundles", "chatxray-base", loraFolder, "report")
	folder := t.TempDir()
	for i := range more {
		if err := os.CopyFS(filepath.Join(folder, string(rune('a'+i))), os.DirFS(own)); err != nil {
			t.Fatal(err)
		}
	}
	size := func(adapters string) (int, *Model) {
		debug.FreeOSMemory()
		before := residentBytes(t)
		m := openBaseWith(t, func(o *Options) { o.Form, o.Adapters = "q4", adapters })
		debug.FreeOSMemory()
		return residentBytes(t) - before, m
	}
	_, first := size("") // what the process takes once
	first.Close()
	one, m := size("")
	m.Close()
	many, m := size(folder)
	if n := len(m.Adapters()); n != more+1 {
		t.Fatalf("%d adapters", n)
	}
	each := (many - one) / more
	file := must(os.Stat(filepath.Join(own, loraTensors))).Size()
	t.Logf("%d MB with one adapter, %d MB with %d: %.1f MB each; its file has %.1f MB, the base model %d MB",
		one>>20, many>>20, more+1, float64(each)/1e6, float64(file)/1e6, m.form.WeightsBytes>>20)
	if int64(each) > m.form.WeightsBytes/2 { // a base model of its own would take all of it; what is resident is not exact
		t.Errorf("an adapter takes %d MB", each>>20)
	}
}
