package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// putDown notes that a study was not finished because the service stops, or its lease has ended; who begins with it then does not take this for a crash.
func (l *Line) putDown(uid string) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	life, err := l.Archive.Life(ctx, uid)
	if err == nil && life.State == StateReading && life.Worker == l.Worker {
		err = l.Archive.Move(ctx, life, Change{At: l.Now(), State: StateQueued, Reason: "put down: the service stopped, or was cut off from Redis", Worker: l.Worker})
	}
	if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrLost) {
		l.Log.Warn().Str("study", uid).Err(err).Msg("that a study was put down could not be noted")
	}
}

// failed says what becomes of a study that could not be begun.
func (l *Line) failed(ctx context.Context, uid string, err error) time.Time {
	if errors.Is(err, ErrNotFound) {
		if records, rerr := l.Archive.Records(ctx, uid); rerr == nil && len(withdrawn(records)) > 0 {
			l.Log.Info().Str("study", uid).Msg("no image of the study is left; its reading stays withdrawn")
			l.settle(ctx, uid, StateWithdrawn, "no image of the study is left")
			return time.Time{}
		}
		l.Log.Warn().Str("study", uid).Err(err).Msg("the study, or a file of it, is gone: it was deleted, or its disk is failing")
		l.settle(ctx, uid, StateFailed, err.Error())
		return time.Time{}
	}
	l.Log.Warn().Str("study", uid).Err(err).Msg("the study could not be begun; it is tried again")
	return l.Now().Add(5 * time.Second)
}

// settle notes how a study has ended of which nothing is here any more, unless nothing was to be done for it.
func (l *Line) settle(ctx context.Context, uid string, state State, reason string) {
	life, err := l.Archive.Life(ctx, uid)
	if err == nil && life.Open {
		err = l.Archive.Move(ctx, life, Change{At: l.Now(), State: state, Reason: reason, Worker: l.Worker})
	}
	if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrLost) {
		l.Log.Warn().Str("study", uid).Err(err).Msg("the end of the work on a study could not be noted")
	}
}

var errDied = errors.New("the process ended while the study was read: killed, out of memory, or a fault of the program")

// passes tells of an error that says nothing about the study: what is away, busy or full is so for all of them, and comes back for all.
func passes(err error) bool {
	return errors.Is(err, ErrUnavailable) || errors.Is(err, ErrBusy) || errors.Is(err, ErrFull)
}

// pauseAfter is how long a study or a delivery waits after a failed attempt: for what passes not as long as for what may be the study's own fault.
func pauseAfter(attempts int, err error) time.Duration {
	if passes(err) {
		attempts = min(attempts, 7) // about a minute
	}
	return backoff(attempts)
}

// fail notes that a study has failed, with what was read of it, and returns after how long it is tried again, 0 for never.
func (l *Line) fail(ctx context.Context, life Life, key string, rec Record, err error) (time.Duration, error) {
	uid := life.StudyInstanceUID
	l.Stats.Failed.Add(1)
	pause := pauseAfter(life.Attempts, err)
	step := Change{At: l.Now(), State: StateFailed, Reason: err.Error(), Worker: l.Worker}
	switch {
	case final(err):
		pause = 0
	case life.Attempts >= l.Config.Attempts && (!passes(err) || step.At.Sub(life.First) > l.Config.GiveUp):
		pause = 0
		step.Reason = fmt.Sprintf("given up after %d attempts: %s", life.Attempts, err)
	default:
		step.Next = step.At.Add(pause)
	}
	var uerr error
	if key == "" { // not even its images are known
		uerr = l.Archive.Move(ctx, life, step)
	} else {
		note := func(r *Record) {
			if r.State == StateReported { // it has been, whatever failed after that
				return
			}
			if rec.Reading != nil {
				r.take(rec)
			}
			r.State, r.Error, r.Completed, r.Turn = StateFailed, err.Error(), rec.Completed, max(r.Turn, rec.Turn)
		}
		if _, jerr := json.Marshal(rec.Reading); jerr != nil { // a number that is none, say, which may be what has failed
			rec.Reading = nil
		}
		_, uerr = l.Archive.UpdateRecord(ctx, life, key, note, step)
	}
	if uerr != nil {
		if !errors.Is(uerr, ErrLost) && !errors.Is(uerr, ErrNotFound) {
			l.unkept.add(rec)
		}
		l.Log.Error().Str("study", uid).Err(uerr).Msg("a failure could not be noted")
	}
	if pause == 0 {
		l.Log.Error().Str("study", uid).Err(err).Int("attempts", life.Attempts).Msg("the study is given up; it is tried again when it is sent again, or by chatxray jobs retry")
	} else {
		l.Log.Warn().Str("study", uid).Err(err).Dur("again_in", pause).Msg("the study could not be reported yet")
	}
	return pause, nil
}
