package guard

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"chatxray/pipeline"
)

// NewSchema makes a grammar of the JSON texts that a JSON Schema (draft 2020-12) admits, in the given scripts. It is a subset, in
// what is read and in what is written; every text of the grammar is valid by the schema.
//
// Read are: true and {} (any value); type, also as a list; properties, required, additionalProperties; items, minItems, maxItems, prefixItems with "items": false; enum, const;
// minLength, maxLength (characters); minimum, maximum, exclusiveMinimum, exclusiveMaximum of integers; anyOf, beside which nothing else stands; $ref to #/$defs/NAME, #/definitions/NAME, which may not come back
// to itself. Notes are skipped: title, description, default, examples, format, deprecated, readOnly, writeOnly, $schema, $id,
// $comment. Every other keyword is refused, since a text might break it.
//
// Written are: the members that properties names, in its order, and those that only required names after them, but no others; where
// an object has neither and admits others, any members. One space may stand behind a comma and a colon. Numbers have up to 15 digits before and
// behind the point and an exponent of up to two. Strings escape what they must, and nothing as \u: every letter stands there itself, so that
// the scripts hold. Values of no stated form are nested up to four levels.
//
// Errors, each with the place in the schema: ErrInvalid for no schema, one that no text can meet, or one beyond the limits (256 KiB, 64
// levels); ErrUnsupported for what is not read.
func NewSchema(v *Vocabulary, allowed Scripts, schema []byte) (*Grammar, error) {
	root, err := parseJSON(schema)
	if err != nil {
		return nil, fmt.Errorf("%w JSON Schema: %w", pipeline.ErrInvalid, err)
	}
	s := &schemaReader{root: root, numbers: map[string]int{}, open: map[*value]bool{}, known: map[*value]form{}}
	s.rules = []form{nil}
	f, err := s.schema(root, "#")
	if err != nil {
		return nil, err
	}
	s.rules[0] = f
	program, err := compile(s.rules, func(int) string { return "#" }, allowed.set, v.single)
	if err != nil {
		return nil, fmt.Errorf("JSON Schema: %w", err)
	}
	return newGrammar(v, program)
}

// schemaReader turns a schema into rules.
type schemaReader struct {
	root    *value
	rules   []form
	numbers map[string]int  // of the rules that have a name
	open    map[*value]bool // schemas that are being read
	known   map[*value]form
}

// rule gives a form a number, so that it stands in the program once.
func (s *schemaReader) rule(f form) form {
	switch f.(type) {
	case call, literal, oneOf:
		return f
	}
	s.rules = append(s.rules, f)
	return call(len(s.rules) - 1)
}

// named returns the rule of a name, made at its first use.
func (s *schemaReader) named(name string, make func() form) form {
	n, ok := s.numbers[name]
	if !ok {
		f := make()
		n = len(s.rules)
		s.rules = append(s.rules, f)
		s.numbers[name] = n
	}
	return call(n)
}

func unsupported(at, format string, a ...any) error {
	return fmt.Errorf("%w JSON Schema: %s: %s", pipeline.ErrUnsupported, at, fmt.Sprintf(format, a...))
}

func invalid(at, format string, a ...any) error {
	return fmt.Errorf("%w JSON Schema: %s: %s", pipeline.ErrInvalid, at, fmt.Sprintf(format, a...))
}

// keywords are those that are read, with the type that they belong to, and the notes that are skipped.
var keywords = map[string]string{
	"type": "", "enum": "", "const": "", "anyOf": "", "$ref": "", "$defs": "", "definitions": "",
	"properties": "object", "required": "object", "additionalProperties": "object",
	"items": "array", "prefixItems": "array", "minItems": "array", "maxItems": "array", "minLength": "string", "maxLength": "string",
	"minimum": "integer", "maximum": "integer", "exclusiveMinimum": "integer", "exclusiveMaximum": "integer",
	"title": "", "description": "", "default": "", "examples": "", "format": "", "deprecated": "", "readOnly": "", "writeOnly": "",
	"$schema": "", "$id": "", "$comment": "",
}

// schema returns the form of the values that a schema admits.
func (s *schemaReader) schema(v *value, at string) (form, error) {
	if f, ok := s.known[v]; ok {
		return f, nil
	}
	if s.open[v] {
		return nil, unsupported(at, "it comes back to itself")
	}
	s.open[v] = true
	defer delete(s.open, v)
	f, err := s.read(v, at)
	if err != nil {
		return nil, err
	}
	f = s.rule(f)
	s.known[v] = f
	return f, nil
}

func (s *schemaReader) read(v *value, at string) (form, error) {
	if v.kind == "boolean" {
		if !v.truth {
			return nil, invalid(at, "false admits nothing")
		}
		return s.any(anyDepth), nil
	}
	if v.kind != "object" {
		return nil, invalid(at, "a schema is an object or true, not %s", v.kind)
	}
	for _, k := range v.keys {
		if _, ok := keywords[k]; !ok {
			return nil, unsupported(at, "the keyword %q; read are %s", k, strings.Join(readKeywords(), ", "))
		}
	}
	alone := func(key string) error {
		for _, k := range v.keys {
			if k != key && slices.Contains(readKeywords(), k) && k != "$defs" && k != "definitions" {
				return unsupported(at, "%q beside %q", k, key)
			}
		}
		return nil
	}
	if ref := v.get("$ref"); ref != nil {
		if err := alone("$ref"); err != nil {
			return nil, err
		}
		return s.reference(ref, at)
	}
	if any := v.get("anyOf"); any != nil {
		if err := alone("anyOf"); err != nil {
			return nil, err
		}
		if any.kind != "array" || len(any.items) == 0 {
			return nil, invalid(at, "anyOf is no list of schemas")
		}
		var all choice
		for i, item := range any.items {
			f, err := s.schema(item, fmt.Sprintf("%s/anyOf/%d", at, i))
			if err != nil {
				return nil, err
			}
			all = append(all, f)
		}
		return all, nil
	}
	types, err := typesOf(v, at)
	if err != nil {
		return nil, err
	}
	if v.get("enum") != nil || v.get("const") != nil {
		return s.listed(v, types, at)
	}
	if types == nil {
		for _, k := range v.keys {
			if of := keywords[k]; of != "" {
				return nil, unsupported(at, "%q without \"type\": %q", k, of)
			}
		}
		return s.any(anyDepth), nil
	}
	var all choice
	for _, t := range types {
		f, err := s.typed(t, v, at)
		if err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	if len(all) == 1 {
		return all[0], nil
	}
	return all, nil
}

// readKeywords are those that say something about a text.
func readKeywords() []string {
	return []string{"type", "properties", "required", "additionalProperties", "items", "prefixItems", "minItems", "maxItems", "enum", "const", "minLength", "maxLength",
		"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "anyOf", "$ref", "$defs", "definitions"}
}

var kinds = []string{"object", "array", "string", "number", "integer", "boolean", "null"}

// typesOf returns what type says, nil where it says nothing.
func typesOf(v *value, at string) ([]string, error) {
	t := v.get("type")
	if t == nil {
		return nil, nil
	}
	items := []*value{t}
	if t.kind == "array" {
		items = t.items
	}
	var types []string
	for _, i := range items {
		if i.kind != "string" || !slices.Contains(kinds, i.text) {
			return nil, invalid(at, "type is none of %s", strings.Join(kinds, ", "))
		}
		if !slices.Contains(types, i.text) {
			types = append(types, i.text)
		}
	}
	if types == nil {
		return nil, invalid(at, "type is an empty list")
	}
	if slices.Contains(types, "number") { // of which the integers are a part
		types = slices.DeleteFunc(types, func(t string) bool { return t == "integer" })
	}
	return types, nil
}

// listed returns the values of enum or const that the types admit.
func (s *schemaReader) listed(v *value, types []string, at string) (form, error) {
	for _, k := range v.keys {
		if keywords[k] != "" {
			return nil, unsupported(at, "%q beside enum or const", k)
		}
	}
	list, only := v.get("enum"), v.get("const")
	if list != nil && (list.kind != "array" || len(list.items) == 0) {
		return nil, invalid(at, "enum is no list of values")
	}
	values := []*value{only}
	if list != nil {
		values = list.items
	}
	var all oneOf
	for _, item := range values {
		text := literal(item.encode())
		if list != nil && only != nil && string(text) != only.encode() {
			continue
		}
		if types == nil || slices.ContainsFunc(types, item.is) {
			all = append(all, text)
		}
	}
	if len(all) == 0 {
		return nil, invalid(at, "no value is of the type")
	}
	return all, nil
}

func (s *schemaReader) reference(ref *value, at string) (form, error) {
	name, ok := strings.CutPrefix(ref.text, "#/")
	table, name, _ := strings.Cut(name, "/")
	if ref.kind != "string" || !ok || table != "$defs" && table != "definitions" || strings.Contains(name, "/") {
		return nil, unsupported(at, "$ref %.100q; read are #/$defs/NAME and #/definitions/NAME", ref.text)
	}
	name = strings.NewReplacer("~1", "/", "~0", "~").Replace(name)
	defs := s.root.get(table)
	if defs == nil || defs.kind != "object" || defs.get(name) == nil {
		return nil, invalid(at, "$ref %.100q leads nowhere", ref.text)
	}
	return s.schema(defs.get(name), ref.text)
}

func (s *schemaReader) typed(t string, v *value, at string) (form, error) {
	switch t {
	case "object":
		return s.object(v, at)
	case "array":
		return s.array(v, at)
	case "string":
		least, most, err := bounds(v, at, "minLength", "maxLength")
		if err != nil {
			return nil, err
		}
		return word{literal(`"`), repeat{s.character(), least, most}, literal(`"`)}, nil
	case "integer", "number":
		if bounded := slices.ContainsFunc(v.keys, func(k string) bool { return keywords[k] == "integer" }); bounded && t == "number" {
			return nil, unsupported(at, "minimum and maximum of a number; read are those of an integer")
		} else if bounded {
			return integers(v, at)
		}
	}
	return s.scalar(t), nil
}

// scalar is a number, integer, boolean or null.
func (s *schemaReader) scalar(t string) form {
	digit := among{{'0', '9'}}
	whole := func() form {
		return word{optional(literal("-")), choice{literal("0"), word{among{{'1', '9'}}, repeat{digit, 0, 14}}}}
	}
	switch t {
	case "boolean":
		return oneOf{"true", "false"}
	case "null":
		return literal("null")
	case "integer":
		return s.named(t, whole)
	}
	return s.named("number", func() form {
		fraction := word{literal("."), repeat{digit, 1, 15}}
		exponent := word{among{{'E', 'E'}, {'e', 'e'}}, optional(among{{'+', '+'}, {'-', '-'}}), repeat{digit, 1, 2}}
		return word{whole(), optional(fraction), optional(exponent)}
	})
}

// character is one of a string: itself, or an escape (RFC 8259, section 7, without \u).
func (s *schemaReader) character() form {
	return s.named("character", func() form {
		plain := everyRune.minus(runes{{0, 0x1F}, {'"', '"'}, {'\\', '\\'}})
		return choice{among(plain), word{literal(`\`), among(union(runes{{'"', '"'}, {'/', '/'}, {'\\', '\\'}, {'b', 'b'}, {'f', 'f'}, {'n', 'n'}, {'r', 'r'}, {'t', 't'}}))}}
	})
}

func (s *schemaReader) text() form {
	return s.named("text", func() form { return word{literal(`"`), repeat{s.character(), 0, unbounded}, literal(`"`)} })
}

// anyDepth is how far values of no stated form are nested.
const anyDepth = 4

var separator = word{literal(","), optional(literal(" "))}

// any is every value, nested up to depth.
func (s *schemaReader) any(depth int) form {
	return s.named(fmt.Sprint("any ", depth), func() form {
		all := choice{s.text(), s.scalar("number"), s.scalar("boolean"), s.scalar("null")}
		if depth > 0 {
			all = append(all, s.anyObject(depth), s.anyArray(depth))
		}
		return all
	})
}

func (s *schemaReader) anyObject(depth int) form {
	return s.named(fmt.Sprint("any object ", depth), func() form {
		m := word{s.text(), literal(":"), optional(literal(" ")), s.any(depth - 1)}
		return word{literal("{"), optional(word{m, repeat{word{separator, m}, 0, unbounded}}), literal("}")}
	})
}

func (s *schemaReader) anyArray(depth int) form {
	return s.named(fmt.Sprint("any array ", depth), func() form { return list(s.any(depth-1), 0, unbounded) })
}

func (s *schemaReader) object(v *value, at string) (form, error) {
	properties, required, more := v.get("properties"), v.get("required"), v.get("additionalProperties")
	if properties != nil && properties.kind != "object" {
		return nil, invalid(at, "properties is no object")
	}
	if required != nil && (required.kind != "array" || slices.ContainsFunc(required.items, func(i *value) bool { return i.kind != "string" })) {
		return nil, invalid(at, "required is no list of names")
	}
	if more != nil && more.kind != "boolean" && more.kind != "object" {
		return nil, invalid(at, "additionalProperties is no schema")
	}
	closed := more != nil && more.kind == "boolean" && !more.truth
	if properties == nil && required == nil && !closed && (more == nil || more.kind == "boolean") {
		return s.anyObject(anyDepth), nil
	}
	var all members
	add := func(name string, schema *value, optional bool) error {
		value := s.any(anyDepth - 1)
		if schema != nil {
			f, err := s.schema(schema, at+"/properties/"+name)
			if err != nil {
				return err
			}
			value = f
		}
		all.list = append(all.list, member{literal(quote(name) + ":"), word{optionalSpace, value}, optional})
		return nil
	}
	needed := map[string]bool{}
	if required != nil {
		for _, i := range required.items {
			needed[i.text] = true
		}
	}
	if properties != nil {
		for i, name := range properties.keys {
			if err := add(name, properties.items[i], !needed[name]); err != nil {
				return nil, err
			}
			delete(needed, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(needed)) {
		if closed {
			return nil, invalid(at, "%.100q is required and admitted nowhere", name)
		}
		if more != nil && more.kind == "boolean" {
			more = nil
		}
		if err := add(name, more, false); err != nil {
			return nil, err
		}
	}
	return word{literal("{"), all, literal("}")}, nil
}

var optionalSpace = optional(literal(" "))

// bounds reads two keywords that are whole numbers; most is unbounded where it is absent.
func bounds(v *value, at, leastKey, mostKey string) (least, most int, err error) {
	read := func(key string, n *int) {
		b := v.get(key)
		if b == nil {
			return
		}
		var f float64
		if b.kind != "number" || json.Unmarshal([]byte(b.text), &f) != nil || f != float64(int(f)) || f < 0 {
			err = invalid(at, "%s is no whole number", key)
		} else if f > maxCount {
			err = invalid(at, "%s is above %d", key, maxCount)
		} else {
			*n = int(f)
		}
	}
	most = unbounded
	read(leastKey, &least)
	read(mostKey, &most)
	if err == nil && most >= 0 && least > most {
		err = invalid(at, "%s is above %s", leastKey, mostKey)
	}
	return least, most, err
}
