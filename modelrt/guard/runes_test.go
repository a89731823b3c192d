package guard

import (
	"compress/gzip"
	"encoding/json"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// run reads bytes from the border; ok is false where they leave the automaton.
func (a *automaton) run(text string) (s int16, ok bool) {
	for i := range len(text) {
		if s = a.next[s][text[i]]; s == dead {
			return s, false
		}
	}
	return s, true
}

// Every code point, in the form that utf8 gives it, passes if and only if it is in the set; so do the forms that are no UTF-8, never.
func TestAutomatonIsTheSet(t *testing.T) {
	for _, set := range []runes{anywhere, union(anywhere, tabled(unicode.Latin)), tabled(unicode.Han), everyRune, {{0x10FFFF, 0x10FFFF}}, {{0x800, 0x800}}, {}} {
		a := newAutomaton(set)
		wrong := 0
		for c := rune(0); c <= utf8.MaxRune && wrong < 10; c++ {
			s, ok := a.run(string(c))
			if utf8.ValidRune(c) && (ok && s == border) != set.has(c) || !utf8.ValidRune(c) && ok && s == border != set.has(utf8.RuneError) {
				t.Errorf("%U: passes %v", c, ok)
				wrong++
			}
		}
		// What no encoder writes: all sequences of two bytes, and of three and four with all leads.
		for lead := 0x80; lead < 0x100; lead++ {
			for b := range 0x100 {
				for _, rest := range []string{"", "\x80", "\xBF", "\x80\x80", "\xBF\xBF"} {
					text := string([]byte{byte(lead), byte(b)}) + rest
					if s, ok := a.run(text); ok && s == border && !utf8.ValidString(text) {
						t.Errorf("%x passes", text)
					}
				}
			}
		}
		t.Logf("%d spans, %d states", len(set), len(a.next))
	}
}

// Any bytes: the automaton stands at a border exactly after UTF-8 whose characters are all allowed by the tables of package unicode,
// and within a character exactly where some allowed character begins so.
func FuzzAutomaton(f *testing.F) {
	latin, err := ScriptsFor("en")
	if err != nil {
		f.Fatal(err)
	}
	a := newAutomaton(latin.set)
	begins := map[string]bool{}
	for c := range rune(utf8.MaxRune + 1) {
		if utf8.ValidRune(c) && latin.set.has(c) {
			for s := string(c); len(s) > 1; {
				s = s[:len(s)-1]
				begins[s] = true
			}
		}
	}
	for _, s := range []string{"a", "é\xE4", "\xC3", "中", "\xF0\x9F\x98", "\xE2\x80\x93", "\xED\xA0\x80", "β\xC2", "\xE2\x82"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		text := string(b)
		whole, rest := 0, text
		for rest != "" {
			c, n := utf8.DecodeRuneInString(rest)
			if c == utf8.RuneError && n == 1 {
				break
			}
			if !byTables(c) {
				break
			}
			whole, rest = whole+n, rest[n:]
		}
		s, ok := a.run(text)
		switch {
		case rest == "" && (!ok || s != border):
			t.Errorf("%q: all of it is allowed, and the automaton is at %d, %v", text, s, ok)
		case rest != "" && ok != begins[rest]:
			t.Errorf("%q: after %d bytes %x may begin a character: %v, the automaton says %v", text, whole, rest, begins[rest], ok)
		case rest != "" && ok && s == border:
			t.Errorf("%q: at a border within a character", text)
		}
	})
}

// byTables is what an English text may hold, by tables and blocks instead of spans.
func byTables(c rune) bool {
	return c <= 0xFFFF && !(c >= 0xFF00 && c <= 0xFFEF) && unicode.Is(unicode.Latin, c) || latinAccents.has(c) || anywhere.has(c)
}

func TestRunes(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 200 {
		make := func() (r runes, in map[rune]bool) {
			in = map[rune]bool{}
			var parts []runes
			for range rnd.IntN(6) {
				lo := rune(rnd.IntN(60))
				hi := lo + rune(rnd.IntN(9))
				parts = append(parts, runes{{lo, hi}})
				for c := lo; c <= hi; c++ {
					in[c] = true
				}
			}
			return union(parts...), in
		}
		a, inA := make()
		b, inB := make()
		u, n, m := union(a, b), a.and(b), a.minus(b)
		for c := range rune(80) {
			if u.has(c) != (inA[c] || inB[c]) || n.has(c) != (inA[c] && inB[c]) || m.has(c) != (inA[c] && !inB[c]) {
				t.Fatalf("%v, %v: %U in %v, %v, %v", a, b, c, u, n, m)
			}
		}
	}
}

// unicodeGolden is testdata/scripts.json.gz, made by scripts.py from fontTools' tables: Unicode's Script and Script_Extensions.
func unicodeGolden(t *testing.T) (script []string, extensions map[rune][]string) {
	t.Helper()
	f, err := os.Open("testdata/scripts.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var g struct {
		Spans, Extensions [][3]any
	}
	if err := json.NewDecoder(z).Decode(&g); err != nil {
		t.Fatal(err)
	}
	script, extensions = make([]string, utf8.MaxRune+1), map[rune][]string{}
	letters := 0
	each := func(list [][3]any, put func(c rune, v string)) {
		for _, s := range list {
			for c := rune(s[0].(float64)); c <= rune(s[1].(float64)); c++ {
				put(c, s[2].(string))
			}
		}
	}
	each(g.Spans, func(c rune, v string) { script[c], letters = v, letters+1 })
	each(g.Extensions, func(c rune, v string) { extensions[c] = strings.Fields(v) })
	if letters < 140_000 || len(extensions) < 400 {
		t.Fatalf("%d scripts, %d extensions", letters, len(extensions))
	}
	return script, extensions
}

// What each script allows, against fontTools: every letter of the script (fullwidth forms and other planes apart), and nothing that
// belongs to other scripts only.
func TestScriptsAgainstFontTools(t *testing.T) {
	script, extensions := unicodeGolden(t)
	parts := map[string][]string{"Hans": {"Hani"}, "Hant": {"Hani"}, "Jpan": {"Hani", "Hira", "Kana"}, "Kore": {"Hang", "Hani"}}
	given := make([]bool, utf8.MaxRune+1) // a category by Go's Unicode
	for c := range union(tabled(unicode.L, unicode.M, unicode.N, unicode.P, unicode.S, unicode.Z, unicode.Cc, unicode.Cf)).all() {
		given[c] = true
	}
	for code := range writings {
		s, err := ScriptsOf(code)
		if err != nil {
			t.Fatal(err)
		}
		own := parts[code]
		if own == nil {
			own = []string{code}
		}
		wrong := 0
		for c := rune(0); c <= 0xE0FFF && wrong < 5; c++ { // beyond is private use
			assigned, of := given[c], script[c]
			allows, letter := s.Allows(c), slices.Contains(own, of)
			if !assigned && !allows {
				continue
			}
			left := !keepsWide[code] && wide.has(c)
			switch {
			case !assigned:
				t.Errorf("%s allows %U, which is nothing", code, c)
			case letter && !left && !allows:
				t.Errorf("%s refuses its letter %U", code, c)
			case letter && left && allows:
				t.Errorf("%s allows %U", code, c)
			case keepsWide[code] && of == "Latn" && wide.has(c): // fullwidth Latin letters belong to East Asian typography
				continue
			case allows && !letter && of != "Zyyy" && of != "Zinh" && !anywhere.has(c) && !slices.ContainsFunc(extensions[c], func(x string) bool { return slices.Contains(own, x) }):
				t.Errorf("%s allows %U of %s", code, c, of)
			case allows && !anywhere.has(c) && (of == "Zyyy" || of == "Zinh") && extensions[c] != nil && !slices.ContainsFunc(extensions[c], func(x string) bool { return slices.Contains(own, x) }):
				t.Errorf("%s allows %U, which is of %v", code, c, extensions[c])
			default:
				continue
			}
			wrong++
		}
	}
	for c := range anywhere.all() {
		if of := script[c]; of != "Zyyy" && of != "Latn" && of != "Grek" {
			t.Errorf("every text may hold %U of %s", c, of)
		}
		if x := extensions[c]; x != nil && !slices.Contains(x, "Latn") && c != 0x2016 {
			t.Errorf("every text may hold %U, which is of %v", c, x)
		}
	}
}

func (r runes) all() func(func(rune) bool) {
	return func(yield func(rune) bool) {
		for _, s := range r {
			for c := s.lo; c <= s.hi; c++ {
				if !yield(c) {
					return
				}
			}
		}
	}
}
