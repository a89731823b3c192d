// Package jobs makes sure that work is done once, through Redis: a real server by URL, or one in this process.
package jobs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"regexp"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"chatxray/pipeline"
)

// Config is the section "jobs" of the configuration file.
type Config struct {
	// Redis is the URL of a Redis server: redis://user:password@host:6379/0, rediss:// for TLS, "env:NAME" to take it from the environment. Sentinel:
	// redis://host:26379/0?master_name=NAME&addr=host:26379&username=USER&password=PASSWORD, addr for each further Sentinel, user and password before the host are
	// those of Sentinel. Cluster: redis://host:6379?addr=host:6379, addr for each further node that is known.
	// Empty: a server inside this process, for a service that runs alone.
	Redis pipeline.Secret `yaml:"redis"`
	TLS   TLS             `yaml:"tls"`
	// Lease is how long a claim outlives a process that died. It is renewed while the work goes on.
	Lease time.Duration `yaml:"lease"`
	// Aging is how much longer than an urgent study a routine one waits before it is taken first; an off-peak one twice as long.
	Aging time.Duration `yaml:"aging"`
	// OffPeak are the hours of the lane off-peak in local time, "20:00-06:00"; empty: always. It is for studies whose priority is LOW.
	OffPeak string `yaml:"off_peak"`
	// Prefix of every key, so that several services can share a server.
	Prefix string `yaml:"prefix"`
	// MaxWaiting is how many studies may wait to be read before no more are taken in; 0 is no limit.
	MaxWaiting int `yaml:"max_waiting"`
}

// Default returns the configuration of a service that runs alone.
func Default() Config {
	return Config{Lease: 30 * time.Second, Aging: 10 * time.Minute, Prefix: "chatxray:", MaxWaiting: 1000000}
}

// prefixes have nothing that means something in a pattern or a hash tag of Redis.
var prefixes = regexp.MustCompile(`^[A-Za-z0-9._:-]{1,64}$`)

// Check returns what is wrong with the configuration.
func (c Config) Check() error {
	var errs []error
	if c.Redis != "" {
		if _, err := c.parse(); err != nil {
			errs = append(errs, err)
		}
	} else if err := c.TLS.check(false); err != nil {
		errs = append(errs, err)
	}
	if !prefixes.MatchString(c.Prefix) {
		errs = append(errs, fmt.Errorf("jobs.prefix: %q is not 1 to 64 letters, digits, points, colons, hyphens and underscores", c.Prefix))
	}
	if c.MaxWaiting < 0 {
		errs = append(errs, fmt.Errorf("jobs.max_waiting: %d is less than 0", c.MaxWaiting))
	}
	if c.Lease < time.Second || c.Lease > time.Hour {
		errs = append(errs, fmt.Errorf("jobs.lease: %v is not between 1s and 1h", c.Lease))
	}
	if c.Aging < 0 || c.Aging > 24*time.Hour {
		errs = append(errs, fmt.Errorf("jobs.aging: %v is not between 0s and 24h", c.Aging))
	}
	if _, _, err := parseHours(c.OffPeak); err != nil {
		errs = append(errs, fmt.Errorf("jobs.off_peak: %w", err))
	}
	return errors.Join(errs...)
}

// Client is this process's part in the work that is shared through a Redis: claims and queues.
type Client struct {
	cfg    Config
	redis  redis.UniversalClient
	local  *miniredis.Miniredis // nil with a real server
	worker string               // this process

	mu   sync.Mutex
	wake map[string]chan struct{} // by channel
	subs []*redis.PubSub
}

// Open connects to the configured server, or starts the one in this process. Close frees it. pipeline.ErrConflict where something else, or a newer version,
// has keys under the prefix.
func Open(ctx context.Context, cfg Config) (*Client, error) {
	c := &Client{cfg: cfg, wake: map[string]chan struct{}{}, worker: workerName()}
	way := server{single: &redis.Options{Protocol: 2, MaintNotificationsConfig: nothingAnnounced}}
	if cfg.Redis == "" {
		c.local = miniredis.NewMiniRedis()
		if err := c.local.Start(); err != nil {
			return nil, fmt.Errorf("starting the Redis server inside the process: %w", err)
		}
		way.single.Addr = c.local.Addr()
	} else {
		var err error
		if way, err = cfg.parse(); err != nil {
			return nil, fmt.Errorf("%w: %w", pipeline.ErrInvalid, err)
		}
	}
	var where string
	var err error
	if c.redis, where, err = way.connect(cfg.TLS); err == nil {
		if err = c.redis.Ping(ctx).Err(); err != nil {
			err = fmt.Errorf("Redis at %s does not answer (jobs.redis): %w", where, err)
		} else if err = c.settle(ctx); err != nil {
			err = fmt.Errorf("Redis at %s: %w", where, err)
		}
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Close ends the connection, and the server if it is our own.
func (c *Client) Close() error {
	c.mu.Lock()
	for _, s := range c.subs {
		_ = s.Close()
	}
	c.mu.Unlock()
	err := c.redis.Close()
	if c.local != nil {
		c.local.Close()
	}
	return err
}

// Ping tells whether Redis answers.
func (c *Client) Ping(ctx context.Context) error { return c.redis.Ping(ctx).Err() }

// Both scripts act only on a claim that is still ours.
var (
	renew = redis.NewScript(`if redis.call("GET", KEYS[1]) == ARGV[1] then return redis.call("PEXPIRE", KEYS[1], ARGV[2]) end return 0`)
	drop  = redis.NewScript(`if redis.call("GET", KEYS[1]) == ARGV[1] then return redis.call("DEL", KEYS[1]) end return 0`)
)

// Claim tries to become the only worker on key. ok is false while somebody else is. The returned context ends with ctx, with
// release, or when the claim was lost (Redis away for longer than the lease, or emptied and claimed by another): then stop.
// The caller must call release.
func (c *Client) Claim(ctx context.Context, key string) (held context.Context, release func(), ok bool, err error) {
	key, owner := c.cfg.Prefix+"claim:"+key, rand.Text()
	ok, err = c.redis.SetNX(ctx, key, owner, c.lease()).Result()
	if err != nil || !ok {
		return nil, nil, false, err
	}
	held, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.keep(held, cancel, key, owner)
	}()
	release = func() {
		cancel()
		<-done
		ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer stop()
		_ = drop.Run(ctx, c.redis, []string{key}, owner).Err() // else it ends with its lease
	}
	return held, release, true, nil
}

func (c *Client) lease() time.Duration { return c.cfg.Lease }

// keep renews a claim three times a lease until held ends. An emptied Redis is no loss as long as nobody else came: the claim is
// set again.
func (c *Client) keep(held context.Context, lost context.CancelFunc, key, owner string) {
	tick := time.NewTicker(c.lease() / 3)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-held.Done():
			return
		case <-tick.C:
		}
		n, err := renew.Run(held, c.redis, []string{key}, owner, c.lease().Milliseconds()).Int()
		if err == nil && n == 0 {
			var mine bool
			if mine, err = c.redis.SetNX(held, key, owner, c.lease()).Result(); err == nil && !mine {
				lost()
				return
			}
		}
		if err == nil {
			last = time.Now()
		} else if time.Since(last) > c.lease() {
			lost()
			return
		}
	}
}

// workerName tells this process from every other that shares a server, and a person which one it is.
func workerName() string {
	host, _ := os.Hostname()
	return fmt.Sprintf("%s-%d-%s", host, os.Getpid(), rand.Text()[:6])
}

// Worker names this process among those that share the server.
func (c *Client) Worker() string { return c.worker }

// woken receives when something was published on a channel. There is one for all who wait in this process: who wakes takes what there is
// and the next one looks by its own time.
func (c *Client) woken(channel string) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.wake[channel]
	if w == nil {
		w = make(chan struct{}, 1)
		c.wake[channel] = w
		sub := c.redis.Subscribe(context.Background(), channel)
		c.subs = append(c.subs, sub)
		go func() {
			for range sub.Channel() {
				poke(w)
			}
		}()
	}
	return w
}

func (c *Client) poke(channel string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w := c.wake[channel]; w != nil {
		poke(w)
	}
}

func poke(w chan struct{}) {
	select {
	case w <- struct{}{}:
	default: // somebody is going to look anyway
	}
}
