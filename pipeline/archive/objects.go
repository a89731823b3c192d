package archive

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"chatxray/pipeline"
)

// Where files are kept in S3 an upload is put there first and entered into the index then; until it is entered nothing refers to it. Each upload has a
// place of its own, so that nobody removes or changes what another process has just put there, and the index says which place counts.
//
//	PREFIX/instances/STUDY/SERIES/SOP~PLACE.dcm
//	PREFIX/documents/STUDY/SERIES/SOP~PLACE.dcm
//	PREFIX/records/STUDY/KEY.json, KEY.png, conversations/

// openFiles opens what keeps the files.
func (a *Archive) openFiles() error {
	if a.opts.Objects == "" {
		a.files = folder{a.dir}
		return nil
	}
	c, err := openCache(a.path(cacheDir), a.opts.Cache, a.opts.Now)
	if err != nil {
		return fmt.Errorf("the cache %s cannot be used: %w", a.path(cacheDir), full(err))
	}
	if a.bucket, err = newBucket(a.opts.S3, a.opts.Objects, c); err != nil {
		return err
	}
	a.files = a.bucket
	err = a.bucket.ping(context.Background())
	if errors.As(err, new(refusal)) {
		return err
	}
	if err != nil {
		a.opts.Warn("files are not to be had, nor kept, until S3 answers", a.opts.Objects, err)
	}
	return nil
}

const cacheDir = "cache"

// Ready tells whether what keeps the files answers.
func (a *Archive) Ready(ctx context.Context) error {
	if a.bucket == nil {
		return nil
	}
	return a.bucket.ping(ctx)
}

// matchKind refuses an index of an archive whose files are kept by the other kind.
func (a *Archive) matchKind() error {
	var place string
	err := a.read.QueryRow("SELECT place FROM instance ORDER BY id LIMIT 1").Scan(&place)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return indexError(err)
	case place == "" && a.bucket != nil:
		return fmt.Errorf("%w: the archive in %s keeps its files in the folder; archive.objects is for a new one (chatxray send brings the studies there)", pipeline.ErrInvalid, a.dir)
	case place != "" && a.bucket == nil:
		return fmt.Errorf("%w: the archive in %s keeps its files in S3; archive.objects has to say where", pipeline.ErrInvalid, a.dir)
	}
	return nil
}

// objectName is the name of the file of an instance at a place. The UIDs must be valid.
func objectName(own bool, in *pipeline.Instance, place string) string {
	tree := instancesDir
	if own {
		tree = documentsDir
	}
	return path.Join(tree, in.StudyInstanceUID, in.SeriesInstanceUID, in.SOPInstanceUID+"~"+place+".dcm")
}

// cutPlace reads the last part of an object's name.
func cutPlace(name string) (sop, place string, ok bool) {
	name, ok = strings.CutSuffix(path.Base(name), ".dcm")
	sop, place, found := strings.Cut(name, "~")
	_, timed := placeTime(place)
	return sop, place, ok && found && timed
}

func lastOf(places string) string { return places[strings.LastIndexByte(places, ' ')+1:] }

// stagedPattern is how the temporary file of an upload is called that goes to S3; place reads its place of it: the time in hexadecimal
// nanoseconds and a number by chance.
func (a *Archive) stagedPattern() string {
	if a.bucket == nil {
		return "*.part"
	}
	return fmt.Sprintf("%016xx*.part", a.opts.Now().UnixNano())
}

func placeOf(staged string) string { return "u" + strings.TrimSuffix(filepath.Base(staged), ".part") }

// placeTime is when what lies at a place came.
func placeTime(place string) (time.Time, bool) {
	rest, ok := strings.CutPrefix(place, "u")
	at, _, cut := strings.Cut(rest, "x")
	n, err := strconv.ParseInt(at, 16, 64)
	return time.Unix(0, n), ok && cut && err == nil && len(at) == 16
}

func cameAt(name string) (time.Time, bool) {
	_, place, _ := cutPlace(name)
	return placeTime(place)
}

// place is where the nth staged instance of a request is in S3.
func (r *request) place(n int) string {
	if r.places == nil {
		return ""
	}
	return r.places[n]
}

// secure makes the bytes of a staged instance durable.
func (a *Archive) secure(ctx context.Context, r *request, n int) error {
	in := r.staged[n].Instance
	if a.bucket == nil {
		return a.files.secure(ctx, in.Path, "", in.Digest)
	}
	known, err := a.lookUp(ctx, in.SOPInstanceUID)
	switch {
	case err != nil:
		return err
	case known != nil && known.Digest == in.Digest:
		name := a.nameOf(known)
		if there, err := a.bucket.has(ctx, name); there || err != nil {
			return err
		}
		return a.bucket.secure(ctx, in.Path, name, in.Digest) // the object is lost, and here it is again
	case known != nil: // they will be compared
		if err := a.fetched(ctx, []*pipeline.Instance{known}); err != nil {
			return err
		}
	}
	place := placeOf(in.Path)
	if err := a.bucket.secure(ctx, in.Path, objectName(r.own, in, place), in.Digest); err != nil {
		a.waste(objectName(r.own, in, place)) // it may have come nevertheless
		return err
	}
	r.places[n] = place
	return nil
}

// lookUp finds an instance outside a transaction; nil where the index lacks it.
func (a *Archive) lookUp(ctx context.Context, sop string) (*pipeline.Instance, error) {
	in, _, _, err := a.scanInstance(a.read.QueryRowContext(ctx, findInstance, sop))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return in, indexErrorOrNil(err)
}

// nameOf is the object of an instance that the index knows.
func (a *Archive) nameOf(in *pipeline.Instance) string {
	return filepath.ToSlash(strings.TrimPrefix(in.Path, a.path(cacheDir)+string(filepath.Separator)))
}

// settleUploads removes what a request has put into S3 and the index does not refer to.
func (a *Archive) settleUploads(r *request) {
	if a.bucket == nil {
		return
	}
	var names []string
	for i, s := range r.staged {
		if r.places[i] == "" || r.outcomes[i].Err == nil && !r.outcomes[i].Duplicate {
			continue
		}
		up := upload{s.Instance.SOPInstanceUID, objectName(r.own, s.Instance, r.places[i])}
		if r.broken {
			a.doubtful.add(a.opts.Now(), up)
		} else {
			names = append(names, up.name)
		}
	}
	if err := a.bucket.remove(context.Background(), names...); err != nil {
		a.waste(names...)
	}
}

// waste notes objects that nothing refers to, now and later.
func (a *Archive) waste(names ...string) {
	ctx := context.Background()
	tx, err := a.begin(ctx)
	if err == nil {
		defer tx.Rollback()
		if err = discard(ctx, tx, names, a.opts.Now().Add(undecided)); err == nil {
			err = tx.Commit()
		}
	}
	if err != nil { // the index is away, too
		for _, name := range names {
			sop, _, _ := cutPlace(name)
			a.doubtful.add(a.opts.Now(), upload{sop, name})
		}
	}
}

// fetched makes sure that the files of instances can be opened. One that is lost is left to who opens it.
func (a *Archive) fetched(ctx context.Context, found []*pipeline.Instance) error {
	if a.bucket == nil {
		return nil
	}
	var work errgroup.Group
	work.SetLimit(8)
	for _, in := range found {
		work.Go(func() error {
			err := a.files.fetch(ctx, a.nameOf(in), in.Digest)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("instance %s: %w", in.SOPInstanceUID, err)
			}
			return nil
		})
	}
	return work.Wait()
}

// upload is an object that the index may refer to or not.
type upload struct{ sop, name string }

// doubtful are uploads of which it is not known, since a time, whether they are kept: the index broke off.
type doubtful struct {
	mu  sync.Mutex
	all map[upload]time.Time
}

func (d *doubtful) add(at time.Time, u upload) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.all == nil {
		d.all = map[upload]time.Time{}
	}
	d.all[u] = at
}

// since takes those that are older.
func (d *doubtful) since(at time.Time) (out []upload) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for u, when := range d.all {
		if when.Before(at) {
			out = append(out, u)
			delete(d.all, u)
		}
	}
	return out
}

const (
	// sweeping is how often garbage is looked for that could not be removed at once.
	sweeping = time.Minute
	// undecided is how long an upload whose end nobody knows may come: no index takes longer over a transaction, no store over a request.
	undecided = 10 * time.Minute
)

// collect removes objects that nothing refers to, until ctx ends.
func (a *Archive) collect(ctx context.Context) {
	tick := time.NewTicker(sweeping)
	defer tick.Stop()
	for told := false; ; {
		err := a.forget(ctx, a.doubtful.since(a.opts.Now().Add(-undecided)))
		if err == nil {
			err = a.clear(ctx)
		}
		if failed := err != nil && ctx.Err() == nil; failed != told {
			if told = failed; failed {
				a.opts.Warn("files that were deleted are still in S3; it is tried again", a.opts.Objects, err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// drop removes what an upload has left in incoming, and notes what a crash has left of it in S3: that is known from its file.
func (a *Archive) drop(ctx context.Context, staged string) error {
	if a.bucket != nil {
		// One that was not complete was not put anywhere.
		if in, err := a.look(staged); err == nil && validUIDs(in) == nil {
			var left []upload
			for _, own := range []bool{false, true} {
				left = append(left, upload{in.SOPInstanceUID, objectName(own, in, placeOf(staged))})
			}
			if err := a.forget(ctx, left); err != nil {
				return err
			}
		}
	}
	return os.RemoveAll(staged)
}

// forget makes garbage of uploads unless the index refers to them.
func (a *Archive) forget(ctx context.Context, uploads []upload) error {
	var names []string
	for _, u := range uploads {
		var places string
		err := noRow(a.read.QueryRowContext(ctx, "SELECT place FROM instance WHERE uid = ?", u.sop).Scan(&places))
		if err != nil {
			for _, u := range uploads {
				a.doubtful.add(a.opts.Now(), u)
			}
			return indexError(err)
		}
		if _, place, _ := cutPlace(u.name); !slices.Contains(strings.Fields(places), place) {
			names = append(names, u.name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	tx, err := a.begin(ctx)
	if err != nil {
		return indexError(err)
	}
	defer tx.Rollback()
	if err := discard(ctx, tx, names, a.opts.Now().Add(undecided)); err != nil {
		return indexError(err)
	}
	return indexErrorOrNil(tx.Commit())
}

// discard notes names of files that are to be removed when the transaction is kept, and again until a time.
func discard(ctx context.Context, tx writing, names []string, until time.Time) error {
	for _, name := range slices.Sorted(slices.Values(names)) { // as clear goes through them
		if err := tx.exec(ctx, "INSERT INTO garbage (name, until) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET until = excluded.until", name, until.UnixNano()); err != nil {
			return err
		}
	}
	return nil
}

// clear removes what is noted as garbage.
func (a *Archive) clear(ctx context.Context) error {
	for last := ""; ; {
		names, err := a.garbage(ctx, last)
		if err != nil || len(names) == 0 {
			return err
		}
		gone, err := a.stillGone(ctx, names)
		if err == nil {
			err = a.files.remove(ctx, gone...)
		}
		if err != nil {
			return err
		}
		tx, err := a.begin(ctx)
		if err != nil {
			return indexError(err)
		}
		for _, name := range names {
			if err := tx.exec(ctx, "DELETE FROM garbage WHERE name = ? AND until <= ?", name, a.opts.Now().UnixNano()); err != nil {
				tx.Rollback()
				return indexError(err)
			}
		}
		if err := tx.Commit(); err != nil {
			return indexError(err)
		}
		last = names[len(names)-1]
	}
}

// stillGone leaves out what lies with the records of a study that has come again meanwhile: it may be new, and goes with that.
func (a *Archive) stillGone(ctx context.Context, names []string) (out []string, err error) {
	for _, name := range names {
		n := 0
		if rest, ok := strings.CutPrefix(name, recordsDir+"/"); ok {
			study, _, _ := strings.Cut(rest, "/")
			if err := a.read.QueryRowContext(ctx, "SELECT count(*) FROM study WHERE uid = ?", study).Scan(&n); err != nil {
				return nil, indexError(err)
			}
		}
		if n == 0 {
			out = append(out, name)
		}
	}
	return out, nil
}

func (a *Archive) garbage(ctx context.Context, behind string) (names []string, err error) {
	rows, err := a.read.QueryContext(ctx, "SELECT name FROM garbage WHERE name > ? ORDER BY name LIMIT 256", behind)
	if err != nil {
		return nil, indexError(err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, indexError(err)
		}
		names = append(names, name)
	}
	return names, indexErrorOrNil(rows.Err())
}
