package guard_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"chatxray/modelrt/guard"
	"chatxray/pipeline"
)

// foreign is the oracle of the tests, by the tables of package unicode and by block: what an English or German text must not hold.
func foreign(c rune) bool {
	switch {
	case c == '\n' || c == '\t' || c >= ' ' && c <= '~':
		return false
	case unicode.IsControl(c), unicode.Is(unicode.Cf, c), unicode.Is(unicode.Co, c), unicode.Is(unicode.Cs, c), unicode.Is(unicode.Zl, c), unicode.Is(unicode.Zp, c):
		return true
	case c >= 0x2E80 && c <= 0xA4CF, c >= 0xFE00 && c <= 0xFE6F, c >= 0xFF00, c >= 0x2600 && c <= 0x27BF, c == utf8.RuneError: // CJK and its punctuation, wide forms, symbols, other planes
		return true
	}
	return !unicode.In(c, unicode.Latin, unicode.Greek, unicode.Common, unicode.Inherited)
}

// wants scores tokens by how much of them is not ASCII: a decoder that wants Chinese, or parts of it, and nothing else.
func wants(v *vocabulary) (logits []float32, foreignIDs []int32) {
	logits = make([]float32, v.Width())
	for i, b := range v.tokens {
		for _, c := range b {
			if c >= 0x80 {
				logits[i] += 3
			}
		}
		if logits[i] > 0 {
			foreignIDs = append(foreignIDs, int32(i))
		}
	}
	return logits, foreignIDs
}

// decode rigs a decoder: at each step some of its favourites, or every token, get a random push.
func decode(t *testing.T, v *vocabulary, g *guard.Guard, steps int, seed uint64) []int32 {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 1))
	base, favourites := wants(v)
	if len(favourites) < 500 {
		t.Fatalf("only %d tokens that are not ASCII", len(favourites))
	}
	logits := make([]float32, v.Width())
	random := newNoise(v.Width(), rnd)
	state := guard.State(0)
	var pushed []int32 // what is pushed is above all that is not
	if g != nil {
		state = g.Start()
	}
	out := make([]int32, 0, steps)
	for step := range steps {
		pushed = pushed[:0]
		push := func(id int, by float32) {
			logits[id] += 1000 + by
			pushed = append(pushed, int32(id))
		}
		if step%50 == 0 { // wholly random
			random.into(logits)
		} else {
			copy(logits, base)
			for range 100 {
				push(int(favourites[rnd.IntN(len(favourites))]), 20*rnd.Float32())
			}
		}
		if step%7 == 1 { // any token, so that the text also goes where no favourite leads
			for range 20 {
				push(rnd.IntN(len(logits)), 100)
			}
		}
		if g != nil {
			g.Mask(state, logits)
		}
		id := int32(-1)
		for _, i := range pushed {
			if logits[i] > 0 && (id < 0 || logits[i] > logits[id]) {
				id = i
			}
		}
		if id < 0 {
			id = best(logits)
		}
		if id < 0 {
			t.Fatalf("step %d: nothing may come after %q", step, tail(v.text(out)))
		}
		if g != nil {
			next, ok := g.Next(state, id)
			if !ok {
				t.Fatalf("step %d: Mask leaves token %d, %q, and Next refuses it", step, id, v.tokens[id])
			}
			state = next
		}
		if int(id) < len(v.tokens) {
			out = append(out, id)
		} else if g != nil {
			t.Fatalf("step %d: token %d is padding", step, id)
		}
	}
	return out
}

func tail(s string) string { return s[max(0, len(s)-40):] }

// The rigged decoder gets no Chinese out in 100,000 tokens, and what it gets out is UTF-8.
func TestNothingForeignComesOut(t *testing.T) {
	vocabularies(t, func(t *testing.T, v *vocabulary) {
		allowed := scriptsFor(t, "en", "de")
		rigged := v.text(decode(t, v, nil, 200, 1))
		if utf8.ValidString(rigged) || !strings.ContainsFunc(rigged, foreign) {
			t.Fatalf("without a guard the decoder is not foreign: %q", tail(rigged))
		}
		if allowed.Check(rigged) == nil {
			t.Error("Check lets it pass")
		}
		g := newGuard(t, v, "en", "de")
		text := v.text(decode(t, v, g, 100_000, 2))
		for len(text) > 0 && !utf8.FullRuneInString(text[max(0, len(text)-3):]) { // the last token may have begun a character
			text = text[:len(text)-1]
		}
		for len(text) > 0 {
			r, n := utf8.DecodeLastRuneInString(text)
			if r != utf8.RuneError || n != 1 {
				break
			}
			text = text[:len(text)-1]
		}
		if !utf8.ValidString(text) {
			t.Error("the text is not UTF-8")
		}
		counts := map[rune]int{}
		for _, c := range text {
			counts[c]++
		}
		for c, n := range counts {
			if foreign(c) {
				t.Errorf("%U (%c) came out %d times", c, c, n)
			}
		}
		if err := allowed.Check(text); err != nil {
			t.Error(err)
		}
		if len(counts) < 60 {
			t.Errorf("only %d different characters: the test proves little", len(counts))
		}
		t.Logf("%d bytes, %d different characters, %d beyond ASCII: %.60q", len(text), len(counts), strings.Count(strings.Map(func(c rune) rune {
			if c >= 0x80 {
				return 'x'
			}
			return -1
		}, text), "x"), text[len(text)/2:])
	})
}

// Texts as reports have them.
var reports = []string{
	"There is no pleural effusion. The heart is of normal size. No pneumothorax. Impression: no acute finding.",
	"Opacity of 2.5 × 3 cm at the right base; β-blocker, 37.5 °C, 15 µm, SpO₂ ≥ 92 %, pH 7.4 ± 0.1, T1–T12, “unchanged”, patient’s, 5′ … • item\n\n- AP/PA (1/2) [x] <ref> 50–60% ½ m² → improved.",
	"Die Lunge ist frei belüftet. Kein Pleuraerguss, Größe des Herzens grenzwertig; „unverändert“. Übergröße, Straße, ÄÖÜ.",
	"Le cœur est de taille normale. Pas d’épanchement à gauche : œdème « modéré », naïf, ça.",
	"El corazón es de tamaño normal; ¿derrame? ¡No! mañana.",
	"Serce wielkości prawidłowej, płuca bez zmian ogniskowych, przepona gładka; źrenice, żebra, ćwiczenie, łuk.",
	"Kalp boyutu normal, akciğerler doğal görünümde; İstanbul, şüpheli, çizgi, ığdır.",
	"Tim không to, phổi hai bên sáng đều, không thấy tràn dịch màng phổi.",
	"Hjärtat är normalstort. Inget pneumotorax på vänster sida; æøå, Þór, ß.",
}

// The guard leaves the ids of ordinary texts alone: whatever the tokenizer makes of them may come, token by token.
func TestOrdinaryTextPasses(t *testing.T) {
	vocabularies(t, func(t *testing.T, v *vocabulary) {
		g := newGuard(t, v, "en")
		for _, s := range reports {
			state := g.Start()
			for i, id := range v.encode(s) {
				next, ok := g.Next(state, id)
				if !ok {
					t.Errorf("token %d, %q, of %.40q is refused", i, v.tokens[id], s)
					break
				}
				state = next
			}
			if state != g.Start() {
				t.Errorf("after %.40q the guard is within a character", s)
			}
			if err := g.Scripts().Check(s); err != nil {
				t.Error(err)
			}
		}
	})
}

// Where the best token is allowed, the guard changes nothing: a decoder that writes a report writes the same one.
func TestGreedyIsUntouched(t *testing.T) {
	v := smolLM(t)
	g := newGuard(t, v, "en")
	rnd := rand.New(rand.NewPCG(3, 4))
	logits := make([]float32, v.Width())
	random := newNoise(v.Width(), rnd)
	for _, s := range reports {
		state := g.Start()
		for _, id := range append(v.encode(s), v.stop) {
			random.into(logits)
			logits[id] = 30
			g.Mask(state, logits)
			if got := best(logits); got != id || logits[id] != 30 {
				t.Fatalf("%q in the place of %q", v.tokens[got], v.tokens[id])
			}
			state, _ = g.Next(state, id)
		}
	}
}

// Foreign scripts come through where a language brings them, and only these.
func TestEachLanguageItsScript(t *testing.T) {
	texts := map[string]string{
		"ru": "Лёгкие без очаговых изменений, сердце не увеличено; № 5, “да”.", "el": "Η καρδιά είναι φυσιολογική· όχι υγρό.",
		"zh": "心影大小正常，未见胸腔积液（右侧）。", "ja": "心臓の大きさは正常です。カテーテル、ー「」１２。", "ko": "심장 크기는 정상이며, 흉수는 없음.",
		"ar": "القلب طبيعي الحجم، لا يوجد انصباب؟ ١٢٣ ـ", "fa": "می\u200cشود، قلب", "he": "הלב תקין.", "th": "หัวใจปกติ", "hi": "हृदय सामान्य है।",
		"uk": "Легені без змін, серце не збільшене; її.", "sr-Latn": "Srce nije uvećano, pluća čista.", "sr": "Срце није увећано.", "vi": reports[7], "en": reports[1],
	}
	for tag, text := range texts {
		s := scriptsFor(t, tag)
		if err := s.Check(text + " CT 5 mm, 37 °C"); err != nil {
			t.Errorf("%s: %v", tag, err)
		}
		for other, foreignText := range texts {
			o := scriptsFor(t, other)
			if o.String() == s.String() || s.String() == "Kore" || s.String() == "Jpan" || strings.HasPrefix(other, "sr-Latn") || other == "en" {
				continue
			}
			if err := s.Check(foreignText); err == nil && !(other == "vi" && o.String() == s.String()) {
				t.Errorf("a text in %s passes for %s", other, tag)
			}
		}
	}
	v := synthetic(t, false)
	zh, err := guard.New(v.Vocabulary, scriptsFor(t, "zh"))
	if err != nil {
		t.Fatal(err)
	}
	text := v.text(decode(t, v, zh, 3000, 9))
	if !strings.ContainsFunc(text, func(c rune) bool { return unicode.Is(unicode.Han, c) }) {
		t.Error("a Chinese guard lets no Chinese pass")
	}
}

func TestScriptsRefuse(t *testing.T) {
	for tag, want := range map[string]error{"": pipeline.ErrInvalid, "englisch?": pipeline.ErrInvalid, "art-x-klingon": pipeline.ErrUnknown, "chr": pipeline.ErrUnknown} {
		if _, err := guard.ScriptsFor(tag); !errors.Is(err, want) {
			t.Errorf("%q: %v", tag, err)
		}
	}
	if _, err := guard.ScriptsOf("latin"); !errors.Is(err, pipeline.ErrUnknown) || !strings.Contains(err.Error(), "Latn") {
		t.Error(err)
	}
	if _, err := guard.ScriptsOf(); !errors.Is(err, pipeline.ErrInvalid) {
		t.Error(err)
	}
	err := scriptsFor(t, "en").Check("The heart 心 is normal.")
	if !errors.Is(err, pipeline.ErrModel) || !strings.Contains(err.Error(), "U+5FC3 (Han) at byte 10") || strings.Contains(err.Error(), "heart") {
		t.Error(err)
	}
	for _, s := range []string{"a\xFFb", "\xE4\xB8", "x\uFFFD", "a\u200bb", "\u202eabc", "１２", "Ａ", "😀", "✓", "、", "\x00", "\r", "\u00ad", "\ue000"} {
		if scriptsFor(t, "en", "de", "el", "ru").Check(s) == nil {
			t.Errorf("%q passes", s)
		}
	}
}

// A vocabulary that lacks a byte never leads into a character that it cannot finish.
func TestNoDeadEnd(t *testing.T) {
	v := assemble(t, [][]byte{nil, []byte("a"), []byte("\xC3"), []byte("\xA9x"), []byte("\xE2\x82"), []byte("\xE2"), []byte("\x80"), []byte("b\xE2"), []byte("\xE2\x80"), []byte("c\xC3\xA9\xC3"), []byte("\xC2")}, 0, nil)
	g := newGuard(t, v, "en")
	for text, want := range map[string]bool{
		"a": true, "\xC3": true, "c\xC3\xA9\xC3": true,
		"\xC2":     true,  // © can be finished
		"\xE2\x82": true,  // U+2080 can
		"\xE2\x80": false, // U+2000 and U+2029 are not allowed
		"\xE2":     false, // only 80 goes on
		"b\xE2":    false,
		"\xA9x":    false, "\x80": false,
	} {
		if got := g.Allows(g.Start(), v.ids[text]); got != want {
			t.Errorf("%q allowed: %v", text, got)
		}
	}
	state, _ := g.Next(g.Start(), v.ids["\xC3"])
	logits := make([]float32, v.Width())
	g.Mask(state, logits)
	for id, l := range logits {
		if allowed := !math.IsInf(float64(l), -1); allowed != (id == int(v.ids["\xA9x"]) || id == int(v.ids["\x80"])) { // é, À
			t.Errorf("within a character token %d allowed: %v", id, allowed)
		}
	}
	if _, err := guard.New(assembleBare(t, []byte("中"), []byte("\xC3")), scriptsFor(t, "en")); !errors.Is(err, pipeline.ErrInvalid) {
		t.Errorf("a vocabulary without Latin letters: %v", err)
	}
}

func assembleBare(t *testing.T, tokens ...[]byte) *guard.Vocabulary {
	t.Helper()
	v, err := guard.NewVocabulary(tokens, len(tokens), nil)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestVocabularyRefuses(t *testing.T) {
	a := [][]byte{[]byte("a")}
	for _, err := range []error{
		second(guard.NewVocabulary(nil, 1, nil)), second(guard.NewVocabulary(a, 0, nil)), second(guard.NewVocabulary(a, 1<<30, nil)),
		second(guard.NewVocabulary(a, 1, []int32{1})), second(guard.NewVocabulary(a, 1, []int32{-1})), second(guard.NewVocabulary([][]byte{make([]byte, 1<<20)}, 1, nil)),
	} {
		if !errors.Is(err, pipeline.ErrInvalid) {
			t.Error(err)
		}
	}
}

func second[A any](_ A, err error) error { return err }

func TestFollower(t *testing.T) {
	v := synthetic(t, true)
	g := newGuard(t, v, "en")
	var f guard.Constraint = g.Follow()
	e := v.ids["é"]
	if err := f.Accept(e); err != nil || !f.Done() {
		t.Error(err)
	}
	if err := f.Accept(v.ids["。"]); !errors.Is(err, pipeline.ErrInvalid) {
		t.Error(err)
	}
	if err := f.Accept(int32(0xC3 + 3)); err != nil || f.Done() {
		t.Errorf("%v, done within a character: %v", err, f.Done())
	}
	logits := make([]float32, v.Width())
	if err := f.Mask(logits); err != nil || !math.IsInf(float64(logits[v.stop]), -1) || !math.IsInf(float64(logits[0]), -1) {
		t.Error("a text may end within a character")
	}
	if err := f.Accept(int32(0xA9 + 3)); err != nil || !f.Done() {
		t.Error(err)
	}
	if f.Accept(-1) == nil || f.Accept(int32(len(v.tokens))) == nil {
		t.Error("a token that is not there is accepted")
	}
	if err := f.Accept(v.stop); err != nil || !f.Done() {
		t.Error(err)
	}
}

// BenchmarkGuard tells what a guard costs: made once for a bundle and its languages, then a mask a token.
func BenchmarkGuard(b *testing.B) {
	b.Run("SmolLM2, 49152 tokens", func(b *testing.B) { benchmarkGuard(b, smolLM(b)) })
	b.Run("synthetic, 152000 tokens, a third Chinese", func(b *testing.B) { benchmarkGuard(b, large(b)) })
}

// large is a vocabulary of the size of Qwen's.
func large(b *testing.B) *vocabulary {
	rnd := rand.New(rand.NewPCG(1, 1))
	base := synthetic(b, false)
	tokens := base.tokens
	for len(tokens) < 152_000 {
		word := make([]rune, 2+rnd.IntN(6))
		for i := range word {
			word[i] = 'a' + rune(rnd.IntN(26))
			if len(tokens)%3 == 0 {
				word[i] = 0x4E00 + rune(rnd.IntN(20000))
			}
		}
		tokens = append(tokens, []byte(string(word)))
	}
	return assemble(b, tokens, base.stop, nil)
}

func benchmarkGuard(b *testing.B, v *vocabulary) {
	b.Run("new", func(b *testing.B) {
		s := scriptsFor(b, "en")
		for b.Loop() {
			if _, err := guard.New(v.Vocabulary, s); err != nil {
				b.Fatal(err)
			}
		}
	})
	g := newGuard(b, v, "en")
	logits := make([]float32, v.Width())
	ids := v.encode(reports[1])
	b.Run("step", func(b *testing.B) {
		b.ReportAllocs()
		state, i := g.Start(), 0
		for b.Loop() {
			g.Mask(state, logits)
			state, _ = g.Next(state, ids[i])
			i = (i + 1) % len(ids)
		}
	})
}
