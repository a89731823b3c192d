package sr

import (
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"chatxray/pipeline"
)

// repeated are the attributes of the Patient, Patient Study and General Study modules (PS3.3 sections C.7.1.1, C.7.2.2, C.7.2.1)
// that a document repeats from the image's header. A Type 2 attribute is written even when it is empty. A value that breaks its
// VR is left out; an identifier is never changed: see identifier.
var repeated = []struct {
	tag   pipeline.Tag
	vr    string
	type2 bool
	fit   func(string) string
}{
	{pipeline.TagPatientName, "PN", true, personName},
	{pipeline.TagPatientID, "LO", true, identifier},
	{pipeline.TagIssuerOfPatientID, "LO", false, identifier},
	{pipeline.TagPatientBirthDate, "DA", true, date},
	{pipeline.TagPatientSex, "CS", true, oneOf("M", "F", "O")},
	{pipeline.TagPatientAge, "AS", false, matching(`[0-9]{3}[DWMY]`)},
	{pipeline.TagPatientSize, "DS", false, decimal},
	{pipeline.TagPatientWeight, "DS", false, decimal},
	{pipeline.TagStudyDate, "DA", true, date},
	{pipeline.TagStudyTime, "TM", true, clock},
	{pipeline.TagReferringPhysicianName, "PN", true, personName},
	{pipeline.TagStudyID, "SH", true, identifier},
	{pipeline.TagAccessionNumber, "SH", true, identifier},
	{pipeline.TagStudyDescription, "LO", false, phrase},
}

// patientAndStudy repeats the modules above. The study is the reading's own.
func (d *draft) patientAndStudy(ds *pipeline.Dataset) {
	for _, a := range repeated {
		if v := a.fit(d.Header.String(a.tag)); v != "" {
			ds.SetText(a.tag, a.vr, v)
		} else if a.type2 {
			ds.SetText(a.tag, a.vr)
		}
	}
	ds.SetText(pipeline.TagStudyInstanceUID, "UI", d.Reading.StudyInstanceUID)
	// Patient Identity Removed needs a method beside it (Type 1C); both are repeated, or neither.
	method := phrase(d.Header.String(pipeline.TagDeidentificationMethod))
	if removed := d.Header.String(pipeline.TagPatientIdentityRemoved); removed == "YES" && method != "" {
		ds.SetText(pipeline.TagPatientIdentityRemoved, "CS", removed)
		ds.SetText(pipeline.TagDeidentificationMethod, "LO", method)
	}
}

// requests are the items of the Referenced Request Sequence (PS3.3 section C.17.2): one for each item of the image's Request
// Attributes Sequence, else one from the study's own attributes. All of them are of Type 2 but the study.
func (d *draft) requests() []pipeline.Dataset {
	sources := d.Header.Items(pipeline.TagRequestAttributesSequence)
	if len(sources) == 0 {
		sources = []pipeline.Dataset{d.Header}
	}
	const most = 16 // no real image fulfils more requests
	var items []pipeline.Dataset
	for _, src := range sources[:min(len(sources), most)] {
		first := func(t pipeline.Tag, fit func(string) string) []string {
			for _, from := range []pipeline.Dataset{src, d.Header} {
				if v := fit(from.String(t)); v != "" {
					return []string{v}
				}
			}
			return nil
		}
		item := make(pipeline.Dataset, 0, 8)
		item.SetText(pipeline.TagStudyInstanceUID, "UI", d.Reading.StudyInstanceUID)
		item.SetItems(pipeline.TagReferencedStudySequence)
		item.SetText(pipeline.TagAccessionNumber, "SH", first(pipeline.TagAccessionNumber, identifier)...)
		item.SetText(pipeline.TagPlacerOrderNumberImagingServiceRequest, "LO", first(pipeline.TagPlacerOrderNumberImagingServiceRequest, identifier)...)
		item.SetText(pipeline.TagFillerOrderNumberImagingServiceRequest, "LO", first(pipeline.TagFillerOrderNumberImagingServiceRequest, identifier)...)
		item.SetText(pipeline.TagRequestedProcedureID, "SH", first(pipeline.TagRequestedProcedureID, identifier)...)
		item.SetText(pipeline.TagRequestedProcedureDescription, "LO", first(pipeline.TagRequestedProcedureDescription, phrase)...)
		codes := wholeCodes(src.Items(pipeline.TagRequestedProcedureCodeSequence))
		item.SetItems(pipeline.TagRequestedProcedureCodeSequence, codeItems(codes)...)
		items = append(items, item)
	}
	return items
}

// procedureCodes are the whole codes of the study's Procedure Code Sequence, else those of the requested procedure.
func (d *draft) procedureCodes() []code {
	for _, items := range [][]pipeline.Dataset{
		d.Header.Items(pipeline.TagProcedureCodeSequence), d.Header.Items(pipeline.TagRequestedProcedureCodeSequence),
	} {
		if codes := wholeCodes(items); len(codes) > 0 {
			return codes
		}
	}
	return nil
}

// wholeCodes keeps the items that have a value, a scheme and a meaning, each within its length; at most eight.
func wholeCodes(items []pipeline.Dataset) []code {
	var codes []code
	for _, it := range items {
		c := code{it.String(pipeline.TagCodeValue), it.String(pipeline.TagCodingSchemeDesignator), phrase(it.String(pipeline.TagCodeMeaning)), nil}
		if isName(c.Value) && len(c.Value) <= 16 && isName(c.Scheme) && len(c.Scheme) <= 16 && c.Meaning != "" && len(codes) < 8 {
			codes = append(codes, c)
		}
	}
	return codes
}

func codeItems(codes []code) []pipeline.Dataset {
	var items []pipeline.Dataset
	for _, c := range codes {
		items = append(items, codeItem(c))
	}
	return items
}

// zone is the offset that all dates and times of a document are in, the repeated ones of the study among them: Timezone Offset From
// UTC (PS3.3 section C.12.1.1.8) speaks of the whole object. It is the header's where the header has one, else that of the local zone
// at the time of the study, so that a summer's study is told right in winter too.
func zone(h pipeline.Dataset, local *time.Location, created time.Time) *time.Location {
	if t, err := time.Parse("-0700", h.String(pipeline.TagTimezoneOffsetFromUTC)); err == nil {
		if _, offset := t.Zone(); offset >= -12*3600 && offset <= 14*3600 {
			return time.FixedZone("", offset)
		}
	}
	at, err := time.ParseInLocation("20060102150405",
		date(h.String(pipeline.TagStudyDate))+(clock(h.String(pipeline.TagStudyTime)) + "120000")[:6], local)
	if err != nil {
		at = created.In(local)
	}
	_, offset := at.Zone()
	return time.FixedZone("", offset/60*60)
}

// identifier lets an identifier through as it is, or not at all: a cut identifier would be another one. One that is longer than
// its VR allows passes up to 64 characters, as the archive that the document goes to has the images under that very value.
func identifier(s string) string {
	if s != printable(s) || utf8.RuneCountInString(s) > 64 {
		return ""
	}
	return s
}

// phrase makes any text one value of a Long String: no control characters, no backslash, at most 64 characters.
func phrase(s string) string { return cut(printable(s), 64) }

// personName keeps the component groups of a person name (PS3.5 section 6.2.1) within 64 characters each.
func personName(s string) string {
	groups := strings.Split(printable(s), "=")
	groups = groups[:min(len(groups), 3)]
	for i, g := range groups {
		components := strings.Split(g, "^")
		groups[i] = cut(strings.Join(components[:min(len(components), 5)], "^"), 64)
	}
	return strings.TrimRightFunc(strings.Join(groups, "="), func(r rune) bool { return r == '=' || unicode.IsSpace(r) })
}

// printable drops what may not stand in one value of text: control characters, the backslash, what is no UTF-8, and white space
// at the ends.
func printable(s string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\\' {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "")))
}

// cut shortens a text to n characters, not in the middle of a letter and its marks.
func cut(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	r := []rune(s)
	for n > 0 && unicode.Is(unicode.M, r[n]) {
		n--
	}
	return strings.TrimSpace(string(r[:n]))
}

func date(s string) string {
	if t, err := time.Parse("20060102", s); err != nil || t.Year() < 1 {
		return ""
	}
	return s
}

var clock = matching(`([01][0-9]|2[0-3])([0-5][0-9](([0-5][0-9]|60)(\.[0-9]{1,6})?)?)?`)

func decimal(s string) string {
	if f, err := strconv.ParseFloat(s, 64); err != nil || f <= 0 || len(s) > 16 || strings.Trim(s, "0123456789.eE+-") != "" {
		return ""
	}
	return s
}

func oneOf(words ...string) func(string) string { return matching(strings.Join(words, "|")) }

func matching(pattern string) func(string) string {
	re := regexp.MustCompile(`^(?:` + pattern + `)$`)
	return func(s string) string {
		if !re.MatchString(s) {
			return ""
		}
		return s
	}
}
