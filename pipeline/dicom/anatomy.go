package dicom

import (
	"slices"
	"strings"
	"unicode"

	"chatxray/pipeline"
)

// What a header says of the body part and the view. Codes are believed before defined terms, and those before words in
// descriptions; the first attribute that says something decides.

type part int

const (
	partUnknown part = iota
	partChest
	partOther
)

// anatomyCodes are the Anatomic Region codes (PS3.16 CID 4009 and 4031; SNOMED CT and its older SRT form) of images that a reader of
// chest radiographs is made for. Every other code is another part, regions that reach beyond the chest among them.
var anatomyCodes = []string{
	"51185008", "T-D3000", // chest
	"816094009",           // chest, as SNOMED CT has it since 2020
	"39607008", "T-28000", // lung
	"310787001", "T-D03C3", // lung and mediastinum
	"86598002", "T-280A0", // apex of lung
}

// chestWords stand for the chest in Body Part Examined (CHEST is the defined term, PS3.16 annex L) and in descriptions.
var chestWords = []string{
	"CHEST", "CHESTPA", "CHESTAP", "CHESTLAT", "THORAX", "CXR", "LUNG", "LUNGS", "LUNGE", "LUNGEN", "TORAX", "TÓRAX", "TORACE",
	"POUMON", "POUMONS", "PULMONES", "KLATKA", "BRÖSTKORG", "胸部", "胸片",
}

// otherWords stand for parts that are not the chest, or not only the chest, in descriptions.
var otherWords = []string{
	"ABDOMEN", "ABD", "KUB", "PELVIS", "HIP", "HIPS", "KNEE", "KNEES", "HAND", "HANDS", "FOOT", "FEET", "ANKLE", "WRIST", "ELBOW",
	"SHOULDER", "SPINE", "SKULL", "HEAD", "NECK", "FEMUR", "TIBIA", "FIBULA", "HUMERUS", "FOREARM", "FINGER", "THUMB", "TOE",
	"RIB", "RIBS", "STERNUM", "CLAVICLE", "SCAPULA", "BREAST", "MAMMO", "TEETH", "TOOTH", "DENTAL", "JAW", "MANDIBLE", "SINUS",
	"SINUSES", "EXTREMITY", "SACRUM", "COCCYX", "HEEL", "CALCANEUS", "PATELLA", "THIGH", "LEG", "ARM", "CSPINE", "TSPINE", "LSPINE",
	"ESOPHAGUS", "STOMACH", "COLON", "BABYGRAM", "CHESTABDOMEN",
}

// noPart are values of Body Part Examined that name none.
var noPart = []string{"UNKNOWN", "OTHER", "NONE", "GENERAL", "PORTABLE", "XRAY", "DEFAULT", "NA"}

// descriptions are where operators and protocols write what is shown; those of the image before those of the study.
var descriptions = []pipeline.Tag{
	pipeline.TagAcquisitionDeviceProcessingDescription, pipeline.TagProtocolName, pipeline.TagSeriesDescription,
	pipeline.TagPerformedProcedureStepDescription, pipeline.TagRequestedProcedureDescription, pipeline.TagStudyDescription,
}

const ofTheImage = 3 // of descriptions

// inWords splits a text into its words: runs of letters, in capitals.
func inWords(s string) []string {
	return strings.FieldsFunc(strings.ToUpper(s), func(r rune) bool { return !unicode.IsLetter(r) })
}

func among(words, list []string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return slices.Contains(list, w) })
}

func partOf(h pipeline.Dataset) part {
	for _, item := range h.Items(pipeline.TagAnatomicRegionSequence) {
		if code := item.String(pipeline.TagCodeValue); code != "" {
			if slices.Contains(anatomyCodes, code) {
				return partChest
			}
			return partOther
		}
	}
	words := inWords(h.String(pipeline.TagBodyPartExamined))
	switch {
	case among(words, otherWords):
		return partOther
	case among(words, chestWords):
		return partChest
	case len(words) > 0 && !among(words, noPart):
		return partOther
	}
	for _, tag := range descriptions {
		words = inWords(h.String(tag))
		switch chest, other := among(words, chestWords), among(words, otherWords); {
		case chest && other:
			return partUnknown
		case chest:
			return partChest
		case other:
			return partOther
		}
	}
	return partUnknown
}

type view int

// In the order in which images are read.
const (
	viewPA view = iota
	viewAP
	viewFrontal // PA or AP, the header does not say which
	viewUnknown
	viewLateral
	viewOther // oblique, decubitus, lordotic ...
	viewAnimal
)

func (v view) frontal() bool { return v == viewPA || v == viewAP || v == viewFrontal }

// viewCodes are the codes of PS3.16 CID 4010 (DX View), SNOMED CT and SRT, that a chest radiograph is taken in. Every other code is
// another view.
var viewCodes = map[string]view{
	"272479007": viewPA, "R-10214": viewPA, "R-40888": viewPA,
	"399348003": viewAP, "R-10206": viewAP,
	"399033003": viewFrontal, "R-10202": viewFrontal,
	"399067008": viewLateral, "R-102CD": viewLateral, "49370004": viewLateral, "G-A104": viewLateral,
	"399198007": viewLateral, "R-10232": viewLateral, // right
	"399173006": viewLateral, "R-10236": viewLateral, // left
}

// viewWords are the defined terms of View Position (PS3.3 sections C.8.1.1 and C.8.11.5) and what is found in its place and in
// descriptions. The later win over the earlier: "AP lordotic" is lordotic. Two of PA, AP and lateral together say nothing of one image.
var viewWords = []struct {
	view  view
	words []string
}{
	{viewFrontal, []string{"FRONTAL", "FRONT"}},
	{viewPA, []string{"PA", "POSTEROANTERIOR"}},
	{viewAP, []string{"AP", "ANTEROPOSTERIOR"}},
	{viewLateral, []string{"LL", "RL", "LAT", "LATERAL", "LLAT", "RLAT", "LATERALE", "SEITLICH", "PROFIL", "PROFILE"}},
	{viewOther, []string{
		"LLO", "RLO", "LPO", "RPO", "LAO", "RAO", "OBL", "OBLIQUE", "LLD", "RLD", "DECUB", "DECUBITUS", "LORDOTIC", "APICAL", "AXIAL",
	}},
	{viewAnimal, []string{"VD", "DV"}},
}

// spokenView finds a view in a text.
func spokenView(s string) view {
	words := inWords(s)
	joined := strings.Join(words, "")
	for _, whole := range []string{"POSTEROANTERIOR", "ANTEROPOSTERIOR"} {
		if strings.Contains(joined, whole) {
			words = append(words, whole)
		}
	}
	found, several := viewUnknown, false
	for _, v := range viewWords {
		if !among(words, v.words) {
			continue
		}
		switch v.view {
		case viewAP:
			several = found == viewPA
		case viewLateral:
			several = several || found.frontal()
		default:
			several = false
		}
		found = v.view
	}
	if several {
		return viewUnknown
	}
	return found
}

func viewOf(h pipeline.Dataset) view {
	for _, item := range h.Items(pipeline.TagViewCodeSequence) {
		if code := item.String(pipeline.TagCodeValue); code != "" {
			if v, ok := viewCodes[code]; ok {
				return v
			}
			return viewOther
		}
	}
	if v := spokenView(h.String(pipeline.TagViewPosition)); v != viewUnknown {
		return v
	}
	if o := h.Strings(pipeline.TagPatientOrientation); len(o) == 2 && o[0] != "" && o[1] != "" {
		switch first := o[0][:1] + o[1][:1]; {
		case strings.ContainsAny(first, "AP"):
			return viewLateral
		case strings.ContainsAny(first, "LR"):
			return viewFrontal
		}
	}
	for _, tag := range descriptions[:ofTheImage] {
		if v := spokenView(h.String(tag)); v != viewUnknown {
			return v
		}
	}
	return viewUnknown
}
