package pipeline

import (
	"context"
	"slices"
	"time"
)

// Lane is one of the ways on which work waits. Each has its head start: what waits in a later lane is taken first when it has waited
// longer by more than that, so that nothing starves.
type Lane string

// The lanes, the first served first.
const (
	LaneUrgent  Lane = "urgent"
	LaneRoutine Lane = "routine"
	LaneOffPeak Lane = "off-peak" // only within the hours that the configuration names
)

// Lanes lists all lanes in their order.
var Lanes = [...]Lane{LaneUrgent, LaneRoutine, LaneOffPeak}

// Number counts the lanes in their order from 1; what is no lane counts as LaneRoutine.
func (l Lane) Number() int {
	if i := slices.Index(Lanes[:], l); i >= 0 {
		return i + 1
	}
	return 2
}

// Job is a piece of work by its name: a study that is to be read, or a record that is to be delivered. What is to be done, and how often
// it has been tried, is known by the archive; a job that is lost costs nothing but the time until it is found missing.
type Job struct {
	Name string
	Lane Lane
	Due  time.Time
}

// Queue gives out jobs when they are due, each to one worker of all that share it. jobs has it.
type Queue interface {
	// Put adds a job, or moves one that waits. What somebody works on is due again after that.
	Put(ctx context.Context, j Job) error
	// Restore adds those jobs that the queue does not have, and changes no other.
	Restore(ctx context.Context, all []Job) error
	// Take waits until a job is due and takes it. The error is ctx's at its end, else one of the queue, which is tried again later.
	Take(ctx context.Context) (Lease, error)
	// Drop forgets a job; whoever works on it loses its lease.
	Drop(ctx context.Context, name string) error
	// Size is how many jobs wait in each lane, those that are not due yet included, and how many are being worked on.
	Size(ctx context.Context) (waiting map[Lane]int, taken int, err error)
	// Emptied tells, once, that the queue has lost what it had: the server is new, or was emptied.
	Emptied(ctx context.Context) (bool, error)
}

// Lease is a job in the hands of one worker. It is renewed until it is given back.
type Lease interface {
	Job() Job
	// Since is when the job came into its lane.
	Since() time.Time
	// Asked is when the queue was asked for it and had it.
	Asked() time.Time
	// Held ends when the lease is given back or lost: the worker was away for too long, and somebody else has the job now.
	Held() context.Context
	// Done gives the job back; it is due again at a time, never where that is zero, unless it was put meanwhile.
	Done(ctx context.Context, again time.Time) error
}
