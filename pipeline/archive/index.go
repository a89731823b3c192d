package archive

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"

	"modernc.org/sqlite"

	"chatxray/pipeline"
)

func (a *Archive) openIndex() error {
	dsn := func(more string) string {
		return "file:" + (&url.URL{Path: a.path("index.db")}).EscapedPath() +
			"?_pragma=busy_timeout(10000)&_pragma=foreign_keys(1)&_pragma=temp_store(2)" + more
	}
	var err error
	if a.write, err = sql.Open("sqlite", dsn("&_pragma=cache_size(-32000)&_txlock=immediate&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")); err != nil {
		return err
	}
	a.write.SetMaxOpenConns(1)
	err = a.migrate()
	if err == nil { // nothing is in memory yet; what a full disk lets stay is pruned later
		if _, err = a.write.Exec("DELETE FROM study_change"); errors.Is(indexError(err), pipeline.ErrFull) {
			err = nil
		}
	}
	if err != nil {
		a.write.Close()
		return fmt.Errorf("the archive's index %s cannot be used; stop the service, delete the file (it is made anew from the instances) and start again: %w", a.path("index.db"), indexError(err))
	}
	a.statements = map[string]*sql.Stmt{}
	for _, text := range prepared {
		if a.statements[text], err = a.write.Prepare(text); err != nil { //nolint:sqlclosecheck // closing the database closes it
			a.write.Close()
			return indexError(err)
		}
	}
	if a.read, err = sql.Open("sqlite", dsn("&_pragma=cache_size(-8000)&_pragma=query_only(1)")); err != nil {
		a.write.Close()
		return err
	}
	a.read.SetMaxOpenConns(4)
	a.read.SetMaxIdleConns(4)
	return nil
}

func (a *Archive) closeIndex() error { return errors.Join(a.read.Close(), a.write.Close()) }

// SQLite's primary result codes that have a sentinel.
const (
	sqliteBusy = 5
	sqliteFull = 13
)

// indexError adds the sentinel to an error of SQLite and drops what it may quote.
func indexError(err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return full(err)
	}
	switch e.Code() & 0xFF {
	case sqliteFull:
		return fmt.Errorf("%w: the index cannot grow", pipeline.ErrFull)
	case sqliteBusy:
		return fmt.Errorf("%w: the index is locked", pipeline.ErrBusy)
	}
	return fmt.Errorf("index: %s", sqlite.ErrorCodeString[e.Code()])
}

const instanceColumns = `s.uid, e.uid, i.uid, i.class, i.syntax, i.digest, i.own, i.size, i.version, i.place`

const instanceTables = ` FROM instance i JOIN series e ON e.id = i.series JOIN study s ON s.id = e.study`

type row interface{ Scan(...any) error }

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

// find looks an instance up by its UID; nil where the index lacks it. own: it is a document of ours.
func (a *Archive) find(ctx context.Context, tx writing, sop string) (in *pipeline.Instance, own bool, err error) {
	in, own, _, err = a.scanInstance(tx.row(ctx, findInstance, sop))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, false, nil
	}
	return in, own, err
}

// noRow is nil for an error that says that there is no row.
func noRow(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	return err
}
