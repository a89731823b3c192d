package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"chatxray/pipeline"
)

// Rebuild makes the index of the archive in dir anew from its files. No other process may have the archive open (pipeline.ErrBusy). It
// returns how many instances the new index has; files that cannot be opened stay where they are and are told to opts.Warn. One that is
// broken off leaves an index that the next Open completes.
func Rebuild(ctx context.Context, dir string, open Opener, opts Options) (int, error) {
	a, err := prepare(dir, open, opts, true)
	if err != nil {
		return 0, err
	}
	defer func() { _ = a.leave() }()
	if err := os.Remove(a.path("clean")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("the old index cannot be removed: %w", bare(err))
	}
	if err := a.index.remove(ctx, a); err != nil {
		return 0, err
	}
	if _, err := a.index.open(a); err != nil {
		return 0, err
	}
	if a.bucket != nil {
		if err := writeDurably(a.path(rebuildingNote), nil); err != nil {
			return 0, errors.Join(full(err), a.closeIndex())
		}
	}
	n, err := a.recover(ctx)
	return n, errors.Join(err, a.closeIndex())
}

// rebuildingNote lies there while the index is made of what is in S3: it takes listing all of that to know that nothing is missing.
const rebuildingNote = "rebuilding"

func (a *Archive) rebuilding() bool {
	_, err := os.Stat(a.path(rebuildingNote))
	return err == nil
}

var (
	errSecondFile = fmt.Errorf("%w: another file of the same SOP Instance UID is in the index", pipeline.ErrConflict)
	errNoRecord   = fmt.Errorf("%w: no record refers to it; its report was not finished, and is written anew", pipeline.ErrUnknown)
	errName       = fmt.Errorf("%w: its name is not that of an instance", pipeline.ErrUnknown)
)

// lost is a file of the archive that may have no index entry.
type lost struct {
	path     string
	own      bool
	info     fs.FileInfo
	object   *keptFile // in S3, instead of path and info
	places   string    // of all its contents
	since    time.Time // when the first content of the instance arrived
	sop      string
	version  int
	replaces bool // the index has an earlier content of the instance
	entry    *entry
	err      error // why it cannot get an entry
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

// recover gives every file that has no index entry one and returns how many there were. A file whose name and content disagree is left
// out. The order is about that of arrival: of studies by their folders, within a study by its files.
func (a *Archive) recover(ctx context.Context) (n int, err error) {
	if err := a.finishDeletions(ctx); err != nil {
		return 0, err
	}
	var batch []*lost
	flush := func() error {
		added, err := a.adopt(ctx, batch)
		n, batch = n+added, batch[:0]
		if err == nil && added > 0 && a.opts.Progress != nil {
			a.opts.Progress(n)
		}
		return err
	}
	err = a.allFiles(ctx, func(files []*lost) error {
		if batch = append(batch, files...); len(batch) >= groupLimit {
			return flush()
		}
		return ctx.Err()
	})
	if err == nil {
		err = flush()
	}
	if err != nil {
		return n, indexError(err)
	}
	tx, err := a.begin(ctx)
	if err != nil {
		return n, indexError(err)
	}
	defer tx.Rollback()
	if err := a.fillLives(ctx, tx); err != nil {
		return n, indexError(err)
	}
	if err := tx.Commit(); err != nil {
		return n, indexError(err)
	}
	if err := os.Remove(a.path(rebuildingNote)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return n, bare(err)
	}
	return n, nil
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
	var out []*lost
	err := filepath.WalkDir(dir, func(path string, f fs.DirEntry, err error) error {
		if err != nil || f.IsDir() {
			return err
		}
		l := &lost{path: path, own: own}
		if l.info, err = f.Info(); err != nil {
			return err
		}
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
	newest, since := map[string]int{}, map[string]time.Time{}
	key := func(l *lost) string { return filepath.Join(filepath.Dir(l.path), l.sop) }
	for _, l := range out {
		newest[key(l)] = max(newest[key(l)], l.version)
		if at, ok := since[key(l)]; !ok || l.info.ModTime().Before(at) {
			since[key(l)] = l.info.ModTime()
		}
	}
	for _, l := range out {
		l.since = since[key(l)]
	}
	out = slices.DeleteFunc(out, func(l *lost) bool { return l.err == nil && l.version < newest[key(l)] })
	slices.SortStableFunc(out, func(x, y *lost) int { return x.since.Compare(y.since) })
	return out, err
}

// adopt gives files an entry and returns how many got one. Nobody else writes about their studies meanwhile.
func (a *Archive) adopt(ctx context.Context, files []*lost) (n int, err error) {
	tx, err := a.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer tx.Rollback()
	studies := make([]string, len(files))
	for i, l := range files {
		studies[i] = l.study()
	}
	if err := a.index.lock(ctx, tx, studies...); err != nil {
		return 0, err
	}
	missing, err := a.missing(ctx, tx, files)
	if err == nil {
		missing, err = a.finished(ctx, tx, missing)
	}
	if err != nil {
		return 0, err
	}
	var work errgroup.Group
	work.SetLimit(runtime.GOMAXPROCS(0))
	for _, l := range missing {
		work.Go(func() error {
			if l.err == nil && ctx.Err() == nil {
				l.entry, l.err = a.entryOf(l)
			}
			return nil
		})
	}
	_ = work.Wait()
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	for _, l := range missing {
		if errors.Is(l.err, pipeline.ErrUnavailable) {
			return 0, l.err
		}
	}
	inBatch := map[string]bool{}
	for _, l := range missing {
		if l.err == nil && inBatch[l.sop] {
			l.err = errSecondFile
		}
		if l.err != nil {
			a.opts.Warn("a file of the archive has no index entry and cannot get one", l.path, l.err)
			continue
		}
		inBatch[l.sop] = true
		n++
	}
	if err := insertAll(ctx, tx, missing); err != nil {
		return 0, err
	}
	return n, tx.Commit()
}

// missing returns the files that the index does not have.
func (a *Archive) missing(ctx context.Context, tx writing, files []*lost) (out []*lost, err error) {
	for some := range slices.Chunk(files, 500) {
		var sops []any
		for _, l := range some {
			if l.err == nil {
				sops = append(sops, l.sop)
			}
		}
		entries, err := a.findAll(ctx, tx, sops)
		if err != nil {
			return nil, err
		}
		for _, l := range some {
			if l.err != nil || !l.known(entries[l.sop]) {
				out = append(out, l)
			}
		}
	}
	return out, nil
}

// finished removes the files of documents that a crash has left without their record, and returns the others. What is in S3 stays.
func (a *Archive) finished(ctx context.Context, tx writing, files []*lost) (out []*lost, err error) {
	reported := map[string]map[string]bool{} // by study
	for _, l := range files {
		if !l.own || l.err != nil || l.object != nil {
			out = append(out, l)
			continue
		}
		study := l.study()
		if reported[study] == nil {
			reported[study] = map[string]bool{}
			records, err := recordsOf(ctx, tx, study)
			if err != nil {
				return nil, err
			}
			copies, err := a.copies(ctx, study)
			if err != nil {
				return nil, err
			}
			for _, r := range append(records, copies...) {
				for _, d := range r.Documents {
					reported[study][d.SOPInstanceUID] = true
				}
			}
		}
		if reported[study][l.sop] && !l.replaces {
			out = append(out, l)
			continue
		}
		a.opts.Warn("a document is removed", l.path, errNoRecord)
		if err := os.Remove(l.path); err != nil {
			return nil, bare(err)
		}
	}
	return out, nil
}

// known tells whether the index has a file, given its entry of the instance; whether another one stands there for its instance is noted.
func (l *lost) known(in *pipeline.Instance) bool {
	if in == nil {
		return false
	}
	if in.Path == l.path {
		return true
	}
	_, version, _ := cutVersion(strings.TrimSuffix(filepath.Base(in.Path), ".dcm"))
	switch {
	case filepath.Dir(in.Path) != filepath.Dir(l.path):
		l.err = errSecondFile
	case l.version < version, l.object != nil: // what is kept was chosen among all
		return true
	default:
		l.replaces = true
	}
	return false
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
	if a.versionPath(l.own, in.StudyInstanceUID, in.SeriesInstanceUID, in.SOPInstanceUID, l.version) != l.path {
		return nil, fmt.Errorf("%w: its place says other UIDs than its content", pipeline.ErrInvalid)
	}
	in.Header, in.Data = indexed(in), nil
	return &entry{in: in, size: l.info.Size(), own: l.own, received: l.info.ModTime().UnixNano(), version: l.version}, nil
}

func insertAll(ctx context.Context, tx writing, files []*lost) error {
	var renewed []*lost
	for _, l := range files {
		if l.err != nil {
			continue
		}
		if l.version > 1 {
			renewed = append(renewed, l)
		}
		if !l.replaces {
			if err := insert(ctx, tx, *l.entry); err != nil {
				return err
			}
		}
	}
	// The newest content tells the attributes of study and series.
	slices.SortStableFunc(renewed, func(x, y *lost) int { return x.came().Compare(y.came()) })
	for _, l := range renewed {
		e := *l.entry
		e.place = "" // it is there
		if err := renew(ctx, tx, e); err != nil {
			return err
		}
	}
	return nil
}
