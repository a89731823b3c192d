package jobs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"chatxray/pipeline"
)

func TestURLs(t *testing.T) {
	for url, want := range map[string]string{
		"redis://h:6379/1":                     "h:6379",
		"rediss://u:p@h":                       "h:6379",
		"redis://a:1?addr=b:2":                 "the Cluster a:1, b:2",
		"redis://a:1/3?master_name=m&addr=b:2": "master m of the Sentinels a:1, b:2",
		"redis://a:1?unknown=1":                "",
		"redis://a:1?addr=b":                   "",
		"http://a:1":                           "",
		"redis://a:1/x?master_name=m":          "",
		"::":                                   "",
	} {
		s, err := Config{Redis: pipeline.Secret(url)}.parse()
		if (err != nil) != (want == "") {
			t.Errorf("%s: %v", url, err)
		}
		if err != nil {
			continue
		}
		c, where, err := s.connect(TLS{})
		if err != nil || where != want {
			t.Errorf("%s is %s (%v)", url, where, err)
		}
		c.Close()
	}
	cfg := Default()
	cfg.Redis, cfg.TLS, cfg.Prefix, cfg.MaxWaiting = "redis://h", TLS{CA: "ca.pem", Key: "key.pem"}, "a*", -1
	err := cfg.Check()
	for _, w := range []string{"certificate and key belong together", `jobs.prefix: "a*"`, "jobs.max_waiting: -1"} {
		if !strings.Contains(fmt.Sprint(err), w) {
			t.Errorf("%v does not say %q", err, w)
		}
	}
	cfg = Default()
	for _, url := range []pipeline.Secret{"redis://h", ""} {
		if cfg.Redis, cfg.TLS = url, (TLS{CA: "ca.pem"}); !strings.Contains(fmt.Sprint(cfg.Check()), "rediss://") {
			t.Errorf("%v", cfg.Check())
		}
	}
}

// The page says what the suite runs with.
func TestDocumentedACL(t *testing.T) {
	b, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []string{"user chatxray on >PASSWORD " + acl + "\n", "`" + strings.TrimSpace(aclCluster) + "`", "`" + aclSentinel + "`"} {
		if !strings.Contains(string(b), w) {
			t.Errorf("docs/operations.md does not have %q", w)
		}
	}
}

// Who does not trust the server, or has no certificate where one is wanted, does not get in, and is told.
func TestTLSIsChecked(t *testing.T) {
	for _, kind := range places {
		if !strings.Contains(kind.name, "TLS") {
			continue
		}
		p := at(t, kind.name, kind.start)
		cfg := Default()
		cfg.Redis = pipeline.Secret(p.url)
		for name, files := range map[string]TLS{"no CA": {}, "no certificate": {CA: p.tls.CA}, "no such file": {CA: p.tls.CA + "x"}, "no certificate in it": {CA: p.tls.Key}} {
			cfg.TLS = files
			c, err := Open(t.Context(), cfg)
			if err == nil {
				c.Close()
			}
			if err == nil || strings.Contains(err.Error(), "hush") || strings.Contains(err.Error(), "where") {
				t.Errorf("%s, %s: %v", kind.name, name, err)
			}
		}
	}
}

// everything is every key and value of a Redis but those of a prefix.
func everything(t *testing.T, admin redis.UniversalClient, but string) map[string]string {
	t.Helper()
	var mu sync.Mutex
	all := map[string]string{}
	if err := (&Client{redis: admin}).shards(t.Context(), func(ctx context.Context, r *redis.Client) error {
		for it := r.Scan(ctx, 0, "*", 1000).Iterator(); it.Next(ctx); {
			if strings.HasPrefix(it.Val(), but) {
				continue
			}
			dump, err := r.Dump(ctx, it.Val()).Result()
			if redis.HasErrorPrefix(err, "WRONGTYPE") { // the embedded server dumps strings only
				dump, err = fmt.Sprint(r.HGetAll(ctx, it.Val()).Val()), nil
			}
			if err != nil {
				return err
			}
			mu.Lock()
			all[it.Val()] = dump
			mu.Unlock()
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// Other data in the same Redis stay as they are; under our prefix they are told at the start, and stay too.
func TestARedisWithOtherData(t *testing.T) {
	servers(t, func(t *testing.T, cfg Config, admin func(*Client) redis.UniversalClient) {
		first := open(t, cfg)
		root := admin(first)
		ctx := t.Context()
		for _, key := range []string{"session:1", "{studies}:jobs", "chatxra", "lane:urgent"} {
			root.Set(ctx, key, "theirs", 0)
		}
		root.HSet(ctx, "celery", "a", "1")
		defer root.Del(ctx, "session:1")
		before := everything(t, root, cfg.Prefix)
		q := first.Queue("read")
		if fresh, err := q.Emptied(ctx); !fresh || err != nil {
			t.Fatal(err)
		}
		put(t, q, "a", pipeline.LaneUrgent, 0)
		put(t, q, "b", pipeline.LaneRoutine, time.Hour)
		_, release, _, err := first.Claim(ctx, "study")
		if err != nil {
			t.Fatal(err)
		}
		lease := take(t, q)
		if cfg.Redis != "" {
			second := open(t, cfg) // which finds our keys
			second.Close()
		}
		done(t, lease, time.Time{})
		release()
		if err := q.Drop(ctx, "b"); err != nil {
			t.Fatal(err)
		}
		if after := everything(t, root, cfg.Prefix); !maps.Equal(before, after) {
			t.Errorf("other data were changed: %d keys, then %d", len(before), len(after))
		}
		if cfg.Redis == "" {
			return // nobody else can have written
		}
		refused := func(what, says string) {
			t.Helper()
			was := everything(t, root, "\x00")
			c, err := Open(ctx, cfg)
			if err == nil {
				c.Close()
			}
			if !errors.Is(err, pipeline.ErrConflict) || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "another") {
				t.Errorf("%s: %v", what, err)
			}
			if !maps.Equal(was, everything(t, root, "\x00")) {
				t.Errorf("%s: something was changed", what)
			}
		}
		layoutKey := first.layoutKey()
		root.Set(ctx, layoutKey, "2", 0)
		refused("a newer layout", `layout "2", this one knows 1`)
		root.Del(ctx, layoutKey)
		root.LPush(ctx, layoutKey, "x")
		refused("a list in its place", layoutKey)
		root.Del(ctx, layoutKey)
		for key, make := range map[string]func(string){
			"users":        func(k string) { root.Set(ctx, k, "1", 0) },
			"{read}:jobs":  func(k string) { root.Del(ctx, k); root.Set(ctx, k, "1", 0) },
			"claim:x":      func(k string) { root.HSet(ctx, k, "a", 1) },
			"{read}:other": func(k string) { root.Set(ctx, k, "1", 0) },
		} {
			make(cfg.Prefix + key)
			refused(key, cfg.Prefix+key)
			root.Del(ctx, cfg.Prefix+key)
		}
		c := open(t, cfg)
		if v, err := c.redis.Get(ctx, layoutKey).Result(); v != layout || err != nil {
			t.Errorf("the layout is %q (%v)", v, err)
		}
	})
}

// The master of Sentinel is killed while four workers take jobs: they go on with the other one, and what the failover has lost is restored.
func TestFailover(t *testing.T) {
	p := at(t, "Sentinel that fails over", startSecuredSentinel)
	cfg := Default()
	cfg.Redis, cfg.TLS, cfg.Lease = pipeline.Secret(p.url), p.tls, 2*time.Second
	const jobs = 300
	var all []pipeline.Job
	for i := range jobs {
		all = append(all, pipeline.Job{Name: fmt.Sprint("job", i), Lane: pipeline.Lanes[i%3]})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	var mu sync.Mutex
	got := map[string]int{}
	left := func() (some []pipeline.Job) {
		mu.Lock()
		defer mu.Unlock()
		for _, j := range all {
			if got[j.Name] == 0 {
				some = append(some, j)
			}
		}
		return some
	}
	errs := 0
	var work sync.WaitGroup
	for range 2 {
		q := open(t, cfg).Queue("read")
		for range 2 {
			work.Go(func() {
				for ctx.Err() == nil {
					l, err := q.Take(ctx)
					if err != nil {
						mu.Lock()
						errs++
						mu.Unlock()
						time.Sleep(100 * time.Millisecond)
						continue
					}
					time.Sleep(10 * time.Millisecond)
					mu.Lock()
					got[l.Job().Name]++
					mu.Unlock()
					_ = l.Done(context.WithoutCancel(ctx), time.Time{})
				}
			})
		}
	}
	q := open(t, cfg).Queue("read")
	if err := q.Restore(ctx, all); err != nil {
		t.Fatal(err)
	}
	for len(left()) > jobs*2/3 {
		if ctx.Err() != nil {
			t.Fatal("the first third was not done")
		}
		time.Sleep(10 * time.Millisecond)
	}
	p.nodes[0].kill()
	for len(left()) > 0 && ctx.Err() == nil { // as reconcile does
		_ = q.Restore(ctx, left())
		time.Sleep(500 * time.Millisecond)
	}
	cancel()
	work.Wait()
	mu.Lock()
	defer mu.Unlock()
	twice := 0
	for _, n := range got {
		if n > 1 {
			twice++
		}
	}
	t.Logf("%d errors while the master was away, %d jobs were taken twice: in work then, or not yet known to the replica; the archive knows what is done", errs, twice)
	if len(got) != jobs || errs == 0 {
		t.Errorf("%d of %d jobs were done, %d errors", len(got), jobs, errs)
	}
}
