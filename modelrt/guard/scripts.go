package guard

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/language"

	"chatxray/pipeline"
)

// Scripts is the characters that a text may hold: the letters of some scripts, and what every report needs beside them.
//
// What every text may hold, whatever its scripts: ASCII with its line feed and tab; the marks of Latin-1 (degree, micro, plus-minus,
// multiplication, superscripts, fractions, quotation marks, no soft hyphen); the Greek alphabet; dashes, quotation marks, primes, bullets and
// per mille of General Punctuation, its spaces of fixed width; superscripts and subscripts; degree Celsius and Fahrenheit, numero, ohm, litre; fractions; plain arrows; mathematical
// operators; the diameter sign. What it may not hold unless a script brings it: punctuation of other scripts, fullwidth forms, emoji, box
// drawing, private use, and everything that is not seen or turns the direction of writing.
type Scripts struct {
	set   runes
	names []string // ISO 15924
}

// anywhere is what every text may hold.
var anywhere = union(runes{
	{'\t', '\n'}, {' ', '~'}, {0xA0, 0xA9}, {0xAB, 0xAC}, {0xAE, 0xB9}, {0xBB, 0xBF}, {0xD7, 0xD7}, {0xF7, 0xF7},
	{0x2002, 0x200A}, {0x2010, 0x2016}, {0x2018, 0x2027}, {0x202F, 0x203A}, {0x2044, 0x2044},
	{0x2070, 0x2070}, {0x2074, 0x207E}, {0x2080, 0x208E}, {0x2103, 0x2103}, {0x2109, 0x2109}, {0x2113, 0x2113}, {0x2116, 0x2116},
	{0x2122, 0x2122}, {0x2126, 0x2126}, {0x2150, 0x215F}, {0x2190, 0x2195}, {0x2200, 0x22FF}, {0x2300, 0x2300},
	{0x391, 0x3A1}, {0x3A3, 0x3A9}, {0x3B1, 0x3C9}, {0x3D1, 0x3D1}, {0x3D5, 0x3D5}, {0x3F5, 0x3F5},
})

// The characters that a script needs though Unicode counts them to no script, or to several (Common, Inherited).
var (
	joiners = runes{{0x200C, 0x200D}}                      // parts of the spelling of Persian, Urdu and most scripts of India
	wide    = runes{{0xFF00, 0xFFEF}, {0x10000, 0x10FFFF}} // halfwidth and fullwidth forms; phonetic letters of other planes

	// Accents that stand behind their letter.
	latinAccents    = runes{{0x300, 0x30E}, {0x310, 0x311}, {0x313, 0x313}, {0x31B, 0x31B}, {0x323, 0x328}, {0x32D, 0x32E}, {0x330, 0x331}}
	greekAccents    = runes{{0x300, 0x301}, {0x304, 0x304}, {0x306, 0x306}, {0x308, 0x308}, {0x313, 0x314}, {0x342, 0x342}, {0x345, 0x345}}
	cyrillicAccents = runes{{0x300, 0x302}, {0x304, 0x304}, {0x306, 0x306}, {0x308, 0x308}, {0x30B, 0x30B}, {0x311, 0x311}}

	// East Asian punctuation and its wide forms with ASCII's; what only Chinese characters or only kana go with.
	eastern = runes{{0x3000, 0x3003}, {0x3008, 0x3011}, {0x3013, 0x301F}, {0x3030, 0x3030}, {0x30FB, 0x30FB}, {0xFF01, 0xFF65}, {0xFFE0, 0xFFE6}}
	hani    = union(eastern, runes{{0x3006, 0x3006}, {0x303C, 0x303D}, {0x3220, 0x3243}, {0x3280, 0x32B0}, {0x3380, 0x33DF}})
	kana    = runes{{0x3031, 0x3035}, {0x3099, 0x309C}, {0x30A0, 0x30A0}, {0x30FC, 0x30FC}, {0xFF70, 0xFF70}, {0xFF9E, 0xFF9F}}

	arabic   = runes{{0x60C, 0x60C}, {0x61B, 0x61B}, {0x61F, 0x61F}, {0x640, 0x640}, {0x64B, 0x655}, {0x660, 0x669}, {0x670, 0x670}}
	dandas   = runes{{0x964, 0x965}}
	indian   = union(runes{{0x951, 0x952}}, dandas, joiners)
	georgian = runes{{0x10FB, 0x10FB}}
)

// writing is one script of ISO 15924: its tables of package unicode, and what it needs beside them.
type writing struct {
	scripts []string
	more    runes
}

// writings are the scripts by their code.
var writings = map[string]writing{
	"Latn": {[]string{"Latin"}, latinAccents},
	"Cyrl": {[]string{"Cyrillic"}, cyrillicAccents},
	"Grek": {[]string{"Greek"}, greekAccents},
	"Arab": {[]string{"Arabic"}, union(arabic, joiners)},
	"Hebr": {[]string{"Hebrew"}, nil},
	"Armn": {[]string{"Armenian"}, nil},
	"Geor": {[]string{"Georgian"}, georgian},
	"Ethi": {[]string{"Ethiopic"}, nil},
	"Thai": {[]string{"Thai"}, nil},
	"Laoo": {[]string{"Lao"}, nil},
	"Khmr": {[]string{"Khmer"}, nil},
	"Mymr": {[]string{"Myanmar"}, nil},
	"Deva": {[]string{"Devanagari"}, indian},
	"Beng": {[]string{"Bengali"}, indian},
	"Guru": {[]string{"Gurmukhi"}, indian},
	"Gujr": {[]string{"Gujarati"}, indian},
	"Orya": {[]string{"Oriya"}, indian},
	"Taml": {[]string{"Tamil"}, indian},
	"Telu": {[]string{"Telugu"}, indian},
	"Knda": {[]string{"Kannada"}, indian},
	"Mlym": {[]string{"Malayalam"}, indian},
	"Sinh": {[]string{"Sinhala"}, union(dandas, joiners)},
	"Hani": {[]string{"Han"}, hani},
	"Hans": {[]string{"Han"}, hani},
	"Hant": {[]string{"Han"}, hani},
	"Bopo": {[]string{"Bopomofo"}, eastern},
	"Jpan": {[]string{"Han", "Hiragana", "Katakana"}, union(hani, kana)},
	"Hang": {[]string{"Hangul"}, eastern},
	"Kore": {[]string{"Hangul", "Han"}, hani},
}

// keepsWide are the scripts whose texts use fullwidth and halfwidth letters and other planes. All others stay without.
var keepsWide = map[string]bool{"Hani": true, "Hans": true, "Hant": true, "Bopo": true, "Jpan": true, "Hang": true, "Kore": true}

// ScriptsOf returns the scripts with the given ISO 15924 codes ("Latn", "Cyrl", "Jpan"). Errors: ErrUnknown, ErrInvalid for none.
func ScriptsOf(codes ...string) (Scripts, error) {
	if len(codes) == 0 {
		return Scripts{}, fmt.Errorf("%w scripts: none is named", pipeline.ErrInvalid)
	}
	s := Scripts{set: anywhere}
	narrow := true
	for _, code := range codes {
		w, ok := writings[code]
		if !ok {
			return Scripts{}, fmt.Errorf("script %q: %w; known are %s", code, pipeline.ErrUnknown, strings.Join(slices.Sorted(maps.Keys(writings)), ", "))
		}
		letters := w.more
		for _, name := range w.scripts {
			letters = union(letters, tabled(unicode.Scripts[name]))
		}
		s.set = union(s.set, letters)
		s.names = append(s.names, code)
		narrow = narrow && !keepsWide[code]
	}
	if narrow {
		s.set = s.set.minus(wide)
	}
	slices.Sort(s.names)
	s.names = slices.Compact(s.names)
	return s, nil
}

// ScriptsFor returns the scripts that languages are written in, by their RFC 5646 tags: "de", "pt-BR", "sr-Latn". A tag without a script
// has its usual one (CLDR's likely subtags). Errors: ErrInvalid for what is no tag, ErrUnknown for a language of no known script.
func ScriptsFor(languages ...string) (Scripts, error) {
	var codes []string
	for _, l := range languages {
		tag, err := language.Parse(l)
		if err != nil || l == "" {
			return Scripts{}, fmt.Errorf("%w language %q: no tag of RFC 5646, like \"en\"", pipeline.ErrInvalid, l)
		}
		script, sure := tag.Script()
		if _, known := writings[script.String()]; !known || sure == language.No {
			return Scripts{}, fmt.Errorf("language %q: %w: its script %s is none of %s", l, pipeline.ErrUnknown, script, strings.Join(slices.Sorted(maps.Keys(writings)), ", "))
		}
		codes = append(codes, script.String())
	}
	return ScriptsOf(codes...)
}

// EveryScript allows every character, and nothing that is no UTF-8.
func EveryScript() Scripts { return Scripts{everyRune, []string{"Zyyy"}} }

// String names the scripts by their codes.
func (s Scripts) String() string { return strings.Join(s.names, ", ") }

// Allows tells whether a character may be written.
func (s Scripts) Allows(c rune) bool { return s.set.has(c) }

// Check is the last look at a finished text: nil where all of it is in the scripts. The error names the first character outside by its
// code point, script and place, and nothing of the text beside it; it wraps ErrModel, because such a text may not leave.
func (s Scripts) Check(text string) error {
	at, c := s.set.outside(text)
	if at < 0 {
		return nil
	}
	return fmt.Errorf("%w: its text has %U (%s) at byte %d, outside the scripts %s", pipeline.ErrModel, c, scriptOf(c), at, s)
}

func scriptOf(c rune) string {
	for _, name := range slices.Sorted(maps.Keys(unicode.Scripts)) {
		if unicode.Is(unicode.Scripts[name], c) {
			return name
		}
	}
	return "no script"
}
