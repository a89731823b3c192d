package guard_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"chatxray/modelrt/guard"
	"chatxray/pipeline"
)

// validator is the oracle: another reading of JSON Schema.
func validator(t testing.TB, schema string) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(schema))
	if err != nil {
		t.Fatalf("%.3000s: %v", schema, err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("s.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("s.json")
	if err != nil {
		t.Fatalf("%.3000s: %v", schema, err)
	}
	return s
}

// follow decodes with random logits until the text ends: after some tokens the decoder wants to come to the end.
func follow(t testing.TB, v *vocabulary, c guard.Constraint, rnd *rand.Rand, patience int) string {
	t.Helper()
	logits := make([]float32, v.Width())
	random := newNoise(v.Width(), rnd)
	var out []int32
	for len(out) < 3000 {
		random.into(logits)
		if len(out) > patience {
			logits[v.stop] += 100
			for _, s := range []string{`"`, `}`, `]`} {
				logits[v.ids[s]] += 50
			}
		}
		if err := c.Mask(logits); err != nil {
			t.Fatal(err)
		}
		id := best(logits)
		if id < 0 {
			t.Fatalf("nothing may come after %q", v.text(out))
		}
		if err := c.Accept(id); err != nil {
			t.Fatalf("Mask leaves token %d, %q, after %q: %v", id, v.tokens[id], tail(v.text(out)), err)
		}
		if id == v.stop {
			if !c.Done() {
				t.Fatalf("it ends before it is done: %q", v.text(out))
			}
			return v.text(out)
		}
		out = append(out, id)
	}
	t.Fatalf("no end: %.200q", v.text(out))
	return ""
}

// randomSchema makes a schema of all that is read.
func randomSchema(rnd *rand.Rand, depth int) any {
	type object = map[string]any
	name := func() string {
		return []string{"side", "Größe", "size \"mm\"", "findings", "a/b", "x~y", "", "note", "line\nfeed", "µ"}[rnd.IntN(10)]
	}
	scalar := func() any {
		return []any{"left", "right", "", "ü \"quoted\"", "a\\b\n\u0001", 3, -2.5, 1e3, true, false, nil, []any{1, "x"}, object{"a": 1, "b": []any{}}}[rnd.IntN(13)]
	}
	kinds := 12
	if depth == 0 {
		kinds = 6
	}
	switch rnd.IntN(kinds) {
	case 0, 1:
		s := object{"type": "string"}
		least := rnd.IntN(4)
		if rnd.IntN(2) == 0 {
			s["minLength"] = least
		} else {
			least = 0
		}
		if rnd.IntN(2) == 0 {
			s["maxLength"] = least + rnd.IntN(12)
		}
		return s
	case 2:
		if rnd.IntN(2) == 0 {
			least := rnd.IntN(3000) - 1500
			return object{"type": "integer", []string{"minimum", "exclusiveMinimum"}[rnd.IntN(2)]: least, []string{"maximum", "exclusiveMaximum"}[rnd.IntN(2)]: float64(least) + 2 + float64(rnd.IntN(1200))/4}
		}
		return object{"type": []string{"number", "integer", "boolean", "null"}[rnd.IntN(4)], "description": "d"}
	case 3:
		return object{"enum": []any{scalar(), scalar(), scalar()}}
	case 4:
		return object{"const": scalar()}
	case 5:
		if rnd.IntN(2) == 0 {
			return object{"type": []any{"string", "null", "integer"}, "maxLength": 5}
		}
		return true
	case 6:
		return object{"anyOf": []any{randomSchema(rnd, depth-1), randomSchema(rnd, depth-1), randomSchema(rnd, depth-1)}}
	case 7, 8:
		s := object{"type": "array"}
		switch rnd.IntN(4) {
		case 0:
		case 1:
			s["items"], s["prefixItems"] = false, []any{}
			for range 1 + rnd.IntN(3) {
				s["prefixItems"] = append(s["prefixItems"].([]any), randomSchema(rnd, depth-1))
			}
			if n := len(s["prefixItems"].([]any)); rnd.IntN(2) == 0 {
				s["minItems"] = rnd.IntN(n + 1)
			}
			if rnd.IntN(3) == 0 {
				s["maxItems"] = 3
			}
			return s
		default:
			s["items"] = randomSchema(rnd, depth-1)
		}
		least := rnd.IntN(3)
		if rnd.IntN(2) == 0 {
			s["minItems"] = least
		} else {
			least = 0
		}
		if rnd.IntN(3) > 0 {
			s["maxItems"] = least + rnd.IntN(4)
		}
		return s
	}
	properties := object{}
	for range rnd.IntN(5) {
		properties[name()] = randomSchema(rnd, depth-1)
	}
	var required []any
	for _, k := range slices.Sorted(maps.Keys(properties)) {
		if rnd.IntN(2) == 0 {
			required = append(required, k)
		}
	}
	s := object{"type": "object", "properties": properties, "additionalProperties": []any{true, false, object{"type": "integer"}}[rnd.IntN(3)]}
	if required != nil {
		s["required"] = required
	}
	return s
}

// Whatever a decoder with random logits writes is valid by the schema, UTF-8, within the scripts, and comes to an end.
func TestRandomSchemas(t *testing.T) {
	vocabularies(t, func(t *testing.T, v *vocabulary) {
		many := 150
		if v.Width() > 40_000 {
			many = 40
		}
		rnd := rand.New(rand.NewPCG(11, 12))
		allowed := scriptsFor(t, "en", "de")
		total, slowest := 0, time.Duration(0)
		for range many {
			b, err := json.Marshal(randomSchema(rnd, 3))
			if err != nil {
				t.Fatal(err)
			}
			schema := string(b)
			g, err := guard.NewSchema(v.Vocabulary, allowed, b)
			if err != nil {
				t.Fatalf("%.3000s: %v", schema, err)
			}
			oracle := validator(t, schema)
			for i := range 2 {
				began := time.Now()
				text := follow(t, v, g.Follow(), rnd, 40*i)
				slowest = max(slowest, time.Since(began))
				instance, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
				if err != nil {
					t.Fatalf("%.3000s: %q is no JSON: %v", schema, text, err)
				}
				if err := oracle.Validate(instance); err != nil {
					t.Fatalf("%.3000s: %q is not valid: %v", schema, text, err)
				}
				if !utf8.ValidString(text) || allowed.Check(text) != nil || strings.Contains(strings.ReplaceAll(text, `\\`, ""), `\u`) && !strings.Contains(schema, `\u`) {
					t.Fatalf("%s: %q", schema, text)
				}
				total += len(text)
			}
		}
		t.Logf("%d schemas, %d bytes, slowest text %v", many, total, slowest)
	})
}

const reportSchema = `{
	"type": "object", "additionalProperties": false, "required": ["findings", "impression", "normal"],
	"properties": {
		"findings": {"type": "array", "minItems": 1, "maxItems": 20, "items": {"$ref": "#/$defs/finding"}},
		"impression": {"type": "string", "maxLength": 400},
		"normal": {"type": "boolean"}
	},
	"$defs": {"finding": {"type": "object", "required": ["label", "presence"], "additionalProperties": false, "properties": {
		"label": {"enum": ["Pleural Effusion", "Pneumothorax", "Cardiomegaly", "Consolidation", "Edema"]},
		"presence": {"enum": ["present", "absent", "undetermined"]},
		"side": {"enum": ["left", "right", "both", null]},
		"sentence": {"type": "string", "minLength": 1, "maxLength": 200},
		"size_mm": {"type": "number"}}}}
}`

// What a model would write of its own accord passes, and what is not of the schema does not.
func TestSchemaAdmits(t *testing.T) {
	vocabularies(t, func(t *testing.T, v *vocabulary) {
		g, err := guard.NewSchema(v.Vocabulary, scriptsFor(t, "de"), []byte(reportSchema))
		if err != nil {
			t.Fatal(err)
		}
		oracle := validator(t, reportSchema)
		for text, want := range map[string]bool{
			`{"findings": [{"label": "Edema", "presence": "absent"}], "impression": "Größe 5 mm, \"frei\"\n", "normal": true}`:                                                             true,
			`{"findings":[{"label":"Pneumothorax","presence":"present","side":"left","size_mm":-1.5e2},{"label":"Edema","presence":"absent","side":null}],"impression":"","normal":false}`: true,
			`{"findings": [], "impression": "", "normal": true}`:                                                                         false,
			`{"findings": [{"label": "Edema"}], "impression": "", "normal": true}`:                                                       false,
			`{"findings": [{"label": "Oedema", "presence": "absent"}], "impression": "", "normal": true}`:                                false,
			`{"findings": [{"label": "Edema", "presence": "absent"}], "impression": "", "normal": true, "x": 1}`:                         false,
			`{"findings": [{"label": "Edema", "presence": "absent"}], "impression": "` + strings.Repeat("a", 401) + `", "normal": true}`: false,
			`{"findings": [{"label": "Edema", "presence": "absent"}], "impression": "", "normal": tru`:                                   false,
		} {
			got := accepts(v, g, text)
			if got != want {
				t.Errorf("%.80q: %v", text, got)
			}
			instance, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
			if valid := err == nil && oracle.Validate(instance) == nil; valid != want {
				t.Errorf("%.80q: the validator says %v", text, valid)
			}
		}
		for text, why := range map[string]string{
			`{"findings": [{"label": "Edema", "presence": "absent"}], "impression": "\u4e2d", "normal": true}`: "an escape hides a character",
			`{"findings": [{"label": "Edema", "presence": "absent"}], "impression": "中", "normal": true}`:      "a foreign script",
		} {
			if accepts(v, g, text) {
				t.Errorf("%s: %s", why, text)
			}
		}
	})
}

// Every integer from -1200 to 1200 against bounds of all kinds.
func TestSchemaIntegers(t *testing.T) {
	v := synthetic(t, false)
	rnd := rand.New(rand.NewPCG(51, 52))
	for range 60 {
		least := rnd.IntN(2200) - 1100
		most := least + rnd.IntN(1+rnd.IntN(1200))
		g, err := guard.NewSchema(v.Vocabulary, scriptsFor(t, "en"), fmt.Appendf(nil, `{"type":"integer","minimum":%d,"exclusiveMaximum":%.1f}`, least, float64(most)+0.5))
		if err != nil {
			t.Fatal(err)
		}
		for n := -1200; n <= 1200; n++ {
			if got, want := accepts(v, g, fmt.Sprint(n)), n >= least && n <= most; got != want {
				t.Fatalf("%d from %d to %d: %v", n, least, most, got)
			}
		}
		for _, odd := range []string{"", "-", "00", "01", "-01", "1.0", "1e1", " 1"} {
			if accepts(v, g, odd) {
				t.Errorf("%q passes", odd)
			}
		}
	}
}

func accepts(v *vocabulary, g *guard.Grammar, text string) bool {
	s := g.Follow()
	for _, id := range v.encode(text) {
		if s.Accept(id) != nil {
			return false
		}
	}
	return s.Done() && s.Accept(v.stop) == nil
}

func TestSchemaRefuses(t *testing.T) {
	v := synthetic(t, false)
	deep := strings.Repeat(`{"type":"array","items":`, 70) + "true" + strings.Repeat("}", 70)
	var laughs strings.Builder
	laughs.WriteString(`{"$ref":"#/$defs/a0","$defs":{`)
	for i := range 40 {
		fmt.Fprintf(&laughs, `"a%d":{"anyOf":[{"$ref":"#/$defs/a%d"},{"$ref":"#/$defs/a%d"}]},`, i, i+1, i+1)
	}
	laughs.WriteString(`"a40":{"type":"string"}}}`)
	for _, c := range []struct {
		schema string
		want   error
		says   string
	}{
		{``, pipeline.ErrInvalid, "EOF"}, {`{`, pipeline.ErrInvalid, "EOF"}, {`{} {}`, pipeline.ErrInvalid, "follows"}, {`7`, pipeline.ErrInvalid, "not number"},
		{"\"\xFF\"", pipeline.ErrInvalid, "UTF-8"}, {`{"type":"string","type":"null"}`, pipeline.ErrInvalid, "twice"},
		{`false`, pipeline.ErrInvalid, "admits nothing"}, {`{"type":"text"}`, pipeline.ErrInvalid, "type is none"}, {`{"type":[]}`, pipeline.ErrInvalid, "empty list"},
		{`{"type":"string","pattern":"a"}`, pipeline.ErrUnsupported, `"pattern"`}, {`{"oneOf":[true]}`, pipeline.ErrUnsupported, `"oneOf"`},
		{`{"type":"number","minimum":3}`, pipeline.ErrUnsupported, "minimum"}, {`{"type":"integer","minimum":3,"exclusiveMaximum":3.5,"maximum":2}`, pipeline.ErrInvalid, "no integer"}, {`{"type":"integer","minimum":"3"}`, pipeline.ErrInvalid, "no number"}, {`{"properties":{}}`, pipeline.ErrUnsupported, `without "type"`},
		{`{"type":"string","anyOf":[true]}`, pipeline.ErrUnsupported, "beside"}, {`{"anyOf":[]}`, pipeline.ErrInvalid, "anyOf"},
		{`{"enum":[1],"maxLength":3}`, pipeline.ErrUnsupported, "beside enum"}, {`{"enum":[]}`, pipeline.ErrInvalid, "enum"}, {`{"type":"string","enum":[1]}`, pipeline.ErrInvalid, "no value"},
		{`{"enum":[1],"const":2}`, pipeline.ErrInvalid, "no value"},
		{`{"$ref":"#"}`, pipeline.ErrUnsupported, "$ref"}, {`{"$ref":"http://x/y"}`, pipeline.ErrUnsupported, "$ref"}, {`{"$ref":"#/$defs/a"}`, pipeline.ErrInvalid, "nowhere"},
		{`{"$ref":"#/$defs/a","$defs":{"a":{"type":"array","items":{"$ref":"#/$defs/a"}}}}`, pipeline.ErrUnsupported, "comes back"},
		{`{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}}`, pipeline.ErrUnsupported, "comes back"},
		{`{"type":"string","minLength":5,"maxLength":4}`, pipeline.ErrInvalid, "above"}, {`{"type":"string","maxLength":1e9}`, pipeline.ErrInvalid, "above 65536"},
		{`{"type":"string","maxLength":-1}`, pipeline.ErrInvalid, "whole number"}, {`{"type":"string","maxLength":1.5}`, pipeline.ErrInvalid, "whole number"},
		{`{"type":"array","maxItems":"3"}`, pipeline.ErrInvalid, "whole number"},
		{`{"type":"array","prefixItems":[true]}`, pipeline.ErrUnsupported, `without "items": false`}, {`{"type":"array","prefixItems":[],"items":false}`, pipeline.ErrInvalid, "no list"},
		{`{"type":"array","prefixItems":[true],"items":false,"minItems":2}`, pipeline.ErrInvalid, "above the 1"}, {`{"prefixItems":[true]}`, pipeline.ErrUnsupported, `without "type"`},
		{`{"type":"object","required":["a"],"additionalProperties":false}`, pipeline.ErrInvalid, "admitted nowhere"},
		{`{"type":"object","required":"a"}`, pipeline.ErrInvalid, "required"}, {`{"type":"object","properties":[]}`, pipeline.ErrInvalid, "properties"},
		{`{"type":"object","properties":{"a":{"type":"array","items":{"not":{}}}}}`, pipeline.ErrUnsupported, "#/properties/a/items"},
		{`{"const":"中文"}`, pipeline.ErrInvalid, "U+4E2D (Han)"}, {`{"type":"object","properties":{"名":true}}`, pipeline.ErrInvalid, "U+540D"},
		{deep, pipeline.ErrInvalid, "64 levels"}, {laughs.String(), pipeline.ErrUnsupported, "too many ways"},
		{`{"enum":["` + strings.Repeat("a", 1<<19) + `"]}`, pipeline.ErrInvalid, "longer than"},
		{`{"enum":["` + strings.Repeat("a", 1<<17) + `"]}`, pipeline.ErrInvalid, "steps"},
	} {
		began := time.Now()
		_, err := guard.NewSchema(v.Vocabulary, scriptsFor(t, "en"), []byte(c.schema))
		if !errors.Is(err, c.want) || !strings.Contains(fmt.Sprint(err), c.says) {
			t.Errorf("%.80s: %v", c.schema, err)
		}
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("%.80s: refused after %v", c.schema, d)
		}
	}
	v = assemble(t, [][]byte{nil, []byte(`"`), []byte("a")}, 0, nil)
	if _, err := guard.NewSchema(v.Vocabulary, scriptsFor(t, "en"), []byte(`{"type":"boolean"}`)); !errors.Is(err, pipeline.ErrInvalid) {
		t.Errorf("a vocabulary without true: %v", err)
	}
}

// A hostile schema costs bounded time and memory, whatever is made of it.
func TestHostileSchemas(t *testing.T) {
	v := smolLM(t)
	var branches, optionalKeys, lists []string
	for i := range 900 {
		branches = append(branches, fmt.Sprintf(`{"type":"string","maxLength":%d}`, 20+i))
		optionalKeys = append(optionalKeys, fmt.Sprintf(`"key%d":{"type":"string","maxLength":9}`, i))
		lists = append(lists, fmt.Sprintf(`"%s"`, strings.Repeat(fmt.Sprint(i%10), 1+i/20)))
	}
	nest := `{"type":"string","maxLength":5}`
	for range 15 {
		nest = `{"type":"array","maxItems":9,"items":` + nest + `}`
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	rnd := rand.New(rand.NewPCG(1, 1))
	for name, schema := range map[string]string{
		"900 strings": `{"anyOf":[` + strings.Join(branches, ",") + `]}`, "300 strings": `{"anyOf":[` + strings.Join(branches[:300], ",") + `]}`, "10 strings": `{"anyOf":[` + strings.Join(branches[:10], ",") + `]}`, "900 optional keys": `{"type":"object","properties":{` + strings.Join(optionalKeys, ",") + `}}`,
		"900 words": `{"enum":[` + strings.Join(lists, ",") + `]}`, "lists in lists": nest, "any": `{}`, "long": `{"type":"string","minLength":60000,"maxLength":65536}`,
	} {
		g, err := guard.NewSchema(v.Vocabulary, scriptsFor(t, "en"), []byte(schema))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		logits := make([]float32, v.Width())
		s := g.Follow()
		worst := time.Duration(0)
		random := newNoise(v.Width(), rnd)
		for range 300 {
			random.into(logits)
			logits[v.stop] = -1
			logits[v.ids[`"`]] = 15.9
			began := time.Now()
			if err := s.Mask(logits); err != nil {
				if !errors.Is(err, pipeline.ErrUnsupported) {
					t.Fatal(err)
				}
				t.Logf("%s: %v", name, err)
				break
			}
			worst = max(worst, time.Since(began))
			id := best(logits)
			if id < 0 || id == v.stop {
				break
			}
			if err := s.Accept(id); err != nil {
				t.Fatal(err)
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		held := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) >> 20
		t.Logf("%s: slowest mask %v, %d MiB", name, worst, held)
		if worst > 10*time.Second || held > 100 {
			t.Errorf("%s: a mask took %v, %d MiB are held", name, worst, held)
		}
		runtime.KeepAlive(s)
	}
}

// Several texts follow one grammar at the same time.
func TestGrammarIsShared(t *testing.T) {
	v := synthetic(t, false)
	g, err := guard.NewSchema(v.Vocabulary, scriptsFor(t, "en"), []byte(reportSchema))
	if err != nil {
		t.Fatal(err)
	}
	oracle := validator(t, reportSchema)
	done := make(chan string)
	for i := range 4 {
		go func() { done <- follow(t, v, g.Follow(), rand.New(rand.NewPCG(uint64(i), 3)), 30) }()
	}
	var texts []string
	for range 4 {
		text := <-done
		instance, err := jsonschema.UnmarshalJSON(bytes.NewReader([]byte(text)))
		if err != nil || oracle.Validate(instance) != nil {
			t.Errorf("%q: %v", text, err)
		}
		texts = append(texts, text)
	}
	slices.Sort(texts)
	if len(slices.Compact(texts)) != 4 {
		t.Error("the texts are the same")
	}
}

func BenchmarkSchema(b *testing.B) {
	v := smolLM(b)
	allowed := scriptsFor(b, "en")
	const text = `{"findings": [{"label": "Edema", "presence": "absent", "sentence": "There is no pulmonary edema."}, {"label": "Pneumothorax", "presence": "absent"}], "impression": "No acute finding in the chest.", "normal": true}`
	ids := v.encode(text)
	logits := make([]float32, v.Width())
	run := func(b *testing.B, g *guard.Grammar) {
		s := g.Follow()
		for _, id := range ids {
			if err := s.Mask(logits); err != nil {
				b.Fatal(err)
			}
			if err := s.Accept(id); err != nil {
				b.Fatal(err)
			}
		}
		if !s.Done() {
			b.Fatal("not done")
		}
	}
	compiled := func(b *testing.B) *guard.Grammar {
		g, err := guard.NewSchema(v.Vocabulary, allowed, []byte(reportSchema))
		if err != nil {
			b.Fatal(err)
		}
		return g
	}
	b.Run("compile", func(b *testing.B) {
		for b.Loop() {
			compiled(b)
		}
	})
	b.Run("first text", func(b *testing.B) {
		for b.Loop() {
			run(b, compiled(b))
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(ids)), "ns/token")
	})
	b.Run("later texts", func(b *testing.B) {
		g := compiled(b)
		run(b, g)
		b.ReportAllocs()
		for b.Loop() {
			run(b, g)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(ids)), "ns/token")
	})
}
