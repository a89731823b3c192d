package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"chatxray/pipeline"
)

// allObjects is allFiles of an archive in S3. Its list is in memory: about 400 bytes an object.
func (a *Archive) allObjects(ctx context.Context, f func([]*lost) error) error {
	for _, tree := range fileTrees {
		studies := map[string][]*lost{}
		err := a.files.list(ctx, tree, func(o keptFile) error {
			l := &lost{path: a.files.path(o.name), own: tree == documentsDir, object: &o, version: 1}
			var place string
			var ok bool
			if l.sop, place, ok = cutPlace(o.name); !ok || strings.Count(o.name, "/") != 3 {
				l.err = errName
			}
			l.places = place
			l.since, _ = placeTime(place)
			study := strings.Split(o.name, "/")[1]
			studies[study] = append(studies[study], l)
			return nil
		})
		if err != nil {
			return err
		}
		var order [][]*lost
		for _, files := range studies {
			order = append(order, a.contents(files))
		}
		slices.SortFunc(order, func(x, y []*lost) int { return x[0].since.Compare(y[0].since) })
		for _, files := range order {
			if err := f(files); err != nil {
				return err
			}
		}
	}
	return nil
}

// contents puts the objects of a study in the order in which they came and leaves one for each instance: the last of a document, and where later contents replace earlier
// ones, with the places of all, else the first.
func (a *Archive) contents(files []*lost) (out []*lost) {
	slices.SortStableFunc(files, func(x, y *lost) int { return x.since.Compare(y.since) })
	first := map[string]int{} // in out
	for _, l := range files {
		key := path.Dir(l.object.name) + "/" + l.sop
		i, again := first[key]
		switch {
		case l.err != nil, !again:
			first[key] = len(out)
			out = append(out, l)
		case a.opts.Replace, l.own:
			l.places, l.version, l.since = out[i].places+" "+l.places, out[i].version+1, out[i].since
			out[i] = l
		}
	}
	return out
}

// entryOfObject opens an object by a temporary file.
func (a *Archive) entryOfObject(l *lost) (*entry, error) {
	ctx := context.Background()
	r, err := a.files.read(ctx, l.object.name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	f, err := os.CreateTemp(filepath.Join(a.path(cacheDir), fetchingDir), "*.part")
	if err != nil {
		return nil, full(err)
	}
	defer os.Remove(f.Name())
	_, err = io.Copy(f, r)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, full(err)
	}
	in, err := a.open(f.Name())
	if err == nil {
		err = validUIDs(in)
	}
	if err != nil {
		return nil, err
	}
	if objectName(l.own, in, lastOf(l.places)) != l.object.name {
		return nil, fmt.Errorf("%w: its place says other UIDs than its content", pipeline.ErrInvalid)
	}
	in.Header, in.Data = indexed(in), nil
	at, _ := cameAt(l.object.name)
	return &entry{in: in, size: l.object.size, own: l.own, received: at.UnixNano(), version: l.version, place: l.places}, nil
}

// filesToCheck opens what keeps the files of an archive that is only looked at.
func filesToCheck(a *Archive) (files, *bucket, error) {
	if a.opts.Objects == "" {
		return folder{a.dir}, nil, nil
	}
	b, err := newBucket(a.opts.S3, a.opts.Objects, &cache{dir: a.path(cacheDir)})
	return b, b, err
}

// openKept opens the file of an instance where it is kept, not in the cache.
func (a *Archive) openKept(ctx context.Context, in *pipeline.Instance) (io.ReadCloser, error) {
	if a.bucket != nil {
		return a.bucket.read(ctx, a.nameOf(in))
	}
	return os.Open(in.Path)
}

// checkObjects is checkFiles of an archive in S3. What came in the last minutes may be an upload of any process that is not entered yet, and what is
// noted to be removed will be.
func (a *Archive) checkObjects(ctx context.Context, note func(suspect)) (replaced int, err error) {
	for _, tree := range fileTrees {
		err := a.files.list(ctx, tree, func(o keptFile) error {
			sop, place, ok := cutPlace(o.name)
			at := suspect{path: a.opts.Objects + "/" + o.name, sop: sop, err: errStray}
			if !ok {
				note(at)
				return nil
			}
			if came, _ := placeTime(place); a.opts.Now().Sub(came) < young {
				return nil
			}
			var places string
			var garbage int
			err := noRow(a.read.QueryRowContext(ctx, "SELECT place FROM instance WHERE uid = ?", sop).Scan(&places))
			if err == nil {
				err = a.read.QueryRowContext(ctx, "SELECT count(*) FROM garbage WHERE name = ?", o.name).Scan(&garbage)
			}
			switch all := strings.Fields(places); {
			case err != nil:
				return indexError(err)
			case garbage > 0:
			case !slices.Contains(all, place):
				note(at)
			case lastOf(places) != place:
				replaced++
			}
			return nil
		})
		if err != nil {
			return replaced, err
		}
	}
	return replaced, nil
}
