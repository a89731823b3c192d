package pipeline

import (
	"context"
	"errors"
	"sync"
	"time"
)

// maxLead is how long before the end of its quiet time a study is looked at, at most: long enough for the slowest codec, and no longer
// than needed, because the image is in memory from then on.
const maxLead = 5 * time.Second

// maxAhead is how long what was done ahead is kept for a reader of this process.
const maxAhead = 2 * time.Minute

// look finds the image of a study that is to be read.
type look func(context.Context) (*Sight, error)

// ahead does the first steps of studies while their quiet time is still running, or while they wait for a reader: it loads a study and
// decodes its image. Another instance of the study makes all of that void. There is never more than one image for each reader.
type ahead struct {
	mu    sync.Mutex
	early map[string]*early // by Study Instance UID
	wake  chan struct{}
}

// early is what was done for a study ahead of its time.
type early struct {
	begin time.Time
	due   time.Time     // when its quiet time ends
	done  chan struct{} // nil until the work begins, closed at its end
	study *Study        // nil where nothing came of it
	news  int64         // what had arrived of it then, as its life counts
	seen  *Sight
	err   error // a *NoImageError
}

// note plans to look at a study whose quiet time begins now: as late as half of it is over, so that a study that arrives piece by piece
// is not looked at for each of them. What has been done for it is void.
func (a *ahead) note(studyUID string, now time.Time, quiet time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if lead := min(quiet/2, maxLead); a.early != nil && lead > 0 {
		a.early[studyUID] = &early{begin: now.Add(quiet - lead), due: now.Add(quiet)}
		a.poke()
	}
}

func (a *ahead) poke() {
	select {
	case a.wake <- struct{}{}:
	default: // it is going to look anyway
	}
}

// forget makes what was done for a study void.
func (a *ahead) forget(studyUID string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.early, studyUID)
	a.poke()
}

// take returns what was done for a study, nil for nothing. It waits for work that is under way.
func (a *ahead) take(ctx context.Context, studyUID string) *early {
	a.mu.Lock()
	e := a.early[studyUID]
	if e != nil {
		delete(a.early, studyUID)
		a.poke()
	}
	a.mu.Unlock()
	if e == nil || e.done == nil {
		return nil
	}
	select {
	case <-e.done:
	case <-ctx.Done():
		return nil
	}
	if e.study == nil {
		return nil
	}
	return e
}

// next begins with the study whose time came first, if there is room for its image. Otherwise it says when to look again.
func (a *ahead) next(now time.Time, room int) (studyUID string, e *early, pause time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for uid, x := range a.early {
		if now.Sub(x.due) > maxAhead { // another process has it
			delete(a.early, uid)
		} else if x.done != nil {
			room--
		} else if e == nil || x.begin.Before(e.begin) {
			studyUID, e = uid, x
		}
	}
	if e == nil || room <= 0 {
		return "", nil, maxAhead
	}
	if pause = e.begin.Sub(now); pause > 0 {
		return "", nil, pause
	}
	e.done = make(chan struct{})
	return studyUID, e, 0
}

// lookAhead works ahead of the readers until ctx ends.
func (l *Line) lookAhead(ctx context.Context) {
	a := &l.ahead
	a.mu.Lock()
	a.early, a.wake = map[string]*early{}, make(chan struct{}, 1)
	a.mu.Unlock()
	for ctx.Err() == nil {
		uid, e, pause := a.next(l.Now(), l.Config.Readers)
		if e != nil {
			l.lookAt(ctx, uid, e)
			close(e.done)
			continue
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-a.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// lookAt loads a study and decodes its image. What is wrong with the study is kept; where something else fails nothing is, and the
// reader tries again.
func (l *Line) lookAt(ctx context.Context, uid string, e *early) {
	took := l.stopwatch(uid)
	life, err := l.Archive.Life(ctx, uid)
	if err != nil {
		return
	}
	st, err := l.Archive.Study(ctx, uid)
	took("load ahead")
	if err != nil {
		return
	}
	seen, err := l.Steps.Look(ctx, st)
	took("decode ahead")
	if none := (*NoImageError)(nil); err == nil || errors.As(err, &none) {
		e.study, e.news, e.seen, e.err = st, life.News, seen, err
	}
}

// open returns a study and the way to look at it: at what was found ahead, unless more has arrived since, here or at another process; or else at what is
// there now.
func (l *Line) open(ctx context.Context, life Life) (*Study, look, error) {
	uid := life.StudyInstanceUID
	if e := l.ahead.take(ctx, uid); e != nil && e.news == life.News {
		return e.study, func(context.Context) (*Sight, error) { return e.seen, e.err }, nil
	}
	st, err := l.Archive.Study(ctx, uid)
	return st, func(ctx context.Context) (*Sight, error) { return l.Steps.Look(ctx, st) }, err
}
