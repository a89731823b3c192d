// Command dicomweb compares the service with Orthanc and its DICOMweb plugin: both are started here, get the same objects and the same
// requests in turn, and say how much processor time each request cost them (/proc/PID/stat).
//
//	make build && go run ./bench/dicomweb [-run regexp] [-n 40]
package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"text/tabwriter"
	"time"
)

// measure is one line of the table.
type measure struct {
	name string
	bar  string
	// prepare is called once for each server, before the clock starts; what it returns is called n times.
	prepare func(s *server, set *set) (request func(i int) error, err error)
	share   float64 // of -n
	per     int     // objects of a request; 0 is 1
}

// measures are all lines; each file of this folder adds its own.
var measures = slices.Concat(storeMeasures, retrieveMeasures)

func main() {
	bin := flag.String("bin", "bin/chatxray", "the binary")
	pattern := flag.String("run", ".", "which measures")
	n := flag.Int("n", 40, "requests of a measure")
	flag.Parse()
	if err := compare(*bin, *pattern, *n); err != nil {
		fmt.Fprintln(os.Stderr, "dicomweb:", err)
		os.Exit(1)
	}
}

func compare(bin, pattern string, n int) error {
	chosen, err := regexp.Compile(pattern)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench-dicomweb")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	objects, err := newSet()
	if err != nil {
		return err
	}
	orthanc, err := startOrthanc(dir)
	if err != nil {
		return err
	}
	defer orthanc.stop()
	ours, err := startOurs(bin, dir)
	if err != nil {
		return err
	}
	defer ours.stop()
	servers := []*server{orthanc, ours}
	for _, s := range servers {
		if err := s.store(objects); err != nil {
			return err
		}
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "measure\tbar\tOrthanc CPU ms\tour CPU ms\tratio\tOrthanc p50/p95 ms\tour p50/p95 ms\tOrthanc/s\tours/s")
	for _, m := range measures {
		if !chosen.MatchString(m.name) {
			continue
		}
		var got [2]result
		for i, s := range servers {
			if got[i], err = s.measure(m, objects, max(3, int(float64(n)*m.share))); err != nil {
				return fmt.Errorf("%s, %s: %w", m.name, s.name, err)
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%.2f\t%.2f\t1/%.1f\t%s\t%s\t%.1f\t%.1f\n", m.name, m.bar, got[0].cpu, got[1].cpu, got[0].cpu/got[1].cpu, got[0].times(), got[1].times(),
			got[0].rate, got[1].rate)
		w.Flush()
	}
	if name := "STOW-RS of 100 instances in one request"; chosen.MatchString(name) {
		for _, s := range servers {
			grown, err := s.growth(objects)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", name, s.name, err)
			}
			fmt.Fprintf(w, "%s\t64 MB\t%s: %.0f MB above idle\n", name, s.name, grown)
		}
		w.Flush()
	}
	return nil
}

// result is what n requests cost.
type result struct {
	cpu  float64 // ms each object
	rate float64 // objects a second
	took []time.Duration
}

func (r result) times() string {
	at := func(part float64) float64 {
		return float64(r.took[min(len(r.took)-1, int(part*float64(len(r.took))))].Microseconds()) / 1000
	}
	return fmt.Sprintf("%.1f/%.1f", at(0.5), at(0.95))
}

// measure makes the requests of one measure.
func (s *server) measure(m measure, objects *set, n int) (r result, err error) {
	request, err := m.prepare(s, objects)
	if err != nil {
		return r, err
	}
	for i := range 3 {
		if err := request(i); err != nil {
			return r, err
		}
	}
	time.Sleep(200 * time.Millisecond) // what goes on after the last answer
	before, err := s.cpu()
	if err != nil {
		return r, err
	}
	began := time.Now()
	for i := range n {
		begin := time.Now()
		if err := request(i); err != nil {
			return r, err
		}
		r.took = append(r.took, time.Since(begin))
	}
	after, err := s.cpu()
	objectsSent := float64(n * max(m.per, 1))
	r.rate = objectsSent / time.Since(began).Seconds()
	slices.Sort(r.took)
	r.cpu = max(after-before, 0.01) / objectsSent
	return r, err
}
