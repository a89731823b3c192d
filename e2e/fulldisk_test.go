package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// disk is a small file system of its own.
type disk struct {
	dir   string   // where the service finds it
	under []string // what the service runs under, to find it there
	path  string   // where the test finds it
}

// smallDisk mounts a tmpfs: as root, else in a user namespace that a process keeps open.
func smallDisk(t *testing.T, megabytes int) *disk {
	t.Helper()
	dir := t.TempDir()
	size := fmt.Sprintf("size=%dm", megabytes)
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, size)
	if err == nil {
		t.Cleanup(func() {
			if err := syscall.Unmount(dir, 0); err != nil {
				t.Error("unmounting the disk:", err)
			}
		})
		return &disk{dir: dir, path: dir}
	}
	holder := exec.Command("unshare", "-rm", "sh", "-c", `mount -t tmpfs -o "$1" tmpfs "$2" && touch "$2/mounted" && exec sleep 1000`, "sh", size, dir)
	if serr := holder.Start(); serr != nil {
		t.Skipf("no tmpfs can be mounted: %v; %v", err, serr)
	}
	ended := make(chan error, 1)
	go func() { ended <- holder.Wait() }()
	t.Cleanup(func() { _ = holder.Process.Kill(); <-ended })
	pid := strconv.Itoa(holder.Process.Pid)
	d := &disk{dir: dir, path: filepath.Join("/proc", pid, "root", dir), under: []string{"nsenter", "-t", pid, "-U", "-m", "--preserve-credentials"}}
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if _, serr := os.Stat(filepath.Join(d.path, "mounted")); serr == nil {
			return d
		}
		select {
		case serr := <-ended:
			ended <- serr
			t.Skipf("no tmpfs can be mounted: %v; unshare: %v", err, serr)
		default:
		}
	}
	t.Fatal("the namespace with the disk is not ready")
	return nil
}

// fill leaves so many bytes free. It returns how to give the rest back.
func (d *disk) fill(t *testing.T, leave int64) (empty func()) {
	t.Helper()
	name := filepath.Join(d.path, "filler")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 64<<10)
	for {
		var s syscall.Statfs_t
		if err := syscall.Statfs(d.path, &s); err != nil {
			t.Fatal(err)
		}
		n := min(int64(s.Bavail)*s.Bsize-leave, int64(len(block)))
		if n <= 0 && leave > 0 {
			break
		}
		if _, err = f.Write(block[:max(n, 4096)]); errors.Is(err, syscall.ENOSPC) {
			break // with nothing to leave, not even the last page
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}

// radiograph is a phantom's bytes and study.
func radiograph(t *testing.T, seed string) (b []byte, study string) {
	t.Helper()
	path, study := phantom(t, "--seed", seed)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b, study
}

// kept checks that a study has its radiograph, byte for byte, and so many instances.
func (s *service) kept(b []byte, study string, instances int) {
	s.t.Helper()
	var found []map[string]struct{ Value []any }
	getJSON(s.t, s.dicomweb()+"/studies/"+study+"/instances", &found)
	if len(found) != instances {
		s.t.Errorf("%d instances in study %s, want %d", len(found), study, instances)
	}
	got, err := get(s.dicomweb() + "/studies/" + study)
	if err != nil || !bytes.Contains(got, b) {
		s.t.Errorf("the radiograph of study %s is not what was stored (%v)", study, err)
	}
}

func (s *service) reported(study string) {
	s.t.Helper()
	chatxray(s.t, 0, "show", "--wait", "1m", s.dicomweb(), study)
}

// A disk that fills up: what is new is refused before it is accepted, what was accepted is kept and reported, from the reserve or when
// there is space again, and the service lives through it, a crash included.
func TestFullDisk(t *testing.T) {
	built(t)
	const reserve = 8 << 20
	d := smallDisk(t, 64)
	config := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(config, []byte("line: {quiet: 1s}\narchive: {reserve_mb: 8}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(d.dir, "data")
	s := serveUnder(t, d.under, data, "--config", config)
	first, firstStudy := radiograph(t, "1")
	second, secondStudy := radiograph(t, "2")
	third, thirdStudy := radiograph(t, "3")
	late, lateStudy := radiograph(t, "4")
	accepted := func(b []byte) {
		t.Helper()
		if status, answer := stow(t, s, b); status != 200 {
			t.Fatalf("%d %s", status, answer)
		}
	}
	refused := func(b []byte) {
		t.Helper()
		if status, answer := stow(t, s, b); status != 507 {
			t.Errorf("STOW-RS on a full disk answers %d, want 507: %s", status, answer)
		}
	}
	accepted(first)
	s.reported(firstStudy)

	// Nearly full: the reserve is for the reports of what was accepted.
	accepted(second)
	empty := d.fill(t, reserve/2)
	refused(late)
	s.reported(secondStudy)
	empty()

	// Full to the last page.
	accepted(third)
	empty = d.fill(t, 0)
	refused(late)
	eventually(t, time.Minute, "the third study to be taken up in vain", func() error { // not even a step of its life can be noted
		if !strings.Contains(s.log.String(), thirdStudy+`","error":"the archive cannot keep the instance: disk full`) {
			return errors.New("not yet")
		}
		return nil
	})
	refused(late)
	for i, b := range [][]byte{first, second} {
		s.kept(b, []string{firstStudy, secondStudy}[i], 3)
	}
	s.kept(third, thirdStudy, 1)
	if _, err := get(s.root + "/readyz"); err != nil {
		t.Error(err)
	}
	empty()
	s.reported(thirdStudy)
	accepted(late)

	// A crash on a full disk, before the last one is reported.
	empty = d.fill(t, 0)
	s.stop(syscall.SIGKILL)
	s = serveUnder(t, d.under, data, "--config", config)
	s.kept(late, lateStudy, 1)
	refused(late)
	empty()
	s.reported(lateStudy)
	for i, b := range [][]byte{first, second, third, late} {
		s.kept(b, []string{firstStudy, secondStudy, thirdStudy, lateStudy}[i], 3)
	}
}

// Without a reserve the disk itself says that it is full, in the middle of an upload.
func TestFullDiskWithoutReserve(t *testing.T) {
	built(t)
	d := smallDisk(t, 32)
	config := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(config, []byte("archive: {reserve_mb: 0}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := serveUnder(t, d.under, filepath.Join(d.dir, "data"), "--config", config)
	first, firstStudy := radiograph(t, "1")
	if status, answer := stow(t, s, first); status != 200 {
		t.Fatalf("%d %s", status, answer)
	}
	s.reported(firstStudy)
	second, secondStudy := radiograph(t, "2")
	for _, leave := range []int64{int64(len(second)) / 2, int64(len(second)) + 8<<10, 0} { // no room for the file, for its folders and index entry, for anything
		empty := d.fill(t, leave)
		if status, answer := stow(t, s, second); status != 507 {
			t.Errorf("%d bytes are free: STOW-RS answers %d, want 507: %s", leave, status, answer)
		}
		s.kept(first, firstStudy, 3)
		if _, err := get(s.dicomweb() + "/studies/" + secondStudy); err == nil {
			t.Error("what was refused is there")
		}
		empty()
	}
	if status, answer := stow(t, s, second); status != 200 {
		t.Fatalf("%d %s", status, answer)
	}
	s.reported(secondStudy)
}
