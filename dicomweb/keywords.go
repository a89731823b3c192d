package dicomweb

import (
	"slices"
	"strings"

	"chatxray/pipeline"
)

// keywords are those of the keys that a search knows at each level, beside those of the levels above.
var keywords = [...][]string{
	pipeline.StudyLevel: {"StudyInstanceUID", "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
		"AccessionNumber", "StudyID", "ReferringPhysicianName", "StudyDescription", "ModalitiesInStudy", "SOPClassesInStudy"},
	pipeline.SeriesLevel: {"SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription", "SeriesDate", "SeriesTime", "BodyPartExamined", "Laterality",
		"PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime"},
	pipeline.InstanceLevel: {"SOPInstanceUID", "SOPClassUID", "InstanceNumber"},
}

// meant guesses what a name was meant to be that means nothing at a level: another case, a tag with its punctuation, up to two letters that
// are wrong, too many or missing. Empty where nothing is near.
func meant(name string, level pipeline.Level) string {
	if len(name) > 40 {
		return ""
	}
	if name == "Modality" { // of series
		return "ModalitiesInStudy"
	}
	if tag := strings.ToUpper(strings.NewReplacer("(", "", ")", "", ",", "").Replace(name)); len(tag) == 8 && tag != strings.ToUpper(name) && strings.Trim(tag, "0123456789ABCDEF") == "" {
		return tag
	}
	best, least := "", 3
	for l := range level + 1 {
		for _, k := range keywords[l] {
			if d := distance(strings.ToLower(name), strings.ToLower(k)); d < least && name != k {
				best, least = k, d
			}
		}
	}
	return best
}

// distance is how many letters must be changed, put in or taken out to make one word of another.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

// orderPattern is what orderby may be at the level of the study.
func orderPattern() string {
	sortable := slices.DeleteFunc(slices.Clone(keywords[pipeline.StudyLevel]), func(k string) bool { return strings.HasSuffix(k, "InStudy") })
	one := "-?(" + strings.Join(sortable, "|") + ")"
	return "^(" + one + "(," + one + "){0,7})?$"
}
