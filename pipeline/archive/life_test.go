package archive_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chatxray/pipeline"
	"chatxray/pipeline/archive"
)

// A study's life from its first instance to a takeover, across a restart: steps in order, an older worker's writes refused.
func TestLife(t *testing.T) { onEach(t, testLife) }

func testLife(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	at := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	opts := archive.Options{Now: func() time.Time { return at }}
	a := open(t, dir, opts)
	id, err := a.ID(ctx)
	if err != nil || len(id) != 16 {
		t.Fatal(id, err)
	}
	mustStore(t, a, object(t, "1.2", "1.2.1", "1.2.1.1", pipeline.TagRequestedProcedurePriority, "LOW"))
	mustStore(t, a, object(t, "1.2", "1.2.1", "1.2.1.2", pipeline.TagRequestedProcedurePriority, "STAT"))
	mustStore(t, a, object(t, "1.2", "1.2.1", "1.2.1.3"))
	l, err := a.Life(ctx, "1.2")
	if err != nil || l.State != pipeline.StateReceiving || l.Lane != pipeline.LaneUrgent || !l.Open || !l.Received.Equal(at) || l.News != 3 {
		t.Fatalf("%+v %v", l, err)
	}
	complete := []pipeline.Change{{At: at.Add(time.Second), State: pipeline.StateComplete, Reason: "nothing came"}, {At: at.Add(time.Second), State: pipeline.StateQueued}}
	if n, err := a.Complete(ctx, at.Add(-1), 10, complete...); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	for _, want := range []int{1, 0} {
		if n, err := a.Complete(ctx, at, 10, complete...); n != want || err != nil {
			t.Fatal(n, err)
		}
	}
	begin := func(a *archive.Archive, worker string) pipeline.Life {
		t.Helper()
		l, _, err := a.Begin(ctx, "1.2", func(was pipeline.Life) []pipeline.Change {
			return []pipeline.Change{{At: at.Add(2 * time.Second), State: pipeline.StateReading, Reason: "it was " + string(was.State), Worker: worker}}
		})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	older := begin(a, "first")
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a = open(t, dir, opts)
	if again, err := a.ID(ctx); again != id || err != nil {
		t.Errorf("the archive is called %s, then %s (%v)", id, again, err)
	}
	newer := begin(a, "second")
	if newer.Attempts != 2 {
		t.Errorf("%d attempts", newer.Attempts)
	}
	reported := pipeline.Change{At: at.Add(3 * time.Second), State: pipeline.StateReported, Worker: "second"}
	for _, late := range []error{a.Move(ctx, older, reported),
		func() error {
			_, err := a.UpdateRecord(ctx, older, "k", func(*pipeline.Record) {}, reported)
			return err
		}()} {
		if !errors.Is(late, pipeline.ErrLost) {
			t.Errorf("who lost the study writes: %v", late)
		}
	}
	if _, err := a.UpdateRecord(ctx, newer, "k", func(r *pipeline.Record) {
		r.State, r.Completed, r.Deliveries = pipeline.StateReported, at.Add(time.Second), map[string]*pipeline.Delivery{"pacs": {Dead: true}}
	}, reported); err != nil {
		t.Fatal(err)
	}
	want := []pipeline.Change{{At: at, State: pipeline.StateReceiving}, complete[0], complete[1],
		{At: at.Add(2 * time.Second), State: pipeline.StateReading, Reason: "it was queued", Worker: "first"},
		{At: at.Add(2 * time.Second), State: pipeline.StateReading, Reason: "it was reading", Worker: "second"}, reported}
	if got, err := a.Changes(ctx, "1.2"); err != nil || cmp.Diff(want, got) != "" {
		t.Error(cmp.Diff(want, got), err)
	}
	if open, err := a.Unsettled(ctx, "", 10); len(open) != 0 || err != nil {
		t.Error(open, err)
	}
	if undone, err := a.Undone(ctx, "", 10); len(undone) != 1 || err != nil { // a delivery was given up
		t.Error(undone, err)
	}
	if undone, err := a.Undone(ctx, "1.2", 10); len(undone) != 0 || err != nil {
		t.Error(undone, err)
	}
}

// What is told of a delivery is a step of its study's life and leaves that as it stands, which may wait for its next attempt; it is told only if it is so.
func TestToldOfADelivery(t *testing.T) { onEach(t, testToldOfADelivery) }

func testToldOfADelivery(t *testing.T) {
	ctx := t.Context()
	at := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	a := open(t, t.TempDir(), archive.Options{})
	mustStore(t, a, object(t, "1.2", "1.2.1", "1.2.1.1"))
	mine, _, err := a.Begin(ctx, "1.2", func(pipeline.Life) []pipeline.Change {
		return []pipeline.Change{{At: at, State: pipeline.StateReading}}
	})
	if err != nil {
		t.Fatal(err)
	}
	failed := pipeline.Change{At: at, State: pipeline.StateFailed, Reason: "why", Worker: "first", Next: at.Add(time.Hour)}
	if err := a.Move(ctx, mine, failed); err != nil {
		t.Fatal(err)
	}
	before, err := a.Life(ctx, "1.2")
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range []pipeline.Delivery{{Dead: true, GivenUp: at}, {Dead: true, GivenUp: at.Add(time.Second)}, {}} {
		if _, err := a.UpdateRecord(ctx, pipeline.Life{StudyInstanceUID: "1.2"}, "k", func(r *pipeline.Record) {
			r.State, r.Deliveries = pipeline.StateReported, map[string]*pipeline.Delivery{"pacs": &d}
		}, pipeline.Change{At: at, Reason: "given up", Worker: "second", GivenUp: "pacs"}); err != nil {
			t.Fatal(i, err)
		}
	}
	if now, err := a.Life(ctx, "1.2"); err != nil || cmp.Diff(before, now) != "" || !now.Open || !now.Next.Equal(failed.Next) {
		t.Error(cmp.Diff(before, now), err)
	}
	got, err := a.Changes(ctx, "1.2")
	want := []pipeline.Change{failed, {At: at, State: pipeline.StateFailed, Reason: "given up", Worker: "second"}}
	if err != nil || len(got) < 2 || cmp.Diff(want, got[len(got)-2:]) != "" {
		t.Error(cmp.Diff(want, got), err)
	}
}

// What arrives while a study is read leaves something to be done when the reading ends.
func TestNewsWhileReading(t *testing.T) { onEach(t, testNewsWhileReading) }

func testNewsWhileReading(t *testing.T) {
	ctx := t.Context()
	a := open(t, t.TempDir(), archive.Options{})
	mustStore(t, a, object(t, "1.2", "1.2.1", "1.2.1.1"))
	l, _, err := a.Begin(ctx, "1.2", func(pipeline.Life) []pipeline.Change { return []pipeline.Change{{State: pipeline.StateReading}} })
	if err != nil {
		t.Fatal(err)
	}
	mustStore(t, a, object(t, "1.2", "1.2.1", "1.2.1.2"))
	if err := a.Move(ctx, l, pipeline.Change{State: pipeline.StateReported}); err != nil {
		t.Fatal(err)
	}
	if open, err := a.Unsettled(ctx, "", 10); len(open) != 1 || err != nil {
		t.Error(open, err)
	}
	if _, _, err := a.Begin(ctx, "1.3", func(pipeline.Life) []pipeline.Change { return []pipeline.Change{{State: pipeline.StateReading}} }); !errors.Is(err, pipeline.ErrNotFound) {
		t.Error(err)
	}
}

// An index that is made anew knows from the copies of the records what is settled, and takes up the rest.
func TestLifeAfterRebuild(t *testing.T) { onEach(t, testLifeAfterRebuild) }

func testLifeAfterRebuild(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	a := open(t, dir, archive.Options{})
	mustStore(t, a, object(t, "1.2", "1.2.1", "1.2.1.1"))
	mustStore(t, a, object(t, "1.3", "1.3.1", "1.3.1.1"))
	l, _, err := a.Begin(ctx, "1.2", func(pipeline.Life) []pipeline.Change { return []pipeline.Change{{State: pipeline.StateReading}} })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.UpdateRecord(ctx, l, "k", func(r *pipeline.Record) { r.State, r.Completed = pipeline.StateReported, time.Now() },
		pipeline.Change{At: time.Now(), State: pipeline.StateReported}); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	loseIndex(t, dir)
	a = open(t, dir, archive.Options{})
	if l, err := a.Life(ctx, "1.2"); err != nil || l.State != pipeline.StateReported || l.Open {
		t.Errorf("%+v %v", l, err)
	}
	if l, err := a.Life(ctx, "1.3"); err != nil || l.State != pipeline.StateReceiving || !l.Open {
		t.Errorf("%+v %v", l, err)
	}
}
