package pipeline

import (
	"errors"
	"time"
)

// The states of a study that has no finished record yet, and those that end its life until something new comes.
const (
	StateReceiving State = "receiving" // instances arrive, or its quiet time is not over
	StateComplete  State = "complete"  // nothing came for the quiet time
	StateQueued    State = "queued"    // waits for a worker
	StateReading   State = "reading"
	StateDelivered State = "delivered" // every destination has the documents
)

// States lists every state of a study's life.
var States = []State{StateReceiving, StateComplete, StateQueued, StateReading, StateReported, StateDelivered, StateRefused, StateWithdrawn, StateHeld, StateFailed}

// ErrLost says that the work on a study has been given to another worker meanwhile: nothing was written.
var ErrLost = errors.New("the work was taken over by another worker")

// Change is one step of a study's life. One without a State leaves the life where it stands, and is noted with that.
type Change struct {
	At     time.Time `json:"at"`
	State  State     `json:"state"`
	Reason string    `json:"reason,omitempty"` // why, in words without patient data
	Worker string    `json:"worker,omitempty"` // which process did it
	Next   time.Time `json:"next,omitzero"`    // of a failure: when it is tried again; zero for never
	// GivenUp is the destination of a delivery that was given up then, of which the step tells.
	GivenUp string `json:"-"`
}

// Settles tells whether nothing is to be done for a study after the change until something new comes.
func (c Change) Settles() bool {
	switch c.State {
	case StateReceiving, StateComplete, StateQueued, StateReading:
		return false
	case StateFailed:
		return c.Next.IsZero()
	}
	return true
}

// Applies tells whether a step is noted beside a change of a record of a life as it is now: that a study is delivered is noted with its last delivery, and
// not while something is to be done for the study, which then begins anew; that a delivery is given up, if it is.
func (c Change) Applies(now Life, r Record) bool {
	if c.GivenUp != "" {
		d := r.Deliveries[c.GivenUp]
		return d != nil && d.Dead && d.GivenUp.Equal(c.At)
	}
	return c.State != StateDelivered || now.State == StateReported && !now.Open && r.lifeState() == StateDelivered
}

// Life is where a study stands: one row of the archive's index, changed step by step, durably.
type Life struct {
	StudyInstanceUID string    `json:"study_instance_uid"`
	Change                     // the last
	Received         time.Time `json:"received"`           // when the last instance from outside arrived
	First            time.Time `json:"first"`              // when the first one did of those that no reading has seen
	Attempts         int       `json:"attempts,omitempty"` // workers that have begun since something new came
	Lane             Lane      `json:"lane"`               // in which it waits: the first of those that its images ask for
	// Fence grows with every worker that begins; who has an older one writes nothing any more.
	Fence int64 `json:"-"`
	News  int64 `json:"-"` // counts what has arrived
	Open  bool  `json:"-"` // something is to be done
}

// fresh tells whether nobody has said yet that the study is complete with what has arrived.
func (l Life) fresh() bool {
	return l.State != StateQueued && l.State != StateReading && l.State != StateFailed
}
