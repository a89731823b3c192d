package pipeline

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

func (b *bench) tasks(t *testing.T) []Task {
	t.Helper()
	all, next, err := b.Tasks(t.Context(), "", 100)
	if err != nil || next != "" {
		t.Fatal(next, err)
	}
	return all
}

func within(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited for " + what)
		}
	}
}

// A poison study is given up with its reason, does not stop the others, and is taken up again when a person asks for it.
func TestAStudyIsGivenUpAndRetried(t *testing.T) {
	b := newLine(t, newMemory())
	b.Config.Readers, b.Config.Attempts, b.Config.GiveUp = 1, 1, 0
	var broken atomic.Bool
	broken.Store(true)
	decode := b.Steps.Decode
	b.Steps.Decode = func(ctx context.Context, c Chosen) (*Image, error) {
		if c.Instance.StudyInstanceUID == "1.2" && broken.Load() {
			return nil, errors.New("poison")
		}
		return decode(ctx, c)
	}
	b.start(t)
	for _, study := range []string{"1.2", "1.3"} {
		b.archive.store(study, "frontal "+study)
		b.Stored(study)
	}
	b.until(t, "1.3", StateReported)
	b.until(t, "1.2", StateFailed)
	within(t, "one dead letter", func() bool {
		all := b.tasks(t)
		return len(all) == 1 && all[0].StudyInstanceUID == "1.2" && all[0].Dead && all[0].Reason == "given up after 1 attempts: decoding instance frontal 1.2: poison"
	})
	if err := b.Retry(t.Context(), "1.3", "why not"); !errors.Is(err, ErrConflict) {
		t.Errorf("a study that was read is retried: %v", err)
	}
	broken.Store(false)
	if err := b.Retry(t.Context(), "1.2", "asked for"); err != nil {
		t.Fatal(err)
	}
	b.until(t, "1.2", StateReported)
	within(t, "nothing to do", func() bool { return len(b.tasks(t)) == 0 })
}

// A study that is dropped while it is read is held, is not begun by anybody, and is read when a person asks for it.
func TestADroppedStudyIsHeld(t *testing.T) {
	b := newLine(t, newMemory())
	b.model.block = make(chan struct{})
	b.start(t)
	b.archive.store("1.2", "frontal")
	b.Stored("1.2")
	b.until(t, "1.2", StateReading)
	if err := b.Drop(t.Context(), "1.2", ""); err != nil {
		t.Fatal(err)
	}
	before := b.model.count()
	if err := b.restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * heldPause)
	if s := b.until(t, "1.2", StateHeld); s.Life.Reason != "dropped by a person" || b.model.count() != before {
		t.Errorf("%+v, read %d times", s.Life, b.model.count())
	}
	if all := b.tasks(t); len(all) != 1 || !all[0].Dead || all[0].State != StateHeld {
		t.Errorf("%+v", all)
	}
	if err := b.Drop(t.Context(), "1.2", ""); !errors.Is(err, ErrConflict) {
		t.Errorf("dropped twice: %v", err)
	}
	close(b.model.block)
	if err := b.Retry(t.Context(), "1.2", "asked for"); err != nil {
		t.Fatal(err)
	}
	b.until(t, "1.2", StateReported)
}

// A delivery that is refused for good is a dead letter with the answer, and is made again when a person asks for it.
func TestADeliveryIsGivenUpAndRetried(t *testing.T) {
	b := newLine(t, newMemory())
	var open atomic.Bool
	refused := errors.New("it answers 409: not this patient")
	b.Destinations[0].Permanent = func(err error) bool { return errors.Is(err, refused) }
	b.Destinations[0].Deliver = func(_ context.Context, _ Record, d []Document) error {
		if !open.Load() {
			return refused
		}
		b.sent <- d
		return nil
	}
	b.start(t)
	b.archive.store("1.2", "frontal")
	b.Stored("1.2")
	within(t, "a dead letter", func() bool {
		all := b.tasks(t)
		return len(all) == 1 && all[0].Dead && all[0].Destination == "pacs" && all[0].Reason == refused.Error()
	})
	if s := b.until(t, "1.2", StateReported); s.State != StateReported {
		t.Errorf("it is %s", s.State)
	}
	if err := b.Drop(t.Context(), "1.2", "pacs"); !errors.Is(err, ErrConflict) {
		t.Errorf("given up twice: %v", err)
	}
	if err := b.RetryDelivery(t.Context(), "1.2", "elsewhere"); !errors.Is(err, ErrConflict) {
		t.Errorf("delivered to nobody: %v", err)
	}
	open.Store(true)
	if err := b.RetryDelivery(t.Context(), "1.2", "pacs"); err != nil {
		t.Fatal(err)
	}
	if docs := <-b.sent; len(docs) != 2 {
		t.Errorf("%d documents", len(docs))
	}
	b.until(t, "1.2", StateDelivered)
	within(t, "nothing to do", func() bool { return len(b.tasks(t)) == 0 })
}

// A study that ends the process again and again is tried in growing pauses, others first, and is given up in the end; one death is none of its business.
func TestAStudyThatEndsTheProcess(t *testing.T) {
	for attempts, want := range map[int]State{1: StateReported, 2: StateFailed, 9: StateFailed} {
		b := newLine(t, newMemory())
		b.archive.store("1.2", "frontal")
		life := b.archive.lives["1.2"]
		b.archive.note(life, Change{At: time.Now(), State: StateReading, Worker: "dead"})
		life.Attempts = attempts
		b.start(t)
		s := b.until(t, "1.2", want)
		switch givenUp := s.Life.Next.IsZero(); {
		case want == StateFailed && givenUp != (attempts == 9):
			t.Errorf("after %d attempts: %+v", attempts, s.Life)
		case attempts == 2:
			b.until(t, "1.2", StateReported) // after the pause
		}
	}
}

// A service that stops says so; the study is begun again without a failure.
func TestAStudyIsPutDown(t *testing.T) {
	b := newLine(t, newMemory())
	b.model.block = make(chan struct{})
	stop := b.start(t)
	b.archive.store("1.2", "frontal")
	b.Stored("1.2")
	b.until(t, "1.2", StateReading)
	stop()
	if s := b.until(t, "1.2", StateQueued); s.Life.Attempts != 0 || s.Life.Reason == "" {
		t.Errorf("%+v", s.Life)
	}
	again := newLine(t, b.archive)
	again.start(t)
	again.until(t, "1.2", StateReported)
}
