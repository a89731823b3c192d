package sr_test

import (
	"testing"

	"chatxray/pipeline"
	"chatxray/pipeline/dicom"
	"chatxray/sr"
)

// studies are readings that documents are made of: one that says nothing about the closed list, as the stub reader's, an ordinary one, and one
// that says something about every label.
var studies = map[string]sr.Input{"stub": silent(), "effusion": ranked(effusion()), "full": ranked(full())}

// BenchmarkDocuments makes the documents of a study.
func BenchmarkDocuments(b *testing.B) {
	for name, in := range studies {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := sr.Documents(in, dicom.Encode); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkDatasets does the same and encodes nothing.
func BenchmarkDatasets(b *testing.B) {
	for name, in := range studies {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := sr.Documents(in, func(pipeline.Dataset) ([]byte, error) { return nil, nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// silent is a reading of one sentence without evidence, in which no label is said.
func silent() sr.Input {
	in := input()
	r := in.Reading
	r.NoEvidence = "the reader looks at no image"
	r.Sentences[0].Evidence = pipeline.Evidence{}
	for _, label := range pipeline.Labels {
		r.Findings = append(r.Findings, pipeline.Finding{Label: label, Presence: pipeline.NotSaid})
	}
	return in
}
