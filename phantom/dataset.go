package phantom

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/big"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"chatxray/pipeline"
)

// PatientName is the name of every phantom.
const PatientName = "PHANTOM^CHATXRAY"

// Digital X-Ray Image Storage - For Presentation (PS3.4 section B.5).
const sopClassDX = "1.2.840.10008.5.1.4.1.1.1.1"

// The attributes of the DX modules that nothing else in the product reads (PS3.6).
const (
	tagCollimatorShape     = pipeline.Tag(0x00181700)
	tagCollimatorLeft      = pipeline.Tag(0x00181702)
	tagCollimatorRight     = pipeline.Tag(0x00181704)
	tagCollimatorUpper     = pipeline.Tag(0x00181706)
	tagCollimatorLower     = pipeline.Tag(0x00181708)
	tagDetectorActiveShape = pipeline.Tag(0x00187024)
)

// namespace is the name space of every UID that this package derives. It never changes.
var namespace = uuid.MustParse("8f7f2a52-93c1-4e0b-8a3f-6b1b6c1d7a10")

// uid derives a UID from a name (PS3.5 section B.2).
func uid(name ...string) string {
	id := uuid.NewHash(sha256.New(), namespace, []byte(strings.Join(name, "\n")), 8)
	return "2.25." + new(big.Int).SetBytes(id[:]).String()
}

// StudyInstanceUID is derived from the seed, what is planted and the date: the views of one phantom are one study.
func (p *Phantom) StudyInstanceUID() string {
	o := p.Options
	return uid("study", strconv.FormatUint(o.Seed, 10), o.findings(), o.Date.Format("20060102150405"))
}

// SOPInstanceUID is derived from every option: other pixels never have the same one.
func (p *Phantom) SOPInstanceUID() string { return uid("instance", p.whole()) }

func (p *Phantom) whole() string {
	o := p.Options
	return fmt.Sprintf("%s %d %d %d %s %s", p.StudyInstanceUID(), o.Rows, o.Columns, o.BitsStored, o.Photometric, o.View)
}

// Dataset is a whole DX object For Presentation (PS3.3 section A.26), native little-endian words in Pixel Data (OW), without group
// 0002. It says that it is a phantom in Patient ID and Name, Quality Control Image, Image Comments and the descriptions:
// pipeline.Dataset.IsPhantom is true of it. The caller owns it; the words are copied.
func (p *Phantom) Dataset() pipeline.Dataset {
	o := p.Options
	d := pipeline.Dataset{}
	text := func(t pipeline.Tag, vr string, values ...string) { d.SetText(t, vr, values...) }
	number := func(t pipeline.Tag, values ...int) {
		list := make([]int64, len(values))
		for i, v := range values {
			list[i] = int64(v)
		}
		d.SetInts(t, "US", list...)
	}
	p.identify(text)
	p.describe(text)
	d.SetItems(pipeline.TagAnatomicRegionSequence, code("51185008", "SCT", "Chest"))
	view := code("272479007", "SCT", "Postero-anterior")
	switch o.View {
	case AP:
		view = code("399348003", "SCT", "Antero-posterior")
	case LL:
		view = code("399173006", "SCT", "Left lateral")
	}
	view.SetItems(pipeline.TagViewModifierCodeSequence)
	d.SetItems(pipeline.TagViewCodeSequence, view)
	d.SetItems(pipeline.TagAcquisitionContextSequence)
	c := p.collimation()
	text(tagCollimatorShape, "CS", "RECTANGULAR")
	text(tagCollimatorLeft, "IS", strconv.Itoa(c[0]))
	text(tagCollimatorRight, "IS", strconv.Itoa(c[1]))
	text(tagCollimatorUpper, "IS", strconv.Itoa(c[2]))
	text(tagCollimatorLower, "IS", strconv.Itoa(c[3]))
	number(pipeline.TagSamplesPerPixel, 1)
	text(pipeline.TagPhotometricInterpretation, "CS", o.Photometric)
	number(pipeline.TagRows, o.Rows)
	number(pipeline.TagColumns, o.Columns)
	allocated := 16
	if o.BitsStored == 8 {
		allocated = 8
	}
	number(pipeline.TagBitsAllocated, allocated)
	number(pipeline.TagBitsStored, o.BitsStored)
	number(pipeline.TagHighBit, o.BitsStored-1)
	number(pipeline.TagPixelRepresentation, 0)
	text(pipeline.TagPixelIntensityRelationship, "CS", "LOG")
	sign, shape := int64(-1), "IDENTITY"
	if o.Photometric == Monochrome1 {
		sign, shape = 1, "INVERSE"
	}
	d.SetInts(pipeline.TagPixelIntensityRelationshipSign, "SS", sign)
	text(pipeline.TagPresentationLUTShape, "CS", shape)
	text(pipeline.TagWindowCenter, "DS", decimal(float64(p.low+p.high+1)/2))
	text(pipeline.TagWindowWidth, "DS", strconv.Itoa(p.high-p.low+1))
	text(pipeline.TagWindowCenterWidthExplanation, "LO", "CHEST")
	text(pipeline.TagRescaleIntercept, "DS", "0")
	text(pipeline.TagRescaleSlope, "DS", "1")
	text(pipeline.TagRescaleType, "LO", "US")
	if allocated == 8 {
		d.SetBytes(pipeline.TagPixelData, "OB", p.bytes8())
	} else {
		d.SetBytes(pipeline.TagPixelData, "OW", p.bytes16())
	}
	return d
}

type setText func(t pipeline.Tag, vr string, values ...string)

// identify sets who, when and which: Patient, Study, Series, Equipment, SOP Common.
func (p *Phantom) identify(text setText) {
	o := p.Options
	date, clock := o.Date.Format("20060102"), o.Date.Format("150405")
	text(pipeline.TagSpecificCharacterSet, "CS", "ISO_IR 192")
	text(pipeline.TagSOPClassUID, "UI", sopClassDX)
	text(pipeline.TagSOPInstanceUID, "UI", p.SOPInstanceUID())
	text(pipeline.TagStudyInstanceUID, "UI", p.StudyInstanceUID())
	text(pipeline.TagSeriesInstanceUID, "UI", uid("series", p.whole()))
	for _, t := range []pipeline.Tag{pipeline.TagInstanceCreationDate, pipeline.TagStudyDate, pipeline.TagSeriesDate, pipeline.TagAcquisitionDate, pipeline.TagContentDate} {
		text(t, "DA", date)
	}
	for _, t := range []pipeline.Tag{pipeline.TagInstanceCreationTime, pipeline.TagStudyTime, pipeline.TagSeriesTime, pipeline.TagAcquisitionTime, pipeline.TagContentTime} {
		text(t, "TM", clock)
	}
	text(pipeline.TagAccessionNumber, "SH", fmt.Sprintf("P%d", o.Seed%1e14))
	text(pipeline.TagModality, "CS", "DX")
	text(pipeline.TagPresentationIntentType, "CS", "FOR PRESENTATION")
	text(pipeline.TagManufacturer, "LO", "ChatXRay phantom")
	text(pipeline.TagManufacturerModelName, "LO", "chatxray phantom")
	text(pipeline.TagDeviceSerialNumber, "LO", "0")
	text(pipeline.TagSoftwareVersions, "LO", "1")
	text(pipeline.TagReferringPhysicianName, "PN")
	text(pipeline.TagPatientName, "PN", PatientName)
	text(pipeline.TagPatientID, "LO", fmt.Sprintf("%s-%d", pipeline.PhantomPatientID, o.Seed))
	text(pipeline.TagPatientBirthDate, "DA")
	text(pipeline.TagPatientSex, "CS", "O")
	text(pipeline.TagStudyID, "SH", "1")
	text(pipeline.TagSeriesNumber, "IS", "1")
	text(pipeline.TagAcquisitionNumber, "IS", "1")
	text(pipeline.TagInstanceNumber, "IS", "1")
}

// describe sets what the picture is of: General Image, DX Anatomy, DX Image, DX Detector, DX Positioning.
func (p *Phantom) describe(text setText) {
	o := p.Options
	planted := o.findings()
	if planted == "" {
		planted = "none"
	}
	text(pipeline.TagImageType, "CS", "ORIGINAL", "PRIMARY")
	text(pipeline.TagStudyDescription, "LO", "PHANTOM chest")
	text(pipeline.TagSeriesDescription, "LO", "PHANTOM chest "+string(o.View))
	text(pipeline.TagImageComments, "LT", "PHANTOM: a synthetic image, of no patient. Planted findings: "+planted+".")
	text(pipeline.TagDerivationDescription, "ST", "Drawn by a program; no X-rays were used.")
	text(pipeline.TagQualityControlImage, "CS", "YES")
	text(pipeline.TagBurnedInAnnotation, "CS", "NO")
	text(pipeline.TagLossyImageCompression, "CS", "00")
	text(pipeline.TagBodyPartExamined, "CS", "CHEST")
	text(pipeline.TagImageLaterality, "CS", "U")
	text(pipeline.TagKVP, "DS", "120")
	text(pipeline.TagViewPosition, "CS", string(o.View))
	text(pipeline.TagPositionerType, "CS", "NONE")
	if o.View == LL {
		text(pipeline.TagPatientOrientation, "CS", "P", "F")
	} else {
		text(pipeline.TagPatientOrientation, "CS", "L", "F")
	}
	text(pipeline.TagDetectorType, "CS", "DIRECT")
	spacing := decimal(p.Spacing)
	text(pipeline.TagImagerPixelSpacing, "DS", spacing, spacing)
	text(tagDetectorActiveShape, "CS", "RECTANGLE")
}

// collimation returns the columns and rows of the beam's edges, from 1: left, right, upper, lower.
func (p *Phantom) collimation() [4]int {
	c := newScene(p.Options).collimator()
	column := func(x float64) int {
		return min(max(int(x/p.Spacing+float64(p.Options.Columns)/2)+1, 1), p.Options.Columns)
	}
	row := func(y float64) int {
		return min(max(int((y-fieldHeight/2)/p.Spacing+float64(p.Options.Rows)/2)+1, 1), p.Options.Rows)
	}
	return [4]int{column(c.left), column(c.right), row(c.top), row(c.bottom)}
}

// code makes an item of a code sequence (PS3.3 section 8.8).
func code(value, scheme, meaning string) pipeline.Dataset {
	var d pipeline.Dataset
	d.SetText(pipeline.TagCodeValue, "SH", value)
	d.SetText(pipeline.TagCodingSchemeDesignator, "SH", scheme)
	d.SetText(pipeline.TagCodeMeaning, "LO", meaning)
	return d
}

// decimal writes a DS: at most 16 characters (PS3.5 section 6.2).
func decimal(v float64) string { return strconv.FormatFloat(v, 'g', 8, 64) }

func (p *Phantom) bytes16() []byte {
	out := make([]byte, 0, 2*len(p.Words))
	for _, w := range p.Words {
		out = binary.LittleEndian.AppendUint16(out, w)
	}
	return out
}

// bytes8 is of even length, as Pixel Data must be (PS3.5 section 8.1.1).
func (p *Phantom) bytes8() []byte {
	out := make([]byte, len(p.Words)+len(p.Words)%2)
	for i, w := range p.Words {
		out[i] = byte(w)
	}
	return out
}
