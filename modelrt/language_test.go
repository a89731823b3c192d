package modelrt

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"chatxray/modelrt/kernel"
	"chatxray/pipeline"
)

const (
	germanTemplate  = "<|im_start|>user\n<image>\nBeschreibe es, kurz.<|im_end|>\n<|im_start|>assistant\n"
	chineseTemplate = "<|im_start|>user\n<image>\n描述。<|im_end|>\n<|im_start|>assistant\n"
	chineseForm     = "<|im_start|>user\n<image>\n填写。<|im_end|>\n<|im_start|>assistant\n"
	chineseOpinion  = "<|im_start|>user\n评论：{draft}<|im_end|>\n<|im_start|>assistant\n"
)

// tongues are changes that give the tiny bundle two more languages. Its weights know none of them: what is tested is everything else.
func tongues() map[string]any {
	return map[string]any{"languages": []string{"en", "de", "zh"}, "prompts": map[string]any{
		"de": map[string]any{"template": germanTemplate, "impression_prefix": "Beurteilung:", "plain": "Erkläre es dem Patienten."},
		"zh": map[string]any{"template": chineseTemplate, "impression_prefix": "印象：", "structured": chineseForm, "opinion": chineseOpinion},
	}}
}

// openTongue opens the tiny bundle of several languages for one of them.
func openTongue(t testing.TB, language string, options func(*Options)) (*Model, error) {
	t.Helper()
	dir := copyBundle(t)
	if err := os.WriteFile(filepath.Join(dir, manifestName), edited(t, tongues()), 0o644); err != nil {
		t.Fatal(err)
	}
	o := tinyOptions(t)
	o.Language = language
	if options != nil {
		options(&o)
	}
	m, err := Open(context.Background(), runtimeFor(t), dir, o)
	if err == nil {
		t.Cleanup(func() { m.Close() })
	}
	return m, err
}

// Prompt, guard, labeler and evidence follow the language of the report.
func TestReportLanguage(t *testing.T) {
	for language, ask := range map[string]string{"": "\nDescribe it.", "de": "\nBeschreibe es, kurz.", "ZH": "\n描述。"} {
		t.Run("language "+language, func(t *testing.T) {
			var labelled bool
			m, err := openTongue(t, language, func(o *Options) {
				o.Knows = func(l string) bool { return l == "en" }
				o.Label = func(s []string) []pipeline.Finding {
					labelled = true
					f := notSaid(s)
					f[2].Presence, f[2].Sentences = pipeline.Present, []int{0}
					return f
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			want := strings.ToLower(or(language, "en"))
			before, after := around(m.prompt.template)
			k := m.prompt.tokenizer
			if b, a := k.Decode(before), k.Decode(after); b != "user\n" || a != ask+"\nassistant\n" {
				t.Errorf("the prompt is %q, the image, %q", b, a)
			}
			for c, allowed := range map[rune]bool{'ä': want != "zh", '心': want == "zh", 'я': false} {
				if m.guard.Scripts().Allows(c) != allowed {
					t.Errorf("%c may be written: %v", c, !allowed)
				}
			}
			m.limit = 40
			seen := must(m.see(context.Background(), tinyValues(t).image(), classRoutine))
			a := must(m.write(context.Background(), seen, classRoutine))
			if len(a.tokens) < 3 {
				t.Fatalf("it writes %q", a.text)
			}
			checkBlankRow(t, m, a)
			a.text, a.starts = []byte("正常。"), make([]int, len(a.tokens)) // its own words are chance
			w := must(m.parse(a))
			found := must(m.findings(w, seen.scores))
			if said := found[2].Presence == pipeline.Present; labelled != (want == "en") || said != labelled {
				t.Errorf("labelled: %v, said: %v", labelled, said)
			}
			if reading, err := m.Read(context.Background(), tinyValues(t).image()); err == nil && reading.Language != want || err != nil && !errors.Is(err, pipeline.ErrModel) {
				t.Errorf("%v %+v", err, reading)
			}
		})
	}
}

// checkBlankRow compares what the held prompts say of the first token with a blank image that is read for itself.
func checkBlankRow(t *testing.T, m *Model, a *answer) {
	t.Helper()
	others, _, err := m.scoreOthers(context.Background(), a.tokens)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.eyes.enter(context.Background(), classRoutine); err != nil {
		t.Fatal(err)
	}
	c := must(begin(context.Background()))
	image := must(m.blank(c))
	m.eyes.leave()
	s := m.usualSight(image)
	said := must(m.compose(c, m.task.template, []*sight{s}))
	c.end()
	got := 0.0
	text := &text{ctx: context.Background(), prompt: said.embeds, keys: said.keys, places: said.places, choose: func(logits []float32) (int32, float64, error) {
		got = kernel.LogProbability(logits, a.tokens[0])
		return greedy(logits)
	}, take: func(int32, float64) bool { return false }}
	if err := m.engine.write(text); err != nil {
		t.Fatal(err)
	}
	if want := others[len(others)-1][0]; got-want > 1e-4 || want-got > 1e-4 {
		t.Errorf("under a blank image the first token has %g, by itself %g", want, got)
	}
}

// A language that the bundle does not state is refused with those it has, and so are prompts without their language.
func TestLanguagesRefused(t *testing.T) {
	if _, err := openTongue(t, "fr", nil); !errors.Is(err, pipeline.ErrUnsupported) || !strings.Contains(err.Error(), `does not write "fr"; it writes en, de, zh`) {
		t.Error(err)
	}
	german := map[string]any{"template": germanTemplate}
	for name, tt := range map[string]struct {
		languages any
		prompts   map[string]any
		want      []string
	}{
		"no tag":               {[]string{"en", "englisch?"}, nil, []string{`language "englisch?"`, "RFC 5646", "prompts.englisch?.template: is empty"}},
		"an unknown script":    {[]string{"chr"}, nil, []string{`language "chr"`}},
		"twice":                {[]string{"en", "EN"}, map[string]any{"EN": german}, []string{`"EN" stands there twice`}},
		"no prompt":            {[]string{"en", "de"}, nil, []string{"prompts.de.template: is empty"}},
		"no sentinel":          {[]string{"en", "de"}, map[string]any{"de": map[string]any{"template": "Bild", "structured": "x"}}, []string{"prompts.de.template: holds the sentinel 0 times", "prompts.de.structured: holds"}},
		"a prompt of no use":   {[]string{"en"}, map[string]any{"de": german}, []string{"prompts.de: is none of languages, en"}},
		"two prompts":          {[]string{"en"}, map[string]any{"en": german}, []string{"prompts.en: its template"}},
		"an opinion of no use": {[]string{"en"}, map[string]any{"en": map[string]any{"opinion": "What of it?"}}, []string{"prompts.en.opinion: does not hold {draft}"}},
		"an unknown key":       {[]string{"en"}, map[string]any{"en": map[string]any{"prompt": "x"}}, []string{"unknown key prompts.en.prompt"}},
	} {
		_, err := ParseManifest(edited(t, map[string]any{"languages": tt.languages, "prompts": tt.prompts}))
		for _, w := range tt.want {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v does not say %q", name, err, w)
			}
		}
	}
	long := tongues()
	long["prompts"].(map[string]any)["de"].(map[string]any)["template"] = germanTemplate + strings.Repeat("lang ", 200)
	dir := copyBundle(t)
	if err := os.WriteFile(filepath.Join(dir, manifestName), edited(t, long), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(dir); !errors.Is(err, pipeline.ErrInvalid) || !strings.Contains(err.Error(), "the report's prompt in the language de") {
		t.Error(err)
	}
}

// Answers are in the language of their request, else in that of the reports.
func TestChatLanguage(t *testing.T) {
	m := must(openTongue(t, "zh", nil))
	for asked, want := range map[string]string{"": "zh", "DE": "de", "en": "en"} {
		r := question(user("是吗？", askedAbout(tinyValues(t).image())))
		r.Language, r.MaxTokens = asked, 3
		a, err := m.Chat(context.Background(), r, nil)
		if err != nil || a.Language != want {
			t.Errorf("%q: %v %+v", asked, err, a)
		}
	}
	r := question(user("?", askedAbout(tinyValues(t).image())))
	r.Language = "fr"
	var wrong *pipeline.ChatError
	if _, err := m.Chat(context.Background(), r, nil); !errors.As(err, &wrong) || wrong.Param != "language" || !strings.Contains(err.Error(), "en, de, zh") {
		t.Error(err)
	}
}

// rigged is a model of a vocabulary and nothing else: writers can be made for it.
func rigged(t *testing.T, file, kind string) *Model {
	t.Helper()
	packed, err := os.Open(filepath.Join("token", "testdata", file+".gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	path := filepath.Join(t.TempDir(), file)
	if err := os.WriteFile(path, must(io.ReadAll(must(gzip.NewReader(packed)))), 0o644); err != nil {
		t.Fatal(err)
	}
	k := must(OpenTokenizer(path, kind))
	f := &Manifest{Name: "rigged", Languages: []string{"en", "de", "ru", "zh"}}
	f.Decoder.Vocab, f.Decoder.MaxLength, f.Generation.MaxNewTokens = k.Size(), 1<<20, 200_000
	return &Model{opened: &opened{bundle: &Bundle{Manifest: f}, task: &task{language: "en"}, prompt: &prompt{tokenizer: k, stops: map[int32]bool{}}}}
}

// A decoder that wants Chinese gets none out of answers in other languages, and gets it out of one in Chinese: each request has the guard of
// its own language, whatever the model was asked before. The vocabularies hold Chinese characters, and every byte.
func TestRiggedAnswers(t *testing.T) {
	for file, kind := range map[string]string{"qwen2.json": "byte_level_bpe", "llama2.json": "sentencepiece_bpe", "gemma.json": "sentencepiece_bpe"} {
		t.Run(file, func(t *testing.T) {
			m := rigged(t, file, kind)
			k := m.prompt.tokenizer
			base, han, partial := make([]float32, k.Size()), 0, 0
			for id := range base {
				text := k.TokenBytes(int32(id))
				for _, b := range text {
					if b >= 0x80 {
						base[id] += 3
					}
				}
				if strings.ContainsFunc(string(text), func(c rune) bool { return unicode.Is(unicode.Han, c) }) {
					base[id] += 10
					han++
				} else if len(text) == 1 && text[0] >= 0x80 {
					partial++
				}
			}
			if han < 5 || partial < 100 {
				t.Fatalf("%d tokens with Chinese characters, %d with a part of one", han, partial)
			}
			for i, language := range []string{"zh", "en", "ru", "de"} {
				steps, rnd := []int{5000, 100_000, 5000, 100_000}[i], rand.New(rand.NewPCG(5, 6))
				r := question()
				r.Language, r.Logprobs = language, false
				w := must(m.newWriter(r))
				w.begin(nil, k.Size())
				logits := make([]float32, k.Size())
				var text []byte
				for range steps {
					copy(logits, base)
					for range 30 {
						logits[rnd.IntN(len(logits))] += 20 * rnd.Float32()
					}
					id, _, err := w.choose(logits)
					if err != nil {
						t.Fatal(err)
					}
					text = append(text, k.TokenBytes(id)...)
				}
				text = text[:whole(text)] // the last token may have begun a character
				if !utf8.Valid(text) {
					t.Errorf("%s: the text is not UTF-8", language)
				}
				seen := map[string]int{}
				for _, c := range string(text) {
					for name, table := range map[string]*unicode.RangeTable{"Han": unicode.Han, "Cyrillic": unicode.Cyrillic, "Hangul": unicode.Hangul, "Hiragana": unicode.Hiragana, "Arabic": unicode.Arabic} {
						if unicode.Is(table, c) {
							seen[name]++
						}
					}
				}
				if language == "zh" && seen["Han"] < 1000 {
					t.Errorf("zh: only %d Chinese characters: the test proves nothing", seen["Han"])
				}
				delete(seen, map[string]string{"zh": "Han", "ru": "Cyrillic"}[language])
				for name, n := range seen {
					t.Errorf("%s: %d letters of %s", language, n, name)
				}
			}
		})
	}
}
