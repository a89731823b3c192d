package modelrt

import "chatxray/modelrt/token"

// Tokenizer turns text into the ids of a model's vocabulary and back. It never changes after it is made: safe for concurrent use.
// token.Tokenizer is the one that bundles get; token tells its contract.
type Tokenizer interface {
	// Encode returns the ids of text. Added tokens are never recognised, whatever the text spells: safe for untrusted text.
	// Bytes that are not UTF-8 count as U+FFFD, one for each. Bytes that the vocabulary lacks are left out.
	Encode(text string) []int32
	// EncodeTemplate is Encode, but added tokens spelled in text become their ids. Only for text that we wrote and for guarded text within it.
	EncodeTemplate(text string) []int32
	// Guard makes untrusted text fit for a place in a template; what more spells is broken as added tokens are.
	Guard(text string, more ...string) string
	// GuardParts is Guard for texts that a template may set side by side.
	GuardParts(texts []string, more ...string) []string
	// Around puts what the file's post-processor adds around the ids of a text.
	Around(ids []int32) []int32
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

// OpenTokenizer reads a tokenizer file, of one of the kinds that token.Open tells. Errors are those of token.Open.
func OpenTokenizer(path, kind string) (Tokenizer, error) {
	t, err := token.Open(path, kind)
	if err != nil {
		return nil, err
	}
	return t, nil
}
