package archive

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

// postgresTx is a transaction in PostgreSQL, which is far away: what it is told waits, and goes there in one message with what is asked next, or with the end.
type postgresTx struct {
	p       *postgresIndex
	conn    *pgxpool.Conn
	batch   *pgx.Batch // what waits
	answers []*answer  // of batch, in its order; nil where there is nothing to answer
	begun   bool       // something has been sent
	lost    error      // why something that waited was never done: nothing can be kept any more
}

// mostWaiting bounds the memory of what waits.
const mostWaiting = 256

func (p *postgresIndex) begin(ctx context.Context) (writing, error) {
	conn, err := p.write.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	tx := &postgresTx{p: p, conn: conn, batch: &pgx.Batch{}}
	return tx, tx.exec(ctx, "BEGIN")
}

func (tx *postgresTx) exec(ctx context.Context, text string, args ...any) error {
	tx.put(nil, text, args)
	if tx.batch.Len() < mostWaiting {
		return nil
	}
	return tx.flush(ctx)
}

func (tx *postgresTx) put(a *answer, text string, args []any) {
	text, args = tx.p.planned(text, args)
	tx.batch.Queue(text, args...)
	tx.answers = append(tx.answers, a)
}

func (tx *postgresTx) ask(ctx context.Context, text string, args []any) *answer {
	a := &answer{ctx: ctx, tx: tx}
	tx.put(a, text, args)
	return a
}

func (tx *postgresTx) row(ctx context.Context, text string, args ...any) row {
	return oneRow{tx.ask(ctx, text, args)}
}

func (tx *postgresTx) rows(ctx context.Context, text string, args ...any) (rows, error) {
	return tx.ask(ctx, text, args), nil
}

func (tx *postgresTx) flush(ctx context.Context) error {
	if tx.batch.Len() == 0 {
		return nil
	}
	if tx.conn == nil {
		return sql.ErrTxDone
	}
	if tx.lost != nil {
		return tx.lost
	}
	batch, answers := tx.batch, tx.answers
	tx.batch, tx.answers, tx.begun = &pgx.Batch{}, nil, true
	results := tx.conn.SendBatch(ctx, batch)
	var err error
	for _, a := range answers {
		switch {
		case err != nil:
		case a == nil:
			var done pgconn.CommandTag
			if done, err = results.Exec(); err == nil && done.String() == "ROLLBACK" && batch.QueuedQueries[batch.Len()-1].SQL == commit {
				err = errUndone
			}
		default:
			err = a.take(results)
		}
		if a != nil {
			a.known, a.err = true, err
		}
	}
	err = errors.Join(err, results.Close())
	if unsent := (pgx.ErrPreprocessingBatch{}); errors.As(err, &unsent) { // a savepoint that waited was not set, say
		tx.lost = err
	}
	return err
}

const commit = "COMMIT"

// errUndone is what PostgreSQL answers to the end of a transaction that has failed.
var errUndone = errors.New("the transaction was undone")

func (tx *postgresTx) script(ctx context.Context, text string) error {
	if err := errors.Join(tx.flush(ctx), tx.lost); err != nil {
		return err
	}
	_, err := tx.conn.Conn().PgConn().Exec(ctx, text).ReadAll()
	return err
}

// Commit keeps what was done. After an error it is unknown whether it was.
func (tx *postgresTx) Commit() error {
	if tx.conn == nil {
		return sql.ErrTxDone
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tx.put(nil, commit, nil)
	err := tx.flush(ctx)
	if err == nil {
		tx.conn.Release()
		tx.conn = nil
	}
	return err
}

func (tx *postgresTx) Rollback() {
	if tx.conn == nil {
		return
	}
	if conn := tx.conn.Conn(); tx.begun && !conn.IsClosed() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_, _ = conn.Exec(ctx, "ROLLBACK")
	}
	tx.conn.Release() // ends the connection where the transaction has not ended
	tx.conn = nil
}

// answer is what PostgreSQL says to a question, all of it.
type answer struct {
	ctx    context.Context
	tx     *postgresTx
	known  bool
	types  *pgtype.Map
	fields []pgconn.FieldDescription
	values [][][]byte // of each row
	next   int
	err    error
}

// take reads an answer, whose bytes are the connection's.
func (a *answer) take(results pgx.BatchResults) error {
	found, err := results.Query()
	if err != nil {
		return err
	}
	defer found.Close()
	a.types, a.fields = found.TypeMap(), slices.Clone(found.FieldDescriptions())
	for found.Next() {
		row := slices.Clone(found.RawValues())
		for i := range row {
			row[i] = slices.Clone(row[i])
		}
		a.values = append(a.values, row)
	}
	return found.Err()
}

func (a *answer) Next() bool {
	if !a.known {
		if err := a.tx.flush(a.ctx); err != nil && a.err == nil {
			a.known, a.err = true, err
		}
	}
	if a.err != nil || a.next == len(a.values) {
		return false
	}
	a.next++
	return true
}

func (a *answer) Scan(into ...any) error {
	return scanRow(a.types, a.fields, a.values[a.next-1], into)
}

func (a *answer) Err() error   { return a.err }
func (a *answer) Close() error { return nil }

// oneRow is the first row of an answer.
type oneRow struct{ *answer }

func (r oneRow) Scan(into ...any) error {
	if r.Next() {
		return r.answer.Scan(into...)
	}
	if r.err != nil {
		return r.err
	}
	return sql.ErrNoRows
}

// scanRow takes numbers for truth, as the columns have them.
func scanRow(types *pgtype.Map, fields []pgconn.FieldDescription, values [][]byte, into []any) error {
	if len(into) != len(fields) {
		return fmt.Errorf("index: %d columns where %d are wanted", len(fields), len(into))
	}
	for i, to := range into {
		var n int64
		truth, ok := to.(*bool)
		if ok {
			to = &n
		}
		if err := types.Scan(fields[i].DataTypeOID, fields[i].Format, values[i], to); err != nil {
			return fmt.Errorf("index: column %s: %w", fields[i].Name, err)
		}
		if ok {
			*truth = n != 0
		}
	}
	return nil
}

// found are the rows of a statement outside of a transaction.
type found struct{ pgx.Rows }

func (f found) Close() error {
	f.Rows.Close()
	return nil
}

func (f found) Scan(into ...any) error {
	fields, values, types := f.FieldDescriptions(), f.RawValues(), f.TypeMap()
	return scanRow(types, fields, values, into)
}

func (p *postgresIndex) often(ctx context.Context, text string, args ...any) (rows, error) {
	text, args = p.planned(text, args)
	rows, err := p.readers.Query(ctx, text, args...)
	return found{rows}, err
}
