package pipeline

import (
	"cmp"
	"context"
	"fmt"
	"slices"
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
	Dead             bool      `json:"dead,omitempty"` // given up or dropped: nothing is done until a person asks for it
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
			t := Task{StudyInstanceUID: study, Destination: to, State: r.State, Since: r.Reported, Attempts: d.Attempts, Next: d.Next, Delivered: d.Delivered, Dead: d.Dead,
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

// RetryDelivery takes up the deliveries of a study to a destination that were given up, or wait for another attempt.
func (l *Line) RetryDelivery(ctx context.Context, study, to string) error {
	return l.change(ctx, study, to, "was given up, or waits for another attempt", func(d *Delivery) bool {
		if !d.Dead && d.Next.IsZero() {
			return false
		}
		*d = Delivery{}
		return true
	})
}

// Drop gives up what is not done of a study: its reading, or, with a destination, the deliveries there. What is being done is stopped; nothing that
// was stored is lost.
func (l *Line) Drop(ctx context.Context, study, to string) error {
	release := l.Hold(study)
	defer release()
	if to != "" {
		return l.change(ctx, study, to, "is on its way", func(d *Delivery) bool {
			if d.Dead {
				return false
			}
			d.Dead, d.Error = true, cmp.Or(d.Error, "dropped by a person")
			return true
		})
	}
	life, err := l.Archive.Life(ctx, study)
	if err != nil {
		return err
	}
	if !life.Open {
		return fmt.Errorf("%w: study %s is %s; nothing of it waits to be read", ErrConflict, study, life.State)
	}
	if err := l.Archive.Move(ctx, Life{StudyInstanceUID: study}, Change{At: l.Now(), State: StateHeld, Reason: "dropped by a person", Worker: l.Worker}); err != nil {
		return err
	}
	_ = l.Studies.Drop(ctx, study) // else the queue finds that nothing is to be done
	return nil
}

// change changes the deliveries of a study to a destination that are not done.
func (l *Line) change(ctx context.Context, study, to, what string, change func(*Delivery) bool) error {
	tasks, err := l.StudyTasks(ctx, study)
	if err != nil {
		return err
	}
	changed := false
	for _, t := range tasks {
		if t.Destination != to {
			continue
		}
		rec, err := l.Archive.UpdateRecord(ctx, Life{StudyInstanceUID: study}, t.key, func(r *Record) {
			if d := r.Deliveries[to]; d != nil && d.Delivered.IsZero() {
				changed = change(d) || changed
			}
		})
		if err != nil {
			return err
		}
		l.deliver(ctx, rec)
	}
	if !changed {
		return fmt.Errorf("%w: no delivery of study %s to %q %s", ErrConflict, study, to, what)
	}
	return nil
}
