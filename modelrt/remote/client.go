package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"

	"chatxray/pipeline"
)

// Client asks one endpoint. It is safe for concurrent use.
type Client struct {
	cfg     Config
	http    *http.Client
	breaker *gobreaker.TwoStepCircuitBreaker[struct{}]
	room    chan struct{} // held by each request
	waiting atomic.Int64
	pause   time.Duration // before the second attempt, about; before each further one twice as long

	mu    sync.Mutex
	known Identity
	asked time.Time
	last  string // why the endpoint failed last
}

const (
	maxWaiting  = 256      // requests that wait for room
	maxLine     = 1 << 20  // bytes of a line of a stream, or of an error
	maxJSON     = 64 << 20 // bytes of an answer in one piece
	trips       = 5        // failures in a row after which the endpoint is left alone
	rest        = 20 * time.Second
	firstPause  = 500 * time.Millisecond
	longPause   = 15 * time.Second // a longer Retry-After is for who asked
	agentName   = "chatxray"
	freshEnough = time.Minute
)

// New returns a client of an endpoint whose Config has no Faults.
func New(cfg Config) *Client {
	cfg = cfg.withDefaults()
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = (&net.Dialer{Timeout: time.Duration(cfg.Timeouts.Connect), KeepAlive: 30 * time.Second}).DialContext
	t.TLSHandshakeTimeout = time.Duration(cfg.Timeouts.Connect)
	t.MaxResponseHeaderBytes = maxLine
	t.MaxIdleConnsPerHost = cfg.Parallel
	return &Client{
		cfg:   cfg,
		http:  &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		room:  make(chan struct{}, cfg.Parallel),
		pause: firstPause,
		breaker: gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
			Timeout:     rest,
			ReadyToTrip: func(n gobreaker.Counts) bool { return n.ConsecutiveFailures >= trips },
			IsSuccessful: func(err error) bool {
				f := (*failure)(nil)
				return !errors.As(err, &f) || !f.theirs
			},
			IsExcluded: func(err error) bool {
				return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
			},
		}),
	}
}

// Close closes the connections that nobody uses.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Load is how many requests wait for room and how many are under way.
func (c *Client) Load() (waiting, active int) { return int(c.waiting.Load()), len(c.room) }

// enter waits for room.
func (c *Client) enter(ctx context.Context) (leave func(), err error) {
	if c.waiting.Add(1) > maxWaiting {
		c.waiting.Add(-1)
		return nil, fmt.Errorf("%w: %d requests wait for the endpoint", pipeline.ErrBusy, maxWaiting)
	}
	defer c.waiting.Add(-1)
	select {
	case c.room <- struct{}{}:
		return func() { <-c.room }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// attempts asks until it succeeds, fails for good, or something has come back that cannot be taken back.
func (c *Client) attempts(ctx context.Context, taken *bool, ask func(context.Context) error) error {
	leave, err := c.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	whole := time.Duration(c.cfg.Timeouts.Whole)
	within, cancel := context.WithTimeoutCause(ctx, whole, &late{"it did not finish", whole})
	defer cancel()
	for n := 1; ; n++ {
		err := c.once(within, ask)
		f := (*failure)(nil)
		if !errors.As(err, &f) || !f.again || *taken || n == c.cfg.Attempts || f.after > longPause {
			return err
		}
		pause := max(f.after, rand.N(c.pause<<n)) // as much as twice the last, none at the least, so that many do not come at once
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-within.Done():
			timer.Stop()
			return broken(within, err)
		}
	}
}

// once asks unless the endpoint is left alone.
func (c *Client) once(ctx context.Context, ask func(context.Context) error) error {
	done, err := c.breaker.Allow()
	if err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		return fmt.Errorf("%w: it failed %d times in a row and is left alone for up to %v; why it failed last: %s", pipeline.ErrUnavailable, trips, rest, c.last)
	}
	err = ask(ctx)
	if f := (*failure)(nil); errors.As(err, &f) && f.theirs {
		c.mu.Lock()
		c.last = strings.TrimPrefix(f.Error(), pipeline.ErrUnavailable.Error()+": ")
		c.mu.Unlock()
	}
	if ctx.Err() != nil && errors.Is(context.Cause(ctx), err) { // who asked went away
		done(context.Canceled)
	} else {
		done(err)
	}
	return err
}

// send makes a request with the key. body is sent as JSON; nil sends none.
func (c *Client) send(ctx context.Context, method, path string, body any) (*http.Response, error) {
	key, err := c.cfg.key()
	if err != nil {
		return nil, err
	}
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("%w request: %v", pipeline.ErrInvalid, err)
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(c.cfg.URL, "/")+path, r)
	if err != nil {
		return nil, fmt.Errorf("%w request: %v", pipeline.ErrInvalid, err)
	}
	req.Header.Set("User-Agent", agentName)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, broken(ctx, err)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, refused(resp)
	}
	return resp, nil
}

// whole sends a request whose answer comes in one piece, within the time of a first piece.
func (c *Client) whole(ctx context.Context, method, path string, body, answer any) error {
	first := time.Duration(c.cfg.Timeouts.First)
	ctx, cancel := context.WithTimeoutCause(ctx, first, &late{"it did not answer", first})
	defer cancel()
	resp, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if !of(resp, "application/json") {
		return odd("it answers with %s where the interface has JSON; look at remote.url", kind(resp))
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxJSON+1))
	switch {
	case err != nil:
		return broken(ctx, err)
	case len(b) > maxJSON:
		return odd("its answer is larger than %d MiB", maxJSON>>20)
	}
	if err := json.Unmarshal(b, answer); err != nil {
		return odd("its answer is no JSON of the interface")
	}
	return nil
}
