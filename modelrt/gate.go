package modelrt

import (
	"context"
	"slices"
	"sync"
	"time"
)

// gate lets one through at a time: of those who wait the most urgent, and nobody for ever later than who came long after. The zero value is open.
type gate struct {
	mu      sync.Mutex
	held    bool
	waiting []*visitor
}

type visitor struct {
	rank time.Time
	in   chan struct{} // closed when it is its turn
}

// rankOf orders those who wait: by when they came, a class later by aging.
func rankOf(since time.Time, class int) time.Time { return since.Add(time.Duration(class) * aging) }

// enter waits until it is the caller's turn, who calls leave then. The error is ctx's cause.
func (g *gate) enter(ctx context.Context, class int) error {
	g.mu.Lock()
	if !g.held {
		g.held = true
		g.mu.Unlock()
		return nil
	}
	v := &visitor{rankOf(time.Now(), class), make(chan struct{})}
	g.waiting = append(g.waiting, v)
	g.mu.Unlock()
	select {
	case <-v.in:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	at := slices.Index(g.waiting, v)
	if at >= 0 {
		g.waiting = slices.Delete(g.waiting, at, at+1)
	}
	g.mu.Unlock()
	if at < 0 { // it was let in meanwhile
		g.leave()
	}
	return context.Cause(ctx)
}

// leave lets the next one in.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiting) == 0 {
		g.held = false
		return
	}
	next := slices.MinFunc(g.waiting, func(a, b *visitor) int { return a.rank.Compare(b.rank) })
	g.waiting = slices.DeleteFunc(g.waiting, func(v *visitor) bool { return v == next })
	close(next.in)
}
