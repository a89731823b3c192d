package dicom

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"chatxray/pipeline"
)

// The reasons why an image is not read: the words of pipeline.Refusal.Reason.
const (
	OwnResult       = "own-result"        // written by this product
	NotAnImage      = "not-an-image"      // no rows and columns: a report, a plan, a presentation state
	Localiser       = "localiser"         // a scout of another examination
	Veterinary      = "veterinary"        // not a human
	OtherModality   = "other-modality"    // neither CR nor DX, nor a Secondary Capture of one
	ScreenCapture   = "screen-capture"    // a Secondary Capture that may be anything, or a colour picture
	MultiFrame      = "multi-frame"       // several frames
	Child           = "child"             // younger than the patients that the model was made for
	OtherBodyPart   = "other-body-part"   // not the chest, or more than the chest
	UnknownBodyPart = "unknown-body-part" // nothing says that it is the chest
	Lateral         = "lateral"           //
	OtherView       = "other-view"        // oblique, decubitus, lordotic ...
	TooSmall        = "too-small"         // an icon
	ForProcessing   = "for-processing"    // raw pixels, and the study has them ready to be looked at
	FlatExposure    = "flat-exposure"     // no object in the beam (CheckExposure)
)

// details are the sentences of the reasons. They tell what a sender can do about it.
var details = map[string]string{
	OwnResult:       "it is a result of this product, which never reads its own results",
	NotAnImage:      "it has no rows and columns, so there is no image to read",
	Localiser:       "Image Type says that it is a localiser",
	Veterinary:      "species, breed, orientation or view say that the patient is not human",
	OtherModality:   "only CR and DX images, and Secondary Captures of Modality CR, DX or RG, are read",
	ScreenCapture:   "it is a picture that may show anything: only gray Secondary Captures of a radiograph, without burned-in annotation, are read",
	MultiFrame:      "only images of a single frame are read",
	Child:           "Patient's Age or Birth Date says that the patient is younger than those that the model was made for",
	OtherBodyPart:   "the header names a body part other than the chest, or one that reaches beyond it",
	UnknownBodyPart: "neither Anatomic Region, Body Part Examined nor a description says that it shows the chest",
	Lateral:         "it is a lateral view, and only frontal views are read",
	OtherView:       "it is neither a PA nor an AP view (oblique, decubitus, lordotic or another)",
	TooSmall:        "it has fewer than " + strconv.Itoa(leastSide) + " rows or columns",
	ForProcessing:   "it is FOR PROCESSING, and the study has a frontal image FOR PRESENTATION",
	FlatExposure:    "its pixels are next to uniform: there was nothing in the beam, or no exposure",
}

// ownManufacturer and ownProduct are what documents of this product carry as Manufacturer and Manufacturer's Model Name.
const (
	ownManufacturer = "ChatXRay project"
	ownProduct      = "ChatXRay"
)

const leastSide = 128 // pixels

// SOP classes (PS3.4 section B.5).
const (
	classCR              = "1.2.840.10008.5.1.4.1.1.1"
	classDX              = "1.2.840.10008.5.1.4.1.1.1.1"
	classDXForProcessing = "1.2.840.10008.5.1.4.1.1.1.1.1"
	classSC              = "1.2.840.10008.5.1.4.1.1.7" // its multi-frame forms are .7.1 to .7.4
)

// Select returns which images of a study are frontal chest radiographs fit to be read, and why each other instance is not: every
// instance is in exactly one of the two. It looks at headers only; CheckExposure looks at pixels. An image whose header does not tell its
// view is chosen as ViewUnknown: the model, which sees it, has to tell. Patients with fewer than minAge years are not read; 0 sets no
// limit, and an age that the header does not tell is no reason.
//
// The order of the chosen is the order in which they should be read: PA before AP before frontal views of unknown direction before unknown views; then the
// latest acquisition (a repeat follows a bad exposure), then series number, instance number and UID. Refusals keep the study's order.
func Select(st *pipeline.Study, minAge int) (frontal []pipeline.Chosen, refused []pipeline.Refusal) {
	reasons := make([]string, len(st.Instances))
	presentable := false
	for i, in := range st.Instances {
		reasons[i] = reasonAgainst(in, minAge)
		presentable = presentable || reasons[i] == "" && !forProcessing(in)
	}
	for i, in := range st.Instances {
		if reasons[i] == "" && presentable && forProcessing(in) {
			reasons[i] = ForProcessing
		}
		if reasons[i] == "" {
			frontal = append(frontal, pipeline.Chosen{Instance: in, ViewUnknown: viewOf(in.Header) == viewUnknown})
		} else {
			refused = append(refused, refusal(in, reasons[i]))
		}
	}
	slices.SortStableFunc(frontal, func(a, b pipeline.Chosen) int { return before(a.Instance, b.Instance) })
	return frontal, refused
}

func refusal(in *pipeline.Instance, reason string) pipeline.Refusal {
	return pipeline.Refusal{SOPInstanceUID: in.SOPInstanceUID, Reason: reason, Detail: details[reason]}
}

func forProcessing(in *pipeline.Instance) bool {
	return in.SOPClassUID == classDXForProcessing || in.Header.String(pipeline.TagPresentationIntentType) == "FOR PROCESSING"
}

// reasonAgainst returns why an instance is not read, "" if nothing in its header speaks against it.
func reasonAgainst(in *pipeline.Instance, minAge int) string {
	h := in.Header
	rows, hasRows := h.Int(pipeline.TagRows)
	columns, hasColumns := h.Int(pipeline.TagColumns)
	imageType := h.Strings(pipeline.TagImageType)
	frames, _ := h.Int(pipeline.TagNumberOfFrames)
	switch {
	case own(h):
		return OwnResult
	case !hasRows || !hasColumns:
		return NotAnImage
	case len(imageType) > 2 && (imageType[2] == "LOCALIZER" || imageType[2] == "SCOUT"):
		return Localiser
	case animal(h):
		return Veterinary
	}
	if reason := sourceAgainst(in); reason != "" {
		return reason
	}
	switch {
	case frames > 1:
		return MultiFrame
	case younger(h, minAge):
		return Child
	}
	switch partOf(h) {
	case partOther:
		return OtherBodyPart
	case partUnknown:
		return UnknownBodyPart
	}
	switch viewOf(h) {
	case viewLateral:
		return Lateral
	case viewOther:
		return OtherView
	case viewAnimal:
		return Veterinary
	}
	if rows < leastSide || columns < leastSide {
		return TooSmall
	}
	return ""
}

// own reports whether this product wrote the object: it is named as the equipment, or as equipment that contributed. Phantoms, which it draws
// too, are images like any other.
func own(h pipeline.Dataset) bool {
	ours := func(d pipeline.Dataset) bool {
		return d.String(pipeline.TagManufacturer) == ownManufacturer || d.String(pipeline.TagManufacturerModelName) == ownProduct
	}
	return slices.ContainsFunc(h.Items(pipeline.TagContributingEquipmentSequence), ours) || ours(h) && !h.IsPhantom()
}

// animal reports whether the patient is not human (PS3.3 section C.7.1.1). Responsible Person says nothing: children have one too.
func animal(h pipeline.Dataset) bool {
	if h.String(pipeline.TagAnatomicalOrientationType) == "QUADRUPED" || h.String(pipeline.TagPatientBreedDescription) != "" {
		return true
	}
	for _, item := range h.Items(pipeline.TagPatientSpeciesCodeSequence) {
		switch item.String(pipeline.TagCodeValue) {
		case "", "337915000", "L-85003", "30996001", "L-85B00": // Homo sapiens
		default:
			return true
		}
	}
	species := strings.ToUpper(h.String(pipeline.TagPatientSpeciesDescription))
	return species != "" && !strings.Contains(species, "HUMAN") && !strings.Contains(species, "HOMO SAPIENS")
}

// sourceAgainst judges where the pixels come from.
//
//	SOP class               Modality              read
//	CR, DX                  CR, DX, RG, OT, none  if gray
//	Secondary Capture       CR, DX, RG            if gray, no burned-in annotation, not drawn, synthetic, video or a scanned document
//	Secondary Capture       OT, none              never: screen-capture
//	any other, or Modality                        never: other-modality
func sourceAgainst(in *pipeline.Instance) string {
	h := in.Header
	modality := h.String(pipeline.TagModality)
	radiograph := modality == "CR" || modality == "DX" || modality == "RG"
	unspecific := modality == "OT" || modality == ""
	capture := in.SOPClassUID == classSC || strings.HasPrefix(in.SOPClassUID, classSC+".")
	direct := in.SOPClassUID == classCR || in.SOPClassUID == classDX || in.SOPClassUID == classDXForProcessing
	samples, hasSamples := h.Int(pipeline.TagSamplesPerPixel)
	gray := (!hasSamples || samples == 1) && strings.HasPrefix(h.String(pipeline.TagPhotometricInterpretation), "MONOCHROME")
	switch {
	case !direct && !capture, !radiograph && !unspecific:
		return OtherModality
	case !gray:
		return ScreenCapture
	case direct:
		return ""
	case unspecific || h.String(pipeline.TagBurnedInAnnotation) == "YES":
		return ScreenCapture
	}
	switch h.String(pipeline.TagConversionType) {
	case "DRW", "SYN", "DV", "SD":
		return ScreenCapture
	}
	return ""
}

// before orders two chosen images (see Select).
func before(a, b *pipeline.Instance) int {
	number := func(in *pipeline.Instance, tag pipeline.Tag) int {
		n, _ := in.Header.Int(tag)
		return n
	}
	return cmp.Or(
		cmp.Compare(viewOf(a.Header), viewOf(b.Header)),
		cmp.Compare(acquired(b), acquired(a)),
		cmp.Compare(number(a, pipeline.TagSeriesNumber), number(b, pipeline.TagSeriesNumber)),
		cmp.Compare(number(a, pipeline.TagInstanceNumber), number(b, pipeline.TagInstanceNumber)),
		cmp.Compare(a.SOPInstanceUID, b.SOPInstanceUID),
	)
}

// acquired returns date and time of an image in a form that sorts; "" where no attribute tells.
func acquired(in *pipeline.Instance) string {
	for _, tags := range [][2]pipeline.Tag{
		{pipeline.TagAcquisitionDate, pipeline.TagAcquisitionTime},
		{pipeline.TagContentDate, pipeline.TagContentTime},
		{pipeline.TagSeriesDate, pipeline.TagSeriesTime},
	} {
		if date := in.Header.String(tags[0]); date != "" {
			return date + in.Header.String(tags[1])
		}
	}
	return ""
}

const (
	exposureGrid = 16   // blocks each way
	leastSpread  = 0.02 // standard deviation of the blocks' gray, a slope over the image taken off
)

// CheckExposure returns a pipeline.Refusal (FlatExposure) for an image without an object in it: the means of 16×16 blocks hardly differ
// once a plane, which the heel effect of the tube may make, is taken off. It is nil for any other image.
func CheckExposure(m *pipeline.Image) error {
	if rows, columns := m.Bottom-m.Top, m.Right-m.Left; rows < exposureGrid || columns < exposureGrid {
		return refusal(m.Instance, TooSmall)
	}
	if spread(m) < leastSpread*leastSpread {
		return refusal(m.Instance, FlatExposure)
	}
	return nil
}

// spread returns the variance of the block means about the plane that fits them best.
func spread(m *pipeline.Image) float64 {
	const n, middle = exposureGrid, (exposureGrid - 1) / 2.0
	var mean, slopeX, slopeY, squares float64
	for by := range n {
		for bx := range n {
			v := block(m, m.Left+(m.Right-m.Left)*bx/n, m.Left+(m.Right-m.Left)*(bx+1)/n, m.Top+(m.Bottom-m.Top)*by/n, m.Top+(m.Bottom-m.Top)*(by+1)/n)
			mean += v
			slopeX += v * (float64(bx) - middle)
			slopeY += v * (float64(by) - middle)
			squares += v * v
		}
	}
	const count = n * n
	const leverage = count * (n*n - 1) / 12.0 // sum of (bx - middle)² over all blocks
	return max(squares-mean*mean/count-(slopeX*slopeX+slopeY*slopeY)/leverage, 0) / count
}

// block returns the mean gray of a grid of pixels of a part of m.
func block(m *pipeline.Image, left, right, top, bottom int) float64 {
	const side = 32 // pixels each way, about
	var sum float64
	n := 0
	down, across := max((bottom-top)/side, 1), max((right-left)/side, 1)
	for y := top; y < bottom; y += down {
		for x := left; x < right; x += across {
			i := y*m.Columns + x
			if m.Pix16 != nil {
				sum += float64(m.LUT[m.Pix16[i]])
			} else {
				sum += float64(m.LUT[m.Pix8[i]])
			}
			n++
		}
	}
	return sum / float64(n)
}
