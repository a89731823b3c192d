package token

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"chatxray/pipeline"
)

// Limits of what a file may build of components.
const (
	maxDepth      = 8
	maxComponents = 32
)

func init() {
	for name, build := range map[string]func(raw []byte, depth int) (normalizer, error){
		"NFC":  fixed(form(norm.NFC)),
		"NFD":  fixed(form(norm.NFD)),
		"NFKC": fixed(form(norm.NFKC)),
		"NFKD": fixed(form(norm.NFKD)),
		"Lowercase": fixed(func(s string) string {
			return perRune(s, func(r rune, out *strings.Builder) { writeLower(r, out) })
		}),
		"StripAccents":   fixed(func(s string) string { return without(s, mark.has) }),
		"Nmt":            fixed(nmt),
		"Strip":          newStrip,
		"Prepend":        newPrepend,
		"Replace":        newReplace,
		"BertNormalizer": newBertNormalizer,
		"Precompiled":    newPrecompiled,
		"Sequence":       newNormalizers,
	} {
		normalizers[name] = build
	}
}

var normalizers = map[string]func(raw []byte, depth int) (normalizer, error){}

// buildNormalizer makes the normalizer of tokenizer.json; nil where there is none.
func buildNormalizer(raw json.RawMessage, depth int) (normalizer, error) {
	return component("normalizer", raw, depth, normalizers)
}

// component makes one of the named parts of tokenizer.json.
func component[T any](what string, raw json.RawMessage, depth int, kinds map[string]func([]byte, int) (T, error)) (made T, err error) {
	if isNull(raw) {
		return made, nil
	}
	var head struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return made, fmt.Errorf("%w: %s: %w", pipeline.ErrInvalid, what, err)
	}
	build, ok := kinds[head.Type]
	if !ok {
		return made, fmt.Errorf("%w: %s %.60q", pipeline.ErrUnsupported, what, head.Type)
	}
	if depth > maxDepth {
		return made, fmt.Errorf("%w: %s: sequences within sequences", pipeline.ErrInvalid, what)
	}
	made, err = build(raw, depth)
	if err != nil {
		return made, fmt.Errorf("%s %s: %w", what, head.Type, err)
	}
	return made, nil
}

func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

func fixed(n normalizer) func([]byte, int) (normalizer, error) {
	return func(raw []byte, _ int) (normalizer, error) {
		var c struct {
			Type string `json:"type"`
		}
		return n, strict(raw, &c)
	}
}

// form normalises all but the characters that the reference does not know: they part the text, as unassigned ones do.
func form(f norm.Form) normalizer {
	return func(s string) string {
		i := strings.IndexFunc(s, isLate)
		if i < 0 {
			return f.String(s)
		}
		var out strings.Builder
		for i >= 0 {
			_, n := utf8.DecodeRuneInString(s[i:])
			out.WriteString(f.String(s[:i]))
			out.WriteString(s[i : i+n])
			s = s[i+n:]
			i = strings.IndexFunc(s, isLate)
		}
		out.WriteString(f.String(s))
		return out.String()
	}
}

func isLate(r rune) bool { return r >= 0x7FD && unicode.Is(late, r) }

func perRune(s string, write func(r rune, out *strings.Builder)) string {
	var out strings.Builder
	out.Grow(len(s))
	for _, r := range s {
		write(r, &out)
	}
	return out.String()
}

func writeLower(r rune, out *strings.Builder) {
	a, b := lower(r)
	out.WriteRune(a)
	if b != 0 {
		out.WriteRune(b)
	}
}

func without(s string, drop func(rune) bool) string {
	return perRune(s, func(r rune, out *strings.Builder) {
		if !drop(r) {
			out.WriteRune(r)
		}
	})
}

// nmt are the rules of SentencePiece's nmt_nfkc before NFKC.
func nmt(s string) string {
	return perRune(s, func(r rune, out *strings.Builder) {
		switch {
		case r >= 1 && r <= 8, r == 0xB, r >= 0xE && r <= 0x1F, r == 0x7F, r == 0x8F, r == 0x9F:
		case r == 9, r == 0xA, r == 0xC, r == 0xD, r == 0x1680, r >= 0x200B && r <= 0x200F, r == 0x2028, r == 0x2029, r == 0x2581, r == 0xFEFF, r == 0xFFFD:
			out.WriteByte(' ')
		default:
			out.WriteRune(r)
		}
	})
}

func newStrip(raw []byte, _ int) (normalizer, error) {
	var c struct {
		Type  string `json:"type"`
		Left  bool   `json:"strip_left"`
		Right bool   `json:"strip_right"`
	}
	if err := strict(raw, &c); err != nil {
		return nil, err
	}
	return func(s string) string {
		if c.Left {
			s = strings.TrimLeftFunc(s, unicode.IsSpace)
		}
		if c.Right {
			s = strings.TrimRightFunc(s, unicode.IsSpace)
		}
		return s
	}, nil
}

func newPrepend(raw []byte, _ int) (normalizer, error) {
	var c struct {
		Type    string `json:"type"`
		Prepend string `json:"prepend"`
	}
	if err := strict(raw, &c); err != nil {
		return nil, err
	}
	return func(s string) string {
		if s == "" {
			return s
		}
		return c.Prepend + s
	}, nil
}

// textPattern is {"String": ..} or {"Regex": ..}.
type textPattern struct {
	String *string `json:"String"`
	Regex  *string `json:"Regex"`
}

// matches returns the function that cuts a text: what matches, and what lies between.
func (p textPattern) matches() (func(text string, yield func(from, to int, match bool)), error) {
	switch {
	case p.Regex != nil && p.String == nil:
		e, err := compile(*p.Regex)
		if err != nil {
			return nil, err
		}
		return e.each, nil
	case p.String != nil && p.Regex == nil && *p.String != "":
		return func(text string, yield func(from, to int, match bool)) { eachString(text, *p.String, yield) }, nil
	}
	return nil, fmt.Errorf("%w: a pattern that is neither a string nor an expression", pipeline.ErrInvalid)
}

func eachString(text, sought string, yield func(from, to int, match bool)) {
	for done := 0; done < len(text); {
		at := strings.Index(text[done:], sought)
		if at < 0 {
			yield(done, len(text), false)
			return
		}
		if at > 0 {
			yield(done, done+at, false)
		}
		yield(done+at, done+at+len(sought), true)
		done += at + len(sought)
	}
}

func newReplace(raw []byte, _ int) (normalizer, error) {
	var c struct {
		Type    string      `json:"type"`
		Pattern textPattern `json:"pattern"`
		Content string      `json:"content"`
	}
	if err := strict(raw, &c); err != nil {
		return nil, err
	}
	if s := c.Pattern.String; s != nil && *s != "" && c.Pattern.Regex == nil {
		return func(text string) string { return strings.ReplaceAll(text, *s, c.Content) }, nil
	}
	each, err := c.Pattern.matches()
	if err != nil {
		return nil, err
	}
	return func(text string) string {
		var out strings.Builder
		each(text, func(from, to int, match bool) {
			if match {
				out.WriteString(c.Content)
			} else {
				out.WriteString(text[from:to])
			}
		})
		return out.String()
	}, nil
}

func newBertNormalizer(raw []byte, _ int) (normalizer, error) {
	c := struct {
		Type    string `json:"type"`
		Clean   bool   `json:"clean_text"`
		Chinese bool   `json:"handle_chinese_chars"`
		Accents *bool  `json:"strip_accents"`
		Lower   bool   `json:"lowercase"`
	}{Clean: true, Chinese: true, Lower: true}
	if err := strict(raw, &c); err != nil {
		return nil, err
	}
	accents := c.Lower
	if c.Accents != nil {
		accents = *c.Accents
	}
	var steps []normalizer
	if c.Clean {
		steps = append(steps, cleanText)
	}
	if c.Chinese {
		steps = append(steps, spaceChinese)
	}
	if accents {
		steps = append(steps, form(norm.NFD), func(s string) string { return without(s, nonSpacing.has) })
	}
	if c.Lower {
		steps = append(steps, func(s string) string { return perRune(s, writeLower) })
	}
	return inOrder(steps), nil
}

func cleanText(s string) string {
	return perRune(s, func(r rune, out *strings.Builder) {
		switch {
		case r == '\t' || r == '\n' || r == '\r':
			out.WriteByte(' ')
		case r == 0xFFFD || control.has(r):
		case unicode.IsSpace(r):
			out.WriteByte(' ')
		default:
			out.WriteRune(r)
		}
	})
}

func spaceChinese(s string) string {
	return perRune(s, func(r rune, out *strings.Builder) {
		if isChinese(r) {
			out.WriteByte(' ')
			out.WriteRune(r)
			out.WriteByte(' ')
			return
		}
		out.WriteRune(r)
	})
}

func newNormalizers(raw []byte, depth int) (normalizer, error) {
	var c struct {
		Type        string            `json:"type"`
		Normalizers []json.RawMessage `json:"normalizers"`
	}
	if err := strict(raw, &c); err != nil {
		return nil, err
	}
	if len(c.Normalizers) > maxComponents {
		return nil, fmt.Errorf("%w: %d steps; the limit is %d", pipeline.ErrInvalid, len(c.Normalizers), maxComponents)
	}
	var steps []normalizer
	for _, r := range c.Normalizers {
		n, err := buildNormalizer(r, depth+1)
		if err != nil {
			return nil, err
		}
		if n != nil {
			steps = append(steps, n)
		}
	}
	return inOrder(slices.Clip(steps)), nil
}

func inOrder(steps []normalizer) normalizer {
	return func(s string) string {
		for _, n := range steps {
			s = n(s)
		}
		return s
	}
}
