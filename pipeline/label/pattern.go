package label

import (
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
)

// pattern is a regular expression that first looks for letters without which it cannot match: most sentences hold few of all the words.
type pattern struct {
	*regexp.Regexp
	needs []string // one of them is in every match; none: unknown
}

// phrases makes a pattern of whole words from alternatives.
func phrases(alternatives ...string) pattern {
	text := `\b(?:` + strings.Join(alternatives, "|") + `)\b`
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		panic("label: " + err.Error())
	}
	return pattern{regexp.MustCompile(text), needed(parsed)}
}

// all returns the places of every match in text.
func (p pattern) all(text string) [][]int {
	if p.Regexp == nil || len(p.needs) > 0 && !slices.ContainsFunc(p.needs, func(s string) bool { return strings.Contains(text, s) }) {
		return nil
	}
	return p.FindAllStringIndex(text, -1)
}

// needed returns strings of which every match of r holds at least one; nil where there are none.
func needed(r *syntax.Regexp) []string {
	switch {
	case r.Op == syntax.OpLiteral && r.Flags&syntax.FoldCase == 0:
		return []string{string(r.Rune)}
	case r.Op == syntax.OpCapture || r.Op == syntax.OpPlus || r.Op == syntax.OpRepeat && r.Min > 0:
		return needed(r.Sub[0])
	case r.Op == syntax.OpConcat:
		var best []string
		for _, sub := range r.Sub {
			if n := needed(sub); shortest(n) > shortest(best) {
				best = n
			}
		}
		return best
	case r.Op == syntax.OpAlternate:
		var union []string
		for _, sub := range r.Sub {
			n := needed(sub)
			if n == nil {
				return nil
			}
			union = append(union, n...)
		}
		return union
	}
	return nil
}

func shortest(list []string) int {
	if len(list) == 0 {
		return 0
	}
	return len(slices.MinFunc(list, func(a, b string) int { return len(a) - len(b) }))
}
