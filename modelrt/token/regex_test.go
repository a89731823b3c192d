package token

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"chatxray/pipeline"
)

// TestExpressions: expressions cut as Oniguruma does within Hugging Face tokenizers (make_golden.py), or are refused.
func TestExpressions(t *testing.T) {
	raw, err := os.ReadFile("testdata/regex.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Texts    []string
		Patterns []struct {
			Pattern string
			Cut     [][]string
		}
	}
	if err := json.Unmarshal(raw, &golden); err != nil {
		t.Fatal(err)
	}
	refused := 0
	for _, p := range golden.Patterns {
		e, err := compile(p.Pattern)
		if err != nil {
			if refused++; !errors.Is(err, pipeline.ErrUnsupported) {
				t.Errorf("%s: %v", p.Pattern, err)
			}
			t.Logf("refused: %v", err)
			continue
		}
		if p.Cut == nil {
			t.Errorf("%s: not an expression for the oracle, and taken here", p.Pattern)
			continue
		}
		for i, text := range golden.Texts {
			got := []string{}
			e.each(text, func(from, to int, _ bool) { got = append(got, text[from:to]) })
			if !slices.Equal(got, p.Cut[i]) {
				t.Errorf("%s on %q: %q, want %q", p.Pattern, text, got, p.Cut[i])
			}
		}
	}
	if refused > 4 {
		t.Errorf("%d of %d expressions refused", refused, len(golden.Patterns))
	}
}

func TestExpressionsRefused(t *testing.T) {
	for pattern, says := range map[string]string{
		`(?<=a)b`: "(?<=", `(?<n>a)`: "(?<n", `\bword`: `\b`, `^a`: "^", `a$`: "$", `a*`: "nothing", `(?:a*)*b`: "nothing", `a|`: "nothing", `[[:alpha:]]`: "[[", `[a&&b]`: "&&",
		`a)`: ")", `(a`: "( without )", `[a`: "[ without ]", `\p{Greek}`: "Greek", `\p{Cn}`: "Cn", `\p{s}`: `\p{s}`, `\pL`: `\p without`, `a{3,1}`: "repeats nothing", `a{9999}`: "9999", `\1`: `\1`, `\`: `\ at the end`, `*a`: "*",
		`\xFF`: `\xFF`, `(?i)a`: "(?i)", `[z-a]`: "range", strings.Repeat("(", 40) + "a" + strings.Repeat(")", 40): "groups", "(?:(?:(?:a{200}){200}){200})": "too large", `a{b`: "{ without }", `\x{110000}`: "110000",
	} {
		_, err := compile(pattern)
		if !errors.Is(err, pipeline.ErrUnsupported) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", pattern, err, says)
		}
	}
	if _, err := compile(strings.Repeat("a", maxExpression+1)); !errors.Is(err, pipeline.ErrInvalid) {
		t.Errorf("a long one: %v", err)
	}
}

// TestExpressionsEnd: nothing takes more than about the product of the lengths of expression and text.
func TestExpressionsEnd(t *testing.T) {
	for _, pattern := range []string{`(?:a+)+b`, `(?:a|aa)+b`, `(?:a|a|a|a)+c`, `(?:a+b?)+(?:a+b?)+c`, `(?=(?:a+)+b)a`, `(?:(?:a{1,3}){1,3}){1,3}b`} {
		e, err := compile(pattern)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		n := 0
		e.each(strings.Repeat("a", 20_000), func(int, int, bool) { n++ })
		if d := time.Since(start); d > 10*time.Second || n != 1 {
			t.Errorf("%s: %v, %d parts", pattern, d, n)
		}
	}
}

// TestNotesChangeNothing: what has failed is noted so that it is not tried again; the matches are those without notes.
func TestNotesChangeNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 9))
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	var pattern func(depth int) string
	pattern = func(depth int) string {
		if depth == 0 {
			return pick("a", "b", "[ab]", ".", "aa", "ba")
		}
		inner := func() string { return pattern(depth - 1) }
		return pick(inner()+inner(), "(?:"+inner()+"|"+inner()+")", "(?:"+inner()+")"+pick("+", "*", "?", "+?", "*?", "{1,2}", "++"), "(?="+inner()+inner()+")"+inner(), "(?!"+inner()+")"+inner(), "(?>"+inner()+")"+inner())
	}
	defer func(n int) { noteAfter = n }(noteAfter)
	compared := 0
	for range 8_000 {
		e, err := compile(pattern(3))
		if err != nil {
			continue
		}
		text := strings.Map(func(rune) rune { return rune("aabc"[r.IntN(4)]) }, strings.Repeat("x", 24))
		var with, without []int
		noteAfter = 0
		e.each(text, func(from, to int, _ bool) { with = append(with, from, to) })
		noteAfter = 1 << 30
		e.each(text, func(from, to int, _ bool) { without = append(without, from, to) })
		if compared++; !slices.Equal(with, without) {
			t.Fatalf("on %q: %v with notes, %v without", text, with, without)
		}
	}
	if compared < 2000 {
		t.Errorf("only %d expressions compared", compared)
	}
}

func FuzzExpression(f *testing.F) {
	f.Add(gpt2, "it's 5  x")
	f.Add(qwen, "\r\n'S 肺 ")
	f.Add(`(?=(?:a|b++)+?c)[^\s\p{L}]?a{1,3}`, "abcab")
	f.Fuzz(func(t *testing.T, pattern, text string) {
		if len(pattern) > 60 || len(text) > 300 {
			return
		}
		e, err := compile(pattern)
		if err != nil {
			return
		}
		done := 0
		e.each(wellFormed(text), func(from, to int, _ bool) {
			if from != done || to <= from {
				t.Errorf("%s on %q: a part from %d to %d after %d", pattern, text, from, to, done)
			}
			done = to
		})
		if done != len(wellFormed(text)) {
			t.Errorf("%s on %q: the parts end at %d", pattern, text, done)
		}
	})
}
