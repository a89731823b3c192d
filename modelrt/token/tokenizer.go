package token

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"chatxray/pipeline"
)

// Tokenizer is one vocabulary with the rules around it. It never changes after it is made: safe for concurrent use.
type Tokenizer struct {
	ids       map[string]int32 // every spelling in the file, added tokens included
	names     []string         // by id; "" for unused ids
	bytes     [][]byte         // by id: what the token adds to a text; nil for special tokens and unused ids
	special   []bool           // by id
	normalize normalizer       // nil: none
	split     []preTokenizer
	model     model
	added     [2]addedTokens // recognised in this order: those in the text as it is, those in normalised text
	guarded   addedTokens    // all of them but white space, spelled either way
	before    []int32        // what the post-processor puts around a text
	after     []int32
	decode    decoding
}

// model is the algorithm that takes a piece of text apart.
type model interface {
	// encode appends the ids of text, which is not empty. No special token comes out but the unknown one: a model is built without them.
	encode(s *scratch, text string, out []int32) []int32
}

// scratch is the memory of one Encode.
type scratch struct {
	merger  merger
	lattice []arc
	pieces  [2][]piece
}

// piece is a part of a text. first says that it begins where the whole text begins.
type piece struct {
	text  string
	first bool
}

type (
	normalizer   func(text string) string
	preTokenizer func(p piece, out []piece) []piece
)

// Size is the largest id plus one.
func (t *Tokenizer) Size() int { return len(t.names) }

// ID finds a token by its spelling in the vocabulary file.
func (t *Tokenizer) ID(token string) (int32, bool) {
	id, ok := t.ids[token]
	return id, ok
}

// Special says whether an id is a special token's, which Encode never gives and Decode leaves out.
func (t *Tokenizer) Special(id int32) bool {
	return id >= 0 && int(id) < len(t.special) && t.special[id]
}

// TokenBytes returns the text of one token, which may begin or end within a UTF-8 sequence. It is nil for special tokens and for ids
// outside the vocabulary. The caller must not change it.
func (t *Tokenizer) TokenBytes(id int32) []byte {
	if id < 0 || int(id) >= len(t.bytes) {
		return nil
	}
	return t.bytes[id]
}

// Encode returns the ids of text. Added tokens are never recognised, whatever the text spells, and no special one comes out but the unknown
// token: safe for untrusted text. Bytes that are not UTF-8 count as U+FFFD, one for each. What the vocabulary cannot write is left out or
// becomes its unknown token, as in the reference.
func (t *Tokenizer) Encode(text string) []int32 {
	var s scratch
	return t.encodeText(&s, wellFormed(text), true, nil)
}

// EncodeTemplate is Encode, but added tokens spelled in text become their ids, except where Guard has broken them. Only for text that
// we wrote and for guarded text within it.
func (t *Tokenizer) EncodeTemplate(text string) []int32 {
	var s scratch
	var out []int32
	t.added[0].each(wellFormed(text), func(part string, at int, token *addedToken) {
		if token != nil {
			out = append(out, token.ID)
			return
		}
		if strings.Contains(part, guard) {
			out = t.encodeText(&s, strings.ReplaceAll(part, guard, ""), at == 0, out)
			return
		}
		normal := t.normal(part)
		t.added[1].each(normal, func(part string, inside int, token *addedToken) {
			if token != nil {
				out = append(out, token.ID)
				return
			}
			out = t.encodeNormal(&s, part, at == 0 && inside == 0, out)
		})
	})
	return out
}

// guard stands within the spelling of a token that must not be recognised. It is a noncharacter, which no text holds.
const guard = "\U0010FFFE"

// Guard makes untrusted text fit for a place in a template: wherever it spells an added token, EncodeTemplate will see text. Nothing
// else changes. A token whose spelling begins in the text and ends in the template after it, or the other way round, is not seen here. What
// more spells, marks of a template that are no tokens, is broken likewise.
func (t *Tokenizer) Guard(text string, more ...string) string {
	text = strings.ReplaceAll(wellFormed(text), guard, "\uFFFD")
	var out strings.Builder
	done := 0
	for {
		at, token := t.guarded.find(text, done)
		if token == nil {
			break
		}
		at += utf8Length(text[at:])
		out.WriteString(text[done:at])
		out.WriteString(guard)
		done = at
	}
	out.WriteString(text[done:])
	made := out.String()
	for _, m := range more {
		if n := utf8Length(m); m != "" {
			made = strings.ReplaceAll(made, m, m[:n]+guard+m[n:])
		}
	}
	return made
}

// GuardParts guards texts that a template may set side by side, with or without the white space around them: what several of them spell
// together is broken, too.
func (t *Tokenizer) GuardParts(texts []string, more ...string) []string {
	out, trimmed, breaks := make([]string, len(texts)), make([]string, len(texts)), 0
	for i, s := range texts {
		out[i], trimmed[i] = t.Guard(s, more...), strings.TrimSpace(s)
		breaks += strings.Count(out[i], guard)
	}
	joined := func(texts []string) int { return strings.Count(t.Guard(strings.Join(texts, ""), more...), guard) }
	if len(texts) < 2 || joined(texts) <= breaks && joined(trimmed) <= breaks {
		return out
	}
	for i, s := range out {
		end := len(strings.TrimRightFunc(s, unicode.IsSpace))
		out[i] = s[:end] + guard + s[end:]
	}
	return out
}

func blank(s string) bool { return strings.Trim(s, " \t\r\n▁") == "" }

// utf8Length is that of the first character of s.
func utf8Length(s string) int {
	_, n := utf8.DecodeRuneInString(s)
	return n
}

// Around puts the tokens that the file's post-processor adds around the ids of a text: <s>, [CLS] and [SEP] and their like.
func (t *Tokenizer) Around(ids []int32) []int32 { return slices.Concat(t.before, ids, t.after) }

func (t *Tokenizer) normal(text string) string {
	if t.normalize == nil {
		return text
	}
	return t.normalize(text)
}

func (t *Tokenizer) encodeText(s *scratch, text string, first bool, out []int32) []int32 {
	return t.encodeNormal(s, t.normal(text), first, out)
}

// encodeNormal takes normalised text to its pieces, and each of them to its ids.
func (t *Tokenizer) encodeNormal(s *scratch, text string, first bool, out []int32) []int32 {
	if text == "" {
		return out
	}
	from, to := append(s.pieces[0][:0], piece{text, first}), s.pieces[1][:0]
	for _, split := range t.split {
		to = to[:0]
		for _, p := range from {
			to = split(p, to)
		}
		from, to = to, from
	}
	for _, p := range from {
		if p.text != "" {
			out = t.model.encode(s, p.text, out)
		}
	}
	s.pieces = [2][]piece{from[:0], to[:0]}
	return out
}

// wellFormed replaces each byte that belongs to no UTF-8 sequence by U+FFFD.
func wellFormed(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return string([]rune(s))
}

// kinds are the names that a bundle gives to tokenizer files; each opens one.
var kinds = map[string]func(raw []byte) (*Tokenizer, error){}

func register(kind string, parse func(raw []byte) (*Tokenizer, error)) {
	if _, twice := kinds[kind]; twice {
		panic("token: kind " + kind + " is registered twice")
	}
	kinds[kind] = parse
}

// Kinds are the names that Open knows.
func Kinds() []string { return slices.Sorted(maps.Keys(kinds)) }

// Open reads a tokenizer file. The kinds are:
//
//	byte_level_bpe         tokenizer.json with a BPE model over bytes (GPT-2, SmolLM, Qwen 2, Llama 3)
//	sentencepiece_bpe      tokenizer.json with a BPE model over characters, or tokenizer.model (Llama 2, Mistral, Yi, Gemma)
//	sentencepiece_unigram  tokenizer.json with a Unigram model, or tokenizer.model (T5, XLM-R, ChatGLM)
//	wordpiece              tokenizer.json with a WordPiece model (BERT)
//	tiktoken_qwen          qwen.tiktoken with the special tokens of Qwen
//	tiktoken_qwen_vl       qwen.tiktoken with those of Qwen-VL
//
// Errors: ErrUnknown for another kind, ErrInvalid for a broken file, ErrUnsupported for one that asks for what would change ids and
// is not done here, ErrNotFound for no file.
func Open(path, kind string) (*Tokenizer, error) {
	parse, ok := kinds[kind]
	if !ok {
		return nil, fmt.Errorf("tokenizer kind %q: %w; it is one of: %s", kind, pipeline.ErrUnknown, strings.Join(Kinds(), ", "))
	}
	raw, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("tokenizer %s: %w", path, err)
	}
	t, err := parse(raw)
	if err != nil {
		return nil, fmt.Errorf("tokenizer %s: %w", path, err)
	}
	return t, nil
}
