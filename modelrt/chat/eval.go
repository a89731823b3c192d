package chat

import (
	"math"
	"strings"
	"unicode/utf8"
)

func (e *run) eval(x expr, s *scope) value {
	e.step(1)
	return x.eval(e, s)
}

func (x literal) eval(*run, *scope) value { return x.v }

func (x nameExpr) eval(_ *run, s *scope) value {
	if v, ok := s.get(x.name); ok {
		return v
	}
	if f, ok := globals[x.name]; ok {
		return f
	}
	return undefined{x.name}
}

func (e *run) values(list []expr, s *scope) []value {
	e.make(16 * len(list))
	values := make([]value, len(list))
	for i, x := range list {
		values[i] = e.eval(x, s)
	}
	return values
}

func (x listExpr) eval(e *run, s *scope) value  { return &list{items: e.values(x.items, s)} }
func (x tupleExpr) eval(e *run, s *scope) value { return &list{e.values(x.items, s), true} }

func (x dictExpr) eval(e *run, s *scope) value {
	d := newDict()
	for i, k := range x.keys {
		key, ok := e.eval(k, s).(string)
		if !ok {
			e.fail(0, "a key that is no string")
		}
		e.make(64)
		d.set(key, e.eval(x.values[i], s))
	}
	return d
}

func (x attrExpr) eval(e *run, s *scope) value {
	of := e.eval(x.of, s)
	if m := method(of, x.name); m != nil {
		return m
	}
	return e.attribute(of, x.name, x.line)
}

// attribute is what a name after a dot means, but for methods.
func (e *run) attribute(of value, name string, line int) value {
	switch v := of.(type) {
	case undefined:
		e.fail(line, "%s is undefined, so it has no %s", v.what, name)
	case *dict:
		if x, ok := v.values[name]; ok {
			return x
		}
	case *namespace:
		if x, ok := v.values[name]; ok {
			return x
		}
	case *loop:
		return v.attribute(name)
	}
	return undefined{name}
}

func (l *loop) attribute(name string) value {
	n := len(l.items)
	switch name {
	case "index":
		return int64(l.at + 1)
	case "index0":
		return int64(l.at)
	case "revindex":
		return int64(n - l.at)
	case "revindex0":
		return int64(n - l.at - 1)
	case "first":
		return l.at == 0
	case "last":
		return l.at == n-1
	case "length":
		return int64(n)
	case "depth":
		return int64(1)
	case "depth0":
		return int64(0)
	case "previtem":
		if l.at > 0 {
			return l.items[l.at-1]
		}
	case "nextitem":
		if l.at < n-1 {
			return l.items[l.at+1]
		}
	case "cycle":
		return function(func(e *run, line int, args []value, _ map[string]value) value {
			if len(args) == 0 {
				e.fail(line, "cycle of nothing")
			}
			return args[l.at%len(args)]
		})
	case "changed":
		return function(func(e *run, _ int, args []value, _ map[string]value) value {
			now := value(&list{items: args})
			if l.asked && e.equal(l.last, now) {
				return false
			}
			l.last, l.asked = now, true
			return true
		})
	}
	return undefined{"loop." + name}
}

func (x itemExpr) eval(e *run, s *scope) value {
	of, key := e.eval(x.of, s), e.eval(x.key, s)
	switch v := of.(type) {
	case undefined:
		e.fail(x.line, "%s is undefined, so nothing is in it", v.what)
	case *list:
		if n, ok := position(key, len(v.items)); ok {
			return v.items[n]
		}
	case string:
		if n, ok := position(key, utf8.RuneCountInString(v)); ok {
			e.step(len(v) / 16)
			return string([]rune(v)[n])
		}
	}
	if name, ok := key.(string); ok {
		if v := e.attribute(of, name, x.line); v != (undefined{name}) {
			return v
		}
		if m := method(of, name); m != nil {
			return m
		}
	}
	return undefined{"an item"}
}

// position is an index from either end.
func position(key value, n int) (int, bool) {
	_, i, whole, ok := number(key)
	if i < 0 {
		i += int64(n)
	}
	return int(i), ok && whole && i >= 0 && i < int64(n)
}

func (x sliceExpr) eval(e *run, s *scope) value {
	of := e.eval(x.of, s)
	bound := func(b expr, absent int64) int64 {
		if b == nil {
			return absent
		}
		v := e.eval(b, s)
		if v == nil {
			return absent
		}
		_, n, whole, ok := number(v)
		if !ok || !whole {
			e.fail(x.line, "a slice by %s", typeName(v))
		}
		return n
	}
	var items []value
	switch v := of.(type) {
	case *list:
		items = v.items
	case string:
		items = e.items(x.line, v)
	default:
		e.fail(x.line, "a slice of %s", typeName(of))
	}
	n := int64(len(items))
	step := bound(x.step, 1)
	if step == 0 {
		e.fail(x.line, "a slice in steps of 0")
	}
	const absent = math.MinInt64
	low, high := int64(0), n
	if step < 0 {
		low, high = -1, n-1
	}
	clamp := func(i, otherwise int64) int64 {
		if i == absent {
			return otherwise
		}
		if i < 0 {
			i += n
		}
		return min(max(i, low), high)
	}
	from, to := bound(x.from, absent), bound(x.to, absent)
	if step > 0 {
		from, to = clamp(from, 0), clamp(to, n)
	} else {
		from, to = clamp(from, n-1), clamp(to, -1)
	}
	e.make(16 * len(items))
	var cut []value
	for i := from; step > 0 && i < to || step < 0 && i > to; i += step {
		cut = append(cut, items[i])
		if step > n || step < -n {
			break
		}
	}
	l, ok := of.(*list)
	if ok {
		return &list{cut, l.tuple}
	}
	var b strings.Builder
	for _, c := range cut {
		b.WriteString(c.(string))
	}
	return b.String()
}

func (a arguments) eval(e *run, s *scope) ([]value, map[string]value) {
	var named map[string]value
	for i, n := range a.names {
		if named == nil {
			named = map[string]value{}
		}
		named[n] = e.eval(a.named[i], s)
	}
	return e.values(a.args, s), named
}

func (x callExpr) eval(e *run, s *scope) value {
	f, ok := e.eval(x.of, s).(function)
	if !ok {
		e.fail(x.line, "a call of what is no function or method known here")
	}
	args, named := x.args.eval(e, s)
	return f(e, x.line, args, named)
}

func (x *filterExpr) eval(e *run, s *scope) value { return e.apply(x, e.eval(x.of, s), s) }

func (e *run) apply(x *filterExpr, v value, s *scope) value {
	args, named := x.args.eval(e, s)
	e.read(v)
	if filters[x.name] == nil {
		panic(failure{unsupported(x.line, "the filter %.40q", x.name)})
	}
	return filters[x.name](e, call{v, args, named, x.line, x.name})
}

// filter applies the chain of filters of a block to its text.
func (e *run) filter(x *filterExpr, v value, s *scope) value {
	if inner, ok := x.of.(*filterExpr); ok {
		v = e.filter(inner, v, s)
	}
	return e.apply(x, v, s)
}

func (x testExpr) eval(e *run, s *scope) value {
	args, named := x.args.eval(e, s)
	v := e.eval(x.of, s)
	e.read(v)
	if tests[x.name] == nil {
		panic(failure{unsupported(x.line, "the test %.40q", x.name)})
	}
	return truth(tests[x.name](e, call{v, args, named, x.line, x.name})) != x.negate
}

func (x condExpr) eval(e *run, s *scope) value {
	switch {
	case truth(e.eval(x.test, s)):
		return e.eval(x.then, s)
	case x.otherwise == nil:
		return undefined{"an else that is not there"}
	}
	return e.eval(x.otherwise, s)
}
