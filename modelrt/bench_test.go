package modelrt

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// BenchmarkDecode compares decoding, one token after another, with the speed of the memory: a decoder in float32 has to read all of
// its weights for each token. Rounds of both alternate, because the machine's load changes. bench/decode/run.sh calls it.
func BenchmarkDecode(b *testing.B) {
	m := openBaseForm(b, cmp.Or(os.Getenv("CHATXRAY_FORM"), "fp32"), os.Getenv("CHATXRAY_SPIN") != "0")
	weights := int64(0)
	s, err := readSignature(m.bundle.path(m.form.Decoder))
	if err != nil {
		b.Fatal(err)
	}
	for _, d := range s.outside {
		weights += d.length
	}
	c, err := begin(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	defer c.end()
	seen, err := m.see(context.Background(), shades(400), classRoutine)
	if err != nil {
		b.Fatal(err)
	}
	id, _, err := greedy(firstLogits(b, m, seen.image))
	if err != nil {
		b.Fatal(err)
	}
	var next batch
	row := make([]float32, m.bundle.Manifest.Decoder.Hidden)
	// As the engine decodes one text, but without it: one step after another.
	step := func(place int) error {
		if err := m.decoder.lookup(c, []int32{id}, row); err != nil {
			return err
		}
		next.clear()
		next.add(0, place, row, 1, nil)
		next.want()
		return m.decoder.run(c, &next)
	}
	memory := bytes.Repeat([]byte{2}, int(weights)) // not the zero page
	var speeds, steps []float64
	for range 12 {
		for range 2 {
			began := time.Now()
			if read(memory) >= 0 {
				b.Fatal("the memory is not as it was written")
			}
			speeds = append(speeds, float64(len(memory))/time.Since(began).Seconds())
		}
		for i := range 12 {
			began := time.Now()
			if err := step(m.prompt.length() + i); err != nil {
				b.Fatal(err)
			}
			if i > 1 { // the first step after a pause wakes the threads
				steps = append(steps, time.Since(began).Seconds())
			}
		}
	}
	slices.Sort(speeds)
	slices.Sort(steps)
	quick, typical := steps[len(steps)/10], steps[len(steps)/2]
	fast, middle := speeds[len(speeds)*9/10], speeds[len(speeds)/2]
	perToken := float64(weights)
	load, _ := os.ReadFile("/proc/loadavg")
	fmt.Printf(`
%s %s, ONNX Runtime %s, %d threads, spinning %v, load %s
weights read a token            %8.1f MB
                                  best decile       median
memory, read by %d goroutines    %8.1f GB/s  %8.1f GB/s
decode, B=1                     %8.1f ms    %8.1f ms
                                %8.1f tok/s %8.1f tok/s
bytes a token / bandwidth       %8.2f       %8.2f      (bar 0.85)
`, m.bundle.Manifest.Name, m.bundle.Manifest.Revision, runtimeFor(b).Version(), runtime.NumCPU(), os.Getenv("CHATXRAY_SPIN") != "0", strings.Fields(string(load))[0],
		perToken/1e6, runtime.NumCPU(), fast/1e9, middle/1e9, quick*1e3, typical*1e3, 1/quick, 1/typical,
		perToken/quick/fast, perToken/typical/middle)
	b.ReportMetric(perToken/quick/fast, "of-bandwidth")
}

// read reads memory with a goroutine for each CPU: bytes.IndexByte compares 32 bytes an instruction and finds nothing.
func read(memory []byte) (found int) {
	n := runtime.NumCPU()
	parts := make([]int, n)
	var wait sync.WaitGroup
	for i := range n {
		wait.Go(func() { parts[i] = bytes.IndexByte(memory[i*len(memory)/n:(i+1)*len(memory)/n], 1) })
	}
	wait.Wait()
	return slices.Max(parts)
}
