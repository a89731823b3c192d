package dicomweb

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// Limits is the section "dicomweb.limits" of the configuration file: what one client may take, a principal or, where nobody has to show
// who it is, an address. 0 is no limit.
type Limits struct {
	InFlight int     `yaml:"in_flight"` // requests at the same time
	Rate     float64 `yaml:"rate"`      // requests a second; twice as many may come at once
}

func (l Limits) check() error {
	var errs []error
	if l.InFlight < 0 {
		errs = append(errs, errors.New("dicomweb.limits.in_flight: less than 0"))
	}
	if l.Rate < 0 || l.Rate > 1e6 {
		errs = append(errs, errors.New("dicomweb.limits.rate: not between 0 and 1000000"))
	}
	return errors.Join(errs...)
}

// clients holds every client to its limits.
type clients struct {
	limits Limits
	rate   *buckets
	mu     sync.Mutex
	now    map[string]int // requests in flight
}

func newClients(l Limits) *clients {
	return &clients{limits: l, rate: newBuckets(l.Rate, max(1, 2*l.Rate)), now: map[string]int{}}
}

// enter counts a request of a client until release is called; the error is a *tooManyError.
func (c *clients) enter(client string) (release func(), err error) {
	if c.limits.Rate > 0 {
		if wait := c.rate.take(client); wait > 0 {
			return nil, &tooManyError{fmt.Sprintf("this client may send %g requests a second", c.limits.Rate), wait}
		}
	}
	if c.limits.InFlight == 0 {
		return func() {}, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now[client] >= c.limits.InFlight {
		return nil, &tooManyError{fmt.Sprintf("this client may have %d requests under way", c.limits.InFlight), time.Second}
	}
	c.now[client]++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.now[client]--; c.now[client] == 0 {
			delete(c.now, client)
		}
	}, nil
}

// buckets are token buckets by name. There are at most maxBuckets: those that are full again are forgotten first.
type buckets struct {
	rate, burst float64
	clock       func() time.Time
	mu          sync.Mutex
	all         map[string]bucket
}

type bucket struct {
	level float64
	at    time.Time
}

const maxBuckets = 10_000

func newBuckets(rate, burst float64) *buckets {
	return &buckets{rate: rate, burst: burst, clock: time.Now, all: map[string]bucket{}}
}

// wait tells how long it takes until there is something to take; it takes nothing.
func (b *buckets) wait(name string) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.missing(b.level(name))
}

// take takes one, or tells how long it takes until there is one.
func (b *buckets) take(name string) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	level := b.level(name)
	if wait := b.missing(level); wait > 0 {
		return wait
	}
	if _, there := b.all[name]; !there && len(b.all) >= maxBuckets {
		b.sweep()
	}
	b.all[name] = bucket{level - 1, b.clock()}
	return 0
}

func (b *buckets) missing(level float64) time.Duration {
	if level >= 1 {
		return 0
	}
	return time.Duration((1 - level) / b.rate * float64(time.Second))
}

func (b *buckets) level(name string) float64 {
	k, there := b.all[name]
	if !there {
		return b.burst
	}
	return min(b.burst, k.level+b.clock().Sub(k.at).Seconds()*b.rate)
}

// sweep makes room: the full ones go, and where that is not enough any tenth.
func (b *buckets) sweep() {
	for name := range b.all {
		if b.level(name) >= b.burst {
			delete(b.all, name)
		}
	}
	for name := range b.all {
		if len(b.all) < maxBuckets*9/10 {
			return
		}
		delete(b.all, name)
	}
}

// addressKey is the address that a client is known by; of an IPv6 address the network, of which one client has all.
func addressKey(ip string) string {
	a, err := netip.ParseAddr(ip)
	if err != nil || a.Is4() || a.Is4In6() {
		return ip
	}
	p, _ := a.Prefix(64)
	return p.String()
}
