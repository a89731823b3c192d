package token

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"chatxray/pipeline"
)

// modelFile is the model of tokenizer.json.
type modelFile struct {
	Type  string
	names map[string]int32
	build func(t *Tokenizer, byteLevel bool) (model, error)
}

func (m *modelFile) read(raw json.RawMessage) error {
	var head struct {
		Type   string          `json:"type"`
		Vocab  json.RawMessage `json:"vocab"`
		Merges json.RawMessage `json:"merges"`
	}
	if err := json.Unmarshal(raw, &head); err != nil || isNull(raw) {
		return fmt.Errorf("%w: no model, or one that is no object", pipeline.ErrInvalid)
	}
	if head.Type == "" && !isNull(head.Merges) { // files of tokenizers before 0.9 do not tell the type
		head.Type = "BPE"
	}
	m.Type = head.Type
	switch m.Type {
	case "BPE":
		return m.readBPE(raw)
	case "Unigram":
		return m.readUnigram(raw)
	case "WordPiece":
		return m.readWordPiece(raw)
	}
	return fmt.Errorf("%w: model type %.60q; known are BPE, Unigram and WordPiece", pipeline.ErrUnsupported, m.Type)
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

type bpeFile struct {
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

func (m *modelFile) readBPE(raw []byte) error {
	var f bpeFile
	if err := strict(raw, &f); err != nil {
		return err
	}
	empty := func(s *string) bool { return s == nil || *s == "" }
	switch {
	case f.Dropout != nil && *f.Dropout != 0:
		return fmt.Errorf("%w: model.dropout is not 0", pipeline.ErrUnsupported)
	case !empty(f.ContinuingSubwordPrefix) || !empty(f.EndOfWordSuffix):
		return fmt.Errorf("%w: model.continuing_subword_prefix or end_of_word_suffix is set", pipeline.ErrUnsupported)
	case len(f.Merges) > maxMerges:
		return fmt.Errorf("%w: %d merges; the limit is %d", pipeline.ErrInvalid, len(f.Merges), maxMerges)
	}
	own := copyOf(f.Vocab) // added tokens are not the model's
	m.names = f.Vocab
	m.build = func(t *Tokenizer, byteLevel bool) (model, error) { return f.model(t, own, byteLevel) }
	return nil
}

func copyOf(m map[string]int32) map[string]int32 {
	c := make(map[string]int32, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
}

func (f *bpeFile) model(t *Tokenizer, own map[string]int32, byteLevel bool) (model, error) {
	b := &bpe{byteLevel: byteLevel, unknown: -1, fuseUnknown: f.FuseUnk, fallback: f.ByteFallback}
	if f.UnkToken != nil && *f.UnkToken != "" {
		id, ok := own[*f.UnkToken]
		if !ok {
			return nil, fmt.Errorf("%w: unk_token %.60q is not in the vocabulary", pipeline.ErrInvalid, *f.UnkToken)
		}
		b.unknown = id
	}
	usable := t.withoutSpecial(own, -1)
	if f.IgnoreMerges {
		b.whole = usable
		if byteLevel {
			b.whole = make(map[string]int32, len(usable))
			for name, id := range usable {
				if raw, ok := letterBytes(name); ok {
					b.whole[string(raw)] = id
				}
			}
		}
	}
	if byteLevel {
		for i := range b.byteID {
			b.byteID[i] = lookUp(usable, string(byteRunes[i]))
		}
	} else {
		b.byteID = fallbackBytes(usable)
		b.runeID = map[rune]int32{}
		for name, id := range usable {
			if r, n := utf8.DecodeRuneInString(name); n == len(name) {
				b.runeID[r] = id
			}
		}
	}
	b.merges = make(map[uint64]merge, len(f.Merges))
	for rank, p := range f.Merges {
		left, ok1 := own[p[0]]
		right, ok2 := own[p[1]]
		joined, ok3 := own[p[0]+p[1]]
		if !ok1 || !ok2 || !ok3 {
			return nil, fmt.Errorf("%w: merge %d joins tokens, or makes one, that the vocabulary lacks", pipeline.ErrInvalid, rank)
		}
		if !t.special[joined] {
			b.merges[pairKey(left, right)] = merge{int32(rank), joined} // of a pair given twice the last counts, as in Hugging Face's
		}
	}
	return b, nil
}

func lookUp(names map[string]int32, name string) int32 {
	if id, ok := names[name]; ok {
		return id
	}
	return -1
}

// fallbackBytes are the ids of <0x00> to <0xFF>; -1: none.
func fallbackBytes(names map[string]int32) (ids [256]int32) {
	for i := range ids {
		ids[i] = lookUp(names, fmt.Sprintf("<0x%02X>", i))
	}
	return ids
}

// scored is [spelling, score].
type scored struct {
	name  string
	score float64
}

// UnmarshalJSON reads the pair.
func (s *scored) UnmarshalJSON(raw []byte) error {
	var pair []json.RawMessage
	if err := json.Unmarshal(raw, &pair); err != nil {
		return err
	}
	var number json.Number
	if len(pair) != 2 || json.Unmarshal(pair[0], &s.name) != nil || json.Unmarshal(pair[1], &number) != nil || pair[1][0] == '"' {
		return errors.New("a piece is not a string and a number")
	}
	if s.score = rustFloat(string(number)); math.IsInf(s.score, 0) {
		return errors.New("a score is not finite")
	}
	return nil
}

// rustFloat reads a JSON number as Rust's serde_json does: the digits as one integer, divided by a power of ten. Of a number of 17
// digits that may be the neighbour of the nearest float64, and which of two equally likely ways is taken hangs on it.
func rustFloat(number string) float64 {
	mantissa, exponent, _ := strings.Cut(strings.ToLower(strings.TrimPrefix(number, "-")), "e")
	power, _ := strconv.Atoi(exponent)
	power = min(max(power, -1000), 1000)
	significand, full, fraction := uint64(0), false, false
	for _, c := range []byte(mantissa) {
		switch digit := uint64(c - '0'); {
		case c == '.':
			fraction = true
		case full || significand > (math.MaxUint64-digit)/10:
			full = true
			if !fraction {
				power++
			}
		default:
			significand = significand*10 + digit
			if fraction {
				power--
			}
		}
	}
	f := float64(significand)
	for ; power < -308; power += 308 {
		f /= 1e308
	}
	if power >= 0 {
		f *= math.Pow10(power)
	} else {
		f /= math.Pow10(-power)
	}
	if strings.HasPrefix(number, "-") {
		return -f
	}
	return f
}

// unknownPenalty is how much an unknown character scores below the least likely piece.
const unknownPenalty = 10

func (m *modelFile) readUnigram(raw []byte) error {
	var f struct {
		Type         string   `json:"type"`
		UnkID        *int32   `json:"unk_id"`
		Vocab        []scored `json:"vocab"`
		ByteFallback bool     `json:"byte_fallback"`
	}
	if err := strict(raw, &f); err != nil {
		return err
	}
	if len(f.Vocab) > maxID {
		return fmt.Errorf("%w: %d tokens; the limit is %d", pipeline.ErrInvalid, len(f.Vocab), maxID)
	}
	u := &unigram{unknown: -1, fuseUnknown: true}
	if f.UnkID != nil {
		if *f.UnkID < 0 || int(*f.UnkID) >= len(f.Vocab) {
			return fmt.Errorf("%w: unk_id %d is not in the vocabulary", pipeline.ErrInvalid, *f.UnkID)
		}
		u.unknown = *f.UnkID
	}
	m.names = make(map[string]int32, len(f.Vocab))
	u.unknownScore = math.Inf(1)
	for i, p := range f.Vocab {
		if _, twice := m.names[p.name]; twice {
			return fmt.Errorf("%w: token %d is spelled as another one", pipeline.ErrInvalid, i)
		}
		m.names[p.name] = int32(i)
		u.scores = append(u.scores, p.score)
		u.unknownScore = min(u.unknownScore, p.score)
	}
	u.unknownScore -= unknownPenalty
	own := copyOf(m.names)
	m.build = func(t *Tokenizer, byteLevel bool) (model, error) {
		if byteLevel {
			return nil, fmt.Errorf("%w: ByteLevel before a Unigram model", pipeline.ErrUnsupported)
		}
		u.ids = t.withoutSpecial(own, -1)
		u.pieces = newPrefix(u.ids)
		if f.ByteFallback {
			ids := fallbackBytes(u.ids)
			u.bytes = &ids
		}
		return u, nil
	}
	return nil
}

func (m *modelFile) readWordPiece(raw []byte) error {
	var f struct {
		Type     string           `json:"type"`
		UnkToken string           `json:"unk_token"`
		Prefix   string           `json:"continuing_subword_prefix"`
		Limit    int              `json:"max_input_chars_per_word"`
		Vocab    map[string]int32 `json:"vocab"`
	}
	if err := strict(raw, &f); err != nil {
		return err
	}
	unknown, ok := f.Vocab[f.UnkToken]
	if !ok || f.Prefix == "" || f.Limit < 1 || f.Limit > 1<<16 {
		return fmt.Errorf("%w: unk_token %.60q is not in the vocabulary, or continuing_subword_prefix or max_input_chars_per_word is out of range",
			pipeline.ErrInvalid, f.UnkToken)
	}
	own := copyOf(f.Vocab)
	m.names = f.Vocab
	m.build = func(t *Tokenizer, byteLevel bool) (model, error) {
		if byteLevel {
			return nil, fmt.Errorf("%w: ByteLevel before a WordPiece model", pipeline.ErrUnsupported)
		}
		begin, inside := map[string]int32{}, map[string]int32{}
		for name, id := range t.withoutSpecial(own, -1) {
			begin[name] = id
			if rest, ok := strings.CutPrefix(name, f.Prefix); ok && rest != "" {
				inside[rest] = id
			}
		}
		return &wordPiece{newPrefix(begin), newPrefix(inside), unknown, f.Limit}, nil
	}
	return nil
}
