package pipeline

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// When the service stops it begins nothing any more, while uploads that finish are still noticed; what runs is finished meanwhile.
func TestLineTakesNothingWhileUploadsFinish(t *testing.T) {
	synctest.Test(t, takesNothingWhileUploadsFinish)
}

func takesNothingWhileUploadsFinish(t *testing.T) {
	b := newLine(t, newMemory())
	b.Config.Stop, b.Config.Readers = 10*time.Second, 1
	b.model.block = make(chan struct{})
	ctx, stop := context.WithCancel(t.Context())
	taking, rest := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx, taking) }()
	store := func(study string) {
		b.archive.store(study, "frontal")
		b.Stored(study)
		time.Sleep(time.Second)
	}
	for _, study := range []string{"1.2", "1.3"} {
		store(study)
	}
	rest()
	close(b.model.block)
	store("1.4") // an upload that was under way
	time.Sleep(20 * time.Second)
	if b.model.count() != 1 {
		t.Errorf("%d studies were read, want the one that was begun", b.model.count())
	}
	queue := b.Studies.(*memoryQueue)
	for _, study := range []string{"1.3", "1.4"} {
		if life, err := b.archive.Life(t.Context(), study); err != nil || life.State == StateReading || !queue.has(study) {
			t.Errorf("study %s: %+v, %v; queued: %v", study, life, err, queue.has(study))
		}
	}
	select {
	case err := <-done:
		t.Error("the line ended before the uploads:", err)
	default:
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
