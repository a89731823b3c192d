package chat

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// value is nil (none), bool, int64, float64, string, *list, *dict, *namespace, undefined, *loop or function.
type value any

type list struct {
	items []value
	tuple bool
}

type dict struct {
	keys   []string // in their order
	values map[string]value
}

type namespace struct{ values map[string]value }

// undefined is a name or an attribute that is not there.
type undefined struct{ what string }

// function is a macro or a method.
type function func(e *run, line int, args []value, named map[string]value) value

func newDict(pairs ...any) *dict {
	d := &dict{values: map[string]value{}}
	for i := 0; i < len(pairs); i += 2 {
		d.set(pairs[i].(string), pairs[i+1])
	}
	return d
}

func (d *dict) set(key string, v value) {
	if _, ok := d.values[key]; !ok {
		d.keys = append(d.keys, key)
	}
	d.values[key] = v
}

// fromJSON keeps the order of keys.
func fromJSON(raw []byte) (value, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	v, err := readJSON(d, 0)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("something follows the JSON value")
	}
	return v, nil
}

func readJSON(d *json.Decoder, depth int) (value, error) {
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	if depth > maxNested {
		return nil, fmt.Errorf("more than %d levels", maxNested)
	}
	switch t := t.(type) {
	case json.Delim:
		l, m := &list{}, newDict()
		for d.More() {
			if t == '[' {
				v, err := readJSON(d, depth+1)
				if err != nil {
					return nil, err
				}
				l.items = append(l.items, v)
				continue
			}
			key, err := d.Token()
			if err != nil {
				return nil, err
			}
			v, err := readJSON(d, depth+1)
			if err != nil {
				return nil, err
			}
			m.set(key.(string), v)
		}
		if _, err := d.Token(); err != nil {
			return nil, err
		}
		if t == '[' {
			return l, nil
		}
		return m, nil
	case json.Number:
		if n, err := strconv.ParseInt(t.String(), 10, 64); err == nil {
			return n, nil
		}
		return t.Float64()
	}
	return t, nil // nil, bool, string
}

func truth(v value) bool {
	switch v := v.(type) {
	case nil, undefined:
		return false
	case bool:
		return v
	case int64:
		return v != 0
	case float64:
		return v != 0
	case string:
		return v != ""
	case *list:
		return len(v.items) > 0
	case *dict:
		return len(v.keys) > 0
	}
	return true
}

// number returns v as float64 and, where it is whole, as int64.
func number(v value) (f float64, n int64, whole, ok bool) {
	switch v := v.(type) {
	case bool:
		if v {
			return 1, 1, true, true
		}
		return 0, 0, true, true
	case int64:
		return float64(v), v, true, true
	case float64:
		return v, 0, false, true
	}
	return 0, 0, false, false
}

func (e *run) equal(a, b value) bool {
	e.step(1)
	if af, an, aw, ok := number(a); ok {
		bf, bn, bw, ok := number(b)
		if aw && bw {
			return ok && an == bn
		}
		return ok && af == bf
	}
	switch a := a.(type) {
	case nil:
		return b == nil
	case undefined:
		_, ok := b.(undefined)
		return ok
	case string:
		s, ok := b.(string)
		return ok && a == s
	case *list:
		l, ok := b.(*list)
		if !ok || len(a.items) != len(l.items) || a.tuple != l.tuple {
			return false
		}
		defer e.deeper()()
		for i := range a.items {
			if !e.equal(a.items[i], l.items[i]) {
				return false
			}
		}
		return true
	case *dict:
		d, ok := b.(*dict)
		if !ok || len(a.keys) != len(d.keys) {
			return false
		}
		defer e.deeper()()
		for _, k := range a.keys {
			if v, ok := d.values[k]; !ok || !e.equal(a.values[k], v) {
				return false
			}
		}
		return true
	case *namespace:
		return b == value(a)
	}
	return false
}

// less orders numbers, strings and lists; anything else is an error, as in Python.
func (e *run) less(line int, a, b value) bool {
	e.step(1)
	if af, an, aw, ok := number(a); ok {
		if bf, bn, bw, ok := number(b); ok {
			if aw && bw {
				return an < bn
			}
			return af < bf
		}
	}
	if as, ok := a.(string); ok {
		if bs, ok := b.(string); ok {
			return as < bs
		}
	}
	if al, ok := a.(*list); ok {
		if bl, ok := b.(*list); ok {
			defer e.deeper()()
			for i := range min(len(al.items), len(bl.items)) {
				if !e.equal(al.items[i], bl.items[i]) {
					return e.less(line, al.items[i], bl.items[i])
				}
			}
			return len(al.items) < len(bl.items)
		}
	}
	e.fail(line, "%s and %s have no order", typeName(a), typeName(b))
	return false
}

func typeName(v value) string {
	switch v := v.(type) {
	case nil:
		return "none"
	case undefined:
		return v.what + ", which is undefined,"
	case bool:
		return "a boolean"
	case int64, float64:
		return "a number"
	case string:
		return "a string"
	case *list:
		return "a list"
	case *dict:
		return "a mapping"
	}
	return "an object"
}

// str is Python's str(), with "" for what is undefined.
func (e *run) str(v value) string {
	switch v := v.(type) {
	case string:
		return v
	case undefined:
		return ""
	}
	var b strings.Builder
	e.repr(&b, v)
	return b.String()
}

// repr is Python's repr().
func (e *run) repr(b *strings.Builder, v value) {
	e.step(1)
	before := b.Len()
	switch v := v.(type) {
	case nil:
		b.WriteString("None")
	case bool:
		b.WriteString(map[bool]string{true: "True", false: "False"}[v])
	case int64:
		b.WriteString(strconv.FormatInt(v, 10))
	case float64:
		b.WriteString(pythonFloat(v))
	case string:
		e.make(2 * len(v))
		quoteString(b, v)
	case undefined:
		b.WriteString("Undefined")
	case *list:
		defer e.deeper()()
		open, shut := "[", "]"
		if v.tuple {
			open, shut = "(", ")"
		}
		b.WriteString(open)
		for i, x := range v.items {
			if i > 0 {
				b.WriteString(", ")
			}
			e.repr(b, x)
		}
		if v.tuple && len(v.items) == 1 {
			b.WriteString(",")
		}
		b.WriteString(shut)
	case *dict:
		defer e.deeper()()
		b.WriteString("{")
		for i, k := range v.keys {
			if i > 0 {
				b.WriteString(", ")
			}
			e.make(2 * len(k))
			quoteString(b, k)
			b.WriteString(": ")
			e.repr(b, v.values[k])
		}
		b.WriteString("}")
	default:
		b.WriteString("<object>")
	}
	e.make(b.Len() - before)
}

func pythonFloat(f float64) string {
	switch {
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	case math.IsNaN(f):
		return "nan"
	}
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.FormatFloat(f, 'e', -1, 64)
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

func quoteString(b *strings.Builder, s string) {
	quote := byte('\'')
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		quote = '"'
	}
	b.WriteByte(quote)
	for _, r := range s {
		switch {
		case r == rune(quote) || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < ' ' || r == 0x7F:
			fmt.Fprintf(b, `\x%02x`, r)
		case r < 0x7F || unicode.IsPrint(r):
			b.WriteRune(r)
		case r <= 0xFF:
			fmt.Fprintf(b, `\x%02x`, r)
		case r <= 0xFFFF:
			fmt.Fprintf(b, `\u%04x`, r)
		default:
			fmt.Fprintf(b, `\U%08x`, r)
		}
	}
	b.WriteByte(quote)
}

// jsonStyle is what tojson is asked for.
type jsonStyle struct {
	indent   string // "": one line
	item     string
	key      string
	ascii    bool
	sortKeys bool
}

// json is Python's json.dumps.
func (e *run) json(b *strings.Builder, v value, style jsonStyle, level int) {
	e.step(1)
	before := b.Len()
	line := func(level int) {
		if style.indent != "" {
			b.WriteString("\n")
			e.make(len(style.indent) * level)
			b.WriteString(strings.Repeat(style.indent, level))
		}
	}
	switch v := v.(type) {
	case nil:
		b.WriteString("null")
	case bool:
		b.WriteString(strconv.FormatBool(v))
	case int64:
		b.WriteString(strconv.FormatInt(v, 10))
	case float64:
		b.WriteString(pythonFloat(v))
	case string:
		e.make(6 * len(v))
		jsonString(b, v, style.ascii)
	case *list:
		defer e.deeper()()
		b.WriteString("[")
		for i, x := range v.items {
			if i > 0 {
				b.WriteString(style.item)
			}
			line(level + 1)
			e.json(b, x, style, level+1)
		}
		if len(v.items) > 0 {
			line(level)
		}
		b.WriteString("]")
	case *dict:
		defer e.deeper()()
		b.WriteString("{")
		keys := v.keys
		if style.sortKeys {
			keys = slices.Sorted(slices.Values(keys))
		}
		for i, k := range keys {
			if i > 0 {
				b.WriteString(style.item)
			}
			line(level + 1)
			e.make(6 * len(k))
			jsonString(b, k, style.ascii)
			b.WriteString(style.key)
			e.json(b, v.values[k], style, level+1)
		}
		if len(keys) > 0 {
			line(level)
		}
		b.WriteString("}")
	default:
		e.fail(0, "tojson of %s", typeName(v))
	}
	e.make(b.Len() - before)
}

func jsonString(b *strings.Builder, s string, ascii bool) {
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\b':
			b.WriteString(`\b`)
		case r == '\f':
			b.WriteString(`\f`)
		case r < ' ' || ascii && r >= 0x7F && r <= 0xFFFF:
			fmt.Fprintf(b, `\u%04x`, r)
		case ascii && r > 0xFFFF:
			fmt.Fprintf(b, `\u%04x\u%04x`, 0xD800+(r-0x10000)>>10, 0xDC00+(r-0x10000)&0x3FF)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
}

// items lists what a loop goes over.
func (e *run) items(line int, v value) []value {
	switch v := v.(type) {
	case *list:
		return v.items
	case *dict:
		e.make(16 * len(v.keys))
		keys := make([]value, len(v.keys))
		for i, k := range v.keys {
			keys[i] = k
		}
		return keys
	case string:
		e.make(20 * len(v))
		letters := make([]value, 0, utf8.RuneCountInString(v))
		for _, r := range v {
			letters = append(letters, string(r))
		}
		return letters
	case undefined:
		return nil
	}
	e.fail(line, "%s cannot be gone over", typeName(v))
	return nil
}
