package pipeline

import (
	"context"
	"math"
	"math/rand/v2"
	"sync"
	"time"
)

// queue gives out keys when they are due, each to one worker at a time. The zero value is empty and ready.
type queue struct {
	mu      sync.Mutex
	due     map[string]time.Time
	busy    map[string]bool
	urgent  map[string]bool
	failing map[string]failing
	wake    chan struct{}
}

// failing is what a queue knows of a key that fails again and again.
type failing struct {
	since    time.Time
	attempts int
}

func (q *queue) lock() {
	q.mu.Lock()
	if q.due == nil {
		q.due, q.busy, q.urgent, q.failing, q.wake = map[string]time.Time{}, map[string]bool{}, map[string]bool{}, map[string]failing{}, make(chan struct{}, 1)
	}
}

// poke wakes one waiting worker, who looks and wakes the next.
func (q *queue) poke() {
	select {
	case q.wake <- struct{}{}:
	default: // somebody is going to look anyway
	}
}

// put makes a key due at a time, and its failures forgotten: something about it is new.
func (q *queue) put(key string, at time.Time) {
	q.lock()
	defer q.mu.Unlock()
	q.due[key] = at
	delete(q.failing, key)
	q.poke()
}

// hurry lets a key that waits be taken before all others that are due.
func (q *queue) hurry(key string) {
	q.lock()
	defer q.mu.Unlock()
	if _, waits := q.due[key]; waits {
		q.urgent[key] = true
		q.poke()
	}
}

// next blocks until a key is due and takes it; false when ctx has ended. A key that a worker has is left until done.
func (q *queue) next(ctx context.Context, now func() time.Time) (key string, ok bool) {
	for {
		q.lock()
		var first time.Time
		found, hurry, at := false, false, now()
		for k, due := range q.due {
			urgent := q.urgent[k] && !due.After(at)
			if !q.busy[k] && (!found || urgent && !hurry || urgent == hurry && due.Before(first)) {
				key, first, found, hurry = k, due, true, urgent
			}
		}
		pause := time.Hour
		if found {
			if pause = first.Sub(at); pause <= 0 {
				delete(q.due, key)
				delete(q.urgent, key)
				q.busy[key] = true
				q.poke() // another idle worker may take the next one
				q.mu.Unlock()
				return key, ctx.Err() == nil
			}
		}
		wake := q.wake
		q.mu.Unlock()
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return "", false
		case <-wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// done gives a key back. It is due again after the pause, 0 for never, unless it has been put meanwhile.
func (q *queue) done(key string, now time.Time, pause time.Duration) {
	q.lock()
	defer q.mu.Unlock()
	delete(q.busy, key)
	if _, again := q.due[key]; !again && pause > 0 {
		q.due[key] = now.Add(pause)
	}
	q.poke()
}

// failed notes a failure of a key that may pass, and returns after what pause another attempt is worth its while: one that grows with
// the failures in a row, and 0 when they have lasted longer than patience.
func (q *queue) failed(key string, now time.Time, patience time.Duration) time.Duration {
	q.lock()
	defer q.mu.Unlock()
	f := q.failing[key]
	if f.attempts == 0 {
		f.since = now
	}
	f.attempts++
	if now.Sub(f.since) > patience {
		delete(q.failing, key)
		return 0
	}
	q.failing[key] = f
	return backoff(f.attempts)
}

// ended forgets the failures of a key.
func (q *queue) ended(key string) {
	q.lock()
	defer q.mu.Unlock()
	delete(q.failing, key)
}

// state tells whether a key is waiting for its time, and whether a worker has it.
func (q *queue) state(key string) (waiting, busy bool) {
	q.lock()
	defer q.mu.Unlock()
	_, waiting = q.due[key]
	return waiting, q.busy[key]
}

// size is how many keys wait for their time or a worker.
func (q *queue) size() int {
	q.lock()
	defer q.mu.Unlock()
	return len(q.due)
}

// backoff doubles from one second to five minutes, give or take a fifth so that many failures do not come back at once.
func backoff(attempt int) time.Duration {
	s := min(math.Pow(2, float64(attempt-1)), 300)
	return time.Duration(s * (0.8 + 0.4*rand.Float64()) * float64(time.Second))
}
