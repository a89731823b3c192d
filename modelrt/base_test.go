package modelrt

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"chatxray/parts"
	"chatxray/pipeline"
)

// openBase opens the bundle that the product ships, or the one in CHATXRAY_BUNDLE. Its weights stay in the user's cache, since
// making them takes seconds and half a gigabyte.
func openBase(t testing.TB) *Model {
	t.Helper()
	return openBaseForm(t, "", false)
}

func openBaseForm(t testing.TB, form string, spin bool) *Model {
	t.Helper()
	return openBaseWith(t, func(o *Options) { o.Form, o.Spin = form, spin })
}

func openBaseWith(t testing.TB, set func(*Options)) *Model {
	t.Helper()
	r := runtimeFor(t)
	dir := os.Getenv("CHATXRAY_BUNDLE")
	if dir == "" {
		dir = filepath.Join("..", "bundles", "chatxray-base")
	}
	if _, err := os.Stat(filepath.Join(dir, manifestName)); err != nil {
		t.Skip("the default bundle is absent: bundles/chatxray-base")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	o := tinyOptions(t)
	o.Threads, o.Texts = 0, 8
	set(&o)
	o.Cache = filepath.Join(cache, "chatxray", "weights")
	o.Base = func(_ context.Context, part string) (string, error) {
		if p := os.Getenv("CHATXRAY_BASE"); p != "" {
			return p, nil
		}
		p, err := parts.Path(part)
		if err != nil {
			t.Skipf("the base model is absent: run `make parts` (%v)", err)
		}
		return p, nil
	}
	m, err := Open(context.Background(), r, dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// shades is a picture of nothing, which an encoder still makes something of. testdata/reference.py draws the same.
func shades(side int) *pipeline.Image {
	gray := make([]uint8, side*side)
	for i := range gray {
		x, y := i%side-side/2, i/side-side/2
		gray[i] = uint8(max(0, 230-(x*x+y*y)/200+i%7))
	}
	return picture(gray, side, side)
}

// The whole bundle against transformers reading the base model by itself: testdata/base.json, made by testdata/reference.py.
func TestBaseParity(t *testing.T) {
	for _, form := range must(OpenBundle(filepath.Join("..", "bundles", "chatxray-base"))).Manifest.Base.Forms {
		if form.Precision != precisionBFloat16 { // which ONNX Runtime's CPU does not run
			t.Run(form.Name, func(t *testing.T) { baseParity(t, openBaseForm(t, form.Name, false)) })
		}
	}
}

func baseParity(t *testing.T, m *Model) {
	b, err := os.ReadFile(cmp.Or(os.Getenv("CHATXRAY_REFERENCE"), "testdata/base.json"))
	if err != nil {
		t.Fatal(err)
	}
	var want struct {
		Manifest  pipeline.Digest `json:"manifest_sha256"`
		Before    []int32         `json:"before"`
		After     []int32         `json:"after"`
		TopLogits [][2]float64    `json:"top_logits"`
		Greedy    []int32         `json:"greedy"`
		Logprobs  [][]float64     `json:"logprobs"`
	}
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	if want.Manifest != m.bundle.Digest {
		t.Fatalf("testdata/base.json is of the bundle with the digest %s, this one has %s: run testdata/reference.py", want.Manifest, m.bundle.Digest)
	}
	if before, after := around(m.prompt.template); !slices.Equal(before, want.Before) || !slices.Equal(after, want.After) {
		t.Errorf("prompt %v, %v; want %v, %v", before, after, want.Before, want.After)
	}
	seen := must(m.see(context.Background(), shades(m.bundle.Manifest.Preprocess.Width), classRoutine))
	logits := firstLogits(t, m, seen.image)
	worst := 0.0
	for _, l := range want.TopLogits {
		worst = max(worst, math.Abs(float64(logits[int(l[0])])-l[1]))
	}
	t.Logf("first logits: largest difference %.2g", worst)
	coarse := 1.0
	if m.form.halved() {
		coarse = 100 // logits of 16 bits have steps of 0.016 from 16 on
	}
	if !(worst < 1e-3*coarse) {
		t.Errorf("first logits differ by %g", worst)
	}
	m.limit = len(want.Greedy)
	a := must(m.write(context.Background(), seen, classRoutine))
	// A report that ended sooner is compared as far as it goes; the token that ended it is not part of the answer.
	if n := len(a.tokens); !slices.Equal(a.tokens, want.Greedy[:n]) || n < len(want.Greedy) && !m.prompt.stops[want.Greedy[n]] {
		t.Errorf("greedy tokens %v, want %v", a.tokens, want.Greedy)
	}
	n := len(a.tokens) // what follows the end of the report is not compared
	rows := rows(t, m, a)
	for i := range want.Logprobs {
		want.Logprobs[i] = want.Logprobs[i][:n]
	}
	if len(rows) != len(want.Logprobs) {
		t.Fatalf("%d rows, want %d", len(rows), len(want.Logprobs))
	}
	worst = 0
	for r := range rows {
		worst = max(worst, far(t, rows[r], want.Logprobs[r]))
	}
	t.Logf("log-probabilities of %d rows: largest difference %.2g", len(rows), worst)
	if !(worst < 5e-3*coarse) {
		t.Errorf("log-probabilities differ by %g", worst)
	}
}

func TestBaseReads(t *testing.T) {
	m := openBase(t)
	began := time.Now()
	got, err := m.Read(context.Background(), shades(400))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d tokens, %.2f s of which %.2f s in ONNX Runtime", len(got.Tokens), time.Since(began).Seconds(), got.RunSeconds)
	for _, s := range got.Sentences {
		t.Logf("%-10s %+6.2f %q", s.Section, s.Evidence.Drop, s.Text)
		if e := s.Evidence; e.LogLikelihood > 0 || e.Blank > 0 || len(e.Decoys) == 0 || s.Tokens < 1 {
			t.Errorf("%+v", s)
		}
	}
}

// Where the runs are long (a whole image, hundreds of tokens), a quarter of what is cancelled, and more on a quiet machine, has ended within 50 ms.
func TestBaseCancel(t *testing.T) {
	m := openBase(t)
	m.limit = min(m.limit, 40)
	ids := m.prompt.tokenizer.Encode("The lungs are clear. There is no pleural effusion. The heart is of normal size. No rib is broken. Impression: no finding.")
	seen := must(m.see(context.Background(), shades(400), classRoutine))
	stages := []struct {
		name string
		run  func(ctx context.Context) error
	}{
		{"vision", func(ctx context.Context) error { _, err := m.see(ctx, shades(400), classRoutine); return err }},
		{"prefill", func(ctx context.Context) error { // a long prompt, and another each time
			keys := make([]uint64, 400)
			keys[0] = uint64(time.Now().UnixNano())
			return m.engine.write(&text{ctx: ctx, keys: keys, prompt: make([]float32, len(keys)*m.bundle.Manifest.Decoder.Hidden), choose: greedy,
				take: func(int32, float64) bool { return false }})
		}},
		{"decode", func(ctx context.Context) error { _, err := m.write(ctx, seen, classRoutine); return err }},
		{"evidence", func(ctx context.Context) error { _, _, err := m.scoreOthers(ctx, ids); return err }},
	}
	for _, s := range stages {
		run := func(ctx context.Context) (time.Duration, error) {
			began := time.Now()
			err := s.run(ctx)
			return time.Since(began), err
		}
		whole, err := run(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		const cancels = 11
		var late []time.Duration
		for i := range cancels {
			ctx, cancel := context.WithCancel(context.Background())
			at := make(chan time.Time, 1)
			timer := time.AfterFunc(whole*time.Duration(i+1)/(cancels+2), func() { at <- time.Now(); cancel() })
			_, err := run(ctx)
			ended := time.Now()
			timer.Stop()
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			if err != nil {
				late = append(late, ended.Sub(<-at))
			}
			cancel()
		}
		stopsSoon(t, s.name, late)
		if len(late) == 0 {
			continue
		}
		slices.Sort(late)
		median := late[len(late)/2]
		t.Logf("%-8s %6.0f ms whole; cancelled %d times, stopped within %.1f to %.1f ms, half within %.1f", s.name, whole.Seconds()*1e3, len(late), late[0].Seconds()*1e3, late[len(late)-1].Seconds()*1e3, median.Seconds()*1e3)
	}
}
