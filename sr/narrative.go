package sr

import (
	"slices"

	"chatxray/pipeline"
)

func init() {
	register(&format{
		kind:         pipeline.NarrativeSR,
		class:        "1.2.840.10008.5.1.4.1.1.88.11", // Basic Text SR
		seriesNumber: "9902",
		series:       "ChatXRay report (AI draft, not reviewed)",
		root:         (*draft).imagingReport,
	})
}

// imagingReport is TID 2000: what was done and by whom, then the sentences, each with its images and its evidence.
func (d *draft) imagingReport() pipeline.Dataset {
	children := []pipeline.Dataset{d.procedure(), languageContent(d.language)}
	children = append(children, d.observer()...)
	children = append(children, container(contains, procedureDescriptions, "",
		textContent(contains, procedureDescription, d.procedureText(), d.english()...)))
	if s := d.sentences(pipeline.SectionFindings, finding); len(s) > 0 {
		children = append(children, container(contains, findingsSection, "", s...))
	}
	var impressions []pipeline.Dataset
	if d.Reading.Phantom {
		impressions = append(impressions, textContent(contains, impression, phantomText, d.english()...))
	}
	impressions = append(impressions, d.sentences(pipeline.SectionImpression, impression)...)
	if len(impressions) > 0 {
		children = append(children, container(contains, impressionsSection, "", impressions...))
	}
	return container("", diagnosticImagingReport, "2000", children...)
}

// sentences is a TEXT for each sentence of a section. Only a TEXT may carry INFERRED FROM in Basic Text SR (PS3.3 table A.35.1-2):
// the images it was drawn from, and in words how much it rests on them.
func (d *draft) sentences(section pipeline.Section, name code) []pipeline.Dataset {
	var items []pipeline.Dataset
	for i, s := range d.Reading.Sentences {
		if s.Section != section {
			continue
		}
		children := d.imageContents(inferredFrom, &bestIllustration)
		children = append(children, textContent(inferredFrom, imageEvidence, d.evidenceText(s.Evidence), d.english()...))
		for _, f := range s.Flags {
			children = append(children, textContent(inferredFrom, flagName(f.Rule), plain(f.Reason), d.english()...))
		}
		for _, f := range d.Reading.Findings {
			if f.Conflict && slices.Contains(f.Sentences, i) && !slices.ContainsFunc(s.Flags, func(g pipeline.Flag) bool { return g.Rule == pipeline.RuleHead }) {
				children = append(children, textContent(inferredFrom, headConflict, conflictText(f.Label), d.english()...))
			}
		}
		items = append(items, textContent(contains, name, plain(s.Text), children...))
	}
	return items
}
