package guard

import (
	"cmp"
	"slices"
	"unicode"
	"unicode/utf8"
)

// span is the code points from lo to hi.
type span struct{ lo, hi rune }

// runes is a set of code points: spans in ascending order that neither touch nor hold surrogates.
type runes []span

// everyRune is every Unicode scalar value.
var everyRune = runes{{0, 0xD7FF}, {0xE000, utf8.MaxRune}}

// union joins sets.
func union(sets ...runes) runes {
	all := slices.Concat(sets...)
	slices.SortFunc(all, func(a, b span) int { return cmp.Compare(a.lo, b.lo) })
	var out runes
	for _, s := range all {
		if n := len(out); n > 0 && s.lo <= out[n-1].hi+1 {
			out[n-1].hi = max(out[n-1].hi, s.hi)
		} else {
			out = append(out, s)
		}
	}
	return out.and(everyRune)
}

// and returns what is in both sets.
func (r runes) and(o runes) runes {
	var out runes
	for i, j := 0, 0; i < len(r) && j < len(o); {
		if lo, hi := max(r[i].lo, o[j].lo), min(r[i].hi, o[j].hi); lo <= hi {
			out = append(out, span{lo, hi})
		}
		if r[i].hi < o[j].hi {
			i++
		} else {
			j++
		}
	}
	return out
}

// minus returns what is in r only.
func (r runes) minus(o runes) runes {
	rest := runes{}
	lo := rune(0)
	for _, s := range o {
		if s.lo > lo {
			rest = append(rest, span{lo, s.lo - 1})
		}
		lo = s.hi + 1
	}
	if lo <= utf8.MaxRune {
		rest = append(rest, span{lo, utf8.MaxRune})
	}
	return r.and(rest)
}

func (r runes) has(c rune) bool {
	i, found := slices.BinarySearchFunc(r, c, func(s span, c rune) int { return cmp.Compare(s.lo, c) })
	return found || i > 0 && c <= r[i-1].hi
}

// outside returns the first character of text that is not in the set, -1 where all are. Bytes that are no UTF-8 are outside.
func (r runes) outside(text string) (at int, c rune) {
	for i, c := range text {
		if !r.has(c) {
			return i, c
		}
		if c == utf8.RuneError {
			if _, n := utf8.DecodeRuneInString(text[i:]); n == 1 {
				return i, c
			}
		}
	}
	return -1, 0
}

// tabled turns a table of package unicode into a set.
func tabled(tables ...*unicode.RangeTable) runes {
	var all runes
	for _, t := range tables {
		for _, r := range t.R16 {
			all = appendStride(all, rune(r.Lo), rune(r.Hi), rune(r.Stride))
		}
		for _, r := range t.R32 {
			all = appendStride(all, rune(r.Lo), rune(r.Hi), rune(r.Stride))
		}
	}
	return union(all)
}

func appendStride(all runes, lo, hi, stride rune) runes {
	if stride == 1 {
		return append(all, span{lo, hi})
	}
	for c := lo; c <= hi; c += stride {
		all = append(all, span{c, c})
	}
	return all
}

// border is the state of an automaton between two characters, dead that of bytes that no allowed character begins with.
const (
	border = int16(0)
	dead   = int16(-1)
)

// automaton reads the UTF-8 form of the characters of a set, byte by byte (Unicode 15, table 3-7). A state within a character stands for
// what may still follow: prefixes with the same rest share one. From every state an allowed character can be finished.
type automaton struct {
	next [][256]int16
}

// newAutomaton makes the automaton of a set.
func newAutomaton(set runes) *automaton {
	b := &builder{set: set, known: map[[65]int16]int16{}, out: &automaton{next: make([][256]int16, 1)}}
	start := &b.out.next[border]
	for i := range start {
		start[i] = dead
	}
	for c := range rune(0x80) {
		if set.has(c) {
			start[c] = border
		}
	}
	// The lead bytes by the number of bytes that follow, and the code points that must have so many.
	for _, lead := range []struct {
		first, last int
		follow      int
		within      span
	}{{0xC2, 0xDF, 1, span{0x80, 0x7FF}}, {0xE0, 0xEF, 2, span{0x800, 0xFFFF}}, {0xF0, 0xF4, 3, span{0x10000, utf8.MaxRune}}} {
		for c := lead.first; c <= lead.last; c++ {
			bits := rune(c & (0x3F >> lead.follow)) // of 110xxxxx, 1110xxxx or 11110xxx
			lo := bits << (6 * lead.follow)
			s := b.state(lead.follow, span{max(lo, lead.within.lo), min(lo+1<<(6*lead.follow)-1, lead.within.hi)}, lo)
			b.out.next[border][c] = s // not start: the table may have moved
		}
	}
	return b.out
}

// builder makes the states of an automaton, equal ones once.
type builder struct {
	set   runes
	known map[[65]int16]int16 // by what the 64 bytes 80 to BF lead to, and the bytes that follow
	whole [4]int16            // by the bytes that follow: the state after which all of them are allowed; 0 where there is none yet
	out   *automaton
}

// state returns the state in which follow bytes are left to tell the code points from lo on, of which those of within are valid.
func (b *builder) state(follow int, within span, lo rune) int16 {
	if follow == 0 {
		if within.lo <= within.hi && b.set.has(lo) {
			return border
		}
		return dead
	}
	i, _ := slices.BinarySearchFunc(b.set, within.lo, func(s span, c rune) int { return cmp.Compare(s.hi, c) })
	if i == len(b.set) || b.set[i].lo > within.hi || within.lo > within.hi {
		return dead
	}
	size := rune(1) << (6 * (follow - 1))
	whole := within == span{lo, lo + 64*size - 1} && b.set[i].lo <= within.lo && b.set[i].hi >= within.hi
	if whole && b.whole[follow] != 0 {
		return b.whole[follow]
	}
	key := [65]int16{64: int16(follow)}
	alive := false
	for i := range rune(64) {
		at := lo + i*size
		key[i] = b.state(follow-1, span{max(at, within.lo), min(at+size-1, within.hi)}, at)
		alive = alive || key[i] != dead
	}
	if !alive {
		return dead
	}
	s, ok := b.known[key]
	if !ok {
		s = b.add(&key)
	}
	if whole {
		b.whole[follow] = s
	}
	return s
}

// add makes the state that key describes.
func (b *builder) add(key *[65]int16) int16 {
	s := int16(len(b.out.next))
	b.known[*key] = s
	var row [256]int16
	for i := range row {
		row[i] = dead
	}
	copy(row[0x80:0xC0], key[:64])
	b.out.next = append(b.out.next, row)
	return s
}

// finishable tells for each state whether bytes of the given set can go on to the next border.
func (a *automaton) finishable(with *byteSet) []bool {
	ok := make([]bool, len(a.next))
	for changed := true; changed; {
		changed = false
		for s := range a.next {
			if ok[s] {
				continue
			}
			for b, to := range a.next[s] {
				if to != dead && with.has(byte(b)) && (to == border || ok[to]) {
					ok[s], changed = true, true
					break
				}
			}
		}
	}
	return ok
}
