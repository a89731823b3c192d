package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// leastHeap is how far Go's heap may grow before it is collected. Weights, caches and tensors lie outside it, so that little is alive in it, and a collector
// that waits for as much again runs several times a second: a third of the processor time that a study costs besides reading.
const leastHeap = 128 << 20

// spareCollector has the collector run when the heap has doubled, as ever, but not below leastHeap. Who sets GOGC has it so.
func spareCollector() {
	if os.Getenv("GOGC") != "" {
		return
	}
	tuneCollector(debug.SetGCPercent(100))
}

func tuneCollector(now int) {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	if want := collectAt(live[0].Value.Uint64()); want != now {
		debug.SetGCPercent(want)
		now = want
	}
	// What nothing refers to is cleaned up after the next collection, which has measured anew what is alive.
	runtime.AddCleanup(new([64]byte), tuneCollector, now)
}

// collectAt is the GOGC with which a heap of which so many bytes are alive is collected at leastHeap, in tens.
func collectAt(live uint64) int {
	return max(100, int(leastHeap*10/max(live, leastHeap/50)-10)*10)
}
