package pipeline

import (
	"cmp"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// defaultParallel is how many studies are delivered to a destination at the same time when it does not say.
const defaultParallel = 4

// name names a record in the queue of a destination.
func (r *Record) name() string { return r.StudyInstanceUID + " " + r.Key }

// deliver queues what is still to be delivered of a record; the queue of a destination holds names, not documents. A destination that
// was configured after the record was made gets nothing of it.
func (l *Line) deliver(ctx context.Context, rec Record) {
	for _, to := range l.Destinations {
		if !rec.undelivered(to.Name) {
			continue
		}
		if err := to.Queue.Put(ctx, Job{Name: rec.name(), Lane: LaneRoutine, Due: l.Now()}); err != nil {
			l.Log.Warn().Str("study", rec.StudyInstanceUID).Err(err).Msg("a delivery is queued later") // reconcile finds it
		}
	}
}

// undelivered tells whether a record has documents that are still on their way to a destination.
func (r *Record) undelivered(to string) bool {
	d := r.Deliveries[to]
	return r.State == StateReported && d != nil && !d.Dead && d.Delivered.IsZero()
}

// Outgoing tells whether a record has documents that are still on their way.
func (r *Record) Outgoing() bool {
	for to := range r.Deliveries {
		if r.undelivered(to) {
			return true
		}
	}
	return false
}

// GivenUp tells whether a record has documents that a destination does not get any more.
func (r *Record) GivenUp() bool {
	for _, d := range r.Deliveries {
		if r.State == StateReported && d.Dead {
			return true
		}
	}
	return false
}

// lifeState is where a study stands by its record.
func (r *Record) lifeState() State {
	if r.State != StateReported || len(r.Deliveries) == 0 {
		return r.State
	}
	for _, d := range r.Deliveries {
		if d.Delivered.IsZero() {
			return r.State
		}
	}
	return StateDelivered
}

// startDeliveries starts the workers of each destination. None of them waits for a delivery that has failed.
func (l *Line) startDeliveries(ctx context.Context) {
	for _, to := range l.Destinations {
		for range cmp.Or(to.Parallel, defaultParallel) {
			l.work.Go(func() {
				l.take(ctx, to.Queue, to.Ready, func(ctx context.Context, lease Lease) time.Time {
					study, key, _ := strings.Cut(lease.Job().Name, " ")
					free, end, ok := l.begin(ctx, study)
					if !ok {
						return l.Now().Add(heldPause)
					}
					defer end()
					return l.deliverTo(free, study, key, to)
				})
			})
		}
	}
}

// deliverTo makes one attempt. A delivery ends when the destination has the documents, refuses them for good, or has failed with them for GiveUp; that
// the destination is away gives nothing up. Till then it returns when the next attempt is due.
func (l *Line) deliverTo(ctx context.Context, study, key string, to Destination) (again time.Time) {
	log := l.Log.With().Str("study", study).Str("destination", to.Name).Logger()
	name := to.Name + " " + study + " " + key
	records, err := l.Archive.Records(ctx, study)
	if err == nil {
		i := slices.IndexFunc(records, func(r Record) bool { return r.Key == key })
		if i < 0 || !records[i].undelivered(to.Name) {
			l.unnoted.forget(name)
			return time.Time{}
		}
		made, wait := l.unnoted.known(name, records[i].Reported, l.Now())
		if !wait.IsZero() {
			return wait
		}
		if !made {
			if err = l.attempt(ctx, records[i], to); err == nil {
				l.unnoted.add(name, records[i].Reported)
			}
		}
	}
	if ctx.Err() != nil { // the service stops, or the study is held
		if err != nil {
			return l.Now().Add(heldPause)
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
	}
	over := err != nil && (to.Permanent(err) || errors.Is(err, ErrNotFound)) // a document that was deleted
	waits := !over && errors.Is(err, ErrBusy)
	var d Delivery
	step := Change{At: l.Now(), State: StateDelivered, Worker: l.Worker}
	if err != nil {
		step = l.gaveUp(to.Name, err.Error()) // if it is
	}
	_, uerr := l.Archive.UpdateRecord(ctx, Life{StudyInstanceUID: study}, key, func(r *Record) {
		if r.Deliveries == nil {
			r.Deliveries = map[string]*Delivery{}
		}
		x := cmp.Or(r.Deliveries[to.Name], &Delivery{})
		if !waits {
			x.Attempts++
		}
		if err == nil || !x.Dead { // else it was dropped meanwhile
			x.note(err, over, step.At, l.Config.GiveUp)
		}
		d, r.Deliveries[to.Name] = *x, x
	}, step)
	if uerr != nil {
		log.Error().Err(uerr).Bool("delivered", err == nil).Msg("what came of a delivery could not be noted")
		return l.unnoted.failed(name, l.Now())
	}
	l.unnoted.forget(name)
	l.unnoted.goesOn()
	switch {
	case err == nil:
		l.Stats.Delivered.Add(1)
		log.Info().Int("attempt", d.Attempts).Msg("delivered")
	case d.Dead && !d.GivenUp.Equal(step.At):
		log.Info().Err(err).Msg("a delivery that was dropped meanwhile failed")
	case d.Dead:
		l.Stats.DeliveriesDead.Add(1)
		log.Error().Err(err).Int("attempt", d.Attempts).Msg("delivery given up; the documents stay in the archive")
	case waits: // the destination has told the log
		return d.Next
	default:
		l.Stats.DeliveryErrors.Add(1)
		log.Warn().Err(err).Int("attempt", d.Attempts).Dur("again_in", d.Next.Sub(l.Now())).Msg("delivery failed")
		return d.Next
	}
	return time.Time{}
}

// note writes down what came of an attempt; over: it is the last one.
func (d *Delivery) note(err error, over bool, now time.Time, giveUp time.Duration) {
	d.Error, d.Answer, d.Next = "", "", time.Time{}
	if err == nil {
		d.Delivered, d.Dead, d.GivenUp = now, false, time.Time{}
		return
	}
	d.Error = err.Error()
	if said := (interface{ Answer() string })(nil); errors.As(err, &said) {
		d.Answer = said.Answer()
	}
	if d.Failing.IsZero() && !errors.Is(err, ErrUnavailable) {
		d.Failing = now
	}
	if d.Dead = over || !errors.Is(err, ErrUnavailable) && now.Sub(d.Failing) > giveUp; d.Dead {
		d.GivenUp = now
	} else {
		d.Next = now.Add(pauseAfter(max(1, d.Attempts), err))
	}
}

func (l *Line) attempt(ctx context.Context, rec Record, to Destination) error {
	var docs []Document
	for _, ref := range rec.Documents {
		d, err := l.Archive.Document(ctx, rec.StudyInstanceUID, ref)
		if err != nil {
			return err
		}
		docs = append(docs, d)
	}
	if docs = to.Wanted(docs); len(docs) == 0 {
		return nil
	}
	return to.Deliver(ctx, rec, docs)
}

// backoff doubles from one second to five minutes, give or take a fifth so that many failures do not come back at once.
func backoff(attempt int) time.Duration {
	s := min(math.Pow(2, float64(attempt-1)), 300)
	return time.Duration(s * (0.8 + 0.4*rand.Float64()) * float64(time.Second))
}

type atomicFloat struct{ bits atomic.Uint64 }

func (f *atomicFloat) Store(v float64) { f.bits.Store(math.Float64bits(v)) }

// Load returns the last value stored.
func (f *atomicFloat) Load() float64 { return math.Float64frombits(f.bits.Load()) }
