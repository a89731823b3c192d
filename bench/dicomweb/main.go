// Command dicomweb compares the service with Orthanc and its DICOMweb plugin: both are started here, get the same objects and the same
// requests in turn, and say how much processor time each request cost them (/proc/PID/stat).
//
//	make build && go run ./bench/dicomweb [-run regexp] [-n 40] [-against another/chatxray]
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
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
	against := flag.String("against", "", "another build of the service, in Orthanc's place")
	flag.Parse()
	if err := compare(*bin, *against, *pattern, *n); err != nil {
		fmt.Fprintln(os.Stderr, "dicomweb:", err)
		os.Exit(1)
	}
}

func compare(bin, against, pattern string, n int) error {
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
	other, err := startOther(against, filepath.Join(dir, "other"))
	if err != nil {
		return err
	}
	defer other.stop()
	ours, err := startOurs(bin, filepath.Join(dir, "ours"))
	if err != nil {
		return err
	}
	defer ours.stop()
	servers := [2]*server{other, ours}
	for _, s := range servers {
		if err := s.store(objects); err != nil {
			return err
		}
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "measure\tbar\t%[1]s CPU ms\tour CPU ms\tratio\t%[1]s p50/p95 ms\tour p50/p95 ms\t%[1]s/s\tours/s\n", other.name)
	for _, m := range measures {
		if !chosen.MatchString(m.name) {
			continue
		}
		got, err := measured(m, servers, objects, max(3, int(float64(n)*m.share)))
		if err != nil {
			return err
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
	cpu   float64 // ms each object
	rate  float64 // objects a second
	clock time.Duration
	took  []time.Duration
}

func (r result) times() string {
	at := func(part float64) float64 {
		return float64(r.took[min(len(r.took)-1, int(part*float64(len(r.took))))].Microseconds()) / 1000
	}
	return fmt.Sprintf("%.1f/%.1f", at(0.5), at(0.95))
}

// rounds is in how many pieces the requests of a measure are cut: the servers take turns, because the machine is not the same at all times. A
// virtual machine, say, first reuses memory that it has, and then has to ask its host for more, which costs whoever's turn it is.
const rounds = 5

// measured makes the requests of one measure to both servers.
func measured(m measure, servers [2]*server, objects *set, n int) (got [2]result, err error) {
	var requests [2]func(int) error
	for i, s := range servers {
		if requests[i], err = m.prepare(s, objects); err != nil {
			return got, fmt.Errorf("%s, %s: %w", m.name, s.name, err)
		}
	}
	for round := range rounds {
		for i, s := range servers {
			if err := got[i].add(s, requests[i], n*round/rounds, n*(round+1)/rounds); err != nil {
				return got, fmt.Errorf("%s, %s: %w", m.name, s.name, err)
			}
		}
	}
	for i := range got {
		r, sent := &got[i], float64(n*max(m.per, 1))
		slices.Sort(r.took)
		r.cpu = max(r.cpu, 0.01) / sent
		r.rate = sent / r.clock.Seconds()
	}
	return got, nil
}

// add makes some requests, after a few that do not count.
func (r *result) add(s *server, request func(int) error, from, to int) error {
	for i := range 2 {
		if err := request(from + i); err != nil {
			return err
		}
	}
	time.Sleep(200 * time.Millisecond) // what goes on after the last answer
	before, err := s.cpu()
	if err != nil {
		return err
	}
	began := time.Now()
	for i := from; i < to; i++ {
		begin := time.Now()
		if err := request(i); err != nil {
			return err
		}
		r.took = append(r.took, time.Since(begin))
	}
	r.clock += time.Since(began)
	time.Sleep(50 * time.Millisecond)
	after, err := s.cpu()
	r.cpu += after - before
	return err
}
