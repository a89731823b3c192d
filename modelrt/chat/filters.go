package chat

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

var filters map[string]func(e *run, c call) value

func init() {
	type f = func(e *run, c call) value
	text := func(change func(string) string) f {
		return func(e *run, c call) value {
			s := e.str(c.of)
			e.make(2 * len(s))
			return change(s)
		}
	}
	filters = map[string]f{
		"upper": text(strings.ToUpper), "lower": text(strings.ToLower), "capitalize": text(capital), "title": text(titled),
		"trim": func(e *run, c call) value {
			c.of = e.str(c.of)
			return stripped(e, c, true, true)
		},
		"string": func(e *run, c call) value { return e.str(c.of) },
		"safe":   func(e *run, c call) value { return c.of },
		"escape": text(strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "'", "&#39;", `"`, "&#34;").Replace),
		"length": length,
		"replace": func(e *run, c call) value {
			return replaced(e, c)
		},
		"default": func(e *run, c call) value {
			_, missing := c.of.(undefined)
			if missing || truth(c.arg(1, "boolean", false)) && !truth(c.of) {
				return c.arg(0, "default_value", "")
			}
			return c.of
		},
		"first": func(e *run, c call) value { return end(e, c, 0) },
		"last":  func(e *run, c call) value { return end(e, c, -1) },
		"list": func(e *run, c call) value {
			items := e.items(c.line, c.of)
			e.make(16 * len(items))
			return &list{items: slices.Clone(items)}
		},
		"reverse": func(e *run, c call) value {
			items := slices.Clone(e.items(c.line, c.of))
			e.make(16 * len(items))
			slices.Reverse(items)
			if _, ok := c.of.(string); ok {
				return joined(e, c, items, "")
			}
			return &list{items: items}
		},
		"join": func(e *run, c call) value {
			items := e.items(c.line, c.of)
			if name := c.arg(1, "attribute", nil); name != nil {
				items = e.each(items, func(v value) value { return e.path(c.line, v, name) })
			}
			return joined(e, c, items, c.text(e, 0, "d", ""))
		},
		"items": func(e *run, c call) value {
			switch v := c.of.(type) {
			case *dict:
				return pairs(e, v)
			case undefined:
				return &list{}
			}
			e.fail(c.line, "items of %s", typeName(c.of))
			return nil
		},
		"dictsort": func(e *run, c call) value {
			d, ok := c.of.(*dict)
			if !ok {
				e.fail(c.line, "dictsort of %s", typeName(c.of))
			}
			c.of = pairs(e, d)
			return sorted(e, c, func(v value) value { return fold(v.(*list).items[0], false) })
		},
		"sort": func(e *run, c call) value {
			cased := truth(c.arg(1, "case_sensitive", false))
			name := c.arg(2, "attribute", nil)
			c.of = &list{items: e.items(c.line, c.of)}
			return sorted(e, c, func(v value) value {
				if name != nil {
					v = e.path(c.line, v, name)
				}
				return fold(v, cased)
			})
		},
		"unique": unique,
		"map":    mapped,
		"select": func(e *run, c call) value { return chosen(e, c, true, false) }, "reject": func(e *run, c call) value { return chosen(e, c, false, false) },
		"selectattr": func(e *run, c call) value { return chosen(e, c, true, true) }, "rejectattr": func(e *run, c call) value { return chosen(e, c, false, true) },
		"int": toInt, "float": toFloat,
		"abs": func(e *run, c call) value {
			f, n, whole, ok := number(c.of)
			switch {
			case !ok:
				e.fail(c.line, "abs of %s", typeName(c.of))
			case whole:
				return max(n, -n)
			}
			return math.Abs(f)
		},
		"round": func(e *run, c call) value {
			f, _, _, ok := number(c.of)
			if !ok || c.arg(1, "method", "common") != "common" {
				e.fail(c.line, "round of %s, or with a method", typeName(c.of))
			}
			p := math.Pow10(int(max(min(c.int(e, 0, "precision", 0), 15), -15)))
			return math.RoundToEven(f*p) / p
		},
		"min": func(e *run, c call) value {
			return extreme(e, c, func(a, b value) bool { return e.less(c.line, a, b) })
		},
		"max": func(e *run, c call) value {
			return extreme(e, c, func(a, b value) bool { return e.less(c.line, b, a) })
		},
		"sum": func(e *run, c call) value {
			total := c.arg(1, "start", int64(0))
			for _, v := range e.items(c.line, c.of) {
				if name := c.arg(0, "attribute", nil); name != nil {
					v = e.path(c.line, v, name)
				}
				total = e.arithmetic(binaryExpr{op: "+", line: c.line}, total, v)
			}
			return total
		},
		"indent": indented,
		"tojson": toJSON,
	}
	for short, long := range map[string]string{"count": "length", "d": "default", "e": "escape"} {
		filters[short] = filters[long]
	}
}

func length(e *run, c call) value {
	switch v := c.of.(type) {
	case string:
		e.step(len(v) / 16)
		return int64(utf8.RuneCountInString(v))
	case *list:
		return int64(len(v.items))
	case *dict:
		return int64(len(v.keys))
	case undefined:
		return int64(0)
	}
	e.fail(c.line, "length of %s", typeName(c.of))
	return nil
}

func end(e *run, c call, at int) value {
	items := e.items(c.line, c.of)
	if len(items) == 0 {
		return undefined{c.name + " of nothing"}
	}
	if at < 0 {
		at = len(items) - 1
	}
	return items[at]
}

func (e *run) each(items []value, change func(v value) value) []value {
	e.make(16 * len(items))
	out := make([]value, len(items))
	for i, v := range items {
		e.step(1)
		out[i] = change(v)
	}
	return out
}

// path follows an attribute's name with dots, or an index.
func (e *run) path(line int, v, name value) value {
	s, ok := name.(string)
	if !ok {
		return itemExpr{literal{v}, literal{name}, line}.eval(e, nil)
	}
	for part := range strings.SplitSeq(s, ".") {
		key := value(part)
		if n, err := strconv.ParseInt(part, 10, 64); err == nil {
			key = n
		}
		v = itemExpr{literal{v}, literal{key}, line}.eval(e, nil)
	}
	return v
}

// fold makes strings alike where case does not count.
func fold(v value, cased bool) value {
	if s, ok := v.(string); ok && !cased {
		return strings.ToLower(s)
	}
	return v
}

func sorted(e *run, c call, key func(v value) value) value {
	items := c.of.(*list).items
	type keyed struct{ key, v value }
	pairs := make([]keyed, len(items))
	e.make(48 * len(items))
	for i, v := range items {
		e.step(1)
		pairs[i] = keyed{key(v), v}
	}
	down := truth(c.named["reverse"])
	if c.name == "sort" && len(c.args) > 0 {
		down = truth(c.args[0])
	}
	slices.SortStableFunc(pairs, func(a, b keyed) int {
		if down {
			a, b = b, a
		}
		switch {
		case e.less(c.line, a.key, b.key):
			return -1
		case e.less(c.line, b.key, a.key):
			return 1
		}
		return 0
	})
	l := &list{}
	for _, p := range pairs {
		l.items = append(l.items, p.v)
	}
	return l
}

func unique(e *run, c call) value {
	l := &list{}
	var seen []value
	for _, v := range e.items(c.line, c.of) {
		k := fold(v, truth(c.arg(0, "case_sensitive", false)))
		if name := c.arg(1, "attribute", nil); name != nil {
			k = fold(e.path(c.line, v, name), truth(c.arg(0, "case_sensitive", false)))
		}
		if !slices.ContainsFunc(seen, func(s value) bool { return e.equal(s, k) }) {
			e.make(32)
			seen, l.items = append(seen, k), append(l.items, v)
		}
	}
	return l
}

func mapped(e *run, c call) value {
	items := e.items(c.line, c.of)
	if name, ok := c.named["attribute"]; ok {
		otherwise, has := c.named["default"]
		return &list{items: e.each(items, func(v value) value {
			v = e.path(c.line, v, name)
			if _, missing := v.(undefined); missing && has {
				return otherwise
			}
			return v
		})}
	}
	if len(c.args) == 0 {
		e.fail(c.line, "map without a filter")
	}
	name := c.text(e, 0, "filter", "")
	f := filters[name]
	if f == nil {
		e.fail(c.line, "map with the filter %.40q", name)
	}
	return &list{items: e.each(items, func(v value) value { return f(e, call{v, c.args[1:], c.named, c.line, name}) })}
}

// chosen keeps the items that a test takes, or the others.
func chosen(e *run, c call, keep, byName bool) value {
	args := c.args
	var name value
	if byName {
		if len(args) == 0 {
			e.fail(c.line, "%s without a name", c.name)
		}
		name, args = args[0], args[1:]
	}
	test := func(v value) bool { return truth(v) }
	if len(args) > 0 {
		s, ok := args[0].(string)
		t := tests[s]
		if op, known := map[string]string{"==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}[s]; known {
			t = tests[op]
		}
		if !ok || t == nil {
			e.fail(c.line, "%s with the test %.40q", c.name, s)
		}
		test = func(v value) bool { return truth(t(e, call{v, args[1:], c.named, c.line, s})) }
	}
	l := &list{}
	for _, v := range e.items(c.line, c.of) {
		e.step(1)
		asked := v
		if byName {
			asked = e.path(c.line, v, name)
		}
		if test(asked) == keep {
			e.make(16)
			l.items = append(l.items, v)
		}
	}
	return l
}

func toInt(e *run, c call) value {
	switch v := c.of.(type) {
	case string:
		s := strings.TrimSpace(v)
		if n, err := strconv.ParseInt(s, 10, 64); err == nil {
			return n
		}
		if f, err := strconv.ParseFloat(s, 64); err == nil && math.Abs(f) < 1<<53 {
			return int64(f)
		}
	case float64:
		if math.Abs(v) < 1<<53 {
			return int64(v)
		}
	default:
		if _, n, whole, ok := number(c.of); ok && whole {
			return n
		}
	}
	return c.arg(0, "default", int64(0))
}

func toFloat(e *run, c call) value {
	if s, ok := c.of.(string); ok {
		if f, err := strconv.ParseFloat(strings.TrimSpace(s), 64); err == nil {
			return f
		}
	}
	if f, _, _, ok := number(c.of); ok {
		return f
	}
	return c.arg(0, "default", 0.0)
}

func extreme(e *run, c call, better func(a, b value) bool) value {
	items := e.items(c.line, c.of)
	if len(items) == 0 {
		return undefined{c.name + " of nothing"}
	}
	best := items[0]
	for _, v := range items[1:] {
		if better(fold(v, false), fold(best, false)) {
			best = v
		}
	}
	return best
}

func indented(e *run, c call) value {
	by, ok := c.arg(0, "width", int64(4)).(string)
	if !ok {
		by = strings.Repeat(" ", int(max(min(c.int(e, 0, "width", 4), 100), 0)))
	}
	first, blank := truth(c.arg(1, "first", false)), truth(c.arg(2, "blank", false))
	var b strings.Builder
	s := e.str(c.of)
	e.make(len(s) + len(by)*(strings.Count(s, "\n")+1))
	for i, line := range strings.Split(s, "\n") {
		if i > 0 {
			b.WriteString("\n")
		}
		if (i > 0 || first) && (blank || line != "" || i == 0) {
			b.WriteString(by)
		}
		b.WriteString(line)
	}
	return b.String()
}

// toJSON is the filter that Hugging Face gives to chat templates in place of Jinja's: nothing is escaped for HTML.
func toJSON(e *run, c call) value {
	style := jsonStyle{item: ", ", key: ": ", ascii: truth(c.arg(0, "ensure_ascii", false)), sortKeys: truth(c.arg(3, "sort_keys", false))}
	switch indent := c.arg(1, "indent", nil).(type) {
	case nil:
	case string:
		style.indent, style.item = indent, ","
	default:
		style.indent, style.item = strings.Repeat(" ", int(max(min(c.int(e, 1, "indent", 0), 100), 0))), ","
	}
	if s, ok := c.arg(2, "separators", nil).(*list); ok && len(s.items) == 2 {
		style.item, style.key = e.str(s.items[0]), e.str(s.items[1])
	}
	var b strings.Builder
	e.json(&b, c.of, style, 0)
	return b.String()
}
