package modelrt

import (
	"bytes"
	"fmt"
	"sort"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"chatxray/pipeline"
)

// answer is what the model wrote, token by token.
type answer struct {
	tokens    []int32
	logprobs  []float64 // natural logarithm of each token's probability
	text      []byte
	starts    []int         // of each token in text
	spent     time.Duration // in runs
	truncated bool          // no stop within the token limit
}

// add appends a token and says whether one of the stop strings is complete; what is before it stays.
func (a *answer) add(id int32, logprob float64, text []byte, stops []string) bool {
	a.tokens = append(a.tokens, id)
	a.logprobs = append(a.logprobs, logprob)
	a.starts = append(a.starts, len(a.text))
	a.text = append(a.text, text...)
	for _, s := range stops {
		from := max(0, len(a.text)-len(text)-len(s))
		if i := bytes.Index(a.text[from:], []byte(s)); i >= 0 {
			a.cut(from + i)
			return true
		}
	}
	return false
}

// cut ends the text at a byte, and drops the tokens that begin there or later.
func (a *answer) cut(end int) {
	a.text = a.text[:end]
	n := sort.SearchInts(a.starts, end)
	a.tokens, a.logprobs, a.starts = a.tokens[:n], a.logprobs[:n], a.starts[:n]
}

// extent is a stretch of a text, half open.
type extent struct{ from, to int }

// sentences divides the answer into sentences with their tokens. prefix begins the impression. Of a truncated answer the last
// sentence is left out where it is not finished, since half a sentence can say the opposite of the whole.
func (a *answer) sentences(prefix string) ([]pipeline.Sentence, error) {
	if !utf8.Valid(a.text) {
		return nil, fmt.Errorf("%w: it wrote bytes that are no UTF-8", pipeline.ErrModel)
	}
	text := string(a.text)
	impression, after := len(text), len(text)
	if i := strings.Index(text, prefix); prefix != "" && i >= 0 {
		impression, after = i, i+len(prefix)
	}
	var list []pipeline.Sentence
	for _, part := range []struct {
		section pipeline.Section
		extent  extent
	}{{pipeline.SectionFindings, extent{0, impression}}, {pipeline.SectionImpression, extent{after, len(text)}}} {
		for _, s := range split(text[part.extent.from:part.extent.to]) {
			s.from, s.to = s.from+part.extent.from, s.to+part.extent.from
			if a.truncated && s.to == len(strings.TrimRightFunc(text, unicode.IsSpace)) && !ends(text[s.from:s.to]) {
				continue
			}
			first, last := a.tokenAt(s.from), a.tokenAt(s.to-1)
			list = append(list, pipeline.Sentence{Text: text[s.from:s.to], Section: part.section, FirstToken: first, Tokens: last - first + 1})
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%w: it wrote no sentence in %d tokens", pipeline.ErrModel, len(a.tokens))
	}
	return list, nil
}

// tokenAt finds the token that a byte of the text belongs to.
func (a *answer) tokenAt(at int) int { return sort.SearchInts(a.starts, at+1) - 1 }

// split finds the sentences of a text. One ends with a full stop, exclamation or question mark before white space, unless a small
// letter follows ("approx. two") or nothing but a number is before it ("1. Effusion"); and at the end of a line.
func split(text string) (list []extent) {
	from := 0
	finish := func(to int) {
		s := text[from:to]
		lead := len(s) - len(strings.TrimLeftFunc(s, unicode.IsSpace))
		s = strings.TrimSpace(s)
		if strings.ContainsFunc(s, unicode.IsLetter) {
			list = append(list, extent{from + lead, from + lead + len(s)})
		}
		from = to
	}
	for i, r := range text {
		switch {
		case r == '\n':
			finish(i)
		case strings.ContainsRune(".!?", r):
			rest := text[i+1:]
			next, _ := utf8.DecodeRuneInString(strings.TrimLeftFunc(rest, unicode.IsSpace))
			apart := rest == "" || unicode.IsSpace(rune(rest[0]))
			number := strings.Trim(text[from:i], " \t0123456789") == ""
			if apart && !number && !unicode.IsLower(next) {
				finish(i + 1)
			}
		}
	}
	finish(len(text))
	return list
}

// ends says whether a sentence has its closing mark.
func ends(s string) bool { return strings.ContainsAny(s[len(s)-1:], ".!?") }
