package main

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"time"
)

// large tells how a large queue behaves: memory while it grows, a start with it, an urgent study that comes then, an emptied Redis.
func (b *bench) large(known int) error {
	const reading = 50 * time.Millisecond
	const readers = 4
	a := b.archive("large", "line: {quiet: 1h}\n")
	s, err := a.serve("")
	if err != nil {
		return err
	}
	began := time.Now()
	for i := range 4 {
		fmt.Printf("%7d studies queued: service %4.0f MB resident, Redis %4.0f MB\n", i*known/4, s.resident(), b.redis.resident())
		if err := s.store(b, known/4, 100, 2, ""); err != nil {
			return err
		}
	}
	fmt.Printf("%7d studies queued: service %4.0f MB resident, Redis %4.0f MB (stored in %.0f s)\n", known, s.resident(), b.redis.resident(), time.Since(began).Seconds())
	s.stop()
	if err := b.flush(); err != nil { // where it is due in an hour
		return err
	}

	a.config = fmt.Sprintf("line: {quiet: 0s, readers: %d}\n", readers)
	began = time.Now()
	if s, err = a.serve(reading.String()); err != nil {
		return err
	}
	defer func() { s.stop() }()
	fmt.Printf("start with %d known studies, none of them read: ready after %.2f s\n", known, time.Since(began).Seconds())
	if err := s.until("chatxray_studies_read_total", 200, false); err != nil {
		return err
	}
	fmt.Printf("first 200 of them read %.1f s after the start; service %.0f MB resident, Redis %.0f MB\n", time.Since(began).Seconds(), s.resident(), b.redis.resident())
	before, err := s.rate(10 * time.Second)
	if err != nil {
		return err
	}
	fmt.Printf("reading %.1f studies/s with %d readers of %v\n", before, readers, reading)

	var worst time.Duration
	for range 10 {
		uid := b.uid(b.next)
		stored := time.Now()
		if err := s.store(b, 1, 1, 1, "STAT"); err != nil {
			return err
		}
		at, err := s.begun(uid)
		if err != nil {
			return err
		}
		worst = max(worst, at.Sub(stored))
	}
	fmt.Printf("urgent studies behind the queue, sent one after another: reading begins at most %.0f ms after the request was sent (10 of them)\n", worst.Seconds()*1e3)

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
	fmt.Printf("FLUSHALL under load: %.1f s until a second with at least 0.9 of the rate before it has passed\n", time.Since(began).Seconds())
	s.stop()
	began = time.Now()
	if s, err = a.serve(reading.String()); err != nil {
		return err
	}
	fmt.Printf("start with %d known studies after that: ready after %.2f s\n", known, time.Since(began).Seconds())
	return nil
}

func (b *bench) flush() error {
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", b.port))
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := fmt.Fprint(c, "FLUSHALL\r\n"); err != nil {
		return err
	}
	said, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && !strings.HasPrefix(said, "+OK") {
		err = fmt.Errorf("Redis says %q", said)
	}
	return err
}
