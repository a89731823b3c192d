package archive

import (
	"context"
	"time"

	"chatxray/pipeline"
)

// Enter writes index entries of instances that have no files, for benchmarks.
func (a *Archive) Enter(ctx context.Context, instances []*pipeline.Instance) error {
	files := make([]*lost, len(instances))
	for i, in := range instances {
		in.Header = indexed(in)
		files[i] = &lost{entry: &entry{in: in, size: 8 << 20, received: int64(i)}}
	}
	tx, err := a.begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := insertAll(ctx, tx, files); err != nil {
		return err
	}
	return tx.Commit()
}

// Sweep removes from S3 what nothing refers to, however young.
func (a *Archive) Sweep(ctx context.Context) error {
	if a.bucket == nil {
		return nil
	}
	if err := a.forget(ctx, a.doubtful.since(a.opts.Now().Add(time.Hour))); err != nil {
		return err
	}
	return a.clear(ctx)
}

// Plan tells how SQLite would find the ids of a query.
func (a *Archive) Plan(ctx context.Context, q pipeline.Query) (string, error) {
	p, err := newPlan(q, a.index)
	if err != nil {
		return "", err
	}
	if p.filter != nil && p.rest.sql == "" {
		return "columns", nil
	}
	l := levels[q.Level]
	rows, err := a.read.QueryContext(ctx, "EXPLAIN QUERY PLAN SELECT "+l.id+l.from+p.where()+p.order, p.rest.args...)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	out := ""
	if p.filter != nil {
		out = "columns, then "
	}
	for rows.Next() {
		var id, parent, unused int
		var what string
		if err := rows.Scan(&id, &parent, &unused, &what); err != nil {
			return "", err
		}
		out += what + "; "
	}
	return out, rows.Err()
}

// DiskSize is how much the disk of an archive holds.
func DiskSize(a *Archive) (int64, error) {
	size, _, err := a.disk()
	return size, err
}

// Transaction is one of the index.
type Transaction struct{ writing }

// Transaction starts one.
func (a *Archive) Transaction(ctx context.Context) (*Transaction, error) {
	tx, err := a.begin(ctx)
	return &Transaction{tx}, err
}

// Exec does something now or later.
func (t *Transaction) Exec(ctx context.Context, text string, args ...any) error {
	return t.exec(ctx, text, args...)
}

// Flush does it now.
func (t *Transaction) Flush(ctx context.Context) error { return t.flush(ctx) }

// Script does statements without values at once.
func (t *Transaction) Script(ctx context.Context, text string) error { return t.script(ctx, text) }

// Row asks for a row.
func (t *Transaction) Row(ctx context.Context, text string, args ...any) interface{ Scan(...any) error } {
	return t.row(ctx, text, args...)
}

// Rows asks for rows.
func (t *Transaction) Rows(ctx context.Context, text string, args ...any) (interface {
	Next() bool
	Scan(...any) error
	Err() error
	Close() error
}, error) {
	return t.rows(ctx, text, args...)
}

// Compared tells whether the files have been compared with the index since a crash, or need not be.
func (a *Archive) Compared() bool { return !a.uncompared.Load() }

// Hold keeps commits about a study from all processes.
func (a *Archive) Hold(study string) (release func(), err error) {
	h, err := a.hold(study)
	if err != nil {
		return nil, err
	}
	return h.release, nil
}

// DeleteAfter is Delete that does something when nothing changes any more.
func (a *Archive) DeleteAfter(ctx context.Context, study string, meanwhile func()) error {
	_, _, err := a.delete(ctx, deletion{Study: study}, func() error { meanwhile(); return nil })
	return err
}

// IndexVersion is that of an index which this program makes.
var IndexVersion = len(migrations)
