package guard

import (
	"fmt"
	"math"
	"slices"

	"chatxray/pipeline"
)

// The limits of a form. A real schema has some hundred steps; what a hostile one costs is bounded by these.
const (
	maxSteps  = 1 << 16 // of a program
	maxSource = 1 << 18 // bytes of a schema or grammar
	maxNest   = 64      // levels of a schema or grammar
	maxFrames = 256     // rules and repetitions that a text is within, one in another
	maxCount  = 1 << 16 // of a repetition
)

// form describes texts. It is what schemas and grammars are turned into, and what a program is made of.
type form interface{}

type (
	literal string    // these bytes
	word    []form    // one after another
	choice  []form    // one of them
	among   runes     // one character of a set
	oneOf   []literal // one of many texts, none of them empty
	call    int       // a rule, by its number
	repeat  struct {
		body     form
		min, max int // max is unbounded where it is negative
	}
	members struct { // of a JSON object
		list []member
	}
)

// member is a key with its value. What stands before it depends on whether it is the first.
type member struct {
	key      literal // with its colon
	value    form
	optional bool
}

var (
	unbounded = -1
	nothing   = literal("")
)

func optional(f form) form { return choice{f, nothing} }

// operation is what a step does.
type operation uint8

const (
	opByte   operation = iota // reads a byte of set
	opRune                    // reads a character by an automaton
	opSplit                   // goes on at any of branches
	opCall                    // goes on at entry, then at next
	opReturn                  // ends a rule
	opLoop                    // repeats entry min to max times, then goes on at next
	opAgain                   // ends the body of a loop
)

// step is one of a program.
type step struct {
	op       operation
	next     int32
	entry    int32
	min, max int32
	set      byteSet
	chars    *characters
	branches []int32
	need     int32 // frames that are needed from here to the end of the rule; impossible where it cannot be reached
}

const impossible = math.MaxInt32

// characters is an automaton with the states from which single-byte tokens reach the next border.
type characters struct {
	*automaton
	live []bool
}

// program reads texts of a form. It never changes.
type program struct {
	steps []step
	start int32
}

// compiler makes a program of rules. Rule 0 is the whole text.
type compiler struct {
	single  byteSet // bytes that are a token by themselves
	allowed runes
	steps   []step
	entries []int32
	known   map[string]*characters
	err     error
}

// compile makes the program of rules for texts in the allowed characters, by tokens among which single are the bytes by themselves.
// From each place that the program reaches, single-byte tokens lead to the end: so nothing can be begun that cannot be finished.
func compile(rules []form, names func(int) string, allowed runes, single byteSet) (*program, error) {
	if rule, ok := recursesAtLeft(rules); ok {
		return nil, fmt.Errorf("%w grammar: the rule %s begins with itself", pipeline.ErrUnsupported, names(rule))
	}
	if rule, ok := repeatsNothing(rules); ok {
		return nil, fmt.Errorf("%w grammar: the rule %s repeats what may be empty", pipeline.ErrUnsupported, names(rule))
	}
	c := &compiler{single: single, allowed: allowed, known: map[string]*characters{}}
	c.entries = make([]int32, len(rules))
	for i := range rules {
		c.entries[i] = c.add(step{op: opSplit}) // so that calls know where to go
	}
	end := c.add(step{op: opReturn})
	for i, r := range rules {
		at := c.form(r, end)
		c.steps[c.entries[i]].branches = []int32{at}
	}
	if c.err != nil {
		return nil, c.err
	}
	c.measure()
	if c.steps[c.entries[0]].need > maxFrames {
		return nil, fmt.Errorf("%w grammar: no text of it can be written in the scripts, with this vocabulary and within %d levels", pipeline.ErrInvalid, maxFrames)
	}
	return &program{c.steps, c.entries[0]}, nil
}

func (c *compiler) add(s step) int32 {
	if len(c.steps) >= maxSteps {
		if c.err == nil {
			c.err = fmt.Errorf("%w grammar: it has more than %d steps", pipeline.ErrInvalid, maxSteps)
		}
		return 0
	}
	c.steps = append(c.steps, s)
	return int32(len(c.steps) - 1)
}

// form adds the steps of f, which go on at next, and returns the first of them.
func (c *compiler) form(f form, next int32) int32 {
	if c.err != nil {
		return next
	}
	switch f := f.(type) {
	case literal:
		c.check(f)
		return c.chain(f, next)
	case word:
		for _, part := range slices.Backward(f) {
			next = c.form(part, next)
		}
		return next
	case choice:
		branches := make([]int32, len(f))
		for i, part := range f {
			branches[i] = c.form(part, next)
		}
		return c.add(step{op: opSplit, branches: branches})
	case among:
		return c.add(step{op: opRune, chars: c.characters(runes(f)), next: next})
	case oneOf:
		for _, s := range f {
			c.check(s)
		}
		list := slices.Clone(f)
		slices.Sort(list)
		return c.tree(slices.Compact(list), 0, next)
	case call:
		return c.add(step{op: opCall, entry: c.entries[f], next: next})
	case repeat:
		return c.repeat(f, next)
	case members:
		return c.members(f.list, next)
	}
	panic(fmt.Sprintf("guard: form %T", f))
}

// check refuses a text that must stand there and may not.
func (c *compiler) check(s literal) {
	if at, r := c.allowed.outside(string(s)); at >= 0 && c.err == nil {
		c.err = fmt.Errorf("%w grammar: it asks for %U (%s), which is outside the scripts", pipeline.ErrInvalid, r, scriptOf(r))
	}
}

func (c *compiler) chain(s literal, next int32) int32 {
	for i := len(s) - 1; i >= 0; i-- {
		one := step{op: opByte, next: next}
		one.set.add(s[i])
		next = c.add(one)
	}
	return next
}

// tree is a choice among texts that shares what they begin with. The texts are sorted, different, and equal up to depth.
func (c *compiler) tree(list []literal, depth int, next int32) int32 {
	if len(list) == 1 {
		return c.chain(list[0][depth:], next)
	}
	var branches []int32
	if len(list[0]) == depth {
		branches = append(branches, next)
		list = list[1:]
	}
	for len(list) > 0 {
		b := list[0][depth]
		n := 1
		for n < len(list) && list[n][depth] == b {
			n++
		}
		one := step{op: opByte}
		one.set.add(b)
		if n == 1 {
			branches = append(branches, c.chain(list[0][depth:], next))
		} else {
			one.next = c.tree(list[:n], depth+1, next)
			branches = append(branches, c.add(one))
		}
		list = list[n:]
	}
	return c.add(step{op: opSplit, branches: branches})
}

func (c *compiler) repeat(f repeat, next int32) int32 {
	switch {
	case f.max == 0:
		return next
	case f.min == 1 && f.max == 1:
		return c.form(f.body, next)
	case f.min == 0 && f.max == 1:
		return c.form(optional(f.body), next)
	case f.min == 0 && f.max < 0:
		again := c.add(step{op: opSplit})
		body := c.form(f.body, again)
		if c.err == nil {
			c.steps[again].branches = []int32{body, next}
		}
		return again
	}
	body := c.form(f.body, c.add(step{op: opAgain}))
	most := int32(f.max)
	if f.max < 0 {
		most = math.MaxInt32
	}
	return c.add(step{op: opLoop, entry: body, min: int32(f.min), max: most, next: next})
}

// members adds the steps of an object's members, from behind: each place twice, for whether a member stands before it.
func (c *compiler) members(list []member, next int32) int32 {
	first, later := next, next
	for _, m := range slices.Backward(list) {
		value := c.form(m.value, later)
		alone, follows := c.form(m.key, value), c.form(word{literal(","), optional(literal(" ")), m.key}, value)
		if m.optional {
			alone = c.add(step{op: opSplit, branches: []int32{alone, first}})
			follows = c.add(step{op: opSplit, branches: []int32{follows, later}})
		}
		first, later = alone, follows
	}
	return first
}

// characters makes the automaton of a set within what is allowed; equal ones once.
func (c *compiler) characters(set runes) *characters {
	set = set.and(c.allowed)
	key := fmt.Sprint(set)
	if a, ok := c.known[key]; ok {
		return a
	}
	a := newAutomaton(set)
	chars := &characters{a, a.finishable(&c.single)}
	c.known[key] = chars
	return chars
}

// measure finds for each step how many frames the rest of its rule needs at least.
func (c *compiler) measure() {
	for i := range c.steps {
		c.steps[i].need = impossible
	}
	for changed := true; changed; {
		changed = false
		for i := range c.steps {
			s := &c.steps[i]
			if need := c.need(s); need < s.need {
				s.need, changed = need, true
			}
		}
	}
}

func (c *compiler) need(s *step) int32 {
	inside := func(entry int32) int32 {
		if n := c.steps[entry].need; n < maxFrames {
			return n + 1
		}
		return impossible
	}
	switch s.op {
	case opByte:
		if !s.set.meets(&c.single) {
			return impossible
		}
		return c.steps[s.next].need
	case opRune:
		if !s.chars.live[border] {
			return impossible
		}
		return c.steps[s.next].need
	case opSplit:
		need := int32(impossible)
		for _, b := range s.branches {
			need = min(need, c.steps[b].need)
		}
		return need
	case opCall:
		return max(inside(s.entry), c.steps[s.next].need)
	case opLoop:
		if s.min == 0 {
			return c.steps[s.next].need
		}
		return max(inside(s.entry), c.steps[s.next].need)
	}
	return 0 // opReturn, opAgain
}

// emptyRules tells which rules have the empty text.
func emptyRules(rules []form) []bool {
	empty := make([]bool, len(rules))
	for changed := true; changed; {
		changed = false
		for i, r := range rules {
			if !empty[i] && mayBeEmpty(r, empty) {
				empty[i], changed = true, true
			}
		}
	}
	return empty
}

// repeatsNothing finds a rule with a repetition of what may be empty, which could be followed without end.
func repeatsNothing(rules []form) (rule int, found bool) {
	empty := emptyRules(rules)
	var in func(f form) bool
	in = func(f form) bool {
		switch f := f.(type) {
		case word:
			return slices.ContainsFunc(f, in)
		case choice:
			return slices.ContainsFunc(f, in)
		case repeat:
			return f.max != 0 && f.max != 1 && mayBeEmpty(f.body, empty) || in(f.body)
		}
		return false // the members of an object are calls
	}
	i := slices.IndexFunc(rules, in)
	return i, i >= 0
}

// recursesAtLeft finds a rule that can come to itself before anything is read.
func recursesAtLeft(rules []form) (rule int, found bool) {
	empty := emptyRules(rules)
	state := make([]uint8, len(rules)) // 1: being looked at, 2: done
	var visit func(i int) bool
	var begin func(f form) bool // whether f can come to a rule that is being looked at
	begin = func(f form) bool {
		switch f := f.(type) {
		case word:
			for _, part := range f {
				if begin(part) {
					return true
				}
				if !mayBeEmpty(part, empty) {
					return false
				}
			}
		case choice:
			return slices.ContainsFunc(f, begin)
		case repeat:
			return begin(f.body)
		case call:
			return visit(int(f))
		}
		return false
	}
	visit = func(i int) bool {
		if state[i] == 1 {
			rule = i
			return true
		}
		if state[i] == 2 {
			return false
		}
		state[i] = 1
		defer func() { state[i] = 2 }()
		return begin(rules[i])
	}
	for i := range rules {
		if visit(i) {
			return rule, true
		}
	}
	return 0, false
}

func mayBeEmpty(f form, rules []bool) bool {
	empty := func(f form) bool { return mayBeEmpty(f, rules) }
	switch f := f.(type) {
	case literal:
		return f == ""
	case word:
		return !slices.ContainsFunc(f, func(f form) bool { return !empty(f) })
	case choice:
		return slices.ContainsFunc(f, empty)
	case call:
		return rules[f]
	case repeat:
		return f.min == 0 || empty(f.body)
	}
	return false
}
