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
