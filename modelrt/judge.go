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

// judge flags the sentences of a reading and does with them what the policy wants. Where every sentence is flagged nothing would be left to
// report, so that the report is held in place of dropping them.
func (m *Model) judge(r *pipeline.Reading, header pipeline.Dataset, scores []float32) (err error) {
	if m.check == nil {
		return nil
	}
	flagged := 0
	for i, flags := range m.check(r, header) {
		r.Sentences[i].Flags = flags
		flagged += min(1, len(flags))
	}
	switch {
	case flagged == 0:
	case m.policy == Hold || m.policy == Drop && flagged == len(r.Sentences):
		r.Held = fmt.Sprintf("%d of its %d sentences are flagged", flagged, len(r.Sentences))
	case m.policy == Drop:
		for _, s := range r.Sentences {
			if len(s.Flags) > 0 {
				r.Dropped = append(r.Dropped, s)
			}
		}
		r.Sentences = slices.DeleteFunc(r.Sentences, func(s pipeline.Sentence) bool { return len(s.Flags) > 0 })
		rank(r.Sentences)
		r.Findings, err = m.findings(r.Sentences, scores)
	}
	return err
}
