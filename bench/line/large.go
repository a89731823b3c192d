package main

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// large tells how a large queue behaves: memory while it grows, a start with it, claims, an urgent study that comes then, an emptied Redis.
func (b *bench) large(known int) error {
	const reading = 50 * time.Millisecond
	const readers = 4
	a, err := b.archive("large", busy)
	if err != nil {
		return err
	}
	s, err := a.serve(busyWith, 1)
	if err != nil {
		return err
	}
	began := time.Now()
	for i := range 6 {
		fmt.Printf("%7d studies queued after %4.0f s, resident: %s\n", i*known/5, time.Since(began).Seconds(), b.memory(s))
		if i == 5 {
			break
		}
		if err := errors.Join(s.store(b, (i+1)*known/5-i*known/5, 100, 2, ""), s.complete()); err != nil {
			return err
		}
	}
	if err := s.stop(); err != nil {
		return err
	}

	a.config = fmt.Sprintf("line: {quiet: 0s, readers: %d}\n", readers)
	began = time.Now()
	if s, err = a.serve(reading, 1); err != nil {
		return err
	}
	fmt.Printf("start with %d known studies, none of them read: ready after %.2f s\n", known, time.Since(began).Seconds())
	if err := s.until(read, 200, false); err != nil {
		return err
	}
	fmt.Printf("first 200 of them read %.1f s after the start; resident: %s\n", time.Since(began).Seconds(), b.memory(s))
	claimed, err := s.samples(claims)
	if err != nil {
		return err
	}
	before, err := s.rate(30 * time.Second)
	if err != nil {
		return err
	}
	fmt.Printf("reading %.1f studies/s with %d readers of %v; resident: %s\n", before, readers, reading, b.memory(s))
	if err := b.urgent(s); err != nil {
		return err
	}
	if err := s.claims(claimed); err != nil {
		return err
	}

	if err := b.flush(); err != nil {
		return err
	}
	began = time.Now()
	for time.Since(began) < 2*time.Minute {
		if now, err := s.rate(time.Second); err != nil {
			return err
		} else if now >= 0.9*before {
			break
		}
	}
	fmt.Printf("FLUSHALL under load: %.1f s until a second with at least 0.9 of the rate before it has passed; resident: %s\n", time.Since(began).Seconds(), b.memory(s))
	if err := s.kill(); err != nil {
		return err
	}
	began = time.Now()
	if s, err = a.serve(reading, 1); err != nil {
		return err
	}
	fmt.Printf("start with %d known studies after kill -9: ready after %.2f s\n", b.next, time.Since(began).Seconds())
	if err := s.compared(); err != nil {
		return err
	}
	fmt.Printf("the files are compared with the index, beside the reading, %.1f s after the start\n", time.Since(began).Seconds())
	return s.stop()
}

// urgent tells how soon urgent studies are read that come behind the queue.
func (b *bench) urgent(s *service) error {
	var took []time.Duration
	for range 10 {
		uid, sent := b.uid(b.next), time.Now()
		if err := s.store(b, 1, 1, 1, "STAT"); err != nil {
			return err
		}
		at, err := s.begun(uid)
		if err != nil {
			return err
		}
		took = append(took, at.Sub(sent))
	}
	slices.Sort(took)
	fmt.Printf("urgent studies behind the queue, sent one after another: reading begins %.0f ms after the request was sent, at most %.0f ms (median and most of %d)\n",
		took[len(took)/2].Seconds()*1e3, took[len(took)-1].Seconds()*1e3, len(took))
	return nil
}

// claims are the samples of the histogram of claims: how many took at most so many seconds.
const claims = "chatxray_claim_seconds_bucket"

// claims tells within which time a worker had a study, of the claims since others were counted.
func (s *service) claims(before map[string]float64) error {
	now, err := s.samples(claims)
	if err != nil {
		return err
	}
	atMost := map[float64]float64{}
	for label, n := range now {
		bound, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimPrefix(label, `{le="`), `"}`), 64)
		if err != nil {
			return err
		}
		atMost[bound] = n - before[label]
	}
	all := atMost[math.Inf(1)]
	if all == 0 {
		return errors.New("no study was claimed")
	}
	fmt.Printf("%.0f claims:", all)
	for _, q := range []float64{0.5, 0.99} {
		for _, bound := range slices.Sorted(maps.Keys(atMost)) {
			if atMost[bound] >= q*all {
				fmt.Printf(" p%.0f at most %g ms", q*100, bound*1e3)
				break
			}
		}
	}
	fmt.Println()
	return nil
}
