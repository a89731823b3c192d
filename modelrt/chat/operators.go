package chat

import (
	"math"
	"strings"
)

func (x unaryExpr) eval(e *run, s *scope) value {
	v := e.eval(x.of, s)
	if x.op == "not" {
		return !truth(v)
	}
	f, n, whole, ok := number(v)
	switch {
	case !ok:
		e.fail(x.line, "%s before %s", x.op, typeName(v))
	case x.op == "-" && whole:
		return -n
	case x.op == "-":
		return -f
	case whole:
		return n
	}
	return f
}

func (x compareExpr) eval(e *run, s *scope) value {
	left := e.eval(x.first, s)
	for i, op := range x.ops {
		right := e.eval(x.rest[i], s)
		if !e.compare(x.line, op, left, right) {
			return false
		}
		left = right
	}
	return true
}

// read counts what it takes to look at a string.
func (e *run) read(v value) {
	if s, ok := v.(string); ok {
		e.step(len(s) / 16)
	}
}

func (e *run) compare(line int, op string, a, b value) bool {
	e.read(a)
	switch op {
	case "==":
		return e.equal(a, b)
	case "!=":
		return !e.equal(a, b)
	case "<":
		return e.less(line, a, b)
	case ">":
		return e.less(line, b, a)
	case "<=":
		return e.less(line, a, b) || e.equal(a, b)
	case ">=":
		return e.less(line, b, a) || e.equal(a, b)
	case "not in":
		return !e.contains(line, b, a)
	}
	return e.contains(line, b, a)
}

func (e *run) contains(line int, in, v value) bool {
	switch in := in.(type) {
	case string:
		s, ok := v.(string)
		if !ok {
			e.fail(line, "%s within a string", typeName(v))
		}
		e.step(len(in) / 16)
		return strings.Contains(in, s)
	case *dict:
		s, ok := v.(string)
		_, there := in.values[s]
		return ok && there
	case *list:
		for _, x := range in.items {
			if e.equal(x, v) {
				return true
			}
		}
		return false
	case undefined:
		return false
	}
	e.fail(line, "nothing is within %s", typeName(in))
	return false
}

func (x binaryExpr) eval(e *run, s *scope) value {
	left := e.eval(x.left, s)
	switch x.op {
	case "and":
		if !truth(left) {
			return left
		}
		return e.eval(x.right, s)
	case "or":
		if truth(left) {
			return left
		}
		return e.eval(x.right, s)
	}
	right := e.eval(x.right, s)
	if x.op == "~" {
		a, b := e.str(left), e.str(right)
		e.make(len(a) + len(b))
		return a + b
	}
	switch a := left.(type) {
	case string:
		switch b, ok := right.(string); {
		case ok && x.op == "+":
			e.make(len(a) + len(b))
			return a + b
		case x.op == "*":
			return e.repeat(x.line, a, right)
		}
	case *list:
		switch b, ok := right.(*list); {
		case ok && x.op == "+" && a.tuple == b.tuple:
			e.make(16 * (len(a.items) + len(b.items)))
			return &list{append(append([]value{}, a.items...), b.items...), a.tuple}
		case x.op == "*":
			_, n, whole, ok := number(right)
			if !ok || !whole {
				break
			}
			items := &list{tuple: a.tuple}
			for ; n > 0 && len(a.items) > 0; n-- {
				e.make(16 * len(a.items))
				items.items = append(items.items, a.items...)
			}
			return items
		}
	}
	if b, ok := right.(string); ok && x.op == "*" {
		return e.repeat(x.line, b, left)
	}
	return e.arithmetic(x, left, right)
}

func (e *run) repeat(line int, s string, times value) value {
	_, n, whole, ok := number(times)
	if !ok || !whole {
		e.fail(line, "a string times %s", typeName(times))
	}
	if n <= 0 || s == "" {
		return ""
	}
	if n > maxMade {
		e.make(maxMade + 1)
	}
	e.make(len(s) * int(n))
	return strings.Repeat(s, int(n))
}

func (e *run) arithmetic(x binaryExpr, left, right value) value {
	a, an, aw, ok1 := number(left)
	b, bn, bw, ok2 := number(right)
	if !ok1 || !ok2 {
		e.fail(x.line, "%s %s %s", typeName(left), x.op, typeName(right))
	}
	whole := aw && bw
	if (x.op == "/" || x.op == "//" || x.op == "%") && b == 0 {
		e.fail(x.line, "a division by 0")
	}
	var f float64
	var n int64
	switch x.op {
	case "+":
		f, n = a+b, an+bn
	case "-":
		f, n = a-b, an-bn
	case "*":
		f, n = a*b, an*bn
	case "/":
		return a / b
	case "//":
		f = math.Floor(a / b)
		if whole {
			if n = an / bn; (an%bn != 0) && (an < 0) != (bn < 0) {
				n--
			}
		}
	case "%":
		if f = math.Mod(a, b); f != 0 && (f < 0) != (b < 0) {
			f += b
		}
		if whole {
			if n = an % bn; n != 0 && (n < 0) != (bn < 0) {
				n += bn
			}
		}
	case "**":
		f = math.Pow(a, b)
		if n = int64(f); bn < 0 {
			whole = false
		}
	}
	if !whole {
		return f
	}
	if math.Abs(f) > 1<<53 {
		e.fail(x.line, "a number beyond 2 to the 53rd")
	}
	return n
}
