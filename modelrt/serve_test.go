package modelrt

import (
	"context"
	"errors"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chatxray/pipeline"
)

// Readings at once on one model give what readings one by one give.
func TestReadConcurrently(t *testing.T) {
	m, g := openTiny(t), tinyValues(t)
	pictures := []*pipeline.Image{g.image(), picture(make([]uint8, 50*40), 50, 40), picture(make([]uint8, 32*32), 32, 32)}
	var want []*pipeline.Reading
	for _, p := range pictures {
		want = append(want, must(m.Read(context.Background(), p)))
	}
	var wait sync.WaitGroup
	for i := range 12 {
		wait.Go(func() {
			got, err := m.Read(context.Background(), pictures[i%len(pictures)])
			if err != nil {
				t.Error(err)
				return
			}
			got.RunSeconds = want[i%len(want)].RunSeconds
			if diff := cmp.Diff(want[i%len(want)], got, nearly); diff != "" {
				t.Errorf("picture %d: %s", i%len(pictures), diff)
			}
		})
	}
	wait.Wait()
}

func TestReadRefuses(t *testing.T) {
	m, g := openTiny(t), tinyValues(t)
	if _, err := m.Read(context.Background(), nil); !errors.Is(err, pipeline.ErrInvalid) {
		t.Errorf("no image: %v", err)
	}
	img := g.image()
	img.Pix8 = img.Pix8[:10]
	if _, err := m.Read(context.Background(), img); !errors.Is(err, pipeline.ErrInvalid) || !strings.HasPrefix(err.Error(), "tiny: ") { // who calls it names the instance
		t.Errorf("a broken image: %v", err)
	}
	m.label = func([]string) []pipeline.Finding { return nil }
	if _, err := m.Read(context.Background(), g.image()); err == nil {
		t.Error("a labeler without labels passed")
	}
	m.label = notSaid
	stop := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(stop)
	if _, err := m.Read(ctx, g.image()); !errors.Is(err, stop) {
		t.Errorf("a context that has ended: %v", err)
	}
	if err := m.eyes.enter(context.Background(), classRoutine); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Read(ctx, g.image()); !errors.Is(err, stop) {
		t.Errorf("waiting for its turn: %v", err)
	}
	m.eyes.leave()
	m.limit = 1
	if _, err := m.Read(context.Background(), g.image()); !errors.Is(err, pipeline.ErrModel) {
		t.Errorf("a report of one token: %v", err)
	}
	m.Close()
	m.Close()
	if _, err := m.Read(context.Background(), g.image()); !errors.Is(err, pipeline.ErrNotFound) {
		t.Errorf("closed: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	r := runtimeFor(t)
	if _, err := Open(context.Background(), r, "testdata/tiny", Options{}); !errors.Is(err, pipeline.ErrInvalid) {
		t.Errorf("no options: %v", err)
	}
	o := tinyOptions(t)
	o.Base = func(context.Context, string) (string, error) { return "", pipeline.ErrMissingPart }
	if _, err := Open(context.Background(), r, "testdata/tiny", o); !errors.Is(err, pipeline.ErrMissingPart) {
		t.Errorf("no base model: %v", err)
	}
	// A graph that keeps the contract at its border but does not run.
	dir := copyBundle(t)
	b := must(os.ReadFile(dir + "/adapter.onnx"))
	put(t, dir, "adapter.onnx", []byte(strings.Replace(string(b), "MatMul", "MatMal", 1)))
	relist(t, dir, nil)
	if _, err := Open(context.Background(), r, dir, tinyOptions(t)); !errors.Is(err, pipeline.ErrInvalid) || !strings.Contains(err.Error(), "adapter.onnx") {
		t.Errorf("a graph that does not load: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	o = tinyOptions(t)
	o.Base = func(context.Context, string) (string, error) { cancel(); return "testdata/tiny.gguf", nil }
	if _, err := Open(ctx, r, "testdata/tiny", o); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A bundle that does not load on CUDA is loaded for the CPU, unless CUDA was demanded.
func TestOpenFallsBack(t *testing.T) {
	r := *runtimeFor(t)
	if cudaReason(CUDA) == "" {
		t.Skip("a GPU is there: nothing falls back")
	}
	r.device, r.asked = CUDA, Auto
	m, err := Open(context.Background(), &r, "testdata/tiny", tinyOptions(t))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if m.Device() != CPU || !strings.Contains(m.Fallback(), "CUDA") {
		t.Errorf("device %s, fallback %q", m.Device(), m.Fallback())
	}
	must(m.Read(context.Background(), tinyValues(t).image()))
	r.asked = CUDA
	if _, err := Open(context.Background(), &r, "testdata/tiny", tinyOptions(t)); err == nil {
		t.Error("CUDA was demanded and the CPU was taken")
	}
}

// Cancelled at any moment, Read returns soon, and the next reading is untouched.
func TestCancelAnywhere(t *testing.T) {
	m, g := openTiny(t), tinyValues(t)
	want := must(m.Read(context.Background(), g.image()))
	began := time.Now()
	must(m.Read(context.Background(), g.image()))
	whole := time.Since(began)
	var late []time.Duration
	for i := range 30 {
		ctx, cancel := context.WithTimeout(context.Background(), whole*time.Duration(i)/30)
		_, err := m.Read(ctx, g.image())
		ended, _ := ctx.Deadline()
		if err != nil {
			late = append(late, time.Since(ended))
		}
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	}
	stopsSoon(t, "a reading", late)
	got := must(m.Read(context.Background(), g.image()))
	got.RunSeconds = want.RunSeconds
	if diff := cmp.Diff(want, got, nearly); diff != "" {
		t.Error(diff)
	}
}

// stopsSoon wants the best quarter of what was cancelled to have ended within 50 ms. The rest may be the machine's, which others use too; who waits for
// the end of a long run is later than that nearly each time.
func stopsSoon(t *testing.T, what string, late []time.Duration) {
	t.Helper()
	if len(late) < 5 { // of what is done sooner than it is cancelled there is nothing to tell
		return
	}
	slices.Sort(late)
	if best := late[len(late)/4]; best > 50*time.Millisecond {
		t.Errorf("%s ends %v after it was cancelled, in the best quarter of %d", what, best, len(late))
	}
}

// The end of a context reaches ONNX Runtime itself: a run under the same options stops, whatever our own checks say.
func TestCallTerminates(t *testing.T) {
	m := openTiny(t)
	ctx, cancel := context.WithCancel(context.Background())
	c := must(begin(ctx))
	defer c.end()
	if err := m.look(c); err != nil {
		t.Fatal(err)
	}
	cancel()
	<-c.released
	c.ctx = context.Background()
	if err := m.look(c); !errors.Is(err, pipeline.ErrModel) || !strings.Contains(err.Error(), "terminate") {
		t.Errorf("the run went on: %v", err)
	}
	c.ctx = ctx
	if err := m.look(c); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// residentBytes is what of this process is in memory.
func residentBytes(t testing.TB) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(b))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

// A thousand readings in one process: memory stays where it is after the first fifty.
func TestMemoryFlat(t *testing.T) {
	m, g := openTiny(t), tinyValues(t)
	readings := 1000
	if testing.Short() {
		readings = 200
	}
	var early int
	for i := range readings {
		// Odd readings are cancelled somewhere: that path must not leak either.
		ctx, cancel := context.Background(), context.CancelFunc(func() {})
		if i%2 == 1 && i > 50 {
			ctx, cancel = context.WithTimeout(ctx, time.Duration(i%10)*time.Millisecond)
		}
		if _, err := m.Read(ctx, g.image()); err != nil && ctx.Err() == nil {
			t.Fatal(err)
		}
		cancel()
		if i == 49 {
			runtime.GC()
			early = residentBytes(t)
		}
	}
	runtime.GC()
	late := residentBytes(t)
	t.Logf("resident after 50 readings %.1f MB, after %d %.1f MB (%+.1f %%)", float64(early)/1e6, readings, float64(late)/1e6, 100*float64(late-early)/float64(early))
	if float64(late) > 1.05*float64(early) {
		t.Errorf("memory grew by more than 5 %%")
	}
}
