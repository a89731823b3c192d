package archive_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chatxray/pipeline"
	"chatxray/pipeline/archive"
)

func TestRecords(t *testing.T) { onEach(t, testRecords) }

func testRecords(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	a := open(t, dir, archive.Options{})
	if r, err := a.Records(ctx, "1.2"); err != nil || len(r) != 0 {
		t.Fatal(r, err)
	}
	// Nothing is written about a study that is not here, or no more: who wrote it may not know yet that it was deleted.
	if _, err := a.UpdateRecord(ctx, pipeline.Life{StudyInstanceUID: "1.2"}, "b", func(*pipeline.Record) {}); !errors.Is(err, pipeline.ErrNotFound) {
		t.Error(err)
	}
	late := pipeline.Document{StudyInstanceUID: "1.2", SeriesInstanceUID: "1.2.9", SOPInstanceUID: "1.2.9.1", SOPClassUID: "1.2.840.10008.5.1.4.1.1.1.1", Bytes: object(t, "1.2", "1.2.9", "1.2.9.1")}
	if err := put(a, late); !errors.Is(err, pipeline.ErrNotFound) {
		t.Error(err)
	}
	if found, err := a.Instances(ctx, "1.2", "", ""); !errors.Is(err, pipeline.ErrNotFound) {
		t.Error(found, err)
	}
	mustStore(t, a, object(t, "1.2", "1.2.1", "1.2.1.1"))
	at := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	put := func(key string, completed time.Time) {
		t.Helper()
		if _, err := a.UpdateRecord(ctx, pipeline.Life{StudyInstanceUID: "1.2"}, key, func(r *pipeline.Record) { r.State, r.Completed = pipeline.StateRead, completed }); err != nil {
			t.Fatal(err)
		}
	}
	put("b", at)
	put("a", at.Add(time.Minute))
	r, err := a.UpdateRecord(ctx, pipeline.Life{StudyInstanceUID: "1.2"}, "b", func(r *pipeline.Record) {
		if r.State != pipeline.StateRead {
			t.Errorf("the record was not read before its change: %+v", r)
		}
		r.State = pipeline.StateReported
	})
	if err != nil || r.State != pipeline.StateReported {
		t.Fatal(r, err)
	}
	if err := a.PutPreview(ctx, "1.2", "b", []byte("png")); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}

	a = open(t, dir, archive.Options{})
	got, err := a.Records(ctx, "1.2")
	want := []pipeline.Record{{Key: "b", StudyInstanceUID: "1.2", State: pipeline.StateReported, Completed: at},
		{Key: "a", StudyInstanceUID: "1.2", State: pipeline.StateRead, Completed: at.Add(time.Minute)}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if png, err := a.Preview(ctx, "1.2", "b"); err != nil || string(png) != "png" {
		t.Error(png, err)
	}
	if _, err := a.Preview(ctx, "1.2", "a"); !errors.Is(err, pipeline.ErrNotFound) {
		t.Error(err)
	}
}

func TestRecordNames(t *testing.T) {
	a := open(t, t.TempDir(), archive.Options{})
	for _, c := range []struct{ study, key string }{{"../1", "k"}, {"", "k"}, {"1.2", ""}, {"1.2", "../k"}, {"1.2", "a/b"}, {"1.2", ".hidden"}} {
		if _, err := a.UpdateRecord(context.Background(), pipeline.Life{StudyInstanceUID: c.study}, c.key, func(*pipeline.Record) {}); !errors.Is(err, pipeline.ErrInvalid) {
			t.Errorf("%q %q: %v", c.study, c.key, err)
		}
	}
}
