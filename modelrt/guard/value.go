package guard

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// value is a JSON value whose members keep their order.
type value struct {
	kind  string // "object", "array", "string", "number", "boolean", "null"
	text  string // of a string; of a number as it was written
	truth bool
	keys  []string // of an object, each once
	items []*value // of an object or array
	index map[string]int
}

// parseJSON reads one JSON text within the limits of a schema.
func parseJSON(b []byte) (*value, error) {
	if len(b) > maxSource {
		return nil, fmt.Errorf("it is longer than %d bytes", maxSource)
	}
	if !utf8.Valid(b) {
		return nil, fmt.Errorf("it is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	v, err := parseValue(d, 0)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("something follows its end")
	}
	return v, nil
}

func parseValue(d *json.Decoder, depth int) (*value, error) {
	if depth > maxNest {
		return nil, fmt.Errorf("it is nested more than %d levels", maxNest)
	}
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	v := &value{}
	switch t := t.(type) {
	case nil:
		v.kind = "null"
	case bool:
		v.kind, v.truth = "boolean", t
	case json.Number:
		v.kind, v.text = "number", t.String()
	case string:
		v.kind, v.text = "string", t
	case json.Delim:
		v.kind = map[json.Delim]string{'{': "object", '[': "array"}[t]
		v.index = map[string]int{}
		for d.More() {
			if t == '{' {
				key, err := d.Token()
				if err != nil {
					return nil, err
				}
				name := key.(string)
				if _, twice := v.index[name]; twice {
					return nil, fmt.Errorf("the key %.100q stands there twice", name)
				}
				v.index[name] = len(v.items)
				v.keys = append(v.keys, name)
			}
			item, err := parseValue(d, depth+1)
			if err != nil {
				return nil, err
			}
			v.items = append(v.items, item)
		}
		if _, err := d.Token(); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// get returns a member of an object, nil where it has none of the name.
func (v *value) get(name string) *value {
	if i, ok := v.index[name]; ok && v.kind == "object" {
		return v.items[i]
	}
	return nil
}

// is tells whether the value is of a type of JSON Schema.
func (v *value) is(kind string) bool {
	if kind == "integer" {
		return v.kind == "number" && !strings.ContainsAny(v.text, ".eE")
	}
	return v.kind == kind
}

// encode writes the value without spaces.
func (v *value) encode() string {
	var b strings.Builder
	v.write(&b)
	return b.String()
}

func (v *value) write(b *strings.Builder) {
	switch v.kind {
	case "null":
		b.WriteString("null")
	case "boolean":
		fmt.Fprint(b, v.truth)
	case "number":
		b.WriteString(v.text)
	case "string":
		b.WriteString(quote(v.text))
	case "array", "object":
		marks := map[string]string{"array": "[]", "object": "{}"}[v.kind]
		b.WriteByte(marks[0])
		for i, item := range v.items {
			if i > 0 {
				b.WriteByte(',')
			}
			if v.kind == "object" {
				b.WriteString(quote(v.keys[i]))
				b.WriteByte(':')
			}
			item.write(b)
		}
		b.WriteByte(marks[1])
	}
}

// quote writes a string as JSON has it: only what must be escaped is (RFC 8259, section 7).
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		short := strings.IndexRune("\b\f\n\r\t\"\\", c)
		switch {
		case short >= 0:
			b.WriteByte('\\')
			b.WriteByte(`bfnrt"\`[short])
		case c < 0x20:
			fmt.Fprintf(&b, `\u%04x`, c)
		default:
			b.WriteRune(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
