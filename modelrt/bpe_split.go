package modelrt

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// splitter cuts text into the pieces that are encoded each by itself: digits first, where digits is set, then GPT-2's expression
//
//	's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
type splitter struct {
	digits     bool // digits are cut out before the expression sees the text, so that they end it
	individual bool // each digit by itself
}

var contractions = [...]string{"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}

// next returns the length of the first piece of text, which is not empty.
func (p splitter) next(text string) int {
	for _, c := range contractions {
		if strings.HasPrefix(text, c) {
			return len(c)
		}
	}
	first, size := utf8.DecodeRuneInString(text)
	if p.digits && isDigit(first) {
		if p.individual {
			return size
		}
		return span(text, isDigit)
	}
	space := 0
	if first == ' ' {
		space = 1
	}
	for _, class := range [...]func(rune) bool{isLetter, p.isNumber, p.isOther} {
		if n := span(text[space:], class); n > 0 {
			return space + n
		}
	}
	n := span(text, unicode.IsSpace)
	if n == len(text) || p.endsAt(text[n:]) {
		return n
	}
	// \s+(?!\S): the last white space stays with the word after it, unless it is the only one.
	if _, last := utf8.DecodeLastRuneInString(text[:n]); n > last {
		n -= last
	}
	return n
}

func (p splitter) endsAt(text string) bool {
	r, _ := utf8.DecodeRuneInString(text)
	return p.digits && isDigit(r)
}

func (p splitter) isNumber(r rune) bool { return !p.digits && isNumber(r) }

func (p splitter) isOther(r rune) bool {
	return !unicode.IsSpace(r) && !isLetter(r) && !isNumber(r) && !(p.digits && isDigit(r))
}

// span returns the length of the longest beginning of s that is all of one class.
func span(s string, class func(rune) bool) int {
	for i, r := range s {
		if !class(r) {
			return i
		}
	}
	return len(s)
}

// The classes of Hugging Face tokenizers 0.22: the expression runs on Unicode 16 (Oniguruma), the digit rule on Unicode 17 (Rust);
// Go 1.26 knows Unicode 15. White space is the same in all three.
func isLetter(r rune) bool {
	return unicode.IsLetter(r) || r >= firstLater && unicode.Is(letters16, r)
}

func isNumber(r rune) bool {
	return unicode.IsNumber(r) || r >= firstLater && unicode.Is(numbers16, r)
}

func isDigit(r rune) bool {
	return isNumber(r) || r >= firstLater && unicode.Is(numbers17, r)
}

const firstLater = 0x1C89

var letters16 = &unicode.RangeTable{
	R16: []unicode.Range16{
		{Lo: 0x1C89, Hi: 0x1C8A, Stride: 1}, {Lo: 0xA7CB, Hi: 0xA7CD, Stride: 1}, {Lo: 0xA7DA, Hi: 0xA7DC, Stride: 1},
	},
	R32: []unicode.Range32{
		{Lo: 0x105C0, Hi: 0x105F3, Stride: 1}, {Lo: 0x10D4A, Hi: 0x10D65, Stride: 1}, {Lo: 0x10D6F, Hi: 0x10D85, Stride: 1},
		{Lo: 0x10EC2, Hi: 0x10EC4, Stride: 1}, {Lo: 0x11380, Hi: 0x11389, Stride: 1}, {Lo: 0x1138B, Hi: 0x1138E, Stride: 3},
		{Lo: 0x11390, Hi: 0x113B5, Stride: 1}, {Lo: 0x113B7, Hi: 0x113D1, Stride: 26}, {Lo: 0x113D3, Hi: 0x113D3, Stride: 1},
		{Lo: 0x11BC0, Hi: 0x11BE0, Stride: 1}, {Lo: 0x13460, Hi: 0x143FA, Stride: 1}, {Lo: 0x16100, Hi: 0x1611D, Stride: 1},
		{Lo: 0x16D40, Hi: 0x16D6C, Stride: 1}, {Lo: 0x18CFF, Hi: 0x18CFF, Stride: 1}, {Lo: 0x1E5D0, Hi: 0x1E5ED, Stride: 1},
		{Lo: 0x1E5F0, Hi: 0x1E5F0, Stride: 1}, {Lo: 0x2EBF0, Hi: 0x2EE5D, Stride: 1},
	},
}

var numbers16 = &unicode.RangeTable{
	R32: []unicode.Range32{
		{Lo: 0x10D40, Hi: 0x10D49, Stride: 1}, {Lo: 0x116D0, Hi: 0x116E3, Stride: 1}, {Lo: 0x11BF0, Hi: 0x11BF9, Stride: 1},
		{Lo: 0x16130, Hi: 0x16139, Stride: 1}, {Lo: 0x16D70, Hi: 0x16D79, Stride: 1}, {Lo: 0x1CCF0, Hi: 0x1CCF9, Stride: 1},
		{Lo: 0x1E5F1, Hi: 0x1E5FA, Stride: 1},
	},
}

var numbers17 = &unicode.RangeTable{
	R32: []unicode.Range32{
		{Lo: 0x11DE0, Hi: 0x11DE9, Stride: 1}, {Lo: 0x16FF4, Hi: 0x16FF6, Stride: 1},
	},
}
