package archive_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chatxray/pipeline"
	"chatxray/pipeline/archive"
	"chatxray/pipeline/dicom"
)

// kind is an archive in a folder or in S3, with an index of each kind, and where its files are to be seen by others.
type kind struct {
	dir, files string
	opts       archive.Options
	store      *archive.Store
}

func inFolder(t *testing.T) *kind {
	dir := t.TempDir()
	return &kind{dir: dir, files: dir, opts: indexed(t, dir, archive.Options{Reserve: -1})}
}

func inS3(t *testing.T) *kind {
	s := archive.StartStore(t)
	dir := t.TempDir()
	return &kind{dir: dir, files: s.Dir, store: s, opts: indexed(t, dir, archive.Options{Reserve: -1, Objects: s.Name, S3: s.S3, Cache: 64 << 20})}
}

func kinds(t *testing.T, f func(t *testing.T, k *kind)) {
	onEach(t, func(t *testing.T) {
		t.Run("folder", func(t *testing.T) { f(t, inFolder(t)) })
		t.Run("s3", func(t *testing.T) { f(t, inS3(t)) })
	})
}

func (k *kind) open(t *testing.T) *archive.Archive { return open(t, k.dir, k.opts) }

// outside is what another program sees of the instances and documents: the sha256 of every file.
func (k *kind) outside(t *testing.T) map[pipeline.Digest]int {
	t.Helper()
	out := map[pipeline.Digest]int{}
	for _, tree := range []string{"instances", "documents"} {
		err := filepath.WalkDir(filepath.Join(k.files, tree), func(path string, e fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || e.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			out[sha256.Sum256(b)]++
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// file is the path of an instance's file as another program sees it.
func (k *kind) file(t *testing.T, sop string) string {
	t.Helper()
	found, _ := filepath.Glob(filepath.Join(k.files, "instances", "*", "*", sop+"*"))
	if len(found) != 1 {
		t.Fatal(sop, "has the files", found)
	}
	return found[0]
}

// emptied removes the cache, as another process begins.
func (k *kind) emptied(t *testing.T) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(k.dir, "cache")); err != nil {
		t.Fatal(err)
	}
}

func (k *kind) expect(t *testing.T, contents ...[]byte) {
	t.Helper()
	got := k.outside(t)
	for _, b := range contents {
		if sum := sha256.Sum256(b); got[sum] != 1 {
			t.Errorf("%d files have the bytes of %x", got[sum], sum[:4])
		}
	}
	if len(got) != len(contents) {
		t.Errorf("%d files for %d instances", len(got), len(contents))
	}
}

func sameBytes(t *testing.T, a *archive.Archive, sop string, want []byte) {
	t.Helper()
	found, err := a.Instances(context.Background(), "", "", sop)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(found[0].Path); err != nil || !bytes.Equal(b, want) {
		t.Errorf("instance %s comes back otherwise: %v", sop, err)
	}
}

// TestKinds goes through an archive's life in each kind.
func TestKinds(t *testing.T) { kinds(t, life) }

func life(t *testing.T, k *kind) {
	ctx := context.Background()
	a := k.open(t)
	one, two := object(t, "1.2", "1.2.3", "1.2.3.4"), object(t, "1.2", "1.2.3", "1.2.3.5")
	other := object(t, "1.9", "1.9.3", "1.9.3.4")
	mustStore(t, a, one, two)
	mustStore(t, a, other)
	k.expect(t, one, two, other)
	sameBytes(t, a, "1.2.3.4", one)

	if o := store(t, a, one)[0]; o.Err != nil || !o.Duplicate {
		t.Error("the same again:", o.Err, o.Duplicate)
	}
	if o := store(t, a, otherMeta(one))[0]; o.Err != nil || !o.Duplicate {
		t.Error("the same behind another File Meta Information:", o.Err, o.Duplicate)
	}
	changed := object(t, "1.2", "1.2.3", "1.2.3.4", pipeline.TagPatientID, "P2")
	if o := store(t, a, changed)[0]; !errors.Is(o.Err, pipeline.ErrConflict) {
		t.Error("other content:", o.Err)
	}
	k.expect(t, one, two, other)

	// Our own, and what goes with the records.
	doc := object(t, "1.2", "1.2.7", "1.2.7.1")
	docs := []pipeline.Document{{StudyInstanceUID: "1.2", SeriesInstanceUID: "1.2.7", SOPInstanceUID: "1.2.7.1", SOPClassUID: "1.2.840.10008.5.1.4.1.1.1.1", Bytes: doc}}
	if _, err := a.Report(ctx, pipeline.Life{StudyInstanceUID: "1.2"}, "k", docs, func(r *pipeline.Record) {
		r.State, r.Error, r.Documents = pipeline.StateFailed, "as a test", []pipeline.DocumentRef{{SeriesInstanceUID: "1.2.7", SOPInstanceUID: "1.2.7.1", SOPClassUID: docs[0].SOPClassUID}}
	}); err != nil {
		t.Fatal(err)
	}
	if err := a.PutPreview(ctx, "1.2", "k", []byte("png")); err != nil {
		t.Fatal(err)
	}
	at := time.Now()
	if _, err := a.Converse(ctx, "1.2", "ada", []pipeline.Said{{Role: "user", Text: "?", Time: &at}}, 0); err != nil {
		t.Fatal(err)
	}
	k.expect(t, one, two, other, doc)

	all := func(a *archive.Archive) {
		t.Helper()
		for sop, b := range map[string][]byte{"1.2.3.4": one, "1.2.3.5": two, "1.9.3.4": other, "1.2.7.1": doc} {
			sameBytes(t, a, sop, b)
		}
		if st, err := a.Study(ctx, "1.2"); err != nil || len(st.Instances) != 2 {
			t.Error("the study:", err)
		}
		if r, err := a.Records(ctx, "1.2"); err != nil || len(r) != 1 || r[0].Error != "as a test" {
			t.Error("the record:", r, err)
		}
		if b, err := a.Preview(ctx, "1.2", "k"); err != nil || string(b) != "png" {
			t.Error("the picture:", err)
		}
		if c, err := a.Conversations(ctx, "1.2"); err != nil || len(c) != 1 {
			t.Error("the conversation:", c, err)
		}
	}
	a.Close()
	k.emptied(t)
	a = k.open(t)
	all(a)
	a.Close()

	// Everything but the files is lost.
	k.emptied(t)
	opts := k.opts
	opts.Warn = func(what, path string, err error) { t.Error(what, path, err) }
	if n, err := archive.Rebuild(ctx, k.dir, dicom.OpenFile, opts); err != nil || n != 4 {
		t.Fatal("rebuilt:", n, err)
	}
	if c, err := archive.Check(ctx, k.dir, opts); err != nil || c.Whole != 4 || c.Problems() != 0 {
		t.Error("checked:", c, err)
	}
	a = k.open(t)
	all(a)
	if in, err := a.Entries(ctx, "1.2", "1.2.7", ""); err != nil || len(in) != 1 {
		t.Error(err)
	}

	if n, left, err := a.Delete(ctx, "1.2", "1.2.3", "1.2.3.4"); n != 1 || !left || err != nil {
		t.Error("deleted:", n, left, err)
	}
	k.expect(t, two, other, doc)
	if n, left, err := a.Delete(ctx, "1.2", "", ""); n != 2 || left || err != nil {
		t.Error("deleted:", n, left, err)
	}
	k.expect(t, other)
	if left := under(t, filepath.Join(k.files, "records")); len(left) != 0 {
		t.Error("records stay:", left)
	}
	mustStore(t, a, one)
	k.expect(t, one, other)
	sameBytes(t, a, "1.2.3.4", one)
}

// TestKindsReplace: a later content counts, also in an index that is made anew.
func TestKindsReplace(t *testing.T) {
	kinds(t, func(t *testing.T, k *kind) {
		k.opts.Replace = true
		a := k.open(t)
		first, second := object(t, "1.2", "1.2.3", "1.2.3.4"), object(t, "1.2", "1.2.3", "1.2.3.4", pipeline.TagPatientID, "P2")
		third := object(t, "1.2", "1.2.3", "1.2.3.4", pipeline.TagPatientID, "P3")
		mustStore(t, a, first)
		for _, b := range [][]byte{second, third} {
			if o := store(t, a, b)[0]; o.Err != nil || !o.Replaced {
				t.Fatal(o.Err)
			}
		}
		check := func() {
			t.Helper()
			sameBytes(t, a, "1.2.3.4", third)
			found, err := a.Search(context.Background(), pipeline.Query{Match: []pipeline.Match{{Tag: pipeline.TagPatientID, Value: "P3"}}})
			if err != nil || len(found.Results) != 1 {
				t.Error("the study is not found by what replaced it:", err)
			}
		}
		check()
		k.expect(t, first, second, third)
		a.Close()
		k.emptied(t)
		if n, err := archive.Rebuild(context.Background(), k.dir, dicom.OpenFile, k.opts); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		if c, err := archive.Check(context.Background(), k.dir, k.opts); err != nil || c.Whole != 1 || c.Problems() != 0 || k.store == nil && c.Replaced != 2 {
			t.Error(c, err)
		}
		a = k.open(t)
		check()
		if _, left, err := a.Delete(context.Background(), "1.2", "1.2.3", "1.2.3.4"); left || err != nil {
			t.Error(err)
		}
		k.expect(t)
	})
}

// TestKindsCheck: what others do to the files is told.
func TestKindsCheck(t *testing.T) {
	kinds(t, func(t *testing.T, k *kind) {
		began := time.Now().Add(-time.Hour)
		k.opts.Now = func() time.Time { return began }
		a := k.open(t)
		for n := range 4 {
			mustStore(t, a, object(t, "1.2", "1.2.3", fmt.Sprintf("1.2.3.%d", n)))
		}
		a.Close()
		damaged, lost, stray := k.file(t, "1.2.3.0"), k.file(t, "1.2.3.1"), k.file(t, "1.2.3.2")
		b, err := os.ReadFile(damaged)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)-1] ^= 1
		if err := errors.Join(os.WriteFile(damaged, b, 0o600), os.Remove(lost),
			os.WriteFile(strings.Replace(stray, "1.2.3.2", "1.2.3.20", 1), b, 0o600)); err != nil {
			t.Fatal(err)
		}
		opts, told := k.opts, 0
		opts.Now = nil
		opts.Warn = func(string, string, error) { told++ }
		c, err := archive.Check(context.Background(), k.dir, opts)
		if want := (archive.Checked{Whole: 2, Damaged: 1, Missing: 1, Stray: 1}); c != want || err != nil || told != 3 {
			t.Error(c, told, err)
		}
		// A lost one is sent again as it was.
		k.emptied(t)
		a = k.open(t)
		if o := store(t, a, object(t, "1.2", "1.2.3", "1.2.3.1"))[0]; o.Err != nil {
			t.Fatal(o.Err)
		}
		a.Close()
		if c, err := archive.Check(context.Background(), k.dir, opts); c.Missing != 0 || err != nil {
			t.Error(c, err)
		}
		a = k.open(t)
		if _, err := a.Study(context.Background(), "1.2"); !errors.Is(err, pipeline.ErrInvalid) {
			t.Error("a damaged file is read:", err)
		}
		if _, err := a.Instances(context.Background(), "", "", "1.2.3.0"); k.store != nil && !errors.Is(err, pipeline.ErrInvalid) {
			t.Error("a damaged object is fetched:", err)
		}
	})
}

// TestKindsKilled kills processes in the middle of commits: what they had acknowledged is there, and nothing that is not entered stays.
func TestKindsKilled(t *testing.T) { kinds(t, killed) }

// TestAway: S3 is out of order in several ways. Nothing is half kept, nothing hangs, and when it is back all goes on.
func TestAway(t *testing.T) {
	k := inS3(t)
	k.opts.S3.TimeoutSeconds = 1
	a := k.open(t)
	ctx := context.Background()
	kept := object(t, "1.1", "1.1.1", "1.1.1.1")
	mustStore(t, a, kept)
	contents := [][]byte{kept}
	hang := make(chan struct{})
	defer close(hang)
	for name, harm := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"answers 503": func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		},
		"hangs": func(_ http.ResponseWriter, r *http.Request) bool {
			select {
			case <-r.Context().Done():
			case <-hang:
			}
			return true
		},
		"cuts": func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) },
		"cuts its answers": func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Content-Length", "100000")
			w.WriteHeader(http.StatusOK)
			w.Write(make([]byte, 1000))
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		},
	} {
		t.Run(name, func(t *testing.T) {
			evict(t, k.dir)
			k.store.Way.Do(harm)
			uid := fmt.Sprintf("1.2.%d", len(contents))
			file := object(t, uid, uid+".1", uid+".1.1")
			if name != "cuts its answers" { // an answer 200 is one, whatever follows
				if o := store(t, a, file)[0]; !errors.Is(o.Err, pipeline.ErrUnavailable) {
					t.Error("stored:", o.Err)
				}
				if _, err := a.Entries(ctx, uid, "", ""); !errors.Is(err, pipeline.ErrNotFound) {
					t.Error("half kept:", err)
				}
				if err := a.PutPreview(ctx, "1.1", "k", []byte("png")); !errors.Is(err, pipeline.ErrUnavailable) {
					t.Error("picture:", err)
				}
				if _, _, err := a.Delete(ctx, "1.1", "", ""); !errors.Is(err, pipeline.ErrUnavailable) {
					t.Error("deleted:", err)
				}
				if err := a.Ready(ctx); !errors.Is(err, pipeline.ErrUnavailable) {
					t.Error("ready:", err)
				}
			}
			if _, err := a.Instances(ctx, "1.1", "", ""); !errors.Is(err, pipeline.ErrUnavailable) {
				t.Error("fetched:", err)
			}
			if _, err := a.Study(ctx, "1.1"); !errors.Is(err, pipeline.ErrUnavailable) {
				t.Error("read:", err)
			}
			k.store.Way.Do(nil)
			if err := a.Ready(ctx); err != nil {
				t.Error(err)
			}
			if o := store(t, a, file)[0]; o.Err != nil || o.Duplicate {
				t.Error("it is back:", o.Err, o.Duplicate)
			}
			contents = append(contents, file)
			k.expect(t, contents...)
			sameBytes(t, a, "1.1.1.1", kept)
		})
	}
	// It comes nevertheless, and only the answer is lost: the index does not know it, and neither does the bucket later.
	t.Run("loses an answer", func(t *testing.T) {
		k.store.Way.After(func(r *http.Request) bool { return r.Method == http.MethodPut })
		if o := store(t, a, object(t, "1.3", "1.3.1", "1.3.1.1"))[0]; !errors.Is(o.Err, pipeline.ErrUnavailable) {
			t.Error("stored:", o.Err)
		}
		k.store.Way.After(nil)
		if n := len(k.outside(t)); n != len(contents)+1 {
			t.Fatal("the upload did not come:", n)
		}
		if err := a.Sweep(ctx); err != nil {
			t.Fatal(err)
		}
		k.expect(t, contents...)
	})
	// It is away in the middle of a deletion: what is gone from the index goes from the bucket later.
	t.Run("deletions", func(t *testing.T) {
		k.store.Way.Do(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodDelete {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			return r.Method == http.MethodDelete
		})
		if _, _, err := a.Delete(ctx, "1.1", "", ""); !errors.Is(err, pipeline.ErrUnavailable) {
			t.Error("deleted:", err)
		}
		if _, err := a.Entries(ctx, "1.1", "", ""); !errors.Is(err, pipeline.ErrNotFound) {
			t.Error("it is still found:", err)
		}
		k.store.Way.Do(nil)
		a.Close()
		a = k.open(t)
		if err := a.Sweep(ctx); err != nil {
			t.Fatal(err)
		}
		k.expect(t, contents[1:]...)
	})
}

// TestStartOfS3: what is wrong is told at start, and an S3 that is away is no reason not to start.
func TestStartOfS3(t *testing.T) {
	k := inS3(t)
	for name, change := range map[string]func(*archive.Options){
		"secret": func(o *archive.Options) { o.S3.SecretKey = "another" },
		"key":    func(o *archive.Options) { o.S3.AccessKey = "another" },
		"bucket": func(o *archive.Options) { o.Objects = "s3://another" },
	} {
		opts := k.opts
		change(&opts)
		opts.Warn = func(what, _ string, err error) { t.Error(name, what, err) }
		if a, err := archive.Open(k.dir, dicom.OpenFile, opts); !errors.Is(err, pipeline.ErrUnavailable) {
			t.Error(name, err)
			if err == nil {
				a.Close()
			}
		} else if strings.Contains(err.Error(), "of-the-tests") {
			t.Error("a secret is told:", err)
		}
	}
	told := 0
	opts := k.opts
	opts.Warn = func(string, string, error) { told++ }
	k.store.Way.Do(func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	a := open(t, k.dir, opts)
	if told != 1 {
		t.Error("an S3 that is away was told", told, "times")
	}
	k.store.Way.Do(nil)
	mustStore(t, a, object(t, "1.2", "1.2.3", "1.2.3.4"))
	a.Close()
	if a, err := archive.Open(k.dir, dicom.OpenFile, archive.Options{Reserve: -1}); !errors.Is(err, pipeline.ErrInvalid) {
		t.Error("its index is used without S3:", err)
		if err == nil {
			a.Close()
		}
	}
	f := inFolder(t)
	a = f.open(t)
	mustStore(t, a, object(t, "1.2", "1.2.3", "1.2.3.4"))
	a.Close()
	if a, err := archive.Open(f.dir, dicom.OpenFile, k.opts); !errors.Is(err, pipeline.ErrInvalid) {
		t.Error("the index of a folder is used with S3:", err)
		if err == nil {
			a.Close()
		}
	}
}

// evict removes the files in the cache.
func evict(t *testing.T, dir string) {
	t.Helper()
	for _, path := range under(t, filepath.Join(dir, "cache")) {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// Two processes with a folder of their own each, over one index in PostgreSQL and one bucket: what one has taken the other gives, keeps and deletes.
func TestTwoFoldersOneBucket(t *testing.T) {
	t.Run("postgres", func(t *testing.T) {
		ctx := context.Background()
		k := inS3(t)
		web := k.open(t)
		worker, err := archive.Open(t.TempDir(), dicom.OpenFile, k.opts)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { worker.Close() })
		one, two := object(t, "1.2", "1.2.3", "1.2.3.4"), object(t, "1.2", "1.2.3", "1.2.3.5")
		mustStore(t, web, one)
		sameBytes(t, worker, "1.2.3.4", one)
		mustStore(t, worker, two)
		sameBytes(t, web, "1.2.3.5", two)
		if o := store(t, worker, one)[0]; o.Err != nil || !o.Duplicate {
			t.Error("the same at the other:", o.Err, o.Duplicate)
		}
		if o := store(t, worker, object(t, "1.2", "1.2.3", "1.2.3.4", pipeline.TagPatientID, "P2"))[0]; !errors.Is(o.Err, pipeline.ErrConflict) {
			t.Error("other content at the other:", o.Err)
		}
		k.expect(t, one, two)
		if n, left, err := worker.Delete(ctx, "1.2", "", ""); n != 2 || left || err != nil {
			t.Error("deleted at the other:", n, left, err)
		}
		if found, err := web.Instances(ctx, "1.2", "", ""); len(found) != 0 && err == nil {
			t.Errorf("%d instances are left", len(found))
		}
		k.expect(t)
	})
}
