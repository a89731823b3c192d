package jobs

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"chatxray/pipeline"
)

func open(t *testing.T, cfg Config) *Client {
	t.Helper()
	c, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestOneOfManyGetsTheClaim(t *testing.T) {
	servers(t, func(t *testing.T, cfg Config, _ func(*Client) redis.UniversalClient) {
		c := open(t, cfg)
		var got atomic.Int32
		var wg sync.WaitGroup
		var release func()
		for range 32 {
			wg.Go(func() {
				_, r, ok, err := c.Claim(t.Context(), "study")
				if err != nil {
					t.Error(err)
				}
				if ok {
					got.Add(1)
					release = r
				}
			})
		}
		wg.Wait()
		if got.Load() != 1 {
			t.Fatalf("%d workers hold the claim", got.Load())
		}
		release()
		_, r, ok, err := c.Claim(t.Context(), "study")
		if err != nil || !ok {
			t.Fatalf("the claim was not given back: %v %v", ok, err)
		}
		r()
	})
}

func TestClaimOutlivesItsLeaseWhileHeld(t *testing.T) {
	servers(t, func(t *testing.T, cfg Config, _ func(*Client) redis.UniversalClient) {
		c := open(t, cfg)
		held, release, ok, err := c.Claim(t.Context(), "study")
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		defer release()
		time.Sleep(2 * cfg.Lease)
		if held.Err() != nil {
			t.Error("the claim was lost although it was renewed")
		}
		if _, _, ok, _ := c.Claim(t.Context(), "study"); ok {
			t.Error("a second worker got the claim")
		}
	})
}

func TestEmptiedRedis(t *testing.T) {
	servers(t, func(t *testing.T, cfg Config, admin func(*Client) redis.UniversalClient) {
		c := open(t, cfg)
		held, release, _, err := c.Claim(t.Context(), "study")
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		flush(t, admin(c))
		time.Sleep(cfg.Lease)
		if held.Err() != nil {
			t.Error("the claim was given up although nobody else took it")
		}
		if _, _, ok, _ := c.Claim(t.Context(), "study"); ok {
			t.Error("the claim was not set again")
		}
		// emptied, and taken by another before the next renewal: the first worker must stop
		admin(c).Set(t.Context(), cfg.Prefix+"claim:study", "another", time.Minute)
		select {
		case <-held.Done():
		case <-time.After(2 * cfg.Lease):
			t.Error("two workers hold the claim")
		}
	})
}

func TestClaimEndsWhenItsHolderDies(t *testing.T) {
	cfg := Default() // the server inside the process dies with its holder
	cfg.Prefix = "chatxray:" + t.Name() + ":"
	cfg.Lease, cfg.Redis = time.Second, pipeline.Secret(at(t, "redis-server", startSingle).url)
	dead, alive := open(t, cfg), open(t, cfg)
	if _, _, ok, err := dead.Claim(t.Context(), "study"); err != nil || !ok {
		t.Fatal(ok, err)
	}
	dead.redis.Close() // no renewal and no release any more
	if _, _, ok, _ := alive.Claim(t.Context(), "study"); ok {
		t.Fatal("the claim ended before its lease")
	}
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		_, release, ok, err := alive.Claim(t.Context(), "study")
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			release()
			return
		}
		if time.Now().After(end) {
			t.Fatal("the claim of a dead worker never ended")
		}
	}
}

func TestCheckAndUnreachable(t *testing.T) {
	cfg := Default()
	cfg.Redis, cfg.Lease = "http://secret@nowhere", 0
	err := cfg.Check()
	if err == nil || !strings.Contains(err.Error(), "jobs.redis") || !strings.Contains(err.Error(), "jobs.lease") {
		t.Errorf("error %v", err)
	}
	if strings.Contains(fmt.Sprint(err), "secret") {
		t.Error("the error tells the secret")
	}
	cfg = Default()
	cfg.Redis = "redis://:hush@127.0.0.1:1/0"
	if _, err := Open(t.Context(), cfg); err == nil || strings.Contains(err.Error(), "hush") || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("error %v", err)
	}
}
