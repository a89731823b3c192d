package archive

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"time"

	"chatxray/pipeline"
)

// A study's life is one row of the table life, and its steps are those of the table change. A record is one row of the table record; a
// copy of it lies beside the pictures, so that an index that is lost can be made again.

const lifeColumns = `l.study, l.state, l.since, l.reason, l.worker, l.next, ifnull(s.received, 0), l.first, l.attempts, l.fence, l.news, l.lane, l.open`

const lifeTables = ` FROM life l LEFT JOIN study s ON s.uid = l.study`

var (
	findLife   = "SELECT " + lifeColumns + lifeTables + " WHERE l.study = ?"
	lockedLife = "SELECT l.study, l.state, l.since, l.reason, l.worker, l.next, 0, l.first, l.attempts, l.fence, l.news, l.lane, l.open FROM life l WHERE l.study = ?"
	arriveLife = `INSERT INTO life (study, state, since, first, open, news, lane) VALUES (?1, 'receiving', ?2, ?2, 1, 1, ?3)
		ON CONFLICT (study) DO UPDATE SET lane = min(life.lane, ?3), news = life.news + 1, open = 1, attempts = 0, next = 0, first = CASE WHEN life.open = 0 THEN ?2 ELSE life.first END,
			state = CASE WHEN life.state = 'reading' THEN life.state ELSE 'receiving' END, since = CASE WHEN life.state IN ('reading', 'receiving') THEN life.since ELSE ?2 END,
			reason = CASE WHEN life.state = 'reading' THEN life.reason ELSE '' END`
	beginLife = `UPDATE life SET fence = fence + 1, attempts = attempts + 1, state = ?2, since = ?3, reason = ?4, worker = ?5, next = 0, open = 1 WHERE study = ?1`
	moveLife  = `UPDATE life SET state = ?2, since = ?3, reason = ?4, worker = ?5, next = ?6, open = CASE WHEN ?7 = 1 AND news = ?8 THEN 0 ELSE 1 END,
		attempts = CASE WHEN ?2 = 'queued' THEN max(0, attempts - 1) WHEN ?2 IN ('failed', 'complete', 'reading') THEN attempts ELSE 0 END WHERE study = ?1`
	newChange   = `INSERT INTO change (study, at, state, reason, worker, next) VALUES (?, ?, ?, ?, ?, ?)`
	lastState   = `SELECT state FROM change WHERE study = ? ORDER BY id DESC LIMIT 1`
	findRecords = `SELECT content FROM record WHERE study = ? ORDER BY completed, key`
	putRecord   = `INSERT INTO record (study, key, completed, outgoing, content) VALUES (?1, ?2, ?3, ?4, ?5)
		ON CONFLICT (study, key) DO UPDATE SET completed = ?3, outgoing = ?4, content = ?5`
)

// nanos is a time as the index keeps it; 0 is the zero time.
func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromNanos(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}

func scanLife(r row) (l pipeline.Life, err error) {
	var since, next, received, first int64
	lane := 0
	err = r.Scan(&l.StudyInstanceUID, &l.State, &since, &l.Reason, &l.Worker, &next, &received, &first, &l.Attempts, &l.Fence, &l.News, &lane, &l.Open)
	if lane >= 1 && lane <= len(pipeline.Lanes) {
		l.Lane = pipeline.Lanes[lane-1]
	}
	l.At, l.Next, l.Received, l.First = fromNanos(since), fromNanos(next), fromNanos(received), fromNanos(first)
	return l, err
}

// arrived notes that something of a study has come from outside.
func arrived(ctx context.Context, tx writing, study string, lane pipeline.Lane, at time.Time) error {
	if err := tx.exec(ctx, arriveLife, study, at.UnixNano(), lane.Number()); err != nil {
		return err
	}
	var last string
	if err := noRow(tx.row(ctx, lastState, study).Scan(&last)); err != nil || last == string(pipeline.StateReceiving) || last == string(pipeline.StateReading) {
		return err
	}
	return note(ctx, tx, study, pipeline.Change{At: at, State: pipeline.StateReceiving})
}

func note(ctx context.Context, tx writing, study string, c pipeline.Change) error {
	return tx.exec(ctx, newChange, study, c.At.UnixNano(), string(c.State), c.Reason, c.Worker, nanos(c.Next))
}

// Life returns where a study stands; the error wraps pipeline.ErrNotFound when nothing of it is known.
func (a *Archive) Life(ctx context.Context, study string) (pipeline.Life, error) {
	rows, err := a.index.often(ctx, findLife, study)
	if err != nil {
		return pipeline.Life{}, indexError(err)
	}
	defer rows.Close()
	if !rows.Next() {
		if err := rows.Err(); err != nil {
			return pipeline.Life{}, indexError(err)
		}
		return pipeline.Life{}, fmt.Errorf("%w: the archive has nothing of study %s", pipeline.ErrNotFound, study)
	}
	l, err := scanLife(rows)
	return l, indexErrorOrNil(err)
}

// Changes returns the steps of a study's life, the first one first.
func (a *Archive) Changes(ctx context.Context, study string) ([]pipeline.Change, error) {
	rows, err := a.read.QueryContext(ctx, "SELECT at, state, reason, worker, next FROM change WHERE study = ? ORDER BY id", study)
	if err != nil {
		return nil, indexError(err)
	}
	defer rows.Close()
	var out []pipeline.Change
	for rows.Next() {
		var c pipeline.Change
		var at, next int64
		if err := rows.Scan(&at, &c.State, &c.Reason, &c.Worker, &next); err != nil {
			return nil, indexError(err)
		}
		c.At, c.Next = fromNanos(at), fromNanos(next)
		out = append(out, c)
	}
	return out, indexErrorOrNil(rows.Err())
}

// Lives returns up to most lives behind the study after, in the order of their UIDs: of one state, or of all where that is empty.
func (a *Archive) Lives(ctx context.Context, state pipeline.State, after string, most int) ([]pipeline.Life, error) {
	return a.lives(ctx, "(?1 = '' OR l.state = ?1)", state, after, most)
}

// Unsettled returns up to most lives behind the study after for which something is still to be done, in the order of their UIDs.
func (a *Archive) Unsettled(ctx context.Context, after string, most int) ([]pipeline.Life, error) {
	return a.lives(ctx, "l.open = 1 AND ?1 = ''", "", after, most)
}

func (a *Archive) lives(ctx context.Context, which string, state pipeline.State, after string, most int) ([]pipeline.Life, error) {
	rows, err := a.read.QueryContext(ctx, "SELECT "+lifeColumns+lifeTables+" WHERE "+which+" AND l.study > ?2 ORDER BY l.study LIMIT ?3", string(state), after, most)
	if err != nil {
		return nil, indexError(err)
	}
	defer rows.Close()
	var out []pipeline.Life
	for rows.Next() {
		l, err := scanLife(rows)
		if err != nil {
			return nil, indexError(err)
		}
		out = append(out, l)
	}
	return out, indexErrorOrNil(rows.Err())
}

// Begin gives a study to a worker, with the steps that led there from where it stands; the last one is where it stands then, none leaves it as it is. From now on, whoever began earlier
// writes nothing any more. The study's records are as they were then.
func (a *Archive) Begin(ctx context.Context, study string, steps func(pipeline.Life) []pipeline.Change) (l pipeline.Life, records []pipeline.Record, err error) {
	err = a.book(ctx, func(ctx context.Context, tx writing) (err error) {
		there := tx.row(ctx, lockedLife, study)
		if records, err = recordsOf(ctx, tx, study); err != nil {
			return err
		}
		was, err := fencedBy(there, pipeline.Life{StudyInstanceUID: study})
		if err != nil {
			return err
		}
		steps := steps(was)
		if l = was; len(steps) == 0 {
			return nil
		}
		last := steps[len(steps)-1]
		if err := tx.exec(ctx, beginLife, study, string(last.State), last.At.UnixNano(), last.Reason, last.Worker); err != nil {
			return err
		}
		for _, c := range steps {
			if err := note(ctx, tx, study, c); err != nil {
				return err
			}
		}
		l.Change = pipeline.Change{At: fromNanos(last.At.UnixNano()), State: last.State, Reason: last.Reason, Worker: last.Worker}
		l.Fence, l.Attempts, l.Open = was.Fence+1, was.Attempts+1, true
		return nil
	}, study)
	return l, records, err
}

// Complete notes steps of up to most studies that are being received and of which nothing came from outside since a time, and returns how many
// there were.
func (a *Archive) Complete(ctx context.Context, since time.Time, most int, steps ...pipeline.Change) (n int, err error) {
	due, err := a.lives(ctx, "l.state = ?1 AND l.open = 1 AND s.received <= "+strconv.FormatInt(since.UnixNano(), 10), pipeline.StateReceiving, "", most)
	if err != nil || len(due) == 0 {
		return 0, err
	}
	studies := make([]string, len(due))
	for i, l := range due {
		studies[i] = l.StudyInstanceUID
	}
	return len(due), a.book(ctx, func(ctx context.Context, tx writing) error {
		for _, l := range due {
			now, err := fenced(ctx, tx, pipeline.Life{StudyInstanceUID: l.StudyInstanceUID})
			if errors.Is(err, pipeline.ErrNotFound) || err == nil && (now.State != pipeline.StateReceiving || now.News != l.News) {
				continue
			}
			if err == nil {
				err = moveFrom(ctx, tx, now, now, steps...)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}, studies...)
}

// Move notes a step of a study's life. l is what Begin has returned; the error is pipeline.ErrLost when another worker has begun since. A
// life with the fence 0 is nobody's: the step is noted in any case.
func (a *Archive) Move(ctx context.Context, l pipeline.Life, c pipeline.Change) error {
	return a.book(ctx, func(ctx context.Context, tx writing) error { return move(ctx, tx, l, c) }, l.StudyInstanceUID)
}

func move(ctx context.Context, tx writing, l pipeline.Life, c pipeline.Change) error {
	now, err := fenced(ctx, tx, l)
	if err != nil {
		return err
	}
	return moveFrom(ctx, tx, now, l, c)
}

// moveFrom moves a life that is now there, for a worker who has it as l; it stands at the last of the steps then.
func moveFrom(ctx context.Context, tx writing, now, l pipeline.Life, steps ...pipeline.Change) error {
	news, settles := l.News, 0
	if l.Fence == 0 {
		news = now.News
	}
	c := steps[len(steps)-1]
	if c.Settles() {
		settles = 1
	}
	if err := tx.exec(ctx, moveLife, l.StudyInstanceUID, string(c.State), c.At.UnixNano(), c.Reason, c.Worker, nanos(c.Next), settles, news); err != nil {
		return err
	}
	for _, c := range steps {
		if err := note(ctx, tx, l.StudyInstanceUID, c); err != nil {
			return err
		}
	}
	return nil
}

// fenced returns the life as it is now, but for Received, unless another worker has it.
func fenced(ctx context.Context, tx writing, l pipeline.Life) (pipeline.Life, error) {
	return fencedBy(tx.row(ctx, lockedLife, l.StudyInstanceUID), l)
}

// fencedBy is fenced with what lockedLife has found.
func fencedBy(there row, l pipeline.Life) (pipeline.Life, error) {
	now, err := scanLife(there)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return now, fmt.Errorf("%w: the archive has nothing of study %s", pipeline.ErrNotFound, l.StudyInstanceUID)
	case err != nil:
		return now, err
	case l.Fence != 0 && now.Fence != l.Fence:
		return now, pipeline.ErrLost
	}
	return now, nil
}

// Outgoing returns up to most records behind the record after (its study, a space, its key) that have documents on their way to a
// destination.
func (a *Archive) Outgoing(ctx context.Context, after string, most int) ([]pipeline.Record, error) {
	//nolint:rowserrcheck // scanRecords does
	rows, err := a.read.QueryContext(ctx, "SELECT content FROM record WHERE outgoing = 1 AND study || ' ' || key > ? ORDER BY study || ' ' || key LIMIT ?", after, most)
	if err != nil {
		return nil, indexError(err)
	}
	return scanRecords(rows)
}

// Undone returns up to most studies behind the study after of which something is to be done, or was given up, in the order of their UIDs.
func (a *Archive) Undone(ctx context.Context, after string, most int) (out []string, err error) {
	rows, err := a.read.QueryContext(ctx, `SELECT study FROM life WHERE study > ?1 AND (open = 1 OR state IN ('held', 'failed'))
		UNION SELECT study FROM record WHERE study > ?1 AND outgoing != 0 ORDER BY study LIMIT ?2`, after, most)
	if err != nil {
		return nil, indexError(err)
	}
	defer rows.Close()
	for rows.Next() {
		var study string
		if err := rows.Scan(&study); err != nil {
			return nil, indexError(err)
		}
		out = append(out, study)
	}
	return out, indexErrorOrNil(rows.Err())
}

// Ping tells whether the index answers.
func (a *Archive) Ping(ctx context.Context) error {
	var one int
	return indexErrorOrNil(a.read.QueryRowContext(ctx, "SELECT 1").Scan(&one))
}

// ID tells this archive from others whose workers share a Redis; an index that is made anew has another one.
func (a *Archive) ID(ctx context.Context) (id string, err error) {
	err = a.read.QueryRowContext(ctx, "SELECT id FROM archive").Scan(&id)
	return id, indexErrorOrNil(err)
}
