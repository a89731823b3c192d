package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// arrivals are studies of which something has come, on their way into the queue: who stores does not wait for Redis. What is lost of them
// is known by the archive.
type arrivals struct {
	mu   sync.Mutex
	due  map[string]time.Time
	wake chan struct{}
}

func (a *arrivals) lock() {
	a.mu.Lock()
	if a.due == nil {
		a.due, a.wake = map[string]time.Time{}, make(chan struct{}, 1)
	}
}

func (a *arrivals) put(study string, due time.Time) {
	a.lock()
	defer a.mu.Unlock()
	a.due[study] = due
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

func (a *arrivals) taken() (all map[string]time.Time, wake chan struct{}) {
	a.lock()
	defer a.mu.Unlock()
	all, a.due = a.due, map[string]time.Time{}
	return all, a.wake
}

// Stored tells the line that an instance of a study has arrived: its quiet time begins anew.
func (l *Line) Stored(studyUID string) {
	now := l.Now()
	l.ahead.note(studyUID, now, l.Config.Quiet)
	l.arrivals.put(studyUID, now.Add(l.Config.Quiet))
}

// Again tells the line that instances were sent again which the archive has: a study that failed is tried again.
func (l *Line) Again(studyUID string) {
	if life, err := l.Archive.Life(context.Background(), studyUID); err == nil && life.State == StateFailed {
		_ = l.retry(context.Background(), studyUID, "sent again")
	}
}

// Shrunk tells the line that images of a study were deleted: the rest is looked at again, which a crash does not forget.
func (l *Line) Shrunk(ctx context.Context, studyUID string) error {
	err := l.Archive.Move(ctx, Life{StudyInstanceUID: studyUID}, Change{At: l.Now(), State: StateReceiving, Reason: "images were deleted", Worker: l.Worker})
	if errors.Is(err, ErrNotFound) {
		return nil // nothing is left
	}
	l.Stored(studyUID)
	return err
}

// retry takes a study up again that has failed, was refused or is held, as it is, and says why.
func (l *Line) retry(ctx context.Context, studyUID, reason string) error {
	life, err := l.Archive.Life(ctx, studyUID)
	if err != nil {
		return err
	}
	if life.State != StateFailed && life.State != StateRefused && life.State != StateHeld {
		return fmt.Errorf("%w: study %s is %s; only one that has failed, was refused or is held is taken up again", ErrConflict, studyUID, life.State)
	}
	return l.takeUp(ctx, life, reason)
}

// forward brings arrivals into the queue.
func (l *Line) forward(ctx context.Context) {
	for ctx.Err() == nil {
		all, wake := l.arrivals.taken()
		for study, due := range all {
			life, err := l.Archive.Life(ctx, study)
			if err != nil {
				continue // it is gone already, or reconcile finds it
			}
			if err := l.Studies.Put(ctx, Job{Name: study, Lane: life.Lane, Due: due}); err != nil {
				l.away(ctx, err)
				break // the rest is found by reconcile, when Redis answers again
			}
		}
		select {
		case <-ctx.Done():
		case <-wake:
		}
	}
}

// reconciling is how often the queues are compared with the archive.
const reconciling = time.Minute

// reconcile fills the queues from the archive: at the start, when a queue has lost what it had, and now and then.
func (l *Line) reconcile(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var last time.Time
	for {
		emptied, err := l.emptied(ctx)
		if err == nil && (emptied || l.queues.Load() || l.Now().Sub(last) > reconciling) {
			if emptied && !last.IsZero() {
				l.Log.Warn().Msg("Redis has lost its data; the queues are filled again from the archive")
			}
			if err = l.restore(ctx); err == nil {
				last = l.Now()
			}
		}
		l.complete(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			l.away(ctx, err)
		default:
			l.back()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// complete notes which studies have become so while no worker was free for them. Where something is required of them, a worker has to look.
func (l *Line) complete(ctx context.Context) {
	if l.Complete.Missing != nil {
		return
	}
	const most = 1000
	for n := most; n == most && ctx.Err() == nil; {
		var err error
		n, err = l.Archive.Complete(ctx, l.Now().Add(-l.Config.Quiet), most, l.completed(l.Now(), l.quietReason())...)
		if failed := err != nil && ctx.Err() == nil; l.untold.Swap(failed) != failed && failed { // every second, told once
			l.Log.Warn().Err(err).Msg("that studies are complete could not be noted; it is tried again")
		}
	}
}

func (l *Line) emptied(ctx context.Context) (any bool, err error) {
	queues := []Queue{l.Studies}
	for _, d := range l.Destinations {
		queues = append(queues, d.Queue)
	}
	for _, q := range queues {
		one, e := q.Emptied(ctx)
		any, err = any || one, errors.Join(err, e)
	}
	return any, err
}

// restore adds to the queues what the archive knows to be undone. None of it waits for longer than it could have to: the times that the archive has are those
// of another process's clock, or of one that has been set back since.
func (l *Line) restore(ctx context.Context) error {
	const page = 1000
	l.sweep(ctx)
	for after := ""; ; {
		lives, err := l.Archive.Unsettled(ctx, after, page)
		if err != nil || len(lives) == 0 {
			if err != nil {
				return err
			}
			break
		}
		var jobs []Job
		for _, s := range lives {
			if l.busy(s.StudyInstanceUID) {
				continue // its lease is made anew by who has it
			}
			j := Job{Name: s.StudyInstanceUID, Lane: s.Lane, Due: l.Now()}
			switch s.State {
			case StateReading: // who has it makes its lease anew, unless it has died
				if s.Worker != l.Worker {
					j.Due = j.Due.Add(l.Lease)
				}
			case StateReceiving:
				j.Due = earlier(s.Received.Add(l.Config.Quiet), j.Due.Add(l.Config.Quiet))
			case StateFailed:
				j.Due = earlier(s.Next, j.Due.Add(s.Next.Sub(s.At)))
			}
			jobs = append(jobs, j)
		}
		if err := l.Studies.Restore(ctx, jobs); err != nil {
			return err
		}
		after = lives[len(lives)-1].StudyInstanceUID
	}
	for after := ""; ; {
		records, err := l.Archive.Outgoing(ctx, after, page)
		if err != nil || len(records) == 0 {
			return err
		}
		for _, d := range l.Destinations {
			var jobs []Job
			for _, r := range records {
				if r.undelivered(d.Name) && !l.busy(r.StudyInstanceUID) {
					jobs = append(jobs, Job{Name: r.name(), Lane: LaneRoutine, Due: l.Now()})
				}
			}
			if err := d.Queue.Restore(ctx, jobs); err != nil {
				return err
			}
		}
		after = records[len(records)-1].name()
	}
}
