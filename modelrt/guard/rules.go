package guard

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"chatxray/pipeline"
)

// NewGrammar makes a grammar of rules, for texts in the given scripts. The rule root is the whole text:
//
//	root  ::= side " pleural effusion" (", " size)? "."
//	side  ::= "no" | "left" | "right"
//	size  ::= [1-9] [0-9]{0,2} " mm"   # a comment
//
// A rule is a name (letters, digits, - and _), ::= and what it stands for, up to the next rule: texts in quotation marks, characters
// in brackets ([a-z], [^"]), a dot for any character but a line feed, names of rules, groups in parentheses, | between alternatives, and
// ?, *, +, {n}, {n,}, {n,m} behind what is repeated. Escapes in texts and brackets: \n \r \t \\ \" \[ \] \- \^ \xHH (below 80) and \uHHHH.
// It is the notation of llama.cpp's grammars. Rules may call themselves, but not before they read something; what may be empty is not
// repeated; a text is within at most 256 rules and repetitions at once.
//
// Errors: ErrInvalid, with the line, and ErrUnsupported.
func NewGrammar(v *Vocabulary, allowed Scripts, source string) (*Grammar, error) {
	p := &ruleParser{rest: source, line: 1, numbers: map[string]int{}}
	rules, err := p.parse()
	if err != nil {
		return nil, fmt.Errorf("%w grammar: line %d: %w", pipeline.ErrInvalid, p.line, err)
	}
	program, err := compile(rules, func(i int) string { return p.names[i] }, allowed.set, v.single)
	if err != nil {
		return nil, err
	}
	return newGrammar(v, program)
}

// ruleParser reads the notation of NewGrammar.
type ruleParser struct {
	rest    string
	line    int
	depth   int
	numbers map[string]int // of rules, 0 for root
	names   []string
	rules   []form
}

func (p *ruleParser) parse() ([]form, error) {
	if len(p.rest) > maxSource {
		return nil, fmt.Errorf("it is longer than %d bytes", maxSource)
	}
	if !utf8.ValidString(p.rest) {
		return nil, fmt.Errorf("it is not UTF-8")
	}
	p.number("root")
	for p.blank(); p.rest != ""; p.blank() {
		name := p.name()
		p.blank()
		if name == "" || !strings.HasPrefix(p.rest, "::=") {
			return nil, fmt.Errorf("a rule begins with its name and ::=")
		}
		p.rest = p.rest[3:]
		f, err := p.alternatives()
		if err != nil {
			return nil, err
		}
		n := p.number(name)
		if p.rules[n] != nil {
			return nil, fmt.Errorf("the rule %s stands there twice", name)
		}
		p.rules[n] = f
	}
	for i, r := range p.rules {
		if r == nil {
			return nil, fmt.Errorf("the rule %s is not there", p.names[i])
		}
	}
	return p.rules, nil
}

// number returns the number of a rule.
func (p *ruleParser) number(name string) int {
	n, ok := p.numbers[name]
	if !ok {
		n = len(p.names)
		p.numbers[name] = n
		p.names = append(p.names, name)
		p.rules = append(p.rules, nil)
	}
	return n
}

// blank skips spaces and comments.
func (p *ruleParser) blank() {
	for p.rest != "" {
		switch p.rest[0] {
		case '\n':
			p.line++
		case ' ', '\t', '\r':
		case '#':
			end := strings.IndexByte(p.rest, '\n')
			if end < 0 {
				end = len(p.rest)
			}
			p.rest = p.rest[end:]
			continue
		default:
			return
		}
		p.rest = p.rest[1:]
	}
}

func (p *ruleParser) name() string {
	n := strings.IndexFunc(p.rest, func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_')
	})
	if n < 0 {
		n = len(p.rest)
	}
	name := p.rest[:n]
	p.rest = p.rest[n:]
	return name
}

// atRule tells whether a rule begins here.
func (p *ruleParser) atRule() bool {
	ahead := *p
	if ahead.name() == "" {
		return false
	}
	ahead.blank()
	return strings.HasPrefix(ahead.rest, "::=")
}

func (p *ruleParser) alternatives() (form, error) {
	if p.depth++; p.depth > maxNest {
		return nil, fmt.Errorf("more than %d groups in one another", maxNest)
	}
	defer func() { p.depth-- }()
	var all choice
	for {
		f, err := p.sequence()
		if err != nil {
			return nil, err
		}
		all = append(all, f)
		if !strings.HasPrefix(p.rest, "|") {
			break
		}
		p.rest = p.rest[1:]
	}
	if len(all) == 1 {
		return all[0], nil
	}
	return all, nil
}

func (p *ruleParser) sequence() (form, error) {
	var parts word
	for {
		p.blank()
		if p.rest == "" || p.rest[0] == '|' || p.rest[0] == ')' || p.atRule() {
			return parts, nil
		}
		f, err := p.item()
		if err != nil {
			return nil, err
		}
		if f, err = p.repeated(f); err != nil {
			return nil, err
		}
		parts = append(parts, f)
	}
}

func (p *ruleParser) item() (form, error) {
	switch c := p.rest[0]; c {
	case '"':
		p.rest = p.rest[1:]
		var text strings.Builder
		for {
			r, plain, err := p.character('"')
			if err != nil {
				return nil, err
			}
			if plain && r == '"' {
				return literal(text.String()), nil
			}
			text.WriteRune(r)
		}
	case '[':
		p.rest = p.rest[1:]
		return p.class()
	case '.':
		p.rest = p.rest[1:]
		return among(everyRune.minus(runes{{'\n', '\n'}})), nil
	case '(':
		p.rest = p.rest[1:]
		f, err := p.alternatives()
		if err != nil {
			return nil, err
		}
		if !strings.HasPrefix(p.rest, ")") {
			return nil, fmt.Errorf("a group is not closed")
		}
		p.rest = p.rest[1:]
		return f, nil
	}
	if name := p.name(); name != "" {
		return call(p.number(name)), nil
	}
	r, _ := utf8.DecodeRuneInString(p.rest)
	return nil, fmt.Errorf("%q has no meaning here", r)
}

// character reads one of a text or class, up to its end mark. plain is false for an escape.
func (p *ruleParser) character(end byte) (r rune, plain bool, err error) {
	r, n := utf8.DecodeRuneInString(p.rest)
	if n == 0 || r == '\n' {
		return 0, false, fmt.Errorf("%q is missing", end)
	}
	p.rest = p.rest[n:]
	if r != '\\' {
		return r, true, nil
	}
	if p.rest == "" {
		return 0, false, fmt.Errorf("%q is missing", end)
	}
	c := p.rest[0]
	p.rest = p.rest[1:]
	switch c {
	case 'n':
		return '\n', false, nil
	case 'r':
		return '\r', false, nil
	case 't':
		return '\t', false, nil
	case '\\', '"', '[', ']', '-', '^':
		return rune(c), false, nil
	case 'x', 'u':
		digits := map[byte]int{'x': 2, 'u': 4}[c]
		if len(p.rest) >= digits {
			v, err := strconv.ParseUint(p.rest[:digits], 16, 32)
			if r := rune(v); err == nil && utf8.ValidRune(r) && (c == 'u' || r < 0x80) {
				p.rest = p.rest[digits:]
				return r, false, nil
			}
		}
	}
	return 0, false, fmt.Errorf("the escape \\%c is not known, or not whole", c)
}

func (p *ruleParser) class() (form, error) {
	not := strings.HasPrefix(p.rest, "^")
	if not {
		p.rest = p.rest[1:]
	}
	var set runes
	for {
		lo, plain, err := p.character(']')
		if err != nil {
			return nil, err
		}
		if plain && lo == ']' {
			break
		}
		hi := lo
		if strings.HasPrefix(p.rest, "-") && !strings.HasPrefix(p.rest, "-]") {
			p.rest = p.rest[1:]
			if hi, _, err = p.character(']'); err != nil {
				return nil, err
			}
		}
		if hi < lo {
			return nil, fmt.Errorf("%q to %q goes backwards", lo, hi)
		}
		set = append(set, span{lo, hi})
	}
	if set = union(set); not {
		set = everyRune.minus(set)
	}
	return among(set), nil
}

// repeated reads what stands behind an item.
func (p *ruleParser) repeated(f form) (form, error) {
	for n := 0; p.rest != ""; n++ {
		r := repeat{body: f}
		switch p.rest[0] {
		case '?':
			r.max = 1
		case '*':
			r.max = unbounded
		case '+':
			r.min, r.max = 1, unbounded
		case '{':
			end := strings.IndexByte(p.rest, '}')
			if end < 0 {
				return nil, fmt.Errorf("{ is not closed")
			}
			least, most, comma := strings.Cut(p.rest[1:end], ",")
			var err error
			if r.min, err = count(least); err != nil {
				return nil, err
			}
			switch {
			case !comma:
				r.max = r.min
			case strings.TrimSpace(most) == "":
				r.max = unbounded
			default:
				if r.max, err = count(most); err != nil {
					return nil, err
				}
				if r.max < r.min {
					return nil, fmt.Errorf("{%d,%d} goes backwards", r.min, r.max)
				}
			}
			p.rest = p.rest[end:]
		default:
			return f, nil
		}
		p.rest = p.rest[1:]
		f = r
		if n > 2 {
			return nil, fmt.Errorf("too many repetitions of repetitions")
		}
	}
	return f, nil
}

func count(s string) (int, error) {
	n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 32)
	if err != nil || n > maxCount {
		return 0, fmt.Errorf("%q is no number up to %d", s, maxCount)
	}
	return int(n), nil
}
