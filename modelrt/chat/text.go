package chat

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

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
