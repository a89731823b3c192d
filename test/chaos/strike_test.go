package chaos

import (
	"slices"
	"strings"
	"syscall"
	"time"
)

// refilled is how long Redis's queues may take to have again what they had, from when it answers.
const refilled = 3 * time.Second

// later does something after a while, before the run settles.
func (r *run) later(d time.Duration, f func()) {
	r.lifting.Go(func() { time.Sleep(d); f() })
}

// strike makes a fault happen; false where that cannot be done, or there is nothing to be hit. Leases and deliveries can be lost only where the fault has reached a process that reads;
// SIGTERM loses none: what is under way is finished, or handed back with what was read.
func (r *run) strike(f fault) bool {
	p := r.processes()[f.On]
	reads := slices.Contains(r.workers, p)
	switch {
	case strings.HasSuffix(f.Kind, " redis"):
		r.redis.await()
	case f.Kind == "kill s3":
		r.store.gateway.await()
	case strings.HasSuffix(f.Kind, " service"), f.Kind == "clock":
		p.await()
	}
	costs := func(workers int, lasts time.Duration) { r.costs(workers, 0, lasts) }
	switch f.Kind {
	case "kill service":
		if !p.end(syscall.SIGKILL, f.For) {
			return false
		}
		if reads {
			costs(1, 0)
		}
	case "end service":
		return p.end(syscall.SIGTERM, f.For)
	case "stop service": // for longer than a lease
		if !p.signal(syscall.SIGSTOP) {
			return false
		}
		if reads {
			costs(1, f.For+time.Second)
		}
		r.later(f.For, func() { p.signal(syscall.SIGCONT) })
	case "kill redis": // leases are gone with it, and end where it is not back in time
		if !r.redis.end(syscall.SIGKILL, f.For) {
			return false
		}
		costs(len(r.workers), f.For+refilled)
	case "stop redis":
		if !r.redis.signal(syscall.SIGSTOP) {
			return false
		}
		costs(len(r.workers), f.For+refilled)
		r.later(f.For, func() { r.redis.signal(syscall.SIGCONT) })
	case "flush redis":
		if redisSays(r.port, "FLUSHALL") != nil { // it is away just now
			return false
		}
		costs(len(r.workers)-1, refilled) // what one has taken and not begun yet, another may be given
	case "disk full":
		if !r.disk.fill() {
			return false
		}
		r.later(f.For, r.disk.empty)
	case "restart postgres":
		r.lifting.Go(func() { r.index.restart(r.t, f.For) })
	case "kill s3":
		return r.store.gateway.end(syscall.SIGKILL, f.For)
	case "clock":
		return p.jump(f.For)
	default:
		switch before, _, _ := strings.Cut(f.Kind, " "); before {
		case "receiver":
			r.receiver.behave(f.Kind, f.For)
		case "s3":
			r.store.behave(f.Kind, f.For)
		default:
			r.t.Fatalf("fault %q is not known", f.Kind)
		}
	}
	return true
}

// still is how long this process must not have run for the machine to have stood still: a lease may have ended then without any fault.
const still = lease / 2

// pulse notes when the machine stands still.
func (r *run) pulse(over <-chan struct{}) {
	for last := time.Now(); ; {
		select {
		case <-over:
			return
		case <-time.After(50 * time.Millisecond):
		}
		if stood := time.Since(last); stood > still {
			r.t.Logf("the machine stood still for %v", stood)
			r.costs(len(r.workers), stood, 0)
		}
		last = time.Now()
	}
}

// costs notes that something may cost so many workers the leases of what they read, and the notes of what they have delivered, from a while ago and for a while.
func (r *run) costs(workers int, before, lasts time.Duration) {
	if workers == 0 {
		return
	}
	r.toll.Lock()
	defer r.toll.Unlock()
	r.lost += workers * readers
	now := time.Now()
	r.partings = append(r.partings, parting{now.Add(-time.Second - before), now.Add(lasts), workers * parallel * perSet})
}
