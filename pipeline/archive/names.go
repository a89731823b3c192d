package archive

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// fold makes text comparable as names are: lower case, no diacritics, no empty components at the end, single spaces.
func fold(s string) string {
	var b strings.Builder
	for _, r := range norm.NFD.String(s) {
		if !unicode.Is(unicode.Mn, r) {
			b.WriteRune(unicode.ToLower(r))
		}
	}
	parts := strings.Split(b.String(), "^")
	for i, p := range parts {
		parts[i] = strings.Join(strings.Fields(p), " ")
	}
	return strings.TrimRight(strings.Join(parts, "^"), "^")
}

// foldName splits a person name into its component groups (PS3.5 section 6.2.1.1), folded.
func foldName(s string) (alphabetic, ideographic, phonetic string) {
	groups := append(strings.SplitN(s, "=", 3), "", "")
	return fold(groups[0]), fold(groups[1]), fold(groups[2])
}
