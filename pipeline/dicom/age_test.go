package dicom_test

import (
	"testing"

	"chatxray/pipeline"
	"chatxray/pipeline/dicom"
)

func TestSelectByAge(t *testing.T) {
	age := func(s string) with { return str(pipeline.TagPatientAge, s) }
	born := func(birth, study string) with {
		return func(d *pipeline.Dataset) {
			str(pipeline.TagPatientBirthDate, birth)(d)
			str(pipeline.TagStudyDate, study)(d)
		}
	}
	for _, c := range []struct {
		name  string
		child bool // below 18
		in    []with
	}{
		{"17 years", true, []with{age("017Y")}},
		{"18 years", false, []with{age("018Y")}},
		{"215 months", true, []with{age("215M")}},
		{"216 months", false, []with{age("216M")}},
		{"939 weeks", true, []with{age("939W")}},
		{"940 weeks", false, []with{age("940W")}},
		{"999 days", true, []with{age("999D")}},
		{"a newborn", true, []with{age("000Y")}},
		{"without zeros", true, []with{age("9Y")}},
		{"the day before the birthday", true, []with{born("20081124", "20261123")}},
		{"the birthday", false, []with{born("20081124", "20261124")}},
		{"born on a 29 February", true, []with{born("20080229", "20260228")}},
		{"born on a 29 February, the day after", false, []with{born("20080229", "20260301")}},
		{"old", false, []with{born("19300101", "20261124"), age("096Y")}},
		{"the age says child", true, []with{born("19300101", "20261124"), age("009Y")}},
		{"the birth date says child", true, []with{born("20200101", "20261124"), age("096Y")}},
		{"no date of the study, one of the image", true, []with{born("20200101", ""), str(pipeline.TagContentDate, "20261124")}},
		// What tells no age.
		{"nothing", false, nil},
		{"no date of the study", false, []with{born("20200101", "")}},
		{"a unit alone", false, []with{age("Y")}},
		{"no unit", false, []with{age("009")}},
		{"an unknown unit", false, []with{age("009H")}},
		{"a negative age", false, []with{age("-09Y")}},
		{"no age", false, []with{age("Å")}},
		{"born after the study", false, []with{born("20270101", "20261124")}},
		{"a birth date that is none", false, []with{born("20201301", "20261124")}},
	} {
		st := &pipeline.Study{Instances: []*pipeline.Instance{chestPA(dxImage, c.in...)}}
		chosen, refused := dicom.Select(st, 18)
		if c.child != (len(refused) == 1) || len(chosen)+len(refused) != 1 || c.child && refused[0].Reason != dicom.Child {
			t.Errorf("%s: chosen %v, refused %v", c.name, chosen, refused)
		}
		if chosen, _ := dicom.Select(st, 0); len(chosen) != 1 {
			t.Errorf("%s: refused without a limit", c.name)
		}
	}
}
