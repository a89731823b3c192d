package archive_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chatxray/pipeline"
	"chatxray/pipeline/archive"
	"chatxray/pipeline/dicom"
)

// checked checks an archive and returns the names of the files that have a problem, with what it is.
func checked(t *testing.T, dir string) (archive.Checked, []string) {
	t.Helper()
	var told []string
	c, err := archive.Check(t.Context(), dir, indexed(t, dir, archive.Options{Warn: func(_, path string, err error) {
		told = append(told, filepath.Base(path)+" "+err.Error())
	}}))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(told)
	return c, told
}

func TestCheck(t *testing.T) { onEach(t, testCheck) }

func testCheck(t *testing.T) {
	dir := t.TempDir()
	if _, err := archive.Check(t.Context(), dir, indexed(t, dir, archive.Options{})); !errors.Is(err, pipeline.ErrNotFound) {
		t.Error(err)
	}
	a := open(t, dir, archive.Options{Replace: true})
	for _, sop := range []string{"1.2.1.1.1", "1.2.1.1.2", "1.2.1.1.3", "1.2.1.1.4"} {
		mustStore(t, a, object(t, "1.2.1", "1.2.1.1", sop))
	}
	mustStore(t, a, object(t, "1.2.1", "1.2.1.1", "1.2.1.1.4", pipeline.TagPatientName, "Probe^Bea"))
	doc := pipeline.Document{Kind: pipeline.FindingsSR, SOPClassUID: "1.2.840.10008.5.1.4.1.1.1.1", StudyInstanceUID: "1.2.1", SeriesInstanceUID: "1.2.1.9", SOPInstanceUID: "1.2.1.9.1",
		Bytes: object(t, "1.2.1", "1.2.1.9", "1.2.1.9.1")}
	if err := put(a, doc); err != nil {
		t.Fatal(err)
	}
	whole := archive.Checked{Whole: 5, Replaced: 1}
	if c, told := checked(t, dir); c != whole { // while it is open
		t.Error(c, told)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	before := tree(t, dir)
	if c, told := checked(t, dir); c != whole {
		t.Error(c, told)
	}
	if diff := cmp.Diff(before, tree(t, dir)); diff != "" {
		t.Error("a check changes something:", diff)
	}
	series := filepath.Join(dir, "instances", "1.2.1", "1.2.1.1")
	file := filepath.Join(series, "1.2.1.1.1.dcm")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] ^= 1
	for _, err := range []error{
		os.WriteFile(file, b, 0o600),
		os.Truncate(filepath.Join(dir, "documents", "1.2.1", "1.2.1.9", "1.2.1.9.1.dcm"), 200),
		os.Remove(filepath.Join(series, "1.2.1.1.2.dcm")),
		os.WriteFile(filepath.Join(series, "1.2.1.1.9.dcm"), b, 0o600),
		os.WriteFile(filepath.Join(series, "1.2.1.1.3~2.dcm"), b, 0o600),
		os.WriteFile(filepath.Join(dir, "documents", "1.2.1.1.3.dcm"), b, 0o600),
		os.WriteFile(filepath.Join(dir, "instances", "notes.txt"), nil, 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := []string{
		"1.2.1.1.1.dcm invalid: its bytes are not those that were stored",
		"1.2.1.1.2.dcm not found: the index has an entry of it",
		"1.2.1.1.3.dcm unknown: it has no index entry",
		"1.2.1.1.3~2.dcm unknown: it has no index entry",
		"1.2.1.1.9.dcm unknown: it has no index entry",
		"1.2.1.9.1.dcm invalid: its bytes are not those that were stored",
		"notes.txt unknown: it has no index entry",
	}
	c, told := checked(t, dir)
	if diff := cmp.Diff(want, told); diff != "" || c != (archive.Checked{Whole: 2, Replaced: 1, Damaged: 2, Missing: 1, Stray: 4}) {
		t.Error(c, diff)
	}
	// A lost file comes back when it is sent again.
	a = open(t, dir, archive.Options{})
	if o := store(t, a, object(t, "1.2.1", "1.2.1.1", "1.2.1.1.2"))[0]; o.Err != nil || o.Duplicate {
		t.Error(o)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if c, _ := checked(t, dir); c.Whole != 3 || c.Missing != 0 {
		t.Error(c)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := archive.Check(gone, dir, indexed(t, dir, archive.Options{})); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	newer(t, dir)
	// An index that is none, or is of another version.
	if onPostgres(t) {
		if err := server(t).Query("archives", "UPDATE "+schemaOf(dir)+".chatxray_index SET version = 2"); err != nil {
			t.Fatal(err)
		}
		if _, err := archive.Check(t.Context(), dir, indexed(t, dir, archive.Options{})); err == nil || !strings.Contains(err.Error(), "this program checks version") {
			t.Error(err)
		}
		return
	}
	index := filepath.Join(dir, "index.db")
	sound, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	older := slices.Clone(sound)
	older[63]-- // user_version, big endian (SQLite file format, section 1.3)
	for says, bytes := range map[string][]byte{"cannot be read": []byte("no database at all, but long enough to be looked at"), "this program checks version": older} {
		if err := os.WriteFile(index, bytes, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := archive.Check(t.Context(), dir, indexed(t, dir, archive.Options{})); err == nil || !strings.Contains(err.Error(), says) {
			t.Error(err)
		}
	}
}

// newer says what every way into an archive says whose index a newer program has made. Nothing of it is changed.
func newer(t *testing.T, dir string) {
	t.Helper()
	index, opts := filepath.Join(dir, "index.db"), indexed(t, dir, archive.Options{})
	set := func(version int) {
		t.Helper()
		var err error
		if onPostgres(t) {
			err = server(t).Query("archives", fmt.Sprintf("UPDATE %s.chatxray_index SET version = %d", schemaOf(dir), version))
		} else {
			var db *sql.DB
			if db, err = sql.Open("sqlite", index); err == nil {
				_, err = db.Exec(fmt.Sprintf("PRAGMA user_version = %d", version))
				err = errors.Join(err, db.Close())
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	before, _ := checked(t, dir)
	set(archive.IndexVersion + 900)
	for what, do := range map[string]func() error{
		"open":    func() error { _, err := archive.Open(dir, dicom.OpenFile, opts); return err },
		"check":   func() error { _, err := archive.Check(t.Context(), dir, opts); return err },
		"rebuild": func() error { _, err := archive.Rebuild(t.Context(), dir, dicom.OpenFile, opts); return err },
	} {
		err := do()
		if !errors.Is(err, pipeline.ErrUnsupported) || !strings.Contains(err.Error(), "a newer program has made the index") || strings.Contains(err.Error(), "delete") {
			t.Errorf("%s: %v", what, err)
		}
	}
	set(archive.IndexVersion)
	if after, _ := checked(t, dir); after != before {
		t.Errorf("after it was refused %v, before %v", after, before)
	}
	if _, err := os.Stat(filepath.Join(dir, "rebuilding")); err == nil {
		t.Error("the next start makes the index anew")
	}
}

// TestCheckWhileItChanges: what a service stores, replaces and deletes meanwhile is no problem.
func TestCheckWhileItChanges(t *testing.T) { onEach(t, testCheckWhileItChanges) }

func testCheckWhileItChanges(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir, archive.Options{Replace: true})
	mustStore(t, a, object(t, "1.2.1", "1.2.1.1", "1.2.1.1.1"))
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			name := strings.Repeat("X", n%60+1)
			for _, o := range store(t, a, object(t, "1.2.2", "1.2.2.1", "1.2.2.1.1", pipeline.TagPatientName, name)) {
				if o.Err != nil {
					t.Error(o.Err)
				}
			}
			if n%3 == 2 {
				if _, _, err := a.Delete(context.Background(), "1.2.2", "", ""); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	for range 5 {
		if c, told := checked(t, dir); c.Problems() > 0 || c.Whole < 1 {
			t.Error(c, told)
		}
	}
	close(stop)
	<-stopped
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
}

// tree lists the files below a folder with their sizes.
func tree(t *testing.T, dir string) map[string]int64 {
	t.Helper()
	out := map[string]int64{}
	err := filepath.WalkDir(dir, func(path string, f os.DirEntry, err error) error {
		if err != nil || f.IsDir() {
			return err
		}
		info, err := f.Info()
		if err == nil {
			out[path] = info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestUsable(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	locked := filepath.Join(t.TempDir(), "locked")
	if err := os.Mkdir(locked, 0o500); err != nil {
		t.Fatal(err)
	}
	free := func(n int64) archive.Options {
		return archive.Options{FreeSpace: func(string) (int64, error) { return n, nil }}
	}
	for _, c := range []struct {
		dir  string
		opts archive.Options
		says string
	}{
		{dir, free(1 << 40), ""},
		{filepath.Join(dir, "to", "be", "made"), free(1 << 40), ""},
		{dir, free(archive.DefaultReserve), "256 MB are free where the archive is and 256 MB stay reserved"},
		{dir, archive.Options{Reserve: -1}, ""},
		{file, free(1 << 40), "is no folder"},
		{filepath.Join(locked, "archive"), free(1 << 40), "may not write in " + locked},
	} {
		if strings.HasPrefix(c.says, "may not") && os.Getuid() == 0 { // who may write everywhere
			continue
		}
		if err := archive.Usable(c.dir, c.opts); (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.dir, err, c.says)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Error("something was made")
	}
}
