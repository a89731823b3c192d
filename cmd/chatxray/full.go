package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"chatxray/pipeline"
)

// full tells when so many studies wait to be read that no more are taken in.
type full struct {
	queue pipeline.Queue
	most  int // 0: no limit

	mu    sync.Mutex
	asked time.Time
	wait  int // at that time
}

// check is pipeline.ErrBusy where too many wait. The queue is asked once a second at most; while it does not answer what it said last counts.
func (f *full) check(ctx context.Context) error {
	if f.most == 0 {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Since(f.asked) > time.Second {
		f.asked = time.Now()
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if lanes, _, err := f.queue.Size(ctx); err == nil {
			f.wait = 0
			for _, n := range lanes {
				f.wait += n
			}
		}
	}
	if f.wait >= f.most {
		return fmt.Errorf("%w: %d studies wait to be read (jobs.max_waiting is %d)", pipeline.ErrBusy, f.wait, f.most)
	}
	return nil
}
