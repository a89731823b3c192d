package dicom

import (
	"strconv"
	"strings"
	"time"

	"chatxray/pipeline"
)

// younger reports whether a header says that the patient had fewer than so many years at the time of the study: Patient's Age
// (0010,1010), or Patient's Birth Date (0010,0030) and the date of the study or image. Where the two disagree, the younger counts.
// A header that tells no age says nothing.
func younger(h pipeline.Dataset, years int) bool {
	return years > 0 && (ageBelow(h.String(pipeline.TagPatientAge), years) || bornWithin(h, years))
}

// ageBelow judges an Age String (PS3.5 section 6.2): a number and D, W, M or Y.
func ageBelow(age string, years int) bool {
	if age == "" {
		return false
	}
	n, err := strconv.ParseUint(age[:len(age)-1], 10, 32)
	perYear := map[string]float64{"D": 365.25, "W": 365.25 / 7, "M": 12, "Y": 1}[strings.ToUpper(age[len(age)-1:])]
	return err == nil && perYear > 0 && float64(n)/perYear < float64(years)
}

func bornWithin(h pipeline.Dataset, years int) bool {
	born, err := time.Parse("20060102", h.String(pipeline.TagPatientBirthDate))
	if err != nil {
		return false
	}
	for _, t := range []pipeline.Tag{pipeline.TagStudyDate, pipeline.TagAcquisitionDate, pipeline.TagSeriesDate, pipeline.TagContentDate} {
		if taken, err := time.Parse("20060102", h.String(t)); err == nil {
			return !taken.Before(born) && taken.Before(born.AddDate(years, 0, 0))
		}
	}
	return false
}
