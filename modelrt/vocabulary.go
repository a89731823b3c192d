package modelrt

import "chatxray/modelrt/guard"

// vocabularyOf is what the tokens of a model spell, for logits of the given width. One serves all guards and grammars of a bundle.
// Errors: ErrInvalid where a stop token is none of the tokenizer, or the width does not fit.
func vocabularyOf(t Tokenizer, width int, stops []int32) (*guard.Vocabulary, error) {
	tokens := make([][]byte, t.Size())
	for i := range tokens {
		tokens[i] = t.TokenBytes(int32(i))
	}
	return guard.NewVocabulary(tokens, width, stops)
}
