package pipeline

import "time"

// State is how far a study has come.
type State string

// The states of a record, in order.
const (
	StateRead      State = "read"      // was read, or released: its documents are not written yet
	StateHeld      State = "held"      // waits for a person: a record for its report to be released (Reading.Held says why), a life for what Reason says
	StateReported  State = "reported"  // the documents are in the archive
	StateRefused   State = "refused"   // no image of the study can be read
	StateWithdrawn State = "withdrawn" // reported once, but an image that the Reading is about was deleted
	StateFailed    State = "failed"    // Error says why; tried again later if it may pass, and when the study is sent again
)

// DocumentRef names a stored document.
type DocumentRef struct {
	Kind              DocumentKind `json:"kind"`
	SeriesInstanceUID string       `json:"series_instance_uid"`
	SOPInstanceUID    string       `json:"sop_instance_uid"`
	SOPClassUID       string       `json:"sop_class_uid"`
}

// Delivery is what happened to the documents of a record at one destination.
type Delivery struct {
	Delivered time.Time `json:"delivered,omitzero"`
	Attempts  int       `json:"attempts"`
	Failing   time.Time `json:"failing,omitzero"` // since when it fails for what is about these documents
	Next      time.Time `json:"next,omitzero"`    // of one that failed: not before then it is tried again
	Error     string    `json:"error,omitempty"`  // of the last attempt that failed
	// Answer is how the destination worded its last refusal, shortened. It may repeat what the documents say, so it goes into no log.
	Answer string `json:"answer,omitempty"`
	Dead   bool   `json:"dead,omitempty"` // given up
	// GivenUp is when it was given up, or dropped by a person.
	GivenUp time.Time `json:"given_up,omitzero"`
}

// DestinationState tells how a destination answers.
type DestinationState struct {
	Name   string    `json:"name"`
	Kind   string    `json:"kind"`
	Away   bool      `json:"away"`             // it does not answer: one delivery at a time tries whether it does again
	Since  time.Time `json:"since,omitzero"`   // when it went away
	Reason string    `json:"reason,omitempty"` // why it is taken to be away
	Queued int       `json:"queued"`           // deliveries that wait; -1 where Redis does not answer
}

// Record is all that the line keeps of one reading of one study: rewritten at each step. It is what a restart
// goes on from.
type Record struct {
	Key              string               `json:"key"`
	StudyInstanceUID string               `json:"study_instance_uid"`
	State            State                `json:"state"`
	Error            string               `json:"error,omitempty"`
	Refused          []Refusal            `json:"refused,omitempty"`
	Reading          *Reading             `json:"reading,omitempty"`
	Documents        []DocumentRef        `json:"documents,omitempty"`
	Deliveries       map[string]*Delivery `json:"deliveries,omitempty"` // by destination
	Completed        time.Time            `json:"completed"`            // when the study was taken as complete
	Reported         time.Time            `json:"reported,omitzero"`    // when its documents were on disk
	Released         time.Time            `json:"released,omitzero"`    // when a person let a held Reading go
	ReleasedBy       string               `json:"released_by,omitempty"`
	// Turn orders the records of a study: the one that the line came to last has the highest. 0: it goes by its Revision.
	Turn int `json:"turn,omitempty"`
}

// turn is the place of a record among those of its study; 0 where only its time tells.
func (r *Record) turn() int {
	if r.Reading != nil {
		return max(r.Turn, r.Reading.Revision)
	}
	return r.Turn
}

// comesLast puts a record behind the others of its study, and tells whether it was not there.
func (r *Record) comesLast(all []Record) (moved bool) {
	for i := range all {
		if o := &all[i]; o.Key != r.Key && o.turn() >= r.turn() {
			r.Turn, moved = o.turn()+1, true
		}
	}
	return moved
}

// nextRevision is that of a reading that is made now.
func nextRevision(all []Record) int {
	next := 1
	for _, r := range all {
		if r.Reading != nil {
			next = max(next, r.Reading.Revision+1)
		}
	}
	return next
}

// Settled returns the record that says that everything which arrived until then has been reported or refused; nil for none. Such a study
// is left alone, whatever model is served now: the archive's history is not read again.
func Settled(records []Record, received time.Time) *Record {
	for i := range records {
		r := &records[i]
		if (r.State == StateReported || r.State == StateRefused) && !r.Completed.Before(received) {
			return r
		}
	}
	return nil
}
