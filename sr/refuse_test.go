package sr_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"chatxray/pipeline"
	"chatxray/pipeline/dicom"
	"chatxray/sr"
)

func TestRefuse(t *testing.T) {
	for want, spoil := range map[string]func(*sr.Input){
		"there is no reading":                 func(in *sr.Input) { in.Reading = nil },
		"no valid Study Instance UID":         func(in *sr.Input) { in.Reading.StudyInstanceUID = "1.02" },
		"the header is of study 2.25.999":     func(in *sr.Input) { in.Header.SetText(pipeline.TagStudyInstanceUID, "UI", "2.25.999") },
		"names no image":                      func(in *sr.Input) { in.Reading.Inputs = nil },
		"image 1 of the reading lacks":        func(in *sr.Input) { in.Reading.Inputs[0].SeriesInstanceUID = "" },
		"has no digest":                       func(in *sr.Input) { in.Reading.Inputs[0].Digest = pipeline.Digest{} },
		"frame -1 is negative":                func(in *sr.Input) { in.Reading.Inputs[0].Frame = -1 },
		"model has no name":                   func(in *sr.Input) { in.Reading.Model.Name = "" },
		"model chatxray-base has no digest":   func(in *sr.Input) { in.Reading.Model.Digest = pipeline.Digest{} },
		"model chatxray-base has no version":  func(in *sr.Input) { in.Reading.Model.Version = "1\\2" },
		"the software has no version":         func(in *sr.Input) { in.Software = "" },
		"a station name has 1 to 16":          func(in *sr.Input) { in.Station = "A station of a long name" },
		"no time zone is given":               func(in *sr.Input) { in.Zone = nil },
		"no time of creation":                 func(in *sr.Input) { in.Reading.Created = time.Time{} },
		"revision -1 is negative":             func(in *sr.Input) { in.Reading.Revision = -1 },
		"the model wrote nothing":             func(in *sr.Input) { in.Reading.Sentences = nil; in.Reading.Findings = nil },
		`"" is no language tag`:               func(in *sr.Input) { in.Reading.Language = "" },
		`"englisch?" is no language tag`:      func(in *sr.Input) { in.Reading.Language = "englisch?" },
		"sentence 1 is empty":                 func(in *sr.Input) { in.Reading.Sentences[0].Text = " \n\x00" },
		"sentence 2 stands in the unknown":    func(in *sr.Input) { in.Reading.Sentences[1].Section = "history" },
		"sentence 1 has no evidence":          func(in *sr.Input) { in.Reading.Sentences[0].Evidence = pipeline.Evidence{} },
		"sentence 1 has an evidence that is":  func(in *sr.Input) { in.Reading.Sentences[0].Evidence.Blank = math.NaN() },
		"sentence 1 has an evidence, and the": func(in *sr.Input) { in.Reading.NoEvidence = "none" },
		"the drop is 9.000 nats":              func(in *sr.Input) { in.Reading.Sentences[0].Evidence.Drop = 9 },
		`"Hernia" is not on the closed list`:  func(in *sr.Input) { in.Reading.Findings[0].Label = "Hernia" },
		`"Pneumothorax" is given twice`:       func(in *sr.Input) { in.Reading.Findings[2].Label = "Pneumothorax" },
		`the unknown presence "yes"`:          func(in *sr.Input) { in.Reading.Findings[0].Presence = "yes" },
		"but no sentence says so":             func(in *sr.Input) { in.Reading.Findings[0].Sentences = nil },
		"points to sentence 4, and there are": func(in *sr.Input) { in.Reading.Findings[0].Sentences[0] = 4 },
		"a predecessor lacks": func(in *sr.Input) {
			in.Predecessors = []pipeline.DocumentRef{{Kind: pipeline.FindingsSR, SOPInstanceUID: "2.25.1"}}
		},
		"would be its own predecessor": func(in *sr.Input) {
			in.Predecessors = []pipeline.DocumentRef{{Kind: pipeline.FindingsSR, SeriesInstanceUID: "2.25.1", SOPClassUID: "2.25.2",
				SOPInstanceUID: sr.InstanceUID(in.Reading, pipeline.FindingsSR)}}
		},
	} {
		in := effusion()
		spoil(&in)
		docs, err := sr.Documents(in, dicom.Encode)
		if !errors.Is(err, pipeline.ErrInvalid) || !strings.Contains(err.Error(), want) || docs != nil {
			t.Errorf("want a refusal with %q, got %v and %d documents", want, err, len(docs))
		}
		if err != nil && strings.Contains(err.Error(), "Doe") {
			t.Errorf("the refusal names the patient: %v", err)
		}
	}
	if _, err := sr.Dataset(input(), "no-such-kind"); !errors.Is(err, pipeline.ErrUnsupported) {
		t.Errorf("an unknown kind gives %v", err)
	}
	broken := errors.New("disk of the encoder")
	if _, err := sr.Documents(input(), func(pipeline.Dataset) ([]byte, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Errorf("an encoder that fails gives %v", err)
	}
}
