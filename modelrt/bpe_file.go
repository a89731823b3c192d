package modelrt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"chatxray/pipeline"
)

// Limits of a tokenizer file. The largest vocabularies in use have about 260,000 tokens and files of 35 MB.
const (
	maxTokenizerFile = 128 << 20
	maxTokenID       = 1 << 20
)

func init() {
	registerTokenizer("byte_level_bpe", func(path string) (Tokenizer, error) {
		raw, err := readTokenizerFile(path, maxTokenizerFile)
		if err != nil {
			return nil, err
		}
		return parseBPE(raw)
	})
}

func readTokenizerFile(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: the bundle's manifest names this file; fetch the bundle again", pipeline.ErrNotFound)
	case err != nil:
		return nil, err
	case info.Size() > limit:
		return nil, fmt.Errorf("%w: %d bytes, the limit is %d", pipeline.ErrInvalid, info.Size(), limit)
	}
	return os.ReadFile(path)
}

// tokenizerFile is tokenizer.json of Hugging Face tokenizers. Keys that are not here are errors: they may change ids.
type tokenizerFile struct {
	Version       string          `json:"version"`
	Truncation    json.RawMessage `json:"truncation"`
	Padding       json.RawMessage `json:"padding"`
	AddedTokens   []addedToken    `json:"added_tokens"`
	Normalizer    json.RawMessage `json:"normalizer"`
	PreTokenizer  *preTokenizer   `json:"pre_tokenizer"`
	PostProcessor *preTokenizer   `json:"post_processor"`
	Decoder       *preTokenizer   `json:"decoder"`
	Model         bpeModel        `json:"model"`
}

type addedToken struct {
	ID         int32  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	Normalized bool   `json:"normalized"`
	Special    bool   `json:"special"`
}

// preTokenizer also stands for a post-processor and a decoder: ByteLevel has one form for all three.
type preTokenizer struct {
	Type             string         `json:"type"`
	Pretokenizers    []preTokenizer `json:"pretokenizers"`
	IndividualDigits bool           `json:"individual_digits"`
	AddPrefixSpace   *bool          `json:"add_prefix_space"`
	TrimOffsets      *bool          `json:"trim_offsets"`
	UseRegex         *bool          `json:"use_regex"`
}

type bpeModel struct {
	Type                    string           `json:"type"`
	Dropout                 *float64         `json:"dropout"`
	UnkToken                *string          `json:"unk_token"`
	ContinuingSubwordPrefix *string          `json:"continuing_subword_prefix"`
	EndOfWordSuffix         *string          `json:"end_of_word_suffix"`
	FuseUnk                 bool             `json:"fuse_unk"`
	ByteFallback            bool             `json:"byte_fallback"`
	IgnoreMerges            bool             `json:"ignore_merges"`
	Vocab                   map[string]int32 `json:"vocab"`
	Merges                  []mergePair      `json:"merges"`
}

// mergePair is ["a", "b"] or, in files of tokenizers before 0.20, "a b".
type mergePair [2]string

// UnmarshalJSON reads either form.
func (p *mergePair) UnmarshalJSON(raw []byte) error {
	var parts []string
	var joined string
	switch {
	case json.Unmarshal(raw, &joined) == nil:
		parts = strings.Split(joined, " ")
	case json.Unmarshal(raw, &parts) != nil:
		return errors.New("a merge is neither a string nor a pair of strings")
	}
	if len(parts) != 2 {
		return fmt.Errorf("a merge has %d parts, not 2", len(parts))
	}
	*p = mergePair{parts[0], parts[1]}
	return nil
}

func parseBPE(raw []byte) (*bpe, error) {
	var f tokenizerFile
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return nil, fmt.Errorf("%w: not a tokenizer.json as this version knows it: %w", pipeline.ErrInvalid, err)
	}
	if d.More() {
		return nil, fmt.Errorf("%w: something follows the JSON object", pipeline.ErrInvalid)
	}
	if why := f.unsupported(); why != "" {
		return nil, fmt.Errorf("%w: %s", pipeline.ErrUnsupported, why)
	}
	t := &bpe{}
	var err error
	if t.split, err = f.PreTokenizer.splitter(); err != nil {
		return nil, err
	}
	if err := t.addVocabulary(&f); err != nil {
		return nil, err
	}
	return t, t.addMerges(f.Model.Merges)
}

// unsupported names the first setting that would change ids in a way that is not done here.
func (f *tokenizerFile) unsupported() string {
	m := &f.Model
	empty := func(s *string) bool { return s == nil || *s == "" }
	null := func(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }
	byteLevel := func(p *preTokenizer) bool { return p == nil || p.Type == "ByteLevel" }
	for _, c := range []struct {
		ok  bool
		why string
	}{
		{m.Type == "BPE", fmt.Sprintf("model type %q; only BPE is known", m.Type)},
		{m.Dropout == nil || *m.Dropout == 0, "model.dropout is not 0"},
		{empty(m.UnkToken), "model.unk_token is set"},
		{empty(m.ContinuingSubwordPrefix) && empty(m.EndOfWordSuffix), "model.continuing_subword_prefix or end_of_word_suffix is set"},
		{!m.ByteFallback, "model.byte_fallback is set"},
		{!m.IgnoreMerges, "model.ignore_merges is set"},
		{null(f.Normalizer), "a normalizer is set"},
		{null(f.Truncation) && null(f.Padding), "truncation or padding is set"},
		{byteLevel(f.PostProcessor), "post_processor is not ByteLevel"},
		{byteLevel(f.Decoder), "decoder is not ByteLevel"},
	} {
		if !c.ok {
			return c.why
		}
	}
	for _, a := range f.AddedTokens {
		if a.SingleWord || a.LStrip || a.RStrip {
			return fmt.Sprintf("added token %d has single_word, lstrip or rstrip", a.ID)
		}
	}
	return ""
}

// splitter accepts ByteLevel, alone or after Digits.
func (p *preTokenizer) splitter() (splitter, error) {
	var s splitter
	if p == nil {
		return s, fmt.Errorf("%w: no pre_tokenizer; ByteLevel is the only one known", pipeline.ErrUnsupported)
	}
	steps := []preTokenizer{*p}
	if p.Type == "Sequence" {
		steps = p.Pretokenizers
	}
	if len(steps) == 2 && steps[0].Type == "Digits" {
		s.digits, s.individual = true, steps[0].IndividualDigits
		steps = steps[1:]
	}
	if len(steps) != 1 || steps[0].Type != "ByteLevel" {
		return s, fmt.Errorf("%w: pre_tokenizer %s; known are ByteLevel and Sequence[Digits, ByteLevel]", pipeline.ErrUnsupported, p.describe())
	}
	// The defaults of the two keys are those of Hugging Face: both true.
	if last := steps[0]; last.AddPrefixSpace == nil || *last.AddPrefixSpace || last.UseRegex != nil && !*last.UseRegex {
		return s, fmt.Errorf("%w: ByteLevel with add_prefix_space or without use_regex", pipeline.ErrUnsupported)
	}
	return s, nil
}

func (p *preTokenizer) describe() string {
	if p.Type != "Sequence" {
		return fmt.Sprintf("%.40q", p.Type)
	}
	var names []string
	for _, s := range p.Pretokenizers[:min(8, len(p.Pretokenizers))] {
		names = append(names, fmt.Sprintf("%.40q", s.Type))
	}
	return "Sequence[" + strings.Join(names, ", ") + "]"
}

func (t *bpe) addVocabulary(f *tokenizerFile) error {
	if len(f.Model.Vocab) == 0 {
		return fmt.Errorf("%w: the vocabulary is empty", pipeline.ErrInvalid)
	}
	t.ids = f.Model.Vocab
	for _, a := range f.AddedTokens {
		if id, known := t.ids[a.Content]; a.Content == "" || known && id != a.ID {
			return fmt.Errorf("%w: added token %d is empty or has another id in the vocabulary", pipeline.ErrInvalid, a.ID)
		}
		t.ids[a.Content] = a.ID
	}
	for _, id := range t.ids {
		if id < 0 || id >= maxTokenID {
			return fmt.Errorf("%w: token id %d is outside 0 to %d", pipeline.ErrInvalid, id, maxTokenID-1)
		}
		t.largest = max(t.largest, id)
	}
	t.bytes = make([][]byte, t.Size())
	used := make([]bool, t.Size())
	for token, id := range t.ids {
		if used[id] {
			return fmt.Errorf("%w: two tokens have the id %d", pipeline.ErrInvalid, id)
		}
		used[id] = true
		t.bytes[id] = byteLevelBytes(token)
	}
	for b := range t.byteID {
		t.byteID[b] = -1
		if id, ok := t.ids[string(byteRunes[b])]; ok {
			t.byteID[b] = id
		}
	}
	for _, a := range f.AddedTokens {
		t.bytes[a.ID] = []byte(a.Content)
		if a.Special {
			t.bytes[a.ID] = nil
		}
		set := &t.added[0]
		if a.Normalized {
			set = &t.added[1]
		}
		set.add(a.Content)
	}
	return nil
}

func (a *addedTokens) add(token string) {
	list := append(a[token[0]], token)
	slices.SortStableFunc(list, func(x, y string) int { return len(y) - len(x) })
	a[token[0]] = list
}

func (t *bpe) addMerges(pairs []mergePair) error {
	t.merges = make(map[uint64]merge, len(pairs))
	for rank, p := range pairs {
		left, ok1 := t.ids[p[0]]
		right, ok2 := t.ids[p[1]]
		joined, ok3 := t.ids[p[0]+p[1]]
		if !ok1 || !ok2 || !ok3 {
			return fmt.Errorf("%w: merge %d joins tokens, or makes one, that the vocabulary lacks", pipeline.ErrInvalid, rank)
		}
		t.merges[pairKey(left, right)] = merge{int32(rank), joined} // of a pair given twice the last counts, as in Hugging Face's
	}
	return nil
}

// byteRunes are GPT-2's letters for the bytes: printable Latin-1 stands for itself, the other bytes are U+0100 onwards.
// runeBytes is the way back, plus one; 0: no byte.
var byteRunes, runeBytes = func() (runes [256]rune, back [256 + 256]uint16) {
	next := rune(256)
	for b := range runes {
		r := rune(b)
		if !(b >= '!' && b <= '~' || b >= 0xA1 && b <= 0xAC || b >= 0xAE) {
			r = next
			next++
		}
		runes[b], back[r] = r, uint16(b)+1
	}
	return runes, back
}()

// byteLevelBytes reads a token in GPT-2's letters; one with other letters stands for its own UTF-8, as in Hugging Face's decoder.
func byteLevelBytes(token string) []byte {
	out := make([]byte, 0, len(token))
	for _, r := range token {
		if int(r) >= len(runeBytes) || runeBytes[r] == 0 {
			return []byte(token)
		}
		out = append(out, byte(runeBytes[r]-1))
	}
	return out
}
