package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"chatxray/pipeline"
)

// Instances returns the instances of a study, of one series of it or one instance, in the order of arrival, with Path but without
// Header. An empty UID stands for all; documents of our own are among them. Path can be opened for minutes, at least; a file that is lost is not there.
// The error wraps pipeline.ErrNotFound when there is none, and pipeline.ErrUnavailable when files are in S3 and it does not answer.
func (a *Archive) Instances(ctx context.Context, study, series, sop string) ([]*pipeline.Instance, error) {
	found, err := a.Entries(ctx, study, series, sop)
	if err == nil {
		err = a.fetched(ctx, found)
	}
	if err != nil {
		return nil, err
	}
	return found, nil
}

// Entries is Instances without a promise about Path: for who asks only whether they are there.
func (a *Archive) Entries(ctx context.Context, study, series, sop string) ([]*pipeline.Instance, error) {
	return a.instances(ctx, "(i.own = 0 OR i.own = 1)", study, series, sop)
}

func (a *Archive) instances(ctx context.Context, which, study, series, sop string) ([]*pipeline.Instance, error) {
	query, args := "SELECT "+instanceColumns+instanceTables+" WHERE "+which, []any{}
	for _, c := range []struct{ column, uid string }{{"s.uid", study}, {"e.uid", series}, {"i.uid", sop}} {
		if c.uid != "" {
			query += " AND " + c.column + " = ?"
			args = append(args, c.uid)
		}
	}
	rows, err := a.index.often(ctx, query+" ORDER BY i.id", args...)
	if err != nil {
		return nil, indexError(err)
	}
	defer rows.Close()
	var out []*pipeline.Instance
	for rows.Next() {
		in, _, _, err := a.scanInstance(rows)
		if err != nil {
			return nil, fmt.Errorf("reading the index: %w", indexError(err))
		}
		out = append(out, in)
	}
	if err := rows.Err(); err != nil {
		return nil, indexError(err)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: the archive has nothing of %s", pipeline.ErrNotFound, named(study, series, sop))
	}
	return out, nil
}

// named writes what UIDs name; empty ones are left out.
func named(study, series, sop string) string {
	s := ""
	for _, level := range []struct{ what, uid string }{{"instance", sop}, {"series", series}, {"study", study}} {
		switch {
		case level.uid == "":
		case s == "":
			s = level.what + " " + level.uid
		default:
			s += " in " + level.what + " " + level.uid
		}
	}
	return s
}

// Study returns what was received of a study, with headers, in the order of series number, instance number and UID; documents of our
// own are not part of it. The error wraps pipeline.ErrNotFound when nothing was received.
func (a *Archive) Study(ctx context.Context, studyUID string) (*pipeline.Study, error) {
	found, err := a.instances(ctx, "i.own = 0", studyUID, "", "")
	if err != nil {
		return nil, err
	}
	if err := a.fetched(ctx, found); err != nil {
		return nil, err
	}
	st := &pipeline.Study{StudyInstanceUID: studyUID}
	for _, known := range found {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		in, err := a.load(known)
		if err != nil {
			return nil, err
		}
		st.Instances = append(st.Instances, in)
	}
	slices.SortStableFunc(st.Instances, func(x, y *pipeline.Instance) int {
		return cmp.Or(compareNumber(x, y, pipeline.TagSeriesNumber), cmp.Compare(x.SeriesInstanceUID, y.SeriesInstanceUID),
			compareNumber(x, y, pipeline.TagInstanceNumber), cmp.Compare(x.SOPInstanceUID, y.SOPInstanceUID))
	})
	return st, nil
}

func compareNumber(x, y *pipeline.Instance, t pipeline.Tag) int {
	n, _ := x.Header.Int(t)
	m, _ := y.Header.Int(t)
	return cmp.Compare(n, m)
}

// load opens the file of an instance that the index knows.
func (a *Archive) load(known *pipeline.Instance) (*pipeline.Instance, error) {
	in, err := a.open(known.Path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: the file of instance %s is gone from the archive; rebuild the index", pipeline.ErrNotFound, known.SOPInstanceUID)
	}
	if err != nil {
		return nil, fmt.Errorf("instance %s: %w", known.SOPInstanceUID, err)
	}
	if in.Digest != known.Digest {
		return nil, fmt.Errorf("%w: the file of instance %s has changed since it was stored; its disk may be failing", pipeline.ErrInvalid, known.SOPInstanceUID)
	}
	return in, nil
}

// Received lists the studies with the time when the last instance from outside arrived.
func (a *Archive) Received(ctx context.Context) (map[string]time.Time, error) {
	rows, err := a.read.QueryContext(ctx, "SELECT uid, received FROM study WHERE received IS NOT NULL")
	if err != nil {
		return nil, indexError(err)
	}
	defer rows.Close()
	out := map[string]time.Time{}
	for rows.Next() {
		var uid string
		var at int64
		if err := rows.Scan(&uid, &at); err != nil {
			return nil, indexError(err)
		}
		out[uid] = time.Unix(0, at)
	}
	return out, indexErrorOrNil(rows.Err())
}
