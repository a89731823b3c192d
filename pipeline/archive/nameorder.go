package archive

import (
	"cmp"
	"iter"
	"math/bits"
	"slices"
	"sort"
)

// nameOrder has the places of studies in columns in the order of their names, so that the studies of a range of names lie together. It
// knows the places below len(places), each once; those behind have come since and are gone over one by one until they are many.
type nameOrder struct{ places []uint32 }

// maxUnordered is how many studies may be behind the order before they are sorted in; in a large archive, a sixteenth of it.
const maxUnordered = 4096

func (o *nameOrder) at(names []nameKey, place int) int {
	return sort.Search(len(o.places), func(i int) bool { return compareNames(names, o.places[i], uint32(place)) >= 0 })
}

func compareNames(names []nameKey, a, b uint32) int {
	x, y := names[a], names[b]
	return cmp.Or(cmp.Compare(x.high, y.high), cmp.Compare(x.low, y.low), cmp.Compare(a, b))
}

// rename gives a study another name, in names too.
func (o *nameOrder) rename(names []nameKey, place int, k nameKey) {
	known := place < len(o.places)
	if !known || names[place] == k {
		names[place] = k
		return
	}
	i := o.at(names, place)
	o.places = slices.Delete(o.places, i, i+1)
	names[place] = k
	o.places = slices.Insert(o.places, o.at(names, place), uint32(place))
}

// insert makes room for a study without a name before others; names has it already.
func (o *nameOrder) insert(names []nameKey, place int) {
	if place >= len(o.places) {
		return
	}
	for i, p := range o.places {
		if p >= uint32(place) {
			o.places[i]++
		}
	}
	o.places = slices.Insert(o.places, o.at(names, place), uint32(place))
}

// drop takes out the studies that moved gives no other place.
func (o *nameOrder) drop(moved []int) {
	to := 0
	for _, p := range o.places {
		if moved[p] >= 0 {
			o.places[to] = uint32(moved[p])
			to++
		}
	}
	o.places = o.places[:to]
}

// settle sorts in what has come since, when it is much.
func (o *nameOrder) settle(names []nameKey) {
	known := len(o.places)
	if len(names)-known <= max(maxUnordered, known/16) {
		return
	}
	added := make([]uint32, len(names)-known)
	for i := range added {
		added[i] = uint32(known + i)
	}
	slices.SortFunc(added, func(a, b uint32) int { return compareNames(names, a, b) })
	o.places = append(o.places, added...)
	for to, j := len(names)-1, len(added)-1; j >= 0; to-- { // merged from behind
		if known > 0 && compareNames(names, o.places[known-1], added[j]) > 0 {
			known--
			o.places[to] = o.places[known]
		} else {
			o.places[to] = added[j]
			j--
		}
	}
}

// between tells the places of the studies of a range of names, in the order of arrival.
func (o *nameOrder) between(names []nameKey, r nameRange) iter.Seq[int] {
	return func(yield func(int) bool) {
		from := sort.Search(len(o.places), func(i int) bool { return !names[o.places[i]].less(r.low) })
		found := o.places[from:]
		found = found[:sort.Search(len(found), func(i int) bool { return r.high.less(names[found[i]]) })]
		here := make([]uint64, (len(names)+63)/64)
		for _, p := range found {
			here[p/64] |= 1 << (p % 64)
		}
		for p := len(o.places); p < len(names); p++ {
			if !names[p].less(r.low) && !r.high.less(names[p]) {
				here[p/64] |= 1 << (p % 64)
			}
		}
		for i, word := range here {
			for ; word != 0; word &= word - 1 {
				if !yield(i*64 + bits.TrailingZeros64(word)) {
					return
				}
			}
		}
	}
}
