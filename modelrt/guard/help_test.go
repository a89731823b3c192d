package guard_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chatxray/modelrt"
	"chatxray/modelrt/guard"
)

// vocabulary is a guard.Vocabulary with what a test needs to know of it.
type vocabulary struct {
	*guard.Vocabulary
	tokens [][]byte
	ids    map[string]int32
	stop   int32
	encode func(string) []int32
}

func assemble(t testing.TB, tokens [][]byte, stop int32, encode func(string) []int32) *vocabulary {
	t.Helper()
	v, err := guard.NewVocabulary(tokens, (len(tokens)+127)/128*128, []int32{stop}) // models pad their matrix
	if err != nil {
		t.Fatal(err)
	}
	s := &vocabulary{Vocabulary: v, tokens: tokens, ids: map[string]int32{}, stop: stop, encode: encode}
	for i, b := range tokens {
		if _, there := s.ids[string(b)]; !there && len(b) > 0 {
			s.ids[string(b)] = int32(i)
		}
	}
	if encode == nil {
		s.encode = s.longestFirst
	}
	return s
}

// longestFirst spells a text with the longest tokens that fit, one after another.
func (v *vocabulary) longestFirst(text string) (ids []int32) {
	for text != "" {
		n := min(len(text), 32)
		for ; n > 0; n-- {
			if id, ok := v.ids[text[:n]]; ok {
				ids = append(ids, id)
				break
			}
		}
		if n == 0 {
			panic(fmt.Sprintf("no token begins %q", text))
		}
		text = text[n:]
	}
	return ids
}

func (v *vocabulary) text(ids []int32) string {
	var b strings.Builder
	for _, id := range ids {
		b.Write(v.tokens[id])
	}
	return b.String()
}

// smolLM is the default bundle's byte-level vocabulary, read by modelrt.
func smolLM(t testing.TB) *vocabulary {
	t.Helper()
	path := filepath.Join("..", "..", "bundles", "chatxray-base", "tokenizer.json")
	if _, err := os.Stat(path); err != nil {
		t.Skipf("%s absent: the default bundle is not built", path)
	}
	k, err := modelrt.OpenTokenizer(path, "byte_level_bpe")
	if err != nil {
		t.Fatal(err)
	}
	tokens := make([][]byte, k.Size())
	for i := range tokens {
		tokens[i] = k.TokenBytes(int32(i))
	}
	stop, ok := k.ID("<|im_end|>")
	if !ok {
		t.Fatal("the default bundle has no <|im_end|>")
	}
	return assemble(t, tokens, stop, k.Encode)
}

// words is what the synthetic vocabularies know of languages that are allowed.
const words = `the lungs are clear no pleural effusion or pneumothorax heart size is normal mild bibasilar atelectasis opacity of right left lower lobe
there unchanged measured cm mm impression findings Die Lunge ist frei belüftet Kein Pleuraerguss Herz normal groß Größe rechts
Le cœur est de taille normale épanchement à gauche œdème Los pulmones están limpios corazón tamaño`

// synthetic makes a vocabulary as Qwen and Llama 2 have it: every byte by itself, words, Chinese characters and words, and tokens
// that cut characters in the middle, some behind or before whole ones.
func synthetic(t testing.TB, spaceFirst bool) *vocabulary {
	t.Helper()
	rnd := rand.New(rand.NewPCG(7, 7))
	var tokens [][]byte
	seen := map[string]bool{}
	add := func(s string) {
		if !seen[s] {
			seen[s] = true
			tokens = append(tokens, []byte(s))
		}
	}
	tokens = append(tokens, nil, nil, nil) // <unk>, <s>, </s>
	for b := range 256 {
		tokens = append(tokens, []byte{byte(b)}) // <0x00> ... <0xFF>
	}
	if !spaceFirst { // byte-level: a byte has one token; byte fallback: "A" has <0x41> and itself
		for b := range 256 {
			seen[string([]byte{byte(b)})] = true
		}
	}
	for b := ' '; b <= '~'; b++ {
		add(string(b))
	}
	for _, w := range strings.Fields(words) {
		add(" " + w)
		add(w)
		for i := 2; i < len(w); i++ {
			add(w[:i])
			add(w[i:])
		}
	}
	for _, s := range []string{". ", "\n\n", "  ", "°", "µm", "±", "β", " α", "é", "ü", "–", "“", "”", "…", "≥", "²", "½"} {
		add(s)
	}
	char := func() string { return string(rune(0x4E00 + rnd.IntN(0x9FA5-0x4E00))) }
	for range 1000 {
		a, b, c := char(), char(), char()
		add(a)
		add(a + b)
		add(a + b + c)
		add(a[:2])
		add(a[1:])
		add(" " + a[:1])
		add(" " + a[:2])
		add(a + b[:2])
		add(a[2:] + b[:1])
		add("the " + a)
	}
	for _, s := range []string{"。", "，", "（", "１", "Ａ", "の", "カ", "한국", "Привет", " и", "مر", "ש", "😀", "☑", "\u200b", "\u202e", "\ufeff", "㎜", "℃", "\ufe0f", "𝐀", "ｶ", "中文\xE4", "\x98\x80", "\xF0\x9F", "\xF0\x9F\x98", "\xC0\x80", "\xED\xA0\x80", "\xF4\x90", "\xE0\x80"} {
		add(s)
		add(" " + s)
	}
	return assemble(t, tokens, 2, nil)
}

// vocabularies are the three kinds.
func vocabularies(t testing.TB, run func(t *testing.T, v *vocabulary)) {
	tt := t.(*testing.T)
	tt.Run("SmolLM2", func(t *testing.T) { run(t, smolLM(t)) })
	tt.Run("byte level with Chinese", func(t *testing.T) { run(t, synthetic(t, false)) })
	tt.Run("byte fallback", func(t *testing.T) { run(t, synthetic(t, true)) })
}

func scriptsFor(t testing.TB, languages ...string) guard.Scripts {
	t.Helper()
	s, err := guard.ScriptsFor(languages...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newGuard(t testing.TB, v *vocabulary, languages ...string) *guard.Guard {
	t.Helper()
	g, err := guard.New(v.Vocabulary, scriptsFor(t, languages...))
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// noise is random logits for any number of steps: each takes another part of one table.
type noise struct {
	table []float32
	rnd   *rand.Rand
}

func newNoise(width int, rnd *rand.Rand) *noise {
	n := &noise{make([]float32, 2*width), rnd}
	for i := range n.table {
		n.table[i] = float32(rnd.Uint32()&0xFFFF) / 0x1000
	}
	return n
}

func (n *noise) into(logits []float32) {
	copy(logits, n.table[n.rnd.IntN(len(n.table)-len(logits)):])
}

// best is the greedy choice: the first of the largest; -1 where all are masked.
func best(logits []float32) int32 {
	at := 0
	for i, v := range logits {
		if v > logits[at] {
			at = i
		}
	}
	if logits[at] < -1e30 {
		return -1
	}
	return int32(at)
}
