package chat

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"chatxray/pipeline"
)

// maxRange is Jinja's own limit in its sandbox.
const maxRange = 100_000

var globals map[string]function

func init() {
	globals = map[string]function{
		"range":           rangeOf,
		"raise_exception": raise,
		"strftime_now":    strftimeNow,
		"namespace": func(e *run, line int, args []value, named map[string]value) value {
			n := &namespace{map[string]value{}}
			for _, a := range args {
				d, ok := a.(*dict)
				if !ok {
					e.fail(line, "namespace of %s", typeName(a))
				}
				for k, v := range d.values {
					n.values[k] = v
				}
			}
			for k, v := range named {
				n.values[k] = v
			}
			return n
		},
		"dict": func(e *run, line int, args []value, named map[string]value) value {
			d := newDict()
			for _, a := range args {
				from, ok := a.(*dict)
				if !ok {
					e.fail(line, "dict of %s", typeName(a))
				}
				e.make(64 * len(from.keys))
				for _, k := range from.keys {
					d.set(k, from.values[k])
				}
			}
			for _, k := range slices.Sorted(keysOf(named)) {
				d.set(k, named[k])
			}
			return d
		},
	}
}

func keysOf(m map[string]value) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func rangeOf(e *run, line int, args []value, named map[string]value) value {
	bounds := [3]int64{0, 0, 1}
	if len(args) < 1 || len(args) > 3 || len(named) > 0 {
		e.fail(line, "range with %d arguments", len(args))
	}
	for i, a := range args {
		_, n, whole, ok := number(a)
		if !ok || !whole || n > 1<<53 || n < -1<<53 {
			e.fail(line, "range of %s", typeName(a))
		}
		bounds[i] = n
	}
	if len(args) == 1 {
		bounds[0], bounds[1] = 0, bounds[0]
	}
	from, to, step := bounds[0], bounds[1], bounds[2]
	if step == 0 {
		e.fail(line, "range in steps of 0")
	}
	n := int64(0)
	switch {
	case step > 0 && to > from:
		n = (to-from-1)/step + 1
	case step < 0 && to < from:
		n = (from-to-1)/-step + 1
	}
	if n > maxRange {
		e.fail(line, "range of %d numbers; the limit is %d", n, maxRange)
	}
	e.make(16 * int(n))
	l := &list{items: make([]value, n)}
	for i := range n {
		l.items[i] = from + i*step
	}
	return l
}

// raise ends the rendering with the template's own words, which tell a caller what is wrong with the chat.
func raise(e *run, line int, args []value, _ map[string]value) value {
	message := ""
	if len(args) > 0 {
		message = e.str(args[0])
	}
	panic(failure{fmt.Errorf("%w: the chat template refuses this chat: %.200s", pipeline.ErrInvalid, message)})
}

// strftimeNow is Python's datetime.now().strftime() of the clock that the rendering was given.
func strftimeNow(e *run, line int, args []value, _ map[string]value) value {
	if len(args) != 1 {
		e.fail(line, "strftime_now with %d arguments", len(args))
	}
	format := e.str(args[0])
	layouts := map[byte]string{
		'd': "02", 'm': "01", 'Y': "2006", 'y': "06", 'b': "Jan", 'B': "January", 'a': "Mon", 'A': "Monday", 'H': "15", 'I': "03", 'M': "04", 'S': "05", 'p': "PM",
		'j': "002", 'F': "2006-01-02", 'T': "15:04:05", 'D': "01/02/06", 'R': "15:04", 'f': "",
	}
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			b.WriteByte(format[i])
			continue
		}
		i++
		short := format[i] == '-' && i+1 < len(format)
		if short {
			i++
		}
		layout, ok := layouts[format[i]]
		switch {
		case format[i] == '%':
			b.WriteByte('%')
		case !ok:
			e.fail(line, "strftime_now with %%%c", format[i])
		case format[i] == 'f':
			fmt.Fprintf(&b, "%06d", e.now.Nanosecond()/int(time.Microsecond))
		case short:
			s := strings.TrimLeft(e.now.Format(layout), "0")
			if s == "" {
				s = "0"
			}
			b.WriteString(s)
		default:
			b.WriteString(e.now.Format(layout))
		}
	}
	e.make(b.Len())
	return b.String()
}

// call is a filter or a test at work.
type call struct {
	of    value
	args  []value
	named map[string]value
	line  int
	name  string
}

// arg is the argument at a place or of a name, or otherwise.
func (c call) arg(i int, name string, otherwise value) value {
	if i < len(c.args) {
		return c.args[i]
	}
	if v, ok := c.named[name]; ok {
		return v
	}
	return otherwise
}

func (c call) text(e *run, i int, name, otherwise string) string {
	s, ok := c.arg(i, name, otherwise).(string)
	if !ok {
		e.fail(c.line, "%s: %s is no string", c.name, name)
	}
	return s
}

func (c call) int(e *run, i int, name string, otherwise int64) int64 {
	_, n, whole, ok := number(c.arg(i, name, otherwise))
	if !ok || !whole {
		e.fail(c.line, "%s: %s is no number", c.name, name)
	}
	return n
}

var tests map[string]func(e *run, c call) value

func init() {
	type f = func(e *run, c call) value
	typed := func(is func(v value) bool) f { return func(_ *run, c call) value { return is(c.of) } }
	isInt := func(v value) bool { _, ok := v.(int64); return ok }
	isFloat := func(v value) bool { _, ok := v.(float64); return ok }
	compared := func(op string) f {
		return func(e *run, c call) value {
			if len(c.args) != 1 {
				e.fail(c.line, "the test %s without the one argument", c.name)
			}
			return e.compare(c.line, op, c.of, c.args[0])
		}
	}
	remainder := func(e *run, c call, by, want int64) value {
		_, n, whole, ok := number(c.of)
		if !ok || !whole || by == 0 {
			e.fail(c.line, "the test %s of %s", c.name, typeName(c.of))
		}
		return ((n%by)+by)%by == want
	}
	isUndefined := func(v value) bool { _, ok := v.(undefined); return ok }
	cased := func(change func(string) string) f {
		return func(e *run, c call) value {
			s := e.str(c.of)
			return change(s) == s && strings.ContainsFunc(s, func(r rune) bool { return unicode.IsUpper(r) || unicode.IsLower(r) })
		}
	}
	tests = map[string]f{
		"defined":   typed(func(v value) bool { return !isUndefined(v) }),
		"undefined": typed(isUndefined),
		"none":      typed(func(v value) bool { return v == nil }),
		"string":    typed(func(v value) bool { _, ok := v.(string); return ok }),
		"mapping":   typed(func(v value) bool { _, ok := v.(*dict); return ok }),
		"number":    typed(func(v value) bool { _, _, _, ok := number(v); return ok }),
		"integer":   typed(isInt),
		"float":     typed(isFloat),
		"boolean":   typed(func(v value) bool { _, ok := v.(bool); return ok }),
		"filter": typed(func(v value) bool {
			s, ok := v.(string)
			return ok && filters[s] != nil
		}),
		"true":     typed(func(v value) bool { return v == true }),
		"false":    typed(func(v value) bool { return v == false }),
		"callable": typed(func(v value) bool { _, ok := v.(function); return ok || isUndefined(v) }), // as in Jinja
		"iterable": typed(iterable),
		"sequence": typed(iterable),
		"odd":      func(e *run, c call) value { return remainder(e, c, 2, 1) },
		"even":     func(e *run, c call) value { return remainder(e, c, 2, 0) },
		"divisibleby": func(e *run, c call) value {
			return remainder(e, c, c.int(e, 0, "num", 0), 0)
		},
		"upper": cased(strings.ToUpper), "lower": cased(strings.ToLower),
		"sameas": compared("=="), "in": compared("in"),
	}
	for op, names := range map[string][]string{"==": {"eq", "equalto"}, "!=": {"ne"}, "<": {"lt", "lessthan"}, "<=": {"le"}, ">": {"gt", "greaterthan"}, ">=": {"ge"}} {
		for _, n := range names {
			tests[n] = compared(op)
		}
	}
}

func iterable(v value) bool {
	switch v.(type) {
	case string, *list, *dict, undefined:
		return true
	}
	return false
}

// method is a method of a string, list or mapping; nil where there is none of that name.
func method(of value, name string) value {
	switch v := of.(type) {
	case string:
		if m := stringMethods[name]; m != nil {
			return function(func(e *run, line int, args []value, named map[string]value) value {
				e.step(len(v) / 16)
				return m(e, call{v, args, named, line, name})
			})
		}
	case *list:
		if m := listMethods[name]; m != nil {
			return function(func(e *run, line int, args []value, named map[string]value) value {
				return m(e, call{v, args, named, line, name})
			})
		}
	case *dict:
		if m := dictMethods[name]; m != nil {
			return function(func(e *run, line int, args []value, named map[string]value) value {
				return m(e, call{v, args, named, line, name})
			})
		}
	}
	return nil
}

var listMethods = map[string]func(e *run, c call) value{
	"index": func(e *run, c call) value {
		for i, v := range c.of.(*list).items {
			if e.equal(v, c.arg(0, "", nil)) {
				return int64(i)
			}
		}
		e.fail(c.line, "index of what is not in the list")
		return nil
	},
	"count": func(e *run, c call) value {
		n := int64(0)
		for _, v := range c.of.(*list).items {
			if e.equal(v, c.arg(0, "", nil)) {
				n++
			}
		}
		return n
	},
}

var dictMethods = map[string]func(e *run, c call) value{
	"get": func(e *run, c call) value {
		key, _ := c.arg(0, "key", nil).(string)
		if v, ok := c.of.(*dict).values[key]; ok {
			return v
		}
		return c.arg(1, "default", nil)
	},
	"items": func(e *run, c call) value { return pairs(e, c.of.(*dict)) },
	"keys":  func(e *run, c call) value { return &list{items: e.items(c.line, c.of)} },
	"values": func(e *run, c call) value {
		d := c.of.(*dict)
		e.make(16 * len(d.keys))
		l := &list{}
		for _, k := range d.keys {
			l.items = append(l.items, d.values[k])
		}
		return l
	},
	"copy": func(_ *run, c call) value { return c.of },
}

func pairs(e *run, d *dict) *list {
	e.make(64 * len(d.keys))
	l := &list{}
	for _, k := range d.keys {
		l.items = append(l.items, &list{[]value{k, d.values[k]}, true})
	}
	return l
}
