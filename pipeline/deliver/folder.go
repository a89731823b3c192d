package deliver

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"chatxray/pipeline"
)

func init() { register("folder", openFolder) }

// DefaultLayout names the files of a destination of the kind folder.
const DefaultLayout = "{StudyInstanceUID}/{SOPInstanceUID}.dcm"

// folder writes documents as DICOM files.
type folder struct{ Config }

func openFolder(c Config) (Destination, error) {
	var errs []error
	if c.Path == "" {
		errs = append(errs, errors.New("path: no folder is named"))
	}
	if c.Layout == "" {
		c.Layout = DefaultLayout
	}
	example := fileName(c.Layout, pipeline.Document{Kind: "k", StudyInstanceUID: "1", SeriesInstanceUID: "1", SOPInstanceUID: "1"})
	switch {
	case !strings.Contains(c.Layout, "{SOPInstanceUID}"):
		errs = append(errs, errors.New("layout: has no {SOPInstanceUID}: documents would take each other's place"))
	case strings.ContainsAny(example, "{}\\\x00"), !fs.ValidPath(example):
		errs = append(errs, fmt.Errorf("layout: %q is no name below a folder, of {StudyInstanceUID}, {SeriesInstanceUID}, {SOPInstanceUID} and {Kind}", c.Layout))
	}
	return &folder{c}, errors.Join(errs...)
}

func fileName(layout string, d pipeline.Document) string {
	return strings.NewReplacer("{StudyInstanceUID}", d.StudyInstanceUID, "{SeriesInstanceUID}", d.SeriesInstanceUID, "{SOPInstanceUID}", d.SOPInstanceUID,
		"{Kind}", string(d.Kind)).Replace(layout)
}

// Deliver writes each document whole and durably, under its name only when it is whole. The same document again changes nothing; another one under its name
// is kept, and refused.
func (f *folder) Deliver(ctx context.Context, _ pipeline.Record, docs []pipeline.Document) error {
	// The folder is not made here: where a share is not mounted, files would be hidden below it.
	root, err := os.OpenRoot(f.Path)
	if err != nil {
		return f.failed("the folder cannot be opened", err)
	}
	defer root.Close()
	for _, d := range docs {
		if !pipeline.ValidUID(d.StudyInstanceUID) || !pipeline.ValidUID(d.SOPInstanceUID) || d.SeriesInstanceUID != "" && !pipeline.ValidUID(d.SeriesInstanceUID) {
			return fmt.Errorf("destination %s: a UID of the document names no file: %w", f.Name, Permanent)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := f.write(root, fileName(f.Layout, d), d.Bytes); err != nil {
			return err
		}
	}
	return nil
}

func (f *folder) write(root *os.Root, name string, b []byte) error {
	switch had, err := same(root, name, b); {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return f.failed("a file cannot be read", err)
	case err == nil && !had:
		return fmt.Errorf("destination %s: the file %s is there with other content; it was left alone: %w", f.Name, name, Permanent)
	case err == nil: // perhaps from just before a crash
		return f.failed("a folder cannot be made durable", syncFolder(root, path.Dir(name)))
	}
	if err := makeFolders(root, path.Dir(name)); err != nil {
		return f.failed("a folder cannot be made", err)
	}
	temp := path.Join(path.Dir(name), "."+path.Base(name)+"."+rand.Text()[:8]+".part")
	err := writeFile(root, temp, b)
	if err == nil {
		err = root.Rename(temp, name)
	}
	if err != nil {
		_ = root.Remove(temp)
		return f.failed("a file cannot be written", err)
	}
	f.sweep(root, name, path.Base(temp))
	return f.failed("a folder cannot be made durable", syncFolder(root, path.Dir(name)))
}

// sweep removes what attempts that were cut off have left of a file.
func (f *folder) sweep(root *os.Root, name, own string) {
	dir, err := root.Open(path.Dir(name))
	if err != nil {
		return
	}
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(256)
		for _, n := range names {
			if n != own && strings.HasPrefix(n, "."+path.Base(name)+".") && strings.HasSuffix(n, ".part") {
				_ = root.Remove(path.Join(path.Dir(name), n))
			}
		}
		if err != nil {
			return
		}
	}
}

// failed words an error of the file system without its path. All of them (no space, no permission, no share) are about the place, not about the document.
func (f *folder) failed(what string, err error) error {
	if err == nil {
		return nil
	}
	var p *fs.PathError
	var l *os.LinkError
	if errors.As(err, &p) {
		err = p.Err
	} else if errors.As(err, &l) {
		err = l.Err
	}
	return fmt.Errorf("destination %s (%s): %s: %w: %w", f.Name, f.Path, what, err, pipeline.ErrUnavailable)
}

// same tells whether a file has the content; an error that is fs.ErrNotExist where there is no file.
func same(root *os.Root, name string, b []byte) (bool, error) {
	file, err := root.Open(name)
	if err != nil {
		return false, err
	}
	defer file.Close()
	if st, err := file.Stat(); err != nil || !st.Mode().IsRegular() || st.Size() != int64(len(b)) {
		return false, err
	}
	had, err := io.ReadAll(file)
	return bytes.Equal(had, b), err
}

// makeFolders makes the folders of a path, each durable in the one above it.
func makeFolders(root *os.Root, dir string) error {
	if dir == "." {
		return nil
	}
	if st, err := root.Stat(dir); err == nil && st.IsDir() {
		return nil
	}
	if err := makeFolders(root, path.Dir(dir)); err != nil {
		return err
	}
	if err := root.Mkdir(dir, 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncFolder(root, path.Dir(dir))
}

func writeFile(root *os.Root, name string, b []byte) error {
	file, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return err
	}
	_, err = file.Write(b)
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

// syncFolder makes the names in a folder durable. Some network file systems cannot, and need not.
func syncFolder(root *os.Root, dir string) error {
	file, err := root.Open(filepath.FromSlash(dir))
	if err != nil {
		return err
	}
	defer file.Close()
	if err := file.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOTSUP) {
		return err
	}
	return nil
}
