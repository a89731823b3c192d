package token

import (
	"fmt"
	"unicode"
	"unicode/utf8"

	"chatxray/pipeline"
)

// The expressions of tokenizer.json are Oniguruma's. What the known tokenizers use is done here: alternatives, groups, classes with
// \p{..}, greedy, lazy and possessive repetition, (?i:..), look-ahead. Everything else is refused by name. A library would bring Go's
// edition of Unicode and its own idea of what backtracking may cost.

const (
	maxExpression = 4096
	maxProgram    = 1 << 14
)

type opcode uint8

const (
	opSet    opcode = iota // one character of a set, then the next instruction
	opSplit                // x, or else y
	opJump                 // x
	opAhead                // go on where the program at x matches here; y != 0: where it does not
	opAtomic               // the first match of the program at x, and no other
	opBegin                // of the text
	opEnd
	opMatch
)

type instruction struct {
	op   opcode
	x, y int
	set  *charSet
}

// expression is a compiled regular expression.
type expression struct{ program []instruction }

// charSet is a set of characters.
type charSet struct {
	ascii  [2]uint64
	ranges []rune // pairs
	parts  []setPart
	fold   bool
	negate bool
}

type setPart struct {
	class  *class
	negate bool
}

func (s *charSet) find(r rune) bool {
	found := s.plain(r)
	if s.fold {
		for f := unicode.SimpleFold(r); f != r && !found; f = unicode.SimpleFold(f) {
			found = s.plain(f)
		}
	}
	return found != s.negate
}

func (s *charSet) plain(r rune) bool {
	for i := 0; i < len(s.ranges); i += 2 {
		if s.ranges[i] <= r && r <= s.ranges[i+1] {
			return true
		}
	}
	for _, p := range s.parts {
		if p.class.has(r) != p.negate {
			return true
		}
	}
	return false
}

// finish fills the table for ASCII.
func (s *charSet) finish() *charSet {
	for r := range rune(0x80) {
		if s.find(r) {
			s.ascii[r>>6] |= 1 << (r & 63)
		}
	}
	return s
}

// node is a part of an expression. min is the least number of bytes that it takes.
type node interface {
	emit(c *compiler)
	min() int
}

type (
	setNode    struct{ set *charSet }
	listNode   []node
	choiceNode []node
	repeatNode struct {
		body       node
		from, to   int // to -1: no end
		lazy       bool
		possessive bool
	}
	aheadNode  struct{ body, negated node } // one of the two
	atomicNode struct{ body node }
	anchorNode struct{ op opcode }
)

func (setNode) min() int { return 1 }
func (l listNode) min() (n int) {
	for _, x := range l {
		n = min(n+x.min(), maxExpression)
	}
	return n
}
func (a choiceNode) min() int {
	n := maxExpression
	for _, x := range a {
		n = min(n, x.min())
	}
	return n
}
func (r repeatNode) min() int { return min(r.from*r.body.min(), maxExpression) }
func (aheadNode) min() int    { return 0 }
func (a atomicNode) min() int { return a.body.min() }
func (anchorNode) min() int   { return 0 }

type compiler struct {
	program []instruction
	full    bool
}

func (c *compiler) add(i instruction) int {
	if len(c.program) >= maxProgram {
		c.full = true
		return 0
	}
	c.program = append(c.program, i)
	return len(c.program) - 1
}

func (n setNode) emit(c *compiler) { c.add(instruction{op: opSet, set: n.set}) }
func (l listNode) emit(c *compiler) {
	for _, n := range l {
		n.emit(c)
	}
}

func (a choiceNode) emit(c *compiler) {
	var ends []int
	for i, n := range a {
		if i == len(a)-1 {
			n.emit(c)
			break
		}
		split := c.add(instruction{op: opSplit})
		c.program[split].x = len(c.program)
		n.emit(c)
		ends = append(ends, c.add(instruction{op: opJump}))
		c.program[split].y = len(c.program)
	}
	for _, e := range ends {
		c.program[e].x = len(c.program)
	}
}

func (r repeatNode) emit(c *compiler) {
	if r.possessive {
		r.possessive = false
		atomicNode{r}.emit(c)
		return
	}
	for range r.from {
		r.body.emit(c)
		if c.full {
			return
		}
	}
	if r.to < 0 {
		split := c.add(instruction{op: opSplit})
		body := len(c.program)
		r.body.emit(c)
		c.add(instruction{op: opJump, x: split})
		c.branch(split, body, len(c.program), r.lazy)
		return
	}
	var splits []int
	for range r.to - r.from {
		splits = append(splits, c.add(instruction{op: opSplit}), len(c.program))
		r.body.emit(c)
		if c.full {
			return
		}
	}
	for i := 0; i < len(splits); i += 2 {
		c.branch(splits[i], splits[i+1], len(c.program), r.lazy)
	}
}

func (c *compiler) branch(split, body, after int, lazy bool) {
	if lazy {
		body, after = after, body
	}
	c.program[split].x, c.program[split].y = body, after
}

// inner emits an instruction with a program of its own behind it.
func (c *compiler) inner(i instruction, body node) {
	at := c.add(i)
	skip := c.add(instruction{op: opJump})
	start := len(c.program)
	body.emit(c)
	c.add(instruction{op: opMatch})
	c.program[at].x, c.program[skip].x = start, len(c.program)
}

func (a aheadNode) emit(c *compiler) {
	if a.negated != nil {
		c.inner(instruction{op: opAhead, y: 1}, a.negated)
		return
	}
	c.inner(instruction{op: opAhead}, a.body)
}
func (a atomicNode) emit(c *compiler) { c.inner(instruction{op: opAtomic}, a.body) }
func (a anchorNode) emit(c *compiler) { c.add(instruction{op: a.op}) }

// compile reads an expression. One that may match nothing is refused: it cuts nothing.
func compile(pattern string) (*expression, error) {
	if len(pattern) > maxExpression || !utf8.ValidString(pattern) {
		return nil, fmt.Errorf("%w: an expression of %d bytes; the limit is %d, in UTF-8", pipeline.ErrInvalid, len(pattern), maxExpression)
	}
	p := &parser{rest: pattern}
	n := p.choice(0)
	if p.err == nil && p.rest != "" {
		p.fail("an unmatched )")
	}
	if p.err == nil && n.min() == 0 {
		p.fail("it may match nothing")
	}
	if p.err != nil {
		return nil, fmt.Errorf("%w: expression %.200q: %w", pipeline.ErrUnsupported, pattern, p.err)
	}
	var c compiler
	n.emit(&c)
	c.add(instruction{op: opMatch})
	if c.full {
		return nil, fmt.Errorf("%w: expression %.200q is too large", pipeline.ErrUnsupported, pattern)
	}
	return &expression{c.program}, nil
}
