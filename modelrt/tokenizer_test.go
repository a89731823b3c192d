package modelrt

import (
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"chatxray/pipeline"
)

const smallVocabulary = "testdata/tokenizer_small.json"

// goldenText is one text and its ids by Hugging Face tokenizers, made by testdata/make_tokenizer_golden.py.
type goldenText struct {
	T             []byte  `json:"t"`
	Small         []int32 `json:"small"`
	SmallTemplate []int32 `json:"small_template"`
	Real          []int32 `json:"real"`
	RealTemplate  []int32 `json:"real_template"`
	Expression    string  `json:"expression"`
	Digits        string  `json:"digits"`
}

// tokenizerGolden returns the digests of the character classes and the texts.
func tokenizerGolden(t testing.TB) (classes goldenText, texts []goldenText) {
	t.Helper()
	f, err := os.Open("testdata/tokenizer_golden.jsonl.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(z)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var g goldenText
		if err := json.Unmarshal(lines.Bytes(), &g); err != nil {
			t.Fatal(err)
		}
		texts = append(texts, g)
	}
	if len(texts) < 300 {
		t.Fatalf("only %d golden texts", len(texts))
	}
	return texts[0], texts[1:]
}

func openSmall(t testing.TB) Tokenizer {
	t.Helper()
	k, err := OpenTokenizer(smallVocabulary, "byte_level_bpe")
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// openReal opens the default bundle's tokenizer, or the one that CHATXRAY_TEST_TOKENIZER names.
func openReal(t testing.TB) Tokenizer {
	t.Helper()
	path := os.Getenv("CHATXRAY_TEST_TOKENIZER")
	if path == "" {
		path = filepath.Join("..", "bundles", "chatxray-base", "tokenizer.json")
	}
	if _, err := os.Stat(path); err != nil {
		t.Skipf("%s absent: the default bundle is not built", path)
	}
	k, err := OpenTokenizer(path, "byte_level_bpe")
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestTokenizerEqualsHuggingFace(t *testing.T) {
	_, texts := tokenizerGolden(t)
	compare := func(t *testing.T, k Tokenizer, pick func(goldenText) (plain, template []int32)) {
		for _, g := range texts {
			plain, template := pick(g)
			if got := k.Encode(string(g.T)); !slices.Equal(got, plain) {
				t.Errorf("Encode(%.80q)\n got %v\nwant %v", g.T, got, plain)
			}
			if got := k.EncodeTemplate(string(g.T)); !slices.Equal(got, template) {
				t.Errorf("EncodeTemplate(%.80q)\n got %v\nwant %v", g.T, got, template)
			}
		}
	}
	t.Run("small", func(t *testing.T) {
		compare(t, openSmall(t), func(g goldenText) ([]int32, []int32) { return g.Small, g.SmallTemplate })
	})
	t.Run("default bundle", func(t *testing.T) {
		compare(t, openReal(t), func(g goldenText) ([]int32, []int32) { return g.Real, g.RealTemplate })
	})
}

// TestTokenizerCharacterClasses compares the class of every code point with the digest of Hugging Face's.
func TestTokenizerCharacterClasses(t *testing.T) {
	want, _ := tokenizerGolden(t)
	expression, digits := make([]byte, utf8.MaxRune+1), make([]byte, utf8.MaxRune+1)
	for i := range expression {
		r := rune(i)
		expression[i], digits[i] = 'O', '.'
		switch {
		case !utf8.ValidRune(r):
			expression[i], digits[i] = '-', '-'
		case isLetter(r):
			expression[i] = 'L'
		case isNumber(r):
			expression[i] = 'N'
		case unicode.IsSpace(r):
			expression[i] = 'S'
		}
		if isDigit(r) {
			digits[i] = 'N'
		}
	}
	for _, c := range []struct {
		name, want string
		got        []byte
	}{{"expression", want.Expression, expression}, {"digits", want.Digits, digits}} {
		sum := sha256.Sum256(c.got)
		if hex.EncodeToString(sum[:]) != c.want {
			t.Errorf("%s: the classes of Unicode %s and our tables differ from the oracle's", c.name, unicode.Version)
		}
	}
}

func TestTokenizerDecode(t *testing.T) {
	k := openSmall(t)
	for _, s := range []string{"", "There is no left effusion.", "measured 12.5 mm, unchanged.", "Größe", " à  gauche "} {
		if got := k.Decode(k.Encode(s)); got != s {
			t.Errorf("Decode(Encode(%q)) = %q", s, got)
		}
	}
	end, _ := k.ID("<|im_end|>")
	box, _ := k.ID("<box>")
	if got := k.Decode(append(append(k.Encode("a"), end, box, -1, 1<<30), k.Encode("b")...)); got != "a<box>b" {
		t.Errorf("special and unknown ids: %q", got)
	}
	if k.TokenBytes(end) != nil {
		t.Error("a special token has text")
	}
	half, _ := k.ID("Ã") // GPT-2's letter for the byte 0xC3
	if got := k.Decode([]int32{half}); string(k.TokenBytes(half)) != "\xC3" || got != "\uFFFD" {
		t.Errorf("half a sequence: %q", got)
	}
	if _, ok := k.ID("no such token"); ok {
		t.Error("ID finds what is not there")
	}
	if k.Size() != 421 {
		t.Errorf("Size() = %d", k.Size())
	}
}

// TestTokenizerLongWords: time grows about linearly even where a text is one word.
func TestTokenizerLongWords(t *testing.T) {
	k := openSmall(t)
	random := make([]byte, 1<<20)
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range random {
		random[i] = "effusionpa"[rnd.IntN(10)]
	}
	for name, s := range map[string]string{
		"one letter": strings.Repeat("a", 1<<18), "letters": string(random), "spaces": strings.Repeat(" ", 1<<18),
		"marks": strings.Repeat("!'", 1<<17), "digits": strings.Repeat("7", 1<<18), "specials": strings.Repeat("<|im_", 1<<16),
	} {
		start := time.Now()
		if got := k.Decode(k.Encode(s)); got != s && name != "marks" && name != "specials" {
			t.Errorf("%s: not the same after a round trip", name)
		}
		k.EncodeTemplate(s)
		if d := time.Since(start); d > 30*time.Second {
			t.Errorf("%s: %v", name, d)
		}
	}
}

func TestOpenTokenizerRefuses(t *testing.T) {
	whole, err := os.ReadFile(smallVocabulary)
	if err != nil {
		t.Fatal(err)
	}
	replace := func(old, new string) []byte {
		if !strings.Contains(string(whole), old) {
			t.Fatalf("the small vocabulary lacks %q", old)
		}
		return []byte(strings.Replace(string(whole), old, new, 1))
	}
	for _, c := range []struct {
		name string
		file []byte
		want error
		says string
	}{
		{"not JSON", []byte("GGUF"), pipeline.ErrInvalid, "not a tokenizer.json"},
		{"cut off", whole[:len(whole)/2], pipeline.ErrInvalid, "unexpected EOF"},
		{"two documents", append(slices.Clone(whole), whole...), pipeline.ErrInvalid, "follows"},
		{"unknown key", replace(`"version"`, `"verzion"`), pipeline.ErrInvalid, "verzion"},
		{"another pre-tokenizer", replace(`"Digits"`, `"Metaspace"`), pipeline.ErrUnsupported, "Metaspace"},
		{"split first", replace(`{"type":"Digits","individual_digits":true}`, `{"type":"Whitespace"}`), pipeline.ErrUnsupported, "Whitespace"},
		{"prefix space", replace(`"add_prefix_space":false`, `"add_prefix_space":true`), pipeline.ErrUnsupported, "add_prefix_space"},
		{"no expression", replace(`"use_regex":true`, `"use_regex":false`), pipeline.ErrUnsupported, "use_regex"},
		{"normalizer", replace(`"normalizer":null`, `"normalizer":{"type":"NFC"}`), pipeline.ErrUnsupported, "normalizer"},
		{"truncation", replace(`"truncation":null`, `"truncation":{"max_length":5}`), pipeline.ErrUnsupported, "truncation"},
		{"post-processor", replace(`"post_processor":null`, `"post_processor":{"type":"BertProcessing"}`), pipeline.ErrUnsupported, "post_processor"},
		{"unigram", replace(`"type":"BPE"`, `"type":"Unigram"`), pipeline.ErrUnsupported, "Unigram"},
		{"dropout", replace(`"dropout":null`, `"dropout":0.1`), pipeline.ErrUnsupported, "dropout"},
		{"unknown token", replace(`"unk_token":null`, `"unk_token":"?"`), pipeline.ErrUnsupported, "unk_token"},
		{"byte fallback", replace(`"byte_fallback":false`, `"byte_fallback":true`), pipeline.ErrUnsupported, "byte_fallback"},
		{"ignore merges", replace(`"ignore_merges":false`, `"ignore_merges":true`), pipeline.ErrUnsupported, "ignore_merges"},
		{"stripping token", replace(`"lstrip":false`, `"lstrip":true`), pipeline.ErrUnsupported, "lstrip"},
		{"huge id", replace(`"'":3`, `"'":2000000000`), pipeline.ErrInvalid, "2000000000"},
		{"negative id", replace(`"'":3`, `"'":-3`), pipeline.ErrInvalid, "-3"},
		{"an id twice", replace(`"'":3`, `"'":4`), pipeline.ErrInvalid, "id 4"},
		{"added twice", replace(`"id":1,"content":"<|im_start|>"`, `"id":1,"content":"<|im_end|>"`), pipeline.ErrInvalid, "another id"},
		{"merge of three", replace(`"merges":[[`, `"merges":[["a","b","c"],[`), pipeline.ErrInvalid, "3 parts"},
		{"merge of numbers", replace(`"merges":[[`, `"merges":[7,[`), pipeline.ErrInvalid, "merge"},
		{"merge of strangers", replace(`"merges":[[`, `"merges":[["zq","qz"],[`), pipeline.ErrInvalid, "merge 0"},
		{"no vocabulary", []byte(`{"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},"model":{"type":"BPE"}}`), pipeline.ErrInvalid, "empty"},
		{"no pre-tokenizer", []byte(`{"model":{"type":"BPE","vocab":{"a":0}}}`), pipeline.ErrUnsupported, "pre_tokenizer"},
	} {
		path := filepath.Join(t.TempDir(), "tokenizer.json")
		if err := os.WriteFile(path, c.file, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := OpenTokenizer(path, "byte_level_bpe")
		if !errors.Is(err, c.want) || !strings.Contains(fmt.Sprint(err), c.says) || !strings.Contains(fmt.Sprint(err), path) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := OpenTokenizer(smallVocabulary, "sentencepiece"); !errors.Is(err, pipeline.ErrUnknown) || !strings.Contains(err.Error(), "byte_level_bpe") {
		t.Errorf("another kind: %v", err)
	}
	if _, err := OpenTokenizer("testdata/nowhere.json", "byte_level_bpe"); !errors.Is(err, pipeline.ErrNotFound) {
		t.Errorf("no file: %v", err)
	}
}

// TestBPEVariants: merges as strings, ByteLevel alone, digits in runs.
func TestBPEVariants(t *testing.T) {
	const model = `"model":{"type":"BPE","vocab":{"a":0,"b":1,"1":2,"ab":3,"11":4,"Ġ":5,"Ġ1":6,"1a":7},"merges":["a b","Ġ 1","1 1"]}`
	const level = `{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true}`
	for _, c := range []struct {
		pre  string
		want []int32
	}{
		{level, []int32{3, 5, 5, 6, 2, 3, 4}},
		{`{"type":"Sequence","pretokenizers":[` + level + `]}`, []int32{3, 5, 5, 6, 2, 3, 4}},
		{`{"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":false},` + level + `]}`, []int32{3, 5, 5, 5, 4, 3, 4}},
		{`{"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":true},` + level + `]}`, []int32{3, 5, 5, 5, 2, 2, 3, 2, 2}},
	} {
		k, err := parseBPE([]byte(`{"version":"1.0","pre_tokenizer":` + c.pre + `,` + model + `}`))
		if err != nil {
			t.Fatal(err)
		}
		if got := k.Encode("ab   11ab11"); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.pre, got, c.want)
		}
	}
}

func FuzzTokenizer(f *testing.F) {
	_, texts := tokenizerGolden(f)
	for _, g := range texts {
		f.Add(string(g.T))
	}
	k := openSmall(f).(*bpe)
	f.Fuzz(func(t *testing.T, s string) {
		ids := k.Encode(s)
		var kept []byte
		for _, b := range []byte(wellFormed(s)) {
			if k.byteID[b] >= 0 {
				kept = append(kept, b)
			}
		}
		if got := k.Decode(ids); got != wellFormed(string(kept)) {
			t.Errorf("Decode(Encode(%q)) = %q", s, got)
		}
		for _, id := range ids {
			if k.TokenBytes(id) == nil {
				t.Errorf("Encode(%q) gives the special token %d", s, id)
			}
		}
		k.EncodeTemplate(s)
	})
}

func FuzzParseBPE(f *testing.F) {
	f.Add([]byte(`{"added_tokens":[{"id":4,"content":"<x>","special":true}],"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},` +
		`"model":{"type":"BPE","vocab":{"a":0,"Ġ":1,"b":2,"ab":3},"merges":[["a","b"]]}}`))
	f.Add([]byte(`{"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Digits"},{"type":"ByteLevel","add_prefix_space":false}]},` +
		`"model":{"type":"BPE","vocab":{"a":0,"aa":1},"merges":["a a"]}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if k, err := parseBPE(raw); err == nil {
			k.Decode(k.EncodeTemplate("a b 12 <|im_end|>"))
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	k := openSmall(b)
	text := strings.Repeat("There is no right pleural effusion; measured 12.5 mm. ", 100)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		k.Encode(text)
	}
}
