package deliver_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chatxray/pipeline"
	"chatxray/pipeline/deliver"
)

// What a crash has left is taken away, the same document again changes nothing, another one is refused and the first stays.
func TestFolder(t *testing.T) {
	path := t.TempDir()
	to, err := deliver.Open(deliver.Config{Name: "share", Kind: "folder", Path: path})
	if err != nil {
		t.Fatal(err)
	}
	put := func(bytes string, study string) error {
		return to.Deliver(t.Context(), pipeline.Record{}, []pipeline.Document{{StudyInstanceUID: study, SOPInstanceUID: study + ".9", Bytes: []byte(bytes)}})
	}
	half := filepath.Join(path, "1.2", ".1.2.9.dcm.OLD.part")
	if err := os.MkdirAll(filepath.Dir(half), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(half, []byte("ha"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := put("whole", "1.2"); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(path, "1.2", "1.2.9.dcm")
	before, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := put("whole", "1.2"); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(name); err != nil || !os.SameFile(before, after) || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("the same document was written again (%v)", err)
	}
	if err := put("other", "1.2"); !errors.Is(err, deliver.Permanent) || !strings.Contains(err.Error(), "other content") {
		t.Error(err)
	}
	if b, _ := os.ReadFile(name); string(b) != "whole" {
		t.Errorf("the first one is now %q", b)
	}
	if files, _ := os.ReadDir(filepath.Dir(name)); len(files) != 1 {
		t.Errorf("%d files are there", len(files))
	}
	if err := put("x", "../1"); !errors.Is(err, deliver.Permanent) {
		t.Errorf("a path of another's making: %v", err)
	}
	// A link leads out of the folder: it is not followed.
	if err := os.Symlink(t.TempDir(), filepath.Join(path, "1.3")); err != nil {
		t.Fatal(err)
	}
	if err := put("x", "1.3"); !errors.Is(err, pipeline.ErrUnavailable) {
		t.Errorf("a link out of the folder is followed: %v", err)
	}
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if err := put("x", "1.4"); !errors.Is(err, pipeline.ErrUnavailable) || !strings.Contains(err.Error(), path) {
		t.Errorf("a folder that is not there: %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the folder was made")
	}
}
