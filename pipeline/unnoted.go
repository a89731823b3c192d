package pipeline

import (
	"sync"
	"time"
)

// unnoted are deliveries that have succeeded and that the archive could not take note of, because its disk is full, say. They are not made again, only
// noted again.
type unnoted struct {
	mu    sync.Mutex
	made  map[string]*made // by destination and record
	fails int              // notes that failed in a row
	until time.Time        // till then nothing else is delivered: it could not be noted either
}

type made struct {
	reported time.Time // of the record: a later one under its name is another
	fails    int
}

const (
	// mostUnnoted bounds what is remembered. Beyond it a delivery may be repeated.
	mostUnnoted = 1024
	// noteAgain is the longest wait until a note is made again.
	noteAgain = 30 * time.Second
)

// known tells whether the documents of a record were delivered, and, where not, till when they are to wait (the zero time: they are not).
func (u *unnoted) known(name string, reported, now time.Time) (was bool, wait time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if m := u.made[name]; m != nil && m.reported.Equal(reported) {
		return true, time.Time{}
	}
	if now.Before(u.until) {
		return false, u.until
	}
	return false, time.Time{}
}

// add remembers a delivery until it is noted.
func (u *unnoted) add(name string, reported time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.made == nil {
		u.made = map[string]*made{}
	}
	for other := range u.made {
		if len(u.made) < mostUnnoted {
			break
		}
		delete(u.made, other)
	}
	u.made[name] = &made{reported: reported}
}

// failed returns when a note that failed is to be made again.
func (u *unnoted) failed(name string, now time.Time) time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.fails++
	u.until = now.Add(min(backoff(u.fails), noteAgain))
	m := u.made[name]
	if m == nil { // the delivery has failed as well
		return u.until
	}
	m.fails++
	return now.Add(min(backoff(m.fails), noteAgain))
}

// forget is for a delivery that is noted, or is none any more.
func (u *unnoted) forget(name string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.made, name)
}

// goesOn is for an archive that takes notes.
func (u *unnoted) goesOn() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.fails, u.until = 0, time.Time{}
}
