package token

import "unicode/utf8"

// matcher runs an expression over one text. It backtracks, with a note of what has failed where once that takes long: a search costs
// at most about the length of the program times that of the text, but for look-ahead and atomic groups that match: their steps are
// taken again for each place from which they are asked.
type matcher struct {
	program []instruction
	text    string
	stack   []state
	steps   int
	failed  []uint64 // a bit for each instruction at each place; nil: not noted
	trail   []int    // the bits that were set, in order
}

type state struct{ pc, at int }

// noteAfter is how many steps a match may take before what fails is noted.
var noteAfter = 4096 // a variable for its test alone

// maxNotes bounds the memory of the notes, in bits; a text too long for them is searched without.
const maxNotes = 1 << 30

// each calls yield for the matches in text and for what lies between them, in order, with nothing left out.
func (e *expression) each(text string, yield func(from, to int, match bool)) {
	m := matcher{program: e.program, text: text}
	done := 0
	for at := 0; at < len(text); {
		end := m.match(0, at)
		if end < 0 {
			_, n := utf8.DecodeRuneInString(text[at:])
			at += n
			continue
		}
		if done < at {
			yield(done, at, false)
		}
		yield(at, end, true)
		at, done = end, end
		m.steps, m.failed, m.trail = 0, nil, m.trail[:0] // of the steps to a match it is not known which ones failed
	}
	if done < len(text) {
		yield(done, len(text), false)
	}
}

// match returns the end of the match that begins at a place, or -1.
func (m *matcher) match(pc, at int) int {
	base, noted := len(m.stack), len(m.trail)
	m.stack = append(m.stack, state{pc, at})
	for len(m.stack) > base {
		s := m.stack[len(m.stack)-1]
		m.stack = m.stack[:len(m.stack)-1]
		if end := m.thread(s.pc, s.at); end >= 0 {
			m.stack = m.stack[:base]
			for _, bit := range m.trail[noted:] { // which of them led here is not known
				m.failed[bit/64] &^= 1 << (bit % 64)
			}
			m.trail = m.trail[:noted]
			return end
		}
	}
	return -1
}

// thread follows one state until it matches or fails; what else could be tried is on the stack.
func (m *matcher) thread(pc, at int) int {
	for {
		i := &m.program[pc]
		switch i.op {
		case opSet:
			if at == len(m.text) {
				return -1
			}
			if c := m.text[at]; c < 0x80 {
				if i.set.ascii[c>>6]&(1<<(c&63)) == 0 {
					return -1
				}
				at++
			} else {
				r, n := utf8.DecodeRuneInString(m.text[at:])
				if !i.set.find(r) {
					return -1
				}
				at += n
			}
			pc++
		case opSplit:
			if m.seen(pc, at) {
				return -1
			}
			m.stack = append(m.stack, state{i.y, at})
			pc = i.x
		case opJump:
			pc = i.x
		case opAhead:
			if (m.match(i.x, at) < 0) != (i.y != 0) {
				return -1
			}
			pc++
		case opAtomic:
			if at = m.match(i.x, at); at < 0 {
				return -1
			}
			pc++
		case opBegin:
			if at != 0 {
				return -1
			}
			pc++
		case opEnd:
			if at != len(m.text) {
				return -1
			}
			pc++
		case opMatch:
			return at
		}
	}
}

// seen says whether a branch has failed at this place before, and notes it.
func (m *matcher) seen(pc, at int) bool {
	m.steps++
	if m.failed == nil {
		if bits := len(m.program) * (len(m.text) + 1); m.steps > noteAfter && bits < maxNotes {
			m.failed = make([]uint64, bits/64+1)
		}
		return false
	}
	bit := pc*(len(m.text)+1) + at
	if m.failed[bit/64]&(1<<(bit%64)) != 0 {
		return true
	}
	m.failed[bit/64] |= 1 << (bit % 64)
	m.trail = append(m.trail, bit)
	return false
}
