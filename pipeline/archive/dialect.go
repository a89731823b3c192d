package archive

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"chatxray/pipeline"
)

// dialect is what an index in one database needs otherwise than in another. The statements of this package are SQLite's; a database that
// lacks a function of them is given it by its schema, so that a statement is written once.
type dialect interface {
	// shared tells that several processes write the index at the same time: then nothing of it is kept in memory.
	shared() bool
	// open opens read of an archive and what begin and often need, and brings the index to the present version; fresh tells that there was none.
	open(a *Archive) (fresh bool, err error)
	// booking is how many transactions that keep no new instances go on beside the one that does; 0: there is one at a time.
	booking() int
	// begin starts a transaction.
	begin(ctx context.Context) (writing, error)
	// often asks what is asked for every study.
	often(ctx context.Context, text string, args ...any) (rows, error)
	// close closes what open has opened but for read.
	close() error
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
		return &sqliteIndex{}, nil
	case strings.HasPrefix(url, "postgres://"), strings.HasPrefix(url, "postgresql://"):
		return newPostgres(url)
	}
	return nil, fmt.Errorf("%w: archive.index: not the URL of a PostgreSQL database (postgres://user:password@host:5432/database); empty is SQLite in the archive's folder", pipeline.ErrInvalid)
}

// querier asks for one row.
type querier interface {
	row(ctx context.Context, text string, args ...any) row
}

// row is an answer of one row. sql.ErrNoRows and pgx.ErrNoRows are the same: there is none.
type row interface{ Scan(...any) error }

// rows is an answer of any number of rows.
type rows interface {
	row
	Next() bool
	Err() error
	Close() error
}

// writing is a transaction of the index. What it is told to do may wait until something is asked or it is kept: its error is then that of what came after
// it. What it is asked is looked up when the answer is looked at, or earlier.
type writing interface {
	querier
	exec(ctx context.Context, text string, args ...any) error
	rows(ctx context.Context, text string, args ...any) (rows, error)
	script(ctx context.Context, text string) error // statements without values, at once
	flush(ctx context.Context) error               // does what waits
	Commit() error
	Rollback() // unless it was kept
}

// begin starts a transaction of the index.
func (a *Archive) begin(ctx context.Context) (writing, error) { return a.index.begin(ctx) }

// database is asked what this package's searches want to know.
type database struct {
	*sql.DB
	dialect
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

func (d database) row(ctx context.Context, text string, args ...any) row {
	return d.QueryRowContext(ctx, text, args...)
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
