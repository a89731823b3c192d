package token

import (
	"strconv"
	"strings"
	"unicode"
)

// The oracle's parts know different editions of Unicode, and Go 1.26 knows 15. unicode_tables.go holds what they see differently, made
// by testdata/make_unicode.py; a test compares every code point of every class.

// class is a set of characters: a table of Go's with the characters that the oracle's edition has more and less.
type class struct {
	tables     []*unicode.RangeTable
	more, less *unicode.RangeTable // nil: none
}

func (c *class) has(r rune) bool {
	if c.less != nil && unicode.Is(c.less, r) {
		return false
	}
	return unicode.IsOneOf(c.tables, r) || c.more != nil && unicode.Is(c.more, r)
}

// ranges reads code points and ranges of them, in hexadecimal and in order.
func ranges(list string) *unicode.RangeTable {
	t := &unicode.RangeTable{}
	for word := range strings.FieldsSeq(list) {
		from, to, _ := strings.Cut(word, "-")
		lo, err := strconv.ParseUint(from, 16, 32)
		hi := lo
		if err == nil && to != "" {
			hi, err = strconv.ParseUint(to, 16, 32)
		}
		if err != nil {
			panic("token: a table of characters: " + err.Error())
		}
		if hi <= 0xFFFF {
			t.R16 = append(t.R16, unicode.Range16{Lo: uint16(lo), Hi: uint16(hi), Stride: 1})
		} else {
			t.R32 = append(t.R32, unicode.Range32{Lo: uint32(lo), Hi: uint32(hi), Stride: 1})
		}
	}
	return t
}

// classes are what \p{..} means in an expression of tokenizer.json (Oniguruma, Unicode 16).
var classes = func() map[string]*class {
	m := map[string]*class{}
	for name, table := range unicode.Categories {
		m[name] = &class{tables: []*unicode.RangeTable{table}, more: onigurumaMore[name], less: onigurumaLess[name]}
	}
	m["Han"] = &class{tables: []*unicode.RangeTable{unicode.Han}, more: onigurumaMore["Han"]}
	for _, name := range []string{"Cn", "C", "LC", "Cs"} { // nothing uses them, and no table of differences was made
		delete(m, name)
	}
	m["w"] = &class{tables: wordTables, more: onigurumaMore["word"], less: onigurumaLess["word"]}
	m["s"] = &class{tables: []*unicode.RangeTable{unicode.White_Space}}
	m["d"] = m["Nd"]
	return m
}()

var wordTables = []*unicode.RangeTable{unicode.L, unicode.M, unicode.Nd, unicode.Nl, unicode.Pc, unicode.Other_Alphabetic}

// What Rust's standard library and its crates see, of which Hugging Face tokenizers is made.
var (
	rustNumeric = &class{tables: []*unicode.RangeTable{unicode.N}, more: rustMore["numeric"]}
	rustWord    = &class{tables: append([]*unicode.RangeTable{unicode.Join_Control}, wordTables...), more: rustMore["word"], less: rustLess["word"]}
	punctuation = &class{tables: []*unicode.RangeTable{unicode.P}, more: rustMore["punctuation"], less: rustLess["punctuation"]}
	control     = &class{tables: []*unicode.RangeTable{unicode.Cc, unicode.Cf, unicode.Co}, more: rustMore["control"], less: rustLess["control"]}
	mark        = &class{tables: []*unicode.RangeTable{unicode.M}, more: rustMore["mark"], less: rustLess["mark"]}
	nonSpacing  = &class{tables: []*unicode.RangeTable{unicode.Mn}, more: rustMore["nonspacing"], less: rustLess["nonspacing"]}
)

func isDigit(r rune) bool {
	if r < 0x80 {
		return '0' <= r && r <= '9'
	}
	return rustNumeric.has(r)
}

func isWord(r rune) bool { return rustWord.has(r) }

// isPunctuation is BERT's rule: every mark of ASCII counts.
func isPunctuation(r rune) bool {
	if r < 0x80 {
		return r > ' ' && r < 0x7F && !('0' <= r && r <= '9' || 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z')
	}
	return punctuation.has(r)
}

// isChinese is BERT's rule: ideographs, but no kana and no hangul.
func isChinese(r rune) bool {
	return r >= 0x4E00 && r <= 0x9FFF || r >= 0x3400 && r <= 0x4DBF || r >= 0x20000 && r <= 0x2A6DF || r >= 0x2A700 && r <= 0x2B73F ||
		r >= 0x2B740 && r <= 0x2B81F || r >= 0x2B920 && r <= 0x2CEAF || r >= 0xF900 && r <= 0xFAFF || r >= 0x2F800 && r <= 0x2FA1F
}

// lower is Rust's char::to_lowercase: one character may become two.
func lower(r rune) (rune, rune) {
	if r < 0x80 {
		return unicode.ToLower(r), 0
	}
	if r == 0x130 {
		return 'i', 0x307
	}
	if l, ok := rustLower[r]; ok {
		return l, 0
	}
	return unicode.ToLower(r), 0
}
