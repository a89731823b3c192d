package chat

import (
	"slices"
)

const (
	maxSource = 1 << 18
	maxDepth  = 64 // of blocks and of expressions
)

type parser struct {
	in    []lexeme
	depth int
	loops int
	ifs   int // filters and tests that are not known are errors of compiling only outside of these, as in Jinja
	err   error
}

func (p *parser) peek() lexeme { return p.in[0] }

func (p *parser) next() lexeme {
	t := p.in[0]
	if t.kind != kindEOF {
		p.in = p.in[1:]
	}
	return t
}

// fail keeps the first error and ends parsing.
func (p *parser) fail(err error) {
	if p.err == nil {
		p.err = err
	}
	p.in = p.in[len(p.in)-1:]
}

func (p *parser) is(k kind, texts ...string) bool {
	return p.peek().kind == k && slices.Contains(texts, p.peek().text)
}

func (p *parser) op(text string) bool {
	if p.is(kindOp, text) {
		p.next()
		return true
	}
	return false
}

func (p *parser) word(text string) bool {
	if p.is(kindName, text) {
		p.next()
		return true
	}
	return false
}

func (p *parser) want(k kind, text string) {
	if t := p.next(); t.kind != k || t.text != text {
		p.fail(syntax(t.line, "%v where %q is wanted", t, text))
	}
}

func (p *parser) name() string {
	t := p.next()
	if t.kind != kindName {
		p.fail(syntax(t.line, "%v where a name is wanted", t))
	}
	return t.text
}

func (p *parser) deeper() func() {
	if p.depth++; p.depth > maxDepth {
		p.fail(syntax(p.peek().line, "more than %d levels", maxDepth))
	}
	return func() { p.depth-- }
}

// body reads statements to a block that begins with one of ends, which it leaves there, after its {%.
func (p *parser) body(ends ...string) (list []stmt) {
	defer p.deeper()()
	for p.err == nil {
		switch t := p.next(); {
		case t.kind == kindEOF:
			if len(ends) > 0 {
				p.fail(syntax(t.line, "the template ends where %q is wanted", ends[0]))
			}
			return list
		case t.kind == kindText:
			list = append(list, textStmt{t.text})
		case t.text == "{{":
			list = append(list, outputStmt{p.tuple()})
			p.want(kindEnd, "}}")
		default:
			if p.is(kindName, ends...) {
				return list
			}
			if s := p.block(); s != nil {
				list = append(list, s)
			}
		}
	}
	return list
}

func (p *parser) close(words ...string) {
	for _, w := range words {
		p.want(kindName, w)
	}
	p.want(kindEnd, "%}")
}

func (p *parser) block() stmt {
	t := p.next()
	if t.kind != kindName {
		p.fail(syntax(t.line, "%v where a statement is wanted", t))
		return nil
	}
	switch t.text {
	case "if":
		return p.ifBlock()
	case "for":
		return p.forBlock(t.line)
	case "set":
		return p.setBlock(t.line)
	case "macro":
		return p.macroBlock()
	case "with":
		return p.withBlock(t.line)
	case "filter":
		f := p.filters(nil)
		p.close()
		s := filterStmt{f, p.body("endfilter")}
		p.close("endfilter")
		return s
	case "generation":
		p.close()
		s := blockStmt{p.body("endgeneration")}
		p.close("endgeneration")
		return s
	case "break", "continue":
		if p.loops == 0 {
			p.fail(syntax(t.line, "%s outside of a loop", t.text))
		}
		p.close()
		return jumpStmt{map[string]flow{"break": flowBreak, "continue": flowContinue}[t.text]}
	case "include", "import", "from", "extends", "block", "call", "do", "autoescape", "trans":
		p.fail(unsupported(t.line, "%s", t.text))
	default:
		p.fail(syntax(t.line, "the statement %v", t))
	}
	return nil
}

func (p *parser) ifBlock() stmt {
	p.ifs++
	defer func() { p.ifs-- }()
	s := ifStmt{test: p.expression()}
	p.close()
	s.then = p.body("elif", "else", "endif")
	switch {
	case p.word("elif"):
		leave := p.deeper()
		if next := p.ifBlock(); next != nil {
			s.otherwise = []stmt{next}
		}
		leave()
		return s
	case p.word("else"):
		p.close()
		s.otherwise = p.body("endif")
	}
	p.close("endif")
	return s
}

func (p *parser) forBlock(line int) stmt {
	s := forStmt{target: p.targets(), line: line}
	p.want(kindName, "in")
	s.over = p.withoutCondition()
	if p.word("if") {
		s.filter = p.expression()
	}
	if p.is(kindName, "recursive") {
		p.fail(unsupported(line, "a recursive loop"))
	}
	p.close()
	p.loops++
	s.body = p.body("else", "endfor")
	p.loops--
	if p.word("else") {
		p.close()
		s.otherwise = p.body("endfor")
	}
	p.close("endfor")
	return s
}

// targets reads a, b or (a, b).
func (p *parser) targets() (t target) {
	bracket := p.op("(")
	for {
		t.names = append(t.names, p.name())
		if !p.op(",") || p.is(kindOp, ")") || p.is(kindName, "in") {
			break
		}
	}
	if bracket {
		p.want(kindOp, ")")
	}
	if len(t.names) == 1 && p.op(".") {
		t.attr = p.name()
	}
	for _, n := range t.names {
		if t.attr == "" && slices.Contains([]string{"true", "false", "none", "True", "False", "None", "loop"}, n) {
			p.fail(syntax(p.peek().line, "an assignment to %s", n))
		}
	}
	return t
}

func (p *parser) setBlock(line int) stmt {
	s := setStmt{target: p.targets(), line: line}
	if p.op("=") {
		s.to = p.tuple()
		p.close()
		return s
	}
	if p.is(kindOp, "|") {
		s.filter = p.filters(nil)
	}
	p.close()
	s.body = p.body("endset")
	p.close("endset")
	return s
}

func (p *parser) macroBlock() stmt {
	s := macroStmt{name: p.name()}
	p.want(kindOp, "(")
	for !p.op(")") && p.err == nil {
		s.params = append(s.params, p.name())
		if p.op("=") {
			s.defaults = append(s.defaults, p.expression())
		} else if len(s.defaults) > 0 {
			p.fail(syntax(p.peek().line, "a parameter without default after one with"))
		}
		if !p.op(",") && !p.is(kindOp, ")") {
			p.want(kindOp, ")")
		}
	}
	p.close()
	loops := p.loops
	p.loops = 0
	s.body = p.body("endmacro")
	p.loops = loops
	p.close("endmacro")
	return s
}

func (p *parser) withBlock(line int) stmt {
	s := withStmt{line: line}
	for !p.is(kindEnd, "%}") && p.err == nil {
		s.targets = append(s.targets, target{names: []string{p.name()}})
		p.want(kindOp, "=")
		s.values = append(s.values, p.expression())
		if !p.op(",") {
			break
		}
	}
	p.close()
	s.body = p.body("endwith")
	p.close("endwith")
	return s
}
