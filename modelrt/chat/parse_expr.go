package chat

import (
	"math"
	"slices"
	"strconv"
)

// tuple reads one expression, or several with commas.
func (p *parser) tuple() expr {
	first := p.expression()
	if !p.is(kindOp, ",") {
		return first
	}
	items := []expr{first}
	for p.op(",") && !p.is(kindEnd, "%}", "}}") && !p.is(kindOp, ")") {
		items = append(items, p.expression())
	}
	return tupleExpr{items}
}

func (p *parser) expression() expr {
	defer p.deeper()()
	left := p.or()
	for p.word("if") {
		c := condExpr{then: left, test: p.or()}
		if p.word("else") {
			c.otherwise = p.expression()
		}
		left = c
	}
	return left
}

func (p *parser) withoutCondition() expr {
	first := p.or()
	if !p.is(kindOp, ",") {
		return first
	}
	items := []expr{first}
	for p.op(",") {
		items = append(items, p.or())
	}
	return tupleExpr{items}
}

func (p *parser) chain(sub func() expr, k kind, ops ...string) expr {
	left := sub()
	for p.is(k, ops...) && p.err == nil {
		t := p.next()
		left = binaryExpr{t.text, left, sub(), t.line}
	}
	return left
}

func (p *parser) or() expr  { return p.chain(p.and, kindName, "or") }
func (p *parser) and() expr { return p.chain(p.not, kindName, "and") }

func (p *parser) not() expr {
	if t := p.peek(); p.word("not") {
		defer p.deeper()()
		return unaryExpr{"not", p.not(), t.line}
	}
	return p.compare()
}

func (p *parser) compare() expr {
	c := compareExpr{first: p.sum(), line: p.peek().line}
	for p.err == nil {
		op := ""
		switch {
		case p.is(kindOp, "==", "!=", "<", "<=", ">", ">="):
			op = p.next().text
		case p.word("in"):
			op = "in"
		case p.is(kindName, "not") && len(p.in) > 1 && p.in[1].kind == kindName && p.in[1].text == "in":
			p.next()
			p.next()
			op = "not in"
		}
		if op == "" {
			break
		}
		c.ops, c.rest = append(c.ops, op), append(c.rest, p.sum())
	}
	if len(c.ops) == 0 {
		return c.first
	}
	return c
}

func (p *parser) sum() expr     { return p.chain(p.concat, kindOp, "+", "-") }
func (p *parser) concat() expr  { return p.chain(p.product, kindOp, "~") }
func (p *parser) product() expr { return p.chain(p.power, kindOp, "*", "/", "//", "%") }
func (p *parser) power() expr   { return p.chain(func() expr { return p.unary(true) }, kindOp, "**") }

func (p *parser) unary(filters bool) expr {
	defer p.deeper()()
	var x expr
	switch t := p.peek(); {
	case p.op("-"), p.op("+"):
		x = unaryExpr{t.text, p.unary(false), t.line}
	default:
		x = p.primary()
	}
	x = p.postfix(x)
	for filters && p.err == nil {
		switch {
		case p.is(kindOp, "|"):
			x = p.filters(x)
		case p.is(kindName, "is"):
			x = p.test(x)
		case p.is(kindOp, "("):
			x = p.call(x)
		default:
			return x
		}
	}
	return x
}

func (p *parser) primary() expr {
	t := p.next()
	switch t.kind {
	case kindName:
		switch t.text {
		case "true", "True":
			return literal{true}
		case "false", "False":
			return literal{false}
		case "none", "None":
			return literal{nil}
		}
		return nameExpr{t.text}
	case kindString:
		for p.peek().kind == kindString {
			t.text += p.next().text
		}
		return literal{t.text}
	case kindInt:
		n, err := strconv.ParseInt(t.text, 10, 64)
		if err != nil {
			p.fail(syntax(t.line, "the number %v", t))
		}
		return literal{n}
	case kindFloat:
		f, err := strconv.ParseFloat(t.text, 64)
		if err != nil || math.IsInf(f, 0) {
			p.fail(syntax(t.line, "the number %v", t))
		}
		return literal{f}
	case kindOp:
		switch t.text {
		case "(":
			if p.op(")") {
				return tupleExpr{}
			}
			x := p.tuple()
			p.want(kindOp, ")")
			return x
		case "[":
			return listExpr{p.items("]")}
		case "{":
			return p.dict()
		}
	}
	p.fail(syntax(t.line, "%v where an expression is wanted", t))
	return literal{nil}
}

func (p *parser) items(end string) (items []expr) {
	for !p.op(end) && p.err == nil {
		items = append(items, p.expression())
		if !p.op(",") && !p.is(kindOp, end) {
			p.want(kindOp, end)
		}
	}
	return items
}

func (p *parser) dict() expr {
	var d dictExpr
	for !p.op("}") && p.err == nil {
		d.keys = append(d.keys, p.expression())
		p.want(kindOp, ":")
		d.values = append(d.values, p.expression())
		if !p.op(",") && !p.is(kindOp, "}") {
			p.want(kindOp, "}")
		}
	}
	return d
}

func (p *parser) postfix(x expr) expr {
	for p.err == nil {
		switch t := p.peek(); {
		case p.op("."):
			if n := p.peek(); n.kind == kindInt {
				p.next()
				i, _ := strconv.ParseInt(n.text, 10, 64)
				x = itemExpr{x, literal{i}, t.line}
			} else {
				x = attrExpr{x, p.name(), t.line}
			}
		case p.op("["):
			x = p.subscript(x, t.line)
		case p.is(kindOp, "("):
			x = p.call(x)
		default:
			return x
		}
	}
	return x
}

func (p *parser) subscript(x expr, line int) expr {
	var parts [3]expr
	n := 0
	for p.err == nil {
		switch {
		case p.op("]"):
			if n == 0 {
				if parts[0] == nil {
					p.fail(syntax(line, "[] without index"))
				}
				return itemExpr{x, parts[0], line}
			}
			return sliceExpr{x, parts[0], parts[1], parts[2], line}
		case p.op(":"):
			if n++; n > 2 {
				p.fail(syntax(line, "a slice of four"))
				return x
			}
		default:
			if parts[n] != nil {
				p.fail(syntax(line, "%v in an index", p.peek()))
				return x
			}
			parts[n] = p.expression()
		}
	}
	return x
}

func (p *parser) call(x expr) expr {
	line := p.next().line
	return callExpr{x, p.arguments(), line}
}

// arguments are read after the opening bracket.
func (p *parser) arguments() (a arguments) {
	for !p.op(")") && p.err == nil {
		if t := p.peek(); t.kind == kindName && len(p.in) > 1 && p.in[1].kind == kindOp && p.in[1].text == "=" {
			p.next()
			p.next()
			a.names, a.named = append(a.names, t.text), append(a.named, p.expression())
		} else if p.is(kindOp, "*", "**") {
			p.fail(unsupported(t.line, "arguments from a list"))
		} else {
			if len(a.names) > 0 {
				p.fail(syntax(t.line, "an argument without name after one with"))
			}
			a.args = append(a.args, p.expression())
		}
		if !p.op(",") && !p.is(kindOp, ")") {
			p.want(kindOp, ")")
		}
	}
	return a
}

// filters reads |name(..)|name, or for a filter block the first name without its stroke.
func (p *parser) filters(x expr) *filterExpr {
	var f *filterExpr
	for p.err == nil && (p.op("|") || f == nil) {
		t := p.peek()
		f = &filterExpr{of: x, name: p.name(), line: t.line}
		if filters[f.name] == nil && p.ifs == 0 && p.err == nil {
			p.fail(unsupported(t.line, "the filter %v", t))
		}
		if p.op("(") {
			f.args = p.arguments()
		}
		x = f
	}
	if f == nil {
		f = &filterExpr{}
	}
	return f
}

func (p *parser) test(x expr) expr {
	line := p.next().line
	t := testExpr{of: x, negate: p.word("not"), line: line}
	if !slices.Contains([]kind{kindName, kindOp}, p.peek().kind) {
		p.fail(syntax(line, "%v where a test is wanted", p.peek()))
		return x
	}
	t.name = p.next().text
	if tests[t.name] == nil && p.ifs == 0 && p.err == nil {
		p.fail(unsupported(line, "the test %q", t.name))
	}
	switch next := p.peek(); {
	case p.op("("):
		t.args = p.arguments()
	case next.kind == kindString, next.kind == kindInt, next.kind == kindFloat, p.is(kindOp, "[", "{"),
		next.kind == kindName && !slices.Contains([]string{"else", "or", "and", "is", "if", "not", "in"}, next.text):
		t.args.args = []expr{p.postfix(p.primary())}
	}
	return t
}
