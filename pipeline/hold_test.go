package pipeline

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

// remove takes a study out of the archive, records and all.
func (m *memory) remove(study string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.studies, study)
	delete(m.received, study)
	delete(m.records, study)
	delete(m.lives, study)
	delete(m.open, study)
}

func (b *bench) untilGone(t *testing.T, study string) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		s, err := b.Status(t.Context(), study)
		if errors.Is(err, ErrNotFound) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the deleted study is %q (%v)", s.State, err)
		}
	}
}

// A study that is deleted while it is read leaves nothing behind, and the reader goes on with the next.
func TestHoldStopsAReading(t *testing.T) {
	b := newLine(t, newMemory())
	b.Config.Readers = 1
	b.model.block = make(chan struct{})
	b.start(t)
	b.archive.store("1.2", "frontal")
	b.Stored("1.2")
	b.until(t, "1.2", StateReading)
	release := b.Hold("1.2")
	b.archive.remove("1.2")
	release()
	close(b.model.block)
	b.archive.store("1.3", "frontal")
	b.Stored("1.3")
	b.until(t, "1.3", StateReported)
	b.untilGone(t, "1.2")
	b.archive.mu.Lock()
	defer b.archive.mu.Unlock()
	if r := b.archive.records["1.2"]; len(r) > 0 {
		t.Errorf("a record of a deleted study came back: %+v", r)
	}
	if n := b.Stats.Failed.Load(); n != 0 {
		t.Errorf("%d studies failed", n)
	}
}

// A study that is only partly deleted is read again afterwards, and what arrives while it is held waits.
func TestHoldReadsAgain(t *testing.T) {
	b := newLine(t, newMemory())
	b.model.block = make(chan struct{})
	b.start(t)
	b.archive.store("1.2", "frontal")
	b.Stored("1.2")
	b.until(t, "1.2", StateReading)
	// The state is told before the model is asked: a hold in between would find no reading to repeat.
	for end := time.Now().Add(10 * time.Second); b.model.count() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the model was not asked")
		}
	}
	release := b.Hold("1.2")
	close(b.model.block)
	b.Stored("1.2")
	time.Sleep(150 * time.Millisecond)
	if n := b.model.count(); n != 1 {
		t.Errorf("a held study was read (%d times)", n)
	}
	release()
	b.until(t, "1.2", StateReported)
	if n := b.model.count(); n != 2 {
		t.Errorf("read %d times", n)
	}
}

// A delivery that waits for its next attempt ends, and makes no record of a deleted study.
func TestHoldStopsADelivery(t *testing.T) {
	b := newLine(t, newMemory())
	tried := make(chan struct{}, 100)
	var gone atomic.Bool
	b.Destinations[0].Deliver = func(context.Context, Record, []Document) error {
		if gone.Load() {
			return ErrNotFound
		}
		tried <- struct{}{}
		return errors.New("not now")
	}
	b.start(t)
	b.archive.store("1.2", "frontal")
	b.Stored("1.2")
	<-tried
	b.until(t, "1.2", StateReported)
	release := b.Hold("1.2")
	b.archive.remove("1.2")
	release()
	select {
	case <-tried:
		t.Error("delivered again after the deletion")
	case <-time.After(2 * time.Second): // the next attempt would have been after one
	}
	b.untilGone(t, "1.2")
	// A document that is gone is given up.
	b.archive.store("1.3", "frontal")
	gone.Store(true)
	b.Stored("1.3")
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if d := b.until(t, "1.3", StateReported).Record.Deliveries["pacs"]; d != nil && d.Dead {
			return
		}
		if time.Now().After(end) {
			t.Fatal("not given up")
		}
	}
}
