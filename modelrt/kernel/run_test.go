package kernel

import (
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"

	ort "github.com/yalue/onnxruntime_go"
)

// Memory from malloc still holds what was there before: where tensors over Go's memory were, pointers to memory that Go has taken back since. Go's
// write barrier reads what a pointer overwrites, so the arrays of a run must be zero before it fills them (cgo, "Passing pointers"); else the
// collector ends the process ("marked free object in span").
func TestRunOverwritesNoStalePointers(t *testing.T) {
	n := linearNode()
	s, err := n.load(t, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	path, _ := loaded()

	var stop atomic.Bool
	done := make(chan struct{})
	go func() { // so that the barrier is on most of the time
		defer close(done)
		for !stop.Load() {
			runtime.GC()
		}
	}()
	defer func() { stop.Store(true); <-done }()

	r := rand.New(rand.NewPCG(1, 1))
	for range 6_000 {
		var stay [][]float32 // keeps the spans of those that go
		for range 40 {
			data := make([]float32, 6)
			tensor, err := ort.NewTensor(ort.NewShape(6), data)
			if err != nil {
				t.Fatal(err)
			}
			if r.IntN(2) == 0 {
				stay = append(stay, data)
			}
			if err := tensor.Destroy(); err != nil {
				t.Fatal(err)
			}
		}
		for range 10 {
			count := 3 + r.IntN(30)
			values, names := make([]ort.Value, count), make([]string, count)
			for i := range values {
				values[i], names[i] = s.in[0], "x"
			}
			run, err := NewRun(path, s.s, names, names, values, values)
			if err != nil {
				t.Fatal(err)
			}
			run.Close()
		}
		runtime.KeepAlive(stay)
	}
}
