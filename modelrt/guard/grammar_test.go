package guard_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"chatxray/modelrt/guard"
	"chatxray/pipeline"
)

// randomRule makes a regular expression in the notation of grammars and in that of package regexp, which is the oracle.
func randomRule(rnd *rand.Rand, depth int) (rule, expression string, empty bool) {
	if depth == 0 {
		atoms := [][2]string{{`"a"`, "a"}, {`"bé"`, "bé"}, {`[a-c]`, "[a-c]"}, {`[^a]`, "[^a]"}, {`.`, "."}, {`"x\n"`, `x\n`}, {`[\]é-ü]`, `[\]é-ü]`}, {`"\x41\u00DF"`, "Aß"}}
		a := atoms[rnd.IntN(len(atoms))]
		return a[0], a[1], false
	}
	x, xe, x0 := randomRule(rnd, depth-1)
	y, ye, y0 := randomRule(rnd, depth-1)
	switch n := rnd.IntN(8); {
	case n < 3:
		return "(" + x + " " + y + ")", "(?:" + xe + ye + ")", x0 && y0
	case n < 5:
		return "(" + x + " | " + y + ")", "(?:" + xe + "|" + ye + ")", x0 || y0
	case n == 5 || x0:
		return "(" + x + ")?", "(?:" + xe + ")?", true
	case n == 6:
		m := [][2]string{{"*", "*"}, {"+", "+"}, {"{2}", "{2}"}, {"{0,3}", "{0,3}"}, {"{2,}", "{2,}"}, {"{1,4}", "{1,4}"}}[rnd.IntN(6)]
		return "(" + x + ")" + m[0], "(?:" + xe + ")" + m[1], m[0] == "*" || m[0] == "{0,3}"
	}
	return x + "  # a comment | (\n", xe, x0
}

// What a grammar of a regular language admits is what package regexp matches: texts that were written by it, and others near them.
func TestGrammarAgainstRegexp(t *testing.T) {
	rnd := rand.New(rand.NewPCG(21, 22))
	letters := []string{"a", "b", "c", "bé", "é", "x\n", "A", "Aß", "ü", "]", "ab", "\n", "z"}
	tokens := [][]byte{nil}
	for _, s := range append(letters, "x", "aa", "bbb", "\xC3", "b\xC3", "\xA9", "\x9F", "\xBC", "\x9Fa", "a\xC3", "\xA9\xC3") {
		tokens = append(tokens, []byte(s))
	}
	v := assemble(t, tokens, 0, nil)
	admitted, refused := 0, 0
	for range 150 {
		rule, expression, _ := randomRule(rnd, 4)
		g, err := guard.NewGrammar(v.Vocabulary, guard.EveryScript(), "root ::= "+rule)
		if err != nil {
			t.Fatalf("%s: %v", rule, err)
		}
		oracle := regexp.MustCompile(`^(?:` + expression + `)$`)
		for i := range 3 {
			text, ended := followChars(t, v, g.Follow(), rnd, 4*i)
			if !ended { // it would end by a rare chance only
				continue
			}
			if !oracle.MatchString(text) {
				t.Fatalf("%s\n%s: %q is written and does not match", rule, expression, text)
			}
			for range 10 { // something else in one place
				cut := rnd.IntN(len(text) + 1)
				for cut > 0 && cut < len(text) && text[cut]&0xC0 == 0x80 {
					cut--
				}
				other := text[:cut] + letters[rnd.IntN(len(letters))]
				if rest := []rune(text[cut:]); len(rest) > 0 {
					other += string(rest[rnd.IntN(2):])
				}
				want := oracle.MatchString(other)
				if got := accepts(v, g, other); got != want {
					t.Fatalf("%s\n%s: %q: admitted %v, matches %v", rule, expression, other, got, want)
				}
				if want {
					admitted++
				} else {
					refused++
				}
			}
		}
	}
	if admitted < 300 || refused < 300 {
		t.Errorf("%d texts admitted, %d refused: the test proves little", admitted, refused)
	}
}

// followChars is follow, with a decoder that ends where it can.
func followChars(t *testing.T, v *vocabulary, c guard.Constraint, rnd *rand.Rand, patience int) (text string, ended bool) {
	t.Helper()
	logits := make([]float32, v.Width())
	var out []int32
	for len(out) < 300 {
		for i := range logits {
			logits[i] = float32(rnd.Uint32() & 0xFFFF)
		}
		if len(out) > patience {
			logits[v.stop] = 1e9
		}
		if err := c.Mask(logits); err != nil {
			t.Fatal(err)
		}
		id := best(logits)
		if id < 0 {
			t.Fatalf("nothing may come after %q", v.text(out))
		}
		if err := c.Accept(id); err != nil {
			t.Fatal(err)
		}
		if id == v.stop {
			return v.text(out), true
		}
		out = append(out, id)
	}
	return v.text(out), false
}

// A grammar may call itself: brackets close, and never so many are opened that they could not be.
func TestGrammarRecurses(t *testing.T) {
	v := synthetic(t, false)
	g, err := guard.NewGrammar(v.Vocabulary, scriptsFor(t, "en"), `
		root  ::= value            # the whole text
		value ::= "(" value ")" value? | "[" value "]" | [a-z]+
	`)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{"(a)": true, "([abc])[x]": true, "(": false, "(a": false, "(a]": false, "a(": false, strings.Repeat("(", 100) + "a" + strings.Repeat(")", 100): true} {
		if got := accepts(v, g, text); got != want {
			t.Errorf("%.30q: %v", text, got)
		}
	}
	s := g.Follow() // a decoder that only wants to open
	logits := make([]float32, v.Width())
	depth, deepest := 0, 0
	for step := range 2000 {
		clear(logits)
		if step < 600 {
			logits[v.ids["("]] = 9
		}
		logits[v.stop], logits[v.ids[")"]] = 5, 3
		if err := s.Mask(logits); err != nil {
			t.Fatal(err)
		}
		id := best(logits)
		if id < 0 {
			t.Fatalf("a dead end within %d brackets", depth)
		}
		if err := s.Accept(id); err != nil {
			t.Fatal(err)
		}
		if id == v.stop {
			break
		}
		depth += bytes.Count(v.tokens[id], []byte("(")) - bytes.Count(v.tokens[id], []byte(")"))
		deepest = max(deepest, depth)
	}
	if !s.Done() || depth != 0 || deepest < 200 || deepest > 256 {
		t.Errorf("%d brackets in one another, %d left open, done %v", deepest, depth, s.Done())
	}
}

// A vocabulary without some bytes: what it cannot finish is not begun, in strings as in the guard.
func TestGrammarHasNoDeadEnd(t *testing.T) {
	full := synthetic(t, false)
	rnd := rand.New(rand.NewPCG(31, 32))
	schema := []byte(`{"type":"object","properties":{"a":{"type":"string","maxLength":9},"b":{"type":"array","items":{"type":"string","maxLength":3}}},"required":["a","b"]}`)
	oracle := validator(t, string(schema))
	for range 12 {
		tokens := make([][]byte, 0, len(full.tokens))
		gone := 0
		for i, b := range full.tokens {
			if len(b) == 1 && b[0] >= 0x80 && rnd.IntN(3) > 0 {
				gone++
				b = nil
			}
			if i < 4000 {
				tokens = append(tokens, b)
			}
		}
		v := assemble(t, tokens, 2, nil)
		g, err := guard.NewSchema(v.Vocabulary, scriptsFor(t, "en"), schema)
		if err != nil {
			t.Fatal(err)
		}
		scripts := newGuard(t, v, "en")
		for range 40 {
			text := follow(t, v, guard.All{scripts.Follow(), g.Follow()}, rnd, 30)
			instance, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
			if err != nil || oracle.Validate(instance) != nil {
				t.Fatalf("%q: %v", text, err)
			}
		}
		if gone < 50 {
			t.Fatalf("only %d bytes are gone", gone)
		}
	}
}

// With every script allowed a string still is one of JSON: no control character stands in it.
func TestSchemaInEveryScript(t *testing.T) {
	v := synthetic(t, true)
	rnd := rand.New(rand.NewPCG(41, 42))
	g, err := guard.NewSchema(v.Vocabulary, guard.EveryScript(), []byte(`{"type":"array","items":{"type":"string","maxLength":4},"minItems":40}`))
	if err != nil {
		t.Fatal(err)
	}
	foreignSeen := false
	for range 30 {
		text := follow(t, v, g.Follow(), rnd, 400)
		if _, err := jsonschema.UnmarshalJSON(strings.NewReader(text)); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		foreignSeen = foreignSeen || strings.ContainsFunc(text, foreign)
	}
	if !foreignSeen {
		t.Error("no foreign character came, though all are allowed")
	}
	for c := range rune(0x20) {
		if accepts(v, g, `["`+string(c)+strings.Repeat(`","`, 39)+`"]`) {
			t.Errorf("%U stands in a string", c)
		}
	}
}

func TestGrammarRefuses(t *testing.T) {
	v := synthetic(t, false)
	for _, c := range []struct {
		source string
		want   error
		says   string
	}{
		{``, pipeline.ErrInvalid, "root is not there"}, {`root = "a"`, pipeline.ErrInvalid, "::="}, {`root ::= "a`, pipeline.ErrInvalid, "missing"}, {`root ::= [a`, pipeline.ErrInvalid, "missing"},
		{`root ::= (a`, pipeline.ErrInvalid, "not closed"}, {`root ::= a`, pipeline.ErrInvalid, "a is not there"}, {"root ::= \"a\"\nroot ::= \"b\"", pipeline.ErrInvalid, "line 2"},
		{`root ::= "a"{3,2}`, pipeline.ErrInvalid, "backwards"}, {`root ::= "a"{x}`, pipeline.ErrInvalid, "no number"}, {`root ::= "a"{2`, pipeline.ErrInvalid, "not closed"},
		{`root ::= "a"{100000}`, pipeline.ErrInvalid, "no number up to"}, {`root ::= [b-a]`, pipeline.ErrInvalid, "backwards"}, {`root ::= "\q"`, pipeline.ErrInvalid, `\q`}, {`root ::= "\xFF"`, pipeline.ErrInvalid, `\x`},
		{`root ::= "\uD800"`, pipeline.ErrInvalid, `\u`}, {`root ::= ]`, pipeline.ErrInvalid, "no meaning"}, {"root ::= \"a\n\"", pipeline.ErrInvalid, "missing"}, {`root ::= "a"*+?*`, pipeline.ErrInvalid, "repetitions"},
		{"root ::= \"\xFF\"", pipeline.ErrInvalid, "UTF-8"}, {`root ::= "中"`, pipeline.ErrInvalid, "U+4E2D (Han)"}, {`root ::= [一-鿿]`, pipeline.ErrInvalid, "no text"},
		{`root ::= root "a" | "b"`, pipeline.ErrUnsupported, "root begins with itself"}, {`root ::= "a"? b` + "\n" + `b ::= root`, pipeline.ErrUnsupported, "begins with itself"},
		{`root ::= ("a"?)*`, pipeline.ErrUnsupported, "may be empty"}, {`root ::= a+` + "\n" + `a ::= "x"*`, pipeline.ErrUnsupported, "may be empty"},
		{`root ::= "a" root`, pipeline.ErrInvalid, "no text"}, {`root ::= ` + strings.Repeat("(", 100) + `"a"` + strings.Repeat(")", 100), pipeline.ErrInvalid, "groups"},
		{`root ::= ` + strings.Repeat(`"aaaa" `, 1<<14), pipeline.ErrInvalid, "steps"}, {`root ::= "` + strings.Repeat("a", 1<<19), pipeline.ErrInvalid, "longer"},
	} {
		began := time.Now()
		_, err := guard.NewGrammar(v.Vocabulary, scriptsFor(t, "en"), c.source)
		if !errors.Is(err, c.want) || !strings.Contains(fmt.Sprint(err), c.says) {
			t.Errorf("%.60s: %v", c.source, err)
		}
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("%.60s: refused after %v", c.source, d)
		}
	}
}

// FuzzGrammar and FuzzSchema: whatever they are given, a source is refused or followed without a dead end, in bounded time.
func FuzzGrammar(f *testing.F) {
	for _, s := range []string{`root ::= "a" [b-z]{1,3} | x?` + "\n" + `x ::= "(" root ")"`, `root ::= .+ # x`, `root ::= (("a" | "b"){2,} "é")*`, `root ::= [^"]{0,9} "\n"`} {
		f.Add(s, uint64(1))
	}
	v := synthetic(f, true)
	allowed := scriptsFor(f, "en")
	f.Fuzz(func(t *testing.T, source string, seed uint64) {
		if g, err := guard.NewGrammar(v.Vocabulary, allowed, source); err == nil {
			walk(t, v, g, seed)
		}
	})
}

func FuzzSchema(f *testing.F) {
	for _, s := range []string{reportSchema, `{}`, `{"anyOf":[{"type":"string"},{"enum":[1,"ab","ac"]}]}`, `{"type":["array","object"],"items":{"$ref":"#/$defs/x"},"$defs":{"x":{"const":null}}}`} {
		f.Add(s, uint64(1))
	}
	v := synthetic(f, false)
	allowed := scriptsFor(f, "en")
	f.Fuzz(func(t *testing.T, source string, seed uint64) {
		if g, err := guard.NewSchema(v.Vocabulary, allowed, []byte(source)); err == nil {
			walk(t, v, g, seed)
		}
	})
}

func walk(t *testing.T, v *vocabulary, g *guard.Grammar, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	logits := make([]float32, v.Width())
	s := g.Follow()
	for range 30 {
		for i := range logits {
			logits[i] = float32(rnd.Uint32() & 0xFFFF)
		}
		if err := s.Mask(logits); err != nil {
			if !errors.Is(err, pipeline.ErrUnsupported) {
				t.Fatal(err)
			}
			return
		}
		id := best(logits)
		if id < 0 {
			t.Fatal("a dead end")
		}
		if err := s.Accept(id); err != nil {
			t.Fatal(err)
		}
		if id == v.stop {
			return
		}
	}
}
