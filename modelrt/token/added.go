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

// addedTokens are tokens by the first byte of their spelling, the longest first.
type addedTokens [256][]*addedToken

func (a *addedTokens) add(token *addedToken) {
	if token.normal == "" {
		return // normalised to nothing: never found, as in Hugging Face's
	}
	list := a[token.normal[0]]
	at := 0
	for at < len(list) && len(list[at].normal) >= len(token.normal) {
		if list[at].normal == token.normal {
			return
		}
		at++
	}
	list = append(list, nil)
	copy(list[at+1:], list[at:])
	list[at] = token
	a[token.normal[0]] = list
}

// find returns the leftmost token at or after from, the longest at its place, or nil.
func (a *addedTokens) find(text string, from int) (at int, token *addedToken) {
	for i := from; i < len(text); i++ {
		for _, t := range a[text[i]] {
			if strings.HasPrefix(text[i:], t.normal) {
				return i, t
			}
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
