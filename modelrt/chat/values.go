package chat

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
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
