package archive

import (
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// undecomposed are letters that Unicode does not take apart into a base letter and a mark.
var undecomposed = map[rune]string{
	'ß': "ss", 'ẞ': "ss", 'æ': "ae", 'Æ': "ae", 'œ': "oe", 'Œ': "oe", 'ø': "o", 'Ø': "o", 'ł': "l", 'Ł': "l", 'đ': "d", 'Đ': "d",
	'ð': "d", 'Ð': "d", 'þ': "th", 'Þ': "th", 'ħ': "h", 'Ħ': "h", 'ı': "i",
}

// diacritic tells whether a combining mark is one that names are written with or without: accents, Hebrew points, Arabic vowel signs.
// Marks that make another letter stay: the voicing of kana, the vowels of Thai and of Indian scripts.
func diacritic(r rune) bool {
	return unicode.Is(unicode.Mn, r) && (r < 0x0370 || r >= 0x0483 && r < 0x0670 || r == 0x0670 || r >= 0x1AB0 && r < 0x1B00 || r >= 0x1DC0 && r < 0x1E00)
}

// fold makes text comparable as names are: lower case, no diacritics, one width, no empty components at the end, single spaces.
func fold(s string) string {
	if plain(s) {
		s = strings.ToLower(s)
	} else {
		var b strings.Builder
		for _, r := range norm.NFKD.String(s) {
			if letters, ok := undecomposed[r]; ok {
				b.WriteString(letters)
			} else if !diacritic(r) && r != 0 {
				b.WriteRune(unicode.ToLower(r))
			}
		}
		s = norm.NFC.String(b.String())
	}
	parts := strings.Split(s, "^")
	for i, p := range parts {
		parts[i] = strings.Join(strings.Fields(p), " ")
	}
	return strings.TrimRight(strings.Join(parts, "^"), "^")
}

func plain(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 || s[i] == 0 {
			return false
		}
	}
	return true
}

// foldName splits a person name into its component groups (PS3.5 section 6.2.1.1), folded.
func foldName(s string) (groups [3]string) {
	for i, g := range strings.SplitN(s, "=", 3) {
		groups[i] = fold(g)
	}
	return groups
}

// maxWords bounds the words of one name.
const maxWords = 32

// words are what fuzzy matching compares of a name: the words of every component of every group, with all spellings of each.
func words(name string) []string {
	var out []string
	for _, alternatives := range spellings(name) {
		for _, w := range alternatives {
			if !slices.Contains(out, w) {
				out = append(out, w)
			}
		}
	}
	return out
}

// spellings splits a name into words and gives for each how it may be written: ä, ö and ü as a, o and u or with an e behind,
// katakana as hiragana.
func spellings(name string) [][]string {
	separators := func(r rune) bool {
		return unicode.IsSpace(r) || strings.ContainsRune("^=,.-'’·・*", r)
	}
	var out [][]string
	for _, w := range strings.FieldsFunc(name, separators) {
		if len(out) == maxWords {
			break
		}
		base := kana(fold(w))
		if base == "" {
			continue
		}
		alternatives := []string{base}
		if !plain(w) {
			if long := kana(fold(umlauts.Replace(norm.NFC.String(w)))); long != base {
				alternatives = append(alternatives, long)
			}
		}
		out = append(out, alternatives)
	}
	return out
}

var umlauts = strings.NewReplacer("ä", "ae", "ö", "oe", "ü", "ue", "Ä", "ae", "Ö", "oe", "Ü", "ue", "å", "aa", "Å", "aa", "ø", "oe", "Ø", "oe")

// kana writes katakana as hiragana.
func kana(s string) string {
	if plain(s) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if r >= 'ァ' && r <= 'ヶ' {
			return r - 0x60
		}
		return r
	}, s)
}
