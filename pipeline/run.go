package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// LineConfig is the section "line" of the configuration file.
type LineConfig struct {
	Quiet   time.Duration `yaml:"quiet"`   // a study is complete when nothing came for this long
	Readers int           `yaml:"readers"` // studies read at the same time
	GiveUp  time.Duration `yaml:"give_up"` // what still fails after this long is given up
}

// DefaultLine returns what suits a PACS that forwards study by study.
func DefaultLine() LineConfig {
	return LineConfig{Quiet: 5 * time.Second, Readers: 1, GiveUp: 72 * time.Hour}
}

// Check returns what is wrong with the configuration.
func (c LineConfig) Check() error {
	var errs []error
	if c.Quiet < 0 || c.Quiet > time.Hour {
		errs = append(errs, fmt.Errorf("line.quiet: %v is not between 0s and 1h", c.Quiet))
	}
	if c.Readers < 1 || c.Readers > 64 {
		errs = append(errs, fmt.Errorf("line.readers: %d is not between 1 and 64", c.Readers))
	}
	if c.GiveUp < time.Minute {
		errs = append(errs, fmt.Errorf("line.give_up: %v is less than 1m", c.GiveUp))
	}
	return errors.Join(errs...)
}

// Archive is what the line asks of the place where instances, records and documents are kept. What a Put method has taken
// survives a crash.
type Archive interface {
	// Study returns the stored instances of a study; ErrNotFound if there are none.
	Study(ctx context.Context, studyUID string) (*Study, error)
	// Received lists the studies with the time when the last instance that is not our own arrived.
	Received(ctx context.Context) (map[string]time.Time, error)
	// Records returns the records of a study, oldest first.
	Records(ctx context.Context, studyUID string) ([]Record, error)
	// UpdateRecord changes one record, or makes it, as one step.
	UpdateRecord(ctx context.Context, studyUID, key string, change func(*Record)) (Record, error)
	// PutDocuments stores documents beside the instances of their study, in one step; it returns an error or nil for each. One of an
	// earlier attempt stays; ErrConflict if anything else is under its UID.
	PutDocuments(ctx context.Context, docs []Document) []error
	// Document reads a stored document again.
	Document(ctx context.Context, studyUID string, ref DocumentRef) (Document, error)
	// PutPreview keeps the picture that the model saw (PNG).
	PutPreview(ctx context.Context, studyUID, key string, png []byte) error
}

// Claims lets one worker of all that share a Redis work on a key. The held context ends when the claim is lost.
type Claims interface {
	Claim(ctx context.Context, key string) (held context.Context, release func(), ok bool, err error)
}

// Destination takes finished documents. Wanted picks what it wants; an error for which Permanent is true is not tried again.
type Destination struct {
	Name      string
	Parallel  int // studies at the same time; 0 is 4
	Wanted    func([]Document) []Document
	Deliver   func(context.Context, []Document) error
	Permanent func(error) bool
}

// Stats counts what the line has done since the process started.
type Stats struct {
	Read, Held, Refused, Failed, Delivered, DeliveryErrors, DeliveriesDead atomic.Int64
	Reading                                                                atomic.Int64
	// Seconds of the last study, complete to reported, and the part of it inside ONNX Runtime.
	LastSeconds, LastRunSeconds atomicFloat
}

// Line takes stored studies to delivered reports. Fill the exported fields, then Run.
type Line struct {
	Config       LineConfig
	Steps        Steps
	Archive      Archive
	Claims       Claims
	Destinations []Destination
	Log          zerolog.Logger
	Now          func() time.Time
	Stats        Stats

	studies    queue   // by Study Instance UID, due when their quiet time ends
	deliveries []queue // one for each of Destinations
	holds      holds
	work       sync.WaitGroup
	ahead      ahead
}

// Run works until ctx ends; first it takes up what an earlier process left undone. It returns when the running study is either
// finished or safely put down.
func (l *Line) Run(ctx context.Context) error {
	received, err := l.Archive.Received(ctx)
	if err != nil {
		return fmt.Errorf("looking for unfinished studies: %w", err)
	}
	l.startDeliveries(ctx)
	for uid, at := range received {
		records, err := l.Archive.Records(ctx, uid)
		if err == nil && settled(records, at) {
			for _, r := range records {
				l.deliver(r) // what is still on its way
			}
			continue
		}
		l.studies.put(uid, at.Add(l.Config.Quiet))
	}
	l.work.Go(func() { l.lookAhead(ctx) })
	for range l.Config.Readers {
		l.work.Go(func() {
			for {
				uid, ok := l.studies.next(ctx, l.Now)
				if !ok {
					return
				}
				l.study(ctx, uid)
			}
		})
	}
	<-ctx.Done()
	l.work.Wait()
	return nil
}

// settled tells whether everything that arrived until then has been reported, held or refused. Such a study is left alone at a start,
// whatever model is served now: the archive's history is not read again.
func settled(records []Record, received time.Time) bool {
	for _, r := range records {
		if (r.State == StateReported || r.State == StateHeld || r.State == StateRefused) && !r.Completed.Before(received) {
			return true
		}
	}
	return false
}

// Stored tells the line that an instance of a study has arrived: its quiet time begins anew.
func (l *Line) Stored(studyUID string) {
	l.ahead.note(studyUID, l.Now(), l.Config.Quiet)
	l.studies.put(studyUID, l.Now().Add(l.Config.Quiet))
}

// Again tells the line that instances were sent again which the archive has: a study that failed is tried again.
func (l *Line) Again(studyUID string) {
	records, err := l.Archive.Records(context.Background(), studyUID)
	waiting, busy := l.studies.state(studyUID)
	switch r := latest(records); {
	case err != nil:
	case r != nil && r.State == StateFailed, r == nil && !waiting && !busy:
		l.Stored(studyUID)
	}
}

// Waiting is how many studies are not complete yet, wait for a reader or for another attempt.
func (l *Line) Waiting() int { return l.studies.size() }

// study does one complete study and keeps the books around it. A failure that may pass is tried again with growing pauses.
func (l *Line) study(ctx context.Context, uid string) {
	var pause time.Duration
	var err error
	free, end, ok := l.begin(ctx, uid)
	if ok {
		l.Stats.Reading.Add(1)
		pause, err = l.process(free, uid)
		l.Stats.Reading.Add(-1)
		ok = free.Err() == nil
		end()
	}
	switch {
	case ctx.Err() != nil: // the next process goes on
	case !ok:
		pause = heldPause
	case err == nil:
		l.studies.ended(uid)
	case errors.Is(err, ErrNotFound):
		l.studies.ended(uid)
		if records, rerr := l.Archive.Records(ctx, uid); rerr == nil && len(withdrawn(records)) > 0 {
			l.Log.Info().Str("study", uid).Msg("no image of the study is left; its reading stays withdrawn")
			break
		}
		l.Log.Warn().Str("study", uid).Err(err).Msg("the study, or a file of it, is gone: it was deleted, or its disk is failing")
	case final(err):
		l.studies.ended(uid)
		l.Stats.Failed.Add(1)
		l.Log.Error().Str("study", uid).Err(err).Msg("the study could not be reported; it is tried again when it is sent again or the service starts")
	default:
		l.Stats.Failed.Add(1)
		if pause = l.studies.failed(uid, l.Now(), l.Config.GiveUp); pause > 0 {
			l.Log.Warn().Str("study", uid).Err(err).Dur("again_in", pause).Msg("the study could not be reported yet")
		} else {
			l.Log.Error().Str("study", uid).Err(err).Msg("the study is given up; it is tried again when it is sent again or the service starts")
		}
	}
	l.studies.done(uid, l.Now(), pause)
}

// process is the journey of a study: claim, read, write, store, deliver. Each step is on disk before the next begins, and a step
// that is on disk is not done again. wait is how long to wait for another process that reads the study.
func (l *Line) process(ctx context.Context, uid string) (wait time.Duration, err error) {
	completed, took := l.Now(), l.stopwatch(uid)
	st, look, err := l.open(ctx, uid)
	if err != nil {
		return 0, err
	}
	took("load")
	key := l.Steps.Key(st)
	held, release, ok, err := l.Claims.Claim(ctx, key)
	if err != nil {
		return 0, fmt.Errorf("claiming the study: %w", err)
	}
	if !ok {
		return 5 * time.Second, nil
	}
	defer release()
	records, err := l.Archive.Records(held, uid)
	if err != nil {
		return 0, err
	}
	rec, err := l.read(held, st, look, key, records, completed)
	switch {
	case err != nil || rec.Reading == nil || rec.State == StateReported:
	case rec.waits():
		rec, err = l.detain(held, rec)
	default:
		rec, err = l.report(held, st, rec, records)
	}
	switch {
	case err == nil:
		l.deliver(rec)
	case held.Err() != nil && ctx.Err() == nil:
		err = fmt.Errorf("the claim on the study was lost: %w", err)
	case held.Err() == nil:
		_, _ = l.Archive.UpdateRecord(held, uid, key, func(r *Record) { r.State, r.Error, r.Completed = StateFailed, err.Error(), completed })
	}
	return 0, err
}

// read returns the record of the study's present set of images, reading them unless that has been done.
func (l *Line) read(ctx context.Context, st *Study, look look, key string, records []Record, completed time.Time) (Record, error) {
	if i := slices.IndexFunc(records, func(r Record) bool { return r.Key == key && r.Reading != nil }); i >= 0 {
		return records[i], nil
	}
	took := l.stopwatch(st.StudyInstanceUID)
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
		return l.Archive.UpdateRecord(ctx, st.StudyInstanceUID, key, func(r *Record) {
			r.State, r.Refused, r.Error, r.Completed = StateRefused, none.Refused, "", completed
		})
	}
	if err != nil {
		return Record{}, err
	}
	reading.Revision = 1
	for _, r := range records {
		if r.Reading != nil {
			reading.Revision = max(reading.Revision, r.Reading.Revision+1)
		}
	}
	l.Stats.Read.Add(1)
	defer took("record")
	return l.Archive.UpdateRecord(ctx, st.StudyInstanceUID, key, func(r *Record) {
		r.State, r.Reading, r.Refused, r.Error, r.Completed = StateRead, reading, reading.Refused, "", completed
	})
}

// readAndShow lets the model read, and keeps the picture that it sees meanwhile.
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

// report writes the documents of a reading into the archive.
func (l *Line) report(ctx context.Context, st *Study, rec Record, records []Record) (Record, error) {
	earlier := slices.DeleteFunc(slices.Clone(records), func(r Record) bool {
		return r.Reading == nil || len(r.Documents) == 0 || r.Reading.Revision >= rec.Reading.Revision
	})
	took := l.stopwatch(st.StudyInstanceUID)
	docs, err := l.Steps.Write(st, rec.Reading, earlier)
	if err != nil {
		return rec, fmt.Errorf("writing the documents: %w", err)
	}
	took("documents")
	stored := l.Archive.PutDocuments(ctx, docs)
	took("store")
	var refs []DocumentRef
	for i, d := range docs {
		if err := stored[i]; err != nil {
			return rec, fmt.Errorf("storing document %s: %w", d.SOPInstanceUID, err)
		}
		refs = append(refs, DocumentRef{Kind: d.Kind, SeriesInstanceUID: d.SeriesInstanceUID, SOPInstanceUID: d.SOPInstanceUID, SOPClassUID: d.SOPClassUID})
	}
	reported := l.Now()
	l.Stats.LastSeconds.Store(reported.Sub(rec.Completed).Seconds())
	l.Stats.LastRunSeconds.Store(rec.Reading.RunSeconds)
	l.Log.Info().Str("study", st.StudyInstanceUID).Str("model", rec.Reading.Model.Name+" "+rec.Reading.Model.Version).
		Int("sentences", len(rec.Reading.Sentences)).Int("revision", rec.Reading.Revision).
		Dur("run", time.Duration(rec.Reading.RunSeconds*float64(time.Second))).Dur("complete_to_stored", reported.Sub(rec.Completed)).Msg("reported")
	return l.Archive.UpdateRecord(ctx, st.StudyInstanceUID, rec.Key, func(r *Record) {
		r.State, r.Documents, r.Reported, r.Error = StateReported, refs, reported, ""
		r.Deliveries = map[string]*Delivery{}
		for _, to := range l.Destinations {
			r.Deliveries[to.Name] = &Delivery{}
		}
	})
}
