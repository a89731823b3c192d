package deliver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"
	"golang.org/x/time/rate"

	"chatxray/pipeline"
)

const (
	trips = 5                // deliveries that fail one after the other: then a destination is away
	rest  = 10 * time.Second // between two deliveries that try whether it is back
	look  = 100 * time.Millisecond

	misses     = 10   // answers that the URL leads nowhere (404, 405), by which a delivery is refused for good where others were taken meanwhile
	mostMissed = 1000 // deliveries of which that is counted
)

// missed is a delivery that was answered so.
type missed struct {
	times int
	taken int // deliveries that had been taken at the first time
}

// Circuit stands before a destination. It keeps to the configured rate; and while the destination is away, it lets one delivery at a time find out whether it
// is back, so that no other study's attempts are used up.
type Circuit struct {
	to      Destination
	cfg     Config
	breaker *gobreaker.CircuitBreaker[struct{}]
	rate    *rate.Limiter
	probe   chan struct{} // held by the one who tries

	mu    sync.Mutex
	state pipeline.DestinationState
	last  error // of the last delivery

	taken  int // deliveries
	missed map[string]missed
}

// NewCircuit is told of each change: away, and why, or back.
func NewCircuit(cfg Config, to Destination, changed func(s pipeline.DestinationState)) *Circuit {
	cfg = cfg.filled()
	c := &Circuit{to: to, cfg: cfg, rate: rate.NewLimiter(rate.Inf, 1), missed: map[string]missed{}, probe: make(chan struct{}, 1), state: pipeline.DestinationState{Name: cfg.Name, Kind: cfg.Kind}}
	if cfg.Rate > 0 {
		c.rate.SetLimit(rate.Limit(cfg.Rate))
	}
	c.breaker = gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Timeout:      rest,
		ReadyToTrip:  func(n gobreaker.Counts) bool { return n.ConsecutiveFailures >= trips },
		IsSuccessful: func(err error) bool { return err == nil || errors.Is(err, Permanent) }, // a refusal is an answer
		IsExcluded:   func(err error) bool { return errors.Is(err, errStopped) },
		OnStateChange: func(_ string, from, to gobreaker.State) {
			if (from == gobreaker.StateClosed) == (to == gobreaker.StateClosed) || to == gobreaker.StateHalfOpen {
				return
			}
			c.mu.Lock()
			c.state.Away, c.state.Since, c.state.Reason = to != gobreaker.StateClosed, time.Time{}, ""
			if c.state.Away {
				c.state.Since, c.state.Reason = time.Now(), c.last.Error()
			}
			s := c.state
			c.mu.Unlock()
			changed(s)
		},
	})
	return c
}

// errStopped: the service stops, or lets the study be, in the middle of a delivery. That says nothing about the destination.
var errStopped = errors.New("the delivery was stopped")

// Ready waits while the destination is away, but for one who tries whether it is back: until leave nobody else does. The error is that of ctx.
func (c *Circuit) Ready(ctx context.Context) (leave func(), err error) {
	for {
		switch c.breaker.State() {
		case gobreaker.StateClosed:
			return func() {}, ctx.Err()
		case gobreaker.StateHalfOpen:
			select {
			case c.probe <- struct{}{}:
				leave = func() { <-c.probe }
				if c.breaker.State() != gobreaker.StateOpen {
					return leave, nil
				}
				leave()
			default:
			}
		}
		if err := pause(ctx, look); err != nil {
			return nil, err
		}
	}
}

// Deliver implements Destination. An error that is a pipeline.ErrBusy besides was no attempt that counts: the destination is known to be away.
func (c *Circuit) Deliver(ctx context.Context, rec pipeline.Record, docs []pipeline.Document) error {
	if err := c.rate.Wait(ctx); err != nil {
		return err
	}
	away := c.breaker.State() != gobreaker.StateClosed
	_, err := c.breaker.Execute(func() (struct{}, error) {
		err := c.to.Deliver(ctx, rec, docs)
		if err != nil && ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", errStopped, err)
		}
		c.mu.Lock()
		c.last = err
		c.mu.Unlock()
		return struct{}{}, err
	})
	if errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests) {
		return fmt.Errorf("destination %s is away (%s): %w: %w", c.cfg.Name, c.State().Reason, pipeline.ErrBusy, pipeline.ErrUnavailable)
	}
	if away && errors.Is(err, pipeline.ErrUnavailable) {
		return &quietly{err}
	}
	return c.count(rec.StudyInstanceUID+" "+rec.Key, err)
}

// count refuses a delivery for good that has been told too often that the URL leads nowhere, while others were taken there.
func (c *Circuit) count(name string, err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.taken++
	}
	if !errors.Is(err, errNowhere) {
		delete(c.missed, name)
		return err
	}
	m, ok := c.missed[name]
	if !ok {
		m.taken = c.taken
	}
	if m.times++; m.times >= misses && c.taken > m.taken {
		delete(c.missed, name)
		return fmt.Errorf("%w; it was so %d times, while others were taken there: %w", err, m.times, Permanent)
	}
	if ok || len(c.missed) < mostMissed {
		c.missed[name] = m
	}
	return err
}

// quietly is a failure of one who only tried whether the destination is back.
type quietly struct{ error }

// Unwrap returns the failure, and that it does not count.
func (q *quietly) Unwrap() []error { return []error{q.error, pipeline.ErrBusy} }

// State tells how the destination answers.
func (c *Circuit) State() pipeline.DestinationState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// Destination is the circuit as the line knows it.
func (c *Circuit) Destination(queue pipeline.Queue) pipeline.Destination {
	return pipeline.Destination{Name: c.cfg.Name, Queue: queue, Parallel: c.cfg.Parallel, Wanted: c.cfg.Wanted, Deliver: c.Deliver, Ready: c.Ready, Answers: c.State,
		Permanent: func(err error) bool { return errors.Is(err, Permanent) }}
}
