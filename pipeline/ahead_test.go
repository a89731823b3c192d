package pipeline

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// watched is a line with a quiet time of 4 s and one reader that notes when it loads a study and decodes an image, in seconds from
// its start.
type watched struct {
	*bench
	mu    sync.Mutex
	start time.Time
	did   []string
	slow  time.Duration // what decoding takes
}

func (w *watched) note(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.did = append(w.did, fmt.Sprintf("%s %g", what, time.Since(w.start).Seconds()))
}

// done returns what was noted until now and forgets it.
func (w *watched) done() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := strings.Join(w.did, ", ")
	w.did = nil
	return s
}

// noting is an archive that tells when a study is loaded.
type noting struct {
	*memory
	load func(uid string)
}

func (n noting) Study(ctx context.Context, uid string) (*Study, error) {
	n.load(uid)
	return n.memory.Study(ctx, uid)
}

// watch runs a test with such a line, under a clock that stands still while anybody works.
func watch(t *testing.T, test func(t *testing.T, w *watched)) { watchQuiet(t, 4*time.Second, test) }

func watchQuiet(t *testing.T, quiet time.Duration, test func(t *testing.T, w *watched)) {
	synctest.Test(t, func(t *testing.T) {
		archive := newMemory()
		w := &watched{bench: newLine(t, archive), start: time.Now()}
		w.Config.Quiet, w.Config.Readers = quiet, 1
		w.Archive = noting{archive, func(uid string) { w.note("load " + uid) }}
		decode := w.Steps.Decode
		w.Steps.Decode = func(ctx context.Context, c Chosen) (*Image, error) {
			w.note("decode " + c.Instance.SOPInstanceUID)
			time.Sleep(w.slow)
			return decode(ctx, c)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { _ = w.Run(ctx, ctx) }()
		synctest.Wait()
		test(t, w)
		cancel()
		synctest.Wait()
	})
}

func (w *watched) arrive(study, instance string) {
	w.archive.store(study, instance)
	w.Stored(study)
}

// after lets time pass and compares what was done meanwhile.
func (w *watched) after(t *testing.T, d time.Duration, want string) {
	t.Helper()
	time.Sleep(d)
	synctest.Wait()
	if got := w.done(); got != want {
		t.Errorf("after %v: %s; want %s", time.Since(w.start), got, want)
	}
}

func (w *watched) state(t *testing.T, study string, want State) {
	t.Helper()
	if s, err := w.Status(t.Context(), study); err != nil || s.State != want && !(want == StateReported && s.State == StateDelivered) {
		t.Errorf("study %s is %q (%v), not %q", study, s.State, err, want)
	}
}

func TestLineLooksAhead(t *testing.T) {
	watch(t, func(t *testing.T, w *watched) {
		w.arrive("1.2", "frontal")
		w.after(t, 1900*time.Millisecond, "")
		w.after(t, 200*time.Millisecond, "load 1.2 2, decode frontal 2")
		if n := w.model.count(); n != 0 {
			t.Error("the model read before the study was complete")
		}
		w.after(t, 1900*time.Millisecond, "") // nothing is done twice
		w.state(t, "1.2", StateReported)
	})
}

func TestLookAheadIsVoidWhenMoreComes(t *testing.T) {
	watch(t, func(t *testing.T, w *watched) {
		w.arrive("1.2", "frontal1")
		w.after(t, 3*time.Second, "load 1.2 2, decode frontal1 2")
		w.arrive("1.2", "lateral")
		w.after(t, 3*time.Second, "load 1.2 5, decode frontal1 5")
		w.slow = 500 * time.Millisecond
		w.arrive("1.2", "frontal2") // at 6
		w.after(t, 2200*time.Millisecond, "load 1.2 8, decode frontal1 8")
		w.arrive("1.2", "frontal3") // while it decodes
		w.after(t, 4*time.Second, "load 1.2 10.2, decode frontal1 10.2")
		w.state(t, "1.2", StateReported)
		s, _ := w.Status(t.Context(), "1.2")
		if len(s.Record.Refused) != 3 {
			t.Errorf("%d images are told as not read, want 3: what came last is not known", len(s.Record.Refused))
		}
	})
}

// What another process has stored makes void what was done here, though nobody tells this one.
func TestLookAheadIsVoidWhenMoreComesElsewhere(t *testing.T) {
	watch(t, func(t *testing.T, w *watched) {
		w.arrive("1.2", "frontal1")
		w.after(t, 3*time.Second, "load 1.2 2, decode frontal1 2")
		w.archive.store("1.2", "frontal2")
		w.after(t, 2*time.Second, "load 1.2 4, decode frontal1 4")
		if s, _ := w.Status(t.Context(), "1.2"); s.Record == nil || len(s.Record.Refused) != 1 {
			t.Errorf("the image that came elsewhere is not known: %+v", s.Record)
		}
	})
}

// A reader waits for what is under way, and does not begin it a second time.
func TestLookAheadUnderWay(t *testing.T) {
	watch(t, func(t *testing.T, w *watched) {
		w.slow = 3 * time.Second
		w.arrive("1.2", "frontal")
		w.after(t, 4500*time.Millisecond, "load 1.2 2, decode frontal 2")
		w.state(t, "1.2", StateReading)
		w.after(t, 600*time.Millisecond, "")
		w.state(t, "1.2", StateReported)
	})
}

// A study that was ordered as urgent is read before those that have waited longer.
func TestUrgentStudies(t *testing.T) {
	for _, within := range []bool{false, true} { // its request
		watch(t, func(t *testing.T, w *watched) {
			w.model.block = make(chan struct{})
			for i := range 4 {
				study := fmt.Sprintf("1.%d", i)
				w.archive.store(study, fmt.Sprintf("frontal%d", i))
				if priority := map[int]string{1: "ROUTINE", 2: "LOW", 3: "STAT"}[i]; priority != "" {
					h := &w.archive.studies[study].Instances[0].Header
					h.SetText(TagRequestedProcedurePriority, "SH", priority)
					if within {
						*h = Dataset{{Tag: TagRequestAttributesSequence, VR: "SQ", Items: []Dataset{*h}}}
					}
				}
				w.Stored(study)
				time.Sleep(time.Millisecond)
			}
			time.Sleep(5 * time.Second)
			synctest.Wait()
			w.state(t, "1.0", StateReading)
			w.model.block <- struct{}{}
			synctest.Wait()
			w.state(t, "1.3", StateReading)
			w.model.block <- struct{}{}
			synctest.Wait()
			w.state(t, "1.1", StateReading)
			close(w.model.block)
			synctest.Wait()
		})
	}
}

// However many studies wait, only one image lies ahead for each reader.
func TestLookAheadIsBounded(t *testing.T) {
	watch(t, func(t *testing.T, w *watched) {
		w.model.block = make(chan struct{})
		for i := range 5 {
			w.arrive(fmt.Sprintf("1.%d", i), fmt.Sprintf("frontal%d", i))
			time.Sleep(time.Millisecond)
		}
		w.after(t, 3*time.Second, "load 1.0 2, decode frontal0 2")
		w.after(t, 3*time.Second, "load 1.1 4, decode frontal1 4") // the first is being read
		w.model.block <- struct{}{}
		w.after(t, 0, "load 1.2 6.005, decode frontal2 6.005")
		close(w.model.block)
		time.Sleep(time.Second)
		synctest.Wait()
		for i := range 5 {
			w.state(t, fmt.Sprintf("1.%d", i), StateReported)
		}
		if n := w.model.count(); n != 5 || len(w.ahead.early) != 0 {
			t.Errorf("%d readings, %d left ahead", n, len(w.ahead.early))
		}
	})
}

func TestLookAheadFinds(t *testing.T) {
	watch(t, func(t *testing.T, w *watched) {
		w.arrive("1.2", "broken")
		w.after(t, 4100*time.Millisecond, "load 1.2 2, decode broken 2")
		w.state(t, "1.2", StateRefused)

		w.Stored("1.3") // it is gone: nothing of it is looked at
		w.after(t, 4*time.Second, "")
	})
	watchQuiet(t, 0, func(t *testing.T, w *watched) {
		w.arrive("1.4", "frontal")
		w.after(t, time.Millisecond, "load 1.4 0, decode frontal 0")
	})
	watchQuiet(t, time.Hour, func(t *testing.T, w *watched) {
		w.arrive("1.5", "frontal")
		w.after(t, time.Hour-5100*time.Millisecond, "")
		w.after(t, 200*time.Millisecond, "load 1.5 3595, decode frontal 3595")
	})
}
