package modelrt

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"chatxray/parts"
)

// openBase opens the bundle that the product ships, or the one in CHATXRAY_BUNDLE. Its weights stay in the user's cache, since
// making them takes seconds and half a gigabyte.
func openBase(t testing.TB) *Model {
	t.Helper()
	return openBaseSpinning(t, false)
}

func openBaseSpinning(t testing.TB, spin bool) *Model {
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
	o.Threads, o.Spin = 0, spin
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

// shades is a picture of nothing, which an encoder still makes something of.
func shades() []uint8 {
	gray := make([]uint8, 400*400)
	for i := range gray {
		x, y := i%400-200, i/400-200
		gray[i] = uint8(max(0, 230-(x*x+y*y)/200+i%7))
	}
	return gray
}

func TestBaseReads(t *testing.T) {
	m := openBase(t)
	began := time.Now()
	got, err := m.Read(context.Background(), picture(shades(), 400, 400))
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

// The bar is 50 ms on an idle machine; the test allows five times that, since it shares its machine.
func TestBaseCancel(t *testing.T) {
	m := openBase(t)
	if err := m.pre.Into(m.pixels.GetData(), picture(shades(), 400, 400)); err != nil {
		t.Fatal(err)
	}
	ids := m.prompt.tokenizer.Encode("The lungs are clear. There is no pleural effusion. The heart is of normal size. No rib is broken. Impression: no finding.")
	stages := []struct {
		name string
		run  func(c *call) error
	}{
		{"vision", func(c *call) error { return m.look(c) }},
		{"prefill", func(c *call) error { _, err := m.ask(c, 0); return err }},
		{"decode", func(c *call) error {
			logits, err := m.ask(c, 0)
			if err == nil {
				_, err = m.write(c, logits)
			}
			return err
		}},
		{"evidence", func(c *call) error {
			_, err := m.decoder.scores(c, ids[0], m.prompt.length(), ids)
			return err
		}},
	}
	for _, s := range stages {
		run := func(ctx context.Context) (time.Duration, error) {
			c, err := begin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer c.end()
			began := time.Now()
			err = s.run(c)
			return time.Since(began), err
		}
		whole, err := run(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		best, worst, stopped := time.Hour, time.Duration(0), 0
		for i := range 6 {
			ctx, cancel := context.WithCancel(context.Background())
			at := make(chan time.Time, 1)
			timer := time.AfterFunc(whole*time.Duration(i+1)/8, func() { at <- time.Now(); cancel() })
			_, err := run(ctx)
			ended := time.Now()
			timer.Stop()
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			if err != nil {
				late := ended.Sub(<-at)
				best, worst, stopped = min(best, late), max(worst, late), stopped+1
			}
			cancel()
		}
		t.Logf("%-8s %6.0f ms whole; cancelled %d times, stopped within %.0f to %.0f ms", s.name, whole.Seconds()*1e3, stopped, best.Seconds()*1e3, worst.Seconds()*1e3)
		if stopped > 0 && best > 250*time.Millisecond {
			t.Errorf("%s stops %v after it was told to", s.name, best)
		}
		if stopped == 6 && best > whole/4 {
			t.Errorf("%s takes %v and stops no sooner than %v after it was told to", s.name, whole, best)
		}
	}
}
