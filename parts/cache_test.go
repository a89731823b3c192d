package parts

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// entry is one member of an archive that a test makes.
type entry struct {
	name string
	data []byte
}

func zipOf(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for _, e := range entries {
		f, err := w.Create(e.name)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = f.Write(e.data)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func tgzOf(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	for _, e := range entries {
		if err := w.WriteHeader(&tar.Header{Name: e.name, Size: int64(len(e.data)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		_, _ = w.Write(e.data)
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

var library = entry{"lib/capi/lib.so.1", bytes.Repeat([]byte("machine code "), 4000)}

// local is a store with one part whose package lies in a folder, pinned as it is.
func local(t *testing.T, file string, archive []byte, members ...Member) store {
	t.Helper()
	from := t.TempDir()
	if err := os.WriteFile(filepath.Join(from, file), archive, 0o644); err != nil {
		t.Fatal(err)
	}
	return store{root: t.TempDir(), from: from, parts: []Part{{
		Name: "lib", Version: "1", Kind: "pip", Package: "lib", For: "test", Licence: "MIT", Needed: NeededAlways,
		Builds: []Build{{Platform: "any", File: file, Size: int64(len(archive)), SHA256: sum(archive), Members: members}},
	}}}
}

func pin(e entry, file string) Member {
	return Member{Path: e.name, File: file, Size: int64(len(e.data)), SHA256: sum(e.data)}
}

// restarted forgets what this process has verified.
func restarted() {
	checked.Lock()
	checked.paths = nil
	checked.Unlock()
}

func TestFetchFromFolder(t *testing.T) {
	licence := entry{"lib/LICENSE", []byte("do as you like")}
	for _, c := range []struct {
		file    string
		archive []byte
	}{
		{"lib.whl", zipOf(t, entry{"lib/other", []byte("x")}, licence, library)},
		{"lib.tgz", tgzOf(t, entry{"lib/other", []byte("x")}, licence, library)},
	} {
		t.Run(c.file, func(t *testing.T) {
			s := local(t, c.file, c.archive, pin(library, "lib.so.1"), pin(licence, "LICENSE"))
			if _, err := s.path("lib"); !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "`chatxray parts fetch lib`") {
				t.Fatalf("before the fetch: %v", err)
			}
			var said bytes.Buffer
			got, err := s.fetch(t.Context(), "lib", &said)
			if err != nil {
				t.Fatal(err)
			}
			if want := filepath.Join(s.root, "lib", "1", "lib.so.1"); got != want {
				t.Errorf("path %s, want %s", got, want)
			}
			if b, _ := os.ReadFile(got); !bytes.Equal(b, library.data) {
				t.Error("other bytes")
			}
			if strings.Contains(said.String(), "\r") || !strings.Contains(said.String(), "lib 1: checked") {
				t.Errorf("progress: %q", said.String())
			}
			names, _ := filepath.Glob(filepath.Join(s.root, "lib", "1", ".fetch-*"))
			if len(names) > 0 {
				t.Errorf("left behind: %v", names)
			}
			s.from = filepath.Join(s.from, "gone") // a second fetch needs no package
			if again, err := s.fetch(t.Context(), "lib", nil); err != nil || again != got {
				t.Errorf("second fetch: %s, %v", again, err)
			}
		})
	}
}

func TestFetchRefuses(t *testing.T) {
	good := zipOf(t, library)
	member := pin(library, "lib.so.1")
	bad := func(change func(*Member)) Member {
		m := member
		change(&m)
		return m
	}
	for _, c := range []struct {
		name    string
		file    string
		archive []byte
		member  Member
		pinned  []byte // what the catalogue says the archive is; nil: archive
		want    error
		says    string
	}{
		{"another package", "lib.whl", zipOf(t, entry{"evil", nil}), member, good, ErrDamaged, "not the package that was tested"},
		{"another package of the same size", "lib.whl", append(bytes.Clone(good[:len(good)-1]), 0xff), member, good, ErrDamaged, sum(good)},
		{"truncated zip", "lib.whl", good[:len(good)/2], member, nil, ErrDamaged, "cannot be unpacked"},
		{"truncated tgz", "lib.tgz", tgzOf(t, library)[:60], member, nil, ErrDamaged, "unpacked"},
		{"no archive", "lib.tgz", []byte("<html>not found</html>"), member, nil, ErrDamaged, "cannot be unpacked"},
		{"empty", "lib.whl", nil, member, nil, ErrDamaged, "cannot be unpacked"},
		{"member missing in zip", "lib.whl", zipOf(t, entry{"x", nil}), member, nil, ErrDamaged, "no member lib/capi/lib.so.1"},
		{"member missing in tgz", "lib.tgz", tgzOf(t, entry{"x", nil}), member, nil, ErrDamaged, "no member lib/capi/lib.so.1"},
		{"member of another sum", "lib.whl", good, bad(func(m *Member) { m.SHA256 = sum(nil) }), nil, ErrDamaged, "pinned is e3b0"},
		{"member too long", "lib.whl", good, bad(func(m *Member) { m.Size-- }), nil, ErrDamaged, "another size"},
		{"member too short", "lib.tgz", tgzOf(t, library), bad(func(m *Member) { m.Size++ }), nil, ErrDamaged, "another size"},
		{"member only under a climbing name", "lib.whl", zipOf(t, entry{"../" + library.name, library.data}), member, nil, ErrDamaged, "no member"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := local(t, c.file, c.archive, c.member)
			if c.pinned != nil {
				b := &s.parts[0].Builds[0]
				b.Size, b.SHA256 = int64(len(c.pinned)), sum(c.pinned)
			}
			_, err := s.fetch(t.Context(), "lib", nil)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("error %v, want %v with %q", err, c.want, c.says)
			}
			var left []string
			_ = filepath.WalkDir(s.root, func(p string, e os.DirEntry, _ error) error {
				if !e.IsDir() && e.Name() != ".lock" {
					left = append(left, p)
				}
				return nil
			})
			if len(left) > 0 {
				t.Errorf("left in the cache: %v", left)
			}
		})
	}
}

// A name that climbs never becomes a path: the member lands under its plain name, and nothing is written elsewhere.
func TestClimbingMemberStaysInside(t *testing.T) {
	climbing := entry{"../../../../escape.so", []byte("payload")}
	for file, archive := range map[string][]byte{"lib.whl": zipOf(t, climbing), "lib.tgz": tgzOf(t, climbing)} {
		s := local(t, file, archive, pin(climbing, "lib.so.1"))
		got, err := s.fetch(t.Context(), "lib", nil)
		if err != nil || filepath.Dir(got) != filepath.Join(s.root, "lib", "1") {
			t.Errorf("%s: %s, %v", file, got, err)
		}
		if found, _ := filepath.Glob(filepath.Join(filepath.Dir(s.root), "escape.so")); len(found) > 0 {
			t.Errorf("%s: written outside: %v", file, found)
		}
	}
}

func TestTamperedCacheFile(t *testing.T) {
	s := local(t, "lib.whl", zipOf(t, library), pin(library, "lib.so.1"))
	file, err := s.fetch(t.Context(), "lib", nil)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Clone(library.data)
	changed[100] ^= 1
	for name, data := range map[string][]byte{"same size": changed, "shorter": changed[:10], "empty": nil} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(file, data, 0o644); err != nil {
				t.Fatal(err)
			}
			later := time.Now().Add(5 * time.Second)
			_ = os.Chtimes(file, later, later)
			if _, err := s.path("lib"); err != nil {
				t.Fatalf("one process checks once: %v", err)
			}
			restarted()
			if _, err := s.path("lib"); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), file) {
				t.Fatalf("after a restart: %v", err)
			}
			if _, err := s.fetch(t.Context(), "lib", nil); err != nil {
				t.Fatalf("repair: %v", err)
			}
			if b, _ := os.ReadFile(file); !bytes.Equal(b, library.data) {
				t.Error("not repaired")
			}
		})
	}
}

// The stamp spares the hashing: with a stamp that claims the changed file, no byte of it is read; without it, all are.
func TestStampSparesHashing(t *testing.T) {
	s := local(t, "lib.whl", zipOf(t, library), pin(library, "lib.so.1"))
	file, err := s.fetch(t.Context(), "lib", nil)
	if err != nil {
		t.Fatal(err)
	}
	st, _ := os.Stat(file)
	if err := os.WriteFile(file, bytes.Repeat([]byte{7}, len(library.data)), 0o644); err != nil {
		t.Fatal(err)
	}
	_ = os.Chtimes(file, st.ModTime(), st.ModTime())
	restarted()
	if _, err := s.path("lib"); err != nil {
		t.Fatalf("size and time are the stamped ones: %v", err)
	}
	for _, b := range []string{"", "{", `{"lib.so.1":{"size":1}}`} {
		if err := os.WriteFile(filepath.Join(filepath.Dir(file), stampFile), []byte(b), 0o644); err != nil {
			t.Fatal(err)
		}
		restarted()
		if _, err := s.path("lib"); !errors.Is(err, ErrDamaged) {
			t.Errorf("stamp %q: %v", b, err)
		}
	}
}

func TestStampIsRenewed(t *testing.T) {
	s := local(t, "lib.whl", zipOf(t, library), pin(library, "lib.so.1"))
	file, err := s.fetch(t.Context(), "lib", nil)
	if err != nil {
		t.Fatal(err)
	}
	touched := time.Now().Add(-time.Hour).Truncate(time.Second)
	_ = os.Chtimes(file, touched, touched)
	restarted()
	if _, err := s.path("lib"); err != nil {
		t.Fatal(err)
	}
	if got := readStamps(filepath.Dir(file))["lib.so.1"]; got.ModTime != touched.Unix() || got.SHA256 != sum(library.data) {
		t.Errorf("stamp after the check: %+v", got)
	}
}

func TestConcurrentFetches(t *testing.T) {
	s := local(t, "lib.whl", zipOf(t, library), pin(library, "lib.so.1"))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := s.fetch(t.Context(), "lib", nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestLockHeldElsewhere(t *testing.T) {
	s := local(t, "lib.whl", zipOf(t, library), pin(library, "lib.so.1"))
	dir := filepath.Join(s.root, "lib", "1")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	unlock, err := lock(t.Context(), filepath.Join(dir, ".lock"), newReport(nil, ""))
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 250*time.Millisecond)
	defer cancel()
	var said bytes.Buffer
	if _, err := s.fetch(ctx, "lib", &said); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "was stopped") {
		t.Errorf("error %v", err)
	}
	if n := strings.Count(said.String(), "waiting for another process"); n != 1 {
		t.Errorf("said %d times that it waits", n)
	}
}

func TestNoRoom(t *testing.T) {
	s := local(t, "lib.whl", zipOf(t, library), pin(library, "lib.so.1"))
	s.parts[0].Builds[0].Size = 1 << 60
	_, err := s.fetch(t.Context(), "lib", nil)
	if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), s.root) {
		t.Errorf("error %v", err)
	}
	p := s.parts[0]
	err = diskError(p, "/cache", 5e6, &os.PathError{Op: "write", Path: "/cache/x", Err: syscall.ENOSPC})
	if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "5.0 MB in /cache") {
		t.Errorf("error %v", err)
	}
}

func TestCacheIsAFile(t *testing.T) {
	s := local(t, "lib.whl", zipOf(t, library), pin(library, "lib.so.1"))
	s.root = filepath.Join(s.from, "lib.whl")
	if _, err := s.fetch(t.Context(), "lib", nil); !errors.Is(err, ErrCache) || !strings.Contains(err.Error(), "CHATXRAY_PARTS") {
		t.Errorf("error %v", err)
	}
}

func TestNoHome(t *testing.T) {
	for _, k := range []string{"CHATXRAY_PARTS", "XDG_CACHE_HOME", "HOME"} {
		t.Setenv(k, "")
	}
	if _, err := Path("dcmjs-codecs"); !errors.Is(err, ErrCache) || !strings.Contains(err.Error(), "CHATXRAY_PARTS") {
		t.Errorf("error %v", err)
	}
}

func TestPackageNotInFolder(t *testing.T) {
	t.Setenv("CHATXRAY_PARTS", t.TempDir())
	t.Setenv("CHATXRAY_PARTS_FROM", t.TempDir())
	_, err := Fetch(t.Context(), "dcmjs-codecs", nil)
	if !errors.Is(err, ErrTool) || !strings.Contains(err.Error(), "dcmjs-codecs-0.0.8.tgz") {
		t.Errorf("error %v", err)
	}
}
