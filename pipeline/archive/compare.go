package archive

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"time"

	"chatxray/pipeline"
)

// comparison looks for files without index entry, and gives them one.
type comparison struct {
	a       *Archive
	beside  bool // the archive is in use meanwhile
	batch   int  // about so many files get their entry in one transaction; a study's are not split
	listed  []*lost
	files   int // so far
	entered int
	failed  error // of studies that were passed over
}

// pass goes on after an error that is about some studies; it returns one that is about all.
func (c *comparison) pass(ctx context.Context, err error) error {
	if err == nil || !c.beside || ctx.Err() != nil || errors.Is(err, pipeline.ErrBusy) || errors.Is(err, pipeline.ErrUnavailable) || errors.Is(indexError(err), pipeline.ErrBusy) {
		return err
	}
	if c.failed == nil { // one tells enough
		c.failed = err
	}
	return nil
}

// lookedUp is how many instances one statement asks the index about.
const lookedUp = 500

// add takes the files of a study.
func (c *comparison) add(ctx context.Context, files []*lost) error {
	c.files += len(files)
	if c.listed = append(c.listed, files...); len(c.listed) >= lookedUp {
		return c.flush(ctx)
	}
	return ctx.Err()
}

// flush sees to the files that were added.
func (c *comparison) flush(ctx context.Context) error {
	missing, err := c.a.missing(ctx, c.listed)
	if err != nil {
		return err
	}
	for c.listed = nil; len(missing) > 0; {
		n := min(c.batch, len(missing))
		for n < len(missing) && missing[n].study() == missing[n-1].study() {
			n++
		}
		entered, err := c.a.adopt(ctx, missing[:n], c.beside)
		if err := c.pass(ctx, err); err != nil {
			return err
		}
		missing = missing[n:]
		if c.entered += entered; entered > 0 && c.a.opts.Progress != nil {
			c.a.opts.Progress(c.entered)
		}
	}
	return nil
}

// missing returns the files that the index does not have, as far as it is seen without keeping others from writing. Of a first content it is only asked whether the index has
// its UID, which takes one look into one of its trees: a second file of that UID, elsewhere, cannot have an entry anyway, and Check tells of it.
func (a *Archive) missing(ctx context.Context, files []*lost) (out []*lost, err error) {
	for some := range slices.Chunk(files, lookedUp) {
		var first, later []*lost
		for _, l := range some {
			if l.version == 1 {
				first = append(first, l)
			} else {
				later = append(later, l)
			}
		}
		has, err := a.hasOf(ctx, sopsOf(first))
		if err != nil {
			return nil, err
		}
		entries, err := a.entriesOf(ctx, sopsOf(later))
		if err != nil {
			return nil, err
		}
		for _, l := range some {
			known := has[l.sop]
			if l.version != 1 {
				known, _, _ = l.known(entries[l.sop])
			}
			if l.err != nil || !known {
				out = append(out, l)
			}
		}
	}
	return out, nil
}

// sopsOf are the UIDs of files whose names have one.
func sopsOf(files []*lost) (out []any) {
	for _, l := range files {
		if l.err == nil {
			out = append(out, l.sop)
		}
	}
	return out
}

// hasOf tells which of some instances the index has, by their UIDs.
func (a *Archive) hasOf(ctx context.Context, sops []any) (map[string]bool, error) {
	out := map[string]bool{}
	return out, a.eachOf(ctx, "SELECT uid FROM instance WHERE uid", sops, func(r row) error {
		var uid string
		err := r.Scan(&uid)
		out[uid] = true
		return err
	})
}

// entriesOf is findAll outside a transaction.
func (a *Archive) entriesOf(ctx context.Context, sops []any) (map[string]*pipeline.Instance, error) {
	out := map[string]*pipeline.Instance{}
	return out, a.eachOf(ctx, "SELECT "+instanceColumns+instanceTables+" WHERE i.uid", sops, func(r row) error {
		in, _, _, err := a.scanInstance(r)
		if err == nil {
			out[in.SOPInstanceUID] = in
		}
		return err
	})
}

// eachOf calls f with the rows that a statement finds in a list.
func (a *Archive) eachOf(ctx context.Context, text string, list []any, f func(row) error) error {
	if len(list) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	rows, err := a.read.QueryContext(ctx, text+" IN (?"+strings.Repeat(",?", len(list)-1)+")", list...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// besideBatch is how many files get their entry at a time while commits wait for that.
const besideBatch = 50

// compareBeside compares the files with the index while the archive is in use, until it has succeeded or ctx ends. What lacks an entry was never answered, so nobody
// waits for it. Until it is through the process is one that leaves no clean behind: whoever is alone next begins again.
func (a *Archive) compareBeside(ctx context.Context) {
	a.tellComparing(false, 0, 0)
	for wait := time.Second; ; wait = min(2*wait, 5*time.Minute) {
		files, entered, err := a.compareAll(ctx)
		if err == nil {
			if err := a.tidied(); err != nil {
				a.opts.Warn("folders of processes that died cannot be removed; the next start compares the files with the index again", a.path(incomingDir), bare(err))
			}
			a.tellComparing(true, files, entered)
			return
		}
		if ctx.Err() != nil {
			return
		}
		a.opts.Warn("the files could not be compared with the index; it is tried again", a.dir, indexError(err))
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

func (a *Archive) tellComparing(done bool, files, entered int) {
	if a.opts.Comparing != nil {
		a.opts.Comparing(done, files, entered)
	}
}

// compareAll goes through the folders by their names: their age is asked only where a file lacks an entry.
func (a *Archive) compareAll(ctx context.Context) (files, entered int, err error) {
	c := comparison{a: a, beside: true, batch: besideBatch}
	for _, tree := range fileTrees {
		studies, err := os.ReadDir(a.path(tree))
		if err != nil {
			return c.files, c.entered, bare(err)
		}
		for _, study := range studies {
			all, err := namesOf(a.path(tree, study.Name()), tree == documentsDir)
			if err == nil {
				err = c.add(ctx, newest(all))
			}
			if err := c.pass(ctx, bare(err)); err != nil {
				return c.files, c.entered, err
			}
		}
		if err := c.flush(ctx); err != nil {
			return c.files, c.entered, err
		}
	}
	return c.files, c.entered, c.failed
}
