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
type sqliteIndex struct {
	write    *sql.DB
	prepared map[string]*sql.Stmt // of write, by their text
	reader   *sql.DB
	asked    sync.Map // prepared statements of reader, by their text
}

func (*sqliteIndex) shared() bool { return false }
func (*sqliteIndex) booking() int { return 0 }

func (d *sqliteIndex) open(a *Archive) (fresh bool, err error) {
	dsn := func(more string) string {
		return "file:" + (&url.URL{Path: a.path("index.db")}).EscapedPath() +
			"?_pragma=busy_timeout(10000)&_pragma=foreign_keys(1)&_pragma=temp_store(2)" + more
	}
	_, err = os.Stat(a.path("index.db"))
	fresh = err != nil
	d.write, err = sql.Open("sqlite", dsn("&_pragma=cache_size(-32000)&_txlock=immediate&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)"))
	if err != nil {
		return fresh, err
	}
	d.write.SetMaxOpenConns(1)
	err = a.migrate()
	if err == nil { // nothing is in memory yet; what a full disk lets stay is pruned later
		if _, err = d.write.Exec("DELETE FROM study_change"); errors.Is(indexError(err), pipeline.ErrFull) {
			err = nil
		}
	}
	if err != nil {
		d.write.Close()
		if errors.Is(err, errNewer) {
			return fresh, fmt.Errorf("%s: %w", a.path("index.db"), err)
		}
		return fresh, fmt.Errorf("the archive's index %s cannot be used; stop the service, delete the file (it is made anew from the instances) and start again: %w", a.path("index.db"), indexError(err))
	}
	d.prepared = map[string]*sql.Stmt{}
	for _, text := range prepared {
		if d.prepared[text], err = d.write.Prepare(text); err != nil { //nolint:sqlclosecheck // closing the database closes it
			d.write.Close()
			return fresh, indexError(err)
		}
	}
	if d.reader, err = sql.Open("sqlite", dsn("&_pragma=cache_size(-8000)&_pragma=query_only(1)")); err != nil {
		d.write.Close()
		return fresh, err
	}
	d.reader.SetMaxOpenConns(4)
	d.reader.SetMaxIdleConns(4)
	a.read = database{d.reader, d}
	return fresh, nil
}

func (d *sqliteIndex) close() error { return d.write.Close() }

// often prepares a statement once.
func (d *sqliteIndex) often(ctx context.Context, text string, args ...any) (rows, error) {
	known, ok := d.asked.Load(text)
	if !ok {
		fresh, err := d.reader.PrepareContext(ctx, text)
		if err != nil {
			return nil, err
		}
		known, ok = d.asked.LoadOrStore(text, fresh)
		if ok {
			_ = fresh.Close() //nolint:sqlclosecheck // the other is used
		}
	}
	return known.(*sql.Stmt).QueryContext(ctx, args...) //nolint:rowserrcheck // who reads them does
}

// sqliteTx does everything at once.
type sqliteTx struct {
	*sql.Tx
	prepared map[string]*sql.Stmt // of the index
	own      map[string]*sql.Stmt // the same in this transaction, which closes them
}

func (d *sqliteIndex) begin(ctx context.Context) (writing, error) {
	tx, err := d.write.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	return sqliteTx{tx, d.prepared, map[string]*sql.Stmt{}}, nil
}

// statement is a prepared statement in this transaction; nil where the text has none.
func (w sqliteTx) statement(ctx context.Context, text string) *sql.Stmt {
	st := w.own[text]
	if st == nil && w.prepared[text] != nil {
		st = w.StmtContext(ctx, w.prepared[text])
		w.own[text] = st
	}
	return st
}

func (w sqliteTx) exec(ctx context.Context, text string, args ...any) (err error) {
	if st := w.statement(ctx, text); st != nil { //nolint:sqlclosecheck // the end of the transaction closes it
		_, err = st.ExecContext(ctx, args...)
	} else {
		_, err = w.ExecContext(ctx, text, args...)
	}
	return err
}

func (w sqliteTx) rows(ctx context.Context, text string, args ...any) (rows, error) {
	if st := w.statement(ctx, text); st != nil { //nolint:sqlclosecheck // the end of the transaction closes it
		return st.QueryContext(ctx, args...) //nolint:rowserrcheck // who reads them does
	}
	return w.QueryContext(ctx, text, args...) //nolint:rowserrcheck // who reads them does
}

func (w sqliteTx) row(ctx context.Context, text string, args ...any) row {
	return asking{ctx, w, text, args}
}

func (w sqliteTx) Rollback() { _ = w.Tx.Rollback() }

func (w sqliteTx) script(ctx context.Context, text string) error {
	_, err := w.ExecContext(ctx, text)
	return err
}

func (sqliteTx) flush(context.Context) error { return nil }

// asking is a question that is asked when its answer is looked at, so that two of them can wait.
type asking struct {
	ctx  context.Context
	w    sqliteTx
	text string
	args []any
}

func (q asking) Scan(into ...any) error {
	if st := q.w.statement(q.ctx, q.text); st != nil { //nolint:sqlclosecheck // the end of the transaction closes it
		return st.QueryRowContext(q.ctx, q.args...).Scan(into...)
	}
	return q.w.QueryRowContext(q.ctx, q.text, q.args...).Scan(into...)
}

// look has SQLite look whether the index is whole. Nobody else having it open, nothing is written beside it either, and it may lie on a
// medium that cannot be written.
func (d *sqliteIndex) look(ctx context.Context, a *Archive, alone bool) error {
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
	d.reader, a.read = read, database{read, d}
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

func (*sqliteIndex) remove(_ context.Context, a *Archive) error {
	for _, name := range []string{"index.db", "index.db-wal", "index.db-shm"} {
		if err := os.Remove(a.path(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("the old index cannot be removed: %w", bare(err))
		}
	}
	return nil
}

func (*sqliteIndex) statement(text string, args []any) (string, []any) { return text, args }
func (*sqliteIndex) integer(column string) string                      { return "CAST(" + column + " AS INTEGER)" }

func (*sqliteIndex) lock(context.Context, writing, ...string) error { return nil } // one process, one writer
func (*sqliteIndex) locked(context.Context, writing) error          { return nil }

func (*sqliteIndex) version(ctx context.Context, q querier) (version int, err error) {
	return version, q.row(ctx, "PRAGMA user_version").Scan(&version)
}

func (*sqliteIndex) migration(version int) (string, int) { return migrations[version].sql, version + 1 }

func (*sqliteIndex) setVersion(ctx context.Context, tx writing, version int) error {
	return tx.exec(ctx, "PRAGMA user_version = "+strconv.Itoa(version))
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
