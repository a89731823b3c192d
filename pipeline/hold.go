package pipeline

import "context"

// activity is what is being done for a study: a reading or a delivery.
type activity struct {
	study string
	stop  context.CancelFunc
	ended chan struct{}
}

// begin notes that something is done for a study, unless the study is held. The context ends when the study is held.
func (l *Line) begin(ctx context.Context, study string) (_ context.Context, end func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[study] > 0 {
		return ctx, nil, false
	}
	if l.active == nil {
		l.active = map[*activity]bool{}
	}
	ctx, cancel := context.WithCancel(ctx)
	a := &activity{study: study, stop: cancel, ended: make(chan struct{})}
	l.active[a] = true
	return ctx, func() {
		cancel()
		l.mu.Lock()
		delete(l.active, a)
		l.mu.Unlock()
		close(a.ended)
	}, true
}

// Hold keeps the line's hands off a study until release is called: what is being done for it is stopped, and Hold returns when it has
// stopped. What arrives meanwhile waits. A delivery that was stopped is taken up again at the next start, unless its record is gone.
func (l *Line) Hold(study string) (release func()) {
	l.mu.Lock()
	if l.held == nil {
		l.held = map[string]int{}
	}
	l.held[study]++
	var running []*activity
	for a := range l.active {
		if a.study == study {
			a.stop()
			running = append(running, a)
		}
	}
	l.mu.Unlock()
	for _, a := range running {
		<-a.ended
	}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.held[study]--; l.held[study] == 0 {
			delete(l.held, study)
		}
		if l.wake != nil {
			l.poke()
		}
	}
}
