package jobs

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"chatxray/pipeline"
)

func put(t *testing.T, q *Queue, name string, lane pipeline.Lane, in time.Duration) {
	t.Helper()
	if err := q.Put(t.Context(), pipeline.Job{Name: name, Lane: lane, Due: time.Now().Add(in)}); err != nil {
		t.Fatal(err)
	}
}

// take takes a job, which has to be there within a generous time.
func take(t *testing.T, q *Queue) pipeline.Lease {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	l, err := q.Take(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func nothing(t *testing.T, q *Queue) {
	t.Helper()
	if l, _, err := q.try(t.Context()); err != nil || l != nil {
		t.Fatalf("something is due: %v %v", l, err)
	}
}

func done(t *testing.T, l pipeline.Lease, again time.Time) {
	t.Helper()
	if err := l.Done(t.Context(), again); err != nil {
		t.Fatal(err)
	}
}

func size(t *testing.T, q *Queue) (waiting, taken int) {
	t.Helper()
	w, taken, err := q.Size(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range w {
		waiting += n
	}
	return waiting, taken
}

func TestUrgentComesFirst(t *testing.T) {
	servers(t, func(t *testing.T, cfg Config, _ func(*Client) redis.UniversalClient) {
		q := open(t, cfg).Queue("read")
		put(t, q, "backfill", pipeline.LaneOffPeak, 0)
		put(t, q, "morning", pipeline.LaneRoutine, 0)
		put(t, q, "noon", pipeline.LaneRoutine, 0)
		put(t, q, "trauma", pipeline.LaneUrgent, 0)
		var got []string
		for range 4 {
			l := take(t, q)
			got = append(got, l.Job().Name)
			done(t, l, time.Time{})
		}
		if want := []string{"trauma", "morning", "noon", "backfill"}; !slices.Equal(got, want) {
			t.Errorf("%v, not %v", got, want)
		}
		nothing(t, q)
	})
}

func TestWhatHasWaitedLongComesFirst(t *testing.T) {
	servers(t, func(t *testing.T, cfg Config, _ func(*Client) redis.UniversalClient) {
		cfg.Aging = 300 * time.Millisecond
		q := open(t, cfg).Queue("read")
		put(t, q, "routine", pipeline.LaneRoutine, 0)
		time.Sleep(400 * time.Millisecond)
		put(t, q, "urgent", pipeline.LaneUrgent, 0)
		if l := take(t, q); l.Job().Name != "routine" || l.Job().Lane != pipeline.LaneRoutine {
			t.Errorf("%+v came first", l.Job())
		}
	})
}

func TestOffPeakWaitsForItsHours(t *testing.T) {
	servers(t, func(t *testing.T, cfg Config, _ func(*Client) redis.UniversalClient) {
		now := time.Now()
		cfg.OffPeak = now.Add(3*time.Hour).Format("15:04") + "-" + now.Add(4*time.Hour).Format("15:04")
		c := open(t, cfg)
		q := c.Queue("read")
		put(t, q, "backfill", pipeline.LaneOffPeak, 0)
		nothing(t, q)
		c.cfg.OffPeak = now.Add(-time.Hour).Format("15:04") + "-" + now.Add(time.Hour).Format("15:04")
		if l := take(t, q); l.Job().Name != "backfill" {
			t.Errorf("%+v", l.Job())
		}
	})
}

func TestAJobWaitsForItsTime(t *testing.T) {
	servers(t, func(t *testing.T, cfg Config, _ func(*Client) redis.UniversalClient) {
		q := open(t, cfg).Queue("read")
		put(t, q, "a", pipeline.LaneRoutine, time.Hour)
		nothing(t, q)
		moved := time.Now()
		put(t, q, "a", pipeline.LaneUrgent, 150*time.Millisecond)
		l := take(t, q)
		if waited := l.Asked().Sub(moved); waited < 100*time.Millisecond || l.Asked().After(time.Now()) {
			t.Errorf("asked %v after it was put: the queue did not have it then", waited)
		}
		if l.Job().Name != "a" || l.Job().Lane != pipeline.LaneUrgent {
			t.Errorf("%+v", l.Job())
		}
		if w, n := size(t, q); w != 0 || n != 1 {
			t.Errorf("%d wait, %d are taken", w, n)
		}
		put(t, q, "a", pipeline.LaneRoutine, 0) // while somebody works on it
		nothing(t, q)
		done(t, l, time.Time{})
		l = take(t, q)
		done(t, l, time.Now().Add(100*time.Millisecond)) // again later
		if l = take(t, q); l.Job().Name != "a" {
			t.Errorf("%+v", l.Job())
		}
		done(t, l, time.Time{})
		if w, n := size(t, q); w != 0 || n != 0 {
			t.Errorf("%d wait, %d are taken", w, n)
		}
	})
}

// Many workers of several processes, each job once.
func TestEachJobIsTakenOnce(t *testing.T) {
	servers(t, func(t *testing.T, cfg Config, _ func(*Client) redis.UniversalClient) {
		const jobs = 300
		first := open(t, cfg)
		clients := []*Client{first}
		if cfg.Redis != "" {
			clients = append(clients, open(t, cfg), open(t, cfg))
		}
		var mu sync.Mutex
		got := map[string]int{}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var work sync.WaitGroup
		for _, c := range clients {
			q := c.Queue("read")
			for range 4 {
				work.Go(func() {
					for {
						l, err := q.Take(ctx)
						if err != nil {
							return
						}
						mu.Lock()
						got[l.Job().Name]++
						all := len(got) == jobs
						mu.Unlock()
						_ = l.Done(context.WithoutCancel(ctx), time.Time{})
						if all {
							cancel()
						}
					}
				})
			}
		}
		q := first.Queue("read")
		for i := range jobs {
			put(t, q, fmt.Sprint("job", i), pipeline.Lanes[i%3], time.Duration(i%7)*10*time.Millisecond)
		}
		time.AfterFunc(5*time.Minute, cancel)
		work.Wait()
		for name, n := range got {
			if n != 1 {
				t.Errorf("%s was taken %d times", name, n)
			}
		}
		if len(got) != jobs {
			t.Errorf("%d of %d jobs were taken", len(got), jobs)
		}
	})
}

// The job of a worker that died goes to another one, and the first, should it come back, has lost it.
func TestALeaseOfTheDeadIsTakenOver(t *testing.T) {
	servers(t, func(t *testing.T, cfg Config, _ func(*Client) redis.UniversalClient) {
		c := open(t, cfg)
		dead, other := c.Queue("read"), c.Queue("read")
		dead.consumer = "dead"
		put(t, dead, "a", pipeline.LaneRoutine, 0)
		l := take(t, dead).(*lease)
		l.cancel() // it stops to renew, as a process does that was killed or stopped
		<-l.ended
		nothing(t, other)
		taken := take(t, other)
		if taken.Job().Name != "a" {
			t.Fatalf("%+v", taken.Job())
		}
		if n, err := dead.run(t.Context(), "beat", "dead", 1000, 2, l.id, "a").Int(); err != nil || n != 0 {
			t.Errorf("the dead worker renews its lease: %d %v", n, err)
		}
		done(t, l, time.Now()) // changes nothing
		if _, n := size(t, other); n != 1 {
			t.Errorf("%d are taken", n)
		}
		done(t, taken, time.Time{})
		nothing(t, other)
	})
}

func TestALeaseIsRenewed(t *testing.T) {
	servers(t, func(t *testing.T, cfg Config, _ func(*Client) redis.UniversalClient) {
		t.Parallel()
		cfg.Lease = 6 * time.Second // a busy machine is away for a second or two
		c := open(t, cfg)
		q, other := c.Queue("read"), c.Queue("read")
		other.consumer = "other"
		put(t, q, "a", pipeline.LaneRoutine, 0)
		l := take(t, q)
		for end := time.Now().Add(2 * cfg.Lease); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			nothing(t, other)
		}
		done(t, l, time.Time{})
	})
}

// Another process restores what an emptied server has lost before those who have leases have told it of them: they keep them.
func TestRestoredBeforeTheLease(t *testing.T) {
	servers(t, func(t *testing.T, cfg Config, admin func(*Client) redis.UniversalClient) {
		q := open(t, cfg).Queue("read")
		put(t, q, "held", pipeline.LaneRoutine, 0)
		held := take(t, q)
		flush(t, admin(q.client))
		if err := q.Restore(t.Context(), []pipeline.Job{{Name: "held", Lane: pipeline.LaneRoutine, Due: time.Now().Add(time.Hour)}}); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			if w, _ := size(t, q); w == 0 {
				break
			}
			if time.Now().After(end) {
				t.Fatal("the lease was not taken up")
			}
		}
		if held.Held().Err() != nil {
			t.Error("the lease was lost")
		}
		done(t, held, time.Time{})
		if w, n := size(t, q); w != 0 || n != 0 {
			t.Errorf("%d wait, %d are taken", w, n)
		}
	})
}

// An emptied server loses no work that is under way, and what waited is restored once.
func TestAnEmptiedServer(t *testing.T) {
	servers(t, func(t *testing.T, cfg Config, admin func(*Client) redis.UniversalClient) {
		c := open(t, cfg)
		q := c.Queue("read")
		if fresh, err := q.Emptied(t.Context()); !fresh || err != nil {
			t.Fatalf("a new server is not noticed: %v %v", fresh, err)
		}
		if fresh, err := q.Emptied(t.Context()); fresh || err != nil {
			t.Fatalf("noticed twice: %v %v", fresh, err)
		}
		put(t, q, "held", pipeline.LaneRoutine, 0)
		held := take(t, q)
		put(t, q, "waiting", pipeline.LaneRoutine, 0)
		flush(t, admin(c))
		if fresh, err := q.Emptied(t.Context()); !fresh || err != nil {
			t.Fatalf("the flush is not noticed: %v %v", fresh, err)
		}
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) { // until the lease has been made anew
			if n, err := admin(c).HExists(t.Context(), q.keys[0], "held").Result(); err == nil && n {
				break
			}
			if time.Now().After(end) {
				t.Fatal("the lease was not made anew")
			}
		}
		for range 2 {
			if err := q.Restore(t.Context(), []pipeline.Job{{Name: "held", Lane: pipeline.LaneRoutine}, {Name: "waiting", Lane: pipeline.LaneUrgent}}); err != nil {
				t.Fatal(err)
			}
		}
		l := take(t, q)
		if l.Job().Name != "waiting" || l.Job().Lane != pipeline.LaneUrgent {
			t.Errorf("%+v", l.Job())
		}
		nothing(t, q)
		if held.Held().Err() != nil {
			t.Error("the lease was lost")
		}
		if w, n := size(t, q); w != 0 || n != 2 {
			t.Errorf("%d wait, %d are taken", w, n)
		}
		done(t, l, time.Time{})
		done(t, held, time.Time{})
		nothing(t, q)
		if n, err := admin(c).HLen(t.Context(), q.keys[0]).Result(); n != 0 || err != nil {
			t.Errorf("%d jobs are left (%v)", n, err)
		}
	})
}

func TestADroppedJob(t *testing.T) {
	servers(t, func(t *testing.T, cfg Config, _ func(*Client) redis.UniversalClient) {
		q := open(t, cfg).Queue("read")
		put(t, q, "waits", pipeline.LaneRoutine, 0)
		put(t, q, "later", pipeline.LaneRoutine, 100*time.Millisecond)
		for _, n := range []string{"waits", "later", "unknown"} {
			if err := q.Drop(t.Context(), n); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(150 * time.Millisecond)
		nothing(t, q)
	})
}
