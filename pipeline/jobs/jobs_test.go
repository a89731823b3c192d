package jobs

import (
	"fmt"
	"net"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"chatxray/pipeline"
)

// servers runs a test against the server inside the process and against a real redis-server.
func servers(t *testing.T, f func(t *testing.T, cfg Config)) {
	cfg := Default()
	cfg.Lease = time.Second
	t.Run("embedded", func(t *testing.T) { f(t, cfg) })
	t.Run("redis-server", func(t *testing.T) {
		cfg.Redis = pipeline.Secret(realRedis(t))
		f(t, cfg)
	})
}

func realRedis(t *testing.T) string {
	t.Helper()
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("redis-server is not installed (Debian package redis-server)")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	cmd := exec.Command(bin, "--port", fmt.Sprint(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", t.TempDir())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	url := fmt.Sprintf("redis://127.0.0.1:%d/0", port)
	opts, _ := redis.ParseURL(url)
	c := redis.NewClient(opts)
	defer c.Close()
	for range 200 {
		if c.Ping(t.Context()).Err() == nil {
			return url
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatal("redis-server did not start")
	return ""
}

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
	servers(t, func(t *testing.T, cfg Config) {
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
	servers(t, func(t *testing.T, cfg Config) {
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
	servers(t, func(t *testing.T, cfg Config) {
		c := open(t, cfg)
		held, release, _, err := c.Claim(t.Context(), "study")
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		c.redis.FlushAll(t.Context())
		time.Sleep(cfg.Lease)
		if held.Err() != nil {
			t.Error("the claim was given up although nobody else took it")
		}
		if _, _, ok, _ := c.Claim(t.Context(), "study"); ok {
			t.Error("the claim was not set again")
		}
		// emptied, and taken by another before the next renewal: the first worker must stop
		c.redis.Set(t.Context(), cfg.Prefix+"claim:study", "another", time.Minute)
		select {
		case <-held.Done():
		case <-time.After(2 * cfg.Lease):
			t.Error("two workers hold the claim")
		}
	})
}

func TestClaimEndsWhenItsHolderDies(t *testing.T) {
	url := realRedis(t) // the server inside the process dies with its holder
	cfg := Default()
	cfg.Lease, cfg.Redis = time.Second, pipeline.Secret(url)
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
