package parts

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// stampFile remembers, beside the members, which bytes were hashed: a start does not read 100 MB again. It guards against
// damage, not against somebody who may write to the cache.
const stampFile = ".verified.json"

// store is a catalogue with its cache and its sources.
type store struct {
	parts []Part
	root  string // of the cache
	from  string // folder of packages; "" asks pip and npm
}

var checked struct {
	sync.Mutex
	paths map[string]bool // first members whose parts this process has verified
}

// Path returns the file of a part in the cache (its first member; the others lie beside it) after its bytes were checked:
// once in a process, and by hashing only when the size or the time of a file differs from what was hashed before.
// ErrMissing says that `chatxray parts fetch NAME` has to be run, ErrDamaged that a file is not the pinned one.
// It may be called concurrently.
func Path(name string) (string, error) {
	s, err := here()
	if err != nil {
		return "", err
	}
	return s.path(name)
}

func (s store) path(name string) (string, error) {
	p, b, err := s.find(name)
	if err != nil {
		return "", err
	}
	file := filepath.Join(s.dir(p), b.Members[0].File)
	checked.Lock()
	defer checked.Unlock()
	if checked.paths[file] {
		return file, nil
	}
	if err := s.verify(p, b); err != nil {
		return "", err
	}
	if checked.paths == nil {
		checked.paths = map[string]bool{}
	}
	checked.paths[file] = true
	return file, nil
}

// here is the store of the environment.
func here() (store, error) {
	s := store{parts: catalogue(), root: os.Getenv("CHATXRAY_PARTS"), from: os.Getenv("CHATXRAY_PARTS_FROM")}
	if s.root == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return s, fmt.Errorf("%w: there is no home directory to keep it in: set CHATXRAY_PARTS to a folder", ErrCache)
		}
		s.root = filepath.Join(cache, "chatxray", "parts")
	}
	root, err := filepath.Abs(s.root)
	if err != nil {
		return s, fmt.Errorf("%w: %w", ErrCache, err)
	}
	s.root = root
	return s, nil
}

func (s store) find(name string) (Part, Build, error) {
	for _, p := range s.parts {
		if p.Name == name {
			b, err := p.Build()
			return p, b, err
		}
	}
	return Part{}, Build{}, fmt.Errorf("%w %q: `chatxray parts list` shows the known ones", ErrUnknown, name)
}

func (s store) dir(p Part) string { return filepath.Join(s.root, p.Name, p.Version) }

// stamp is what was seen of one member when it was hashed. Times are whole seconds, which container layers keep.
type stamp struct {
	Size    int64  `json:"size"`
	ModTime int64  `json:"mtime"` // Unix seconds
	SHA256  string `json:"sha256"`
}

// verify checks that every member lies in the cache with the pinned bytes.
func (s store) verify(p Part, b Build) error {
	dir := s.dir(p)
	known := readStamps(dir)
	fresh := map[string]stamp{}
	stale := false
	for _, m := range b.Members {
		file := filepath.Join(dir, m.File)
		st, err := os.Stat(file)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return missing(p, dir)
		case err != nil:
			return fmt.Errorf("%w: %w", ErrCache, err)
		case !st.Mode().IsRegular() || st.Size() != m.Size:
			return damaged(p, file)
		}
		now := stamp{Size: st.Size(), ModTime: st.ModTime().Unix(), SHA256: m.SHA256}
		fresh[m.File] = now
		if known[m.File] == now {
			continue
		}
		stale = true
		sum, err := hashFile(file)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrCache, err)
		}
		if sum != m.SHA256 {
			return damaged(p, file)
		}
	}
	if stale {
		// A cache that cannot be written (an image's read-only layer) is hashed at each start instead.
		_ = writeStamps(dir, fresh)
	}
	return nil
}

func missing(p Part, dir string) error {
	return fmt.Errorf("%w: %s %s is not in %s: run `chatxray parts fetch %s`", ErrMissing, p.Name, p.Version, dir, p.Name)
}

func damaged(p Part, file string) error {
	return fmt.Errorf("%w: %s is not the pinned file of %s %s: run `chatxray parts fetch %s` to replace it", ErrDamaged, file, p.Name, p.Version, p.Name)
}

func readStamps(dir string) map[string]stamp {
	f, err := os.Open(filepath.Join(dir, stampFile))
	if err != nil {
		return nil
	}
	defer f.Close()
	var out map[string]stamp
	if json.NewDecoder(io.LimitReader(f, 64<<10)).Decode(&out) != nil {
		return nil
	}
	return out
}

func writeStamps(dir string, stamps map[string]stamp) error {
	b, err := json.Marshal(stamps)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".verified-*")
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, stampFile))
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

func hashFile(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// diskError turns an error of writing under dir into one of this package, for the part p.
func diskError(p Part, dir string, need int64, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %s needs %s in %s: free some space, or set CHATXRAY_PARTS to a folder on a larger disk, and run `chatxray parts fetch %s` again",
			ErrFull, p.Name, megabytes(need), dir, p.Name)
	}
	return fmt.Errorf("%w for %s: %w: make the folder writable, or set CHATXRAY_PARTS to another one", ErrCache, p.Name, err)
}
