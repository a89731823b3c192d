package pipeline

import (
	"context"
	"errors"
	"sync"
	"time"
)

// holds are the studies that the line lets alone, and what it does for studies now.
type holds struct {
	mu     sync.Mutex
	held   map[string]int
	active map[*activity]bool
}

// heldPause is after how long a held study is looked at again.
const heldPause = 200 * time.Millisecond

// activity is what is being done for a study: a reading or a delivery.
type activity struct {
	study string
	stop  context.CancelFunc
	ended chan struct{}
}

// begin notes that something is done for a study, unless the study is held. The context ends when the study is held.
func (l *Line) begin(ctx context.Context, study string) (_ context.Context, end func(), ok bool) {
	l.holds.mu.Lock()
	defer l.holds.mu.Unlock()
	if l.holds.held[study] > 0 {
		return ctx, nil, false
	}
	if l.holds.active == nil {
		l.holds.active = map[*activity]bool{}
	}
	ctx, cancel := context.WithCancel(ctx)
	a := &activity{study: study, stop: cancel, ended: make(chan struct{})}
	l.holds.active[a] = true
	return ctx, func() {
		cancel()
		l.holds.mu.Lock()
		delete(l.holds.active, a)
		l.holds.mu.Unlock()
		close(a.ended)
	}, true
}

// busy tells whether something is being done for a study in this process.
func (l *Line) busy(study string) bool {
	l.holds.mu.Lock()
	defer l.holds.mu.Unlock()
	for a := range l.holds.active {
		if a.study == study {
			return true
		}
	}
	return false
}

// Interrupt has workers of other processes stop what they do for a study. What of it is still to be done is taken up again by Shrunk, or at the next look at
// the archive.
func (l *Line) Interrupt(ctx context.Context, study string) error {
	records, err := l.Archive.Records(ctx, study)
	err = errors.Join(err, l.Studies.Drop(ctx, study))
	for _, r := range records {
		for _, d := range l.Destinations {
			if r.undelivered(d.Name) {
				err = errors.Join(err, d.Queue.Drop(ctx, r.name()))
			}
		}
	}
	return err
}

// Hold keeps the line's hands off a study until release is called: what is being done for it is stopped, and Hold returns when it has
// stopped. What arrives meanwhile waits. A delivery that was stopped is taken up again, unless its record is gone.
func (l *Line) Hold(study string) (release func()) {
	l.holds.mu.Lock()
	if l.holds.held == nil {
		l.holds.held = map[string]int{}
	}
	l.holds.held[study]++
	var running []*activity
	for a := range l.holds.active {
		if a.study == study {
			a.stop()
			running = append(running, a)
		}
	}
	l.holds.mu.Unlock()
	for _, a := range running {
		<-a.ended
	}
	l.ahead.forget(study)
	l.unkept.forget(study) // it may be deleted now
	return func() {
		l.holds.mu.Lock()
		defer l.holds.mu.Unlock()
		if l.holds.held[study]--; l.holds.held[study] == 0 {
			delete(l.holds.held, study)
		}
	}
}
