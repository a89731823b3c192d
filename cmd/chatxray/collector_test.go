package main

import "testing"

func TestCollectAt(t *testing.T) {
	for live, want := range map[uint64]int{0: 4900, leastHeap / 50: 4900, leastHeap / 8: 700, leastHeap / 2: 100, leastHeap: 100, 10 * leastHeap: 100} {
		if got := collectAt(live); got != want {
			t.Errorf("GOGC=%d with %d bytes alive, want %d", got, live, want)
		}
	}
}
