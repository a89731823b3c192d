package pipeline

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Task is work: a study that is to be read, or the delivery of its documents to a destination.
type Task struct {
	StudyInstanceUID string    `json:"study_instance_uid"`
	Destination      string    `json:"destination,omitempty"` // empty: the study is to be read
	State            State     `json:"state"`                 // of the study
	Lane             Lane      `json:"lane,omitempty"`
	Since            time.Time `json:"since"`
	Attempts         int       `json:"attempts"`
	Next             time.Time `json:"next,omitzero"` // of what failed: when it is tried again
	Delivered        time.Time `json:"delivered,omitzero"`
	Dead             bool      `json:"dead,omitempty"`    // given up or dropped: nothing is done until a person asks for it
	GivenUp          time.Time `json:"given_up,omitzero"` // of a delivery: when
	Reason           string    `json:"reason,omitempty"`
	Answer           string    `json:"answer,omitempty"` // Delivery.Answer
	Worker           string    `json:"worker,omitempty"`

	key string // of the record that is delivered
}

// Tasks lists what is not done of the studies behind a UID, of up to most of them and in the order of their UIDs; next is the last one looked at,
// empty when there are no more.
func (l *Line) Tasks(ctx context.Context, after string, most int) (tasks []Task, next string, err error) {
	studies, err := l.Archive.Undone(ctx, after, most)
	if err != nil {
		return nil, "", err
	}
	for _, study := range studies {
		some, err := l.StudyTasks(ctx, study)
		if err != nil {
			return nil, "", err
		}
		tasks = append(tasks, some...)
	}
	if len(studies) == most {
		next = studies[most-1]
	}
	return tasks, next, nil
}

// StudyTasks lists what is not done of a study.
func (l *Line) StudyTasks(ctx context.Context, study string) (tasks []Task, err error) {
	life, err := l.Archive.Life(ctx, study)
	if err != nil {
		return nil, err
	}
	dead := life.State == StateHeld || life.State == StateFailed && life.Next.IsZero()
	if life.Open || dead {
		tasks = append(tasks, Task{StudyInstanceUID: study, State: life.State, Lane: life.Lane, Since: life.At, Attempts: life.Attempts, Next: life.Next,
			Dead: dead && !life.Open, Reason: life.Reason, Worker: life.Worker})
	}
	deliveries, err := l.Deliveries(ctx, study)
	return append(tasks, slices.DeleteFunc(deliveries, func(t Task) bool { return !t.Delivered.IsZero() })...), err
}

// Deliveries lists the deliveries of a study, those that are done too.
func (l *Line) Deliveries(ctx context.Context, study string) (tasks []Task, err error) {
	if _, err := l.Archive.Life(ctx, study); err != nil {
		return nil, err
	}
	records, err := l.Archive.Records(ctx, study)
	for _, r := range records {
		for to, d := range r.Deliveries {
			if r.State != StateReported {
				continue
			}
			t := Task{StudyInstanceUID: study, Destination: to, State: r.State, Since: r.Reported, Attempts: d.Attempts, Next: d.Next, Delivered: d.Delivered, Dead: d.Dead, GivenUp: d.GivenUp,
				Reason: d.Error, Answer: d.Answer, key: r.Key}
			if !slices.ContainsFunc(l.Destinations, func(x Destination) bool { return x.Name == to }) && d.Delivered.IsZero() && !d.Dead {
				t.Reason = "the configuration has no destination of this name any more"
			}
			tasks = append(tasks, t)
		}
	}
	slices.SortFunc(tasks, func(a, b Task) int {
		return cmp.Or(cmp.Compare(a.Destination, b.Destination), a.Since.Compare(b.Since))
	})
	return tasks, err
}

// DestinationStates tells how each destination answers.
func (l *Line) DestinationStates(ctx context.Context) (all []DestinationState) {
	for _, to := range l.Destinations {
		s := DestinationState{Name: to.Name}
		if to.Answers != nil {
			s = to.Answers()
		}
		lanes, taken, err := to.Queue.Size(ctx)
		s.Queued = taken
		for _, n := range lanes {
			s.Queued += n
		}
		if err != nil {
			s.Queued = -1
		}
		all = append(all, s)
	}
	return all
}

// Retry takes up what is not done of a study: its reading, if that has failed, was refused or is held, or, with a destination, the deliveries there that were given
// up or wait for another attempt. by is who wants it, empty where nobody is known. ErrConflict where there is no such thing, ErrNotFound where the study or the
// destination is not known.
func (l *Line) Retry(ctx context.Context, study, to, by string) error {
	if to == "" {
		return l.retry(ctx, study, askedFor(by))
	}
	if err := l.destination(to); err != nil {
		return err
	}
	return l.change(ctx, study, to, "was given up, or waits for another attempt", func(t Task) (func(*Delivery), []Change) {
		if !t.Dead && t.Next.IsZero() {
			return nil, nil
		}
		var steps []Change
		if t.Dead {
			steps = []Change{{At: l.Now(), Reason: "the delivery to " + to + " is taken up again, " + askedFor(by), Worker: l.Worker}}
		}
		return func(d *Delivery) { *d = Delivery{} }, steps
	})
}

// Drop gives up what is not done of a study: its reading, or, with a destination, the deliveries there. What is being done is stopped; nothing that
// was stored is lost. by and errors are Retry's.
func (l *Line) Drop(ctx context.Context, study, to, by string) error {
	reason := "dropped by " + cmp.Or(by, "a person")
	release := l.Hold(study)
	defer release()
	if to != "" {
		return l.change(ctx, study, to, "is on its way", func(t Task) (func(*Delivery), []Change) {
			if t.Dead {
				return nil, nil
			}
			said := reason
			if t.Reason != "" {
				said += "; before that: " + t.Reason
			}
			step := l.gaveUp(to, said)
			return func(d *Delivery) { d.Dead, d.GivenUp, d.Error, d.Next = true, step.At, said, time.Time{} }, []Change{step}
		})
	}
	life, err := l.Archive.Life(ctx, study)
	if err != nil {
		return err
	}
	if !life.Open {
		return fmt.Errorf("%w: study %s is %s; nothing of it waits to be read", ErrConflict, study, life.State)
	}
	if err := l.Archive.Move(ctx, Life{StudyInstanceUID: study}, Change{At: l.Now(), State: StateHeld, Reason: reason, Worker: l.Worker}); err != nil {
		return err
	}
	_ = l.Studies.Drop(ctx, study) // else the queue finds that nothing is to be done
	return nil
}

// gaveUp is the step that tells that a delivery is given up.
func (l *Line) gaveUp(to, reason string) Change {
	return Change{At: l.Now(), Reason: "the delivery to " + to + " is given up: " + reason, Worker: l.Worker, GivenUp: to}
}

// change changes the deliveries of a study to a destination that are not done, and notes steps beside; how says what it does to one, nil for nothing.
func (l *Line) change(ctx context.Context, study, to, what string, how func(Task) (func(*Delivery), []Change)) error {
	tasks, err := l.StudyTasks(ctx, study)
	if err != nil {
		return err
	}
	known, changed := l.destination(to), false
	for _, t := range tasks {
		if t.Destination != to {
			continue
		}
		known = nil
		change, steps := how(t)
		if change == nil {
			continue
		}
		rec, err := l.Archive.UpdateRecord(ctx, Life{StudyInstanceUID: study}, t.key, func(r *Record) {
			if d := r.Deliveries[to]; d != nil && d.Delivered.IsZero() {
				change(d)
				changed = true
			}
		}, steps...)
		if err != nil {
			return err
		}
		l.deliver(ctx, rec)
	}
	switch {
	case known != nil:
		return known
	case !changed:
		return fmt.Errorf("%w: no delivery of study %s to %q %s", ErrConflict, study, to, what)
	}
	return nil
}

// destination is an ErrNotFound, with the names that there are, where the configuration has no destination of a name.
func (l *Line) destination(name string) error {
	var names []string
	for _, d := range l.Destinations {
		names = append(names, d.Name)
	}
	if slices.Contains(names, name) {
		return nil
	}
	return NoDestination(name, names)
}

// NoDestination is an ErrNotFound with the names that there are.
func NoDestination(name string, there []string) error {
	return fmt.Errorf("%w: there is no destination %q; the configuration names %s", ErrNotFound, name, cmp.Or(strings.Join(there, ", "), "none"))
}
