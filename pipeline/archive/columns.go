package archive

import (
	"context"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"sync"

	"chatxray/pipeline"
)

// columns has what most searches for studies are narrowed by in memory: date, name and modalities of every study in the order of
// arrival, some 30 bytes a study. Going over a million of them takes a millisecond or two, whichever page of the matches is wanted;
// an index of SQLite would have to sort the matches, or walk over those of the pages before. It follows the table study_change.
type columns struct {
	mu     sync.RWMutex
	loaded bool
	seq    int64 // of study_change that is in here
	ids    []int64
	dates  []uint32     // YYYYMMDD; 0 for none
	names  [3][]nameKey // by component group; nil while no study has one
	sets   []uint16     // index into set
	set    []string     // modalities of a study with backslashes between, each set once
	codes  map[string]int
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

// filter is what columns can tell of a query. The zero value lets every study pass.
type filter struct {
	from, to uint32 // to 0: any date
	names    []nameRange
	every    bool     // all of names must match, not one
	sets     []string // patterns of modalities; none: any
}

type nameRange struct {
	group     int
	low, high nameKey
}

func (f *filter) any() bool { return f.to == 0 && len(f.names) == 0 && len(f.sets) == 0 }

// take adds a key to the filter. used tells that the filter narrows by it; exact, that it need not be matched any more.
func (f *filter) take(m matching) (used, exact bool) {
	switch m.attribute {
	case plainKey(pipeline.TagStudyDate):
		s, err := dateRange(m.value)
		if err != nil {
			return false, false
		}
		low, _ := strconv.ParseUint(s.low, 10, 32)
		high, _ := strconv.ParseUint(s.high, 10, 32)
		if s.high == "" {
			high = 99999999
		}
		f.from, f.to = uint32(max(low, 1)), uint32(max(high, 1))
		return true, true
	case plainKey(pipeline.TagModalitiesInStudy):
		patterns, err := listed(m.value)
		if err != nil {
			return false, false
		}
		f.sets = patterns
		return true, true
	case plainKey(pipeline.TagPatientName):
		return f.takeName(m.value)
	}
	return false, false
}

// takeName narrows by what stands before the first wildcard of a name.
func (f *filter) takeName(value string) (used, exact bool) {
	groups := foldName(value)
	f.every = strings.Contains(value, "=")
	if !f.every {
		groups = [3]string{groups[0], groups[0], groups[0]}
	}
	exact = true
	for i, g := range groups {
		if f.every && (g == "" || g == "*") {
			continue
		}
		for strings.HasSuffix(g, "**") {
			g = g[:len(g)-1]
		}
		first := strings.IndexAny(g, "*?")
		prefix := g
		if first >= 0 {
			prefix = g[:first]
		}
		if prefix == "" || len(g) > maxPattern {
			f.names = nil
			return false, false
		}
		r := nameRange{i, nameKeyOf(prefix, 0), nameKeyOf(prefix, 0xFF)}
		if first < 0 {
			r.high = r.low
		}
		exact = exact && (first < 0 && len(prefix) < nameKeyBytes || first == len(g)-1 && g[first] == '*' && len(prefix) <= nameKeyBytes)
		f.names = append(f.names, r)
	}
	return len(f.names) > 0, exact
}

// match returns the studies that pass, and how many there are. With limit 0 only the number is wanted.
func (c *columns) match(f filter, offset, limit int) (ids []int64, total int) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if f.any() {
		if offset < len(c.ids) {
			ids = slices.Clone(c.ids[offset:min(len(c.ids), offset+limit)])
		}
		return ids, len(c.ids)
	}
	sets := c.setsOf(f)
	names := f.names
	if !f.every { // a group that no study has matches none
		names = slices.DeleteFunc(slices.Clone(names), func(r nameRange) bool { return c.names[r.group] == nil })
		if len(names) == 0 && len(f.names) > 0 {
			return nil, 0
		}
	}
	picked := make([]int, 0, columnBlock)
	for start := 0; start < len(c.ids); start += columnBlock {
		end := min(start+columnBlock, len(c.ids))
		picked = picked[:0]
		if f.to != 0 {
			picked = within(picked[:end-start], c.dates[start:end], start, f.from, f.to)
		} else {
			for i := start; i < end; i++ {
				picked = append(picked, i)
			}
		}
		if sets != nil {
			picked = filtered(picked, func(i int) bool { return sets[c.sets[i]] })
		}
		if len(names) > 0 {
			picked = c.named(picked, names, f.every)
		}
		before := total
		if total += len(picked); total > offset && len(ids) < limit {
			for _, i := range picked[max(0, offset-before):] {
				if len(ids) == limit {
					break
				}
				ids = append(ids, c.ids[i])
			}
		}
	}
	return ids, total
}

// columnBlock is how many studies are looked at together, one column after the other.
const columnBlock = 4096

// within writes the places of the dates from one to another, counted from start, into picked. Whether a date is among them is in no
// branch, which a processor would guess wrong as often as right: with dates in any order that makes it three times as fast.
func within(picked []int, dates []uint32, start int, from, to uint32) []int {
	if to < from {
		return picked[:0]
	}
	n := 0
	for i, d := range dates {
		picked[n] = start + i
		_, outside := bits.Sub64(uint64(to-from), uint64(d-from), 0)
		n += int(1 - outside)
	}
	return picked[:n]
}

func filtered(picked []int, f func(int) bool) []int {
	out := picked[:0]
	for _, i := range picked {
		if f(i) {
			out = append(out, i)
		}
	}
	return out
}

// named keeps the studies whose names match.
func (c *columns) named(picked []int, names []nameRange, every bool) []int {
	if len(names) == 1 && c.names[names[0].group] != nil { // nearly always
		r, all := names[0], c.names[names[0].group]
		n := 0
		for _, i := range picked { // as within does
			picked[n] = i
			_, outside := bits.Sub64(r.high.high-r.low.high, all[i].high-r.low.high, 0)
			n += int(1 - outside)
		}
		return filtered(picked[:n], func(i int) bool { return !all[i].less(r.low) && !r.high.less(all[i]) })
	}
	return filtered(picked, func(i int) bool {
		for _, r := range names {
			var k nameKey
			if c.names[r.group] != nil {
				k = c.names[r.group][i]
			}
			if (!k.less(r.low) && !r.high.less(k)) != every {
				return !every
			}
		}
		return every
	})
}

// setsOf tells of each set of modalities whether it passes.
func (c *columns) setsOf(f filter) []bool {
	if len(f.sets) == 0 {
		return nil
	}
	out := make([]bool, len(c.set))
	for i, set := range c.set {
		out[i] = slices.ContainsFunc(strings.Split(set, `\`), func(m string) bool {
			return m != "" && slices.ContainsFunc(f.sets, func(p string) bool { return globs(p, m) })
		})
	}
	return out
}

// columnRow is a study as columns needs it.
type columnRow struct {
	id         int64
	date       string
	names      [3]string
	modalities string
}

var errManySets = errors.New("more sets of modalities than columns can count")

// put adds a study or changes it.
func (c *columns) put(r columnRow) error {
	i := len(c.ids)
	if i > 0 && c.ids[i-1] >= r.id {
		var known bool
		if i, known = slices.BinarySearch(c.ids, r.id); !known {
			return c.insert(i, r)
		}
		return c.write(i, r)
	}
	return c.insert(i, r)
}

func (c *columns) insert(i int, r columnRow) error {
	c.ids = slices.Insert(c.ids, i, r.id)
	c.dates = slices.Insert(c.dates, i, 0)
	c.sets = slices.Insert(c.sets, i, 0)
	for g := range c.names {
		if c.names[g] != nil {
			c.names[g] = slices.Insert(c.names[g], i, nameKey{})
		}
	}
	return c.write(i, r)
}

func (c *columns) write(i int, r columnRow) error {
	date, _ := strconv.ParseUint(r.date, 10, 32)
	c.dates[i] = uint32(date)
	for g, name := range r.names {
		if c.names[g] == nil && name != "" {
			c.names[g] = make([]nameKey, len(c.ids), max(cap(c.ids), 1))
		}
		if c.names[g] != nil {
			c.names[g][i] = nameKeyOf(name, 0)
		}
	}
	code, ok := c.codes[r.modalities]
	if !ok {
		if code = len(c.set); code > 1<<16-1 {
			return errManySets
		}
		c.set, c.codes[r.modalities] = append(c.set, r.modalities), code
	}
	c.sets[i] = uint16(code)
	return nil
}

// drop takes studies out.
func (c *columns) drop(gone map[int64]bool) {
	if len(gone) == 0 {
		return
	}
	to := 0
	for i, id := range c.ids {
		if gone[id] {
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
		c.ids, c.dates, c.sets, c.names, c.set, c.codes = nil, nil, nil, [3][]nameKey{}, nil, map[string]int{}
		if err := c.take(ctx, tx, columnSelect+"ORDER BY id"); err != nil {
			return err
		}
	} else if err := c.change(ctx, tx); err != nil {
		c.loaded = false // half of it may be in
		return err
	}
	c.loaded, c.seq = true, max(newest, c.seq)
	return nil
}

// change takes over the studies that have changed since.
func (c *columns) change(ctx context.Context, tx *sql.Tx) error {
	rows, err := tx.QueryContext(ctx, "SELECT DISTINCT study FROM study_change WHERE seq > ? ORDER BY study", c.seq)
	if err != nil {
		return err
	}
	gone := map[int64]bool{}
	var changed []int64
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return errors.Join(err, rows.Close())
		}
		changed, gone[id] = append(changed, id), true
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err
	}
	list, err := json.Marshal(changed)
	if err != nil {
		return err
	}
	err = c.takeEach(ctx, tx, func(id int64) { delete(gone, id) }, columnSelect+"WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id", string(list))
	if err == nil {
		c.drop(gone)
	}
	return err
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
		if err := c.put(r); err != nil {
			return err
		}
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
	if !loaded {
		return nil
	}
	var oldest sql.NullInt64
	if err := tx.QueryRowContext(ctx, "SELECT min(seq) FROM study_change").Scan(&oldest); err != nil || !oldest.Valid || seq-oldest.Int64 < maxChanges {
		return err
	}
	_, err := tx.ExecContext(ctx, "DELETE FROM study_change WHERE seq < ?", seq)
	return err
}
