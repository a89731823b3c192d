package pipeline

import "slices"

// Urgent tells whether an image was ordered as urgent: Requested Procedure Priority (PS3.3 section C.4.11) is STAT or HIGH, in the header or in its
// Request Attributes, where modalities that take it over from the worklist put it.
func (d Dataset) Urgent() bool {
	urgent := func(d Dataset) bool {
		return slices.ContainsFunc(d.Strings(TagRequestedProcedurePriority), func(s string) bool { return s == "STAT" || s == "HIGH" })
	}
	e, _ := d.Get(TagRequestAttributesSequence)
	return urgent(d) || slices.ContainsFunc(e.Items, urgent)
}

// Urgent tells whether an image of the study was ordered as urgent.
func (s *Study) Urgent() bool {
	return slices.ContainsFunc(s.Instances, func(in *Instance) bool { return in.Header.Urgent() })
}
