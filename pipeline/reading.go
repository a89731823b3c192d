package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// read returns the record of the study's present set of images, reading them unless that has been done. What was read now is not on disk yet.
func (l *Line) read(ctx context.Context, life Life, st *Study, look look, key string, records []Record, completed time.Time) (Record, error) {
	kept, ok := l.unkept.take(st.StudyInstanceUID, key)
	if i := slices.IndexFunc(records, func(r Record) bool { return r.Key == key && r.Reading != nil }); i >= 0 {
		rec := records[i]
		if rec.State != StateReported {
			rec.comesLast(records)
		}
		if rec.State == StateFailed {
			return rec, l.showAgain(ctx, &rec, look)
		}
		return rec, nil
	}
	if ok {
		l.Log.Info().Str("study", st.StudyInstanceUID).Msg("what was read before could not be noted then; the study is not read again")
		kept.Reading.Revision = nextRevision(records)
		kept.comesLast(records)
		return kept, l.showAgain(ctx, &kept, look)
	}
	took := l.stopwatch(st.StudyInstanceUID)
	rec := Record{Key: key, StudyInstanceUID: st.StudyInstanceUID, Completed: completed}
	rec.comesLast(records)
	var reading *Reading
	seen, err := look(ctx)
	took("decode")
	if err == nil {
		reading, err = l.readAndShow(ctx, key, seen, completed)
		took("model")
	}
	if none := (*NoImageError)(nil); errors.As(err, &none) {
		l.Stats.Refused.Add(1)
		l.Log.Info().Str("study", st.StudyInstanceUID).Interface("refused", none.Refused).Msg("no image of the study is read")
		refused, err := l.Archive.UpdateRecord(ctx, life, key, func(r *Record) {
			r.State, r.Refused, r.Error, r.Completed, r.Turn = StateRefused, none.Refused, "", completed, rec.Turn
		}, Change{At: l.Now(), State: StateRefused, Reason: "no image of the study is read", Worker: l.Worker})
		if err != nil {
			return rec, err
		}
		return refused, nil
	}
	if reading == nil {
		return rec, err
	}
	reading.Revision = nextRevision(records)
	l.Stats.Read.Add(1)
	rec.take(Record{State: StateRead, Reading: reading, Completed: completed, Turn: rec.Turn})
	return rec, err
}

// showAgain keeps the picture of a reading that failed afterwards: it may be the picture that could not be kept.
func (l *Line) showAgain(ctx context.Context, rec *Record, look look) error {
	seen, err := look(ctx)
	if err != nil || seen.Chosen.Instance.SOPInstanceUID != rec.Reading.Inputs[0].SOPInstanceUID {
		return nil //nolint:nilerr // the report does without it
	}
	return l.show(ctx, rec.StudyInstanceUID, rec.Key, seen.Image)
}

// take makes a record say what was read.
func (r *Record) take(read Record) {
	r.State, r.Reading, r.Refused, r.Error, r.Completed, r.Turn = read.State, read.Reading, read.Reading.Refused, "", read.Completed, read.Turn
}

// readAndShow lets the model read, and keeps the picture that it sees meanwhile. Where only that fails there is a Reading beside the error.
func (l *Line) readAndShow(ctx context.Context, key string, seen *Sight, completed time.Time) (*Reading, error) {
	shown := make(chan error, 1)
	go func() { shown <- l.show(ctx, seen.StudyInstanceUID, key, seen.Image) }()
	reading, read, err := l.Steps.Read(ctx, seen, completed)
	if e := <-shown; err == nil {
		err = e
	}
	if err == nil && read != seen {
		err = l.show(ctx, seen.StudyInstanceUID, key, read.Image)
	}
	return reading, err
}

// show keeps the picture that the model sees.
func (l *Line) show(ctx context.Context, studyUID, key string, img *Image) error {
	png, err := l.Steps.Model.Preview(img)
	if err != nil {
		return err
	}
	return l.Archive.PutPreview(ctx, studyUID, key, png)
}

// again notes that the images of a study are those of a record that is reported. The documents that stand are the last about these images, whichever model has
// read them: those of a model that was taken back since have been delivered in place of rec's.
func (l *Line) again(ctx context.Context, life Life, st *Study, rec Record, records []Record) (stands Record, err error) {
	stands = rec
	for _, r := range records {
		if r.State == StateReported && r.turn() > stands.turn() && l.Steps.about(st, &r) {
			stands = r
		}
	}
	step := Change{At: l.Now(), State: stands.lifeState(), Reason: "the same images as before", Worker: l.Worker}
	if !stands.comesLast(records) {
		return stands, l.Archive.Move(ctx, life, step)
	}
	return l.Archive.UpdateRecord(ctx, life, stands.Key, func(r *Record) { r.Turn = stands.Turn }, step)
}

// report writes the documents of a reading into the archive.
func (l *Line) report(ctx context.Context, life Life, st *Study, rec Record, records []Record) (Record, error) {
	if len(rec.Documents) == 0 { // it comes after what was reported since it was read
		for _, r := range records {
			if len(r.Documents) > 0 && r.Reading != nil && r.Reading.Revision >= rec.Reading.Revision {
				rec.Reading.Revision = r.Reading.Revision + 1
			}
		}
	}
	earlier := slices.DeleteFunc(slices.Clone(records), func(r Record) bool {
		return r.Reading == nil || len(r.Documents) == 0 || r.Reading.Revision >= rec.Reading.Revision
	})
	took := l.stopwatch(st.StudyInstanceUID)
	docs, err := l.Steps.Write(st, rec.Reading, earlier)
	if err != nil {
		return rec, fmt.Errorf("writing the documents: %w", err)
	}
	took("documents")
	var refs []DocumentRef
	for _, d := range docs {
		refs = append(refs, DocumentRef{Kind: d.Kind, SeriesInstanceUID: d.SeriesInstanceUID, SOPInstanceUID: d.SOPInstanceUID, SOPClassUID: d.SOPClassUID})
	}
	reported := l.Now()
	stored, err := l.Archive.Report(ctx, life, rec.Key, docs, func(r *Record) {
		r.take(rec)
		r.State, r.Documents, r.Reported = StateReported, refs, reported
		r.Deliveries = map[string]*Delivery{}
		for _, to := range l.Destinations {
			r.Deliveries[to.Name] = &Delivery{}
		}
	}, Change{At: reported, State: StateReported, Worker: l.Worker})
	if err != nil {
		return rec, fmt.Errorf("storing the documents: %w", err)
	}
	took("store")
	l.Stats.LastSeconds.Store(reported.Sub(rec.Completed).Seconds())
	l.Stats.LastRunSeconds.Store(rec.Reading.RunSeconds)
	l.Log.Info().Str("study", st.StudyInstanceUID).Str("model", rec.Reading.Model.Name+" "+rec.Reading.Model.Version).
		Int("sentences", len(rec.Reading.Sentences)).Int("revision", rec.Reading.Revision).
		Dur("run", time.Duration(rec.Reading.RunSeconds*float64(time.Second))).Dur("complete_to_stored", reported.Sub(rec.Completed)).Msg("reported")
	return stored, nil
}
