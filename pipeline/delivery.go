package pipeline

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// defaultParallel is how many studies are delivered to a destination at the same time when it does not say.
const defaultParallel = 4

// deliver queues what is still to be delivered of a record; the queue of a destination holds names, not documents. A destination that
// was configured after the record was made gets nothing of it.
func (l *Line) deliver(rec Record) {
	for i, to := range l.Destinations {
		if rec.undelivered(to.Name) {
			l.deliveries[i].put(rec.StudyInstanceUID+"\n"+rec.Key, l.Now())
		}
	}
}

// undelivered tells whether a record has documents that are still on their way to a destination.
func (r *Record) undelivered(to string) bool {
	d := r.Deliveries[to]
	return r.State == StateReported && d != nil && !d.Dead && d.Delivered.IsZero()
}

// startDeliveries starts the workers of each destination. None of them waits for a delivery that has failed.
func (l *Line) startDeliveries(ctx context.Context) {
	l.deliveries = make([]queue, len(l.Destinations))
	for i, to := range l.Destinations {
		for range cmp.Or(to.Parallel, defaultParallel) {
			l.work.Go(func() {
				for q := &l.deliveries[i]; ; {
					name, ok := q.next(ctx, l.Now)
					if !ok {
						return
					}
					pause := heldPause
					study, _, _ := strings.Cut(name, "\n")
					if free, end, ok := l.begin(ctx, study); ok {
						pause = l.deliverTo(free, q, name, to)
						end()
					}
					q.done(name, l.Now(), pause)
				}
			})
		}
	}
}

// deliverTo makes one attempt. A delivery ends when the destination has the documents, refuses them for good, or has failed for GiveUp;
// till then pause says when the next attempt is due.
func (l *Line) deliverTo(ctx context.Context, q *queue, name string, to Destination) (pause time.Duration) {
	study, key, _ := strings.Cut(name, "\n")
	log := l.Log.With().Str("study", study).Str("destination", to.Name).Logger()
	records, err := l.Archive.Records(ctx, study)
	if err == nil {
		i := slices.IndexFunc(records, func(r Record) bool { return r.Key == key })
		if i < 0 || !records[i].undelivered(to.Name) {
			q.ended(name)
			return 0
		}
		err = l.attempt(ctx, records[i], to)
	}
	if ctx.Err() != nil { // the service stops, or the study is held
		return heldPause
	}
	if err == nil || to.Permanent(err) || errors.Is(err, ErrNotFound) { // a document that was deleted
		q.ended(name)
	} else {
		pause = q.failed(name, l.Now(), l.Config.GiveUp)
	}
	attempts := 0
	if _, uerr := l.Archive.UpdateRecord(ctx, study, key, func(r *Record) {
		d := cmp.Or(r.Deliveries[to.Name], &Delivery{})
		d.Attempts++
		d.Dead = err != nil && pause == 0
		d.Error = ""
		if err != nil {
			d.Error = err.Error()
		} else {
			d.Delivered = l.Now()
		}
		attempts = d.Attempts
		if r.Deliveries == nil {
			r.Deliveries = map[string]*Delivery{}
		}
		r.Deliveries[to.Name] = d
	}); uerr != nil {
		log.Error().Err(uerr).Msg("the delivery could not be noted; it may be repeated")
	}
	switch {
	case err == nil:
		l.Stats.Delivered.Add(1)
		log.Info().Int("attempt", attempts).Msg("delivered")
	case pause == 0:
		l.Stats.DeliveriesDead.Add(1)
		log.Error().Err(err).Int("attempt", attempts).Msg("delivery given up; the documents stay in the archive")
	default:
		l.Stats.DeliveryErrors.Add(1)
		log.Warn().Err(err).Int("attempt", attempts).Dur("again_in", pause).Msg("delivery failed")
	}
	return pause
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
	return to.Deliver(ctx, docs)
}

type atomicFloat struct{ bits atomic.Uint64 }

func (f *atomicFloat) Store(v float64) { f.bits.Store(math.Float64bits(v)) }

// Load returns the last value stored.
func (f *atomicFloat) Load() float64 { return math.Float64frombits(f.bits.Load()) }
