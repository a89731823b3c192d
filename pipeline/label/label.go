// Package label reads what English sentences about a chest radiograph say on the fourteen labels of pipeline.Labels:
// present, absent, undetermined or nothing. It works by rules alone, in the tradition of NegEx, NegBio and the CheXpert labeler: mentions,
// the scope of negation and doubt, and statements about a structure ("the heart is not enlarged").
//
// Where readers may differ, these are the rules:
//
//   - A label is present only where its own words say so: pneumonia does not make Lung Opacity present, nor cardiomegaly Enlarged
//     Cardiomediastinum. "Infiltrate", "airspace disease", scarring and increased interstitial markings are Lung Opacity; nodules, masses and cavities
//     are Lung Lesion, calcified or not; granulomas are not.
//   - Likely, probable, possible, suggestive of, versus, cannot exclude: undetermined. Consistent with, compatible with: present.
//     "Unlikely" is absent, "less likely" undetermined. "A or B" outside a negation makes both undetermined.
//   - Vascular congestion is Edema undetermined, a blunted costophrenic angle Pleural Effusion undetermined, a compression deformity Fracture undetermined, a
//     heart of borderline size Cardiomegaly undetermined.
//   - Clear (or normal) lungs are absent Lung Opacity and Consolidation, no more; one clear lung says nothing. Sharp costophrenic angles are
//     absent Pleural Effusion, clear pleural spaces absent Pneumothorax too. Intact bones, or no acute bone abnormality, are absent Fracture.
//   - A normal heart is absent Cardiomegaly, a normal mediastinum absent Enlarged Cardiomediastinum, a normal cardiomediastinal silhouette both. "Stable" alone says nothing.
//   - "No new", "no acute", "no large", "no definite" are absent. Resolved and removed are absent; improved, unchanged, decreased are present.
//   - Support Devices are lines, tubes, drains, pacemakers and other implants; clips, sutures and sternal wires are not.
//   - Where sentences (or parts of one) contradict each other, present wins over undetermined, and that over absent.
//   - No Finding is derived (see Report).
package label

import (
	"slices"
	"strings"

	"chatxray/pipeline"
)

// The labels by name; the strings are those of pipeline.Labels.
const (
	noFinding         = "No Finding"
	cardiomediastinum = "Enlarged Cardiomediastinum"
	cardiomegaly      = "Cardiomegaly"
	lesion            = "Lung Lesion"
	opacity           = "Lung Opacity"
	edema             = "Edema"
	consolidation     = "Consolidation"
	pneumonia         = "Pneumonia"
	atelectasis       = "Atelectasis"
	pneumothorax      = "Pneumothorax"
	effusion          = "Pleural Effusion"
	pleuralOther      = "Pleural Other"
	fracture          = "Fracture"
	devices           = "Support Devices"

	// otherAbnormal is no label: what is abnormal and has no place on the list. It keeps No Finding from being present.
	otherAbnormal = "other"
)

// said is what one sentence says: labels to their presence. Labels that it does not mention have no entry.
type said map[string]pipeline.Presence

// add joins another statement about a label: the stronger one stays.
func (s said) add(label string, p pipeline.Presence) {
	if strength(p) > strength(s[label]) {
		s[label] = p
	}
}

func strength(p pipeline.Presence) int {
	return slices.Index([]pipeline.Presence{pipeline.Absent, pipeline.Undetermined, pipeline.Present}, p) + 1
}

// Sentence returns what one English sentence says: present, absent or undetermined for each label that it speaks of.
// No Finding is present where the sentence calls the chest, or the lungs, normal or free of acute disease; Report weighs that.
// The text may be of any length and need not be a sentence; time grows linearly with it.
func Sentence(text string) map[string]pipeline.Presence {
	s := read(text)
	delete(s, otherAbnormal)
	return s
}

func read(text string) said {
	out := said{}
	for _, p := range propositions(text) {
		p.mentions(out)
		p.structures(out)
	}
	return out
}

// Knows tells whether sentences in a language, by its RFC 5646 tag, are understood: English of any country. What is written in another
// language must stay "not said", whatever Sentence and Report make of it.
func Knows(language string) bool {
	base, _, _ := strings.Cut(language, "-")
	return strings.EqualFold(base, "en")
}

// Report returns one Finding for each of pipeline.Labels, in their order, from the sentences of one report.
// Sentences are the indices of those that decided it: all that say what the Finding says.
//
// No Finding is present where a sentence calls the chest normal and no sentence says anything abnormal, of the list (Support Devices
// apart) or beyond it (emphysema, granulomas, scoliosis ...), not even in doubt. It is absent where something abnormal is present,
// undetermined where abnormal things are only undetermined, else not said.
func Report(sentences []string) []pipeline.Finding {
	all := make([]said, len(sentences))
	for i, s := range sentences {
		all[i] = read(s)
	}
	return findings(all)
}

func findings(all []said) []pipeline.Finding {
	out := make([]pipeline.Finding, 0, len(pipeline.Labels))
	for _, l := range pipeline.Labels {
		if l != noFinding {
			out = append(out, strongest(l, all, []string{l}))
			continue
		}
		var abnormal []string
		for _, x := range pipeline.Labels {
			if x != noFinding && x != devices {
				abnormal = append(abnormal, x)
			}
		}
		f := strongest(l, all, append(abnormal, otherAbnormal))
		switch f.Presence {
		case pipeline.Present:
			f.Presence = pipeline.Absent
		case pipeline.Undetermined:
		default:
			f = strongest(l, all, []string{noFinding})
		}
		out = append(out, f)
	}
	return out
}

// strongest finds the strongest statement of any sentence about any of the names, and the sentences that make it.
func strongest(label string, all []said, names []string) pipeline.Finding {
	f := pipeline.Finding{Label: label, Presence: pipeline.NotSaid}
	for i, s := range all {
		for _, name := range names {
			p, ok := s[name]
			switch {
			case !ok || strength(p) < strength(f.Presence):
			case p != f.Presence:
				f.Presence, f.Sentences = p, []int{i}
			case f.Sentences[len(f.Sentences)-1] != i:
				f.Sentences = append(f.Sentences, i)
			}
		}
	}
	return f
}
