package archive

import (
	"context"
	"database/sql"
	"encoding/binary"
	"slices"
	"strconv"
	"sync"
)

// columns has what most searches for studies are narrowed by in memory: date, name and modalities of every study in the order of
// arrival, some 40 bytes a study. Going over a million of them takes a millisecond or two, whichever page of the matches is wanted;
// an index of SQLite would have to sort the matches, or walk over those of the pages before. It follows the table study_change.
type columns struct {
	mu     sync.RWMutex
	loaded bool
	seq    int64 // of study_change that is in here
	ids    []int64
	dates  []uint32     // YYYYMMDD; 0 for none
	names  [3][]nameKey // by component group; nil while no study has one
	order  [3]nameOrder // of names
	sets   []uint32     // index into set
	set    []string     // modalities of a study with backslashes between, each set once
	codes  map[string]uint32

	pruneAt int64 // seq at which prune has something to do; only prune knows it
}

// nameKey is the beginning of a folded name, in the order of its bytes.
type nameKey struct{ high, low uint64 }

const nameKeyBytes = 16

func nameKeyOf(s string, pad byte) nameKey {
	var b [nameKeyBytes]byte
	for i := copy(b[:], s); i < len(b); i++ {
		b[i] = pad
	}
	return nameKey{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

func (k nameKey) less(o nameKey) bool { return k.high < o.high || k.high == o.high && k.low < o.low }

// columnRow is a study as columns needs it.
type columnRow struct {
	id         int64
	date       string
	names      [3]string
	modalities string
}

// put adds a study or changes it.
func (c *columns) put(r columnRow) {
	i, known := len(c.ids), false
	if i > 0 && c.ids[i-1] >= r.id { // not a new one
		i, known = slices.BinarySearch(c.ids, r.id)
	}
	if !known {
		c.insert(i, r.id)
	}
	c.write(i, r)
}

func (c *columns) insert(i int, id int64) {
	c.ids = slices.Insert(c.ids, i, id)
	c.dates = slices.Insert(c.dates, i, 0)
	c.sets = slices.Insert(c.sets, i, 0)
	for g := range c.names {
		if c.names[g] != nil {
			c.names[g] = slices.Insert(c.names[g], i, nameKey{})
			c.order[g].insert(c.names[g], i)
		}
	}
}

func (c *columns) write(i int, r columnRow) {
	date, _ := strconv.ParseUint(r.date, 10, 32)
	c.dates[i] = uint32(date)
	for g, name := range r.names {
		if c.names[g] == nil && name != "" {
			c.names[g] = make([]nameKey, len(c.ids), max(cap(c.ids), 1))
		}
		if c.names[g] != nil {
			c.order[g].rename(c.names[g], i, nameKeyOf(name, 0))
		}
	}
	code, ok := c.codes[r.modalities]
	if !ok {
		code = uint32(len(c.set))
		c.set, c.codes[r.modalities] = append(c.set, r.modalities), code
	}
	c.sets[i] = code
}

// drop takes studies out.
func (c *columns) drop(gone map[int64]bool) {
	if len(gone) == 0 {
		return
	}
	to, moved := 0, make([]int, len(c.ids))
	for i, id := range c.ids {
		if moved[i] = to; gone[id] {
			moved[i] = -1
			continue
		}
		c.ids[to], c.dates[to], c.sets[to] = id, c.dates[i], c.sets[i]
		for g := range c.names {
			if c.names[g] != nil {
				c.names[g][to] = c.names[g][i]
			}
		}
		to++
	}
	c.ids, c.dates, c.sets = c.ids[:to], c.dates[:to], c.sets[:to]
	for g := range c.names {
		if c.names[g] != nil {
			c.names[g] = c.names[g][:to]
			c.order[g].drop(moved)
		}
	}
}

const columnSelect = `SELECT id, study_date, name_alphabetic, name_ideographic, name_phonetic, modalities FROM study `

// follow brings columns to what the index holds now.
func (c *columns) follow(ctx context.Context, db *sql.DB) error {
	var newest int64
	err := db.QueryRowContext(ctx, "SELECT ifnull(max(seq), 0) FROM study_change").Scan(&newest)
	if err != nil {
		return err
	}
	c.mu.RLock()
	current := c.loaded && newest <= c.seq
	c.mu.RUnlock()
	if current {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	tx, err := db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := tx.QueryRowContext(ctx, "SELECT ifnull(max(seq), 0) FROM study_change").Scan(&newest); err != nil {
		return err
	}
	if !c.loaded {
		c.ids, c.dates, c.sets, c.names, c.set, c.codes = nil, nil, nil, [3][]nameKey{}, nil, map[string]uint32{}
		c.order = [3]nameOrder{}
		var n int
		if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM study").Scan(&n); err != nil {
			return err
		}
		n += n / 16 // without this, growing would leave more unused
		c.ids, c.dates, c.sets = make([]int64, 0, n), make([]uint32, 0, n), make([]uint32, 0, n)
		if err := c.take(ctx, tx, columnSelect+"ORDER BY id"); err != nil {
			return err
		}
	} else if err := c.change(ctx, tx); err != nil {
		c.loaded = false // half of it may be in
		return err
	}
	for g := range c.order {
		c.order[g].settle(c.names[g])
	}
	c.loaded, c.seq = true, max(newest, c.seq)
	return nil
}

// change takes over the studies that have changed since.
func (c *columns) change(ctx context.Context, tx *sql.Tx) error {
	changed, err := changedSince(ctx, tx, c.seq)
	if err != nil {
		return err
	}
	gone := map[int64]bool{}
	for _, id := range changed {
		gone[id] = true
	}
	err = c.takeEach(ctx, tx, func(id int64) { delete(gone, id) }, columnSelect+"WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id", jsonOf(changed))
	if err == nil {
		c.drop(gone)
	}
	return err
}

func changedSince(ctx context.Context, tx *sql.Tx, seq int64) (out []int64, err error) {
	rows, err := tx.QueryContext(ctx, "SELECT DISTINCT study FROM study_change WHERE seq > ? ORDER BY study", seq)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		out = append(out, id)
	}
	return out, rows.Err()
}

func (c *columns) take(ctx context.Context, tx *sql.Tx, query string) error {
	return c.takeEach(ctx, tx, func(int64) {}, query)
}

func (c *columns) takeEach(ctx context.Context, tx *sql.Tx, each func(id int64), query string, args ...any) error {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var r columnRow
		if err := rows.Scan(&r.id, &r.date, &r.names[0], &r.names[1], &r.names[2], &r.modalities); err != nil {
			return err
		}
		c.put(r)
		each(r.id)
	}
	return rows.Err()
}

// maxChanges is how many rows study_change may have that are in memory already.
const maxChanges = 10_000

// prune removes the changes that columns has taken over, at times.
func (c *columns) prune(ctx context.Context, tx writing) error {
	if !c.mu.TryRLock() { // nobody who stores waits for who searches
		return nil
	}
	seq, loaded := c.seq, c.loaded
	c.mu.RUnlock()
	if !loaded || seq < c.pruneAt {
		return nil
	}
	var oldest sql.NullInt64
	if err := tx.row(ctx, "SELECT min(seq) FROM study_change").Scan(&oldest); err != nil || !oldest.Valid {
		return err
	}
	if c.pruneAt = oldest.Int64 + maxChanges; seq < c.pruneAt {
		return nil
	}
	return tx.exec(ctx, "DELETE FROM study_change WHERE seq < ?", seq)
}
