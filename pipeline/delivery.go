package pipeline

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// deliver starts what is still to be delivered of a record; each destination has its own patience. A destination that was configured
// after the record was made gets nothing of it.
func (l *Line) deliver(rec Record) {
	if rec.State != StateReported {
		return
	}
	for _, to := range l.Destinations {
		if d := rec.Deliveries[to.Name]; d == nil || d.Dead || !d.Delivered.IsZero() {
			continue
		}
		key := rec.Key + "\n" + to.Name
		l.mu.Lock()
		if l.delivering == nil {
			l.delivering = map[string]bool{}
		}
		busy := l.delivering[key]
		l.delivering[key] = true
		l.mu.Unlock()
		if busy {
			continue
		}
		l.work.Go(func() {
			if ctx, end, ok := l.begin(l.ctx, rec.StudyInstanceUID); ok {
				l.deliverTo(ctx, rec, to)
				end()
			}
			l.mu.Lock()
			delete(l.delivering, key)
			l.mu.Unlock()
		})
	}
}

// deliverTo tries until the destination has the documents, refuses them for good, or this process has tried for GiveUp.
func (l *Line) deliverTo(ctx context.Context, rec Record, to Destination) {
	began := l.Now()
	log := l.Log.With().Str("study", rec.StudyInstanceUID).Str("destination", to.Name).Logger()
	for attempt := 1; ; attempt++ {
		err := l.attempt(ctx, rec, to)
		if ctx.Err() != nil {
			return
		}
		dead := err != nil && (to.Permanent(err) || errors.Is(err, ErrNotFound) || // a document that was deleted
			l.Now().Sub(began) > l.Config.GiveUp)
		if _, uerr := l.Archive.UpdateRecord(ctx, rec.StudyInstanceUID, rec.Key, func(r *Record) {
			if r.Deliveries == nil {
				r.Deliveries = map[string]*Delivery{}
			}
			d := r.Deliveries[to.Name]
			if d == nil {
				d = &Delivery{}
				r.Deliveries[to.Name] = d
			}
			d.Attempts++
			d.Dead = dead
			d.Error = ""
			if err != nil {
				d.Error = err.Error()
			} else {
				d.Delivered = l.Now()
			}
		}); uerr != nil {
			log.Error().Err(uerr).Msg("the delivery could not be noted; it may be repeated")
		}
		switch {
		case err == nil:
			l.Stats.Delivered.Add(1)
			log.Info().Int("attempt", attempt).Msg("delivered")
			return
		case dead:
			l.Stats.DeliveriesDead.Add(1)
			log.Error().Err(err).Int("attempt", attempt).Msg("delivery given up; the documents stay in the archive")
			return
		}
		l.Stats.DeliveryErrors.Add(1)
		pause := backoff(attempt)
		log.Warn().Err(err).Int("attempt", attempt).Dur("again_in", pause).Msg("delivery failed")
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
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
	return to.Deliver(ctx, docs)
}

// backoff doubles from one second to five minutes, give or take a fifth so that many failed deliveries do not come back at once.
func backoff(attempt int) time.Duration {
	s := min(math.Pow(2, float64(attempt-1)), 300)
	return time.Duration(s * (0.8 + 0.4*rand.Float64()) * float64(time.Second))
}

type atomicFloat struct{ bits atomic.Uint64 }

func (f *atomicFloat) Store(v float64) { f.bits.Store(math.Float64bits(v)) }

// Load returns the last value stored.
func (f *atomicFloat) Load() float64 { return math.Float64frombits(f.bits.Load()) }
