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
	GiveUp  time.Duration `yaml:"give_up"` // a delivery that still fails after this long is given up
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
	// PutDocument stores a document beside the instances of its study.
	PutDocument(ctx context.Context, d Document) error
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
	Wanted    func([]Document) []Document
	Deliver   func(context.Context, []Document) error
	Permanent func(error) bool
}

// Stats counts what the line has done since the process started.
type Stats struct {
	Read, Refused, Failed, Delivered, DeliveryErrors, DeliveriesDead atomic.Int64
	Waiting, Reading                                                 atomic.Int64
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

	mu         sync.Mutex
	due        map[string]time.Time // when the quiet time of a study ends
	reading    map[string]bool
	delivering map[string]bool
	held       map[string]int // studies that are let alone
	active     map[*activity]bool
	wake       chan struct{}
	work       sync.WaitGroup
	ctx        context.Context
}

// Run works until ctx ends; first it takes up what an earlier process left undone. It returns when the running study is either
// finished or safely put down.
func (l *Line) Run(ctx context.Context) error {
	l.mu.Lock()
	l.ctx, l.wake = ctx, make(chan struct{}, 1)
	l.due, l.reading, l.delivering = map[string]time.Time{}, map[string]bool{}, map[string]bool{}
	l.mu.Unlock()
	received, err := l.Archive.Received(ctx)
	if err != nil {
		return fmt.Errorf("looking for unfinished studies: %w", err)
	}
	for uid, at := range received {
		records, err := l.Archive.Records(ctx, uid)
		if err == nil && settled(records, at) {
			for _, r := range records {
				l.deliver(r) // what is still on its way
			}
			continue
		}
		l.wait(uid, at.Add(l.Config.Quiet))
	}
	for range l.Config.Readers {
		l.work.Go(func() {
			for {
				uid, ok := l.next(ctx)
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

// settled tells whether everything that arrived until then has been reported or refused. Such a study is left alone at a start,
// whatever model is served now: the archive's history is not read again.
func settled(records []Record, received time.Time) bool {
	for _, r := range records {
		if (r.State == StateReported || r.State == StateRefused) && !r.Completed.Before(received) {
			return true
		}
	}
	return false
}

// Stored tells the line that an instance of a study has arrived: its quiet time begins anew.
func (l *Line) Stored(studyUID string) { l.wait(studyUID, l.Now().Add(l.Config.Quiet)) }

// wait notes when a study is due. Before Run nothing needs to be noted: Run asks the archive.
func (l *Line) wait(uid string, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.due == nil {
		return
	}
	l.due[uid] = at
	l.Stats.Waiting.Store(int64(len(l.due)))
	l.poke()
}

func (l *Line) poke() {
	select {
	case l.wake <- struct{}{}:
	default: // somebody is going to look anyway
	}
}

// next blocks until a study is complete and takes it; false when ctx has ended. A study that is being read now is left until then.
func (l *Line) next(ctx context.Context) (uid string, ok bool) {
	for {
		l.mu.Lock()
		var first time.Time
		for u, at := range l.due {
			if !l.reading[u] && l.held[u] == 0 && (uid == "" || at.Before(first)) {
				uid, first = u, at
			}
		}
		pause := time.Hour
		if uid != "" {
			if pause = first.Sub(l.Now()); pause <= 0 {
				delete(l.due, uid)
				l.reading[uid] = true
				l.Stats.Waiting.Store(int64(len(l.due)))
				l.mu.Unlock()
				l.poke() // another idle reader may take the next one
				return uid, ctx.Err() == nil
			}
			uid = ""
		}
		l.mu.Unlock()
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return "", false
		case <-l.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// study does one complete study and keeps the books around it.
func (l *Line) study(ctx context.Context, uid string) {
	var retry time.Duration
	var err error
	free, end, ok := l.begin(ctx, uid)
	if ok {
		l.Stats.Reading.Add(1)
		retry, err = l.process(free, uid)
		l.Stats.Reading.Add(-1)
		ok = free.Err() == nil
		end()
	}
	l.mu.Lock()
	delete(l.reading, uid)
	due, again := l.due[uid]
	l.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		return
	case !ok: // held: looked at again afterwards
		l.wait(uid, l.Now())
		return
	case errors.Is(err, ErrNotFound): // deleted meanwhile
		return
	}
	if err != nil {
		l.Stats.Failed.Add(1)
		l.Log.Error().Str("study", uid).Err(err).Dur("again_in", retry).Msg("the study could not be reported; without a time it is tried again when it changes or the service starts")
	}
	switch {
	case again: // it changed while it was read
		l.wait(uid, due)
	case retry > 0:
		l.wait(uid, l.Now().Add(retry))
	}
}

// process is the journey of a study: claim, read, write, store, deliver. Each step is on disk before the next begins, and a step
// that is on disk is not done again. retry is how long to wait before another look; 0 is never.
func (l *Line) process(ctx context.Context, uid string) (retry time.Duration, err error) {
	completed := l.Now()
	st, err := l.Archive.Study(ctx, uid)
	if err != nil {
		return 0, err
	}
	key := l.Steps.Key(st)
	held, release, ok, err := l.Claims.Claim(ctx, key)
	if err != nil {
		return 5 * time.Second, fmt.Errorf("claiming the study: %w", err)
	}
	if !ok {
		return 5 * time.Second, nil // another process reads it
	}
	defer release()
	records, err := l.Archive.Records(held, uid)
	if err != nil {
		return 0, err
	}
	rec, err := l.read(held, st, key, records, completed)
	if err == nil && rec.Reading != nil && rec.State != StateReported {
		rec, err = l.report(held, st, rec, records)
	}
	switch {
	case err == nil:
		l.deliver(rec)
		return 0, nil
	case held.Err() != nil && ctx.Err() == nil: // the claim was lost while the study was read
		return 5 * time.Second, fmt.Errorf("the claim on the study was lost: %w", err)
	case held.Err() != nil:
		return 0, err
	case errors.Is(err, ErrFull) || errors.Is(err, ErrBusy):
		retry = time.Minute
	}
	_, _ = l.Archive.UpdateRecord(held, uid, key, func(r *Record) { r.State, r.Error, r.Completed = StateFailed, err.Error(), completed })
	return retry, err
}

// read returns the record of the study's present set of images, reading them unless that has been done.
func (l *Line) read(ctx context.Context, st *Study, key string, records []Record, completed time.Time) (Record, error) {
	if i := slices.IndexFunc(records, func(r Record) bool { return r.Key == key && r.Reading != nil }); i >= 0 {
		return records[i], nil
	}
	reading, img, err := l.Steps.Read(ctx, st, completed)
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
	png, err := l.Steps.Model.Preview(img)
	if err != nil {
		return Record{}, err
	}
	if err := l.Archive.PutPreview(ctx, st.StudyInstanceUID, key, png); err != nil {
		return Record{}, err
	}
	l.Stats.Read.Add(1)
	return l.Archive.UpdateRecord(ctx, st.StudyInstanceUID, key, func(r *Record) {
		r.State, r.Reading, r.Refused, r.Error, r.Completed = StateRead, reading, reading.Refused, "", completed
	})
}

// report writes the documents of a reading into the archive.
func (l *Line) report(ctx context.Context, st *Study, rec Record, records []Record) (Record, error) {
	earlier := slices.DeleteFunc(slices.Clone(records), func(r Record) bool {
		return r.Reading == nil || len(r.Documents) == 0 || r.Reading.Revision >= rec.Reading.Revision
	})
	docs, err := l.Steps.Write(st, rec.Reading, earlier)
	if err != nil {
		return rec, fmt.Errorf("writing the documents: %w", err)
	}
	var refs []DocumentRef
	for _, d := range docs {
		// A conflict is a document of an earlier attempt, written before an upgrade: it may have been delivered, so it stays.
		if err := l.Archive.PutDocument(ctx, d); err != nil && !errors.Is(err, ErrConflict) {
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
