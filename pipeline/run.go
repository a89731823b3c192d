package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// Archive is what the line asks of the place where instances, records and documents are kept. What a method that writes has taken
// survives a crash.
type Archive interface {
	// Study returns the stored instances of a study; ErrNotFound if there are none.
	Study(ctx context.Context, studyUID string) (*Study, error)
	// Life tells where a study stands; ErrNotFound if nothing is known of it.
	Life(ctx context.Context, studyUID string) (Life, error)
	// Unsettled lists up to most studies behind a UID for which something is to be done, in the order of their UIDs.
	Unsettled(ctx context.Context, after string, most int) ([]Life, error)
	// Complete notes steps of up to most studies that are being received and of which nothing came since a time; it returns how many.
	Complete(ctx context.Context, since time.Time, most int, steps ...Change) (int, error)
	// Begin gives a study to a worker and notes the steps that led there from where it stands; none leaves it as it is. Whoever began earlier writes nothing any more.
	// The study's records come with it, oldest first.
	Begin(ctx context.Context, studyUID string, steps func(Life) []Change) (Life, []Record, error)
	// Move notes a step of a life; ErrLost if another worker has begun since. With the fence 0 it is noted in any case.
	Move(ctx context.Context, l Life, step Change) error
	// Records returns the records of a study, oldest first.
	Records(ctx context.Context, studyUID string) ([]Record, error)
	// UpdateRecord changes one record of a life's study, or makes it, and notes steps, all as one step. ErrLost as in Move.
	UpdateRecord(ctx context.Context, l Life, key string, change func(*Record), steps ...Change) (Record, error)
	// Outgoing lists up to most records behind one, named by study, space and key, of which something is still to be delivered.
	Outgoing(ctx context.Context, after string, most int) ([]Record, error)
	// Undone lists up to most studies behind a UID of which something is to be done, or was given up, in the order of their UIDs.
	Undone(ctx context.Context, after string, most int) ([]string, error)
	// Report is UpdateRecord that stores documents beside the instances of the study, as one step with the record. One that may have been delivered
	// stays; ErrConflict if anything else is under its UID.
	Report(ctx context.Context, l Life, key string, docs []Document, change func(*Record), steps ...Change) (Record, error)
	// Document reads a stored document again.
	Document(ctx context.Context, studyUID string, ref DocumentRef) (Document, error)
	// PutPreview keeps the picture that the model saw (PNG).
	PutPreview(ctx context.Context, studyUID, key string, png []byte) error
}

// Claims lets one worker of all that share a Redis work on a key. The held context ends when the claim is lost.
type Claims interface {
	Claim(ctx context.Context, key string) (held context.Context, release func(), ok bool, err error)
}

// Destination takes finished documents. Wanted picks what it wants of a record's; an error for which Permanent is true is not tried again. One that is an
// ErrUnavailable says nothing about these documents, and nothing is given up for it; one that is an ErrBusy besides was no attempt at all: the destination is
// known to be away.
type Destination struct {
	Name      string
	Queue     Queue // of what is to be delivered to it
	Parallel  int   // studies at the same time; 0 is 4
	Wanted    func([]Document) []Document
	Deliver   func(context.Context, Record, []Document) error
	Permanent func(error) bool
	// Ready waits while the destination is away, but for one that tries whether it is back; leave when it has tried. nil: it never waits.
	Ready func(context.Context) (leave func(), err error)
	// Answers tells how the destination answers; nil: it does.
	Answers func() DestinationState
}

// Stats counts what the line has done since the process started.
type Stats struct {
	Read, Held, Refused, Failed, Delivered, DeliveryErrors, DeliveriesDead atomic.Int64
	Reading                                                                atomic.Int64
	// Seconds of the last study, complete to reported, and the part of it inside ONNX Runtime.
	LastSeconds, LastRunSeconds atomicFloat
}

// Line takes stored studies to delivered reports. Fill the exported fields, then Run.
//
// The archive knows what is to be done; queues only tell the workers of all processes who does it, and are filled again from the archive
// when they have lost something.
type Line struct {
	Config       LineConfig
	Steps        Steps
	Archive      Archive
	Studies      Queue // of what is to be read
	Claims       Claims
	Destinations []Destination
	Complete     Completeness
	Worker       string        // names this process
	Lease        time.Duration // how long what a worker has is left to it when the queues have forgotten it
	Feeds        bool          // this process brings studies into the queue; others read and deliver
	Log          zerolog.Logger
	Now          func() time.Time
	Claimed      func(took time.Duration) // told of each study that is begun: since the queue was asked for it; nil: nobody is
	Stats        Stats

	arrivals arrivals
	holds    holds
	work     sync.WaitGroup
	working  context.Context // of what is being read or delivered: it outlives Run's by Config.Stop
	ahead    ahead
	queues   atomic.Bool // the queues did not answer the last time
	untold   atomic.Bool // complete studies could not be noted the last time
	unnoted  unnoted
	unkept   unkept
}

// Run works until ctx ends; first it takes up what an earlier process left undone. When taking ends, which may be earlier, nothing is begun any more: what comes is
// only noted and queued. It returns when the running study is either finished or safely put down.
func (l *Line) Run(ctx, taking context.Context) error {
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	l.working = working
	l.work.Go(func() { l.forward(ctx) })
	l.work.Go(func() { l.reconcile(ctx) })
	if !l.Feeds {
		l.startDeliveries(taking)
		l.work.Go(func() { l.lookAhead(taking) })
		for range l.Config.Readers {
			l.work.Go(func() { l.take(taking, l.Studies, nil, l.study) })
		}
	}
	select {
	case <-ctx.Done():
	case <-taking.Done():
	}
	defer time.AfterFunc(l.Config.Stop, stop).Stop()
	<-ctx.Done()
	l.work.Wait()
	return nil
}

// take gives one job after another to do, which returns when the job is due again, the zero time for never. It takes none while ready waits.
func (l *Line) take(ctx context.Context, q Queue, ready func(context.Context) (func(), error), do func(context.Context, Lease) time.Time) {
	if ready == nil {
		ready = func(context.Context) (func(), error) { return func() {}, nil }
	}
	for ctx.Err() == nil {
		leave, err := ready(ctx)
		if err != nil {
			continue // the end of ctx
		}
		lease, err := q.Take(ctx)
		if err != nil {
			leave()
			l.away(ctx, err)
			continue
		}
		l.back()
		work, cancel := context.WithCancel(l.working)
		stop := context.AfterFunc(lease.Held(), cancel)
		again := do(work, lease)
		stop()
		cancel()
		leave()
		if l.working.Err() != nil {
			again = l.Now() // another worker goes on at once
		}
		giving, end := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		if err := lease.Done(giving, again); err != nil {
			l.Log.Warn().Err(err).Msg("a finished job cannot be given back; it is looked at again when its lease ends")
		}
		end()
	}
}

// away notes that the queues do not answer, and waits a little.
func (l *Line) away(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	if !l.queues.Swap(true) {
		l.Log.Error().Err(err).Msg("Redis does not answer: what comes is kept, nothing is read or delivered until it does")
	}
	select {
	case <-ctx.Done():
	case <-time.After(500 * time.Millisecond):
	}
}

func (l *Line) back() {
	if l.queues.Swap(false) {
		l.Log.Info().Msg("Redis answers again")
	}
}

// study does one complete study and returns when it is to be looked at again.
func (l *Line) study(ctx context.Context, lease Lease) time.Time {
	uid := lease.Job().Name
	free, end, ok := l.begin(ctx, uid)
	if !ok {
		return l.Now().Add(heldPause)
	}
	defer end()
	l.Stats.Reading.Add(1)
	defer l.Stats.Reading.Add(-1)
	wait, err := l.process(free, lease)
	switch {
	case ctx.Err() == nil && free.Err() != nil: // held: what was stopped is taken up again
		return l.Now().Add(heldPause)
	case ctx.Err() != nil, errors.Is(err, ErrLost): // somebody else goes on
		l.putDown(uid)
		return time.Time{}
	case err == nil && wait == 0:
		return time.Time{}
	case err == nil:
		return l.Now().Add(wait)
	}
	return l.failed(ctx, uid, err)
}

// process is the journey of a study: claim, read, write, store, deliver. What was read is on disk together with its documents, or with what keeps them from being
// written, or in memory where the archive takes neither (unkept); then it is not read again. wait is how long to wait for another process that reads the study.
func (l *Line) process(ctx context.Context, lease Lease) (wait time.Duration, err error) {
	uid, took := lease.Job().Name, l.stopwatch(lease.Job().Name)
	completed := l.Now()
	put, wait, reason, err := l.judge(ctx, uid)
	if put || err != nil {
		return wait, err
	}
	var was Life
	life, records, err := l.Archive.Begin(ctx, uid, func(now Life) []Change {
		if was = now; !now.Open { // its result came by another way, or somebody has dropped it
			return nil
		}
		return l.begun(now, reason, lease.Since(), completed)
	})
	if err != nil || !was.Open {
		l.ahead.forget(uid)
		if err == nil {
			l.unkept.forget(uid)
		}
		return 0, err
	}
	if l.Claimed != nil {
		l.Claimed(l.Now().Sub(lease.Asked()))
	}
	if was.State == StateReading && was.Worker != l.Worker && was.Attempts > 1 { // died more than once: others come first
		l.ahead.forget(uid)
		return l.fail(ctx, life, "", Record{}, errDied)
	}
	took("begin")
	st, look, err := l.open(ctx, life)
	switch {
	case ctx.Err() != nil, errors.Is(err, ErrNotFound):
		return 0, err
	case err != nil:
		return l.fail(ctx, life, "", Record{}, err)
	}
	took("load")
	key := l.Steps.Key(st)
	held, release, ok, err := l.Claims.Claim(ctx, key)
	if err != nil {
		return 0, fmt.Errorf("claiming the study: %w", err)
	}
	if !ok {
		return 5 * time.Second, l.Archive.Move(ctx, life, Change{At: l.Now(), State: StateQueued, Reason: "another worker had it, and its claim has not ended", Worker: l.Worker})
	}
	defer release()
	rec, err := l.read(held, life, st, look, key, records, completed)
	switch {
	case err != nil || rec.State == StateRefused:
	case rec.waits():
		rec.Completed = completed // the images are still those
		rec, err = l.detain(held, life, rec)
	case rec.Reading != nil && rec.State != StateReported:
		rec, err = l.report(held, life, st, rec, records)
	default:
		rec, err = l.again(held, life, st, rec, records)
	}
	switch {
	case err == nil:
		l.deliver(held, rec)
		return 0, nil
	case held.Err() != nil && !errors.Is(err, ErrLost):
		l.keep(life, rec)
	}
	switch {
	case errors.Is(err, ErrLost):
		l.Log.Warn().Str("study", uid).Err(err).Msg("the study was taken over by another worker; nothing of this reading is kept")
		return 5 * time.Second, nil
	case held.Err() != nil && ctx.Err() == nil:
		l.Log.Warn().Str("study", uid).Err(err).Msg("the claim on the study has ended: it is taken up again")
		return 5 * time.Second, nil
	case held.Err() != nil, errors.Is(err, ErrNotFound): // stopped, held, or deleted meanwhile
		return 0, err
	}
	return l.fail(held, life, key, rec, err)
}

// keep notes what was read of a study whose documents are not written any more here: whoever goes on need not read it again.
func (l *Line) keep(life Life, rec Record) {
	if rec.Reading == nil || rec.State != StateRead {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_, err := l.Archive.UpdateRecord(ctx, life, rec.Key, func(r *Record) {
		if r.State != StateReported {
			r.take(rec)
		}
	})
	if err != nil && !errors.Is(err, ErrLost) && !errors.Is(err, ErrNotFound) {
		l.unkept.add(rec)
		l.Log.Warn().Str("study", rec.StudyInstanceUID).Err(err).Msg("what was read could not be noted: this process remembers it, another one would read the study again")
	}
}

// begun lists the steps of a study that a worker begins with, which came into the queue at a time and is complete for a reason.
func (l *Line) begun(was Life, why string, queued, now time.Time) []Change {
	reading := Change{At: now, State: StateReading, Worker: l.Worker}
	switch was.State {
	case StateQueued:
	case StateReading:
		reading.Reason = "taken over from " + was.Worker + ", which did not finish"
		if was.Worker == l.Worker {
			reading.Reason = "begun again"
		}
	case StateFailed:
		reading.Reason = fmt.Sprintf("attempt %d", was.Attempts+1)
	default:
		return append(l.completed(earlier(queued, now), cmp.Or(why, l.quietReason())), reading)
	}
	return []Change{reading}
}

// completed are the steps of a study that has become complete.
func (l *Line) completed(at time.Time, why string) []Change {
	return []Change{
		{At: at, State: StateComplete, Reason: why, Worker: l.Worker},
		{At: at, State: StateQueued, Worker: l.Worker},
	}
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}
