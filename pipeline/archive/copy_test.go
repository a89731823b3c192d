package archive_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chatxray/pipeline"
	"chatxray/pipeline/archive"
	"chatxray/pipeline/dicom"
)

// The copy of a record is of its last commit, whoever writes it last: also where two processes change it.
func TestCopyOfARecord(t *testing.T) { kinds(t, copyOfARecord) }

func copyOfARecord(t *testing.T, k *kind) {
	ctx := context.Background()
	a := k.open(t)
	mustStore(t, a, object(t, "1.2", "1.2.1", "1.2.1.1"))
	writers := []*archive.Archive{a}
	if onPostgres(t) {
		dir := k.dir
		if k.store != nil { // its own cache
			dir = t.TempDir()
		}
		b, err := archive.Open(dir, dicom.OpenFile, k.opts)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		writers = append(writers, b)
	}
	for round := range 5 {
		var work sync.WaitGroup
		for i := range 16 {
			for _, key := range []string{"a", "b"} {
				work.Go(func() {
					_, err := writers[i%len(writers)].UpdateRecord(ctx, pipeline.Life{StudyInstanceUID: "1.2"}, key, func(r *pipeline.Record) {
						r.State = pipeline.StateRead
						r.Error += fmt.Sprintf("%d.%d ", round, i)
					})
					if err != nil {
						t.Error(err)
					}
				})
			}
		}
		work.Wait()
		records, err := a.Records(ctx, "1.2")
		if err != nil || len(records) != 2 {
			t.Fatal(records, err)
		}
		for _, want := range records {
			if n := strings.Count(want.Error, "."); n != 16*(round+1) {
				t.Fatalf("the index has %d changes of record %s", n, want.Key)
			}
			if diff := cmp.Diff(want, k.copied(t, want.Key)); diff != "" {
				t.Fatalf("round %d: the copy is of another commit than the index: %s", round, diff)
			}
		}
	}
}

// copied is what another program sees of a record of study 1.2.
func (k *kind) copied(t *testing.T, key string) (r pipeline.Record) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(k.files, "records", "1.2", key+".json"))
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A file that is late, of an older commit or of a study that is deleted by then, does not stay; many records are copied meanwhile.
func TestALateCopy(t *testing.T) {
	onEach(t, func(t *testing.T) { lateCopy(t, inS3(t)) })
}

func lateCopy(t *testing.T, k *kind) {
	ctx := context.Background()
	a := k.open(t)
	mustStore(t, a, object(t, "1.2", "1.2.1", "1.2.1.1"))
	update := func(key, what string) {
		if _, err := a.UpdateRecord(ctx, pipeline.Life{StudyInstanceUID: "1.2"}, key, func(r *pipeline.Record) { r.Error = what }); err != nil {
			t.Error(err)
		}
	}
	// late has the file of an update of record a wait until something else has been done.
	late := func(what string, meanwhile func()) {
		var began atomic.Bool
		waits, goOn, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
		k.store.Way.Do(func(_ http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/a.json") && !began.Swap(true) {
				close(waits)
				<-goOn
			}
			return false
		})
		defer k.store.Way.Do(nil)
		go func() { defer close(done); update("a", what) }()
		<-waits
		meanwhile()
		close(goOn)
		<-done
	}
	late("first", func() {
		update("a", "second")
		update("b", "of another record")
	})
	for key, want := range map[string]string{"a": "second", "b": "of another record"} {
		if got := k.copied(t, key).Error; got != want {
			t.Errorf("the copy of %s says %q, want %q", key, got, want)
		}
	}
	late("third", func() {
		if _, _, err := a.Delete(ctx, "1.2", "", ""); err != nil {
			t.Error(err)
		}
	})
	if left, _ := filepath.Glob(filepath.Join(k.files, "records", "1.2", "*")); len(left) != 0 {
		t.Errorf("of a deleted study there are %q", left)
	}
}
