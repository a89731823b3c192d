package archive

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"chatxray/pipeline"
)

// folder keeps files in a folder of this machine.
type folder struct{ dir string }

func (d folder) path(name string) string { return filepath.Join(d.dir, filepath.FromSlash(name)) }

func (d folder) write(_ context.Context, name string, b []byte) error {
	parts := strings.Split(name, "/")
	changed, err := makeDirs(d.dir, parts[:len(parts)-1]...)
	for _, dir := range changed {
		err = errors.Join(err, syncDir(dir))
	}
	if err == nil {
		err = writeDurably(d.path(name), b)
	}
	return full(err)
}

func (d folder) copy(_ context.Context, name string, b []byte) error {
	err := writeWhole(d.path(name), b, false)
	if errors.Is(err, fs.ErrNotExist) { // the first of its folder
		parts := strings.Split(name, "/")
		if _, err = makeDirs(d.dir, parts[:len(parts)-1]...); err == nil {
			err = writeWhole(d.path(name), b, false)
		}
	}
	return full(err)
}

func (d folder) read(_ context.Context, name string) (io.ReadCloser, error) {
	f, err := os.Open(d.path(name))
	if err != nil {
		return nil, bare(err)
	}
	return f, nil
}

func (d folder) list(ctx context.Context, name string, f func(keptFile) error) error {
	return filepath.WalkDir(d.path(name), func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || e.IsDir() {
			return errors.Join(bare(err), ctx.Err())
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) { // removed meanwhile
			return nil
		}
		if err != nil {
			return bare(err)
		}
		rel, err := filepath.Rel(d.dir, path)
		if err != nil {
			return err
		}
		return f(keptFile{filepath.ToSlash(rel), info.Size(), info.ModTime()})
	})
}

func (d folder) remove(_ context.Context, names ...string) error {
	dirs := map[string]bool{}
	for _, name := range names {
		path := d.path(name)
		if err := os.Remove(path); err == nil {
			dirs[filepath.Dir(path)] = true
		} else if !errors.Is(err, fs.ErrNotExist) {
			return bare(err)
		}
	}
	for dir := range dirs {
		if err := syncDir(dir); err != nil {
			return bare(err)
		}
	}
	return nil
}

// secure leaves the file where it is: the commit renames it.
func (d folder) secure(_ context.Context, local, _ string, _ pipeline.Digest) error {
	return full(syncFile(local))
}

func (d folder) fetch(context.Context, string, pipeline.Digest) error { return nil }
