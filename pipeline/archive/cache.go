package archive

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/singleflight"
)

// spared is how long a file stays in the cache after it was asked for, even where the cache is too large then: who was told its path opens it
// within that time. Who has it open reads on in any case.
const spared = 30 * time.Minute

// cache keeps on this disk what was read last of files that are kept elsewhere. A name always stands for the same bytes.
type cache struct {
	dir   string
	limit int64 // bytes

	mu      sync.Mutex
	files   map[string]*cached // by path
	total   int64
	fetches singleflight.Group
	now     func() time.Time
}

type cached struct {
	size int64
	used time.Time
}

// fetchingDir has what is on its way into the cache.
const fetchingDir = ".fetching"

// openCache looks at what is in the folder from last time.
func openCache(dir string, limit int64, now func() time.Time) (*cache, error) {
	c := &cache{dir: dir, limit: limit, files: map[string]*cached{}, now: now}
	err := os.RemoveAll(filepath.Join(dir, fetchingDir))
	if err == nil {
		err = os.MkdirAll(filepath.Join(dir, fetchingDir), 0o700)
	}
	if err != nil {
		return nil, bare(err)
	}
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		c.files[path] = &cached{info.Size(), info.ModTime()}
		c.total += info.Size()
		return nil
	})
	c.shrink()
	return c, err
}

func (c *cache) path(name string) string { return filepath.Join(c.dir, filepath.FromSlash(name)) }

// used tells whether a file is there, and spares it.
func (c *cache) used(path string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.files[path]
	if f == nil {
		return false
	}
	if _, err := os.Lstat(path); err != nil { // removed by somebody
		c.total -= f.size
		delete(c.files, path)
		return false
	}
	f.used = c.now()
	return true
}

// keep gives a file a name in the cache, and leaves it the other one, by which a start after a crash knows of its upload.
func (c *cache) keep(from, path string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	size := info.Size()
	c.mu.Lock() // no folder goes away meanwhile
	err = os.MkdirAll(filepath.Dir(path), 0o700)
	if err == nil {
		switch err = os.Link(from, path); {
		case errors.Is(err, fs.ErrExist): // with the same bytes
			err = nil
		case errors.Is(err, errors.ErrUnsupported), errors.Is(err, syscall.EPERM): // not every file system has links
			err = os.Rename(from, path)
		}
	}
	if err == nil {
		if f := c.files[path]; f != nil {
			c.total -= f.size
		}
		c.files[path] = &cached{size, c.now()}
		c.total += size
	}
	c.mu.Unlock()
	c.shrink()
	return err
}

// get brings a file there where it is not.
func (c *cache) get(name string, fetch func(io.Writer) error) error {
	path := c.path(name)
	if c.used(path) {
		return nil
	}
	_, err, _ := c.fetches.Do(path, func() (any, error) {
		if c.used(path) {
			return nil, nil
		}
		f, err := os.CreateTemp(filepath.Join(c.dir, fetchingDir), "*.part")
		if err != nil {
			return nil, full(err)
		}
		defer os.Remove(f.Name()) // what is kept has another name, too
		err = fetch(f)
		if err = errors.Join(err, f.Close()); err == nil {
			if at, ok := cameAt(name); ok { // as other processes tell it
				_ = os.Chtimes(f.Name(), at, at)
			}
			err = c.keep(f.Name(), path)
		}
		return nil, full(err)
	})
	return err
}

// drop removes a file from the cache.
func (c *cache) drop(path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.files[path]; f != nil {
		c.remove(path, f)
	}
}

func (c *cache) remove(path string, f *cached) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return
	}
	c.total -= f.size
	delete(c.files, path)
	for dir := filepath.Dir(path); dir != c.dir && strings.HasPrefix(dir, c.dir); dir = filepath.Dir(dir) {
		if os.Remove(dir) != nil { // not empty
			return
		}
	}
}

// shrink removes what was not used for longest until a tenth of the limit is free.
func (c *cache) shrink() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.total <= c.limit {
		return
	}
	since := c.now().Add(-spared)
	var old []string
	for path, f := range c.files {
		if f.used.Before(since) {
			old = append(old, path)
		}
	}
	slices.SortFunc(old, func(x, y string) int { return c.files[x].used.Compare(c.files[y].used) })
	for _, path := range old {
		if c.total <= c.limit-c.limit/10 {
			return
		}
		c.remove(path, c.files[path])
	}
}
