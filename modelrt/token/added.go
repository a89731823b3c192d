package token

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// addedToken is an entry of added_tokens in tokenizer.json.
type addedToken struct {
	ID         int32  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	Normalized bool   `json:"normalized"`
	Special    bool   `json:"special"`
	normal     string // the spelling that is looked for
}

// addedTokens finds tokens in a text.
type addedTokens struct {
	tokens []*addedToken
	words  *prefix // of their spellings to places in tokens; nil: no tokens
}

// newAddedTokens takes tokens by the spelling that is looked for. One that is normalised to nothing is never found, and of two that are
// spelled alike the first counts.
func newAddedTokens(tokens []*addedToken) (a addedTokens) {
	words := map[string]int32{}
	for _, t := range tokens {
		if _, twice := words[t.normal]; t.normal != "" && !twice {
			words[t.normal] = int32(len(a.tokens))
			a.tokens = append(a.tokens, t)
		}
	}
	if len(words) > 0 {
		a.words = newPrefix(words)
	}
	return a
}

// find returns the leftmost token at or after from, the longest at its place, or nil.
func (a *addedTokens) find(text string, from int) (at int, token *addedToken) {
	for i := from; a.words != nil && i < len(text); i++ {
		if b := int(text[i]); a.words.first[b] == a.words.first[b+1] {
			continue
		}
		if n, which := a.words.longest(text[i:]); n > 0 {
			return i, a.tokens[which]
		}
	}
	return len(text), nil
}

// each calls yield for the tokens in text and for what lies between them, in order. at is where a part begins.
func (a *addedTokens) each(text string, yield func(part string, at int, token *addedToken)) {
	done, from := 0, 0
	for {
		start, t := a.find(text, from)
		if t == nil {
			break
		}
		stop := start + len(t.normal)
		from = stop
		if t.SingleWord && (endsWithWord(text[:start]) || startsWithWord(text[stop:])) {
			continue
		}
		if t.LStrip {
			start = max(done, len(strings.TrimRightFunc(text[:start], unicode.IsSpace)))
		}
		if t.RStrip {
			stop = len(text) - len(strings.TrimLeftFunc(text[stop:], unicode.IsSpace))
		}
		if done < start {
			yield(text[done:start], done, nil)
		}
		yield(text[start:stop], start, t)
		done = stop
	}
	if done < len(text) {
		yield(text[done:], done, nil)
	}
}

func startsWithWord(s string) bool {
	r, n := utf8.DecodeRuneInString(s)
	return n > 0 && isWord(r)
}

func endsWithWord(s string) bool {
	r, n := utf8.DecodeLastRuneInString(s)
	return n > 0 && isWord(r)
}
