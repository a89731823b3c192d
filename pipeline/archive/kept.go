package archive

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"chatxray/pipeline"
)

// kept is an element as the index writes it.
type kept struct {
	Tag    pipeline.Tag `json:"t"`
	VR     string       `json:"v"`
	Text   []string     `json:"s,omitempty"`
	Ints   []int64      `json:"i,omitempty"`
	Floats []float64    `json:"f,omitempty"`
	Items  [][]kept     `json:"q,omitempty"`
}

func toKept(d pipeline.Dataset) []kept {
	out := make([]kept, 0, len(d))
	for _, e := range d {
		k := kept{Tag: e.Tag, VR: e.VR, Text: e.Text, Ints: e.Ints, Floats: e.Floats}
		if slices.ContainsFunc(e.Floats, func(f float64) bool { return math.IsNaN(f) || math.IsInf(f, 0) }) {
			k.Floats = nil // JSON lacks them
		}
		for _, item := range e.Items {
			k.Items = append(k.Items, toKept(item))
		}
		out = append(out, k)
	}
	return out
}

func fromKept(ks []kept) pipeline.Dataset {
	out := make(pipeline.Dataset, 0, len(ks))
	for _, k := range ks {
		e := pipeline.Element{Tag: k.Tag, VR: k.VR, Text: k.Text, Ints: k.Ints, Floats: k.Floats}
		for _, item := range k.Items {
			e.Items = append(e.Items, fromKept(item))
		}
		out = append(out, e)
	}
	return out
}

// encode writes attributes for the index. Binary values are not kept, nor floats that JSON lacks.
func encode(d pipeline.Dataset) string {
	b, err := json.Marshal(toKept(d))
	if err != nil { // what is kept always marshals
		return "[]"
	}
	return string(b)
}

// decode adds to d the attributes that encode has written.
func decode(d pipeline.Dataset, s string) (pipeline.Dataset, error) {
	if r := (keptReader{s: s}); r.dataset(&d) && r.s == "" {
		return d, nil
	}
	var ks []kept
	if err := json.Unmarshal([]byte(s), &ks); err != nil {
		return nil, err
	}
	return append(d, fromKept(ks)...), nil
}

// keptReader reads exactly what encode writes of text and integers, several times faster than encoding/json. Whatever else comes makes
// it give up.
type keptReader struct{ s string }

func (r *keptReader) skip(p string) bool {
	rest, ok := strings.CutPrefix(r.s, p)
	if ok {
		r.s = rest
	}
	return ok
}

func (r *keptReader) dataset(d *pipeline.Dataset) bool {
	begun := len(*d)
	if !r.skip("[") {
		return false
	}
	for !r.skip("]") {
		if len(*d) > begun && !r.skip(",") {
			return false
		}
		var e pipeline.Element
		tag, ok := int64(0), r.skip(`{"t":`)
		if ok {
			tag, ok = r.integer()
		}
		ok = ok && r.skip(`,"v":`)
		if ok {
			e.VR, ok = r.text()
		}
		if !ok || !r.value(&e) || !r.skip("}") {
			*d = (*d)[:begun]
			return false
		}
		e.Tag = pipeline.Tag(tag)
		*d = append(*d, e)
	}
	return true
}

func (r *keptReader) value(e *pipeline.Element) bool {
	switch {
	case r.skip(`,"s":[`):
		return r.list(func() bool {
			v, ok := r.text()
			e.Text = append(e.Text, v)
			return ok
		})
	case r.skip(`,"i":[`):
		return r.list(func() bool {
			v, ok := r.integer()
			e.Ints = append(e.Ints, v)
			return ok
		})
	case r.skip(`,"q":[`):
		return r.list(func() bool {
			var item pipeline.Dataset
			ok := r.dataset(&item)
			e.Items = append(e.Items, item)
			return ok
		})
	}
	return true
}

// list reads values up to the closing bracket.
func (r *keptReader) list(one func() bool) bool {
	for {
		if !one() {
			return false
		}
		if r.skip("]") {
			return true
		}
		if !r.skip(",") {
			return false
		}
	}
}

func (r *keptReader) integer() (int64, bool) {
	n := 0
	for n < len(r.s) && (r.s[n] >= '0' && r.s[n] <= '9' || r.s[n] == '-') {
		n++
	}
	v, err := strconv.ParseInt(r.s[:n], 10, 64)
	r.s = r.s[n:]
	return v, err == nil
}

func (r *keptReader) text() (string, bool) {
	if !strings.HasPrefix(r.s, `"`) {
		return "", false
	}
	for i := 1; i < len(r.s); i++ {
		switch r.s[i] {
		case '\\':
			return r.escaped()
		case '"':
			v := r.s[1:i]
			r.s = r.s[i+1:]
			return v, utf8.ValidString(v)
		}
	}
	return "", false
}

func (r *keptReader) escaped() (string, bool) {
	d := json.NewDecoder(strings.NewReader(r.s))
	var v string
	if err := d.Decode(&v); err != nil {
		return "", false
	}
	r.s = r.s[d.InputOffset():]
	return v, true
}
