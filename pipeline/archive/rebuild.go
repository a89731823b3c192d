package archive

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

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
	if err := a.index.look(ctx, a, true); errors.Is(err, errNewer) {
		return 0, err // it knows of readings what the files do not say
	} else if err == nil {
		_ = a.read.Close()
	}
	if err := os.Remove(a.path("clean")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("the old index cannot be removed: %w", bare(err))
	}
	if err := writeDurably(a.path(rebuildingNote), nil); err != nil {
		return 0, full(err)
	}
	if err := a.index.remove(ctx, a); err != nil {
		return 0, err
	}
	if _, err := a.index.open(a); err != nil {
		return 0, err
	}
	n, err := a.recover(ctx)
	return n, errors.Join(err, a.closeIndex())
}

// rebuildingNote lies there while the index is made anew of all files. Until it is done nothing is known of what was read before, so that a start that finds the
// note finishes that first; in S3, where no other start does, it takes listing all of that to know that nothing is missing. A flock of it is held by
// the process that does so.
const rebuildingNote = "rebuilding"

func (a *Archive) rebuilding() bool {
	_, err := os.Stat(a.path(rebuildingNote))
	return err == nil
}

// restore makes an index that was lost, or goes on where that was broken off. Of several processes that come one does it, and the others wait until it
// is through, or has died.
func (a *Archive) restore(ctx context.Context) error {
	note, err := os.OpenFile(a.path(rebuildingNote), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return full(err)
	}
	defer note.Close()
	end := time.Now().Add(5 * time.Second)
	for flock(note, syscall.LOCK_EX) != nil {
		if time.Now().Before(end) { // several that come to a new archive
			time.Sleep(20 * time.Millisecond)
			continue
		}
		a.opts.Warn("another process makes the index anew; this one waits for it", a.path(rebuildingNote), pipeline.ErrBusy)
		if err := waitFor(note); err != nil {
			return err
		}
		break
	}
	mine, err := note.Stat()
	if err != nil {
		return err
	}
	if now, err := os.Stat(a.path(rebuildingNote)); err != nil || !os.SameFile(mine, now) {
		return nil // it is done
	}
	if err := errors.Join(note.Sync(), syncDir(a.dir)); err != nil {
		return full(err)
	}
	_, err = a.recover(ctx)
	return err
}

// recover finishes deletions, gives every file that has no index entry one and returns how many there were. A file whose name and content disagree is left
// out. The order is about that of arrival: of studies by their folders, within a study by its files. Lives and records are made when all have an entry.
func (a *Archive) recover(ctx context.Context) (entered int, err error) {
	if err := a.finishDeletions(ctx); err != nil {
		return 0, err
	}
	c := comparison{a: a, batch: groupLimit}
	if err = a.allFiles(ctx, func(files []*lost) error { return c.add(ctx, files) }); err == nil {
		err = c.flush(ctx)
	}
	if err != nil {
		return c.entered, indexError(err)
	}
	tx, err := a.begin(ctx)
	if err != nil {
		return c.entered, indexError(err)
	}
	defer tx.Rollback()
	if err := a.fillLives(ctx, tx); err != nil {
		return c.entered, indexError(err)
	}
	if err := tx.Commit(); err != nil {
		return c.entered, indexError(err)
	}
	if err := os.Remove(a.path(rebuildingNote)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return c.entered, bare(err)
	}
	return c.entered, nil
}
