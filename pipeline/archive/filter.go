package archive

import (
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"chatxray/pipeline"
)

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
	if len(names) == 1 && c.names[names[0].group] != nil { // nearly always
		return c.spelled(f, names[0], sets, offset, limit)
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

// spelled returns of the studies of one range of names those that pass, and how many there are.
func (c *columns) spelled(f filter, name nameRange, sets []bool, offset, limit int) (ids []int64, total int) {
	for i := range c.order[name.group].between(c.names[name.group], name) {
		if f.to != 0 && (c.dates[i] < f.from || c.dates[i] > f.to) || sets != nil && !sets[c.sets[i]] {
			continue
		}
		if total++; total > offset && len(ids) < limit {
			ids = append(ids, c.ids[i])
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
