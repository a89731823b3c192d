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
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chatxray/pipeline"
	"chatxray/pipeline/archive"
	"chatxray/pipeline/dicom"
)

// child commits instances from four goroutines until it is killed and writes the UID of each to standard output once it is
// acknowledged.
func child(dir string) {
	opts := archive.Options{Reserve: -1, Index: pipeline.Secret(os.Getenv("ARCHIVE_INDEX"))}
	if s := os.Getenv("ARCHIVE_S3"); s != "" {
		opts.Objects, opts.Cache = "s3://kept/of/tests", 64<<20
		opts.S3 = archive.S3{Endpoint: s, Region: "us-east-1", AccessKey: "tester", SecretKey: "of-the-tests", PathStyle: true, TimeoutSeconds: 10}
	}
	a, err := archive.Open(dir, dicom.OpenFile, opts)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	start := time.Now().UnixNano()
	var mu sync.Mutex
	for g := range 4 {
		go func() {
			for n := 0; ; n++ {
				uid := fmt.Sprintf("1.2.%d.%d.%d", start, g, n)
				b := object(&testing.T{}, fmt.Sprintf("1.2.%d", n%7), fmt.Sprintf("1.2.%d.%d", n%7, g), uid)
				s, err := a.Stage(context.Background(), bytes.NewReader(b))
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				o := a.Commit(context.Background(), []*pipeline.Staged{s})[0]
				if o.Err != nil {
					fmt.Fprintln(os.Stderr, o.Err)
					os.Exit(1)
				}
				mu.Lock()
				fmt.Println(o.Instance.StudyInstanceUID, o.Instance.SeriesInstanceUID, o.Instance.SOPInstanceUID, o.Instance.Digest)
				mu.Unlock()
			}
		}()
	}
	select {}
}

func killed(t *testing.T, k *kind) {
	acknowledged := map[string]string{} // by line
	for round := range 4 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "ARCHIVE_CHILD="+k.dir, "ARCHIVE_INDEX="+k.opts.Index.Reveal())
		if k.store != nil {
			cmd.Env = append(cmd.Env, "ARCHIVE_S3="+k.opts.S3.Endpoint)
		}
		var complaint bytes.Buffer
		cmd.Stderr = &complaint
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines, kill := bufio.NewScanner(out), 20+17*round
		for n := 0; lines.Scan(); n++ {
			if f := strings.Fields(lines.Text()); len(f) == 4 {
				acknowledged[f[2]] = f[3]
			}
			if n == kill {
				cmd.Process.Kill()
			}
		}
		cmd.Wait()
		if complaint.Len() > 0 {
			t.Fatal(complaint.String())
		}
	}
	k.opts.Warn = func(what, path string, err error) { t.Error(what, path, err) }
	a := k.open(t)
	compared(t, a)
	if err := a.Sweep(context.Background()); err != nil {
		t.Fatal(err)
	}
	for uid, digest := range acknowledged {
		found, err := a.Instances(context.Background(), "", "", uid)
		if err != nil {
			t.Error("an acknowledged instance is gone:", err)
			continue
		}
		in, err := dicom.OpenFile(found[0].Path)
		if err != nil || in.Digest.String() != digest {
			t.Error("an acknowledged instance has changed:", err)
		}
	}
	files, _ := filepath.Glob(filepath.Join(k.files, "instances", "*", "*", "*.dcm"))
	all, err := a.Instances(context.Background(), "", "", "")
	if err != nil || len(all) != len(files) {
		t.Errorf("%d files, %d index entries, %v", len(files), len(all), err)
	}
	if left := uploads(t, k.dir); len(left) > 0 {
		t.Errorf("%d temporary files stay", len(left))
	}
	t.Logf("%d acknowledged, %d kept", len(acknowledged), len(files))
}

// compared waits until the files are compared with the index.
func compared(t testing.TB, a *archive.Archive) {
	t.Helper()
	until(t, "the comparison", a.Compared)
}

func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain for", what)
		}
	}
}

func TestFileWithoutEntry(t *testing.T) { onEach(t, testFileWithoutEntry) }

func testFileWithoutEntry(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir, archive.Options{})
	mustStore(t, a, object(t, "1.2", "1.2.3", "1.2.3.4"))
	a.Close()
	// As a crash between the file's name and its entry leaves it; and what nobody knows.
	lost := filepath.Join(dir, "instances", "1.2", "1.2.3", "1.2.3.5.dcm")
	strange := filepath.Join(dir, "instances", "1.2", "1.2.3", "1.2.3.6.dcm")
	for path, b := range map[string][]byte{lost: object(t, "1.2", "1.2.3", "1.2.3.5"), strange: []byte("no DICOM"),
		filepath.Join(dir, "incoming", "x.part"): []byte("half")} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "clean")); err != nil {
		t.Fatal(err)
	}
	var warned []string
	a = open(t, dir, archive.Options{Warn: func(_, path string, _ error) { warned = append(warned, path) }})
	compared(t, a)
	if got, err := a.Instances(context.Background(), "1.2", "", ""); err != nil || len(got) != 2 {
		t.Error(got, err)
	}
	if diff := cmp.Diff([]string{strange}, warned); diff != "" {
		t.Error(diff)
	}
	if left := uploads(t, dir); len(left) > 0 {
		t.Error("temporary files stay:", left)
	}
}

func TestRebuild(t *testing.T) { onEach(t, testRebuild) }

func testRebuild(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	a := open(t, dir, archive.Options{})
	mustStore(t, a, object(t, "1.2.1", "1.2.1.1", "1.2.1.1.1"), object(t, "1.2.1", "1.2.1.1", "1.2.1.1.2"),
		object(t, "1.2.2", "1.2.2.1", "1.2.2.1.1", pipeline.TagSpecificCharacterSet, "ISO_IR 192", pipeline.TagPatientName, "Müller^Änne"))
	b := object(t, "1.2.1", "1.2.1.9", "1.2.1.9.1")
	if err := put(a, pipeline.Document{StudyInstanceUID: "1.2.1", SeriesInstanceUID: "1.2.1.9", SOPInstanceUID: "1.2.1.9.1",
		SOPClassUID: "1.2.840.10008.5.1.4.1.1.1.1", Bytes: b}); err != nil {
		t.Fatal(err)
	}
	state := func(a *archive.Archive) (got []any) {
		for _, l := range []pipeline.Level{pipeline.StudyLevel, pipeline.SeriesLevel, pipeline.InstanceLevel} {
			r, err := a.Search(ctx, pipeline.Query{Level: l})
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, r)
		}
		st, err := a.Study(ctx, "1.2.1")
		if err != nil {
			t.Fatal(err)
		}
		return append(got, st)
	}
	want := state(a)
	a.Close()

	for _, c := range []struct {
		name   string
		damage func() error
	}{
		{"deleted", func() error { loseIndex(t, dir); return nil }},
		{"damaged", func() error {
			if onPostgres(t) {
				return server(t).Query("archives", "DROP TABLE "+schemaOf(dir)+".life; TRUNCATE "+schemaOf(dir)+".instance")
			}
			return os.WriteFile(filepath.Join(dir, "index.db"), bytes.Repeat([]byte("junk"), 5000), 0o600)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.damage(); err != nil {
				t.Fatal(err)
			}
			n, err := archive.Rebuild(ctx, dir, dicom.OpenFile, indexed(t, dir, archive.Options{}))
			if err != nil || n != 4 {
				t.Fatal(n, err)
			}
			a := open(t, dir, archive.Options{})
			if diff := cmp.Diff(want, state(a)); diff != "" {
				t.Error(diff)
			}
			if err := a.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
	t.Run("opened without it", func(t *testing.T) {
		loseIndex(t, dir)
		a := open(t, dir, archive.Options{})
		if diff := cmp.Diff(want, state(a)); diff != "" {
			t.Error(diff)
		}
		a.Close()
	})
	t.Run("junk is told", func(t *testing.T) {
		if onPostgres(t) {
			return // TestForeignSchema
		}
		if err := os.WriteFile(filepath.Join(dir, "index.db"), bytes.Repeat([]byte("junk"), 5000), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := archive.Open(dir, dicom.OpenFile, archive.Options{}); err == nil || errors.Is(err, pipeline.ErrBusy) {
			t.Fatal(err)
		}
	})
}

func TestUnfinishedReport(t *testing.T) { onEach(t, testUnfinishedReport) }

// A crash between the files of a report and the index leaves documents that no record refers to. They do not become part of the study; those of a record stay,
// whether the index is there or is made anew.
func testUnfinishedReport(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	a := open(t, dir, archive.Options{})
	mustStore(t, a, object(t, "1.2", "1.2.1", "1.2.1.1"))
	if err := put(a, pipeline.Document{StudyInstanceUID: "1.2", SeriesInstanceUID: "1.2.9", SOPInstanceUID: "1.2.9.1", SOPClassUID: "1.2.840.10008.5.1.4.1.1.1.1",
		Bytes: object(t, "1.2", "1.2.9", "1.2.9.1")}); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	orphan := filepath.Join(dir, "documents", "1.2", "1.2.9", "1.2.9.2.dcm")
	for what, crash := range map[string]func(){
		"the index is there": func() { _ = os.Remove(filepath.Join(dir, "clean")) },
		"the index is lost":  func() { loseIndex(t, dir) },
	} {
		if err := os.WriteFile(orphan, object(t, "1.2", "1.2.9", "1.2.9.2"), 0o600); err != nil {
			t.Fatal(err)
		}
		crash()
		var told []string
		a := open(t, dir, archive.Options{Warn: func(what, path string, err error) { told = append(told, what+": "+err.Error()) }})
		compared(t, a)
		var got []string
		found, err := a.Instances(ctx, "1.2", "", "")
		for _, in := range found {
			got = append(got, in.SOPInstanceUID)
		}
		slices.Sort(got)
		if diff := cmp.Diff([]string{"1.2.1.1", "1.2.9.1"}, got); diff != "" || err != nil {
			t.Error(what, diff, err)
		}
		if _, err := os.Stat(orphan); !errors.Is(err, os.ErrNotExist) || len(told) != 1 || !strings.Contains(told[0], "no record") {
			t.Errorf("%s: the document is still there (%v), or nobody is told: %q", what, err, told)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
