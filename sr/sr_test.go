package sr_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chatxray/pipeline"
	"chatxray/pipeline/dicom"
	"chatxray/sr"
)

var update = flag.Bool("update", false, "write the golden dumps anew")

// each runs a test for every variant and every registered kind.
func each(t *testing.T, test func(t *testing.T, in sr.Input, kind pipeline.DocumentKind, d pipeline.Dataset)) {
	t.Helper()
	for name, in := range variants() {
		for _, kind := range sr.Kinds() {
			t.Run(name+"/"+string(kind), func(t *testing.T) {
				d, err := sr.Dataset(in, kind)
				if err != nil {
					t.Fatal(err)
				}
				test(t, in, kind, d)
			})
		}
	}
}

func TestGolden(t *testing.T) {
	for _, kind := range sr.Kinds() {
		for _, name := range []string{"effusion", "full", "phantom"} {
			t.Run(name+"/"+string(kind), func(t *testing.T) {
				d, err := sr.Dataset(variants()[name], kind)
				if err != nil {
					t.Fatal(err)
				}
				path := filepath.Join("testdata", name+"-"+string(kind)+".txt")
				if *update {
					if err := os.WriteFile(path, []byte(dump(d)), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(path)
				if err != nil {
					t.Fatalf("a kind without golden data: %v", err)
				}
				if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(dump(d), "\n")); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

// TestAgain writes each document twice, as a retry does, also with the inputs in another order of arrival.
func TestAgain(t *testing.T) {
	again := variants()
	for name, in := range variants() {
		first, err := sr.Documents(in, dicom.Encode)
		if err != nil {
			t.Fatal(name, err)
		}
		second, err := sr.Documents(again[name], dicom.Encode)
		if err != nil {
			t.Fatal(name, err)
		}
		for i := range first {
			if !bytes.Equal(first[i].Bytes, second[i].Bytes) {
				t.Errorf("%s: the %s document differs from its retry", name, first[i].Kind)
			}
		}
	}
	in := again["two images"]
	before := sr.InstanceUID(in.Reading, pipeline.FindingsSR)
	slices.Reverse(in.Reading.Inputs)
	if after := sr.InstanceUID(in.Reading, pipeline.FindingsSR); after != before {
		t.Errorf("the order of the inputs changed the UID from %s to %s", before, after)
	}
}

// TestOpen: our own parser opens every document and finds in it what was written.
func TestOpen(t *testing.T) {
	for name, in := range variants() {
		docs, err := sr.Documents(in, dicom.Encode)
		if err != nil {
			t.Fatal(name, err)
		}
		for _, doc := range docs {
			inst, err := dicom.Open(doc.Bytes)
			if err != nil {
				t.Errorf("%s, %s: %v", name, doc.Kind, err)
				continue
			}
			if inst.SOPInstanceUID != doc.SOPInstanceUID || inst.SOPClassUID != doc.SOPClassUID ||
				inst.SeriesInstanceUID != doc.SeriesInstanceUID || inst.StudyInstanceUID != doc.StudyInstanceUID {
				t.Errorf("%s, %s: the file says it is another object than the document", name, doc.Kind)
			}
			if syntax := doc.Header.String(pipeline.TagTransferSyntaxUID); syntax != inst.TransferSyntaxUID {
				t.Errorf("%s, %s: the transfer syntax is told as %q, the file says %q", name, doc.Kind, syntax, inst.TransferSyntaxUID)
			}
			if diff := cmp.Diff(strings.Split(dump(doc.Header[1:]), "\n"), strings.Split(dump(inst.Header), "\n")); diff != "" {
				t.Errorf("%s, %s:\n%s", name, doc.Kind, diff)
			}
		}
	}
}

func TestUIDs(t *testing.T) {
	seen := map[string]string{}
	take := func(name string, change func(*pipeline.Reading)) {
		r := effusion().Reading
		change(r)
		for _, kind := range sr.Kinds() {
			uid := sr.InstanceUID(r, kind)
			if !strings.HasPrefix(uid, "2.25.") || len(uid) > 64 {
				t.Errorf("%s: %s is no derived UID", name, uid)
			}
			if other, ok := seen[uid]; ok {
				t.Errorf("%s of %s has the UID of %s", kind, name, other)
			}
			seen[uid] = name + " " + string(kind)
		}
	}
	take("the reading", func(*pipeline.Reading) {})
	take("another study", func(r *pipeline.Reading) { r.StudyInstanceUID += ".1" })
	take("other inputs", func(r *pipeline.Reading) { r.Inputs[0].Digest[0]++ })
	take("another frame", func(r *pipeline.Reading) { r.Inputs[0].Frame++ })
	take("another bundle", func(r *pipeline.Reading) { r.Model.Digest[0]++ })
	take("another revision", func(r *pipeline.Reading) { r.Revision++ })
	later := effusion().Reading
	later.Created = later.Created.Add(time.Hour)
	if _, ok := seen[sr.InstanceUID(later, pipeline.FindingsSR)]; !ok {
		t.Error("the time changed the UID: a retry would write another object")
	}
	// Outside an archive nothing is retried, and a second reading is another one.
	take("no archive", func(r *pipeline.Reading) { r.Revision = 0 })
	take("no archive, a second later", func(r *pipeline.Reading) { r.Revision, r.Created = 0, r.Created.Add(time.Second) })
}

// TestEvidence: every image that a tree refers to is evidence, and every image of the reading is there.
func TestEvidence(t *testing.T) {
	each(t, func(t *testing.T, in sr.Input, _ pipeline.DocumentKind, d pipeline.Dataset) {
		var evidence []string
		for _, study := range d.Items(pipeline.TagCurrentRequestedProcedureEvidenceSequence) {
			if study.String(pipeline.TagStudyInstanceUID) != studyUID {
				t.Errorf("evidence of study %s", study.String(pipeline.TagStudyInstanceUID))
			}
			for _, series := range study.Items(pipeline.TagReferencedSeriesSequence) {
				for _, ref := range series.Items(pipeline.TagReferencedSOPSequence) {
					evidence = append(evidence, ref.String(pipeline.TagReferencedSOPInstanceUID))
				}
			}
		}
		var want []string
		for _, ref := range in.Reading.Inputs {
			want = append(want, ref.SOPInstanceUID)
		}
		slices.Sort(want)
		want = slices.Compact(want)
		slices.Sort(evidence)
		if diff := cmp.Diff(want, evidence); diff != "" {
			t.Error(diff)
		}
		var visit func(pipeline.Dataset)
		visit = func(item pipeline.Dataset) {
			for _, ref := range item.Items(pipeline.TagReferencedSOPSequence) {
				if uid := ref.String(pipeline.TagReferencedSOPInstanceUID); !slices.Contains(evidence, uid) {
					t.Errorf("image %s is in the tree and not in the evidence", uid)
				}
			}
			for _, child := range item.Items(pipeline.TagContentSequence) {
				visit(child)
			}
		}
		visit(d)
	})
}

// TestHeader holds what every document says, whatever it is about.
func TestHeader(t *testing.T) {
	each(t, func(t *testing.T, in sr.Input, kind pipeline.DocumentKind, d pipeline.Dataset) {
		for tag, want := range map[pipeline.Tag]string{
			pipeline.TagSpecificCharacterSet:  "ISO_IR 192",
			pipeline.TagModality:              "SR",
			pipeline.TagStudyInstanceUID:      studyUID,
			pipeline.TagSOPInstanceUID:        sr.InstanceUID(in.Reading, kind),
			pipeline.TagCompletionFlag:        "PARTIAL",
			pipeline.TagVerificationFlag:      "UNVERIFIED",
			pipeline.TagPreliminaryFlag:       "PRELIMINARY",
			pipeline.TagSoftwareVersions:      in.Software,
			pipeline.TagManufacturer:          sr.Manufacturer,
			pipeline.TagManufacturerModelName: sr.Product,
		} {
			if got := d.String(tag); got != want {
				t.Errorf("%s is %q, not %q", tag, got, want)
			}
		}
		for _, tag := range []pipeline.Tag{pipeline.TagPatientName, pipeline.TagPatientID, pipeline.TagPatientBirthDate, pipeline.TagPatientSex,
			pipeline.TagStudyDate, pipeline.TagStudyTime, pipeline.TagReferringPhysicianName, pipeline.TagStudyID, pipeline.TagAccessionNumber,
			pipeline.TagReferencedPerformedProcedureStepSequence, pipeline.TagPerformedProcedureCodeSequence} {
			if _, ok := d.Get(tag); !ok {
				t.Errorf("%s is of Type 2 and absent", tag)
			}
		}
		device := d.Items(pipeline.TagContributingEquipmentSequence)[0]
		author := d.Items(pipeline.TagAuthorObserverSequence)[0]
		if author.String(pipeline.TagObserverType) != "DEV" || author.String(pipeline.TagDeviceUID) != device.String(pipeline.TagDeviceUID) {
			t.Error("the author is not the contributing device")
		}
		told := *in.Reading
		told.Language, in.Reading = "en", &told // concepts are looked for by their English names
		english, err := sr.Dataset(in, kind)
		if err != nil {
			t.Fatal(err)
		}
		tree := strings.Join(paths(english), "\n")
		for _, same := range []string{"Device Observer Model Name = " + device.String(pipeline.TagManufacturerModelName),
			"Device Observer Manufacturer = " + device.String(pipeline.TagManufacturer)} {
			if !strings.Contains(tree, same) {
				t.Errorf("the tree does not say %q", same)
			}
		}
		if strings.Contains(tree, "Algorithm Version") && !strings.Contains(tree, "Algorithm Version = "+device.String(pipeline.TagSoftwareVersions)) {
			t.Error("the tree and the Contributing Equipment Sequence name two versions of the algorithm")
		}
		if strings.Contains(strings.ToLower(tree), "certainty") {
			t.Error("an uncalibrated reading states a certainty")
		}
	})
}

func TestNotSaid(t *testing.T) {
	d, err := sr.Dataset(effusion(), pipeline.FindingsSR)
	if err != nil {
		t.Fatal(err)
	}
	tree := strings.Join(paths(d), "\n")
	for _, silent := range []string{"Fracture", "Edema", "No Finding"} {
		if strings.Contains(tree, silent) {
			t.Errorf("%q was not said and has an item", silent)
		}
	}
	for _, item := range []string{"CODE Pleural effusion = Present", "CODE Pneumothorax = Absent", "CODE Cardiomegaly = Undetermined"} {
		if !strings.Contains(tree, item) {
			t.Errorf("no item %q in\n%s", item, tree)
		}
	}
}

func TestAssessment(t *testing.T) {
	said := func(label string, p pipeline.Presence) pipeline.Finding {
		return pipeline.Finding{Label: label, Presence: p, Sentences: []int{0}}
	}
	for _, c := range []struct {
		name      string
		truncated bool
		findings  []pipeline.Finding
		want      string
	}{
		{"silent", false, nil, "Normality Undetermined"},
		{"a finding", false, []pipeline.Finding{said("Edema", pipeline.Present)}, "Abnormal"},
		{"contradiction", false, []pipeline.Finding{said("No Finding", pipeline.Present), said("Edema", pipeline.Present)}, "Abnormal"},
		{"normal", false, []pipeline.Finding{said("No Finding", pipeline.Present), said("Edema", pipeline.Absent)}, "Normal"},
		{"only absences", false, []pipeline.Finding{said("Edema", pipeline.Absent)}, "Normality Undetermined"},
		{"beyond the list", false, []pipeline.Finding{said("No Finding", pipeline.Absent), said("Edema", pipeline.Absent)}, "Abnormal"},
		{"perhaps beyond the list", false, []pipeline.Finding{said("No Finding", pipeline.Undetermined)}, "Normality Undetermined"},
		{"left open", false, []pipeline.Finding{said("No Finding", pipeline.Present), said("Edema", pipeline.Undetermined)}, "Normality Undetermined"},
		{"unfinished", true, []pipeline.Finding{said("No Finding", pipeline.Present)}, "Normality Undetermined"},
		{"not from a sentence", false, []pipeline.Finding{{Label: "No Finding", Presence: pipeline.Present}}, "Normality Undetermined"},
		{"a device", false, []pipeline.Finding{said("No Finding", pipeline.Present), said("Support Devices", pipeline.Present)}, "Normal"},
	} {
		in := input()
		in.Reading.Findings, in.Reading.Truncated = c.findings, c.truncated
		d, err := sr.Dataset(in, pipeline.FindingsSR)
		if err != nil {
			t.Fatal(c.name, err)
		}
		if tree := strings.Join(paths(d), "\n"); !strings.Contains(tree, "Overall Assessment = "+c.want+"\n") && !strings.HasSuffix(tree, "Overall Assessment = "+c.want) {
			t.Errorf("%s: no %q in\n%s", c.name, c.want, tree)
		}
	}
}

// TestPhantom: every document of a phantom reading says so in its series, its completion and its impression.
func TestPhantom(t *testing.T) {
	for _, kind := range sr.Kinds() {
		d, err := sr.Dataset(variants()["phantom"], kind)
		if err != nil {
			t.Fatal(err)
		}
		for _, tag := range []pipeline.Tag{pipeline.TagSeriesDescription, pipeline.TagCompletionFlagDescription} {
			if !strings.HasPrefix(d.String(tag), "PHANTOM") {
				t.Errorf("%s: %s is %q", kind, tag, d.String(tag))
			}
		}
		tree := strings.Join(paths(d), "\n")
		if !strings.Contains(tree, "TEXT Impression = PHANTOM") || kind == pipeline.NarrativeSR && !strings.Contains(tree, "TEXT Procedure Description = PHANTOM") {
			t.Errorf("%s: impression or procedure description does not say phantom in\n%s", kind, tree)
		}
	}
}

// TestNarrativeEvidence: each sentence has its evidence below it, in words.
func TestNarrativeEvidence(t *testing.T) {
	d, err := sr.Dataset(ranked(effusion()), pipeline.NarrativeSR)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	var sentence string
	for _, p := range paths(d) {
		name, value, _ := strings.Cut(p[strings.LastIndex(p, "/")+1:], " = ")
		switch name {
		case "CONTAINS TEXT Finding", "CONTAINS TEXT Impression":
			sentence = value
		case "INFERRED FROM TEXT Image evidence":
			got[sentence] = value
		}
	}
	want := map[string]string{
		"Small left pleural effusion.":   "Evidence: this image makes the sentence likelier than other patients' images do (rank 1 of 4 sentences). Uncalibrated: an order, no probability.",
		"No pneumothorax.":               "No evidence: this image does not make the sentence likelier than other patients' images do (rank 4 of 4 sentences). Uncalibrated: an order, no probability.",
		"The heart is perhaps enlarged.": "Evidence: this image makes the sentence likelier than other patients' images do (rank 3 of 4 sentences). Uncalibrated: an order, no probability.",
		"Small left effusion.":           "Evidence: this image makes the sentence likelier than other patients' images do (rank 2 of 4 sentences). Uncalibrated: an order, no probability.",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestNoEvidence: where a model's endpoint gives nothing to weigh sentences by, each says so, and none reads as if it had been found light.
func TestNoEvidence(t *testing.T) {
	d, err := sr.Dataset(variants()["elsewhere, without evidence"], pipeline.NarrativeSR)
	if err != nil {
		t.Fatal(err)
	}
	said, procedure := 0, ""
	for _, p := range paths(d) {
		name, value, _ := strings.Cut(p[strings.LastIndex(p, "/")+1:], " = ")
		switch name {
		case "INFERRED FROM TEXT Image evidence":
			said++
			if want := "No evidence available: the model's endpoint gives no log-probabilities. Whether the sentence rests on this image was not measured."; value != want {
				t.Errorf("%q, want %q", value, want)
			}
		default:
			if strings.Contains(p, "The model ran elsewhere") {
				procedure = p
			}
		}
	}
	if said != 4 {
		t.Errorf("%d sentences say so", said)
	}
	for _, want := range []string{"The model ran elsewhere; its endpoint calls it: medgemma-4b, root google/medgemma-4b-it,", "No evidence available for any sentence"} {
		if !strings.Contains(procedure, want) {
			t.Errorf("%q does not say %q", procedure, want)
		}
	}
}

// TestFlags: flags stand below their sentence and below the finding that it decides; what was removed is counted, and the rest is not called normal.
func TestFlags(t *testing.T) {
	in := variants()["flagged"]
	for kind, want := range map[pipeline.DocumentKind][]string{
		pipeline.NarrativeSR: {
			"INFERRED FROM TEXT Comparison without an earlier image = It speaks of change", "INFERRED FROM TEXT Conflict about the side = The findings place",
			"INFERRED FROM TEXT Conflict with findings head = The model's findings head",
			"Flagged sentences of the model that were removed from this draft: 1 (Contradiction between sentences: 1).",
			"(rank 1 of 4 sentences). Of planted sentences with such evidence 75 % were true (held out films: 400 sentences, half of them true). This is not the probability of a finding.",
		},
		pipeline.FindingsSR: {
			"CONTAINS TEXT Comparison without an earlier image = ", "CONTAINS TEXT Conflict about the side = ",
			"CONTAINS TEXT Sentences removed = Flagged sentences of the model that were removed from this draft: 1",
		},
	} {
		d, err := sr.Dataset(in, kind)
		if err != nil {
			t.Fatal(err)
		}
		tree := strings.Join(paths(d), "\n")
		for _, w := range want {
			if !strings.Contains(tree, w) {
				t.Errorf("%s: no %q in\n%s", kind, w, tree)
			}
		}
		if strings.Contains(tree, "There is no pleural effusion") || strings.Count(tree, "Conflict with findings head") > 1 {
			t.Errorf("%s: a removed sentence, or a conflict twice, in\n%s", kind, tree)
		}
	}
	normal := variants()["normal"]
	normal.Reading.Dropped = in.Reading.Dropped
	d, err := sr.Dataset(normal, pipeline.FindingsSR)
	if err != nil {
		t.Fatal(err)
	}
	if tree := strings.Join(paths(d), "\n"); !strings.Contains(tree, "Overall Assessment = Normality Undetermined") {
		t.Errorf("a report from which something was removed is called normal:\n%s", tree)
	}
}

func TestRepeatedText(t *testing.T) {
	d, err := sr.Dataset(variants()["broken header"], pipeline.FindingsSR)
	if err != nil {
		t.Fatal(err)
	}
	for tag, want := range map[pipeline.Tag]string{
		pipeline.TagPatientName: "Doe^Jane", pipeline.TagPatientSex: "", pipeline.TagPatientBirthDate: "", pipeline.TagStudyTime: "",
		pipeline.TagStudyID: "", pipeline.TagTimezoneOffsetFromUTC: "+0000", pipeline.TagContentTime: "160500",
	} {
		if got := d.String(tag); got != want {
			t.Errorf("%s is %q, not %q", tag, got, want)
		}
	}
	for _, tag := range []pipeline.Tag{pipeline.TagPatientAge, pipeline.TagPatientSize, pipeline.TagPatientWeight} {
		if _, ok := d.Get(tag); ok {
			t.Errorf("%s is repeated though it is invalid", tag)
		}
	}
	if d, err = sr.Dataset(variants()["full"], pipeline.FindingsSR); err != nil {
		t.Fatal(err)
	}
	if zone, at := d.String(pipeline.TagTimezoneOffsetFromUTC), d.String(pipeline.TagContentTime); zone != "+0530" || at != "213500" {
		t.Errorf("16:05 UTC became %s in zone %s", at, zone)
	}
	in := input() // an identifier is repeated as it is, or not at all
	in.Header.SetText(pipeline.TagPatientID, "LO", "00  12")
	in.Header.SetText(pipeline.TagAccessionNumber, "SH", "ACC-2026-1123-000017")
	in.Header.SetText(pipeline.TagIssuerOfPatientID, "LO", strings.Repeat("9", 65))
	if d, err = sr.Dataset(in, pipeline.FindingsSR); err != nil {
		t.Fatal(err)
	}
	if id, acc, issuer := d.String(pipeline.TagPatientID), d.String(pipeline.TagAccessionNumber), d.String(pipeline.TagIssuerOfPatientID); id != "00  12" || acc != "ACC-2026-1123-000017" || issuer != "" {
		t.Errorf("identifiers became %q, %q, %q", id, acc, issuer)
	}
}

// Timezone Offset From UTC speaks of all times of the object, those repeated from the study among them.
func TestZone(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, offset, studyDate, studyTime string
		zone, date, time                   string
	}{
		{"the header's", "-0500", "20261123", "093000", "-0500", "20261123", "180500"},
		{"the installation's", "", "20261123", "093000", "+0100", "20261124", "000500"},
		{"the installation's at the time of the study", "", "20260701", "0930", "+0200", "20261124", "010500"},
		{"the installation's, no time of the study", "", "20260701", "", "+0200", "20261124", "010500"},
		{"the installation's, no date of the study", "", "", "093000", "+0100", "20261124", "000500"},
		{"the installation's, no offset", "+9900", "20261123", "093000.5", "+0100", "20261124", "000500"},
	} {
		in := input()
		in.Zone, in.Reading.Created = berlin, time.Date(2026, 11, 23, 23, 5, 0, 0, time.UTC)
		in.Header.SetText(pipeline.TagTimezoneOffsetFromUTC, "SH", tc.offset)
		in.Header.SetText(pipeline.TagStudyDate, "DA", tc.studyDate)
		in.Header.SetText(pipeline.TagStudyTime, "TM", tc.studyTime)
		for _, kind := range sr.Kinds() {
			d, err := sr.Dataset(in, kind)
			if err != nil {
				t.Fatal(err)
			}
			equipment := d.Items(pipeline.TagContributingEquipmentSequence)[0]
			for tag, want := range map[pipeline.Tag]string{
				pipeline.TagTimezoneOffsetFromUTC: tc.zone, pipeline.TagStudyDate: tc.studyDate, pipeline.TagStudyTime: tc.studyTime,
				pipeline.TagContentDate: tc.date, pipeline.TagContentTime: tc.time,
				pipeline.TagInstanceCreationDate: tc.date, pipeline.TagInstanceCreationTime: tc.time,
			} {
				if got := d.String(tag); got != want {
					t.Errorf("%s, %s: %s is %q, not %q", tc.name, kind, tag, got, want)
				}
			}
			if got, want := equipment.String(pipeline.TagContributionDateTime), tc.date+tc.time+tc.zone; got != want {
				t.Errorf("%s, %s: contributed at %q, not %q", tc.name, kind, got, want)
			}
		}
	}
}
