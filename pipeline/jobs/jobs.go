// Package jobs makes sure that work is done once, through Redis: a real server by URL, or one in this process.
package jobs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"chatxray/pipeline"
)

// Config is the section "jobs" of the configuration file.
type Config struct {
	// Redis is the URL of a Redis server: redis://host:6379/0, rediss:// for TLS, "env:NAME" to take it from the environment.
	// Empty: a server inside this process, for a service that runs alone.
	Redis pipeline.Secret `yaml:"redis"`
	// Lease is how long a claim outlives a process that died. It is renewed while the work goes on.
	Lease time.Duration `yaml:"lease"`
	// Prefix of every key, so that several services can share a server.
	Prefix string `yaml:"prefix"`
}

// Default returns the configuration of a service that runs alone.
func Default() Config { return Config{Lease: 30 * time.Second, Prefix: "chatxray:"} }

// Check returns what is wrong with the configuration.
func (c Config) Check() error {
	var errs []error
	if c.Redis != "" {
		if _, err := redis.ParseURL(c.Redis.Reveal()); err != nil {
			errs = append(errs, errors.New("jobs.redis: not a Redis URL (redis://[user:password@]host:port/database)"))
		}
	}
	if c.Lease < time.Second || c.Lease > time.Hour {
		errs = append(errs, fmt.Errorf("jobs.lease: %v is not between 1s and 1h", c.Lease))
	}
	return errors.Join(errs...)
}

// Claims hands out work: who holds a claim is the only one to do the work until he gives it back or dies.
type Claims struct {
	cfg   Config
	redis *redis.Client
	local *miniredis.Miniredis // nil with a real server
}

// Open connects to the configured server, or starts the one in this process. Close frees it.
func Open(ctx context.Context, cfg Config) (*Claims, error) {
	c := &Claims{cfg: cfg}
	opts := &redis.Options{}
	if cfg.Redis == "" {
		c.local = miniredis.NewMiniRedis()
		if err := c.local.Start(); err != nil {
			return nil, fmt.Errorf("starting the Redis server inside the process: %w", err)
		}
		opts.Addr = c.local.Addr()
		opts.Protocol = 2
	} else {
		var err error
		if opts, err = redis.ParseURL(cfg.Redis.Reveal()); err != nil {
			return nil, fmt.Errorf("jobs.redis: %w: not a Redis URL", pipeline.ErrInvalid)
		}
	}
	c.redis = redis.NewClient(opts)
	if err := c.redis.Ping(ctx).Err(); err != nil {
		c.Close()
		return nil, fmt.Errorf("Redis at %s does not answer (jobs.redis): %w", opts.Addr, err)
	}
	return c, nil
}

// Close ends the connection, and the server if it is our own.
func (c *Claims) Close() error {
	err := c.redis.Close()
	if c.local != nil {
		c.local.Close()
	}
	return err
}

// Ping tells whether Redis answers.
func (c *Claims) Ping(ctx context.Context) error { return c.redis.Ping(ctx).Err() }

// Both scripts act only on a claim that is still ours.
var (
	renew = redis.NewScript(`if redis.call("GET", KEYS[1]) == ARGV[1] then return redis.call("PEXPIRE", KEYS[1], ARGV[2]) end return 0`)
	drop  = redis.NewScript(`if redis.call("GET", KEYS[1]) == ARGV[1] then return redis.call("DEL", KEYS[1]) end return 0`)
)

// Claim tries to become the only worker on key. ok is false while somebody else is. The returned context ends with ctx, with
// release, or when the claim was lost (Redis away for longer than the lease, or emptied and claimed by another): then stop.
// The caller must call release.
func (c *Claims) Claim(ctx context.Context, key string) (held context.Context, release func(), ok bool, err error) {
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

func (c *Claims) lease() time.Duration { return c.cfg.Lease }

// keep renews a claim three times a lease until held ends. An emptied Redis is no loss as long as nobody else came: the claim is
// set again.
func (c *Claims) keep(held context.Context, lost context.CancelFunc, key, owner string) {
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
