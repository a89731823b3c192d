package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// What may pass refuses nothing: the study fails, is not read by a lesser image, and is tried again, soon and at a start.
func TestLineTriesAgainWhatMayPass(t *testing.T) {
	for name, passing := range map[string]error{
		"disk": fmt.Errorf("read: %w", syscall.EIO), "part": fmt.Errorf("%w: the codecs", ErrMissingPart), "time": context.DeadlineExceeded,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			archive := newMemory()
			archive.store("1.2", "frontal1")
			archive.store("1.2", "frontal2")
			line := func(failures int32) *bench {
				b := newLine(t, archive)
				var attempts atomic.Int32
				b.Steps.Decode = func(_ context.Context, c Chosen) (*Image, error) {
					if c.Instance.SOPInstanceUID == "frontal1" && attempts.Add(1) <= failures {
						return nil, passing
					}
					return &Image{Instance: c.Instance}, nil
				}
				return b
			}
			first := line(1 << 30)
			stop := first.start(t)
			s := first.failed(t, "1.2")
			if s.State != StateFailed || s.Life.Next.IsZero() || !strings.Contains(s.Record.Error, passing.Error()) || s.Record.Reading != nil || len(s.Record.Refused) > 0 {
				t.Errorf("state %s, record %+v", s.State, s.Record)
			}
			stop()
			second := line(1)
			second.start(t)
			s = second.until(t, "1.2", StateReported)
			if in := s.Record.Reading.Inputs[0].SOPInstanceUID; in != "frontal1" || s.Record.Error != "" {
				t.Errorf("%s was read, error %q", in, s.Record.Error)
			}
			if n := second.Stats.Failed.Load(); n != 1 {
				t.Errorf("%d failures after the start, want 1", n)
			}
		})
	}
}

// Sending a study again tries it again when it has failed, and does nothing when it has a result.
func TestLineTriesAgainWhatIsSentAgain(t *testing.T) {
	b := newLine(t, newMemory())
	var decoded atomic.Int32
	var repaired atomic.Bool
	b.Steps.Decode = func(_ context.Context, c Chosen) (*Image, error) {
		decoded.Add(1)
		if strings.HasPrefix(c.Instance.SOPInstanceUID, "broken") {
			return nil, ErrInvalid
		}
		if !repaired.Load() { // for who looks ahead, too, whose failures nobody counts
			return nil, errors.New("the disk")
		}
		return &Image{Instance: c.Instance}, nil
	}
	b.Config.Attempts, b.Config.GiveUp = 1, 0 // at once
	b.start(t)
	for study, instance := range map[string]string{"1.2": "frontal", "1.3": "broken"} {
		b.archive.store(study, instance)
		b.Stored(study)
	}
	b.until(t, "1.2", StateFailed)
	repaired.Store(true)
	b.Again("1.2")
	b.until(t, "1.2", StateReported)
	b.until(t, "1.3", StateRefused)
	before := decoded.Load()
	for _, study := range []string{"1.2", "1.3"} {
		b.Again(study)
		if life, _ := b.archive.Life(t.Context(), study); !life.Settles() {
			t.Errorf("study %s has its result and is taken up again", study)
		}
	}
	if n := b.model.count(); n != 1 || before != decoded.Load() {
		t.Errorf("the model read %d times", n)
	}
}

// What a claim takes is what the index takes over it, for each study that is begun and for no other.
func TestLineTellsWhatAClaimTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newLine(t, newMemory())
		b.Archive = slowBegin{b.archive}
		var took []time.Duration
		b.Claimed = func(d time.Duration) { took = append(took, d) }
		b.archive.store("1.2", "frontal")
		for range 2 { // the second time nothing is to be done
			b.study(t.Context(), &memoryLease{job: Job{Name: "1.2"}, since: time.Now()})
		}
		if !slices.Equal(took, []time.Duration{7 * time.Millisecond}) {
			t.Errorf("claims took %v", took)
		}
	})
}

// slowBegin is an archive that takes 7 ms over a study's beginning.
type slowBegin struct{ *memory }

func (a slowBegin) Begin(ctx context.Context, study string, steps func(Life) []Change) (Life, []Record, error) {
	time.Sleep(7 * time.Millisecond)
	return a.memory.Begin(ctx, study, steps)
}

// Patience with a study ends, and what is final has none. That is known by the archive, so that a crash in the middle of it counts as well.
func TestLineGivesUp(t *testing.T) {
	for _, c := range []struct {
		err  error
		last int // attempt, the first after the hour
	}{{syscall.EIO, 10}, {fmt.Errorf("S3: %w", ErrUnavailable), 20}, {ErrBusy, 20}, {fmt.Errorf("the index: %w", ErrFull), 20}} {
		b := newLine(t, newMemory())
		b.archive.store("1.2", "frontal")
		b.Archive = &failingStudy{memory: b.archive, err: c.err}
		lease := &memoryLease{job: Job{Name: "1.2"}}
		for attempt := 1; attempt <= c.last; attempt++ {
			if attempt == 20 {
				b.archive.lives["1.2"].First = time.Now().Add(-2 * time.Hour)
			}
			again := b.study(t.Context(), lease)
			life, err := b.archive.Life(t.Context(), "1.2")
			over := attempt == c.last
			if err != nil || life.State != StateFailed || life.Attempts != attempt || again.IsZero() != over || again.IsZero() != life.Next.IsZero() {
				t.Fatalf("%v, attempt %d: again %v, life %+v, %v", c.err, attempt, again, life, err)
			}
			if want := fmt.Sprintf("given up after %d attempts: ", c.last); over && !strings.Contains(life.Reason, want) {
				t.Errorf("reason %q", life.Reason)
			}
		}
	}
	b := newLine(t, newMemory())
	archive := &failingStudy{memory: b.archive}
	b.Archive = archive
	lease := &memoryLease{job: Job{Name: "1.2"}}
	for _, err := range []error{ErrInvalid, ErrUnsupported, ErrUnknown, ErrNotImage, ErrNotFound, ErrConflict, ErrModel, Refusal{}} {
		b.archive.store("1.2", "more")
		archive.err = fmt.Errorf("no: %w", err)
		again := b.study(t.Context(), lease)
		if life, _ := b.archive.Life(t.Context(), "1.2"); !again.IsZero() || life.State != StateFailed || !life.Settles() || !strings.Contains(life.Reason, err.Error()) {
			t.Errorf("%v is tried again at %v: %+v", err, again, life)
		}
	}
}

// failingStudy is an archive that does not give its studies.
type failingStudy struct {
	*memory
	err error
}

func (f *failingStudy) Study(context.Context, string) (*Study, error) { return nil, f.err }

func TestBackoff(t *testing.T) {
	for attempt, want := range map[int]float64{1: 1, 2: 2, 5: 16, 20: 300} {
		if got := backoff(attempt).Seconds(); got < 0.79*want || got > 1.21*want {
			t.Errorf("attempt %d: %.1fs, want about %.0fs", attempt, got, want)
		}
	}
}

// What is away or full comes back for all studies at once, however often each was tried meanwhile.
func TestPauseAfter(t *testing.T) {
	for _, c := range []struct {
		attempts int
		err      error
		want     float64
	}{
		{3, ErrUnavailable, 4}, {20, fmt.Errorf("S3: %w", ErrUnavailable), 64}, {20, ErrBusy, 64}, {20, ErrFull, 64}, {3, ErrInvalid, 4}, {20, errors.New("its own fault"), 300},
	} {
		if got := pauseAfter(c.attempts, c.err).Seconds(); got < 0.79*c.want || got > 1.21*c.want {
			t.Errorf("attempt %d, %v: %.1f s, want about %.0f", c.attempts, c.err, got, c.want)
		}
	}
}
