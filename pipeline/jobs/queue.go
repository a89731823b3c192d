package jobs

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"chatxray/pipeline"
)

//go:embed queue.lua
var queueScript string

var script = redis.NewScript(queueScript)

// Queue is a queue on Redis Streams: one stream with a consumer group for each lane, and a sorted set for what is not due yet. All that is
// in it can be made again from the archive.
type Queue struct {
	client   *Client
	name     string
	keys     []string // those of queue.lua
	epoch    string
	consumer string
	aging    time.Duration
	wake     chan struct{}

	mu     sync.Mutex
	reaped time.Time
}

// Queue returns the queue of a name.
func (c *Client) Queue(name string) *Queue {
	base := c.cfg.Prefix + "{" + name + "}:" // the braces keep the keys of a queue on one node of a cluster
	q := &Queue{client: c, name: name, epoch: base + "epoch", consumer: c.worker, aging: c.cfg.Aging, wake: make(chan struct{}, 1)}
	q.keys = []string{base + "jobs", base + "later", base + "heads"}
	for _, l := range pipeline.Lanes {
		q.keys = append(q.keys, base+"lane:"+string(l))
	}
	return q
}

func (q *Queue) run(ctx context.Context, verb string, args ...any) *redis.Cmd {
	return script.Run(ctx, q.client.redis, q.keys, append([]any{verb}, args...)...)
}

// Put implements pipeline.Queue.
func (q *Queue) Put(ctx context.Context, j pipeline.Job) error {
	err := q.run(ctx, "put", j.Lane.Number(), fromNow(j.Due), j.Name, pollAtMost.Milliseconds()).Err()
	if err != nil && !errors.Is(err, redis.Nil) {
		return fmt.Errorf("queue %s: %w", q.name, err)
	}
	return nil
}

// Restore implements pipeline.Queue.
func (q *Queue) Restore(ctx context.Context, all []pipeline.Job) error {
	for len(all) > 0 {
		n := min(len(all), 500)
		var args []any
		for _, j := range all[:n] {
			args = append(args, j.Lane.Number(), fromNow(j.Due), j.Name)
		}
		if err := q.run(ctx, "restore", args...).Err(); err != nil {
			return fmt.Errorf("queue %s: %w", q.name, err)
		}
		all = all[n:]
	}
	q.client.redis.Publish(ctx, q.keys[0], "")
	return nil
}

// Drop implements pipeline.Queue.
func (q *Queue) Drop(ctx context.Context, name string) error {
	if err := q.run(ctx, "drop", name).Err(); err != nil && !errors.Is(err, redis.Nil) {
		return fmt.Errorf("queue %s: %w", q.name, err)
	}
	return nil
}

// Emptied implements pipeline.Queue.
func (q *Queue) Emptied(ctx context.Context) (bool, error) {
	fresh, err := q.client.redis.SetNX(ctx, q.epoch, rand.Text(), 0).Result()
	if fresh && err == nil {
		err = q.client.redis.SetNX(ctx, q.client.layoutKey(), layout, 0).Err() // the layout is lost too
	}
	return fresh, err
}

// Size implements pipeline.Queue.
func (q *Queue) Size(ctx context.Context) (waiting map[pipeline.Lane]int, taken int, err error) {
	p := q.client.redis.Pipeline()
	all := p.HLen(ctx, q.keys[0])
	later := p.ZCard(ctx, q.keys[1])
	var lengths []*redis.IntCmd
	var groups []*redis.XPendingCmd
	for i := range pipeline.Lanes {
		lengths = append(lengths, p.XLen(ctx, q.keys[3+i]))
		groups = append(groups, p.XPending(ctx, q.keys[3+i], "workers"))
	}
	_, _ = p.Exec(ctx) // each answer has its own error: a lane without a stream has no group
	for _, c := range append([]*redis.IntCmd{all, later}, lengths...) {
		if c.Err() != nil {
			return nil, 0, fmt.Errorf("queue %s: %w", q.name, c.Err())
		}
	}
	waiting = map[pipeline.Lane]int{}
	inLanes := 0
	for i, l := range pipeline.Lanes {
		n := int(lengths[i].Val())
		if v := groups[i].Val(); v != nil {
			taken += int(v.Count)
			n -= int(v.Count)
		}
		waiting[l] = n
		inLanes += int(lengths[i].Val())
	}
	waiting[pipeline.LaneRoutine] += int(later.Val())
	taken += max(0, int(all.Val())-int(later.Val())-inLanes) // held without an entry, since the server was emptied
	return waiting, taken, nil
}

// fromNow is in how many milliseconds a time comes.
func fromNow(t time.Time) int64 { return max(0, time.Until(t).Milliseconds()) }

// pollAtMost is how long a worker that has nothing to do waits before it looks again, where nobody wakes it.
const pollAtMost = time.Second

// Take implements pipeline.Queue.
func (q *Queue) Take(ctx context.Context) (pipeline.Lease, error) {
	for {
		l, next, err := q.try(ctx)
		if err != nil {
			return nil, err
		}
		if l != nil {
			q.client.poke(q.keys[0]) // another idle worker of this process may take the next one
			return l, nil
		}
		pause := pollAtMost
		if !next.IsZero() {
			pause = max(0, min(pause, time.Until(next)))
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		case <-q.client.woken(q.keys[0]):
		case <-timer.C:
		}
		timer.Stop()
	}
}

// try takes a job if one is due; else it says when the next one is, zero for no time.
func (q *Queue) try(ctx context.Context) (*lease, time.Time, error) {
	if err := ctx.Err(); err != nil {
		return nil, time.Time{}, err
	}
	now := time.Now()
	args := []any{q.consumer, q.client.cfg.Lease.Milliseconds(), q.reap(now)}
	for _, l := range pipeline.Lanes {
		start := time.Duration(l.Number()-1) * q.aging
		if l == pipeline.LaneOffPeak && !q.client.cfg.OffPeakOpen(now) {
			start = -time.Millisecond // it is shut
		}
		args = append(args, start.Milliseconds())
	}
	got, err := q.run(ctx, "take", args...).StringSlice()
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("queue %s: %w", q.name, err)
	}
	if len(got) < 3 {
		ms, err := strconv.ParseFloat(got[0], 64)
		if err != nil {
			return nil, time.Time{}, nil // nothing waits
		}
		return nil, now.Add(time.Duration(ms) * time.Millisecond), nil
	}
	number, err := strconv.Atoi(got[1])
	if err != nil || number < 1 || number > len(pipeline.Lanes) {
		return nil, time.Time{}, fmt.Errorf("queue %s: %w: job in lane %q; another program writes under the prefix %s", q.name, pipeline.ErrInvalid, got[1], q.client.cfg.Prefix)
	}
	l := &lease{q: q, job: pipeline.Job{Name: got[0], Lane: pipeline.Lanes[number-1]}, number: number, id: got[2], asked: now, ended: make(chan struct{})}
	if ms, _, ok := cutID(l.id); ok {
		l.since = ms
	}
	l.held, l.cancel = context.WithCancel(context.WithoutCancel(ctx))
	go l.keep()
	return l, time.Time{}, nil
}

func cutID(id string) (time.Time, string, bool) {
	for i := range id {
		if id[i] == '-' {
			ms, err := strconv.ParseInt(id[:i], 10, 64)
			return time.UnixMilli(ms), id[i+1:], err == nil
		}
	}
	return time.Time{}, "", false
}

// reap is "1" when it is time to look for leases of the dead: a few times a lease.
func (q *Queue) reap(now time.Time) string {
	q.mu.Lock()
	defer q.mu.Unlock()
	if now.Sub(q.reaped) < q.client.cfg.Lease/4 {
		return "0"
	}
	q.reaped = now
	return "1"
}

// lease is a taken job.
type lease struct {
	q      *Queue
	job    pipeline.Job
	number int // of the lane
	id     string
	since  time.Time
	asked  time.Time
	held   context.Context
	cancel context.CancelFunc
	ended  chan struct{}
}

// Job implements pipeline.Lease.
func (l *lease) Job() pipeline.Job { return l.job }

// Since implements pipeline.Lease.
func (l *lease) Since() time.Time { return l.since }

// Asked implements pipeline.Lease.
func (l *lease) Asked() time.Time { return l.asked }

// Held implements pipeline.Lease.
func (l *lease) Held() context.Context { return l.held }

// keep renews the lease three times its length. It is lost when somebody else has the job, or when the server was away for longer.
func (l *lease) keep() {
	defer close(l.ended)
	length := l.q.client.cfg.Lease
	tick := time.NewTicker(length / 3)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-l.held.Done():
			return
		case <-tick.C:
		}
		n, err := l.q.run(l.held, "beat", l.q.consumer, length.Milliseconds(), l.number, l.id, l.job.Name).Int()
		switch {
		case err == nil && n == 1:
			last = time.Now()
		case err == nil, time.Since(last) > length:
			l.cancel()
			return
		}
	}
}

// Done implements pipeline.Lease.
func (l *lease) Done(ctx context.Context, again time.Time) error {
	l.cancel()
	<-l.ended
	due := int64(-1)
	if !again.IsZero() {
		due = fromNow(again)
	}
	err := l.q.run(ctx, "done", l.q.consumer, l.id, due, l.job.Name, l.number).Err()
	if err != nil {
		return fmt.Errorf("queue %s: %w", l.q.name, err)
	}
	return nil
}
