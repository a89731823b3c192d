package pipeline

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// pair requires two images.
func pair(st *Study) string {
	if len(st.Instances) >= 2 {
		return ""
	}
	return "one image is missing"
}

func (b *bench) send(study, instance string) {
	b.archive.store(study, instance)
	b.Stored(study)
}

func (b *bench) steps(t *testing.T, study string) (out []string) {
	t.Helper()
	b.archive.mu.Lock()
	defer b.archive.mu.Unlock()
	for _, c := range b.archive.changes[study] {
		out = append(out, string(c.State)+": "+c.Reason)
	}
	return out
}

// A study waits for what it lacks, and is read once, when that has come.
func TestAStudyWaitsForItsImages(t *testing.T) {
	b := newLine(t, newMemory())
	b.Complete = Completeness{Missing: pair, Wait: time.Hour, Then: ThenHold}
	b.start(t)
	b.send("1.2", "frontal")
	within(t, "a study that waits", func() bool { return slices.Contains(b.steps(t, "1.2"), "receiving: one image is missing") })
	b.complete(t.Context())
	if err := b.restore(t.Context()); err != nil { // as every minute
		t.Fatal(err)
	}
	time.Sleep(5 * b.Config.Quiet)
	if s, _ := b.Status(t.Context(), "1.2"); s.State != StateReceiving || b.model.count() != 0 {
		t.Fatalf("%s, read %d times", s.State, b.model.count())
	}
	if n := len(b.steps(t, "1.2")); n != 2 {
		t.Errorf("that it waits is noted anew each time: %q", b.steps(t, "1.2"))
	}
	b.send("1.2", "lateral")
	b.until(t, "1.2", StateReported)
	if all := b.steps(t, "1.2"); b.model.count() != 1 || !slices.ContainsFunc(all, func(s string) bool {
		return strings.HasPrefix(s, "complete: ") && strings.HasSuffix(s, "complete.requires is met")
	}) {
		t.Errorf("read %d times: %q", b.model.count(), all)
	}
}

// What becomes of a study that has waited in vain, and what a late image and a person do then.
func TestTheLongestWaitIsOver(t *testing.T) {
	for then, want := range map[Then]State{ThenRead: StateReported, ThenHold: StateHeld, ThenDrop: StateRefused} {
		t.Run(string(then), func(t *testing.T) {
			t.Parallel()
			b := newLine(t, newMemory())
			b.Complete = Completeness{Missing: pair, Wait: 200 * time.Millisecond, Then: then}
			b.start(t)
			b.send("1.2", "frontal")
			b.send("1.3", "frontal")
			s := b.until(t, "1.2", want)
			b.until(t, "1.3", want)
			if all := b.steps(t, "1.2"); !slices.ContainsFunc(all, func(s string) bool { return strings.Contains(s, "one image is missing, after 200ms") }) {
				t.Errorf("no step says why: %q", all)
			}
			if waited := s.Life.At.Sub(s.Life.First); waited < b.Complete.Wait {
				t.Errorf("it waited %v", waited)
			}
			if then == ThenRead {
				return
			}
			if n := b.model.count(); n != 0 || s.Life.Open {
				t.Errorf("read %d times, open %t", n, s.Life.Open)
			}
			b.send("1.2", "late")
			b.until(t, "1.2", StateReported)
			if err := b.Force(t.Context(), "1.3", "Dr. No"); err != nil {
				t.Fatal(err)
			}
			b.until(t, "1.3", StateReported)
			if all := b.steps(t, "1.3"); !slices.Contains(all, "complete: asked for by Dr. No") {
				t.Errorf("%q", all)
			}
		})
	}
}

// A person does not wait: neither for the quiet time nor for what is missing.
func TestForce(t *testing.T) {
	b := newLine(t, newMemory())
	b.Config.Quiet = time.Hour
	b.Complete = Completeness{Missing: pair, Wait: 24 * time.Hour, Then: ThenHold}
	b.start(t)
	b.send("1.2", "frontal")
	if err := b.Force(t.Context(), "1.2", ""); err != nil {
		t.Fatal(err)
	}
	b.until(t, "1.2", StateReported)
	if err := b.Force(t.Context(), "1.2", ""); !errors.Is(err, ErrConflict) {
		t.Errorf("what was read is forced: %v", err)
	}
	if err := b.Force(t.Context(), "1.9", ""); !errors.Is(err, ErrNotFound) {
		t.Errorf("what is not here is forced: %v", err)
	}
}

// An image that comes while a study is being given up is not lost.
func TestAnImageComesWhileAStudyIsGivenUp(t *testing.T) {
	b := newLine(t, newMemory())
	late := false
	b.Complete = Completeness{Wait: time.Nanosecond, Then: ThenDrop, Missing: func(st *Study) string {
		missing := pair(st)
		if !late { // behind the look at the archive, before the step is noted
			late = true
			b.archive.store("1.2", "late")
		}
		return missing
	}}
	b.archive.store("1.2", "frontal")
	lease := &memoryLease{job: Job{Name: "1.2"}}
	b.study(context.Background(), lease)
	life, err := b.archive.Life(t.Context(), "1.2")
	if err != nil || !life.Open {
		t.Fatalf("nobody looks at the late image: %+v, %v", life, err)
	}
	b.study(context.Background(), lease)
	if s := b.until(t, "1.2", StateReported); s.Record == nil {
		t.Error("it was not read")
	}
}
