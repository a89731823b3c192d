package token

import "unicode/utf8"

// wordPiece takes the longest beginning of a word that is a token, and the longest of what follows with a prefix before it.
type wordPiece struct {
	begin, inside *prefix // inside: without the prefix
	unknown       int32
	limit         int // characters of a word; a longer one is unknown
}

func (w *wordPiece) encode(_ *scratch, text string, out []int32) []int32 {
	if utf8.RuneCountInString(text) > w.limit {
		return append(out, w.unknown)
	}
	first, words := len(out), w.begin
	for text != "" {
		n, id := words.longest(text)
		if n == 0 {
			return append(out[:first], w.unknown)
		}
		out = append(out, id)
		text, words = text[n:], w.inside
	}
	return out
}
