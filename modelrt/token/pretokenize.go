package token

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"chatxray/pipeline"
)

// cutter is a list of pre-tokenizers; byteLevel says that the last of them is ByteLevel, whose letters stand for bytes.
type cutter struct {
	steps     []preTokenizer
	byteLevel bool
}

// gpt2 is the expression of ByteLevel with use_regex.
const gpt2 = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`

func init() {
	cutters = map[string]func(raw []byte, depth int) (cutter, error){
		"ByteLevel": newByteLevel, "Split": newSplit, "Digits": newDigits, "Metaspace": newMetaspace, "Punctuation": newPunctuation,
		"BertPreTokenizer": plainCutter(
			splitBy(eachRune(unicode.IsSpace), removed),
			splitBy(eachRune(isPunctuation), isolated)),
		"Whitespace":      plainCutter(splitBy(eachWord, removed)),
		"WhitespaceSplit": plainCutter(splitBy(eachRune(unicode.IsSpace), removed)),
		"Sequence":        newCutters,
	}
}

var cutters map[string]func(raw []byte, depth int) (cutter, error)

func buildCutter(raw json.RawMessage, depth int) (cutter, error) {
	return component("pre_tokenizer", raw, depth, cutters)
}

func plainCutter(steps ...preTokenizer) func([]byte, int) (cutter, error) {
	return func(raw []byte, _ int) (cutter, error) {
		var c struct {
			Type string `json:"type"`
		}
		return cutter{steps: steps}, strict(raw, &c)
	}
}

func newCutters(raw []byte, depth int) (cutter, error) {
	var c struct {
		Type          string            `json:"type"`
		Pretokenizers []json.RawMessage `json:"pretokenizers"`
	}
	if err := strict(raw, &c); err != nil {
		return cutter{}, err
	}
	if len(c.Pretokenizers) > maxComponents {
		return cutter{}, fmt.Errorf("%w: %d steps; the limit is %d", pipeline.ErrInvalid, len(c.Pretokenizers), maxComponents)
	}
	var all cutter
	for _, r := range c.Pretokenizers {
		next, err := buildCutter(r, depth+1)
		if err != nil {
			return cutter{}, err
		}
		if all.byteLevel {
			return cutter{}, fmt.Errorf("%w: a step after ByteLevel", pipeline.ErrUnsupported)
		}
		all = cutter{append(all.steps, next.steps...), next.byteLevel}
	}
	return all, nil
}

func newByteLevel(raw []byte, _ int) (cutter, error) {
	c := byteLevelPart{AddPrefixSpace: true, UseRegex: true}
	if err := strict(raw, &c); err != nil {
		return cutter{}, err
	}
	made := cutter{byteLevel: true}
	if c.AddPrefixSpace {
		made.steps = append(made.steps, func(p piece, out []piece) []piece {
			if !strings.HasPrefix(p.text, " ") {
				p.text = " " + p.text
			}
			return append(out, p)
		})
	}
	if c.UseRegex {
		e, err := compile(gpt2)
		if err != nil {
			return cutter{}, err
		}
		made.steps = append(made.steps, splitBy(e.each, isolated))
	}
	return made, nil
}

// byteLevelPart is ByteLevel in each of its places; the defaults are those of Hugging Face: all true.
type byteLevelPart struct {
	Type           string `json:"type"`
	AddPrefixSpace bool   `json:"add_prefix_space"`
	TrimOffsets    bool   `json:"trim_offsets"`
	UseRegex       bool   `json:"use_regex"`
}

// matcherFunc cuts a text into what matches and what lies between.
type matcherFunc func(text string, yield func(from, to int, match bool))

// behavior says what becomes of the matches; it appends the parts of text.
type behavior func(text string, spans []span, yield func(from, to int))

type span struct {
	from, to int
	match    bool
}

func newSplit(raw []byte, _ int) (cutter, error) {
	var c struct {
		Type     string      `json:"type"`
		Pattern  textPattern `json:"pattern"`
		Behavior string      `json:"behavior"`
		Invert   bool        `json:"invert"`
	}
	if err := strict(raw, &c); err != nil {
		return cutter{}, err
	}
	each, err := c.Pattern.matches()
	if err != nil {
		return cutter{}, err
	}
	b, err := behaviorOf(c.Behavior)
	if err != nil {
		return cutter{}, err
	}
	if c.Invert {
		straight := each
		each = func(text string, yield func(from, to int, match bool)) {
			straight(text, func(from, to int, match bool) { yield(from, to, !match) })
		}
	}
	return cutter{steps: []preTokenizer{splitBy(each, b)}}, nil
}

func behaviorOf(name string) (behavior, error) {
	switch name {
	case "Removed":
		return removed, nil
	case "Isolated":
		return isolated, nil
	case "Contiguous":
		return contiguous, nil
	case "MergedWithPrevious":
		return withPrevious, nil
	case "MergedWithNext":
		return withNext, nil
	}
	return nil, fmt.Errorf("%w: behavior %.40q", pipeline.ErrUnsupported, name)
}

// splitBy makes a pre-tokenizer of a way to cut and of what becomes of the parts. Only the part that begins at the beginning is first.
func splitBy(each matcherFunc, b behavior) preTokenizer {
	return func(p piece, out []piece) []piece {
		var spans []span
		each(p.text, func(from, to int, match bool) { spans = append(spans, span{from, to, match}) })
		b(p.text, spans, func(from, to int) {
			if from < to {
				out = append(out, piece{p.text[from:to], p.first && from == 0})
			}
		})
		return out
	}
}

func removed(_ string, spans []span, yield func(from, to int)) {
	for _, s := range spans {
		if !s.match {
			yield(s.from, s.to)
		}
	}
}

func isolated(_ string, spans []span, yield func(from, to int)) {
	for _, s := range spans {
		yield(s.from, s.to)
	}
}

func contiguous(_ string, spans []span, yield func(from, to int)) {
	for i := 0; i < len(spans); {
		j := i + 1
		for j < len(spans) && spans[j].match == spans[i].match {
			j++
		}
		yield(spans[i].from, spans[j-1].to)
		i = j
	}
}

// withPrevious joins a match to the part before it, unless that is a match too.
func withPrevious(_ string, spans []span, yield func(from, to int)) {
	for i := 0; i < len(spans); i++ {
		s := spans[i]
		if !s.match && i+1 < len(spans) && spans[i+1].match {
			i++
			s.to = spans[i].to
		}
		yield(s.from, s.to)
	}
}

// withNext joins a match to the part after it, unless that is a match too.
func withNext(_ string, spans []span, yield func(from, to int)) {
	for i := 0; i < len(spans); i++ {
		s := spans[i]
		if s.match && i+1 < len(spans) && !spans[i+1].match {
			i++
			s.to = spans[i].to
		}
		yield(s.from, s.to)
	}
}

// eachRune matches single characters of a class.
func eachRune(is func(rune) bool) matcherFunc {
	return func(text string, yield func(from, to int, match bool)) {
		done := 0
		for i, r := range text {
			if !is(r) {
				continue
			}
			if done < i {
				yield(done, i, false)
			}
			done = i + utf8.RuneLen(r)
			yield(i, done, true)
		}
		if done < len(text) {
			yield(done, len(text), false)
		}
	}
}

// eachWord leaves runs of letters and digits and runs of other marks; white space matches.
func eachWord(text string, yield func(from, to int, match bool)) {
	kind := func(r rune) int {
		switch {
		case isWord(r):
			return 1
		case unicode.IsSpace(r):
			return 0
		}
		return 2
	}
	from, last := 0, -1
	for i, r := range text {
		if k := kind(r); k != last {
			if i > 0 {
				yield(from, i, last == 0)
			}
			from, last = i, k
		}
	}
	if text != "" {
		yield(from, len(text), last == 0)
	}
}

func newDigits(raw []byte, _ int) (cutter, error) {
	var c struct {
		Type       string `json:"type"`
		Individual bool   `json:"individual_digits"`
	}
	if err := strict(raw, &c); err != nil {
		return cutter{}, err
	}
	b := contiguous
	if c.Individual {
		b = isolated
	}
	return cutter{steps: []preTokenizer{splitBy(eachRune(isDigit), b)}}, nil
}

func newPunctuation(raw []byte, _ int) (cutter, error) {
	c := struct {
		Type     string `json:"type"`
		Behavior string `json:"behavior"`
	}{Behavior: "Isolated"}
	if err := strict(raw, &c); err != nil {
		return cutter{}, err
	}
	b, err := behaviorOf(c.Behavior)
	if err != nil {
		return cutter{}, err
	}
	return cutter{steps: []preTokenizer{splitBy(eachRune(isPunctuation), b)}}, nil
}

// metaspace is Metaspace as pre-tokenizer and as decoder. Files of tokenizers before 0.14 have add_prefix_space, and str_rep beside it.
type metaspace struct {
	Type        string  `json:"type"`
	Replacement string  `json:"replacement"`
	Scheme      *string `json:"prepend_scheme"`
	Split       *bool   `json:"split"`
	AddPrefix   *bool   `json:"add_prefix_space"`
	StrRep      string  `json:"str_rep"`
}

// scheme is "always", "first" or "never".
func (m *metaspace) scheme() (string, error) {
	scheme := "always"
	if m.Scheme != nil {
		scheme = *m.Scheme
	}
	if m.AddPrefix != nil && !*m.AddPrefix {
		if scheme == "first" {
			return "", fmt.Errorf("%w: add_prefix_space against prepend_scheme", pipeline.ErrInvalid)
		}
		scheme = "never"
	}
	if scheme != "always" && scheme != "first" && scheme != "never" || utf8.RuneCountInString(m.Replacement) != 1 {
		return "", fmt.Errorf("%w: prepend_scheme %.40q, replacement %.40q", pipeline.ErrInvalid, scheme, m.Replacement)
	}
	return scheme, nil
}

func newMetaspace(raw []byte, _ int) (cutter, error) {
	var c metaspace
	if err := strict(raw, &c); err != nil {
		return cutter{}, err
	}
	scheme, err := c.scheme()
	if err != nil {
		return cutter{}, err
	}
	meta, _ := utf8.DecodeRuneInString(c.Replacement)
	steps := []preTokenizer{func(p piece, out []piece) []piece {
		p.text = strings.ReplaceAll(p.text, " ", c.Replacement)
		if (scheme == "always" || scheme == "first" && p.first) && !strings.HasPrefix(p.text, c.Replacement) {
			p.text = c.Replacement + p.text
		}
		return append(out, p)
	}}
	if c.Split == nil || *c.Split {
		steps = append(steps, splitBy(eachRune(func(r rune) bool { return r == meta }), withNext))
	}
	return cutter{steps: steps}, nil
}
