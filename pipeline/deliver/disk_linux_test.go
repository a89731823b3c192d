package deliver_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"chatxray/pipeline"
	"chatxray/pipeline/deliver"
)

// A disk that is full, or can only be read, is told, leaves no half of a file and is tried again. The test runs itself in a namespace where it may mount one.
func TestFolderOnAFullDisk(t *testing.T) {
	dir := os.Getenv("FOLDER_DISK")
	if dir == "" {
		cmd := exec.Command("unshare", "-rm", os.Args[0], "-test.run=^TestFolderOnAFullDisk$", "-test.v")
		cmd.Env = append(os.Environ(), "FOLDER_DISK="+t.TempDir())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	to, err := deliver.Open(deliver.Config{Name: "share", Kind: "folder", Path: dir})
	if err != nil {
		t.Fatal(err)
	}
	put := func(size int, study string) error {
		return to.Deliver(t.Context(), pipeline.Record{}, []pipeline.Document{{StudyInstanceUID: study, SOPInstanceUID: study + ".9", Bytes: make([]byte, size)}})
	}
	if err := put(1<<20, "1.2"); !errors.Is(err, pipeline.ErrUnavailable) || !strings.Contains(err.Error(), "no space left on device") || !strings.Contains(err.Error(), dir) {
		t.Errorf("a full disk: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "1.2", ".*part")); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
	if err := put(1000, "1.2"); err != nil {
		t.Error(err)
	}
	if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if err := put(1000, "1.3"); !errors.Is(err, pipeline.ErrUnavailable) || !strings.Contains(err.Error(), "read-only file system") {
		t.Errorf("a disk that can only be read: %v", err)
	}
}
