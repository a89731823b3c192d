package archive

import (
	"context"
	"database/sql"
	"errors"
	"strings"

	"chatxray/pipeline"
)

func (a *Archive) closeIndex() error { return errors.Join(a.read.Close(), a.index.close()) }

const instanceColumns = `s.uid, e.uid, i.uid, i.class, i.syntax, i.digest, i.own, i.size, i.version, i.place`

const instanceTables = ` FROM instance i JOIN series e ON e.id = i.series JOIN study s ON s.id = e.study`

// scanInstance reads instanceColumns.
func (a *Archive) scanInstance(r row) (in *pipeline.Instance, own bool, size int64, err error) {
	in = &pipeline.Instance{}
	var digest, place string
	var version int
	if err := r.Scan(&in.StudyInstanceUID, &in.SeriesInstanceUID, &in.SOPInstanceUID, &in.SOPClassUID, &in.TransferSyntaxUID, &digest, &own, &size, &version, &place); err != nil {
		return nil, false, 0, err
	}
	in.Path = a.versionPath(own, in.StudyInstanceUID, in.SeriesInstanceUID, in.SOPInstanceUID, version)
	if place != "" {
		in.Path = a.files.path(objectName(own, in, lastOf(place)))
	}
	return in, own, size, in.Digest.UnmarshalText([]byte(digest))
}

// known is what findInstance has found; nil where the index lacks the instance. own: it is a document of ours.
func (a *Archive) known(r row) (in *pipeline.Instance, own bool, err error) {
	in, own, _, err = a.scanInstance(r)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, false, nil
	}
	return in, own, err
}

// findAll returns the entries of some hundred instances by their UIDs.
func (a *Archive) findAll(ctx context.Context, tx writing, sops []any) (map[string]*pipeline.Instance, error) {
	out := map[string]*pipeline.Instance{}
	if len(sops) == 0 {
		return out, nil
	}
	rows, err := tx.rows(ctx, "SELECT "+instanceColumns+instanceTables+" WHERE i.uid IN (?"+strings.Repeat(",?", len(sops)-1)+")", sops...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		in, _, _, err := a.scanInstance(rows)
		if err != nil {
			return nil, err
		}
		out[in.SOPInstanceUID] = in
	}
	return out, rows.Err()
}
