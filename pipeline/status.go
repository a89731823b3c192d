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
	Record           *Record       `json:"record,omitempty"`    // the latest that holds, else the latest; when there is one
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
	s.Withdrawn, s.State = withdrawn(records), s.Life.State
	if s.State == StateReported || s.State == StateDelivered { // not an attempt that failed before, by a clock that was ahead
		records = slices.DeleteFunc(records, func(r Record) bool { return r.Reading == nil })
	}
	s.Record = latest(records)
	switch s.Life.State {
	case StateReported, StateDelivered, StateRefused: // a reading can be withdrawn later
		if s.Record == nil {
			break
		}
		s.State = s.Record.lifeState()
	}
	return s, nil
}

// latest returns the record that tells where a study stands, a withdrawn one only where there is no other; nil where there is none. Readings are counted:
// the clock may have been set back between two of them.
func latest(records []Record) *Record {
	var last *Record
	for i := range records {
		r := &records[i]
		holds := r.State != StateWithdrawn
		switch {
		case last == nil, holds && last.State == StateWithdrawn:
			last = r
		case holds != (last.State != StateWithdrawn):
		case r.Reading != nil && last.Reading != nil && r.Reading.Revision != last.Reading.Revision:
			if r.Reading.Revision > last.Reading.Revision {
				last = r
			}
		case !r.Completed.Before(last.Completed):
			last = r
		}
	}
	return last
}
