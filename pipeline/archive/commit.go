package archive

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"chatxray/pipeline"
)

// request is what the writer is asked for: to keep a group of staged instances whose bytes are durable under their temporary names, each for itself; or to do
// something else within the transaction, with documents of our own that are kept with it or not at all.
type request struct {
	do       func(context.Context, writing) error
	studies  []string // that do writes about
	err      error    // of do, or of a document
	staged   []*pipeline.Staged
	own      bool
	reported map[string]bool    // documents by their UIDs that records refer to: they may have been delivered, so they stay
	outcomes []pipeline.Outcome // one for each of staged
	places   []string           // where each of staged is in S3; empty where it was not put there, nil where files are kept in the folder
	broken   bool               // the index did not say whether it has kept them
	done     chan struct{}
}

// groupLimit is how many instances one transaction takes when requests wait for each other.
const groupLimit = 1000

// Commit keeps staged instances. An outcome without error means that the bytes, the names and the index entry have reached the
// disk. The same UID with the same content is a duplicate; with other content the first stays and the error wraps
// pipeline.ErrConflict, unless Options.Replace lets it be replaced. Requests that come together share the costly steps. Every staged instance is used up.
func (a *Archive) Commit(ctx context.Context, staged []*pipeline.Staged) []pipeline.Outcome {
	r := &request{staged: staged}
	a.submit(ctx, r)
	out := r.outcomes
	news := map[string]bool{}
	for _, o := range out {
		if o.Err == nil {
			news[o.Instance.StudyInstanceUID] = news[o.Instance.StudyInstanceUID] || !o.Duplicate
		}
	}
	for uid, n := range news {
		a.tellStored(uid, n)
	}
	return out
}

// submit has the writer keep what is staged in a request, which is used up, and do what is to be done with it.
func (a *Archive) submit(ctx context.Context, r *request) {
	staged := r.staged
	r.outcomes, r.done = make([]pipeline.Outcome, len(staged)), make(chan struct{})
	if a.bucket != nil {
		r.places = make([]string, len(staged))
	}
	defer a.Discard(staged...) // what was kept has another name by then
	var work errgroup.Group
	work.SetLimit(8)
	for i, s := range staged {
		r.outcomes[i].Instance = s.Instance
		work.Go(func() error {
			if r.outcomes[i].Err = ctx.Err(); r.outcomes[i].Err == nil {
				r.outcomes[i].Err = a.secure(ctx, r, i)
			}
			return nil
		})
	}
	_ = work.Wait()
	defer a.settleUploads(r)
	if r.do != nil {
		if r.err = r.firstError(); r.err != nil {
			r.fail(r.err)
			return
		}
	}
	if !a.hand(r) {
		r.fail(fmt.Errorf("%w: the archive is being closed", pipeline.ErrBusy))
		return
	}
	<-r.done
}

func (r *request) firstError() error {
	for i, o := range r.outcomes {
		if o.Err != nil {
			return fmt.Errorf("instance %s: %w", r.staged[i].Instance.SOPInstanceUID, o.Err)
		}
	}
	return nil
}

// fail gives an error to all of a request that has none yet.
func (r *request) fail(err error) {
	if r.do != nil && r.err == nil {
		r.err = err
	}
	for i := range r.outcomes {
		if r.outcomes[i].Err == nil {
			r.outcomes[i].Err = err
		}
	}
}

// book has the writer do something within a transaction, together with what others want at the same time. An error of do undoes what it
// has done, and nothing else. No other process writes about its studies meanwhile.
func (a *Archive) book(ctx context.Context, do func(context.Context, writing) error, studies ...string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r := &request{do: do, studies: studies}
	a.submit(ctx, r)
	return r.err
}

// hand gives a request to the writer, unless the archive is closed.
func (a *Archive) hand(r *request) bool {
	a.closing.RLock()
	defer a.closing.RUnlock()
	if a.closed {
		return false
	}
	if r.do != nil {
		a.bookings <- r
	} else {
		a.requests <- r
	}
	return true
}

// writer places files and writes the index: what waits at the same time in one transaction.
func (a *Archive) writer(requests <-chan *request) {
	for r := range requests {
		group, n := []*request{r}, len(r.staged)
	collect:
		for n < groupLimit {
			select {
			case next, ok := <-requests:
				if !ok {
					break collect
				}
				group, n = append(group, next), n+max(1, len(next.staged))
			default:
				break collect
			}
		}
		g := grouped{a: a, dirs: map[string]bool{}}
		a.placing.RLock()
		g.keep(group)
		a.placing.RUnlock()
		for _, r := range group {
			close(r.done)
		}
	}
}

// grouped is one transaction's work.
type grouped struct {
	a      *Archive
	dirs   map[string]bool // whose entries must become durable
	placed []string        // files that were not there before
}

// patience is how long a transaction may take whose index is elsewhere: a network that has died says nothing.
const patience = 2 * time.Minute

// keep places the files of a group, makes the names durable and commits their entries. When the index refuses, the files go too
// and nothing of the group is kept. Where others share the index, files stay: the index may have committed without being able to say so, or another
// process may have been sent the same meanwhile; one that is sent again finds its file, and a start after all have stopped enters it.
func (g *grouped) keep(group []*request) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := g.transact(ctx, group)
	if err == nil {
		return
	}
	err = fmt.Errorf("the archive cannot keep the instance: %w", indexError(err))
	err = errors.Join(err, g.removePlaced(0, false))
	for _, r := range group {
		r.broken = true
		r.fail(err)
	}
}

// removePlaced takes away the files that were placed since there were n. Where others share the index they stay, unless the transaction still keeps those away:
// this process may have been stopped for so long that another one has placed the same and committed it.
func (g *grouped) removePlaced(n int, alone bool) (err error) {
	if !alone && g.a.index.shared() && g.a.bucket == nil && len(g.placed) > n {
		g.a.untidy.Store(true)
		g.placed = g.placed[:n]
	}
	for _, f := range g.placed[n:] {
		if g.a.bucket != nil {
			g.a.bucket.cache.drop(f)
			continue
		}
		err = errors.Join(err, bare(os.Remove(f)))
	}
	g.placed = g.placed[:n]
	return err
}

func (g *grouped) transact(ctx context.Context, group []*request) error {
	tx, err := g.a.begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := g.a.index.lock(ctx, tx, studiesOf(group)...); err != nil {
		return err
	}
	news := map[string]pipeline.Lane{} // studies of which something new has come from outside
	for _, r := range group {
		if r.do != nil {
			if len(group) == 1 {
				if r.err = g.attempt(ctx, tx, r, false); r.err != nil {
					return nil // the end of the transaction undoes it
				}
			} else if err := g.apart(ctx, tx, r); err != nil {
				return err
			}
			continue
		}
		for i, s := range r.staged {
			if r.outcomes[i].Err == nil {
				if err := g.one(ctx, tx, r, i, tx.row(ctx, findInstance, s.Instance.SOPInstanceUID)); err != nil {
					return err
				}
			}
			if o := r.outcomes[i]; o.Err == nil && !o.Duplicate {
				if before, ok := news[o.Instance.StudyInstanceUID]; !ok || s.Lane.Number() < before.Number() {
					news[o.Instance.StudyInstanceUID] = s.Lane
				}
			}
		}
	}
	for study, lane := range news {
		if err := arrived(ctx, tx, study, lane, g.a.opts.Now()); err != nil {
			return err
		}
	}
	if err := g.syncDirs(); err != nil {
		return err
	}
	if !g.a.index.shared() {
		if err := g.a.columns.prune(ctx, tx); err != nil {
			return err
		}
	}
	return tx.Commit()
}

func studiesOf(group []*request) (out []string) {
	for _, r := range group {
		out = append(out, r.studies...)
		for _, s := range r.staged {
			out = append(out, s.Instance.StudyInstanceUID)
		}
	}
	return out
}

// apart attempts a request so that an error undoes it and nothing else. What it returns is the transaction's own error.
func (g *grouped) apart(ctx context.Context, tx writing, r *request) error {
	err := tx.exec(ctx, savepoint)
	if err == nil && g.attempt(ctx, tx, r, true) != nil {
		_ = tx.flush(ctx) // what waits is undone with the rest
		err = tx.script(ctx, rollback)
	}
	if err != nil {
		return err
	}
	return tx.exec(ctx, release)
}

// attempt does what a request wants and keeps its documents; apart: nothing of it waits then. After an error none of their files is left; what is in the index
// is to be undone.
func (g *grouped) attempt(ctx context.Context, tx writing, r *request, apart bool) error {
	placed := len(g.placed)
	known := make([]row, len(r.staged)) // asked together with what do asks
	for i, s := range r.staged {
		known[i] = tx.row(ctx, findInstance, s.Instance.SOPInstanceUID)
	}
	err := r.do(ctx, tx)
	for i := 0; i < len(r.staged) && err == nil; i++ {
		if err = g.one(ctx, tx, r, i, known[i]); err == nil {
			err = r.firstError()
		}
	}
	if err == nil && apart {
		err = tx.flush(ctx)
	}
	if err != nil {
		alive := tx.script(ctx, "SELECT 1") == nil
		err = errors.Join(indexError(err), g.removePlaced(placed, alive))
		r.fail(err)
	}
	return err
}

const (
	savepoint = "SAVEPOINT one"
	rollback  = "ROLLBACK TO one"
	release   = "RELEASE one"
)

// one places the file of the nth instance of a request and writes its entry; there is what the index has under its UID. An error is the transaction's; the instance's own is in its outcome.
func (g *grouped) one(ctx context.Context, tx writing, r *request, n int, there row) error {
	s, own, place, o := r.staged[n], r.own, r.place(n), &r.outcomes[n]
	in := s.Instance
	known, knownOwn, err := g.a.known(there)
	if err != nil {
		return err
	}
	if known != nil {
		if _, err := os.Lstat(known.Path); g.a.bucket == nil && errors.Is(err, os.ErrNotExist) && known.Digest == in.Digest {
			o.Instance = known // the file is lost, and here it is again
			o.Err = full(g.place(in, known.Path, own))
			return nil
		}
		if _, err := os.Lstat(known.Path); g.a.bucket != nil && known.Digest != in.Digest && errors.Is(err, os.ErrNotExist) {
			o.Err = fmt.Errorf("%w: instance %s came to another process at the same time; send it again", pipeline.ErrBusy, in.SOPInstanceUID)
			return nil
		}
		o.Err = compare(known, in)
		o.Duplicate = o.Err == nil
		if o.Duplicate {
			o.Instance = known
		}
		switch {
		case !errors.Is(o.Err, pipeline.ErrConflict):
		case own && knownOwn && known.SOPClassUID == in.SOPClassUID && r.reported[in.SOPInstanceUID]:
			o.Instance, o.Duplicate, o.Err = known, true, nil // written before an upgrade, say
		case own && !knownOwn:
			o.Err = fmt.Errorf("%w: the archive keeps an object that this service did not write under the UID of document %s; it stays, and the document cannot be stored",
				pipeline.ErrConflict, in.SOPInstanceUID)
		case g.replaceable(known, knownOwn, in, own):
			return g.replace(ctx, tx, s, own, place, o)
		}
		return nil
	}
	version, final := 1, g.a.instancePath(own, in.StudyInstanceUID, in.SeriesInstanceUID, in.SOPInstanceUID)
	if own {
		version, final = g.a.free(in, 1)
	}
	if g.a.bucket != nil {
		if place == "" {
			o.Err = fmt.Errorf("%w: instance %s was deleted while it came again; send it again", pipeline.ErrBusy, in.SOPInstanceUID)
			return nil
		}
		final = g.a.files.path(objectName(own, in, place))
	}
	if o.Err = full(g.place(in, final, own)); o.Err != nil {
		return nil
	}
	kept := *in
	kept.Path = final
	o.Instance = &kept
	put := insert
	if own {
		put = insertDocument
	}
	return put(ctx, tx, entry{in: &kept, size: s.Size, own: own, version: version, received: g.a.opts.Now().UnixNano(), place: place})
}

// compare returns nil when an instance has the content of the one that is kept.
func compare(known, in *pipeline.Instance) error {
	conflict := fmt.Errorf("%w: an instance %s with other content is kept already, and the first one stays", pipeline.ErrConflict, in.SOPInstanceUID)
	switch {
	case known.Digest == in.Digest:
		return nil
	case known.StudyInstanceUID != in.StudyInstanceUID, known.SeriesInstanceUID != in.SeriesInstanceUID, known.TransferSyntaxUID != in.TransferSyntaxUID:
		return conflict
	}
	same, err := sameDataSet(known.Path, in.Path)
	if err != nil {
		return fmt.Errorf("instance %s cannot be compared with the one that is kept: %w", in.SOPInstanceUID, bare(err))
	}
	if !same {
		return conflict
	}
	return nil
}

// place gives a staged file its final name. A file without an entry that lies there already is taken over if it is the same; a document of our own never takes
// the place of a file.
func (g *grouped) place(in *pipeline.Instance, final string, own bool) error {
	if g.a.bucket != nil {
		g.placed = append(g.placed, final)
		return g.a.bucket.cache.keep(in.Path, final)
	}
	dir := filepath.Dir(final)
	study := filepath.Dir(dir)
	changed, err := makeDirs(filepath.Dir(study), filepath.Base(study), filepath.Base(dir))
	if err != nil {
		return err
	}
	for _, d := range append(changed, dir) {
		g.dirs[d] = true
	}
	_, err = os.Lstat(final)
	fresh := err != nil
	if !fresh {
		same, err := sameDataSet(final, in.Path)
		if err != nil {
			return err
		}
		if !same && g.a.uncompared.Load() {
			return fmt.Errorf("%w: a file of instance %s with other content has no index entry yet; send it again", pipeline.ErrBusy, in.SOPInstanceUID)
		}
		if !same {
			return fmt.Errorf("%w: a file of instance %s with other content lies in the archive without an index entry; rebuild the index", pipeline.ErrConflict, in.SOPInstanceUID)
		}
	}
	if err := rename(in.Path, final, own); err != nil {
		return err
	}
	if fresh {
		g.placed = append(g.placed, final)
	}
	return nil
}

// rename gives a file another name. alone: it fails where a file has that name, even if it has come just now from another process.
func rename(from, to string, alone bool) error {
	if !alone {
		return os.Rename(from, to)
	}
	err := os.Link(from, to)
	if err != nil && !errors.Is(err, os.ErrExist) { // not every file system has links
		return os.Rename(from, to)
	}
	return err // the other name goes with what was staged
}

func (g *grouped) syncDirs() error {
	var work errgroup.Group
	work.SetLimit(8)
	for d := range g.dirs {
		work.Go(func() error { return syncDir(d) })
	}
	return work.Wait()
}
