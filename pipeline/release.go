package pipeline

import (
	"context"
	"fmt"
)

// waits tells whether a reading is held and nobody has let it go.
func (r *Record) waits() bool { return r.Reading != nil && r.Reading.Held != "" && r.Released.IsZero() }

// detain notes that a reading waits for a person.
func (l *Line) detain(ctx context.Context, rec Record) (Record, error) {
	l.Stats.Held.Add(1)
	l.Log.Warn().Str("study", rec.StudyInstanceUID).Int("revision", rec.Reading.Revision).Str("reason", rec.Reading.Held).
		Msg("the report is held: it is not delivered until somebody releases it")
	return l.Archive.UpdateRecord(ctx, rec.StudyInstanceUID, rec.Key, func(r *Record) { r.State, r.Error = StateHeld, "" })
}

// Release lets the held report of a study go: its documents are written and delivered. by is who wants it, empty where nobody is known.
// Errors: ErrNotFound where nothing of the study was read, ErrConflict where its report is not held, or is being read anew.
func (l *Line) Release(ctx context.Context, study, by string) error {
	ctx, end, ok := l.begin(ctx, study)
	if !ok {
		return fmt.Errorf("study %s is being deleted: %w", study, ErrConflict)
	}
	defer end()
	records, err := l.Archive.Records(ctx, study)
	if err != nil {
		return err
	}
	last := latest(records)
	if last == nil {
		return fmt.Errorf("study %s has not been read: %w", study, ErrNotFound)
	}
	if last.State != StateHeld {
		return fmt.Errorf("the report of study %s is not held, but %s: %w", study, last.State, ErrConflict)
	}
	st, err := l.Archive.Study(ctx, study)
	if err != nil {
		return err
	}
	first := false
	rec, err := l.Archive.UpdateRecord(ctx, study, last.Key, func(r *Record) {
		if first = r.State == StateHeld; first {
			r.State, r.Released, r.ReleasedBy = StateRead, l.Now(), by
		}
	})
	if err != nil {
		return err
	}
	if !first {
		return fmt.Errorf("the report of study %s was released meanwhile: %w", study, ErrConflict)
	}
	// A crash here leaves a study that is not settled: the next start goes on. What fails otherwise is held again.
	if rec, err = l.report(ctx, st, rec, records); err != nil {
		_, _ = l.Archive.UpdateRecord(ctx, study, rec.Key, func(r *Record) { r.State, r.Released, r.ReleasedBy = StateHeld, last.Released, "" })
		return err
	}
	l.deliver(rec)
	return nil
}
