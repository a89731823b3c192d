package archive_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chatxray/pipeline"
	"chatxray/pipeline/archive"
	"chatxray/pipeline/dicom"
)

// searched has five studies whose last number names them.
func searched(t *testing.T) *archive.Archive {
	a := open(t, t.TempDir(), archive.Options{})
	const utf8 = "ISO_IR 192"
	edits := [][]any{
		{pipeline.TagPatientName, "Doe^John", pipeline.TagPatientID, "ID-1", pipeline.TagStudyDate, "20200101", pipeline.TagStudyTime, "0930", pipeline.TagAccessionNumber, "ACC1"},
		{pipeline.TagPatientName, "DOE^JANE", pipeline.TagPatientID, "ID-2", pipeline.TagStudyDate, "20200215", pipeline.TagStudyTime, "120000.5", pipeline.TagAccessionNumber, "ACC2", pipeline.TagModality, "CR"},
		{pipeline.TagSpecificCharacterSet, utf8, pipeline.TagPatientName, "Müller^Jörg", pipeline.TagPatientID, "id_3", pipeline.TagStudyDate, "20201231", pipeline.TagStudyTime, "235959"},
		{pipeline.TagSpecificCharacterSet, utf8, pipeline.TagPatientName, "Yamada^Tarou=山田^太郎=やまだ^たろう", pipeline.TagPatientID, "[x]", pipeline.TagStudyDate, "", pipeline.TagStudyTime, ""},
		{pipeline.TagPatientName, "", pipeline.TagPatientID, "", pipeline.TagStudyDate, "20210101", pipeline.TagReferringPhysicianName, "House^Gregory"},
	}
	for i, e := range edits {
		study := fmt.Sprint("1.2.", i+1)
		mustStore(t, a, object(t, study, study+".1", study+".1.1", e...))
	}
	mustStore(t, a, object(t, "1.2.1", "1.2.1.2", "1.2.1.2.7", pipeline.TagModality, "SR", pipeline.TagSeriesNumber, "2", pipeline.TagInstanceNumber, "007"))
	return a
}

func TestSearch(t *testing.T) { onEach(t, testSearch) }

func testSearch(t *testing.T) {
	a := searched(t)
	study, series, instance := pipeline.StudyLevel, pipeline.SeriesLevel, pipeline.InstanceLevel
	for _, c := range []struct {
		level pipeline.Level
		tag   pipeline.Tag
		value string
		want  string // last numbers of the UIDs
	}{
		{study, pipeline.TagPatientName, "", "1 2 3 4 5"},
		{study, pipeline.TagPatientName, "*", "1 2 3 4 5"},
		{study, pipeline.TagPatientName, "doe^john", "1"},
		{study, pipeline.TagPatientName, "DOE*", "1 2"},
		{study, pipeline.TagPatientName, "Doe^J?n*", "2"},
		{study, pipeline.TagPatientName, "*j*", "1 2 3"},
		{study, pipeline.TagPatientName, "muller*", "3"},
		{study, pipeline.TagPatientName, "MÜLLER^JÖRG^^", "3"},
		{study, pipeline.TagPatientName, "山田*", "4"},
		{study, pipeline.TagPatientName, "やまだ^たろう", "4"},
		{study, pipeline.TagPatientName, "doe", ""},
		{study, pipeline.TagPatientName, "' OR 1=1 --", ""},
		{study, pipeline.TagPatientID, "ID-1", "1"},
		{study, pipeline.TagPatientID, "id-1", ""},
		{study, pipeline.TagPatientID, "ID*", "1 2"},
		{study, pipeline.TagPatientID, "id_?", "3"},
		{study, pipeline.TagPatientID, "[x]", "4"},
		{study, pipeline.TagPatientID, "[x*", "4"},
		{study, pipeline.TagPatientID, "?-*", ""},
		{study, pipeline.TagStudyDate, "20200101", "1"},
		{study, pipeline.TagStudyDate, "20200101-20200331", "1 2"},
		{study, pipeline.TagStudyDate, "20200301-", "3 5"},
		{study, pipeline.TagStudyDate, "-20200215", "1 2"},
		{study, pipeline.TagStudyTime, "09-12", "1 2 5"},
		{study, pipeline.TagStudyTime, "1200-", "2 3"},
		{study, pipeline.TagAccessionNumber, "ACC?", "1 2"},
		{study, pipeline.TagModalitiesInStudy, "DX", "1 3 4 5"},
		{study, pipeline.TagModalitiesInStudy, "SR", "1"},
		{study, pipeline.TagReferringPhysicianName, "house*", "5"},
		{study, pipeline.TagStudyInstanceUID, "1.2.2,1.2.4", "2 4"},
		{study, pipeline.TagStudyInstanceUID, `1.2.2\1.2.9`, "2"},
		{series, pipeline.TagModality, "SR", "2"},
		{series, pipeline.TagPatientID, "ID-1", "1 2"},
		{series, pipeline.TagSeriesNumber, "02", "2"},
		{instance, pipeline.TagInstanceNumber, "7", "7"},
		{instance, pipeline.TagSOPClassUID, "1.2.840.10008.5.1.4.1.1.88.33", ""},
		{instance, pipeline.TagSeriesInstanceUID, "1.2.1.2", "7"},
	} {
		t.Run(fmt.Sprintf("%s %s=%s", c.level, c.tag, c.value), func(t *testing.T) {
			found, err := a.Search(context.Background(), pipeline.Query{Level: c.level, Match: []pipeline.Match{{Tag: c.tag, Value: c.value}}})
			got := found.Results
			if err != nil || found.Left > 0 {
				t.Fatal(found.Left, err)
			}
			if diff := cmp.Diff(strings.Fields(c.want), strings.Fields(last(got, c.level))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// last names results by the last number of their UID.
func last(results []pipeline.Dataset, level pipeline.Level) string {
	tag := [...]pipeline.Tag{pipeline.TagStudyInstanceUID, pipeline.TagSeriesInstanceUID, pipeline.TagSOPInstanceUID}[level]
	var out []string
	for _, d := range results {
		uid := d.String(tag)
		out = append(out, uid[strings.LastIndex(uid, ".")+1:])
	}
	return strings.Join(out, " ")
}

func TestSearchRefuses(t *testing.T) {
	a := searched(t)
	for _, c := range []struct {
		level pipeline.Level
		tag   pipeline.Tag
		value string
	}{
		{pipeline.StudyLevel, pipeline.TagPatientComments, "x"},
		{pipeline.StudyLevel, pipeline.TagModality, "DX"},
		{pipeline.StudyLevel, pipeline.TagStudyDate, "yesterday"},
		{pipeline.StudyLevel, pipeline.TagStudyDate, "-"},
		{pipeline.StudyLevel, pipeline.TagStudyTime, "9"},
		{pipeline.StudyLevel, pipeline.TagStudyInstanceUID, "x"},
		{pipeline.StudyLevel, pipeline.TagPatientID, strings.Repeat("*a", 9)},
		{pipeline.StudyLevel, pipeline.TagPatientID, strings.Repeat("a", 600)},
		{pipeline.SeriesLevel, pipeline.TagSeriesNumber, "one"},
		{pipeline.StudyLevel, pipeline.TagStudyInstanceUID, strings.Repeat("1.2,", 501)},
	} {
		_, err := a.Search(context.Background(), pipeline.Query{Level: c.level, Match: []pipeline.Match{{Tag: c.tag, Value: c.value}}})
		if !errors.Is(err, pipeline.ErrInvalid) || !strings.Contains(err.Error(), c.tag.String()) {
			t.Errorf("%s %.20s: %v", c.tag, c.value, err)
		}
	}
}

func TestSearchPages(t *testing.T) { onEach(t, testSearchPages) }

func testSearchPages(t *testing.T) {
	a := searched(t)
	var got []string
	for offset := 0; ; offset += 2 {
		page, err := a.Search(context.Background(), pipeline.Query{Limit: 2, Offset: offset})
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, last(page.Results, pipeline.StudyLevel))
		if page.Left == 0 {
			break
		}
	}
	if diff := cmp.Diff([]string{"1 2", "3 4", "5"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestSearchAttributes(t *testing.T) { onEach(t, testSearchAttributes) }

func testSearchAttributes(t *testing.T) {
	a := searched(t)
	found, err := a.Search(context.Background(), pipeline.Query{Match: []pipeline.Match{{Tag: pipeline.TagStudyInstanceUID, Value: "1.2.1"}}})
	if err != nil {
		t.Fatal(err)
	}
	var want pipeline.Dataset
	text := func(tag pipeline.Tag, vr string, v ...string) { want.SetText(tag, vr, v...) }
	text(pipeline.TagStudyDate, "DA", "20200101")
	text(pipeline.TagStudyTime, "TM", "0930")
	text(pipeline.TagAccessionNumber, "SH", "ACC1")
	text(pipeline.TagInstanceAvailability, "CS", "ONLINE")
	text(pipeline.TagModalitiesInStudy, "CS", "DX", "SR")
	text(pipeline.TagSOPClassesInStudy, "UI", "1.2.840.10008.5.1.4.1.1.1.1")
	text(pipeline.TagReferringPhysicianName, "PN")
	text(pipeline.TagPatientName, "PN", "Doe^John")
	text(pipeline.TagPatientID, "LO", "ID-1")
	text(pipeline.TagPatientBirthDate, "DA")
	text(pipeline.TagPatientSex, "CS")
	text(pipeline.TagStudyInstanceUID, "UI", "1.2.1")
	text(pipeline.TagStudyID, "SH")
	text(pipeline.TagNumberOfStudyRelatedSeries, "IS", "2")
	text(pipeline.TagNumberOfStudyRelatedInstances, "IS", "2")
	if diff := cmp.Diff([]pipeline.Dataset{want}, found.Results); diff != "" {
		t.Error(diff)
	}
}

// TestNumbersThatJSONLacks: an attribute that the index cannot write does not take the others with it.
func TestNumbersThatJSONLacks(t *testing.T) { onEach(t, testNumbersThatJSONLacks) }

func testNumbersThatJSONLacks(t *testing.T) {
	var item, d pipeline.Dataset
	item.SetText(pipeline.TagScheduledProcedureStepID, "SH", "S7")
	item.Set(pipeline.Element{Tag: 0x00409225, VR: "FD", Floats: []float64{math.NaN()}})
	for tag, uid := range map[pipeline.Tag]string{pipeline.TagSOPClassUID: "1.2.840.10008.5.1.4.1.1.1.1", pipeline.TagSOPInstanceUID: "1.2.3.4",
		pipeline.TagSeriesInstanceUID: "1.2.3", pipeline.TagStudyInstanceUID: "1.2"} {
		d.SetText(tag, "UI", uid)
	}
	d.SetText(pipeline.TagModality, "CS", "DX")
	d.SetItems(pipeline.TagRequestAttributesSequence, item)
	b, err := dicom.Encode(d)
	if err != nil {
		t.Fatal(err)
	}
	a := open(t, t.TempDir(), archive.Options{})
	mustStore(t, a, b)
	found, err := a.Search(t.Context(), pipeline.Query{Level: pipeline.SeriesLevel,
		Match: []pipeline.Match{{In: pipeline.TagRequestAttributesSequence, Tag: pipeline.TagScheduledProcedureStepID, Value: "S7"}}})
	if err != nil || len(found.Results) != 1 || found.Results[0].String(pipeline.TagSeriesInstanceUID) != "1.2.3" || found.Results[0].String(pipeline.TagModality) != "DX" {
		t.Errorf("%v %v", found.Results, err)
	}
}
