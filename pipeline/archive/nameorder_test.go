package archive

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestNameOrder: whatever has been added, renamed and taken out, the order finds what going over all names finds.
func TestNameOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	c := &columns{codes: map[string]uint32{}}
	name := func() [3]string { return [3]string{fmt.Sprintf("%c%d", 'a'+r.IntN(3), r.IntN(500))} }
	put := func(id int64) {
		c.put(columnRow{id: id, date: "20200101", names: name(), modalities: "DX"})
	}
	check := func(when string) {
		t.Helper()
		if n := len(c.order[0].places); n > len(c.ids) || !slices.IsSortedFunc(c.order[0].places, func(a, b uint32) int { return compareNames(c.names[0], a, b) }) {
			t.Fatalf("%s: %d of %d places, or not in order", when, n, len(c.ids))
		}
		for _, value := range []string{"a*", "b1*", "c499", "a9*", "z*"} {
			var f filter
			f.takeName(value)
			var want []int64
			for i, k := range c.names[0] {
				if !k.less(f.names[0].low) && !f.names[0].high.less(k) {
					want = append(want, c.ids[i])
				}
			}
			got, total := c.match(f, 0, 1<<40)
			if !slices.Equal(got, want) || total != len(want) {
				t.Fatalf("%s: %s finds %d of %d studies", when, value, len(got), len(want))
			}
			if page, total := c.match(f, 3, 2); total != len(want) || !slices.Equal(page, want[min(3, len(want)):min(5, len(want))]) {
				t.Fatalf("%s: a page of %s is %v of %v", when, value, page, want)
			}
		}
	}
	next := int64(0)
	for round := range 4 {
		for range 3 * maxUnordered / 2 {
			next += 2
			put(next)
		}
		check("added")
		c.order[0].settle(c.names[0])
		if n := len(c.order[0].places); n != len(c.ids) {
			t.Fatalf("%d of %d places are in the order", n, len(c.ids))
		}
		check("settled")
		for range 100 {
			put(c.ids[r.IntN(len(c.ids))]) // another name
			put(c.ids[r.IntN(len(c.ids))]/2*2 + 1)
		}
		check("renamed and put between")
		gone := map[int64]bool{}
		for range 500 {
			gone[c.ids[r.IntN(len(c.ids))]] = true
		}
		c.drop(gone)
		check(fmt.Sprint("dropped in round ", round))
		next = max(next, c.ids[len(c.ids)-1]) / 2 * 2
	}
}
