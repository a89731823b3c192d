package pipeline

import (
	"errors"
	"testing"
	"time"
)

// A held report is not written or delivered, not even by a start, until somebody releases it; then once.
func TestHeldReport(t *testing.T) {
	b := newLine(t, newMemory())
	b.model.held = "1 of its 1 sentences are flagged"
	stop := b.start(t)
	if err := b.Release(t.Context(), "1.2", ""); !errors.Is(err, ErrNotFound) {
		t.Errorf("a study that is not there: %v", err)
	}
	b.archive.store("1.2", "frontal")
	b.Stored("1.2")
	s := b.until(t, "1.2", StateHeld)
	if len(s.Record.Documents) != 0 || s.Record.Reading.Held == "" || b.Stats.Held.Load() != 1 {
		t.Errorf("%+v", s.Record)
	}
	stop()
	again := newLine(t, b.archive)
	again.start(t)
	time.Sleep(100 * time.Millisecond)
	again.until(t, "1.2", StateHeld)
	if n := again.model.count(); n != 0 || len(again.sent) != 0 || len(b.sent) != 0 {
		t.Errorf("read %d times more, %d deliveries", n, len(again.sent))
	}
	if err := again.Release(t.Context(), "1.2", "ward"); err != nil {
		t.Fatal(err)
	}
	if docs := <-again.sent; len(docs) != 2 {
		t.Errorf("%d documents", len(docs))
	}
	s = again.until(t, "1.2", StateReported)
	if s.Record.ReleasedBy != "ward" || s.Record.Released.IsZero() || again.model.count() != 0 {
		t.Errorf("%+v", s.Record)
	}
	if err := again.Release(t.Context(), "1.2", "ward"); !errors.Is(err, ErrConflict) {
		t.Errorf("a second release: %v", err)
	}
}
