package main

import (
	"errors"
	"fmt"
	"strconv"
	"time"
)

const read = "chatxray_studies_read_total"

// A queue grows while the only reader is at the first study, for longer than anybody waits.
const (
	busy     = "line: {quiet: 0s, readers: 1, stop: 0s}\n"
	busyWith = 24 * time.Hour
)

// queued makes an archive of so many studies that are complete and wait for a reader; its service is stopped.
func (b *bench) queued(name string, studies, each, parallel int) (*archive, error) {
	a, err := b.archive(name, busy)
	if err != nil {
		return nil, err
	}
	s, err := a.serve(busyWith, 1)
	if err != nil {
		return nil, err
	}
	began, before := time.Now(), b.times(s)
	if err := errors.Join(s.store(b, studies, each, parallel, ""), s.complete()); err != nil {
		return nil, err
	}
	if each == 1 {
		report(fmt.Sprintf("STOW-RS to complete, a study each request, %d at a time", parallel), studies, time.Since(began), before, b.times(s))
	}
	return a, s.stop()
}

// machinery tells what a study costs: taken by STOW-RS until it is complete, from there to reported by so many readers of one process, delivered.
func (b *bench) machinery(readers int) error {
	to, err := newReceiver()
	if err != nil {
		return err
	}
	defer to.Close()
	a, err := b.queued(fmt.Sprintf("machinery-%d", readers), b.studies, 1, 4)
	if err != nil {
		return err
	}
	// From the first instruction of the processes, so what a start costs is in it.
	to.hold(true)
	a.config = fmt.Sprintf("line: {quiet: 0s, readers: %d}\ndestinations: [{name: to, url: \"http://%s\", timeout: 10m}]\n", readers, to.addr)
	began, before := time.Now(), b.times(nil)
	s, err := a.serve(0, 1)
	if err != nil {
		return err
	}
	if err := s.until(read, b.studies, true); err != nil {
		return err
	}
	report(fmt.Sprintf("complete to reported, readers: %d", readers), b.studies, time.Since(began), before, b.times(s))
	began, before = time.Now(), b.times(s)
	to.hold(false)
	if err := s.until("chatxray_deliveries_total", b.studies, false); err != nil {
		return err
	}
	report("delivered, 4 at a time", b.studies, time.Since(began), before, b.times(s))
	return s.stop()
}

// readers tells how reading scales with the number of readers of one process.
func (b *bench) readers() error {
	var one float64
	for _, n := range []int{1, 2, 4, 8} {
		studies := 200 * n
		a, err := b.queued(fmt.Sprintf("readers-%d", n), studies, 50, 2)
		if err != nil {
			return err
		}
		a.config = fmt.Sprintf("line: {quiet: 0s, readers: %d}\n", n)
		s, err := a.serve(b.sleep, 1)
		if err != nil {
			return err
		}
		// The first tenth is the start.
		if err := s.until(read, studies/10, false); err != nil {
			return err
		}
		began, from := time.Now(), s.metric(read)
		if err := s.until(read, studies, true); err != nil {
			return err
		}
		rate := (float64(studies) - from) / time.Since(began).Seconds()
		if one == 0 {
			one = rate
		}
		b.linear(one, n, "readers of one process", rate)
		if err := s.stop(); err != nil {
			return err
		}
	}
	return nil
}

// workers tells how reading scales with the number of processes that read, one study at a time each.
func (b *bench) workers(numbers []string) error {
	const while, warm = 8 * time.Second, 250 // what each has read before: its memory is its own by then
	var one float64
	for _, number := range numbers {
		n, err := strconv.Atoi(number)
		if err != nil {
			return fmt.Errorf("-workers: %w", err)
		}
		studies := n * (warm + int(while/b.sleep)) // more than they can read until the while is over
		a, err := b.queued(fmt.Sprintf("workers-%d", n), studies, 50, 2)
		if err != nil {
			return err
		}
		a.config = "line: {quiet: 0s, readers: 1}\n"
		s, err := a.serve(b.sleep, n)
		if err != nil {
			return err
		}
		if err := s.until(read, n*warm, false); err != nil {
			return err
		}
		before := b.times(s)
		rate, err := s.rate(while)
		if err != nil {
			return err
		}
		now := b.times(s)
		if left := studies - int(s.metric(read)); left <= 0 {
			return fmt.Errorf("%d workers have read all %d studies before the measurement was over", n, studies)
		}
		if one == 0 {
			one = rate / float64(n)
		}
		b.linear(one, n, "workers of one reader", rate)
		report(fmt.Sprintf("  %d workers", n), int(rate*while.Seconds()), while, before, now)
		if err := s.stop(); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) linear(one float64, n int, what string, rate float64) {
	fmt.Printf("%d %s, %v a reading: %.1f studies/s, %.2f of linear\n", n, what, b.sleep, rate, rate/one/float64(n))
}
