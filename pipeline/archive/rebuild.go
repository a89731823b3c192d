package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"chatxray/pipeline"
)

// Rebuild makes the index of the archive in dir anew from its files. No other process may have the archive open. It returns how many
// instances the new index has; files that cannot be opened stay where they are and are told to opts.Warn.
func Rebuild(ctx context.Context, dir string, open Opener, opts Options) (int, error) {
	a, err := prepare(dir, open, opts)
	if err != nil {
		return 0, err
	}
	defer a.lock.Close()
	for _, name := range []string{"clean", "index.db", "index.db-wal", "index.db-shm"} {
		if err := os.Remove(a.path(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, fmt.Errorf("the old index cannot be removed: %w", bare(err))
		}
	}
	if err := a.openIndex(); err != nil {
		return 0, err
	}
	n, err := a.recover(ctx)
	return n, errors.Join(err, a.closeIndex())
}

var errSecondFile = fmt.Errorf("%w: another file of the same SOP Instance UID is in the index", pipeline.ErrConflict)

// recover gives every file that has no index entry one and returns how many there were. A file whose name and content disagree is left out.
func (a *Archive) recover(ctx context.Context) (n int, err error) {
	if err := a.finishDeletions(ctx); err != nil {
		return 0, err
	}
	var batch []entry
	inBatch := map[string]bool{}
	flush := func() error {
		err := a.insertAll(ctx, batch)
		n, batch = n+len(batch), batch[:0]
		clear(inBatch)
		return err
	}
	for _, tree := range []struct {
		name string
		own  bool
	}{{instancesDir, false}, {documentsDir, true}} {
		err := filepath.WalkDir(a.path(tree.name), func(path string, f fs.DirEntry, err error) error {
			if err != nil || f.IsDir() || ctx.Err() != nil {
				return errors.Join(err, ctx.Err())
			}
			e, err := a.entryOf(ctx, path, f, tree.own)
			if err == nil && e != nil && inBatch[e.in.SOPInstanceUID] {
				err = errSecondFile
			}
			if err != nil {
				a.opts.Warn("a file of the archive has no index entry and cannot get one", path, err)
				return nil
			}
			if e == nil {
				return nil
			}
			inBatch[e.in.SOPInstanceUID] = true
			if batch = append(batch, *e); len(batch) >= groupLimit {
				return flush()
			}
			return nil
		})
		if err == nil {
			err = flush()
		}
		if err != nil {
			return n, indexError(err)
		}
	}
	return n, nil
}

// entryOf opens a file that has no index entry; nil when it has one.
func (a *Archive) entryOf(ctx context.Context, path string, f fs.DirEntry, own bool) (*entry, error) {
	sop, ok := strings.CutSuffix(f.Name(), ".dcm")
	if !ok {
		return nil, fmt.Errorf("%w: its name does not end in .dcm", pipeline.ErrUnknown)
	}
	known, err := a.find(ctx, a.write, sop)
	if err != nil {
		return nil, indexError(err)
	}
	if known != nil && known.Path == path {
		return nil, nil
	}
	if known != nil {
		return nil, errSecondFile
	}
	info, err := f.Info()
	if err != nil {
		return nil, err
	}
	in, err := a.open(path)
	if err == nil {
		err = validUIDs(in)
	}
	if err != nil {
		return nil, err
	}
	if a.instancePath(own, in.StudyInstanceUID, in.SeriesInstanceUID, in.SOPInstanceUID) != path {
		return nil, fmt.Errorf("%w: its place says other UIDs than its content", pipeline.ErrInvalid)
	}
	in.Header, in.Data = indexed(in), nil
	return &entry{in: in, size: info.Size(), own: own, received: info.ModTime().UnixNano()}, nil
}

func (a *Archive) insertAll(ctx context.Context, entries []entry) error {
	tx, err := a.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	for _, e := range entries {
		if err := insert(ctx, tx, e); err != nil {
			return err
		}
	}
	return tx.Commit()
}
