package token

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

type parser struct {
	rest string
	fold bool
	err  error
}

func (p *parser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf(format, args...)
	}
	p.rest = ""
}

func (p *parser) eat(s string) bool {
	if strings.HasPrefix(p.rest, s) {
		p.rest = p.rest[len(s):]
		return true
	}
	return false
}

func (p *parser) choice(depth int) node {
	if depth > 16 {
		p.fail("groups within groups")
		return listNode{}
	}
	var a choiceNode
	for {
		var l listNode
		for p.rest != "" && p.rest[0] != '|' && p.rest[0] != ')' {
			l = append(l, p.repeated(depth))
		}
		a = append(a, l)
		if !p.eat("|") {
			break
		}
	}
	if len(a) == 1 {
		return a[0]
	}
	return a
}

func (p *parser) repeated(depth int) node {
	n := p.atom(depth)
	for p.rest != "" && p.err == nil {
		r := repeatNode{body: n}
		counted := false
		switch p.rest[0] {
		case '?':
			r.from, r.to = 0, 1
		case '*':
			r.from, r.to = 0, -1
		case '+':
			r.from, r.to = 1, -1
		case '{':
			counted = true
			if !p.counts(&r) {
				return n
			}
		default:
			return n
		}
		if !counted {
			p.rest = p.rest[1:]
		}
		switch {
		case p.eat("?"):
			r.lazy = true
		case !counted && p.eat("+"): // after {..} Oniguruma takes a plus as another repetition
			r.possessive = true
		}
		if n.min() == 0 {
			p.fail("a repetition of what may match nothing")
		}
		n = r
	}
	return n
}

func (p *parser) counts(r *repeatNode) bool {
	end := strings.IndexByte(p.rest, '}')
	if end < 0 {
		p.fail("{ without }")
		return false
	}
	from, to, ranged := strings.Cut(p.rest[1:end], ",")
	p.rest = p.rest[end+1:]
	number := func(s string, otherwise int) int {
		if s == "" {
			return otherwise
		}
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 || n > 255 {
			p.fail("{%.20s} as a number of repetitions", s)
		}
		return n
	}
	r.from = number(from, 0)
	r.to = r.from
	if ranged {
		r.to = number(to, -1)
	}
	if r.to >= 0 && r.to < r.from || from == "" && to == "" || r.to == 0 {
		p.fail("{..} that repeats nothing")
	}
	return p.err == nil
}

func (p *parser) atom(depth int) node {
	switch {
	case p.eat("(?:"):
		return p.group(depth, p.fold)
	case p.eat("(?i:"):
		return p.group(depth, true)
	case p.eat("(?="):
		return aheadNode{body: p.group(depth, p.fold)}
	case p.eat("(?!"):
		return aheadNode{negated: p.group(depth, p.fold)}
	case p.eat("(?>"):
		return atomicNode{p.group(depth, p.fold)}
	case strings.HasPrefix(p.rest, "(?"):
		p.fail("%.4s", p.rest)
	case p.eat("("):
		return p.group(depth, p.fold)
	case p.eat("["):
		return setNode{p.set()}
	case p.eat("."):
		return setNode{(&charSet{ranges: []rune{'\n', '\n'}, negate: true}).finish()}
	case p.eat(`\A`):
		return anchorNode{opBegin}
	case p.eat(`\z`):
		return anchorNode{opEnd}
	case strings.ContainsRune("^$*+?{", rune(p.rest[0])):
		p.fail("%.1s at this place", p.rest)
	default:
		s := &charSet{fold: p.fold}
		if r, ok := p.character(s, false); ok {
			s.ranges = append(s.ranges, r, r)
		}
		return setNode{s.finish()}
	}
	return listNode{}
}

func (p *parser) group(depth int, fold bool) node {
	outer := p.fold
	p.fold = fold
	n := p.choice(depth + 1)
	p.fold = outer
	if p.err == nil && !p.eat(")") {
		p.fail("( without )")
	}
	return n
}

// set reads a class in brackets, after the opening one.
func (p *parser) set() *charSet {
	s := &charSet{fold: p.fold, negate: p.eat("^")}
	for first := true; ; first = false {
		switch {
		case p.rest == "":
			p.fail("[ without ]")
			return s.finish()
		case !first && p.eat("]"):
			return s.finish()
		case p.rest[0] == '[' || strings.HasPrefix(p.rest, "&&") || strings.HasPrefix(p.rest, "--") || p.rest[0] == ']':
			p.fail("%.2s within a class", p.rest)
			return s
		}
		lo, ok := p.character(s, true)
		if !ok {
			continue
		}
		hi := lo
		if len(p.rest) > 1 && p.rest[0] == '-' && p.rest[1] != ']' {
			p.rest = p.rest[1:]
			if hi, ok = p.character(s, true); !ok || hi < lo {
				p.fail("a range within a class that is none")
			}
		}
		s.ranges = append(s.ranges, lo, hi)
	}
}

// character reads one character, or a class that it adds to s; ok is false then.
func (p *parser) character(s *charSet, inSet bool) (r rune, ok bool) {
	r, n := utf8.DecodeRuneInString(p.rest)
	if r != '\\' {
		p.rest = p.rest[n:]
		return r, true
	}
	if len(p.rest) < 2 {
		p.fail(`\ at the end`)
		return 0, false
	}
	c := p.rest[1]
	p.rest = p.rest[2:]
	switch c {
	case 'n', 'r', 't', 'f', 'v', 'a', 'e':
		return map[byte]rune{'n': '\n', 'r': '\r', 't': '\t', 'f': '\f', 'v': '\v', 'a': 7, 'e': 27}[c], true
	case 's', 'd', 'w':
		s.parts = append(s.parts, setPart{classes[string(c)], false})
		return 0, false
	case 'S', 'D', 'W':
		s.parts = append(s.parts, setPart{classes[strings.ToLower(string(c))], true})
		return 0, false
	case 'p', 'P':
		p.property(s, c == 'P')
		return 0, false
	case 'x', 'u':
		return p.hex(c), true
	}
	if c < 0x80 && !(c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z') {
		return rune(c), true
	}
	p.fail(`\%c`, c)
	return 0, false
}

func (p *parser) property(s *charSet, negate bool) {
	end := strings.IndexByte(p.rest, '}')
	if !strings.HasPrefix(p.rest, "{") || end < 0 {
		p.fail(`\p without {..}`)
		return
	}
	name := p.rest[1:end]
	p.rest = p.rest[end+1:]
	if strings.HasPrefix(name, "^") {
		name, negate = name[1:], !negate
	}
	c, ok := classes[name]
	if !ok || len(name) == 1 && name[0] >= 'a' {
		p.fail(`\p{%.40s}`, name)
		return
	}
	s.parts = append(s.parts, setPart{c, negate})
}

func (p *parser) hex(kind byte) rune {
	digits := ""
	switch {
	case kind == 'x' && p.eat("{"):
		end := max(strings.IndexByte(p.rest, '}'), 0)
		digits, p.rest = p.rest[:end], p.rest[min(end+1, len(p.rest)):]
	case kind == 'x' && len(p.rest) >= 2:
		digits, p.rest = p.rest[:2], p.rest[2:]
	case kind == 'u' && len(p.rest) >= 4:
		digits, p.rest = p.rest[:4], p.rest[4:]
	}
	n, err := strconv.ParseUint(digits, 16, 32)
	if err != nil || n > unicode.MaxRune || kind == 'x' && len(digits) == 2 && n > 0x7F {
		p.fail(`\%c%.10s`, kind, digits)
		return 0
	}
	return rune(n)
}
