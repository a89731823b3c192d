package pipeline

import (
	"context"
	"errors"
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
	if _, err := b.Status(t.Context(), "1.2"); !errors.Is(err, ErrNotFound) {
		t.Error("the deleted study is", err)
	}
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
	b.Destinations[0].Deliver = func(context.Context, []Document) error { tried <- struct{}{}; return errors.New("not now") }
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
	if _, err := b.Status(t.Context(), "1.2"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	// A document that is gone is given up.
	b.archive.store("1.3", "frontal")
	b.Destinations[0].Deliver = func(context.Context, []Document) error { return ErrNotFound }
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
