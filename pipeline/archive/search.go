package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"chatxray/pipeline"
)

const (
	maxSearch      = 15 * time.Second // of one search
	maxCounted     = 10_000           // results behind a page that are counted
	maxCountedWide = 100              // the same where no index finds them
	maxAll         = 200              // results whose files are read for all attributes
	maxOrder       = 8                // criteria of one search
)

// Search returns a page of what matches a query, in the order of arrival: pages stay as they are when studies arrive between them. With
// an order asked for, arrival decides where it leaves a choice, in the direction of the last criterion. A key that cannot be matched at the level or a value that is no value of the key is an error that wraps
// pipeline.ErrInvalid; a search that takes too long, pipeline.ErrBusy.
func (a *Archive) Search(ctx context.Context, q pipeline.Query) (pipeline.Found, error) {
	if q.All && q.Level == pipeline.InstanceLevel && (q.Limit == 0 || q.Limit > maxAll) {
		q.Limit = maxAll
	}
	p, err := newPlan(q, a.index)
	if err != nil {
		return pipeline.Found{}, err
	}
	var found pipeline.Found
	err = a.bounded(ctx, p, func(ctx context.Context) error {
		ids, err := a.page(ctx, p, &found)
		if err == nil {
			found.Results, err = a.results(ctx, q, ids)
		}
		return err
	})
	return found, err
}

// Count returns how many results Search has without limit and offset. Its errors are those of Search.
func (a *Archive) Count(ctx context.Context, q pipeline.Query) (n int, err error) {
	q.Limit, q.Offset, q.Order = 0, 0, nil
	p, err := newPlan(q, a.index)
	if err != nil {
		return 0, err
	}
	err = a.bounded(ctx, p, func(ctx context.Context) error {
		switch {
		case p.filter == nil:
			return a.read.QueryRowContext(ctx, "SELECT count(*)"+levels[q.Level].from+p.where(), p.rest.args...).Scan(&n)
		case p.rest.sql == "":
			if err := a.columns.follow(ctx, a.read.DB); err != nil {
				return err
			}
			_, n = a.columns.match(*p.filter, 0, 0)
			return nil
		}
		ids, err := a.verified(ctx, p, nil)
		n = len(ids)
		return err
	})
	return n, err
}

// bounded runs a search with its time bounded. Searches that go over much of the index are few at a time, so that they do not keep others waiting.
func (a *Archive) bounded(ctx context.Context, p *plan, f func(context.Context) error) error {
	inTime, cancel := context.WithTimeout(ctx, maxSearch)
	defer cancel()
	if p.wide() {
		select {
		case a.wide <- struct{}{}:
			defer func() { <-a.wide }()
		case <-inTime.Done():
		}
	}
	err := inTime.Err()
	if err == nil {
		err = f(inTime)
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case inTime.Err() != nil:
		return fmt.Errorf("%w: the search takes longer than %v; narrow it by a date, a Patient ID or the beginning of a name", pipeline.ErrBusy, maxSearch)
	case errors.Is(err, pipeline.ErrInvalid):
		return err
	}
	return fmt.Errorf("reading the index: %w", indexError(err))
}

// plan is how a query is answered.
type plan struct {
	level         pipeline.Level
	filter        *filter // over columns; nil where SQL does all
	rest          clause  // what SQL matches
	indexed       bool    // by indexes of the database, though they may find many rows
	order         string
	limit, offset int
}

func newPlan(q pipeline.Query, d dialect) (*plan, error) {
	all, err := matchings(q)
	if err != nil {
		return nil, err
	}
	conditions, err := clauses(all, q.Fuzzy)
	if err != nil {
		return nil, err
	}
	p := &plan{level: q.Level, rest: and(conditions), limit: q.Limit, offset: q.Offset}
	if p.order, err = orderBy(q, d); err != nil {
		return nil, err
	}
	if p.limit == 0 {
		p.limit = 1 << 40
	}
	if q.Level != pipeline.StudyLevel || len(q.Order) > 0 {
		return p, nil
	}
	return p, p.narrowByColumns(all, q.Fuzzy, d.shared())
}

// narrowByColumns lets columns answer what they can, unless an index of SQLite finds few rows at once. Where the index is shared, there are no
// columns, and the database has indexes for the same keys.
func (p *plan) narrowByColumns(all []matching, fuzzy, shared bool) error {
	var f filter
	var others []matching
	timed := slices.ContainsFunc(all, func(m matching) bool { return m.attribute == plainKey(pipeline.TagStudyTime) })
	for _, m := range all {
		exact := false
		if !fuzzy || m.attribute != plainKey(pipeline.TagPatientName) {
			_, exact = f.take(m)
		}
		if !exact || timed && m.tag == pipeline.TagStudyDate {
			others = append(others, m)
		}
	}
	conditions, err := clauses(others, fuzzy)
	if err != nil {
		return err
	}
	rest := and(conditions)
	switch {
	case shared:
		p.indexed = rest.sql == ""
	case rest.narrow: // with a plus SQLite does not take an index that is less narrow
		p.rest.sql = strings.NewReplacer("s.study_date", "+s.study_date", "s.name_", "+s.name_").Replace(p.rest.sql)
	case rest.sql == "" || !f.any():
		p.filter, p.rest = &f, rest
	}
	return nil
}

func (p *plan) where() string {
	if p.rest.sql == "" {
		return ""
	}
	return " WHERE " + p.rest.sql
}

// wide tells that SQL goes over rows that no index has picked.
func (p *plan) wide() bool { return p.rest.sql != "" && !p.rest.narrow && !p.indexed }

func orderBy(q pipeline.Query, d dialect) (string, error) {
	if len(q.Order) > maxOrder {
		return "", fmt.Errorf("%w: more than %d criteria to sort by", pipeline.ErrInvalid, maxOrder)
	}
	var all []string
	last := levels[q.Level].id
	for _, o := range q.Order {
		k, ok := keys[plainKey(o.Tag)]
		var column string
		switch {
		case o.Tag == pipeline.TagNumberOfStudyRelatedInstances:
			column = "s.instance_count"
		case o.Tag == pipeline.TagNumberOfStudyRelatedSeries:
			column = "s.series_count"
		case !ok || k.level > q.Level || o.Tag == pipeline.TagModalitiesInStudy || k.kind == kindUIDs:
			return "", fmt.Errorf("%w: results at the level of the %s cannot be sorted by the attribute %s", pipeline.ErrInvalid, q.Level, o.Tag)
		case k.kind == kindNumber:
			column = d.integer(k.columns[0])
		default:
			column = k.columns[0]
		}
		last = levels[q.Level].id
		if o.Descending {
			column, last = column+" DESC", last+" DESC"
		}
		all = append(all, column)
	}
	// In the direction of the last criterion, an index has this order.
	return " ORDER BY " + strings.Join(append(all, last), ", "), nil
}

// levels holds, for each level, its row's id, the tables, and the columns that scanResult reads.
var levels = [...]struct{ id, from, columns string }{
	pipeline.StudyLevel: {"s.id", " FROM study s", ""},
	pipeline.SeriesLevel: {"e.id", " FROM series e JOIN study s ON s.id = e.study",
		", e.attrs, e.instance_count"},
	pipeline.InstanceLevel: {"i.id", " FROM instance i JOIN series e ON e.id = i.series JOIN study s ON s.id = e.study",
		", e.attrs, e.instance_count, i.attrs, i.syntax"},
}

const studyColumns = ", s.attrs, s.modalities, s.classes, s.series_count, s.instance_count"

// page returns the ids of the rows that a plan finds and notes how many are left.
func (a *Archive) page(ctx context.Context, p *plan, found *pipeline.Found) ([]int64, error) {
	if p.filter != nil {
		if err := a.columns.follow(ctx, a.read.DB); err != nil {
			return nil, err
		}
		if p.rest.sql != "" {
			return a.verified(ctx, p, found)
		}
		ids, total := a.columns.match(*p.filter, p.offset, p.limit)
		found.Left = max(0, total-p.offset-len(ids))
		return ids, nil
	}
	l := levels[p.level]
	counted := maxCounted
	if p.wide() {
		counted = maxCountedWide
	}
	if a.index.shared() { // a count costs less than its rows, which would come over a network
		ids, err := a.ids(ctx, "SELECT "+l.id+l.from+p.where()+p.order+" LIMIT ? OFFSET ?", append(slices.Clone(p.rest.args), p.limit, p.offset)...)
		if err != nil || len(ids) < p.limit {
			return ids, err
		}
		err = a.read.QueryRowContext(ctx, "SELECT count(*) FROM (SELECT 1"+l.from+p.where()+" LIMIT ? OFFSET ?) behind", append(slices.Clone(p.rest.args), counted, p.offset+p.limit)...).Scan(&found.Left)
		found.AtLeast = found.Left == counted
		return ids, err
	}
	ids, err := a.ids(ctx, "SELECT "+l.id+l.from+p.where()+p.order+" LIMIT ? OFFSET ?", append(slices.Clone(p.rest.args), p.limit+counted, p.offset)...)
	if err != nil || len(ids) <= p.limit {
		return ids, err
	}
	found.Left = len(ids) - p.limit
	found.AtLeast = found.Left == counted
	return ids[:p.limit], nil
}

// verified matches by SQL what columns let pass, some thousand at a time, until the page is full. Without found it goes through all.
func (a *Archive) verified(ctx context.Context, p *plan, found *pipeline.Found) ([]int64, error) {
	if err := a.columns.follow(ctx, a.read.DB); err != nil {
		return nil, err
	}
	candidates, _ := a.columns.match(*p.filter, 0, 1<<40)
	query := "SELECT s.id FROM study s WHERE s.id IN (SELECT value FROM json_each(?)) AND " + p.rest.sql + " ORDER BY s.id"
	var out []int64
	for chunk := range chunks(candidates, 256, 8192) {
		ids, err := a.ids(ctx, query, append([]any{jsonOf(chunk)}, p.rest.args...)...)
		if err != nil {
			return nil, err
		}
		out = append(out, ids...)
		if found != nil && len(out) > p.offset && len(out)-p.offset > p.limit {
			found.Left = len(out) - p.offset - p.limit
			found.AtLeast = chunk[len(chunk)-1] != candidates[len(candidates)-1]
			return out[p.offset : p.offset+p.limit], nil
		}
	}
	return out[min(p.offset, len(out)):], nil
}

// chunks cuts a list into pieces whose length doubles up to a limit.
func chunks(all []int64, size, limit int) func(yield func([]int64) bool) {
	return func(yield func([]int64) bool) {
		for len(all) > 0 {
			n := min(size, len(all))
			if !yield(all[:n]) {
				return
			}
			all, size = all[n:], min(2*size, limit)
		}
	}
}

func jsonOf(ids []int64) string {
	b, err := json.Marshal(ids)
	if err != nil { // numbers always marshal
		return "[]"
	}
	return string(b)
}

func (a *Archive) ids(ctx context.Context, query string, args ...any) ([]int64, error) {
	rows, err := a.read.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []int64
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		out = append(out, id)
	}
	return out, rows.Err()
}

// results reads the rows of a page and puts them in its order.
func (a *Archive) results(ctx context.Context, q pipeline.Query, ids []int64) ([]pipeline.Dataset, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	l := levels[q.Level]
	rows, err := a.read.QueryContext(ctx, "SELECT "+l.id+studyColumns+l.columns+l.from+" WHERE "+l.id+" IN (SELECT value FROM json_each(?))", jsonOf(ids))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	byID := make(map[int64]pipeline.Dataset, len(ids))
	for rows.Next() {
		id, d, err := scanResult(rows, q.Level)
		if err != nil {
			return nil, err
		}
		byID[id] = d
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	out := make([]pipeline.Dataset, 0, len(ids))
	for _, id := range ids {
		d, ok := byID[id]
		if !ok {
			continue // deleted in between
		}
		if q.All || len(q.Include) > 0 {
			if err := a.include(ctx, q, id, &d); err != nil {
				return nil, err
			}
		}
		out = append(out, d)
	}
	return out, nil
}
