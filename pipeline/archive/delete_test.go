package archive_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"chatxray/pipeline"
	"chatxray/pipeline/archive"
	"chatxray/pipeline/dicom"
)

// under lists the files below a folder.
func under(t testing.TB, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, f os.DirEntry, err error) error {
		if err == nil && !f.IsDir() {
			files = append(files, path)
		}
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return files
}

func TestDelete(t *testing.T) { onEach(t, testDelete) }

func testDelete(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	a := open(t, dir, archive.Options{})
	fill := func() {
		t.Helper()
		mustStore(t, a, object(t, "1.2", "1.2.3", "1.2.3.4"), object(t, "1.2", "1.2.3", "1.2.3.5"), object(t, "1.2", "1.2.4", "1.2.4.1"), object(t, "1.3", "1.3.1", "1.3.1.1"))
		for _, study := range []string{"1.2", "1.3"} {
			if err := put(a, pipeline.Document{StudyInstanceUID: study, SeriesInstanceUID: study + ".9", SOPInstanceUID: study + ".9.1",
				SOPClassUID: "1.2.840.10008.5.1.4.1.1.1.1", Bytes: object(t, study, study+".9", study+".9.1")}); err != nil {
				t.Fatal(err)
			}
			if _, err := a.UpdateRecord(ctx, pipeline.Life{StudyInstanceUID: study}, "k", func(r *pipeline.Record) { r.State = pipeline.StateReported }); err != nil {
				t.Fatal(err)
			}
			if err := a.PutPreview(ctx, study, "k", []byte("png")); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 2 { // what was deleted can be stored again
		fill()
		for _, c := range []struct {
			study, series, sop string
			n                  int
			left               bool
			err                error
			all                int
		}{
			{"1.2", "1.2.3", "1.2.3.9", 0, false, pipeline.ErrNotFound, 6},
			{"1.3", "1.2.3", "1.2.3.4", 0, false, pipeline.ErrNotFound, 6}, // of another study
			{"", "", "", 0, false, pipeline.ErrInvalid, 6},
			{"1.2", "", "1.2.3.4", 0, false, pipeline.ErrInvalid, 6},
			{"..", "", "", 0, false, pipeline.ErrInvalid, 6},
			{"1.2", "1.2.3", "1.2.3.4", 1, true, nil, 5},
			{"1.2", "1.2.4", "", 1, true, nil, 4},
			{"1.2", "1.2.9", "", 1, true, nil, 3}, // our document
			{"1.2", "1.2.3", "1.2.3.5", 1, false, nil, 2},
			{"1.3", "", "", 2, false, nil, 0},
		} {
			n, left, err := a.Delete(ctx, c.study, c.series, c.sop)
			if n != c.n || left != c.left && c.err == nil || !errors.Is(err, c.err) {
				t.Errorf("%v: %d %v %v", c, n, left, err)
			}
			all, _ := a.Instances(ctx, "", "", "")
			if len(all) != c.all {
				t.Errorf("%v: %d are kept", c, len(all))
			}
		}
		var names []string
		for _, tree := range []string{"instances", "documents", "records", "deleting"} {
			names = append(names, under(t, filepath.Join(dir, tree))...)
			if left, _ := os.ReadDir(filepath.Join(dir, tree)); len(left) > 0 {
				t.Errorf("%s is not empty", tree)
			}
		}
		if len(names) > 0 {
			t.Error("files stay:", names)
		}
		for _, level := range []pipeline.Level{pipeline.StudyLevel, pipeline.SeriesLevel, pipeline.InstanceLevel} {
			if r, err := a.Search(ctx, pipeline.Query{Level: level}); err != nil || len(r.Results) > 0 {
				t.Errorf("%v: %d in the index, %v", level, len(r.Results), err)
			}
		}
	}
	a.Close()
	if _, _, err := a.Delete(ctx, "1.2", "", ""); !errors.Is(err, pipeline.ErrBusy) {
		t.Error("a closed archive:", err)
	}
}

// TestDeleteThatFails: a deletion that cannot be noted is an error, nothing is gone, and it may be asked for again.
func TestDeleteThatFails(t *testing.T) { onEach(t, testDeleteThatFails) }

func testDeleteThatFails(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir, archive.Options{})
	mustStore(t, a, object(t, "1.2", "1.2.3", "1.2.3.4"))
	if err := os.WriteFile(filepath.Join(dir, "deleting"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.Delete(context.Background(), "1.2", "", ""); err == nil || strings.Contains(err.Error(), dir) {
		t.Error("no error, or one that tells the folder:", err)
	}
	if found, err := a.Instances(context.Background(), "1.2", "", ""); err != nil || len(found) != 1 {
		t.Error(found, err)
	}
	if err := os.Remove(filepath.Join(dir, "deleting")); err != nil {
		t.Fatal(err)
	}
	if n, _, err := a.Delete(context.Background(), "1.2", "", ""); err != nil || n != 1 {
		t.Error(n, err)
	}
}

// studySize is how many instances each study of deletingChild has.
const studySize = 5

// deletingChild stores studies and deletes them from four goroutines until it is killed, and says what was acknowledged.
func deletingChild(dir string) {
	a, err := archive.Open(dir, dicom.OpenFile, archive.Options{Reserve: -1, Index: pipeline.Secret(os.Getenv("ARCHIVE_INDEX"))})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var mu sync.Mutex
	say := func(what ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Println(what...)
	}
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	start := time.Now().UnixNano()
	for g := range 4 {
		go func() {
			for n := 0; ; n++ {
				study := fmt.Sprintf("1.2.%d.%d.%d", start, g, n)
				var staged []*pipeline.Staged
				for i := range studySize {
					s, err := a.Stage(context.Background(), bytes.NewReader(object(&testing.T{}, study, study+".1", fmt.Sprint(study, ".1.", i))))
					fail(err)
					staged = append(staged, s)
				}
				for _, o := range a.Commit(context.Background(), staged) {
					fail(o.Err)
				}
				_, err := a.UpdateRecord(context.Background(), pipeline.Life{StudyInstanceUID: study}, "k", func(r *pipeline.Record) { r.State = pipeline.StateRead })
				fail(err)
				say("stored", study)
				if rand.IntN(3) > 0 {
					say("deleting", study)
					_, _, err := a.Delete(context.Background(), study, "", "")
					fail(err)
					say("deleted", study)
				}
			}
		}()
	}
	select {}
}

// TestKilledInDeletions: after a crash an acknowledged deletion is whole, one that was not is whole or has not begun.
func TestKilledInDeletions(t *testing.T) { onEach(t, testKilledInDeletions) }

func testKilledInDeletions(t *testing.T) {
	dir := t.TempDir()
	state := map[string]string{}
	for round := range 5 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "ARCHIVE_CHILD="+dir, "ARCHIVE_DELETES=1", "ARCHIVE_INDEX="+indexed(t, dir, archive.Options{}).Index.Reveal())
		var complaint bytes.Buffer
		cmd.Stderr = &complaint
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines, kill := bufio.NewScanner(out), 30+23*round
		for n := 0; lines.Scan(); n++ {
			if what, study, ok := strings.Cut(lines.Text(), " "); ok {
				state[study] = what
			}
			if n == kill {
				_ = cmd.Process.Kill()
			}
		}
		_ = cmd.Wait()
		if complaint.Len() > 0 {
			t.Fatal(complaint.String())
		}
	}
	a := open(t, dir, archive.Options{Warn: func(what, path string, err error) { t.Error(what, path, err) }})
	compared(t, a)
	counts := map[string]int{}
	for study, what := range state {
		counts[what]++
		found, _ := a.Instances(context.Background(), study, "", "")
		records, err := a.Records(context.Background(), study)
		if err != nil {
			t.Fatal(err)
		}
		files := len(under(t, filepath.Join(dir, "instances", study)))
		whole := len(found) == studySize && files == studySize && len(records) == 1
		gone := len(found) == 0 && files == 0 && len(records) == 0
		if what == "stored" && !whole || what == "deleted" && !gone || !whole && !gone {
			t.Errorf("%s study: %d entries, %d files, %d records", what, len(found), files, len(records))
		}
	}
	if counts["stored"] == 0 || counts["deleted"] == 0 {
		t.Error("nothing was tried:", counts)
	}
	t.Log(counts)
}

// TestDeleteBesideOddNames: the folder of the archive may have characters in its name that mean something to patterns of files; what an
// instance had replaced goes with it all the same.
func TestDeleteBesideOddNames(t *testing.T) { onEach(t, testDeleteBesideOddNames) }

func testDeleteBesideOddNames(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "x-ray [new] *")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	a := open(t, dir, archive.Options{Replace: true})
	mustStore(t, a, object(t, "1.2", "1.2.3", "1.2.3.4"), object(t, "1.2", "1.2.3", "1.2.3.40"))
	for _, name := range []string{"Second^A", "Third^A"} {
		mustStore(t, a, object(t, "1.2", "1.2.3", "1.2.3.4", pipeline.TagPatientName, name))
	}
	if n, left, err := a.Delete(t.Context(), "1.2", "1.2.3", "1.2.3.4"); n != 1 || !left || err != nil {
		t.Fatal(n, left, err)
	}
	if files := under(t, filepath.Join(dir, "instances")); len(files) != 1 || filepath.Base(files[0]) != "1.2.3.40.dcm" {
		t.Error("there are still", files)
	}
}
