package guard

import "fmt"

// list is an array of min to max items.
func list(item form, least, most int) form {
	if most == 0 {
		return literal("[]")
	}
	if most > 0 {
		most--
	}
	items := form(word{item, repeat{word{separator, item}, max(0, least-1), most}})
	if least == 0 {
		items = optional(items)
	}
	return word{literal("["), items, literal("]")}
}

func (s *schemaReader) array(v *value, at string) (form, error) {
	least, most, err := bounds(v, at, "minItems", "maxItems")
	if err != nil {
		return nil, err
	}
	item := v.get("items")
	if prefix := v.get("prefixItems"); prefix != nil {
		return s.tuple(prefix, item, least, most, at)
	}
	if item == nil || most == 0 {
		return list(s.any(anyDepth-1), least, most), nil
	}
	f, err := s.schema(item, at+"/items")
	if err != nil {
		return nil, err
	}
	return list(f, least, most), nil
}

// tuple is an array whose items have a schema each; those behind the first least may be absent.
func (s *schemaReader) tuple(prefix, rest *value, least, most int, at string) (form, error) {
	if prefix.kind != "array" || len(prefix.items) == 0 {
		return nil, invalid(at, "prefixItems is no list of schemas")
	}
	if rest == nil || rest.kind != "boolean" || rest.truth {
		return nil, unsupported(at, "\"prefixItems\" without \"items\": false")
	}
	n := len(prefix.items)
	if most >= 0 {
		n = min(n, most)
	}
	if least > n {
		return nil, invalid(at, "minItems is above the %d items that may be", n)
	}
	items := form(nothing)
	for i := n - 1; i >= 0; i-- {
		f, err := s.schema(prefix.items[i], fmt.Sprintf("%s/prefixItems/%d", at, i))
		if err != nil {
			return nil, err
		}
		if i > 0 {
			f = word{separator, f}
		}
		if items = (word{f, items}); i >= least {
			items = optional(items)
		}
	}
	return word{literal("["), items, literal("]")}, nil
}
