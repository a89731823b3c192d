package archive

import (
	"context"
	"errors"
	"os"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"chatxray/pipeline"
)

// adopt gives files an entry and returns how many got one; beside: the archive is in use, and their studies are to be read like any others. The files are
// opened first. Then nobody writes about their studies, as in a commit, while it is looked again which of them are there and lack an entry: one that was deleted, stored or
// reported since is none of them any more, and a document of ours that is being kept has its entry and its record by then, or is none of ours to keep.
func (a *Archive) adopt(ctx context.Context, files []*lost, beside bool) (entered int, err error) {
	if err := a.openAll(ctx, files); err != nil {
		return 0, err
	}
	var studies []string
	for _, l := range files {
		studies = append(studies, l.study())
	}
	var in, out []*lost
	err = a.exclusively(ctx, studies, func(ctx context.Context, tx writing) error {
		missing, err := a.stillMissing(ctx, tx, files)
		if err == nil {
			missing, err = a.finished(ctx, tx, missing)
		}
		if err != nil {
			return err
		}
		if in, out = separate(missing); beside {
			slices.SortStableFunc(in, func(x, y *lost) int { return x.came().Compare(y.came()) })
		}
		if err := insertAll(ctx, tx, in); err != nil || !beside {
			return err
		}
		return a.enliven(ctx, tx, in)
	})
	if err != nil {
		return 0, err
	}
	for _, l := range out {
		a.opts.Warn("a file of the archive has no index entry and cannot get one", l.path, l.err)
	}
	told := map[string]bool{}
	for _, l := range in {
		if study := l.study(); beside && !l.own && !told[study] {
			told[study] = true
			a.tellStored(study, true)
		}
	}
	return len(in), nil
}

// exclusively does something in a transaction while neither this process nor another one writes about some studies. The order is that of the writer: its place first, then
// the connection (with SQLite there is one), then the studies.
func (a *Archive) exclusively(ctx context.Context, studies []string, do func(context.Context, writing) error) error {
	a.placing.Lock()
	defer a.placing.Unlock()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tx, err := a.begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := a.index.lock(ctx, tx, studies...); err != nil {
		return err
	}
	if err := tx.flush(ctx); err != nil {
		return err
	}
	if err := do(ctx, tx); err != nil {
		return err
	}
	return tx.Commit()
}

// openAll makes the entries of files. The error is that of ctx, or of S3.
func (a *Archive) openAll(ctx context.Context, files []*lost) error {
	var work errgroup.Group
	work.SetLimit(runtime.GOMAXPROCS(0))
	for _, l := range files {
		work.Go(func() error {
			if l.err == nil && ctx.Err() == nil {
				a.openLost(l)
			}
			return nil
		})
	}
	_ = work.Wait()
	for _, l := range files {
		if errors.Is(l.broken, pipeline.ErrUnavailable) {
			return l.broken
		}
	}
	return ctx.Err()
}

func (a *Archive) openLost(l *lost) {
	l.entry, l.broken = nil, nil
	if l.object == nil {
		if l.info, l.broken = os.Lstat(l.path); l.broken != nil {
			return
		}
	}
	l.entry, l.broken = a.entryOf(l)
}

// stillMissing returns the files that are there and that the index does not have.
func (a *Archive) stillMissing(ctx context.Context, tx writing, files []*lost) (out []*lost, err error) {
	for some := range slices.Chunk(files, lookedUp) {
		entries, err := a.findAll(ctx, tx, sopsOf(some))
		if err != nil {
			return nil, err
		}
		for _, l := range some {
			if l.err == nil {
				known, replaces, err := l.known(entries[l.sop])
				if known {
					continue
				}
				l.replaces, l.err = replaces, err
			}
			if l.object == nil {
				now, err := os.Lstat(l.path)
				switch {
				case errors.Is(err, os.ErrNotExist): // deleted meanwhile
					continue
				case err != nil:
					return nil, bare(err)
				case l.err == nil && (l.info == nil || !os.SameFile(now, l.info) || now.Size() != l.info.Size() || !now.ModTime().Equal(l.info.ModTime())):
					a.openLost(l) // a commit has put the same there and was refused
				}
			}
			out = append(out, l)
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

// separate tells the files that can have an entry from those that cannot, with the reason.
func separate(files []*lost) (in, out []*lost) {
	taken := map[string]bool{}
	for _, l := range files {
		switch {
		case l.err == nil && l.broken != nil:
			l.err = l.broken
		case l.err == nil && taken[l.sop]:
			l.err = errSecondFile
		}
		if l.err != nil {
			out = append(out, l)
			continue
		}
		taken[l.sop] = true
		in = append(in, l)
	}
	return in, out
}

func insertAll(ctx context.Context, tx writing, files []*lost) error {
	var renewed []*lost
	for _, l := range files {
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

// enliven has studies that got something looked at like after a commit. One that the index did not know is as its records say, which lie beside the pictures.
func (a *Archive) enliven(ctx context.Context, tx writing, files []*lost) error {
	type news struct {
		outside bool
		lane    pipeline.Lane
	}
	studies := map[string]news{}
	for _, l := range files {
		n := studies[l.study()]
		if !l.own && (!n.outside || l.lane.Number() < n.lane.Number()) {
			n = news{true, l.lane}
		}
		studies[l.study()] = n
	}
	for study, n := range studies {
		var lives int
		if err := tx.row(ctx, "SELECT count(*) FROM life WHERE study = ?", study).Scan(&lives); err != nil {
			return err
		}
		if lives == 0 {
			records, err := a.copies(ctx, study)
			if err != nil {
				return err
			}
			if len(records) > 0 || !n.outside {
				var received int64
				if err := tx.row(ctx, "SELECT ifnull(received, 0) FROM study WHERE uid = ?", study).Scan(&received); err != nil {
					return err
				}
				if err := a.fillLife(ctx, tx, study, fromNanos(received)); err != nil {
					return err
				}
				continue
			}
		}
		if n.outside {
			if err := arrived(ctx, tx, study, n.lane, a.opts.Now()); err != nil {
				return err
			}
		}
	}
	return nil
}
