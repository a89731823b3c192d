package pipeline

import (
	"cmp"
	"context"
	"fmt"
	"time"
)

// Then is what becomes of a study that lacks something after the longest wait.
type Then string

// What may become of it.
const (
	ThenRead Then = "read" // as it is
	ThenHold Then = "hold" // it waits for a person
	ThenDrop Then = "drop" // it is not read
)

// Thens lists every Then.
var Thens = [...]Then{ThenRead, ThenHold, ThenDrop}

// Completeness says what a study must have before it is read. The zero value asks for nothing but the quiet time.
type Completeness struct {
	Missing func(*Study) string // what a study lacks, in words without patient data; empty for nothing. nil: nothing is asked for
	Wait    time.Duration       // how long it waits, from its first image that no reading has seen
	Then    Then
}

// judge looks at a study that a worker has taken, unless somebody has said that it is complete. It is to be read where put is false, and reason says why. Else it was put down, for as
// long as wait says, or, where that is 0, until a person or another image comes.
func (l *Line) judge(ctx context.Context, uid string) (put bool, wait time.Duration, reason string, err error) {
	reason = l.quietReason()
	if l.Complete.Missing == nil {
		return false, 0, reason, nil
	}
	life, err := l.Archive.Life(ctx, uid)
	if err != nil || !life.Open || !life.fresh() {
		return false, 0, "", err
	}
	st, err := l.Archive.Study(ctx, uid)
	if err != nil {
		return false, 0, "", err
	}
	missing := l.Complete.Missing(st)
	if missing == "" {
		return false, 0, reason + ", and complete.requires is met", nil
	}
	if wait = life.First.Add(l.Complete.Wait).Sub(l.Now()); wait > 0 {
		l.ahead.forget(uid)
		if life.Reason != missing {
			err = l.Archive.Move(ctx, Life{StudyInstanceUID: uid}, Change{At: l.Now(), State: StateReceiving, Reason: missing, Worker: l.Worker})
		}
		return true, wait, "", err
	}
	missing = fmt.Sprintf("%s, after %v", missing, l.Complete.Wait)
	if l.Complete.Then == ThenRead {
		return false, 0, missing + "; it is read as it is", nil
	}
	l.ahead.forget(uid)
	end := Change{At: l.Now(), State: StateHeld, Reason: missing + "; it waits for a person", Worker: l.Worker}
	count := &l.Stats.Held
	if l.Complete.Then == ThenDrop {
		end.State, end.Reason, count = StateRefused, missing+"; it is not read", &l.Stats.Refused
	}
	// It is begun, so that what arrives meanwhile is seen as news.
	news := life.News
	life, _, err = l.Archive.Begin(ctx, uid, func(was Life) []Change {
		if was.News != news {
			return []Change{{At: end.At, State: StateReceiving, Reason: "another image came just now", Worker: l.Worker}}
		}
		return []Change{{At: end.At, State: StateComplete, Reason: missing, Worker: l.Worker}}
	})
	if err == nil && life.State == StateReceiving {
		return true, max(l.Config.Quiet, time.Millisecond), "", nil
	}
	if err == nil {
		err = l.Archive.Move(ctx, life, end)
	}
	if err == nil {
		count.Add(1)
		l.Log.Warn().Str("study", uid).Str("reason", end.Reason).Msg("the study is not complete")
	}
	return true, 0, "", err
}

func (l *Line) quietReason() string { return fmt.Sprintf("nothing came for %v", l.Config.Quiet) }

// Force has a study read as it is: its quiet time ends, and what it lacks is not waited for. by is who wants it, empty where nobody is known. What else
// is taken up again, and errors, are Retry's of a reading.
func (l *Line) Force(ctx context.Context, study, by string) error {
	reason := askedFor(by)
	life, err := l.Archive.Life(ctx, study)
	if err != nil {
		return err
	}
	if life.State != StateReceiving {
		return l.retry(ctx, study, reason)
	}
	return l.takeUp(ctx, life, reason)
}

func askedFor(by string) string { return "asked for by " + cmp.Or(by, "a person") }

// takeUp has a study read now, as it is.
func (l *Line) takeUp(ctx context.Context, life Life, reason string) error {
	now := l.Now()
	for _, c := range []Change{
		{At: now, State: StateReceiving, Reason: reason, Worker: l.Worker}, // attempts are counted anew
		{At: now, State: StateComplete, Reason: reason, Worker: l.Worker},
		{At: now, State: StateQueued, Worker: l.Worker},
	} {
		if c.State == StateReceiving && life.State == StateReceiving {
			continue
		}
		if err := l.Archive.Move(ctx, life, c); err != nil {
			return err
		}
	}
	l.arrivals.put(life.StudyInstanceUID, now)
	return nil
}
