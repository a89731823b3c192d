package modelrt

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"chatxray/pipeline"
)

// familyGolden is testdata/families/NAME.json.gz: what a reference that somebody else wrote makes of pictures (train/families).
type familyGolden struct {
	Reference string `json:"reference"`
	Images    []struct {
		Pictures []struct {
			Rows    int    `json:"rows"`
			Columns int    `json:"columns"`
			Gray    []byte `json:"gray"`
		} `json:"pictures"`
		Prompt        string    `json:"prompt"` // empty for the bundle's own
		ImageFeatures []float64 `json:"image_features"`
		IDs           []int32   `json:"ids"`
		FirstLogits   []float64 `json:"first_logits"`
		Greedy        []int32   `json:"greedy"`
	} `json:"images"`
}

func familyValues(t testing.TB, name string) (g familyGolden) {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", "families", name+".json.gz"))
	if err != nil {
		t.Fatalf("the family %s has no golden values: %v", name, err)
	}
	defer f.Close()
	if err := json.NewDecoder(must(gzip.NewReader(f))).Decode(&g); err != nil {
		t.Fatal(err)
	}
	if len(g.Images) < 2 || g.Reference == "" {
		t.Fatalf("the golden values of %s are of %d images", name, len(g.Images))
	}
	return g
}

func openFamily(t testing.TB, name string) *Model {
	t.Helper()
	o := tinyOptions(t)
	o.Base = func(context.Context, string) (string, error) {
		return "", errors.New("a bundle of its own asked for a base model")
	}
	m, err := Open(context.Background(), runtimeFor(t), filepath.Join("testdata", "families", name), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// familyRun is what we make of what a golden image holds.
type familyRun struct {
	features, logits []float32
	ids, greedy      []int32
	margins          []float32 // between the best logit and the next, token by token
}

const familyTokens = 64

// runFamily reads golden image i; the tokens come through the engine.
func runFamily(ctx context.Context, m *Model, g familyGolden, i int) (*familyRun, error) {
	r, e := &familyRun{}, g.Images[i]
	var seen []*sight
	for _, p := range e.Pictures {
		s, err := m.see(ctx, picture(p.Gray, p.Rows, p.Columns), classRoutine)
		if err != nil {
			return nil, err
		}
		if seen = append(seen, s); s.features != nil {
			r.features = append(r.features, s.features...)
		} else {
			if err := m.eyes.enter(ctx, classRoutine); err != nil {
				return nil, err
			}
			r.features = append(r.features, m.features.GetData()...)
			m.eyes.leave()
		}
	}
	said, err := m.composeFor(ctx, or(e.Prompt, m.prompt.report), seen)
	if err != nil {
		return nil, err
	}
	r.ids = said.places.ids
	t := &text{ctx: ctx, adapter: m.worn, prompt: said.embeds, keys: said.keys, places: said.places, choose: func(logits []float32) (int32, float64, error) {
		if r.logits == nil {
			r.logits = slices.Clone(logits)
		}
		best, next := float32(math.Inf(-1)), float32(math.Inf(-1))
		for _, v := range logits {
			if v > best {
				best, next = v, best
			} else {
				next = max(next, v)
			}
		}
		r.margins = append(r.margins, best-next)
		return greedy(logits)
	}, take: func(id int32, _ float64) bool {
		r.greedy = append(r.greedy, id)
		return len(r.greedy) < familyTokens
	}}
	return r, m.engine.write(t)
}

// apart says what differs from the golden values, and by how much.
func (r *familyRun) apart(g familyGolden, i int) (features, logits float64, ids, tokens bool) {
	e := g.Images[i]
	worst := func(a []float32, b []float64) (w float64) {
		if len(a) != len(b) {
			return math.Inf(1)
		}
		for i := range a {
			w = math.Max(w, math.Abs(float64(a[i])-b[i]))
		}
		return w
	}
	return worst(r.features, e.ImageFeatures), worst(r.logits, e.FirstLogits), !slices.Equal(r.ids, e.IDs), !slices.Equal(r.greedy, e.Greedy)
}

// TestParity runs every tiny bundle. A family without one fails.
func TestParity(t *testing.T) {
	untried := maps.Clone(families)
	for _, path := range must(filepath.Glob("testdata/families/*/manifest.json")) {
		name := filepath.Base(filepath.Dir(path))
		delete(untried, must(OpenBundle(filepath.Dir(path))).Manifest.Family)
		t.Run(name, func(t *testing.T) {
			m, g := openFamily(t, name), familyValues(t, name)
			for i := range g.Images {
				r, err := runFamily(context.Background(), m, g, i)
				if err != nil {
					t.Fatal(err)
				}
				features, logits, ids, tokens := r.apart(g, i)
				t.Logf("image %d against %s: features differ by %.1e, first logits by %.1e", i, g.Reference, features, logits)
				if features > 1e-4 || logits > 1e-4 || ids || tokens {
					t.Errorf("image %d: features %g, logits %g, other ids %v, other tokens %v\n%v\n%v\n%v\n%v",
						i, features, logits, ids, tokens, r.ids, g.Images[i].IDs, r.greedy, g.Images[i].Greedy)
				}
			}
			t.Run("together", func(t *testing.T) { familyTogether(t, m, g) })
			t.Run("again", func(t *testing.T) { familyAgain(t, m, g) })
			t.Run("beginning", func(t *testing.T) { familyBeginning(t, m, g, name) })
			t.Run("long", func(t *testing.T) { familyLong(t, m, g, name) })
			t.Run("reading", func(t *testing.T) { familyReads(t, m, g) })
			t.Run("mutations", func(t *testing.T) { familyMutations(t, m, g) })
			t.Run("cancelled", func(t *testing.T) { familyCancelled(t, m, g) })
			t.Run("memory", func(t *testing.T) { familyMemory(t, m, g) })
		})
	}
	for name := range untried {
		t.Errorf("the family %s has no bundle in testdata/families", name)
	}
}

// Texts written at the same time are what each is alone.
func familyTogether(t *testing.T, m *Model, g familyGolden) {
	var wait sync.WaitGroup
	for n := range 6 {
		i := n % len(g.Images)
		wait.Go(func() {
			r, err := runFamily(context.Background(), m, g, i)
			if err != nil {
				t.Error(err)
				return
			}
			if _, logits, _, tokens := r.apart(g, i); logits > 1e-4 || tokens {
				t.Errorf("text %d: logits differ by %g, other tokens %v", n, logits, tokens)
			}
		})
	}
	wait.Wait()
}

// The same prompt again finds its beginning in the cache, and says the same.
func familyAgain(t *testing.T, m *Model, g familyGolden) {
	for range 2 {
		for i := range g.Images {
			r, err := runFamily(context.Background(), m, g, i)
			if err != nil {
				t.Fatal(err)
			}
			if _, logits, _, tokens := r.apart(g, i); logits > 1e-4 || tokens {
				t.Errorf("image %d: logits differ by %g, other tokens %v", i, logits, tokens)
			}
		}
	}
}

// A prompt that begins like the one before it, and goes on otherwise, takes from the cache only what is the same there.
func familyBeginning(t *testing.T, m *Model, g familyGolden, name string) {
	other := g
	other.Images = slices.Clone(g.Images)
	e := &other.Images[0]
	e.Prompt = strings.Replace(or(e.Prompt, m.prompt.report), ".", " now.", 1)
	want := must(runFamily(context.Background(), openFamily(t, name), other, 0))
	must(runFamily(context.Background(), m, g, 0))
	got := must(runFamily(context.Background(), m, other, 0))
	if !got.same(want) || slices.Equal(got.greedy, g.Images[0].Greedy) {
		t.Errorf("%v by itself, %v after a prompt that begins like it", want.greedy, got.greedy)
	}
}

// same says whether two runs wrote the same, to where rounding decided: two tokens about as good as each other. Golden values have no such place.
func (r *familyRun) same(o *familyRun) bool {
	n := 0
	for n < len(r.greedy) && n < len(o.greedy) && r.greedy[n] == o.greedy[n] {
		n++
	}
	return n == len(r.greedy) && n == len(o.greedy) || n < len(r.greedy) && n < len(o.greedy) && r.margins[n] < 1e-4 && o.margins[n] < 1e-4
}

// Long prompts that are fed in pieces beside texts that are being written are what they are alone: pieces part no places that see each other.
// They begin differently, so that no cache has them.
func familyLong(t *testing.T, m *Model, g familyGolden, name string) {
	const prompts = 5
	var long []familyGolden
	for n := range prompts {
		other := g
		other.Images = slices.Clone(g.Images)
		for i := range other.Images {
			e := &other.Images[i]
			e.Prompt = strconv.Itoa(n) + strings.Repeat(" lungs, heart", 4+n) + or(e.Prompt, m.prompt.report)
		}
		long = append(long, other)
	}
	alone := openFamily(t, name)
	last := len(g.Images) - 1
	var wait sync.WaitGroup
	for _, other := range long {
		want, err := runFamily(context.Background(), alone, other, last)
		if err != nil {
			t.Fatal(err)
		}
		wait.Go(func() {
			for range 3 {
				got, err := runFamily(context.Background(), m, other, last)
				if err != nil {
					t.Error(err)
				} else if !got.same(want) {
					t.Errorf("%d tokens of prompt: %v alone, %v beside others, margins %v", len(want.ids), want.greedy, got.greedy, got.margins)
				}
			}
		})
	}
	wait.Wait()
}

// A reading is whole: sentences have evidence, under each decoy and the blank image.
func familyReads(t *testing.T, m *Model, g familyGolden) {
	img := picture(make([]uint8, 40*30), 40, 30)
	if m.bundle.Manifest.sighted() {
		p := g.Images[0].Pictures[0]
		img = picture(p.Gray, p.Rows, p.Columns)
	}
	r, err := m.Read(context.Background(), img)
	if !m.bundle.Manifest.sighted() {
		if !errors.Is(err, pipeline.ErrUnsupported) {
			t.Errorf("a model of text read an image: %v", err)
		}
		return
	}
	if errors.Is(err, pipeline.ErrModel) { // random weights write no sentence
		a, err := m.write(context.Background(), must(m.see(context.Background(), img, classRoutine)), classRoutine)
		if err != nil {
			t.Fatal(err)
		}
		others, _, err := m.scoreOthers(context.Background(), a.tokens)
		if err != nil || len(others) != m.engine.held {
			t.Fatalf("%d rows of evidence: %v", len(others), err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range r.Sentences {
		if len(s.Evidence.Decoys) != m.engine.held-1 {
			t.Errorf("a sentence with %d decoys", len(s.Evidence.Decoys))
		}
	}
}

// Cancelled at any moment, a text ends soon, and the next one is untouched.
func familyCancelled(t *testing.T, m *Model, g familyGolden) {
	began := time.Now()
	must(runFamily(context.Background(), m, g, 0))
	whole := time.Since(began)
	var late []time.Duration
	for i := range 20 {
		wait := whole * time.Duration(i) / 20
		ctx, cancel := context.WithCancel(context.Background())
		at := time.Now().Add(wait)
		time.AfterFunc(wait, cancel)
		_, err := runFamily(ctx, m, g, i%len(g.Images))
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if err != nil {
			late = append(late, time.Since(at))
		}
		cancel()
	}
	stopsSoon(t, "a text", late)
	r := must(runFamily(context.Background(), m, g, 0))
	if _, logits, _, tokens := r.apart(g, 0); logits > 1e-4 || tokens {
		t.Errorf("after cancelling: logits differ by %g, other tokens %v", logits, tokens)
	}
}

// Memory stays where it is over many texts.
func familyMemory(t *testing.T, m *Model, g familyGolden) {
	runs := 1000
	if testing.Short() {
		runs = 60
	}
	settled, early := runs/10, 0
	for i := range runs {
		must(runFamily(context.Background(), m, g, i%len(g.Images)))
		if i == settled {
			runtime.GC()
			early = residentBytes(t)
		}
	}
	runtime.GC()
	late := residentBytes(t)
	t.Logf("resident after %d texts %.1f MB, after %d %.1f MB", settled, float64(early)/1e6, runs, float64(late)/1e6)
	if float64(late) > 1.05*float64(early)+2e6 {
		t.Errorf("memory grew from %d to %d bytes", early, late)
	}
}
