package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"chatxray/pipeline"
)

var (
	errSecondFile = fmt.Errorf("%w: another file of the same SOP Instance UID is in the index", pipeline.ErrConflict)
	errNoRecord   = fmt.Errorf("%w: no record refers to it; its report was not finished, and is written anew", pipeline.ErrUnknown)
	errName       = fmt.Errorf("%w: its name is not that of an instance", pipeline.ErrUnknown)
)

// lost is a file of the archive that may have no index entry.
type lost struct {
	path     string
	own      bool
	info     fs.FileInfo // of the file that entry was made of
	object   *keptFile   // in S3, instead of path and info
	places   string      // of all its contents
	since    time.Time   // when the first content of the instance arrived
	sop      string
	version  int
	replaces bool // the index has an earlier content of the instance
	entry    *entry
	lane     pipeline.Lane
	err      error // why its place cannot have an entry
	broken   error // why its content cannot
}

// came is when this content did.
func (l *lost) came() time.Time {
	if l.object != nil {
		at, _ := cameAt(l.object.name)
		return at
	}
	return l.info.ModTime()
}

// study is the name of the folder of a study that the file lies in.
func (l *lost) study() string { return filepath.Base(filepath.Dir(filepath.Dir(l.path))) }

// known tells whether the index has a file, given its entry of the instance; whether the file replaces that, or cannot stand there beside it.
func (l *lost) known(in *pipeline.Instance) (known, replaces bool, err error) {
	switch {
	case in == nil:
		return false, false, nil
	case in.Path == l.path:
		return true, false, nil
	}
	_, version, _ := cutVersion(strings.TrimSuffix(filepath.Base(in.Path), ".dcm"))
	switch {
	case filepath.Dir(in.Path) != filepath.Dir(l.path):
		return false, false, errSecondFile
	case l.version < version, l.object != nil: // what is kept was chosen among all
		return true, false, nil
	}
	return false, true, nil
}

// allFiles calls f with the files of one study after the other.
func (a *Archive) allFiles(ctx context.Context, f func([]*lost) error) error {
	if a.bucket != nil {
		return a.allObjects(ctx, f)
	}
	for _, tree := range fileTrees {
		studies, err := a.byAge(tree)
		if err != nil {
			return err
		}
		for _, study := range studies {
			files, err := a.filesOf(filepath.Join(a.path(tree), study), tree == documentsDir)
			if err == nil {
				err = f(files)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// byAge lists the folder of a tree, the oldest entry first.
func (a *Archive) byAge(tree string) ([]string, error) {
	entries, err := os.ReadDir(a.path(tree))
	if err != nil {
		return nil, err
	}
	age := make(map[string]int64, len(entries))
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		names = append(names, e.Name())
		age[e.Name()] = info.ModTime().UnixNano()
	}
	slices.SortStableFunc(names, func(x, y string) int { return int(max(-1, min(1, age[x]-age[y]))) })
	return names, nil
}

// filesOf lists the files below a study's folder, the oldest first, without those whose content has been replaced.
func (a *Archive) filesOf(dir string, own bool) ([]*lost, error) {
	all, err := namesOf(dir, own)
	for _, l := range all {
		var e error
		if l.info, e = os.Lstat(l.path); e != nil {
			return nil, errors.Join(err, e)
		}
	}
	since := map[string]time.Time{}
	for _, l := range all {
		if at, ok := since[l.key()]; !ok || l.info.ModTime().Before(at) {
			since[l.key()] = l.info.ModTime()
		}
	}
	for _, l := range all {
		l.since = since[l.key()]
	}
	out := newest(all)
	slices.SortStableFunc(out, func(x, y *lost) int { return x.since.Compare(y.since) })
	return out, err
}

// key is the same for all contents of an instance.
func (l *lost) key() string { return filepath.Join(filepath.Dir(l.path), l.sop) }

// namesOf lists the files below a study's folder by their names alone. What goes meanwhile is left out.
func namesOf(dir string, own bool) (out []*lost, err error) {
	err = filepath.WalkDir(dir, func(path string, f fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || f.IsDir() {
			return err
		}
		l := &lost{path: path, own: own}
		name, ok := strings.CutSuffix(f.Name(), ".dcm")
		if ok {
			l.sop, l.version, ok = cutVersion(name)
		}
		if !ok {
			l.err = errName
		}
		out = append(out, l)
		return nil
	})
	return out, err
}

// newest leaves out the files whose content has been replaced.
func newest(files []*lost) []*lost {
	if !slices.ContainsFunc(files, func(l *lost) bool { return l.version > 1 }) {
		return files
	}
	last := map[string]int{}
	for _, l := range files {
		last[l.key()] = max(last[l.key()], l.version)
	}
	return slices.DeleteFunc(files, func(l *lost) bool { return l.err == nil && l.version < last[l.key()] })
}

// entryOf opens a file.
func (a *Archive) entryOf(l *lost) (*entry, error) {
	if l.object != nil {
		return a.entryOfObject(l)
	}
	in, err := a.open(l.path)
	if err == nil {
		err = validUIDs(in)
	}
	if err != nil {
		return nil, err
	}
	l.lane = in.Header.Lane()
	if a.versionPath(l.own, in.StudyInstanceUID, in.SeriesInstanceUID, in.SOPInstanceUID, l.version) != l.path {
		return nil, fmt.Errorf("%w: its place says other UIDs than its content", pipeline.ErrInvalid)
	}
	in.Header, in.Data = indexed(in), nil
	return &entry{in: in, size: l.info.Size(), own: l.own, received: l.info.ModTime().UnixNano(), version: l.version}, nil
}
