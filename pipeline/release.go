package pipeline

import (
	"context"
	"fmt"
)

// waits tells whether a reading is held and nobody has let it go.
func (r *Record) waits() bool { return r.Reading != nil && r.Reading.Held != "" && r.Released.IsZero() }

// detain notes that a reading waits for a person.
func (l *Line) detain(ctx context.Context, life Life, rec Record) (Record, error) {
	held, err := l.Archive.UpdateRecord(ctx, life, rec.Key, func(r *Record) {
		r.take(rec)
		r.State = StateHeld
	}, Change{At: l.Now(), State: StateHeld, Reason: "the report waits for a person: " + rec.Reading.Held, Worker: l.Worker})
	if err != nil {
		return rec, err
	}
	if rec.State != StateHeld {
		l.Stats.Held.Add(1)
		l.Log.Warn().Str("study", rec.StudyInstanceUID).Int("revision", rec.Reading.Revision).Str("reason", rec.Reading.Held).
			Msg("the report is held: it is not delivered until somebody releases it")
	}
	return held, nil
}

// Release lets the held report of a study go: a worker writes its documents and they are delivered. by is who wants it, empty where nobody is
// known. Errors: ErrNotFound where nothing of the study was read, ErrConflict where its report is not held, is being read anew, or is about other images
// or of another model than a reading would be now.
func (l *Line) Release(ctx context.Context, study, by string) error {
	ctx, end, ok := l.begin(ctx, study)
	if !ok {
		return fmt.Errorf("study %s is being deleted: %w", study, ErrConflict)
	}
	defer end()
	life, err := l.Archive.Life(ctx, study)
	if err != nil {
		return err
	}
	records, err := l.Archive.Records(ctx, study)
	if err != nil {
		return err
	}
	last := standing(life.State, records)
	if last == nil {
		return fmt.Errorf("study %s has not been read: %w", study, ErrNotFound)
	}
	if last.State == StateHeld && life.Open {
		return fmt.Errorf("the report of study %s was held, but the study is %s now: images came or went since, or it is read anew; look at the report that comes of that: %w", study, life.State, ErrConflict)
	}
	if last.State != StateHeld {
		return fmt.Errorf("the report of study %s is not held, the study is %s: %w", study, life.State, ErrConflict)
	}
	st, err := l.Archive.Study(ctx, study)
	if err != nil {
		return err
	}
	changed := life.Received.After(last.Completed) && !l.Steps.about(st, last) // where another process has the model; the clock is that of a third, perhaps
	if l.Steps.Model != nil {
		changed = l.Steps.Key(st) != last.Key
	}
	if changed {
		return fmt.Errorf("the report of study %s is held, but the images or the model have changed since: read it anew (chatxray jobs retry): %w", study, ErrConflict)
	}
	if _, err = l.Archive.UpdateRecord(ctx, life, last.Key, func(r *Record) {
		if r.State == StateHeld {
			r.State, r.Released, r.ReleasedBy = StateRead, l.Now(), by
		}
	}, Change{At: l.Now(), State: StateQueued, Reason: "the report was released", Worker: l.Worker}); err != nil {
		return err
	}
	l.arrivals.put(study, l.Now())
	return nil
}
