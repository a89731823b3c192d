package pipeline

import "slices"

// Urgent tells whether an image was ordered as urgent: Requested Procedure Priority is STAT or HIGH.
func (d Dataset) Urgent() bool { return d.Lane() == LaneUrgent }

// priority tells whether Requested Procedure Priority (PS3.3 section C.4.11) is one of words, in the header or in its Request Attributes, where
// modalities that take it over from the worklist put it.
func (d Dataset) priority(words ...string) bool {
	says := func(d Dataset) bool {
		return slices.ContainsFunc(d.Strings(TagRequestedProcedurePriority), func(s string) bool { return slices.Contains(words, s) })
	}
	e, _ := d.Get(TagRequestAttributesSequence)
	return says(d) || slices.ContainsFunc(e.Items, says)
}

// Lane is where the study of an image waits: LOW as the priority says that it has time.
func (d Dataset) Lane() Lane {
	switch {
	case d.priority("STAT", "HIGH"):
		return LaneUrgent
	case d.priority("LOW"):
		return LaneOffPeak
	}
	return LaneRoutine
}
