package dicom_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"

	"chatxray/pipeline"
	"chatxray/pipeline/dicom"
	"chatxray/sr"
)

const (
	crImage       = "1.2.840.10008.5.1.4.1.1.1"
	dxImage       = "1.2.840.10008.5.1.4.1.1.1.1"
	dxProcessing  = "1.2.840.10008.5.1.4.1.1.1.1.1"
	ctImage       = "1.2.840.10008.5.1.4.1.1.2"
	secondary     = "1.2.840.10008.5.1.4.1.1.7"
	secondaryGray = "1.2.840.10008.5.1.4.1.1.7.2"
	basicText     = "1.2.840.10008.5.1.4.1.1.88.11"
)

// with changes a header.
type with func(*pipeline.Dataset)

func str(tag pipeline.Tag, values ...string) with {
	return func(d *pipeline.Dataset) { d.SetText(tag, "LO", values...) }
}

func num(tag pipeline.Tag, v int64) with {
	return func(d *pipeline.Dataset) { d.SetInts(tag, "US", v) }
}

func coded(tag pipeline.Tag, code, scheme string) with {
	return func(d *pipeline.Dataset) {
		var item pipeline.Dataset
		item.SetText(pipeline.TagCodeValue, "SH", code)
		item.SetText(pipeline.TagCodingSchemeDesignator, "SH", scheme)
		d.SetItems(tag, item)
	}
}

func contributed(by with) with {
	return func(d *pipeline.Dataset) {
		var item pipeline.Dataset
		by(&item)
		d.SetItems(pipeline.TagContributingEquipmentSequence, item)
	}
}

func without(tags ...pipeline.Tag) with {
	return func(d *pipeline.Dataset) {
		*d = slices.DeleteFunc(*d, func(e pipeline.Element) bool { return slices.Contains(tags, e.Tag) })
	}
}

// chestPA is an instance that is read, changed as the test wants it.
func chestPA(class string, changes ...with) *pipeline.Instance {
	var h pipeline.Dataset
	for _, c := range append([]with{
		str(pipeline.TagImageType, "ORIGINAL", "PRIMARY"), str(pipeline.TagModality, "DX"), str(pipeline.TagBodyPartExamined, "CHEST"),
		str(pipeline.TagViewPosition, "PA"), str(pipeline.TagPhotometricInterpretation, "MONOCHROME2"),
		num(pipeline.TagSamplesPerPixel, 1), num(pipeline.TagRows, 2500), num(pipeline.TagColumns, 2048),
	}, changes...) {
		c(&h)
	}
	return &pipeline.Instance{SOPClassUID: class, SOPInstanceUID: "1.2.3", Header: h}
}

// viewUnknown is the verdict on an image that is chosen, but whose view the model has to tell.
const viewUnknown = "view unknown"

// verdict returns the reason why an instance alone in its study is refused, "" if it is chosen.
func verdict(t *testing.T, in *pipeline.Instance) string {
	t.Helper()
	chosen, refused := dicom.Select(&pipeline.Study{Instances: []*pipeline.Instance{in}}, 0)
	switch {
	case len(chosen) == 1 && len(refused) == 0 && chosen[0].Instance == in && chosen[0].ViewUnknown:
		return viewUnknown
	case len(chosen) == 1 && len(refused) == 0 && chosen[0].Instance == in:
		return ""
	case len(chosen) == 0 && len(refused) == 1 && refused[0].SOPInstanceUID == in.SOPInstanceUID && refused[0].Detail != "":
		return refused[0].Reason
	}
	t.Fatalf("chosen %v, refused %v", chosen, refused)
	return ""
}

func TestSelectOne(t *testing.T) {
	noPart, noView := without(pipeline.TagBodyPartExamined), without(pipeline.TagViewPosition)
	ours := str(pipeline.TagManufacturer, sr.Manufacturer)
	for _, c := range []struct {
		name string
		in   *pipeline.Instance
		want string
	}{
		{"DX", chestPA(dxImage), ""},
		{"CR", chestPA(crImage, str(pipeline.TagModality, "CR")), ""},
		{"DX for processing, alone", chestPA(dxProcessing), ""},
		{"CR without Modality", chestPA(crImage, without(pipeline.TagModality)), ""},
		{"MONOCHROME1", chestPA(crImage, str(pipeline.TagPhotometricInterpretation, "MONOCHROME1")), ""},

		{"our report", chestPA(basicText, ours), dicom.OwnResult},
		{"our picture", chestPA(secondary, ours), dicom.OwnResult},
		{"our model's name", chestPA(secondary, str(pipeline.TagManufacturerModelName, sr.Product)), dicom.OwnResult},
		{"we contributed", chestPA(dxImage, contributed(ours)), dicom.OwnResult},
		{"we contributed, about a phantom", chestPA(basicText, contributed(ours), str(pipeline.TagPatientID, pipeline.PhantomPatientID)), dicom.OwnResult},
		{"our phantom", chestPA(dxImage, ours, str(pipeline.TagPatientID, pipeline.PhantomPatientID+"-1")), ""},
		{"another's contribution", chestPA(dxImage, contributed(str(pipeline.TagManufacturer, "Another"))), ""},

		{"SR", chestPA(basicText, without(pipeline.TagRows, pipeline.TagColumns)), dicom.NotAnImage},
		{"CT localiser", chestPA(ctImage, str(pipeline.TagModality, "CT"), str(pipeline.TagImageType, "ORIGINAL", "PRIMARY", "LOCALIZER")), dicom.Localiser},
		{"CT", chestPA(ctImage, str(pipeline.TagModality, "CT")), dicom.OtherModality},
		{"CR of Modality MG", chestPA(crImage, str(pipeline.TagModality, "MG")), dicom.OtherModality},
		{"several frames", chestPA(dxImage, num(pipeline.TagNumberOfFrames, 2)), dicom.MultiFrame},
		{"one frame", chestPA(dxImage, num(pipeline.TagNumberOfFrames, 1)), ""},
		{"an icon", chestPA(dxImage, num(pipeline.TagRows, 64)), dicom.TooSmall},

		{"dog", chestPA(dxImage, str(pipeline.TagPatientSpeciesDescription, "Canine species")), dicom.Veterinary},
		{"dog by code", chestPA(dxImage, coded(pipeline.TagPatientSpeciesCodeSequence, "448771007", "SCT")), dicom.Veterinary},
		{"dog by breed", chestPA(dxImage, str(pipeline.TagPatientBreedDescription, "Beagle")), dicom.Veterinary},
		{"quadruped", chestPA(dxImage, str(pipeline.TagAnatomicalOrientationType, "QUADRUPED")), dicom.Veterinary},
		{"ventrodorsal", chestPA(dxImage, str(pipeline.TagViewPosition, "VD")), dicom.Veterinary},
		{"human", chestPA(dxImage, str(pipeline.TagPatientSpeciesDescription, "Homo sapiens"), coded(pipeline.TagPatientSpeciesCodeSequence, "337915000", "SCT")), ""},
		{"child", chestPA(dxImage, str(pipeline.TagResponsiblePerson, "A parent")), ""},

		{"secondary capture of a CR", chestPA(secondary, str(pipeline.TagModality, "CR"), str(pipeline.TagConversionType, "WSD")), ""},
		{"digitised film", chestPA(secondary, str(pipeline.TagModality, "RG"), str(pipeline.TagConversionType, "DF")), ""},
		{"multi-frame class, one frame", chestPA(secondaryGray), ""},
		{"secondary capture of Modality OT", chestPA(secondary, str(pipeline.TagModality, "OT")), dicom.ScreenCapture},
		{"secondary capture without Modality", chestPA(secondary, without(pipeline.TagModality)), dicom.ScreenCapture},
		{"secondary capture of a CT", chestPA(secondary, str(pipeline.TagModality, "CT")), dicom.OtherModality},
		{"secondary capture with burned-in text", chestPA(secondary, str(pipeline.TagBurnedInAnnotation, "YES")), dicom.ScreenCapture},
		{"drawing", chestPA(secondary, str(pipeline.TagConversionType, "DRW")), dicom.ScreenCapture},
		{"scanned document", chestPA(secondary, str(pipeline.TagConversionType, "SD")), dicom.ScreenCapture},
		{"colour", chestPA(secondary, num(pipeline.TagSamplesPerPixel, 3), str(pipeline.TagPhotometricInterpretation, "RGB")), dicom.ScreenCapture},
		{"colour DX", chestPA(dxImage, num(pipeline.TagSamplesPerPixel, 3), str(pipeline.TagPhotometricInterpretation, "RGB")), dicom.ScreenCapture},
		{"DX with burned-in marker", chestPA(dxImage, str(pipeline.TagBurnedInAnnotation, "YES")), ""},

		{"hand", chestPA(dxImage, str(pipeline.TagBodyPartExamined, "HAND")), dicom.OtherBodyPart},
		{"thoracic spine", chestPA(dxImage, str(pipeline.TagBodyPartExamined, "TSPINE")), dicom.OtherBodyPart},
		{"chest and abdomen", chestPA(dxImage, str(pipeline.TagBodyPartExamined, "CHESTABDOMEN")), dicom.OtherBodyPart},
		{"a vendor's chest", chestPA(dxImage, str(pipeline.TagBodyPartExamined, "CHEST PORTABLE")), ""},
		{"THORAX", chestPA(dxImage, str(pipeline.TagBodyPartExamined, "Thorax")), ""},
		{"chest by code", chestPA(dxImage, noPart, coded(pipeline.TagAnatomicRegionSequence, "51185008", "SCT")), ""},
		{"chest by old code", chestPA(dxImage, noPart, coded(pipeline.TagAnatomicRegionSequence, "T-D3000", "SRT")), ""},
		{"rib by code, for all that the word is chest", chestPA(dxImage, coded(pipeline.TagAnatomicRegionSequence, "113197003", "SCT")), dicom.OtherBodyPart},
		{"chest by protocol", chestPA(dxImage, noPart, str(pipeline.TagProtocolName, "Chest PA erect")), ""},
		{"chest by study", chestPA(dxImage, str(pipeline.TagBodyPartExamined, "UNKNOWN"), str(pipeline.TagStudyDescription, "RX TÓRAX")), ""},
		{"ribs by series, chest by study", chestPA(dxImage, noPart, str(pipeline.TagSeriesDescription, "Ribs left"), str(pipeline.TagStudyDescription, "Chest")), dicom.OtherBodyPart},
		{"chest and abdomen by series", chestPA(dxImage, noPart, str(pipeline.TagSeriesDescription, "chest/abdomen"), str(pipeline.TagStudyDescription, "Chest")), dicom.UnknownBodyPart},
		{"nothing of the part", chestPA(dxImage, noPart), dicom.UnknownBodyPart},

		{"lateral", chestPA(dxImage, str(pipeline.TagViewPosition, "LATERAL")), dicom.Lateral},
		{"left lateral", chestPA(dxImage, str(pipeline.TagViewPosition, "LL")), dicom.Lateral},
		{"decubitus", chestPA(dxImage, str(pipeline.TagViewPosition, "LLD")), dicom.OtherView},
		{"oblique", chestPA(dxImage, str(pipeline.TagViewPosition, "RAO")), dicom.OtherView},
		{"lordotic", chestPA(dxImage, str(pipeline.TagViewPosition, "AP LORDOTIC")), dicom.OtherView},
		{"portable", chestPA(dxImage, str(pipeline.TagViewPosition, "AP PORTABLE")), ""},
		{"postero-anterior", chestPA(dxImage, str(pipeline.TagViewPosition, "postero-anterior")), ""},
		{"lateral by code, for all that the word is PA", chestPA(dxImage, coded(pipeline.TagViewCodeSequence, "399067008", "SCT")), dicom.Lateral},
		{"AP by code", chestPA(dxImage, noView, coded(pipeline.TagViewCodeSequence, "399348003", "SCT")), ""},
		{"PA by old code", chestPA(dxImage, noView, coded(pipeline.TagViewCodeSequence, "R-10214", "SRT")), ""},
		{"oblique by code", chestPA(dxImage, noView, coded(pipeline.TagViewCodeSequence, "399182000", "SCT")), dicom.OtherView},
		{"lateral by orientation", chestPA(dxImage, noView, str(pipeline.TagPatientOrientation, "A", "F")), dicom.Lateral},
		{"lateral on its side by orientation", chestPA(dxImage, noView, str(pipeline.TagPatientOrientation, "F", "P")), dicom.Lateral},
		{"frontal by orientation", chestPA(dxImage, noView, str(pipeline.TagPatientOrientation, "L", "F")), ""},
		{"PA by protocol", chestPA(dxImage, noView, str(pipeline.TagProtocolName, "W033 Chest PA")), ""},
		{"lateral by series", chestPA(dxImage, noView, str(pipeline.TagSeriesDescription, "Thorax lat.")), dicom.Lateral},
		{"two views by series", chestPA(dxImage, noView, str(pipeline.TagSeriesDescription, "Chest PA & LAT")), viewUnknown},
		{"both ways", chestPA(dxImage, str(pipeline.TagViewPosition, "PA/AP")), viewUnknown},
		{"two views by study say nothing", chestPA(dxImage, noView, str(pipeline.TagStudyDescription, "Chest PA")), viewUnknown},
		{"nothing of the view", chestPA(dxImage, noView), viewUnknown},
		{"no header at all", &pipeline.Instance{SOPInstanceUID: "1.2.3"}, dicom.NotAnImage},
	} {
		if got := verdict(t, c.in); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestSelectOrder(t *testing.T) {
	image := func(uid, position string, changes ...with) *pipeline.Instance {
		in := chestPA(dxImage, append(changes, str(pipeline.TagViewPosition, position))...)
		in.SOPInstanceUID = uid
		return in
	}
	at := func(date, time string) with {
		return func(d *pipeline.Dataset) {
			str(pipeline.TagAcquisitionDate, date)(d)
			str(pipeline.TagAcquisitionTime, time)(d)
		}
	}
	want := []*pipeline.Instance{
		image("5", "PA", at("20200101", "1100")),
		image("4", "PA", at("20200101", "1000")),
		image("3", "PA", str(pipeline.TagContentDate, "20191231")),
		image("2", "PA", num(pipeline.TagSeriesNumber, 1), num(pipeline.TagInstanceNumber, 9)),
		image("1", "PA", num(pipeline.TagSeriesNumber, 2), num(pipeline.TagInstanceNumber, 3)),
		image("10", "PA", num(pipeline.TagSeriesNumber, 2), num(pipeline.TagInstanceNumber, 4)),
		image("11", "PA", num(pipeline.TagSeriesNumber, 2), num(pipeline.TagInstanceNumber, 4)),
		image("6", "AP", at("20200102", "1100")),
		image("7", "FRONTAL", at("20200103", "1100")),
		image("8", "", at("20200104", "1100")),
	}
	others := []*pipeline.Instance{image("20", "LL"), image("21", "LLD")}
	r := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		st := &pipeline.Study{Instances: slices.Concat(want, others)}
		r.Shuffle(len(st.Instances), func(i, j int) { st.Instances[i], st.Instances[j] = st.Instances[j], st.Instances[i] })
		chosen, refused := dicom.Select(st, 0)
		if len(chosen) != len(want) || len(refused) != len(others) {
			t.Fatalf("%d chosen, %d refused", len(chosen), len(refused))
		}
		for i, c := range chosen {
			if c.Instance != want[i] {
				t.Fatalf("place %d has %s, want %s", i, c.Instance.SOPInstanceUID, want[i].SOPInstanceUID)
			}
		}
	}
}

func TestSelectPrefersForPresentation(t *testing.T) {
	raw, ready := chestPA(dxProcessing), chestPA(dxImage, str(pipeline.TagPresentationIntentType, "FOR PRESENTATION"), str(pipeline.TagViewPosition, "AP"))
	lateral := chestPA(dxImage, str(pipeline.TagViewPosition, "LL"))
	chosen, refused := dicom.Select(&pipeline.Study{Instances: []*pipeline.Instance{raw, ready}}, 0)
	if len(chosen) != 1 || chosen[0].Instance != ready || len(refused) != 1 || refused[0].Reason != dicom.ForProcessing {
		t.Errorf("with its twin: %v, %v", chosen, refused)
	}
	chosen, refused = dicom.Select(&pipeline.Study{Instances: []*pipeline.Instance{raw, lateral}}, 0)
	if len(chosen) != 1 || chosen[0].Instance != raw || len(refused) != 1 || refused[0].Reason != dicom.Lateral {
		t.Errorf("with a lateral view: %v, %v", chosen, refused)
	}
}

// expectedOfPack says what Select makes of a file of the data pack, by folder and name. Only chest/ holds chest radiographs.
func expectedOfPack(r row, in *pipeline.Instance) string {
	name, modality := path.Base(r.file), in.Header.String(pipeline.TagModality)
	secondaryCapture := in.SOPClassUID == secondary
	switch {
	case strings.HasPrefix(r.file, "chest/"):
		return ""
	case strings.HasPrefix(r.file, "sr/"), strings.HasPrefix(name, "pydicom_rtplan"), name == "pydicom_waveform_ecg.dcm",
		name == "fodicom_Issue1097_FailToOpenDeflatedFileWithSQ.dcm":
		return dicom.NotAnImage
	case strings.HasPrefix(name, "chrJap"), strings.HasPrefix(name, "chrKorean"): // chest CRs of 32×32 pixels, without the pixels
		return dicom.TooSmall
	case strings.HasPrefix(name, "MG1"), strings.HasPrefix(name, "RG2"), strings.HasPrefix(name, "RG3"), // breast, hip, leg as CR
		name == "fodicom_CR-ModalitySequenceLUT.dcm": // teeth
		return dicom.OtherBodyPart
	case secondaryCapture && (modality == "OT" || modality == ""): // character sets, colour pictures, LUT tests
		return dicom.ScreenCapture
	}
	return dicom.OtherModality // CT, MR, US, NM, XA, PT, SEG, RTDOSE
}

func TestSelectOfThePack(t *testing.T) {
	counts := map[string]int{}
	for _, r := range manifest(t) {
		in, err := dicom.Open(packFile(t, r.file))
		if err != nil {
			continue // TestManifest judges these
		}
		got := verdict(t, in)
		if want := expectedOfPack(r, in); got != want {
			t.Errorf("%s: %q, want %q", r.file, got, want)
		}
		counts[got]++
	}
	if counts[""] != 5 {
		t.Errorf("%d files are chosen, the pack has 5 chest radiographs", counts[""])
	}
	t.Logf("%v", counts)
}

func TestCheckExposure(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	image := func(gray func(x, y int) float64) *pipeline.Image {
		m := &pipeline.Image{
			Instance: &pipeline.Instance{SOPInstanceUID: "1.2.3"}, Rows: 300, Columns: 200, Bottom: 300, Right: 200,
			Pix16: make([]uint16, 300*200), LUT: make([]float32, 1<<16),
		}
		for i := range m.LUT {
			m.LUT[i] = float32(i) / 65535
		}
		for i := range m.Pix16 {
			m.Pix16[i] = uint16(65535 * min(max(gray(i%200, i/200), 0), 1))
		}
		return m
	}
	lungs := func(x, y int) float64 {
		if (x > 30 && x < 90 || x > 110 && x < 170) && y > 60 && y < 240 {
			return 0.2
		}
		return 0.7
	}
	for _, c := range []struct {
		name string
		m    *pipeline.Image
		want string
	}{
		{"constant", image(func(int, int) float64 { return 0.4 }), dicom.FlatExposure},
		{"black", image(func(int, int) float64 { return 0 }), dicom.FlatExposure},
		{"noise", image(func(int, int) float64 { return 0.5 + 0.1*r.NormFloat64() }), dicom.FlatExposure},
		{"heel effect and noise", image(func(x, y int) float64 { return 0.2 + 0.5*float64(y)/300 + 0.1*float64(x)/200 + 0.05*r.NormFloat64() }), dicom.FlatExposure},
		{"lungs", image(lungs), ""},
		{"faint lungs", image(func(x, y int) float64 { return 0.5 + 0.2*lungs(x, y) }), ""},
		{"lungs of pale noise", image(func(x, y int) float64 { return lungs(x, y) + 0.2*r.NormFloat64() }), ""},
	} {
		err := dicom.CheckExposure(c.m)
		var refusal pipeline.Refusal
		if errors.As(err, &refusal); refusal.Reason != c.want {
			t.Errorf("%s: %v", c.name, err)
		}
		if err != nil && !errors.Is(err, pipeline.ErrNotImage) {
			t.Errorf("%s: %v is none of the house's", c.name, err)
		}
	}
	shut := image(lungs)
	shut.Top, shut.Bottom = 100, 105
	var refusal pipeline.Refusal
	if err := dicom.CheckExposure(shut); !errors.As(err, &refusal) || refusal.Reason != dicom.TooSmall {
		t.Errorf("five rows: %v", err)
	}
}

// TestChestFilesAreExposed takes the radiographs of the data pack through Decode.
func TestChestFilesAreExposed(t *testing.T) {
	for _, r := range manifest(t) {
		if !strings.HasPrefix(r.file, "chest/") {
			continue
		}
		in, err := dicom.Open(packFile(t, r.file))
		if err != nil {
			t.Fatal(err)
		}
		m, err := dicom.Decode(context.Background(), in, 0)
		if errors.Is(err, pipeline.ErrMissingPart) {
			continue // a codec that TestManifest asks for
		}
		if err != nil {
			t.Fatal(r.file, err)
		}
		if err := dicom.CheckExposure(m); err != nil {
			t.Errorf("%s: %v", r.file, err)
		}
	}
}

func FuzzSelect(f *testing.F) {
	f.Add("CR", "CHEST", "PA", "L\\F", "HUMAN", "MONOCHROME1", "ORIGINAL\\PRIMARY", "chest pa", "51185008", "R-10214", int64(2000))
	f.Add("", "", "", "\\", "", "", "\\\\LOCALIZER", "", "", "", int64(-1))
	f.Fuzz(func(t *testing.T, modality, part, view, orientation, species, photometric, imageType, description, region, viewCode string, rows int64) {
		st := &pipeline.Study{}
		for _, class := range []string{crImage, dxProcessing, secondary, ""} {
			in := chestPA(class, str(pipeline.TagModality, modality), str(pipeline.TagBodyPartExamined, part), str(pipeline.TagViewPosition, view),
				str(pipeline.TagPatientOrientation, strings.Split(orientation, "\\")...), str(pipeline.TagPatientSpeciesDescription, species),
				str(pipeline.TagPhotometricInterpretation, photometric), str(pipeline.TagImageType, strings.Split(imageType, "\\")...),
				str(pipeline.TagSeriesDescription, description), coded(pipeline.TagAnatomicRegionSequence, region, "SCT"),
				coded(pipeline.TagViewCodeSequence, viewCode, "SCT"), num(pipeline.TagRows, rows))
			st.Instances = append(st.Instances, in)
		}
		chosen, refused := dicom.Select(st, 0)
		if len(chosen)+len(refused) != len(st.Instances) {
			t.Fatalf("%d chosen and %d refused of %d", len(chosen), len(refused), len(st.Instances))
		}
		for _, r := range refused {
			if r.Reason == "" || r.Detail == "" {
				t.Fatalf("a refusal without a reason: %+v", r)
			}
		}
	})
}
