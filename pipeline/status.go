package pipeline

import (
	"context"
	"fmt"
	"slices"
)

// Status is where a study stands.
type Status struct {
	StudyInstanceUID string        `json:"study_instance_uid"`
	State            State         `json:"state"`
	Life             Life          `json:"life"`
	Record           *Record       `json:"record,omitempty"`    // the one that State is about, when there is one
	Withdrawn        []DocumentRef `json:"withdrawn,omitempty"` // documents about images that were deleted, unless somebody has deleted them too
}

// Status tells where a study stands; ErrNotFound if no instance of it is here.
func (l *Line) Status(ctx context.Context, studyUID string) (Status, error) {
	s := Status{StudyInstanceUID: studyUID}
	records, err := l.Archive.Records(ctx, studyUID)
	if err != nil {
		return s, err
	}
	if s.Life, err = l.Archive.Life(ctx, studyUID); err != nil {
		return s, fmt.Errorf("study %s: %w", studyUID, err)
	}
	s.Withdrawn, s.State, s.Record = withdrawn(records), s.Life.State, standing(s.Life.State, records)
	switch {
	case s.Record == nil:
	case s.State == StateReported, s.State == StateDelivered, s.State == StateRefused && s.Record.State == StateWithdrawn: // a reading can be withdrawn later
		s.State = s.Record.lifeState()
	}
	return s, nil
}

// standing returns the record that goes with the state of a life; nil where there is none. Of a study that is reported that is the last one whose documents
// stand: another model may have failed with these images since, and was taken back. Of one that is held it is the one that waits.
func standing(state State, records []Record) *Record {
	var want []State
	switch state {
	case StateReported, StateDelivered:
		want = []State{StateReported, StateWithdrawn}
	case StateHeld:
		want = []State{StateHeld}
	}
	for _, w := range want {
		if r := latest(slices.DeleteFunc(slices.Clone(records), func(r Record) bool { return r.State != w })); r != nil {
			return r
		}
	}
	return latest(records)
}

// latest returns the record that tells where a study stands, a withdrawn one only where there is no other; nil where there is none. They are counted: the
// clock may have been set back between two of them.
func latest(records []Record) *Record {
	var last *Record
	for i := range records {
		r := &records[i]
		holds := r.State != StateWithdrawn
		switch {
		case last == nil, holds && last.State == StateWithdrawn:
			last = r
		case holds != (last.State != StateWithdrawn):
		case r.turn() > 0 && last.turn() > 0 && r.turn() != last.turn():
			if r.turn() > last.turn() {
				last = r
			}
		case !r.Completed.Before(last.Completed):
			last = r
		}
	}
	return last
}
