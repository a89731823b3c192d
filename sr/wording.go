package sr

import (
	"fmt"
	"strings"
	"unicode"

	"chatxray/pipeline"
)

// Manufacturer and Product name this software in every document.
const (
	Manufacturer = "ChatXRay project"
	Product      = "ChatXRay"
)

const (
	draftNotice  = "Draft written by software; not reviewed"
	phantomText  = "PHANTOM: the image is synthetic. This text is about no patient."
	phantomTitle = "PHANTOM "
)

// modelVersion is the version of a model with the beginning of its digest, as one Long String.
func modelVersion(m pipeline.ModelRef) string { return m.Version + " sha256:" + m.Digest.String()[:16] }

// plain makes a text fit for UT and for one line: no control characters, white space folded, none at the ends.
func plain(s string) string {
	return strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, "\uFFFD"), func(r rune) bool {
		return unicode.IsControl(r) || unicode.IsSpace(r)
	}), " ")
}

// procedureText says what was read, what was not, who wrote the draft, and what is wrong with it.
func (d *draft) procedureText() string {
	r := d.Reading
	var b strings.Builder
	if r.Phantom {
		b.WriteString(phantomText + " ")
	}
	var views []string
	for _, ref := range d.images {
		view := strings.TrimSpace(plain(ref.Modality) + " " + plain(ref.ViewPosition))
		if ref.ViewByModel {
			view += ", view not in the header, taken as frontal by the model"
		}
		views = append(views, view)
	}
	images := "1 image"
	if n := len(d.images); n > 1 {
		images = fmt.Sprintf("%d images", n)
	}
	fmt.Fprintf(&b, "Chest radiograph, %s read (%s). ", images, strings.Join(views, "; "))
	if len(r.Refused) > 0 {
		fmt.Fprintf(&b, "Not read: %s. ", refusals(r.Refused))
	}
	fmt.Fprintf(&b, "Draft by software %s %s with model %s %s; not reviewed by a radiologist.", Product, d.Software, r.Model.Name, r.Model.Version)
	if r.Model.Served != "" {
		fmt.Fprintf(&b, " The model ran elsewhere; its endpoint calls it: %s.", plain(r.Model.Served))
	}
	if r.NoEvidence != "" {
		fmt.Fprintf(&b, " No evidence available for any sentence: %s.", plain(r.NoEvidence))
	}
	if r.Truncated {
		b.WriteString(" The model did not end its report within its token limit: the text is incomplete.")
	}
	if text := droppedText(r.Dropped); text != "" {
		b.WriteString(" " + text)
	}
	return b.String()
}

// refusals counts the objects of a study that were not read, by reason, in the order of their first one.
func refusals(rs []pipeline.Refusal) string {
	var reasons []string
	count := map[string]int{}
	for _, r := range rs {
		if count[r.Reason]++; count[r.Reason] == 1 {
			reasons = append(reasons, r.Reason)
		}
	}
	for i, reason := range reasons {
		reasons[i] = fmt.Sprintf("%d %s", count[reason], plain(reason))
	}
	return strings.Join(reasons, ", ")
}

// droppedText says how many sentences the policy took out, by rule; empty where there are none.
func droppedText(dropped []pipeline.Sentence) string {
	if len(dropped) == 0 {
		return ""
	}
	var names []string
	count := map[string]int{}
	for _, s := range dropped {
		for _, f := range s.Flags {
			name := flagName(f.Rule).Meaning
			if count[name]++; count[name] == 1 {
				names = append(names, name)
			}
		}
	}
	for i, name := range names {
		names[i] = fmt.Sprintf("%s: %d", name, count[name])
	}
	return fmt.Sprintf("Flagged sentences of the model that were removed from this draft: %d (%s). The text is incomplete.", len(dropped), strings.Join(names, "; "))
}

// evidenceText says in words how much a sentence rests on the images: its rank among the report's sentences, and where the bundle was calibrated
// what such evidence was worth on sentences known to be true or false. It is no probability of the finding, and does not read like one.
func (d *draft) evidenceText(e pipeline.Evidence) string {
	if d.Reading.NoEvidence != "" {
		return noEvidenceText(d.Reading.NoEvidence)
	}
	makes, make := "this image makes", "this image does not make"
	if len(d.images) > 1 {
		makes, make = "these images make", "these images do not make"
	}
	others := "other patients' images do"
	if len(e.Decoys) == 1 {
		others = "another patient's image does"
	}
	text := fmt.Sprintf("Evidence: %s the sentence likelier than %s", makes, others)
	if e.Drop < 0.05 {
		text = fmt.Sprintf("No evidence: %s the sentence likelier than %s", make, others)
	}
	text += fmt.Sprintf(" (rank %d of %d sentences).", e.Rank, len(d.Reading.Sentences))
	if c := d.Reading.Calibration; c != nil && e.True != nil {
		return text + fmt.Sprintf(" Of planted sentences with such evidence %.0f %% were true (%s: %d sentences, half of them true). This is not the probability of a finding.",
			100**e.True, plain(c.Set), c.Sentences)
	}
	return text + " Uncalibrated: an order, no probability."
}

// noEvidenceText does not read as if the sentence had been weighed and found light.
func noEvidenceText(why string) string {
	return fmt.Sprintf("No evidence available: %s. Whether the sentence rests on this image was not measured.", plain(why))
}

func conflictText(label string) string {
	return fmt.Sprintf("The model's findings head points the other way for %s.", label)
}
