package sr_test

import (
	"crypto/sha256"
	"strings"
	"time"

	"chatxray/pipeline"
	"chatxray/sr"
)

const (
	studyUID = "2.25.101"
	dxClass  = "1.2.840.10008.5.1.4.1.1.1.1"
	crClass  = "1.2.840.10008.5.1.4.1.1.1"
)

// header is the header of a frontal radiograph of an invented person.
func header() pipeline.Dataset {
	var d pipeline.Dataset
	d.SetText(pipeline.TagStudyInstanceUID, "UI", studyUID)
	d.SetText(pipeline.TagPatientName, "PN", "Doe^Jane")
	d.SetText(pipeline.TagPatientID, "LO", "P1")
	d.SetText(pipeline.TagPatientBirthDate, "DA", "19700101")
	d.SetText(pipeline.TagPatientSex, "CS", "F")
	d.SetText(pipeline.TagStudyDate, "DA", "20261122")
	d.SetText(pipeline.TagStudyTime, "TM", "093000")
	d.SetText(pipeline.TagReferringPhysicianName, "PN", "Roe^Richard")
	d.SetText(pipeline.TagStudyID, "SH", "1")
	d.SetText(pipeline.TagAccessionNumber, "SH", "A1")
	return d
}

// sentence is one whose image makes it likelier by gain nats.
func sentence(section pipeline.Section, gain float64, text string) pipeline.Sentence {
	return pipeline.Sentence{Text: text, Section: section, Evidence: pipeline.Evidence{
		LogLikelihood: -7.5, Decoys: []float64{-7.5 - gain - 0.5, -7.5 - gain + 0.5}, Blank: -12.6, Drop: gain}}
}

// image is the i-th image of the study.
func image(i byte, class, modality, view string) pipeline.InputRef {
	uid := "2.25.20" + string(rune('0'+i))
	return pipeline.InputRef{SeriesInstanceUID: uid, SOPInstanceUID: uid + ".1", SOPClassUID: class,
		Modality: modality, ViewPosition: view, Digest: sha256.Sum256([]byte{i})}
}

// input is the smallest reading: one image, one sentence, nothing of the closed list said.
func input() sr.Input {
	return sr.Input{
		Header: header(), Software: "0.1.0", Station: "RADIOLOGY1", Zone: time.UTC,
		Reading: &pipeline.Reading{
			StudyInstanceUID: studyUID, Language: "en",
			Inputs:    []pipeline.InputRef{image(1, dxClass, "DX", "PA")},
			Model:     pipeline.ModelRef{Name: "chatxray-base", Version: "1.0.0", Digest: sha256.Sum256([]byte("bundle"))},
			Sentences: []pipeline.Sentence{sentence(pipeline.SectionFindings, 0.4, "The film is slightly rotated.")},
			Revision:  1,
			Created:   time.Date(2026, 11, 23, 16, 5, 0, 0, time.UTC),
		},
	}
}

// full says something about every label.
func full() sr.Input {
	in := input()
	r := in.Reading
	r.Sentences, r.Findings = nil, nil
	words := map[pipeline.Presence]string{pipeline.Present: "There is ", pipeline.Absent: "There is no ", pipeline.Undetermined: "There may be "}
	order := []pipeline.Presence{pipeline.Present, pipeline.Absent, pipeline.Undetermined}
	for i, label := range pipeline.Labels {
		if label == "No Finding" {
			r.Findings = append(r.Findings, pipeline.Finding{Label: label, Presence: pipeline.NotSaid})
			continue
		}
		p := order[i%3]
		score := 0.3
		r.Findings = append(r.Findings, pipeline.Finding{Label: label, Presence: p, Sentences: []int{len(r.Sentences)}, Score: &score, Conflict: i%5 == 0})
		r.Sentences = append(r.Sentences, sentence(pipeline.SectionFindings, float64(i)/2-1, words[p]+strings.ToLower(label)+"."))
	}
	r.Sentences = append(r.Sentences, sentence(pipeline.SectionImpression, 2.3, "Findings of several kinds, as above."))
	r.Refused = []pipeline.Refusal{{SOPInstanceUID: "2.25.209", Reason: "lateral", Detail: "a lateral view"}}
	r.Truncated = true
	r.Inputs[0].ViewByModel, r.Inputs[0].ViewPosition = true, ""
	h := &in.Header
	h.SetText(pipeline.TagIssuerOfPatientID, "LO", "HOSPITAL")
	h.SetText(pipeline.TagPatientAge, "AS", "056Y")
	h.SetText(pipeline.TagPatientSize, "DS", "1.71")
	h.SetText(pipeline.TagPatientWeight, "DS", "64.5")
	h.SetText(pipeline.TagStudyDescription, "LO", "Chest PA")
	h.SetText(pipeline.TagTimezoneOffsetFromUTC, "SH", "+0530")
	h.SetText(pipeline.TagPatientIdentityRemoved, "CS", "YES")
	h.SetText(pipeline.TagDeidentificationMethod, "LO", "By hand")
	request := pipeline.Dataset{}
	request.SetText(pipeline.TagRequestedProcedureID, "SH", "RP1")
	request.SetText(pipeline.TagRequestedProcedureDescription, "LO", "XR chest")
	request.SetItems(pipeline.TagRequestedProcedureCodeSequence, coded("43468-8", "LN", "XR unspecified body region"))
	h.SetItems(pipeline.TagRequestAttributesSequence, request)
	h.SetText(pipeline.TagPlacerOrderNumberImagingServiceRequest, "LO", "PL-7")
	h.SetText(pipeline.TagFillerOrderNumberImagingServiceRequest, "LO", "FI-7")
	return in
}

func coded(value, scheme, meaning string) pipeline.Dataset {
	var d pipeline.Dataset
	d.SetText(pipeline.TagCodeValue, "SH", value)
	d.SetText(pipeline.TagCodingSchemeDesignator, "SH", scheme)
	d.SetText(pipeline.TagCodeMeaning, "LO", meaning)
	return d
}

// effusion is an ordinary reading: a finding present, one absent, one left open, an impression.
func effusion() sr.Input {
	in := input()
	in.Reading.Sentences = []pipeline.Sentence{
		sentence(pipeline.SectionFindings, 2.3, "Small left pleural effusion."),
		sentence(pipeline.SectionFindings, -0.4, "No pneumothorax."),
		sentence(pipeline.SectionFindings, 0.9, "The heart is perhaps enlarged."),
		sentence(pipeline.SectionImpression, 1.7, "Small left effusion."),
	}
	in.Reading.Findings = []pipeline.Finding{
		{Label: "Cardiomegaly", Presence: pipeline.Undetermined, Sentences: []int{2}},
		{Label: "Pneumothorax", Presence: pipeline.Absent, Sentences: []int{1}},
		{Label: "Pleural Effusion", Presence: pipeline.Present, Sentences: []int{0, 3}},
		{Label: "Fracture", Presence: pipeline.NotSaid},
	}
	return in
}

// variants are the readings that every kind of document is tried with.
func variants() map[string]sr.Input {
	v := map[string]sr.Input{"minimal": input(), "full": full(), "effusion": effusion()}
	with := func(name string, base func() sr.Input, change func(*sr.Input)) {
		in := base()
		change(&in)
		v[name] = in
	}
	with("normal", effusion, func(in *sr.Input) {
		in.Reading.Sentences = []pipeline.Sentence{sentence(pipeline.SectionFindings, 0.2, "The lungs are clear."),
			sentence(pipeline.SectionImpression, 0.1, "No acute finding.")}
		in.Reading.Findings = []pipeline.Finding{{Label: "No Finding", Presence: pipeline.Present, Sentences: []int{1}},
			{Label: "Lung Opacity", Presence: pipeline.Absent, Sentences: []int{0}}}
	})
	with("umlaut", effusion, func(in *sr.Input) {
		in.Header.SetText(pipeline.TagPatientName, "PN", "Pätient^Jürgen")
		in.Header.SetText(pipeline.TagReferringPhysicianName, "PN", "Weiß^Søren")
		in.Header.SetText(pipeline.TagPatientID, "LO", "Ä-17")
		in.Reading.Language = "de-CH"
		in.Reading.Sentences[0].Text = "Kleiner linksseitiger Pleuraerguß."
	})
	with("three component groups", effusion, func(in *sr.Input) {
		in.Header.SetText(pipeline.TagPatientName, "PN", "Yamada^Tarou=山田^太郎=やまだ^たろう")
		in.Reading.Language = "ja"
		in.Reading.Sentences[0].Text = "左胸水を少量認めます。"
	})
	with("German", full, func(in *sr.Input) {
		in.Reading.Language = "de-AT"
		in.Reading.Sentences[0].Text = "Größe des Herzens grenzwertig; kein Erguß."
	})
	with("Chinese", effusion, func(in *sr.Input) {
		in.Header.SetText(pipeline.TagPatientName, "PN", "Wang^XiaoDong=王^小东")
		in.Reading.Language = "zh"
		for i, text := range []string{"左侧少量胸腔积液。", "未见气胸。", "心影可能增大。", "左侧少量积液。"} {
			in.Reading.Sentences[i].Text = text
		}
	})
	with("two images", effusion, func(in *sr.Input) {
		in.Reading.Inputs = append(in.Reading.Inputs, image(2, crClass, "CR", "AP"))
	})
	with("frames of one object", effusion, func(in *sr.Input) {
		a := image(1, "1.2.840.10008.5.1.4.1.1.7.3", "OT", "") // Multi-frame Grayscale Word Secondary Capture
		b := a
		a.Frame, b.Frame = 1, 3
		in.Reading.Inputs = []pipeline.InputRef{a, b}
	})
	with("revision", effusion, func(in *sr.Input) {
		for i, kind := range sr.Kinds() {
			in.Predecessors = append(in.Predecessors, pipeline.DocumentRef{Kind: kind, SeriesInstanceUID: "2.25.30" + string(rune('0'+i)),
				SOPInstanceUID: sr.InstanceUID(in.Reading, kind), SOPClassUID: "1.2.840.10008.5.1.4.1.1.88.11"})
		}
		in.Reading.Revision++
	})
	with("phantom", effusion, func(in *sr.Input) {
		in.Header.SetText(pipeline.TagPatientID, "LO", pipeline.PhantomPatientID)
		in.Reading.Phantom = true
	})
	with("long text", effusion, func(in *sr.Input) {
		in.Reading.Sentences[0].Text = strings.Repeat("A left pleural effusion of moderate size blunts the angle. ", 2000)
	})
	with("very long names", effusion, func(in *sr.Input) {
		in.Header.SetText(pipeline.TagPatientName, "PN", strings.Repeat("Verylong", 20)+"^"+strings.Repeat("Given", 20))
		in.Header.SetText(pipeline.TagReferringPhysicianName, "PN", strings.Repeat("Q", 300))
		in.Header.SetText(pipeline.TagStudyDescription, "LO", strings.Repeat("Thorax ", 40))
		in.Reading.Model.Name = strings.Repeat("m", 64)
		in.Reading.Model.Version = strings.Repeat("9", 40)
	})
	with("very long names in three groups", effusion, func(in *sr.Input) {
		in.Header.SetText(pipeline.TagPatientName, "PN", strings.Repeat("Überlang", 20)+"="+strings.Repeat("長", 80)+"="+strings.Repeat("なが", 40))
		in.Header.SetText(pipeline.TagStudyDescription, "LO", strings.Repeat("Übersicht ", 40))
	})
	with("procedure of the study", effusion, func(in *sr.Input) {
		in.Header.SetItems(pipeline.TagProcedureCodeSequence, coded("36554-4", "LN", "XR Chest Single View"), coded("CXR1", "99LOCAL", "Chest one view"))
	})
	with("elsewhere, without evidence", effusion, func(in *sr.Input) {
		in.Reading.Model.Served = "medgemma-4b, root google/medgemma-4b-it, fingerprint vllm-0.12.0-tp2-1a2b3c4d"
		in.Reading.NoEvidence = "the model's endpoint gives no log-probabilities"
		for i := range in.Reading.Sentences {
			in.Reading.Sentences[i].Evidence = pipeline.Evidence{}
		}
	})
	with("flagged", effusion, func(in *sr.Input) {
		share := 0.75
		r := in.Reading
		r.Calibration = &pipeline.Calibration{Set: "held out films", Sentences: 400, Films: 90, AUROC: 0.8, Brier: 0.2, ECE: 0.03}
		r.Sentences[0].Evidence.True = &share
		r.Sentences[0].Flags = []pipeline.Flag{{Rule: pipeline.RuleComparison, Reason: `It speaks of change ("stable"), and the model was shown no earlier image.`},
			{Rule: pipeline.RuleSide, Reason: "The findings place Pleural Effusion on the left, the impression on the right."}}
		r.Sentences[2].Flags = []pipeline.Flag{{Rule: pipeline.RuleHead, Reason: "The model's findings head points the other way for Cardiomegaly."}}
		r.Findings[0].Conflict = true
		gone := sentence(pipeline.SectionFindings, 1, "There is no pleural effusion.")
		gone.Flags = []pipeline.Flag{{Rule: pipeline.RuleContradiction, Reason: `It contradicts "Small left effusion." about Pleural Effusion.`}}
		r.Dropped = []pipeline.Sentence{gone}
	})
	with("bare header", effusion, func(in *sr.Input) {
		in.Header = nil
		in.Header.SetText(pipeline.TagStudyInstanceUID, "UI", studyUID)
	})
	with("broken header", effusion, func(in *sr.Input) {
		h := &in.Header
		h.SetText(pipeline.TagPatientName, "PN", "Doe\x00^Jane\x1b\n")
		h.SetText(pipeline.TagPatientSex, "CS", "female")
		h.SetText(pipeline.TagPatientBirthDate, "DA", "1970-01-01")
		h.SetText(pipeline.TagPatientAge, "AS", "56")
		h.SetText(pipeline.TagPatientWeight, "DS", "NaN")
		h.SetText(pipeline.TagPatientSize, "DS", "1,71")
		h.SetText(pipeline.TagStudyTime, "TM", "25:00")
		h.SetText(pipeline.TagStudyID, "SH", "a\x07b")
		h.SetText(pipeline.TagTimezoneOffsetFromUTC, "SH", "+9900")
		h.SetItems(pipeline.TagProcedureCodeSequence, coded("", "LN", "no value"), coded("X\\Y", "LN", "two values"))
		h.SetItems(pipeline.TagRequestAttributesSequence, pipeline.Dataset{})
	})
	for _, in := range v {
		ranked(in)
	}
	return v
}

// ranked notes the ranks of a reading's sentences, as modelrt does.
func ranked(in sr.Input) sr.Input {
	all := in.Reading.Sentences
	for i := range all {
		all[i].Evidence.Rank = 1
		for _, o := range all {
			if o.Evidence.Drop > all[i].Evidence.Drop {
				all[i].Evidence.Rank++
			}
		}
	}
	return in
}
