package modelrt

import (
	"fmt"
	"slices"

	"chatxray/pipeline"
)

// rank notes the places of the sentences by how much they rest on the image; equal ones share a place.
func rank(sentences []pipeline.Sentence) {
	for i := range sentences {
		e := &sentences[i].Evidence
		e.Rank = 1
		for _, o := range sentences {
			if o.Evidence.Drop > e.Drop {
				e.Rank++
			}
		}
	}
}

// rules flag sentences, and say what becomes of them. The zero value flags none.
type rules struct {
	check  func(r *pipeline.Reading, header pipeline.Dataset) [][]pipeline.Flag
	policy Policy
}

// judge flags the sentences of a reading and does with them what the policy wants; findings labels what is left. A report is held in place of
// dropping sentences where all are flagged, so that nothing would be left, and where it was written as a form, which would still quote them.
func (j rules) judge(r *pipeline.Reading, header pipeline.Dataset, findings func(left []pipeline.Sentence) ([]pipeline.Finding, error)) (err error) {
	if j.check == nil {
		return nil
	}
	flagged := 0
	for i, flags := range j.check(r, header) {
		r.Sentences[i].Flags = flags
		flagged += min(1, len(flags))
	}
	switch {
	case flagged == 0:
	case j.policy == Hold || j.policy == Drop && (flagged == len(r.Sentences) || r.Structured != nil):
		r.Held = fmt.Sprintf("%d of its %d sentences are flagged", flagged, len(r.Sentences))
	case j.policy == Drop:
		for _, s := range r.Sentences {
			if len(s.Flags) > 0 {
				r.Dropped = append(r.Dropped, s)
			}
		}
		r.Sentences = slices.DeleteFunc(r.Sentences, func(s pipeline.Sentence) bool { return len(s.Flags) > 0 })
		if r.NoEvidence == "" {
			rank(r.Sentences)
		}
		r.Findings, err = findings(r.Sentences)
	}
	return err
}
