package dicom

import (
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"
)

// charset decodes text by Specific Character Set (PS3.3 section C.12.1.1.2; PS3.5 section 6.1). The zero value is the default
// repertoire. suyashkumar/dicom knows neither ISO 2022 code extensions with several sets nor Thai, so this is our own.
type charset struct {
	whole    encoding.Encoding // one encoding for all bytes: GB18030, GBK
	unicode  bool              // UTF-8
	g0, g1   *codeTable        // as each value begins; g0 nil is ASCII
	extended bool              // escape sequences may change g0 and g1
}

// codeTable is one coded character set that a half of the code space can hold.
type codeTable struct {
	single *charmap.Charmap  // one byte a character
	double encoding.Encoding // two bytes a character, as the EUC form of the set
	prefix byte              // before the two bytes in that form
	kana   bool              // JIS X 0201: half-width katakana above 0xA0
}

var (
	jisRomaji   = &codeTable{}
	jisKatakana = &codeTable{kana: true}
	jis0208     = &codeTable{double: japanese.EUCJP}
	jis0212     = &codeTable{double: japanese.EUCJP, prefix: 0x8F}
	ks1001      = &codeTable{double: korean.EUCKR}
	gb2312      = &codeTable{double: simplifiedchinese.GBK}
	latin1      = &codeTable{single: charmap.ISO8859_1}
)

// singleByte are the sets of one byte a character by the number in their defined term (ISO_IR n, ISO 2022 IR n) and the last byte
// of the escape sequence that calls them into the upper half (ESC 02/13 F).
var singleByte = []struct {
	number    string
	final     byte
	codeTable *codeTable
}{
	{"100", 'A', latin1},
	{"101", 'B', &codeTable{single: charmap.ISO8859_2}},
	{"109", 'C', &codeTable{single: charmap.ISO8859_3}},
	{"110", 'D', &codeTable{single: charmap.ISO8859_4}},
	{"144", 'L', &codeTable{single: charmap.ISO8859_5}},
	{"127", 'G', &codeTable{single: charmap.ISO8859_6}},
	{"126", 'F', &codeTable{single: charmap.ISO8859_7}},
	{"138", 'H', &codeTable{single: charmap.ISO8859_8}},
	{"148", 'M', &codeTable{single: charmap.ISO8859_9}},
	{"166", 'T', &codeTable{single: charmap.Windows874}},
	{"203", 'b', &codeTable{single: charmap.ISO8859_15}},
}

// newCharset makes the decoder for the values of Specific Character Set. Terms that are not of the standard leave the default
// repertoire, with bytes that are valid UTF-8 taken as that: real files say so little or so wrongly that refusing them loses more.
func newCharset(terms []string) charset {
	var c charset
	for i, t := range terms {
		t = strings.ToUpper(strings.NewReplacer("_", "", "-", "", " ", "").Replace(t)) // writers do not agree on what stands between
		switch t {
		case "ISOIR192", "UTF8":
			return charset{unicode: true}
		case "GB18030":
			return charset{whole: simplifiedchinese.GB18030}
		case "GBK":
			return charset{whole: simplifiedchinese.GBK}
		}
		number, extension := strings.CutPrefix(t, "ISO2022IR")
		c.extended = c.extended || extension
		if i > 0 {
			continue // later terms only say what escape sequences may call
		}
		if !extension {
			number = strings.TrimPrefix(t, "ISOIR")
		}
		switch number {
		case "13":
			c.g0, c.g1 = jisRomaji, jisKatakana
		case "149": // Korean files name it first and still escape
			c.g1 = ks1001
		case "58":
			c.g1 = gb2312
		}
		for _, s := range singleByte {
			if s.number == number {
				c.g1 = s.codeTable
			}
		}
	}
	if len(terms) > 1 {
		c.extended = true
	}
	return c
}

// decode makes UTF-8 of one value or of several with backslashes between them. Bytes that mean nothing become U+FFFD.
func (c charset) decode(b []byte, several, name bool) string {
	switch {
	case ascii(b):
		return string(b)
	case c.unicode:
		return strings.ToValidUTF8(string(b), "\uFFFD")
	case c.whole != nil:
		return decoded(c.whole, b)
	case c.g1 == nil && !c.extended && utf8.Valid(b):
		return string(b)
	}
	var out strings.Builder
	out.Grow(len(b) + len(b)/2)
	g0, g1 := c.g0, c.g1
	for i := 0; i < len(b); {
		ch := b[i]
		if ch == 0x1B && c.extended {
			if n, lower, upper := escape(b[i:]); n > 0 {
				if lower != nil {
					g0 = lower
				}
				if upper != nil {
					g1 = upper
				}
				i += n
				continue
			}
		}
		t := g0
		if ch >= 0x80 {
			t = g1
		}
		switch {
		case t != nil && t.double != nil && ch&0x7F > 0x20 && ch&0x7F < 0x7F && i+1 < len(b) && b[i+1]&0x80 == ch&0x80:
			out.WriteString(t.pair(ch, b[i+1]))
			i += 2
			continue
		case ch < 0x80:
			out.WriteByte(ch)
			if ends(ch, several, name) { // PS3.5 section 6.1.2.5.3: each begins anew
				g0, g1 = c.g0, c.g1
			}
		default:
			out.WriteRune(t.one(ch))
		}
		i++
	}
	return out.String()
}

// ends tells whether a character sets the code extensions back.
func ends(ch byte, several, name bool) bool {
	switch ch {
	case '\t', '\n', '\f', '\r':
		return true
	case '\\':
		return several
	case '^', '=':
		return name
	}
	return false
}

// escape reads an escape sequence (PS3.3 tables C.12-3 and C.12-4): its length, and the set that it calls into a half.
func escape(b []byte) (n int, lower, upper *codeTable) {
	is := func(s string) bool { return len(b) > len(s) && string(b[1:1+len(s)]) == s }
	switch {
	case is("(B"), is("(J"):
		return 3, jisRomaji, nil
	case is(")I"):
		return 3, nil, jisKatakana
	case is("$B"), is("$@"):
		return 3, jis0208, nil
	case is("$(D"):
		return 4, jis0212, nil
	case is("$)C"):
		return 4, nil, ks1001
	case is("$)A"):
		return 4, nil, gb2312
	case len(b) > 2 && b[1] == '-':
		for _, s := range singleByte {
			if s.final == b[2] {
				return 3, nil, s.codeTable
			}
		}
	}
	return 0, nil, nil
}

// one is the character of a single byte above 0x7F.
func (t *codeTable) one(ch byte) rune {
	switch {
	case t == nil:
		return utf8.RuneError
	case t.kana && ch > 0xA0 && ch < 0xE0:
		return 0xFF61 + rune(ch-0xA1)
	case t.single != nil:
		return t.single.DecodeByte(ch)
	}
	return utf8.RuneError
}

// pair is the character of two bytes of a double-byte set.
func (t *codeTable) pair(a, b byte) string {
	in := make([]byte, 0, 3)
	if t.prefix != 0 {
		in = append(in, t.prefix)
	}
	return decoded(t.double, append(in, a|0x80, b|0x80))
}

func decoded(e encoding.Encoding, b []byte) string {
	s, err := e.NewDecoder().Bytes(b)
	if err != nil {
		return "\uFFFD"
	}
	return string(s)
}

func ascii(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 || c == 0x1B {
			return false
		}
	}
	return true
}
