package pipeline

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
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
	if err := b.Retry(t.Context(), "1.3", "", "ada"); !errors.Is(err, ErrConflict) {
		t.Errorf("a study that was read is retried: %v", err)
	}
	broken.Store(false)
	if err := b.Retry(t.Context(), "1.2", "", "ada"); err != nil {
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
	if err := b.Drop(t.Context(), "1.2", "", "ada"); err != nil {
		t.Fatal(err)
	}
	before := b.model.count()
	if err := b.restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * heldPause)
	if s := b.until(t, "1.2", StateHeld); s.Life.Reason != "dropped by ada" || b.model.count() != before {
		t.Errorf("%+v, read %d times", s.Life, b.model.count())
	}
	if all := b.tasks(t); len(all) != 1 || !all[0].Dead || all[0].State != StateHeld {
		t.Errorf("%+v", all)
	}
	if err := b.Drop(t.Context(), "1.2", "", ""); !errors.Is(err, ErrConflict) {
		t.Errorf("dropped twice: %v", err)
	}
	close(b.model.block)
	if err := b.Retry(t.Context(), "1.2", "", "ada"); err != nil {
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
	if err := b.Drop(t.Context(), "1.2", "pacs", ""); !errors.Is(err, ErrConflict) {
		t.Errorf("given up twice: %v", err)
	}
	for what, change := range map[string]func(context.Context, string, string, string) error{"delivered to": b.Retry, "dropped for": b.Drop} {
		if err := change(t.Context(), "1.2", "elsewhere", ""); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), `"elsewhere"; the configuration names pacs`) {
			t.Errorf("%s nobody: %v", what, err)
		}
	}
	told := func(what string) (n int) {
		for _, c := range b.archive.steps("1.2") {
			if c.State == StateReported && c.Reason == what {
				n++
			}
		}
		return n
	}
	if n := told("the delivery to pacs is given up: " + refused.Error()); n != 1 {
		t.Errorf("the timeline tells %d times that it was given up", n)
	}
	open.Store(true)
	if err := b.Retry(t.Context(), "1.2", "pacs", "ada"); err != nil {
		t.Fatal(err)
	}
	if n := told("the delivery to pacs is taken up again, asked for by ada"); n != 1 {
		t.Errorf("the timeline tells %d times that it is taken up again", n)
	}
	if docs := <-b.sent; len(docs) != 2 {
		t.Errorf("%d documents", len(docs))
	}
	b.until(t, "1.2", StateDelivered)
	within(t, "nothing to do", func() bool { return len(b.tasks(t)) == 0 })
}

// A delivery that is dropped while it waits, or while an attempt of another process fails, stays so, tells by whom and is not said to be tried again; the timeline has it once,
// and the study stays where it was.
func TestADroppedDelivery(t *testing.T) {
	for _, meanwhile := range []bool{false, true} {
		b := newLine(t, undelivered(1))
		b.Log = zerolog.Nop()
		attempts, free := make(chan struct{}), make(chan struct{})
		b.Destinations[0].Deliver = func(ctx context.Context, _ Record, _ []Document) error {
			select {
			case attempts <- struct{}{}:
			case <-ctx.Done():
			}
			<-free
			return errors.New("not now")
		}
		b.start(t)
		<-attempts
		if !meanwhile {
			close(free)
			within(t, "a failure", func() bool { all := b.tasks(t); return len(all) == 1 && !all[0].Next.IsZero() })
		}
		web := &Line{Config: b.Config, Archive: b.archive, Destinations: b.Destinations, Now: time.Now, Log: b.Log, Worker: "web"}
		if err := web.Drop(t.Context(), "1.2.0", "pacs", "ada"); err != nil {
			t.Fatal(err)
		}
		want := "dropped by ada; before that: not now"
		if meanwhile {
			want = "dropped by ada"
			close(free)
			within(t, "the attempt to end", func() bool { return !b.busy("1.2.0") })
		}
		all := b.tasks(t)
		if len(all) != 1 || !all[0].Dead || all[0].Reason != want || !all[0].Next.IsZero() || all[0].GivenUp.IsZero() {
			t.Errorf("%+v", all)
		}
		var told []Change
		for _, c := range b.archive.steps("1.2.0") {
			if strings.Contains(c.Reason, "pacs") {
				told = append(told, c)
			}
		}
		if len(told) != 1 || told[0].Reason != "the delivery to pacs is given up: "+want || told[0].State != StateReported || told[0].Worker != "web" {
			t.Errorf("the timeline has %+v", told)
		}
		if l, err := b.archive.Life(t.Context(), "1.2.0"); err != nil || l.State != StateReported || l.Reason != "" || l.Open {
			t.Errorf("%+v, %v", l, err)
		}
	}
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
