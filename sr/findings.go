package sr

import (
	"slices"
	"strings"

	"chatxray/pipeline"
)

func init() {
	register(&format{
		kind:         pipeline.FindingsSR,
		class:        "1.2.840.10008.5.1.4.1.1.88.34", // Comprehensive 3D SR
		seriesNumber: "9901",
		series:       "ChatXRay findings (AI draft, not reviewed)",
		root:         (*draft).measurementReport,
	})
}

// measurementReport is TID 1500. There are no boxes yet, so each finding that the report speaks of is a TID 1501 group with the
// images as its source; TID 1410 must not be mixed in.
func (d *draft) measurementReport() pipeline.Dataset {
	children := []pipeline.Dataset{languageContent(d.language)}
	children = append(children, d.observer()...)
	children = append(children, d.procedure(), d.library())
	if groups := d.groups(); len(groups) > 0 {
		children = append(children, container(contains, imagingMeasurements, "", groups...))
	}
	children = append(children, d.evaluations())
	return container("", imagingMeasurementReport, "1500", children...)
}

// library is TID 1600: every image that the model saw, a group for each modality. A modality that is not in CID 29, such as that
// of a captured film, is not stated.
func (d *draft) library() pipeline.Dataset {
	var names []string
	groups := map[string][]pipeline.Dataset{}
	for _, ref := range d.images {
		name := ref.Modality
		m, known := modalities[name]
		if !known {
			name = ""
		}
		if groups[name] == nil {
			names = append(names, name)
			if known {
				groups[name] = append(groups[name], codeContent(hasAcqContext, modality, m))
			}
		}
		groups[name] = append(groups[name], imageContent(contains, nil, ref))
	}
	var items []pipeline.Dataset
	for _, name := range names {
		items = append(items, container(contains, imageLibraryGroup, "", groups[name]...))
	}
	return container(contains, imageLibrary, "", items...)
}

// said returns the findings of the closed list that the report speaks of, in the order of pipeline.Labels. "No Finding" is not
// among them: it is an assessment of the whole.
func (d *draft) said() []pipeline.Finding {
	var fs []pipeline.Finding
	for _, label := range pipeline.Labels {
		for _, f := range d.Reading.Findings {
			if f.Label == label && label != noFinding && f.Presence != pipeline.NotSaid {
				fs = append(fs, f)
			}
		}
	}
	return fs
}

// groups is a TID 1501 Measurement Group for each finding that was said.
func (d *draft) groups() []pipeline.Dataset {
	var groups []pipeline.Dataset
	for _, f := range d.said() {
		name, _ := labelCode(f.Label)
		var sentences []string
		for _, i := range f.Sentences {
			sentences = append(sentences, plain(d.Reading.Sentences[i].Text))
		}
		children := []pipeline.Dataset{
			textContent(hasObsContext, trackingIdentifier, f.Label),
			uidContent(hasObsContext, trackingUniqueIdentifier, derive("finding", f.Label, d.name)),
			codeContent(contains, finding, name),
		}
		children = append(children, d.algorithm()...)
		children = append(children, d.imageContents(contains, &sourceOfMeasurement)...)
		children = append(children,
			codeContent(contains, presence, presences[f.Presence]),
			textContent(contains, narrativeSummary, strings.Join(sentences, " ")))
		if f.Conflict {
			children = append(children, textContent(contains, headConflict, conflictText(f.Label), d.english()...))
		}
		children = append(children, d.flagsOf(f)...)
		groups = append(groups, container(contains, measurementGroup, "1501", children...))
	}
	return groups
}

// flagsOf are the flags of the sentences that decided a finding; the head's conflict is told of the finding itself.
func (d *draft) flagsOf(f pipeline.Finding) (items []pipeline.Dataset) {
	for _, i := range f.Sentences {
		for _, flag := range d.Reading.Sentences[i].Flags {
			if flag.Rule != pipeline.RuleHead {
				items = append(items, textContent(contains, flagName(flag.Rule), plain(flag.Reason), d.english()...))
			}
		}
	}
	return items
}

// evaluations is the Qualitative Evaluations container of TID 1500: the assessment of the whole, a code for each label that was
// said, the impression.
func (d *draft) evaluations() pipeline.Dataset {
	children := []pipeline.Dataset{codeContent(contains, overallAssessment, d.assessment())}
	if d.assessmentConflict() {
		children = append(children, textContent(contains, headConflict, conflictText(noFinding), d.english()...))
	}
	for _, f := range d.said() {
		name, _ := labelCode(f.Label)
		children = append(children, codeContent(contains, name, presences[f.Presence]))
	}
	if d.Reading.Phantom {
		children = append(children, textContent(contains, impression, phantomText, d.english()...))
	}
	var impressions []string
	for _, s := range d.Reading.Sentences {
		if s.Section == pipeline.SectionImpression {
			impressions = append(impressions, plain(s.Text))
		}
	}
	if len(impressions) > 0 {
		children = append(children, textContent(contains, impression, strings.Join(impressions, " ")))
	}
	if text := droppedText(d.Reading.Dropped); text != "" {
		children = append(children, textContent(contains, removed, text, d.english()...))
	}
	return container(contains, qualitativeEvaluations, "", children...)
}

// assessment is Abnormal as soon as a finding other than a device is present, or a sentence speaks of something abnormal that is
// not on the list, which makes "No Finding" absent. Normal needs a sentence that says so, a report that was ended and from which nothing was removed, no finding left open
// and a findings head that does not disagree: a report that is silent is not normal.
func (d *draft) assessment() code {
	open := false
	for _, f := range d.said() {
		if f.Presence == pipeline.Present && f.Label != "Support Devices" {
			return abnormal
		}
		open = open || f.Presence == pipeline.Undetermined
	}
	var none pipeline.Presence
	for _, f := range d.Reading.Findings {
		if f.Label == noFinding && len(f.Sentences) > 0 {
			none = f.Presence
		}
	}
	switch {
	case none == pipeline.Absent:
		return abnormal
	case none == pipeline.Present && !open && !d.Reading.Truncated && len(d.Reading.Dropped) == 0 && !d.assessmentConflict():
		return normal
	}
	return normalityUndetermined
}

// assessmentConflict: the findings head disagrees with what the report says of the whole.
func (d *draft) assessmentConflict() bool {
	return slices.ContainsFunc(d.Reading.Findings, func(f pipeline.Finding) bool { return f.Label == noFinding && f.Conflict && len(f.Sentences) > 0 })
}
