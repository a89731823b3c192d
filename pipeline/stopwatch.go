package pipeline

// stopwatch returns a function that logs, at the level debug, how long a step of a study took: since the one before it.
func (l *Line) stopwatch(studyUID string) (took func(step string)) {
	last := l.Now()
	return func(step string) {
		now := l.Now()
		l.Log.Debug().Str("study", studyUID).Str("step", step).Dur("took", now.Sub(last)).Msg("step")
		last = now
	}
}
