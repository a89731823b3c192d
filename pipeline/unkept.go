package pipeline

import (
	"context"
	"errors"
	"sync"
)

// unkept are readings whose documents could not be stored and that the archive could not take note of either, because its index is away or its disk is
// full, say: a reading costs minutes where there is no GPU. The next attempt of this process reports them.
type unkept struct {
	mu   sync.Mutex
	read map[string]Record // by study
}

// mostUnkept bounds what is remembered. Beyond it a study may be read again.
const mostUnkept = 64

// add remembers what was read and is in no index.
func (u *unkept) add(rec Record) {
	if rec.Reading == nil || rec.State != StateRead || !rec.Released.IsZero() { // what a person has released is in the index
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.read == nil {
		u.read = map[string]Record{}
	}
	for other := range u.read {
		if len(u.read) < mostUnkept {
			break
		}
		delete(u.read, other)
	}
	u.read[rec.StudyInstanceUID] = rec
}

// take forgets what was read of a study, and returns it where it is still of these images and this model.
func (u *unkept) take(study, key string) (rec Record, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	rec, ok = u.read[study]
	delete(u.read, study)
	return rec, ok && rec.Key == key
}

func (u *unkept) forget(study string) { u.take(study, "") }

func (u *unkept) studies() (all []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for study := range u.read {
		all = append(all, study)
	}
	return all
}

// sweep forgets what was read of studies that are deleted, or that another worker has finished.
func (l *Line) sweep(ctx context.Context) {
	for _, study := range l.unkept.studies() {
		if life, err := l.Archive.Life(ctx, study); err == nil && !life.Open || errors.Is(err, ErrNotFound) {
			l.unkept.forget(study)
		}
	}
}
