package archive

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"

	"chatxray/pipeline"
)

// dialect is what an index in one database needs otherwise than in another. The statements of this package are SQLite's; a database that
// lacks a function of them is given it by its schema, so that a statement is written once.
type dialect interface {
	// shared tells that several processes write the index at the same time: then nothing of it is kept in memory.
	shared() bool
	// open opens read and write of an archive and brings the index to the present version; fresh tells that there was none.
	open(a *Archive) (fresh bool, err error)
	// look opens read for Check, which changes nothing. alone: no other process has the archive open.
	look(ctx context.Context, a *Archive, alone bool) error
	// remove takes the index away, so that open makes another one.
	remove(ctx context.Context, a *Archive) error
	// statement makes a statement of this package one of the database.
	statement(text string, args []any) (string, []any)
	// integer is the number that the text of a column begins with.
	integer(column string) string
	// lock keeps other processes from writing about studies until a transaction ends.
	lock(ctx context.Context, tx writing, studies ...string) error
	// version is that of the index, 0 where there is none; locked keeps others from changing it until the transaction ends.
	version(ctx context.Context, q querier) (int, error)
	locked(ctx context.Context, tx writing) error
	// migration brings an index from a version to the one that it returns.
	migration(version int) (sql string, to int)
	setVersion(ctx context.Context, tx writing, version int) error
}

// dialectOf chooses the database by its URL; none is SQLite in the archive's folder.
func dialectOf(index pipeline.Secret) (dialect, error) {
	url := index.Reveal()
	switch {
	case url == "":
		return sqliteIndex{}, nil
	case strings.HasPrefix(url, "postgres://"), strings.HasPrefix(url, "postgresql://"):
		return newPostgres(url)
	}
	return nil, fmt.Errorf("%w: archive.index: not the URL of a PostgreSQL database (postgres://user:password@host:5432/database); empty is SQLite in the archive's folder", pipeline.ErrInvalid)
}

type querier interface {
	QueryRowContext(ctx context.Context, text string, args ...any) *sql.Row
}

// database takes statements as this package writes them.
type database struct {
	*sql.DB
	dialect
	frequent *sql.DB   // of what often asks
	kept     *sync.Map // its prepared statements by their text; nil where the driver keeps them
}

// Close closes the database.
func (d database) Close() error { return errors.Join(d.frequent.Close(), d.DB.Close()) }

// often is QueryContext for what is asked for every study: its text is parsed once.
func (d database) often(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	if d.kept == nil {
		text, args = d.statement(text, args)
		return d.frequent.QueryContext(ctx, text, args...)
	}
	st, err := d.keep(ctx, text) //nolint:sqlclosecheck // closing the database closes it
	if err != nil {
		return nil, err
	}
	return st.QueryContext(ctx, args...)
}

// keep prepares a statement once; closing the database closes it.
func (d database) keep(ctx context.Context, text string) (*sql.Stmt, error) {
	if st, ok := d.kept.Load(text); ok {
		return st.(*sql.Stmt), nil
	}
	fresh, err := d.frequent.PrepareContext(ctx, text)
	if err != nil {
		return nil, err
	}
	st, late := d.kept.LoadOrStore(text, fresh)
	if late {
		_ = fresh.Close() //nolint:sqlclosecheck // the other is used
	}
	return st.(*sql.Stmt), nil
}

// QueryContext is that of sql.DB.
func (d database) QueryContext(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	text, args = d.statement(text, args)
	return d.DB.QueryContext(ctx, text, args...)
}

// ExecContext is that of sql.DB.
func (d database) ExecContext(ctx context.Context, text string, args ...any) (sql.Result, error) {
	text, args = d.statement(text, args)
	return d.DB.ExecContext(ctx, text, args...)
}

// QueryRowContext is that of sql.DB.
func (d database) QueryRowContext(ctx context.Context, text string, args ...any) *sql.Row {
	text, args = d.statement(text, args)
	return d.DB.QueryRowContext(ctx, text, args...)
}

// writing is a transaction of the index that knows the prepared statements.
type writing struct {
	*sql.Tx
	dialect
	statements map[string]*sql.Stmt // of the index; nil where the driver prepares by itself
	own        map[string]*sql.Stmt // the same in this transaction, which closes them
}

// begin starts a transaction of the index.
func (a *Archive) begin(ctx context.Context) (writing, error) {
	tx, err := a.write.BeginTx(ctx, nil)
	return writing{tx, a.index, a.statements, map[string]*sql.Stmt{}}, err
}

// ExecContext is that of sql.Tx.
func (w writing) ExecContext(ctx context.Context, text string, args ...any) (sql.Result, error) {
	text, args = w.statement(text, args)
	return w.Tx.ExecContext(ctx, text, args...)
}

// QueryContext is that of sql.Tx.
func (w writing) QueryContext(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	text, args = w.statement(text, args)
	return w.Tx.QueryContext(ctx, text, args...)
}

// QueryRowContext is that of sql.Tx.
func (w writing) QueryRowContext(ctx context.Context, text string, args ...any) *sql.Row {
	text, args = w.statement(text, args)
	return w.Tx.QueryRowContext(ctx, text, args...)
}

// prepared is a prepared statement in this transaction; nil where the text has none.
func (w writing) prepared(ctx context.Context, text string) *sql.Stmt {
	st := w.own[text]
	if st == nil && w.statements[text] != nil {
		st = w.StmtContext(ctx, w.statements[text])
		w.own[text] = st
	}
	return st
}

func (w writing) exec(ctx context.Context, text string, args ...any) error {
	if st := w.prepared(ctx, text); st != nil { //nolint:sqlclosecheck // the end of the transaction closes it
		_, err := st.ExecContext(ctx, args...)
		return err
	}
	_, err := w.ExecContext(ctx, text, args...)
	return err
}

func (w writing) row(ctx context.Context, text string, args ...any) *sql.Row {
	if st := w.prepared(ctx, text); st != nil { //nolint:sqlclosecheck // the end of the transaction closes it
		return st.QueryRowContext(ctx, args...)
	}
	return w.QueryRowContext(ctx, text, args...)
}

func (w writing) rows(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	if st := w.prepared(ctx, text); st != nil { //nolint:sqlclosecheck // the end of the transaction closes it
		return st.QueryContext(ctx, args...)
	}
	return w.QueryContext(ctx, text, args...)
}

// indexError adds the sentinel to an error of the index and drops what it may quote.
func indexError(err error) error {
	for _, of := range []func(error) error{sqliteError, postgresError} {
		if known := of(err); known != nil {
			return known
		}
	}
	return full(err)
}

func indexErrorOrNil(err error) error {
	if err == nil {
		return nil
	}
	return indexError(err)
}

// noRow is nil for an error that says that there is no row.
func noRow(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	return err
}
