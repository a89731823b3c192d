package chaos

import (
	"slices"
	"testing"
	"time"
)

const (
	parallel = 4 // deliveries of a working process at the same time
	perSet   = 2 // documents of a set of results
	// patience is how long the service waits for an answer of its destination, and promptly an answer that it cannot have missed for that.
	patience = 3 * time.Second
	promptly = 2500 * time.Millisecond
)

// storing is one time that Orthanc was given a document and had it.
type storing struct {
	came  time.Time
	ended time.Time // when the answer was written, or who had asked was gone
	sure  bool      // the answer said so and could be read
}

// repeats are, for each storing that was one too many, the one before it after which nothing more had to come: it was answered, or still under way. What breaks off, or is answered
// too late, is delivered again and counts for nothing.
func repeats(all []storing) (before []storing) {
	slices.SortStableFunc(all, func(a, b storing) int { return a.came.Compare(b.came) })
	for i, s := range all {
		for _, b := range slices.Backward(all[:i]) {
			if b.sure || b.ended.After(s.came) {
				before = append(before, b)
				break
			}
		}
	}
	return before
}

// parting is a fault that may part a worker from what it delivers, before it has noted that: it is killed, or another one is given the same.
type parting struct {
	from, to time.Time
	most     int // documents that may be delivered again for it
}

// parted tells whether a storing was near such a fault.
func parted(s storing, all []parting) bool {
	return slices.ContainsFunc(all, func(p parting) bool { return !s.ended.Before(p.from) && !s.came.After(p.to) })
}

// unexplained counts the repeats of a document that have no cause, of which so many deliveries could not be noted, and those that faults explain.
func unexplained(all []storing, unnoted int, partings []parting) (without, byFault int) {
	for _, b := range repeats(all) {
		switch {
		case unnoted > 0:
			unnoted--
		case parted(b, partings):
			byFault++
		default:
			without++
		}
	}
	return without, byFault
}

// compareDeliveries looks for a cause of each delivery that was repeated though it had been answered.
func (r *run) compareDeliveries(st *study, v *verdict, fail func(*int, string, ...any)) {
	for sop, all := range r.receiver.of(st.uid) {
		v.redelivered += len(all) - 1
		without, byFault := unexplained(all, r.accounts[st.uid].unnoted, r.partings)
		v.parted += byFault
		if without > 0 {
			fail(&v.duplicate, "the receiver was given document %s %d times; %d times it had answered before and nothing had happened that could keep this from being noted: %s", sop, len(all), without, times(all))
		}
	}
}

func times(all []storing) (s string) {
	for _, x := range all {
		s += x.came.Format("15:04:05.000") + " to " + x.ended.Format("05.000")
		if x.sure {
			s += " answered"
		}
		s += "; "
	}
	return s
}

func TestRepeatedDeliveries(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(from, to float64, sure bool) storing {
		return storing{start.Add(time.Duration(from * float64(time.Second))), start.Add(time.Duration(to * float64(time.Second))), sure}
	}
	killed := []parting{{start.Add(9 * time.Second), start.Add(10 * time.Second), perSet}}
	for name, x := range map[string]struct {
		all              []storing
		unnoted          int
		partings         []parting
		without, byFault int
	}{
		"once":                                  {[]storing{at(0, 1, true)}, 0, nil, 0, 0},
		"twice":                                 {[]storing{at(0, 1, true), at(2, 3, true)}, 0, nil, 1, 0},
		"twice at once":                         {[]storing{at(0, 1, false), at(0.5, 1.5, true)}, 0, nil, 1, 0},
		"thrice":                                {[]storing{at(0, 1, true), at(2, 3, true), at(4, 5, true)}, 0, nil, 2, 0},
		"again after it broke off":              {[]storing{at(0, 1, false), at(2, 3, false), at(4, 5, true)}, 0, nil, 0, 0},
		"again after an answer and a break":     {[]storing{at(0, 1, true), at(2, 3, false), at(4, 5, true)}, 0, nil, 2, 0},
		"again as it could not be noted":        {[]storing{at(0, 1, true), at(2, 3, true)}, 1, nil, 0, 0},
		"more often than it was not noted":      {[]storing{at(0, 1, true), at(2, 3, true), at(4, 5, true)}, 1, nil, 1, 0},
		"killed after the answer":               {[]storing{at(9, 9.5, true), at(12, 13, true)}, 0, killed, 0, 1},
		"killed long after the answer":          {[]storing{at(1, 2, true), at(12, 13, true)}, 0, killed, 1, 0},
		"answered after the kill":               {[]storing{at(11, 12, true), at(13, 14, true)}, 0, killed, 1, 0},
		"in the order of coming, not of ending": {[]storing{at(4, 5, true), at(0, 1, false)}, 0, nil, 0, 0},
	} {
		if without, byFault := unexplained(x.all, x.unnoted, x.partings); without != x.without || byFault != x.byFault {
			t.Errorf("%s: %d without a cause and %d by a fault, want %d and %d", name, without, byFault, x.without, x.byFault)
		}
	}
}
