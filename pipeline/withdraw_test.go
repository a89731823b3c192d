package pipeline

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

// forget takes one image out of the archive; the study goes with its last one, its records stay.
func (m *memory) forget(study, instance string) (has func(string) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	left := slices.DeleteFunc(slices.Clone(m.studies[study].Instances), func(in *Instance) bool { return in.SOPInstanceUID == instance })
	if m.studies[study] = (&Study{StudyInstanceUID: study, Instances: left}); len(left) == 0 {
		delete(m.studies, study)
	}
	return func(sop string) bool {
		return slices.ContainsFunc(left, func(in *Instance) bool { return in.SOPInstanceUID == sop })
	}
}

func (b *bench) deleteImage(t *testing.T, study, instance string) {
	t.Helper()
	release := b.Hold(study)
	defer release()
	if err := b.Withdraw(t.Context(), study, b.archive.forget(study, instance)); err != nil {
		t.Fatal(err)
	}
	if err := b.Shrunk(t.Context(), study); err != nil {
		t.Fatal(err)
	}
}

// A reading about an image that was deleted is withdrawn, and holds again when the image comes again.
func TestWithdrawn(t *testing.T) {
	b := newLine(t, newMemory())
	stop := b.start(t)
	b.archive.store("1.2", "frontal")
	b.archive.store("1.2", "lateral")
	b.Stored("1.2")
	first := b.until(t, "1.2", StateReported)
	<-b.sent

	b.deleteImage(t, "1.2", "lateral") // nobody has read it
	if s := b.until(t, "1.2", StateReported); len(s.Withdrawn) > 0 {
		t.Errorf("%+v", s)
	}
	b.archive.store("1.2", "second")
	b.Stored("1.2")
	<-b.sent
	b.until(t, "1.2", StateReported)

	b.deleteImage(t, "1.2", "frontal") // both readings are about it
	<-b.sent
	s := b.until(t, "1.2", StateReported)
	if len(s.Withdrawn) != 4 || s.Record.Reading.Inputs[0].SOPInstanceUID != "second" {
		t.Errorf("%+v", s)
	}
	b.deleteImage(t, "1.2", "second")
	if s := b.until(t, "1.2", StateWithdrawn); len(s.Withdrawn) != 6 || s.Record.Error == "" {
		t.Errorf("%+v", s)
	}
	// A start changes nothing about that.
	stop()
	again := newLine(t, b.archive)
	again.start(t)
	time.Sleep(100 * time.Millisecond)
	again.until(t, "1.2", StateWithdrawn)
	select {
	case docs := <-again.sent:
		t.Errorf("withdrawn documents are delivered: %+v", docs)
	default:
	}
	again.archive.store("1.2", "frontal")
	again.Stored("1.2")
	s = again.until(t, "1.2", StateReported)
	if !slices.Equal(s.Record.Documents, first.Record.Documents) || s.Record.Error != "" || len(s.Withdrawn) != 4 {
		t.Errorf("%+v", s)
	}
	if n := again.model.count(); n != 0 {
		t.Errorf("read again %d times", n)
	}
}

// What has not been delivered of a withdrawn reading never is.
func TestWithdrawnIsNotDelivered(t *testing.T) {
	b := newLine(t, newMemory())
	tried := make(chan struct{}, 100)
	b.Destinations[0].Deliver = func(context.Context, Record, []Document) error {
		tried <- struct{}{}
		return errors.New("not now")
	}
	b.start(t)
	b.archive.store("1.2", "frontal")
	b.Stored("1.2")
	<-tried
	b.deleteImage(t, "1.2", "frontal")
	b.until(t, "1.2", StateWithdrawn)
	select {
	case <-tried:
		t.Error("delivered after the deletion")
	case <-time.After(2 * time.Second): // the next attempt would have been after one
	}
}
