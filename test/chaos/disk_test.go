package chaos

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// disk is a file system of its own that can be full; where none can be mounted it is a folder that cannot.
type disk struct {
	dir  string
	real bool
}

const diskMB = "512m"

func newDisk(t *testing.T) *disk {
	t.Helper()
	d := &disk{dir: t.TempDir()}
	if err := syscall.Mount("tmpfs", d.dir, "tmpfs", 0, "size="+diskMB); err != nil {
		t.Logf("no tmpfs can be mounted (%v): the disk is never full", err)
		return d
	}
	d.real = true
	t.Cleanup(func() {
		if err := syscall.Unmount(d.dir, 0); err != nil {
			t.Error("unmounting the disk:", err)
		}
	})
	return d
}

// fill leaves nothing free; false where the disk is no file system of its own.
func (d *disk) fill() bool {
	if !d.real {
		return false
	}
	f, err := os.Create(filepath.Join(d.dir, "filler"))
	if err != nil {
		return false
	}
	defer f.Close()
	for block, at := int64(64<<20), int64(0); block >= 4096; {
		err := syscall.Fallocate(int(f.Fd()), 0, at, block)
		switch {
		case err == nil:
			at += block
		case errors.Is(err, syscall.ENOSPC):
			block /= 4
		case !errors.Is(err, syscall.EINTR):
			return false
		}
	}
	return true
}

func (d *disk) empty() { _ = os.Remove(filepath.Join(d.dir, "filler")) }
