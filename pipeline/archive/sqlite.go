package archive

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"sync"

	"modernc.org/sqlite"

	"chatxray/pipeline"
)

// sqliteIndex is an index in a file of the archive's folder, for one process.
type sqliteIndex struct{}

func (sqliteIndex) shared() bool { return false }

func (d sqliteIndex) open(a *Archive) (fresh bool, err error) {
	dsn := func(more string) string {
		return "file:" + (&url.URL{Path: a.path("index.db")}).EscapedPath() +
			"?_pragma=busy_timeout(10000)&_pragma=foreign_keys(1)&_pragma=temp_store(2)" + more
	}
	_, err = os.Stat(a.path("index.db"))
	fresh = err != nil
	write, err := sql.Open("sqlite", dsn("&_pragma=cache_size(-32000)&_txlock=immediate&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)"))
	if err != nil {
		return fresh, err
	}
	a.write = database{write, d, write, nil}
	a.write.SetMaxOpenConns(1)
	err = a.migrate()
	if err == nil { // nothing is in memory yet; what a full disk lets stay is pruned later
		if _, err = a.write.Exec("DELETE FROM study_change"); errors.Is(indexError(err), pipeline.ErrFull) {
			err = nil
		}
	}
	if err != nil {
		a.write.Close()
		return fresh, fmt.Errorf("the archive's index %s cannot be used; stop the service, delete the file (it is made anew from the instances) and start again: %w", a.path("index.db"), indexError(err))
	}
	a.statements = map[string]*sql.Stmt{}
	for _, text := range prepared {
		if a.statements[text], err = a.write.Prepare(text); err != nil { //nolint:sqlclosecheck // closing the database closes it
			a.write.Close()
			return fresh, indexError(err)
		}
	}
	read, err := sql.Open("sqlite", dsn("&_pragma=cache_size(-8000)&_pragma=query_only(1)"))
	if err != nil {
		a.write.Close()
		return fresh, err
	}
	a.read = database{read, d, read, &sync.Map{}}
	a.read.SetMaxOpenConns(4)
	a.read.SetMaxIdleConns(4)
	return fresh, nil
}

// look has SQLite look whether the index is whole. Nobody else having it open, nothing is written beside it either, and it may lie on a
// medium that cannot be written.
func (d sqliteIndex) look(ctx context.Context, a *Archive, alone bool) error {
	if _, err := os.Stat(a.path("index.db")); err != nil {
		return fmt.Errorf("%w: %s has no index to compare the files with", pipeline.ErrNotFound, a.dir)
	}
	dsn := "file:" + (&url.URL{Path: a.path("index.db")}).EscapedPath() + "?mode=ro&_pragma=busy_timeout(10000)&_pragma=query_only(1)"
	if log, err := os.Stat(a.path("index.db-wal")); alone && (err != nil || log.Size() == 0) {
		dsn += "&immutable=1"
	}
	read, err := sql.Open("sqlite", dsn)
	if err != nil {
		return err
	}
	a.read = database{read, d, read, &sync.Map{}}
	var whole string
	version, err := d.version(ctx, a.read)
	if err == nil {
		err = a.read.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&whole)
	}
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case err != nil:
		err = fmt.Errorf("the index %s cannot be read: %w", a.path("index.db"), indexError(err))
	case whole != "ok":
		err = fmt.Errorf("%w: the index %s is damaged", pipeline.ErrInvalid, a.path("index.db"))
	default:
		err = checkable(version)
	}
	if err != nil {
		a.read.Close()
	}
	return err
}

func (sqliteIndex) remove(_ context.Context, a *Archive) error {
	for _, name := range []string{"index.db", "index.db-wal", "index.db-shm"} {
		if err := os.Remove(a.path(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("the old index cannot be removed: %w", bare(err))
		}
	}
	return nil
}

func (sqliteIndex) statement(text string, args []any) (string, []any) { return text, args }
func (sqliteIndex) integer(column string) string                      { return "CAST(" + column + " AS INTEGER)" }

func (sqliteIndex) lock(context.Context, writing, ...string) error { return nil } // one process, one writer
func (sqliteIndex) locked(context.Context, writing) error          { return nil }

func (sqliteIndex) version(ctx context.Context, q querier) (version int, err error) {
	return version, q.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version)
}

func (sqliteIndex) migration(version int) (string, int) { return migrations[version].sql, version + 1 }

func (sqliteIndex) setVersion(ctx context.Context, tx writing, version int) error {
	_, err := tx.ExecContext(ctx, "PRAGMA user_version = "+strconv.Itoa(version))
	return err
}

// SQLite's primary result codes that have a sentinel.
const (
	sqliteBusy = 5
	sqliteFull = 13
)

// sqliteError is an error of SQLite with its sentinel; nil for any other.
func sqliteError(err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return nil
	}
	switch e.Code() & 0xFF {
	case sqliteFull:
		return fmt.Errorf("%w: the index cannot grow", pipeline.ErrFull)
	case sqliteBusy:
		return fmt.Errorf("%w: the index is locked", pipeline.ErrBusy)
	}
	return fmt.Errorf("index: %s", sqlite.ErrorCodeString[e.Code()])
}
