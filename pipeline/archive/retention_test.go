package archive_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chatxray/pipeline"
	"chatxray/pipeline/archive"
)

// TestRetention: the oldest go, by each bound, and nothing for which something is still to be done.
func TestRetention(t *testing.T) {
	ctx := context.Background()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	dir := t.TempDir()
	free := int64(0)
	a := open(t, dir, archive.Options{Reserve: -1, Now: func() time.Time { return now }, FreeSpace: func(string) (int64, error) { return free, nil }})
	states := []pipeline.State{pipeline.StateDelivered, pipeline.StateReported, pipeline.StateRefused, pipeline.StateHeld, pipeline.StateFailed,
		pipeline.StateReceiving, pipeline.StateReading, pipeline.StateReported}
	const undelivered = 7
	uid := func(n int) string { return fmt.Sprintf("1.2.%d", n) }
	for n, state := range states { // a day apart, the first the oldest
		mustStore(t, a, object(t, uid(n), uid(n)+".1", uid(n)+".1.1"))
		step := pipeline.Change{At: now, State: state}
		var err error
		switch {
		case n == undelivered:
			_, err = a.UpdateRecord(ctx, pipeline.Life{StudyInstanceUID: uid(n)}, "k", func(r *pipeline.Record) {
				r.State, r.Documents = pipeline.StateReported, []pipeline.DocumentRef{{SOPInstanceUID: "1.2.3"}}
				r.Deliveries = map[string]*pipeline.Delivery{"pacs": {}}
			}, step)
		case state != pipeline.StateReceiving:
			err = a.Move(ctx, pipeline.Life{StudyInstanceUID: uid(n)}, step)
		}
		if err != nil {
			t.Fatal(err)
		}
		now = now.Add(24 * time.Hour)
	}
	disk, err := archive.DiskSize(a)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		r    archive.Retention
		free int64
		want []string
	}{
		"off":                 {archive.Retention{}, 0, nil},
		"age":                 {archive.Retention{Days: 7}, 0, []string{"0 age"}},
		"all of age":          {archive.Retention{Days: 1}, 0, []string{"0 age", "1 age", "2 age"}},
		"also":                {archive.Retention{Days: 1, Also: []string{"held", "failed"}}, 0, []string{"0 age", "1 age", "2 age", "3 age", "4 age"}},
		"undelivered":         {archive.Retention{Studies: 1, Also: []string{"undelivered"}}, 0, []string{"0 count", "1 count", "2 count", "7 count"}},
		"count":               {archive.Retention{Studies: 6}, 0, []string{"0 count", "1 count"}},
		"count within bounds": {archive.Retention{Studies: 8}, 0, nil},
		"age, then count":     {archive.Retention{Days: 7, Studies: 6}, 0, []string{"0 age", "1 count"}},
		"below the mark":      {archive.Retention{HighPercent: 90, LowPercent: 80}, disk / 2, nil},
		"a little above":      {archive.Retention{HighPercent: 50, LowPercent: 49}, disk - disk*50/100 - 1, []string{"0 disk", "1 disk", "2 disk"}},
	} {
		free = c.free
		expired, err := a.Expired(ctx, c.r, 0)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range expired {
			got = append(got, fmt.Sprint(e.StudyInstanceUID[4:], " ", e.Reason))
			if e.Bytes == 0 || e.Received.IsZero() {
				t.Error(name, e)
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Error(name, diff)
		}
	}
	// As much as is needed, and not more: the mark is below by less than one file.
	free = disk - disk*49/100 - 1
	if e, err := a.Expired(ctx, archive.Retention{HighPercent: 50, LowPercent: 49}, 0); err != nil || len(e) != 0 {
		t.Error("between the marks nothing begins:", e, err)
	}
	shown, err := archive.Expiring(ctx, dir, archive.Retention{Days: 7}, archive.Options{Now: func() time.Time { return now }})
	if err != nil || len(shown) != 1 {
		t.Error("what would go:", shown, err)
	}
	expired, err := a.Expired(ctx, archive.Retention{Days: 6}, 1)
	if err != nil || len(expired) != 1 {
		t.Fatal(expired, err)
	}
	mustStore(t, a, object(t, uid(0), uid(0)+".1", uid(0)+".1.2"))
	if _, err := a.Expire(ctx, expired[0]); !errors.Is(err, pipeline.ErrConflict) {
		t.Error("something has come meanwhile:", err)
	}
	expired, err = a.Expired(ctx, archive.Retention{Days: 6}, 0)
	if err != nil || len(expired) != 1 || expired[0].StudyInstanceUID != uid(1) {
		t.Fatal(expired, err)
	}
	if n, err := a.Expire(ctx, expired[0]); n != 1 || err != nil {
		t.Error(n, err)
	}
	left, err := a.Lives(ctx, "", "", 100)
	if err != nil || len(left) != len(states)-1 || slices.ContainsFunc(left, func(l pipeline.Life) bool { return l.StudyInstanceUID == uid(1) }) {
		t.Error(left, err)
	}
}
