package archive_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chatxray/pipeline"
	"chatxray/pipeline/archive"
	"chatxray/pipeline/dicom"
)

// TestTogether is about several processes over one archive. Its parts are named postgres, for onPostgres.
func TestTogether(t *testing.T) {
	t.Run("postgres", func(t *testing.T) {
		t.Run("children", testChildrenTogether)
		t.Run("fence", testFenceAcross)
		t.Run("same instance", testSameInstanceAcross)
		t.Run("uploads", testUploadsOfOthers)
		t.Run("deletions", testDeletionOfOther)
		t.Run("held", testHeldAcross)
		t.Run("held no more", testHeldNoMore)
		t.Run("coming and going", testComingAndGoing)
		t.Run("coming to a lost index", testComingToLostIndex)
		t.Run("comparison without index", testComparisonWithoutIndex)
		t.Run("restart", testRestart)
		t.Run("refusals", testPostgresRefuses)
	})
}

// Three processes commit into the same studies; one after the other is killed in the middle and started anew. What any has acknowledged is there once, and
// what a result tells of the levels below is right.
func testChildrenTogether(t *testing.T) {
	dir := t.TempDir()
	index := indexed(t, dir, archive.Options{}).Index.Reveal()
	var mu sync.Mutex
	acknowledged := map[string]string{}
	var work sync.WaitGroup
	for p := range 3 {
		work.Go(func() {
			for round := range 2 {
				cmd := exec.Command(os.Args[0])
				cmd.Env = append(os.Environ(), "ARCHIVE_CHILD="+dir, "ARCHIVE_INDEX="+index)
				var complaint bytes.Buffer
				cmd.Stderr = &complaint
				out, err := cmd.StdoutPipe()
				if err == nil {
					err = cmd.Start()
				}
				if err != nil {
					t.Error(err)
					return
				}
				lines, kill := bufio.NewScanner(out), 60+23*p+40*round
				for n := 0; lines.Scan(); n++ {
					if f := strings.Fields(lines.Text()); len(f) == 4 {
						mu.Lock()
						acknowledged[f[2]] = f[3]
						mu.Unlock()
					}
					if n == kill {
						_ = cmd.Process.Kill()
					}
				}
				_ = cmd.Wait()
				if complaint.Len() > 0 {
					t.Error(complaint.String())
				}
			}
		})
	}
	work.Wait()
	a := open(t, dir, archive.Options{Warn: func(what, path string, err error) { t.Error(what, path, err) }})
	compared(t, a)
	all, err := a.Instances(t.Context(), "", "", "")
	if err != nil {
		t.Fatal(err)
	}
	kept, perStudy := map[string]string{}, map[string]int{}
	for _, in := range all {
		kept[in.SOPInstanceUID] = in.Digest.String()
		perStudy[in.StudyInstanceUID]++
	}
	for uid, digest := range acknowledged {
		if kept[uid] != digest {
			t.Errorf("an acknowledged instance is not as it was: %s", uid)
		}
	}
	found, err := a.Search(t.Context(), pipeline.Query{})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range found.Results {
		if n, _ := d.Int(pipeline.TagNumberOfStudyRelatedInstances); n != perStudy[d.String(pipeline.TagStudyInstanceUID)] {
			t.Errorf("a study of %d instances is told to have %d", perStudy[d.String(pipeline.TagStudyInstanceUID)], n)
		}
	}
	if left := uploads(t, dir); len(left) > 0 {
		t.Error("uploads of processes that died stay:", left)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if c, told := checked(t, dir); c.Problems() > 0 {
		t.Error(c, told)
	}
	t.Logf("%d acknowledged, %d kept", len(acknowledged), len(all))
}

// Of two processes that have begun with a study, only the later one writes.
func testFenceAcross(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	a, b := open(t, dir, archive.Options{}), open(t, dir, archive.Options{})
	mustStore(t, a, object(t, "1.2", "1.2.1", "1.2.1.1"))
	begin := func(at *archive.Archive, worker string) pipeline.Life {
		t.Helper()
		l, _, err := at.Begin(ctx, "1.2", func(pipeline.Life) []pipeline.Change {
			return []pipeline.Change{{At: time.Now(), State: pipeline.StateReading, Worker: worker}}
		})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	first := begin(a, "a")
	second := begin(b, "b")
	put := func(at *archive.Archive, l pipeline.Life) error {
		_, err := at.UpdateRecord(ctx, l, "k", func(r *pipeline.Record) { r.Error += l.Worker },
			pipeline.Change{At: time.Now(), State: pipeline.StateReported, Worker: l.Worker})
		return err
	}
	if err := put(a, first); !errors.Is(err, pipeline.ErrLost) {
		t.Error(err)
	}
	if err := put(b, second); err != nil {
		t.Error(err)
	}
	for at, r := range map[*archive.Archive]string{a: "a", b: "b"} {
		if got, err := at.Records(ctx, "1.2"); err != nil || len(got) != 1 || got[0].Error != "b" {
			t.Error(r, got, err)
		}
	}
	// Many at once begin: each has a fence of its own.
	var work sync.WaitGroup
	fences := make([]int64, 20)
	for i := range fences {
		work.Go(func() { fences[i] = begin([]*archive.Archive{a, b}[i%2], "w").Fence })
	}
	work.Wait()
	seen := map[int64]bool{}
	for _, f := range fences {
		if seen[f] {
			t.Error("two workers have one fence:", fences)
		}
		seen[f] = true
	}
}

// The same instance comes to two processes at once: one keeps it, and each answers that it is kept.
func testSameInstanceAcross(t *testing.T) {
	dir := t.TempDir()
	both := []*archive.Archive{open(t, dir, archive.Options{}), open(t, dir, archive.Options{})}
	for n := range 30 {
		sop := fmt.Sprint("1.2.1.", n+1)
		var outcomes [2]pipeline.Outcome
		var work sync.WaitGroup
		for i, a := range both {
			work.Go(func() { outcomes[i] = store(t, a, object(t, "1.2", "1.2.1", sop))[0] })
		}
		work.Wait()
		if outcomes[0].Err != nil || outcomes[1].Err != nil || outcomes[0].Duplicate == outcomes[1].Duplicate {
			t.Fatalf("%+v", outcomes)
		}
	}
	found, err := both[0].Instances(t.Context(), "1.2", "", "")
	if err != nil || len(found) != 30 {
		t.Error(len(found), err)
	}
}

// A process that comes leaves the uploads of one that lives, and removes those of one that died.
func testUploadsOfOthers(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir, archive.Options{})
	s, err := a.Stage(t.Context(), bytes.NewReader(object(t, "1.2", "1.2.1", "1.2.1.1")))
	if err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(dir, "incoming", "gone-1")
	if err := errors.Join(os.Mkdir(dead, 0o700), os.WriteFile(filepath.Join(dead, "lock"), nil, 0o600), os.WriteFile(filepath.Join(dead, "x.part"), []byte("half"), 0o600)); err != nil {
		t.Fatal(err)
	}
	b := open(t, dir, archive.Options{})
	if diff := cmp.Diff([]string{s.Instance.Path}, uploads(t, dir)); diff != "" {
		t.Error(diff)
	}
	if o := a.Commit(t.Context(), []*pipeline.Staged{s})[0]; o.Err != nil {
		t.Error(o.Err)
	}
	if _, err := archive.Rebuild(t.Context(), dir, dicom.OpenFile, indexed(t, dir, archive.Options{})); !errors.Is(err, pipeline.ErrBusy) {
		t.Error("an index that others use is made anew:", err)
	}
	if _, err := archive.Open(dir, dicom.OpenFile, archive.Options{}); !errors.Is(err, pipeline.ErrBusy) {
		t.Error("an index in the folder is opened beside:", err)
	}
	if err := errors.Join(a.Close(), b.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "clean")); err == nil {
		t.Error("the archive is told to be in order, though a process died")
	}
	// Alone, the next one looks for files without entry, and forgets who died.
	lost := filepath.Join(dir, "instances", "1.2", "1.2.1", "1.2.1.2.dcm")
	if err := os.WriteFile(lost, object(t, "1.2", "1.2.1", "1.2.1.2"), 0o600); err != nil {
		t.Fatal(err)
	}
	a = open(t, dir, archive.Options{})
	compared(t, a)
	if found, err := a.Instances(t.Context(), "1.2", "", ""); err != nil || len(found) != 2 {
		t.Error(found, err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "clean")); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(filepath.Join(dir, "incoming")); len(left) != 1 { // turn
		t.Error(left)
	}
}

// A deletion that a process noted before it died is finished by the next one that comes, though others live.
func testDeletionOfOther(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	a := open(t, dir, archive.Options{})
	mustStore(t, a, object(t, "1.2", "1.2.1", "1.2.1.1"), object(t, "1.3", "1.3.1", "1.3.1.1"))
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "deleting"), 0o700),
		os.WriteFile(filepath.Join(dir, "deleting", "gone-1.json"), []byte(`{"study":"1.2"}`), 0o600)); err != nil {
		t.Fatal(err)
	}
	b := open(t, dir, archive.Options{})
	for _, at := range []*archive.Archive{a, b} {
		if found, err := at.Instances(ctx, "1.2", "", ""); !errors.Is(err, pipeline.ErrNotFound) {
			t.Error(found, err)
		}
	}
	mustStore(t, a, object(t, "1.2", "1.2.1", "1.2.1.1")) // what is stored again stays
	open(t, dir, archive.Options{})
	if found, err := b.Instances(ctx, "1.2", "", ""); err != nil || len(found) != 1 {
		t.Error(found, err)
	}
	if n, left, err := b.Delete(ctx, "1.3", "", ""); n != 1 || left || err != nil {
		t.Error(n, left, err)
	}
	if found, err := a.Instances(ctx, "1.3", "", ""); !errors.Is(err, pipeline.ErrNotFound) {
		t.Error(found, err)
	}
}

// PostgreSQL crashes and comes back in the middle of commits: what was answered is there, what was not says that it may be tried again, and the archive goes
// on by itself.
func testRestart(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir, archive.Options{})
	s := server(t)
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	kept, refused, since := map[string]bool{}, 0, 0
	var work sync.WaitGroup
	for g := range 4 {
		work.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				study := fmt.Sprintf("1.2.%d.%d", g, n%5)
				sop := fmt.Sprintf("%s.1.%d", study, n)
				o := store(t, a, object(t, study, study+".1", sop))[0]
				_, err := a.Life(ctx, study)
				mu.Lock()
				for _, err := range []error{o.Err, err} {
					if err != nil && !errors.Is(err, pipeline.ErrBusy) && !errors.Is(err, pipeline.ErrNotFound) && ctx.Err() == nil {
						t.Errorf("neither kept nor to be tried again: %v", err)
					}
				}
				if o.Err == nil {
					kept[sop] = true
					since++
				} else {
					refused++
				}
				mu.Unlock()
			}
		})
	}
	wait := func(what string, done func() bool) {
		t.Helper()
		for end := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
			mu.Lock()
			ok := done()
			mu.Unlock()
			if ok {
				return
			}
			if time.Now().After(end) {
				t.Errorf("waited in vain for %s", what)
				return
			}
		}
	}
	for range 3 {
		before := refused
		wait("commits", func() bool { return since > 20 })
		if err := s.Down("immediate"); err != nil {
			t.Fatal(err)
		}
		wait("a refusal", func() bool { return refused > before })
		if err := a.Ping(ctx); !errors.Is(err, pipeline.ErrBusy) {
			t.Errorf("PostgreSQL is away: %v", err)
		}
		if err := s.Up(); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		since = 0
		mu.Unlock()
	}
	wait("commits after the last crash", func() bool { return since > 20 })
	cancel()
	work.Wait()
	all, err := a.Instances(t.Context(), "", "", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range all {
		delete(kept, in.SOPInstanceUID)
		if found, err := dicom.OpenFile(in.Path); err != nil || found.Digest != in.Digest {
			t.Errorf("an entry without its file: %v", err)
		}
	}
	if len(kept) > 0 {
		t.Errorf("%d acknowledged instances are gone", len(kept))
	}
	t.Logf("%d kept, %d refused", len(all), refused)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	// Files of commits that were refused have no entry; the next start, alone, gives them one.
	a = open(t, dir, archive.Options{Warn: func(what, path string, err error) { t.Error(what, path, err) }})
	compared(t, a)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if c, told := checked(t, dir); c.Problems() > 0 {
		t.Error(c, told)
	}
}

// What cannot be used is told at the start, without the password.
func testPostgresRefuses(t *testing.T) {
	s := server(t)
	url := s.URL("archives")
	refused := func(what, url string, sentinel error, says string) {
		t.Helper()
		_, err := archive.Open(t.TempDir(), dicom.OpenFile, archive.Options{Index: pipeline.Secret(url)})
		if !errors.Is(err, sentinel) || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "only-for-tests") {
			t.Errorf("%s: %v", what, err)
		}
	}
	must := func(database, text string) {
		t.Helper()
		if err := s.Query(database, text); err != nil {
			t.Fatal(err)
		}
	}
	must("archives", "CREATE SCHEMA another; CREATE TABLE another.patients (id int)")
	refused("tables of another", url+"&search_path=another", pipeline.ErrConflict, "tables of something else")
	open(t, t.TempDir(), archive.Options{}).Close()
	dir := t.TempDir()
	open(t, dir, archive.Options{}).Close()
	must("archives", "UPDATE "+schemaOf(dir)+".chatxray_index SET version = 999")
	refused("a newer index", url+"&search_path="+schemaOf(dir), pipeline.ErrUnsupported, "it has version 999")
	dir = t.TempDir()
	a := open(t, dir, archive.Options{})
	mustStore(t, a, object(t, "1.2", "1.2.1", "1.2.1.1"))
	refused("another folder", url+"&search_path="+schemaOf(dir), pipeline.ErrInvalid, "not the folder that the other processes share")
	refused("no such database", strings.Replace(url, "/archives", "/nowhere", 1), pipeline.ErrBusy, `"nowhere" does not exist`)
	refused("nobody listens", "postgres://a:only-for-tests@127.0.0.1:1/x", pipeline.ErrBusy, "does not answer")
	refused("no URL", "postgres://a:only-for-tests@host:port/x", pipeline.ErrInvalid, "archive.index")
	refused("another database", "mysql://a:only-for-tests@host/x", pipeline.ErrInvalid, "archive.index")
	must("archives", "DROP ROLE IF EXISTS poor")
	must("archives", "CREATE ROLE poor LOGIN")
	refused("no right", strings.Replace(url, "//postgres:", "//poor:", 1)+"&search_path=mine", pipeline.ErrInvalid, "right to create")
	must("postgres", "CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
	refused("another encoding", strings.Replace(url, "/archives", "/latin", 1), pipeline.ErrUnsupported, "UTF8")
	// A schema that somebody has made for the index will do.
	must("archives", "CREATE SCHEMA made AUTHORIZATION poor")
	a, err := archive.Open(t.TempDir(), dicom.OpenFile, archive.Options{Index: pipeline.Secret(strings.Replace(url, "//postgres:", "//poor:", 1) + "&search_path=made")})
	if err != nil {
		t.Fatal(err)
	}
	a.Close()
}

// A deletion whose connection dies does not know any more that nobody stores the same again: it removes no file.
func testHeldNoMore(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir, archive.Options{})
	mustStore(t, a, object(t, "1.2", "1.2.1", "1.2.1.1"))
	err := a.DeleteAfter(t.Context(), "1.2", func() {
		// The schema is quoted nowhere in what a backend tells, but a deletion is the only one that waits within a transaction for so long.
		if err := server(t).Query("archives", `SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid
			WHERE l.locktype = 'advisory' AND a.state = 'idle in transaction'`); err != nil {
			t.Fatal(err)
		}
	})
	if !errors.Is(err, pipeline.ErrBusy) {
		t.Fatal("the deletion says", err)
	}
	found, err := a.Instances(t.Context(), "1.2", "", "")
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	if _, err := os.Stat(found[0].Path); err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.Delete(t.Context(), "1.2", "", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(found[0].Path); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
}

// Processes that come at the same moment to an archive whose index was lost know what was read before, all of them.
func testComingToLostIndex(t *testing.T) {
	dir := t.TempDir()
	opts := indexed(t, dir, archive.Options{Reserve: -1})
	a := open(t, dir, archive.Options{})
	mustStore(t, a, object(t, "1.2", "1.2.1", "1.2.1.1"))
	if _, err := a.UpdateRecord(t.Context(), pipeline.Life{StudyInstanceUID: "1.2"}, "key", func(r *pipeline.Record) {
		r.State, r.Completed = pipeline.StateReported, time.Now()
	}); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	for round := range 30 {
		loseIndex(t, dir)
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				time.Sleep(time.Duration(i) * 25 * time.Millisecond) // until after the index is made
				a, err := archive.Open(dir, dicom.OpenFile, opts)
				if err != nil {
					t.Error(err)
					return
				}
				if r, err := a.Records(t.Context(), "1.2"); err != nil || len(r) != 1 {
					t.Errorf("round %d: a process that is there knows %d records: %v", round, len(r), err)
				}
				if err := a.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		if all.Wait(); t.Failed() {
			return
		}
	}
}
