package modelrt

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"chatxray/pipeline"
)

// Tokenizer turns text into the ids of a model's vocabulary and back. It never changes after it is made: safe for concurrent use.
type Tokenizer interface {
	// Encode returns the ids of text. Special tokens are never recognised, whatever the text spells: safe for untrusted text.
	// Bytes that are not UTF-8 count as U+FFFD, one for each. Bytes that the vocabulary lacks are left out.
	Encode(text string) []int32
	// EncodeTemplate is Encode, but added tokens spelled in text become their ids. Only for text that we wrote.
	EncodeTemplate(text string) []int32
	// Decode joins the TokenBytes of ids; bytes that are not UTF-8 in the end become U+FFFD, one for each.
	Decode(ids []int32) string
	// TokenBytes returns the text of one token, which may begin or end within a UTF-8 sequence. It is nil for special tokens and for
	// ids outside the vocabulary. The caller must not change it.
	TokenBytes(id int32) []byte
	// ID finds a token by its spelling in the vocabulary file.
	ID(token string) (int32, bool)
	// Size is the largest id plus one.
	Size() int
}

var tokenizers = map[string]func(path string) (Tokenizer, error){}

func registerTokenizer(kind string, open func(path string) (Tokenizer, error)) {
	if _, twice := tokenizers[kind]; twice {
		panic("modelrt: tokenizer " + kind + " is registered twice")
	}
	tokenizers[kind] = open
}

// OpenTokenizer reads a tokenizer file. The one kind is "byte_level_bpe": a Hugging Face tokenizer.json.
// Errors: ErrUnknown for another kind, ErrInvalid for a broken file, ErrUnsupported for one that asks for what would change ids and
// is not done here, ErrNotFound for no file.
func OpenTokenizer(path, kind string) (Tokenizer, error) {
	open, ok := tokenizers[kind]
	if !ok {
		return nil, fmt.Errorf("tokenizer kind %q: %w; it is one of: %s",
			kind, pipeline.ErrUnknown, strings.Join(slices.Sorted(maps.Keys(tokenizers)), ", "))
	}
	t, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("tokenizer %s: %w", path, err)
	}
	return t, nil
}
