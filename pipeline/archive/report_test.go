package archive_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"chatxray/pipeline"
)

// A report is whole or there is nothing of it: neither a document nor a record, and no file.
func TestReport(t *testing.T) { kinds(t, reports) }

func reports(t *testing.T, k *kind) {
	ctx := context.Background()
	a := k.open(t)
	image := object(t, "1.2", "1.2.1", "1.2.1.1")
	foreign := object(t, "1.2", "1.2.7", "1.2.7.3")
	mustStore(t, a, image, foreign)
	doc := func(n string) pipeline.Document {
		sop := "1.2.7." + n
		return pipeline.Document{StudyInstanceUID: "1.2", SeriesInstanceUID: "1.2.7", SOPInstanceUID: sop, SOPClassUID: "1.2.840.10008.5.1.4.1.1.1.1",
			Bytes: object(t, "1.2", "1.2.7", sop, pipeline.TagPatientID, "P7")}
	}
	begin := func() pipeline.Life {
		t.Helper()
		l, _, err := a.Begin(ctx, "1.2", func(pipeline.Life) []pipeline.Change {
			return []pipeline.Change{{At: time.Now(), State: pipeline.StateReading}}
		})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	report := func(l pipeline.Life, docs ...pipeline.Document) error {
		_, err := a.Report(ctx, l, "k", docs, func(r *pipeline.Record) { r.State = pipeline.StateReported }, pipeline.Change{At: time.Now(), State: pipeline.StateReported})
		return err
	}
	before, now := begin(), begin()
	nothing := func(why string, got, want error) {
		t.Helper()
		if !errors.Is(got, want) {
			t.Errorf("%s: %v, want %v", why, got, want)
		}
		if r, err := a.Records(ctx, "1.2"); err != nil || len(r) != 0 {
			t.Errorf("%s: there is a record: %+v, %v", why, r, err)
		}
		if l, err := a.Life(ctx, "1.2"); err != nil || l.State != pipeline.StateReading {
			t.Errorf("%s: the study is %s, %v", why, l.State, err)
		}
		k.expect(t, image, foreign)
	}
	nothing("another has begun since", report(before, doc("1"), doc("2")), pipeline.ErrLost)
	nothing("the second document is not ours", report(now, doc("1"), doc("3")), pipeline.ErrConflict)
	if k.store != nil {
		k.store.Way.Do(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "1.2.7.2") {
				w.WriteHeader(http.StatusServiceUnavailable)
				return true
			}
			return false
		})
		nothing("S3 takes one of two", report(now, doc("1"), doc("2")), pipeline.ErrUnavailable)
		k.store.Way.Do(nil)
	}
	if err := report(now, doc("1"), doc("2")); err != nil {
		t.Fatal(err)
	}
	k.expect(t, image, foreign, doc("1").Bytes, doc("2").Bytes)
	if l, err := a.Life(ctx, "1.2"); err != nil || l.State != pipeline.StateReported {
		t.Error(l.State, err)
	}
}
