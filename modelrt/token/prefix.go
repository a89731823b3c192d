package token

import (
	"cmp"
	"slices"
	"sort"
)

// prefix finds the words of a list with which a text begins. It is the sorted list itself.
type prefix struct {
	words []string
	ids   []int32
	first [257]int32 // where the words with this first byte begin
}

// newPrefix takes words by their ids. There are no empty words.
func newPrefix(words map[string]int32) *prefix {
	p := &prefix{words: make([]string, 0, len(words)), ids: make([]int32, len(words))}
	for w := range words {
		p.words = append(p.words, w)
	}
	slices.SortFunc(p.words, func(a, b string) int { return cmp.Compare(a, b) })
	for i, w := range p.words {
		p.ids[i] = words[w]
	}
	for b := range p.first {
		p.first[b] = int32(sort.Search(len(p.words), func(i int) bool { return int(p.words[i][0]) >= b }))
	}
	return p
}

// each calls yield for every word with which text begins, the shortest first.
func (p *prefix) each(text string, yield func(length int, id int32)) {
	if text == "" {
		return
	}
	lo, hi := p.first[text[0]], p.first[int(text[0])+1]
	for n := 1; lo < hi; n++ {
		if len(p.words[lo]) == n {
			yield(n, p.ids[lo])
			lo++
		}
		if n == len(text) {
			return
		}
		lo, hi = p.narrow(lo, hi, n, text[n])
	}
}

// narrow leaves the words of a range, all longer than n, whose byte n is c.
func (p *prefix) narrow(lo, hi int32, n int, c byte) (from, to int32) {
	from, to = lo, hi
	for from < to {
		if mid := (from + to) / 2; p.words[mid][n] < c {
			from = mid + 1
		} else {
			to = mid
		}
	}
	lo, to = from, hi
	for lo < to {
		if mid := (lo + to) / 2; p.words[mid][n] <= c {
			lo = mid + 1
		} else {
			to = mid
		}
	}
	return from, to
}

// longest returns the longest word with which text begins; a length of 0 is none.
func (p *prefix) longest(text string) (length int, id int32) {
	p.each(text, func(n int, i int32) { length, id = n, i })
	return length, id
}
