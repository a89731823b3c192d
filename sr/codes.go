package sr

import (
	"slices"

	"chatxray/pipeline"
)

// code is one coded concept (PS3.3 section 8.8). Value has at most 16 characters.
type code struct {
	Value, Scheme, Meaning string
	// Same is a code of equal meaning, written as Equivalent Code Sequence (0008,0121).
	Same *code
}

// private is the coding scheme of our own codes.
const private = "99CHATXRAY"

// codesVersion is the version of the private codes and of the table of labels. It grows with each change to either.
const codesVersion = "2"

// noFinding is the one label without an item: it becomes the Overall Assessment.
const noFinding = "No Finding"

// source says where the code of a label comes from.
type source string

const (
	contextGroup source = "DICOM context group" // PS3.16
	secondary    source = "secondary source"    // published tables that contradict each other: to be signed off by a person
	ownCode      source = "private"
)

// labels is the table of the closed list. A code from a secondary source always carries the private one beside it, so that a
// later correction of the table does not change what old documents say.
var labels = []struct {
	Label string
	code
	Private string // code value in our own scheme
	Source  source
}{
	{"Enlarged Cardiomediastinum", code{}, "enl-cardiomed", ownCode},
	{"Cardiomegaly", code{"8186001", "SCT", "Cardiomegaly", nil}, "cardiomegaly", secondary},
	{"Lung Lesion", code{}, "lung-lesion", ownCode},
	{"Lung Opacity", code{"112001", "DCM", "Opacity", nil}, "lung-opacity", contextGroup},
	{"Edema", code{"19242006", "SCT", "Pulmonary edema", nil}, "edema", contextGroup},
	{"Consolidation", code{"95436008", "SCT", "Lung consolidation", nil}, "consolidation", secondary},
	{"Pneumonia", code{"233604007", "SCT", "Pneumonia", nil}, "pneumonia", secondary},
	{"Atelectasis", code{"46621007", "SCT", "Atelectasis", nil}, "atelectasis", secondary},
	{"Pneumothorax", code{"36118008", "SCT", "Pneumothorax", nil}, "pneumothorax", contextGroup},
	{"Pleural Effusion", code{"60046008", "SCT", "Pleural effusion", nil}, "pleural-effusion", contextGroup},
	{"Pleural Other", code{"301256004", "SCT", "Pleural finding", nil}, "pleural-other", secondary},
	{"Fracture", code{"125605004", "SCT", "Fracture", nil}, "fracture", secondary},
	{"Support Devices", code{}, "support-devices", ownCode},
}

// labelCode returns the code of a label of pipeline.Labels; false for an unknown label and for "No Finding".
func labelCode(label string) (code, bool) {
	for _, l := range labels {
		if l.Label != label {
			continue
		}
		own, c := code{l.Private, private, l.Label, nil}, l.code
		switch l.Source {
		case ownCode:
			return own, true
		case secondary:
			c.Same = &own
		}
		return c, true
	}
	return code{}, false
}

// Concept names and values of the templates (PS3.16 Annex D and the context groups).
var (
	imagingMeasurementReport = code{"126000", "DCM", "Imaging Measurement Report", nil}
	imagingMeasurements      = code{"126010", "DCM", "Imaging Measurements", nil}
	measurementGroup         = code{"125007", "DCM", "Measurement Group", nil}
	imageLibrary             = code{"111028", "DCM", "Image Library", nil}
	imageLibraryGroup        = code{"126200", "DCM", "Image Library Group", nil}
	modality                 = code{"121139", "DCM", "Modality", nil}
	trackingIdentifier       = code{"112039", "DCM", "Tracking Identifier", nil}
	trackingUniqueIdentifier = code{"112040", "DCM", "Tracking Unique Identifier", nil}
	finding                  = code{"121071", "DCM", "Finding", nil}
	impression               = code{"121073", "DCM", "Impression", nil}
	procedureDescription     = code{"121065", "DCM", "Procedure Description", nil}
	narrativeSummary         = code{"111412", "DCM", "Narrative Summary", nil}
	overallAssessment        = code{"111413", "DCM", "Overall Assessment", nil}
	algorithmName            = code{"111001", "DCM", "Algorithm Name", nil}
	algorithmVersion         = code{"111003", "DCM", "Algorithm Version", nil}
	sourceOfMeasurement      = code{"121112", "DCM", "Source of Measurement", nil}
	bestIllustration         = code{"121080", "DCM", "Best illustration of finding", nil}
	languageOfContent        = code{"121049", "DCM", "Language of Content Item and Descendants", nil}
	countryOfLanguage        = code{"121046", "DCM", "Country of Language", nil}
	observerType             = code{"121005", "DCM", "Observer Type", nil}
	deviceObserver           = code{"121007", "DCM", "Device", nil}
	deviceObserverUID        = code{"121012", "DCM", "Device Observer UID", nil}
	deviceObserverName       = code{"121013", "DCM", "Device Observer Name", nil}
	deviceObserverMaker      = code{"121014", "DCM", "Device Observer Manufacturer", nil}
	deviceObserverModel      = code{"121015", "DCM", "Device Observer Model Name", nil}
	procedureReported        = code{"121058", "DCM", "Procedure reported", nil}
	processingEquipment      = code{"109102", "DCM", "Processing Equipment", nil}

	qualitativeEvaluations = code{"C0034375", "UMLS", "Qualitative Evaluations", nil}
	presence               = code{"705057003", "SCT", "Presence", nil}
	normal                 = code{"17621005", "SCT", "Normal", nil}
	abnormal               = code{"263654008", "SCT", "Abnormal", nil}
	normalityUndetermined  = code{"371934000", "SCT", "Normality Undetermined", nil}
	imagingProcedure       = code{"363679005", "SCT", "Imaging procedure", nil}

	diagnosticImagingReport = code{"18748-4", "LN", "Diagnostic Imaging Report", nil}
	procedureDescriptions   = code{"55111-9", "LN", "Current Procedure Descriptions", nil}
	findingsSection         = code{"59776-5", "LN", "Findings", nil}
	impressionsSection      = code{"19005-8", "LN", "Impressions", nil}

	imageEvidence = code{"image-evidence", private, "Image evidence", nil}
	headConflict  = code{"head-conflict", private, "Conflict with findings head", nil}
	comparison    = code{"comparison", private, "Comparison without an earlier image", nil}
	contradiction = code{"contradiction", private, "Contradiction between sentences", nil}
	wrongSide     = code{"side-conflict", private, "Conflict about the side", nil}
	ruleFlag      = code{"flag", private, "Flagged by a rule", nil}
	removed       = code{"removed", private, "Sentences removed", nil}
)

// flagName is the concept that a flag is written under.
func flagName(r pipeline.Rule) code {
	switch r {
	case pipeline.RuleComparison:
		return comparison
	case pipeline.RuleContradiction:
		return contradiction
	case pipeline.RuleHead:
		return headConflict
	case pipeline.RuleSide:
		return wrongSide
	}
	return ruleFlag
}

// presences is the coded value of what a report says about a label. "Not said" has none: it is not "absent".
var presences = map[pipeline.Presence]code{
	pipeline.Present:      {"52101004", "SCT", "Present", nil},
	pipeline.Absent:       {"272519000", "SCT", "Absent", nil},
	pipeline.Undetermined: {"373068000", "SCT", "Undetermined", nil},
}

// modalities are the codes of CID 29 that a chest radiograph may come with.
var modalities = map[string]code{
	"CR": {"CR", "DCM", "Computed Radiography", nil},
	"DX": {"DX", "DCM", "Digital Radiography", nil},
	"RF": {"RF", "DCM", "Radiofluoroscopy", nil},
	"RG": {"RG", "DCM", "Radiographic imaging", nil},
	"XA": {"XA", "DCM", "X-Ray Angiography", nil},
}

// schemes names the coding schemes (PS3.16 section 8). An empty UID is not written.
var schemes = map[string]struct{ UID, Name string }{
	"DCM":       {"1.2.840.10008.2.16.4", "DICOM Controlled Terminology"},
	"SCT":       {"2.16.840.1.113883.6.96", "SNOMED CT"},
	"LN":        {"2.16.840.1.113883.6.1", "LOINC"},
	"UMLS":      {"2.16.840.1.113883.6.86", "UMLS"},
	"UCUM":      {"2.16.840.1.113883.6.8", "UCUM"},
	"RFC5646":   {"", "Tags for Identifying Languages"},
	"ISO3166_1": {"", "ISO 3166-1 alpha-2 country codes"},
}

// codingSchemes identifies every coding scheme that a document uses, and always our own (PS3.3 section C.12.1.1.1).
func codingSchemes(d pipeline.Dataset) []pipeline.Dataset {
	used := usedSchemes(d, []string{private})
	slices.Sort(used)
	var items []pipeline.Dataset
	for _, s := range used {
		item := make(pipeline.Dataset, 0, 4)
		item.SetText(pipeline.TagCodingSchemeDesignator, "SH", s)
		if known, ok := schemes[s]; ok {
			if known.UID != "" {
				item.SetText(pipeline.TagCodingSchemeUID, "UI", known.UID)
			}
			item.SetText(pipeline.TagCodingSchemeName, "ST", known.Name)
		}
		if s == private {
			item.SetText(pipeline.TagCodingSchemeVersion, "SH", codesVersion)
			item.SetText(pipeline.TagCodingSchemeName, "ST", "ChatXRay private codes")
			item.SetText(pipeline.TagCodingSchemeResponsibleOrganization, "ST", Manufacturer)
		}
		items = append(items, item)
	}
	return items
}

// usedSchemes adds the coding schemes of a data set and of the items in it, each once.
func usedSchemes(d pipeline.Dataset, known []string) []string {
	for i := range d {
		if d[i].Tag == pipeline.TagCodingSchemeDesignator {
			for _, s := range d[i].Text {
				if !slices.Contains(known, s) {
					known = append(known, s)
				}
			}
		}
		for _, item := range d[i].Items {
			known = usedSchemes(item, known)
		}
	}
	return known
}
