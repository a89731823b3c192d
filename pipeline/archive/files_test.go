package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestFiles is the suite of every kind of files.
func TestFiles(t *testing.T) {
	t.Run("folder", func(t *testing.T) { keepsFiles(t, folder{t.TempDir()}) })
	t.Run("s3", func(t *testing.T) {
		s := StartStore(t)
		c, err := openCache(t.TempDir(), 1<<20, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		b, err := newBucket(s.S3, s.Name, c)
		if err != nil {
			t.Fatal(err)
		}
		defer b.close()
		keepsFiles(t, b)
	})
}

func keepsFiles(t *testing.T, f files) {
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	names := func(folder string) []string {
		t.Helper()
		out, err := namesBelow(ctx, f, folder)
		must(err)
		return out
	}
	if got := names("records/1.2"); len(got) != 0 {
		t.Error("a folder that is not there has", got)
	}
	if _, err := readAll(ctx, f, "records/1.2/a.json"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a file that is not there:", err)
	}
	must(f.remove(ctx, "records/1.2/a.json"))
	for name, content := range map[string]string{"records/1.2/a.json": "first", "records/1.2/conversations/b.json": "", "records/1.2.3/c.json": "c"} {
		must(f.write(ctx, name, []byte(content)))
	}
	must(f.write(ctx, "records/1.2/a.json", []byte("second")))
	if b, err := readAll(ctx, f, "records/1.2/a.json"); err != nil || string(b) != "second" {
		t.Errorf("%q, %v", b, err)
	}
	if b, err := readAll(ctx, f, "records/1.2/conversations/b.json"); err != nil || len(b) != 0 {
		t.Errorf("%q, %v", b, err)
	}
	if got := names("records/1.2"); len(got) != 2 || got[0] != "a.json" || got[1] != "conversations/b.json" {
		t.Error("listed:", got)
	}
	stop := errors.New("stop")
	if err := f.list(ctx, "records", func(k keptFile) error {
		if k.changed.IsZero() || time.Since(k.changed) > time.Hour {
			t.Error("it came", k.changed)
		}
		return stop
	}); err != stop {
		t.Error("a list that was ended:", err)
	}
	must(f.remove(ctx, "records/1.2/a.json", "records/1.2/b.json"))
	if got := names("records"); len(got) != 2 {
		t.Error("listed after a removal:", got)
	}

	// A large file, from this disk and back.
	content := bytes.Repeat([]byte("0123456789abcde\n"), 1<<18)
	local, name := filepath.Join(t.TempDir(), "x.part"), "instances/1/2/3.dcm"
	must(os.WriteFile(local, content, 0o600))
	sum := sha256.Sum256(content)
	must(f.secure(ctx, local, name, sum))
	if _, err := os.Lstat(f.path(name)); err == nil {
		t.Error("what is only secured can be read already")
	}
	if _, isFolder := f.(folder); isFolder { // the commit gives it its name
		must(os.MkdirAll(filepath.Dir(f.path(name)), 0o700))
		must(os.Rename(local, f.path(name)))
	}
	must(f.fetch(ctx, name, sum))
	if b, err := os.ReadFile(f.path(name)); err != nil || !bytes.Equal(b, content) {
		t.Error("another content comes back:", len(b), err)
	}
	must(f.remove(ctx, name))
	if _, err := os.Lstat(f.path(name)); err == nil {
		t.Error("what is removed can be read")
	}
}

// TestCache: files that were used last stay, and those that were just asked for in any case.
func TestCache(t *testing.T) {
	now := time.Now()
	c, err := openCache(t.TempDir(), 1000, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	fetched := 0
	get := func(name string) {
		t.Helper()
		err := c.get(name, func(w io.Writer) error {
			fetched++
			_, err := w.Write(make([]byte, 300))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	there := func(name string) bool {
		_, err := os.Lstat(c.path(name))
		return err == nil
	}
	for _, name := range []string{"a/1", "a/2", "b/3"} {
		get(name)
		now = now.Add(time.Minute)
	}
	get("a/1")
	get("c/4")
	if fetched != 4 || !there("a/1") || !there("a/2") || !there("b/3") {
		t.Error("files that may be about to be opened are gone")
	}
	open, err := os.Open(c.path("a/2"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	now = now.Add(spared)
	get("a/1")
	get("d/5")
	if there("a/2") || there("b/3") || !there("a/1") || !there("d/5") {
		t.Error("not those that were used last stay")
	}
	if b := make([]byte, 300); c.total > 1000 {
		t.Error("the cache has", c.total)
	} else if n, err := open.Read(b); n != 300 {
		t.Error("a file that was open cannot be read on:", err)
	}
	if _, err := os.Lstat(filepath.Dir(c.path("b/3"))); err == nil {
		t.Error("an empty folder stays")
	}
	again, err := openCache(c.dir, 1000, time.Now)
	if err != nil || again.total != c.total || len(again.files) != len(c.files) {
		t.Error("a cache that is opened again:", again.total, c.total, err)
	}
	failed := errors.New("broken off")
	if err := c.get("e/6", func(io.Writer) error { return failed }); !errors.Is(err, failed) || there("e/6") {
		t.Error("what could not be fetched is there, or no error:", err)
	}
}
