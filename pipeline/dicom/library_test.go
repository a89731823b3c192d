package dicom_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	library "github.com/suyashkumar/dicom"
	"github.com/suyashkumar/dicom/pkg/tag"

	"chatxray/pipeline"
	"chatxray/pipeline/dicom"
)

// TestAgreesWithLibrary parses the data pack with suyashkumar/dicom, too, and compares tags and values where it survives the file.
func TestAgreesWithLibrary(t *testing.T) {
	files, values := 0, 0
	for _, r := range manifest(t) {
		if r.syntax == dicom.DeflatedExplicitVRLittleEndian {
			continue // unbounded there
		}
		data := packFile(t, r.file)
		in, err := dicom.OpenAnonymous(data)
		if err != nil {
			continue
		}
		theirs, err := parseLibrary(data)
		if err != nil {
			continue
		}
		files++
		values += agree(t, r.file, in.Header, theirs.Elements, in.TransferSyntaxUID == dicom.ExplicitVRBigEndian)
	}
	if files < 150 || values < 5000 {
		t.Errorf("only %d files with %d values were compared", files, values)
	}
	t.Logf("%d files with %d values", files, values)
}

func parseLibrary(data []byte) (ds library.Dataset, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return library.Parse(bytes.NewReader(data), int64(len(data)), nil, library.SkipPixelData(), library.AllowMissingMetaElementGroupLength(), library.AllowUnknownSpecificCharacterSet())
}

// agree compares one data set and returns how many values were compared.
func agree(t *testing.T, file string, ours pipeline.Dataset, theirs []*library.Element, big bool) int {
	t.Helper()
	n := 0
	for _, e := range theirs {
		at := pipeline.Tag(e.Tag.Uint32())
		if at.Group() <= 2 || at.Group() == 0x7FE0 || at.Group() == 0xFFFC || at.Element() == 0 || e.Value == nil {
			continue
		}
		mine, ok := ours.Get(at)
		if !ok {
			if at&0xFF00FFFF == 0x60003000 || at == 0x54001010 {
				continue // overlay and waveform data are not for the header
			}
			t.Errorf("%s: we do not have %v", file, at)
			continue
		}
		if mine.VR != e.RawValueRepresentation {
			continue // UN that we read by the dictionary, and choices of implicit VR
		}
		switch v := e.Value.GetValue().(type) {
		case []int:
			if mine.VR == "AT" || mine.VR == "SV" || mine.VR == "UV" {
				continue // read as two shorts, or misread
			}
			if got := slices.Clone(mine.Ints); !slices.EqualFunc(got, v, func(a int64, b int) bool { return a == int64(b) }) {
				t.Errorf("%s: %v %s is %v, the library has %v", file, at, mine.VR, got, v)
			}
		case []float64:
			same := func(a, b float64) bool { // the library rounds FL to its shortest decimal form
				return a == b || mine.VR == "FL" && float32(a) == float32(b)
			}
			if !slices.EqualFunc(mine.Floats, v, same) {
				t.Errorf("%s: %v is %v, the library has %v", file, at, mine.Floats, v)
			}
		case []*library.SequenceItemValue:
			if len(v) != len(mine.Items) {
				t.Errorf("%s: %v has %d items, the library has %d", file, at, len(mine.Items), len(v))
				continue
			}
			for i, item := range v {
				n += agree(t, file, mine.Items[i], item.GetValue().([]*library.Element), big)
			}
		case []string:
			if !agreeText(mine, v) {
				t.Errorf("%s: %v %s differs in its text", file, at, mine.VR)
			}
		case []byte:
			if !big && !bytes.Equal(mine.Bytes, v) {
				t.Errorf("%s: %v %s differs in its %d bytes (%d)", file, at, mine.VR, len(mine.Bytes), len(v))
			}
		}
		n++
	}
	return n
}

// agreeText compares text. The library keeps some padding and knows no ISO 2022, so only what is ASCII there is compared.
func agreeText(mine pipeline.Element, theirs []string) bool {
	trim := func(s string) string { return string(bytes.Trim([]byte(s), " \x00")) }
	a, b := "", ""
	for _, s := range strings.Split(strings.Join(mine.Text, "\\"), "\\") { // the library splits ST, LT and UT, too
		a += trim(s) + "|"
	}
	for _, s := range theirs {
		b += trim(s) + "|"
	}
	for i := range len(b) {
		if b[i] >= 0x80 || b[i] == 0x1B {
			return true
		}
	}
	return a == b || mine.Text == nil && trim(b) == "|"
}

// TestDictionary looks attributes up both ways.
func TestDictionary(t *testing.T) {
	for _, c := range []struct {
		keyword, vr string
		tag         pipeline.Tag
	}{
		{"PatientName", "PN", 0x00100010}, {"Rows", "US", pipeline.TagRows}, {"PixelData", "OW", pipeline.TagPixelData},
		{"SmallestImagePixelValue", "US", pipeline.TagSmallestImagePixelValue}, {"LUTData", "OW", pipeline.TagLUTData},
		{"ExtendedOffsetTable", "OV", pipeline.TagExtendedOffsetTable}, {"OverlayRows", "US", 0x60000010},
		{"TransferSyntaxUID", "UI", pipeline.TagTransferSyntaxUID}, {"ContentSequence", "SQ", pipeline.TagContentSequence},
	} {
		if got, vr, ok := dicom.Lookup(c.keyword); !ok || got != c.tag || vr != c.vr {
			t.Errorf("Lookup(%s) = %v, %s, %v", c.keyword, got, vr, ok)
		}
		if got, vr, ok := dicom.Keyword(c.tag); !ok || got != c.keyword || vr != c.vr {
			t.Errorf("Keyword(%v) = %s, %s, %v", c.tag, got, vr, ok)
		}
	}
	if k, _, ok := dicom.Keyword(0x60020010); !ok || k != "OverlayRows" {
		t.Errorf("the second overlay's rows are %q", k)
	}
	for _, k := range []string{"", "patientname", "Patient's Name", "GenericGroupLength", "NoSuchThing"} {
		if got, _, ok := dicom.Lookup(k); ok {
			t.Errorf("Lookup(%q) = %v", k, got)
		}
	}
	for _, g := range []pipeline.Tag{0x00090010, 0x00080000, 0x12345678} {
		if k, _, ok := dicom.Keyword(g); ok {
			t.Errorf("Keyword(%v) = %s", g, k)
		}
	}
	if _, err := tag.Find(tag.Tag{Group: 0x0028, Element: 0x0010}); err != nil {
		t.Error(err)
	}
}

// TestSequencesAsTheLibrary gives the library sequences whole: it must write the bytes that we write item by item.
func TestSequencesAsTheLibrary(t *testing.T) {
	var code, item, ds pipeline.Dataset
	code.SetText(pipeline.TagCodeValue, "SH", "121071")
	code.SetText(pipeline.TagCodeMeaning, "LO", "Finding")
	item.SetText(pipeline.TagValueType, "CS", "TEXT")
	item.SetItems(pipeline.TagConceptNameCodeSequence, code, code)
	item.SetText(pipeline.TagTextValue, "UT", "Small effusion.")
	item.SetItems(pipeline.TagContentSequence, pipeline.Dataset{}, item)
	ds.SetText(pipeline.TagSOPClassUID, "UI", "1.2.840.10008.5.1.4.1.1.88.11")
	ds.SetText(pipeline.TagSOPInstanceUID, "UI", "2.25.3")
	ds.SetItems(pipeline.TagReferencedPerformedProcedureStepSequence)
	ds.SetItems(pipeline.TagContentSequence, item, item)
	for _, c := range []struct {
		syntax   string
		order    binary.ByteOrder
		implicit bool
	}{
		{dicom.ExplicitVRLittleEndian, binary.LittleEndian, false}, {dicom.ImplicitVRLittleEndian, binary.LittleEndian, true},
		{dicom.ExplicitVRBigEndian, binary.BigEndian, false},
	} {
		var ours, theirs bytes.Buffer
		if err := dicom.Write(&ours, ds, c.syntax); err != nil {
			t.Fatal(err)
		}
		w, err := library.NewWriter(&theirs, library.SkipVRVerification(), library.SkipValueTypeVerification())
		if err != nil {
			t.Fatal(err)
		}
		w.SetTransferSyntax(c.order, c.implicit)
		for _, e := range whole(t, ds) {
			if err := w.WriteElement(e); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.HasSuffix(ours.Bytes(), theirs.Bytes()) || theirs.Len() < 500 {
			t.Errorf("%s: the data set differs from the library's %d bytes", c.syntax, theirs.Len())
		}
	}
}

// whole makes the library's elements of text and sequences.
func whole(t *testing.T, ds pipeline.Dataset) (out []*library.Element) {
	t.Helper()
	for _, e := range ds {
		var value any = e.Text
		if e.VR == "SQ" {
			items := make([][]*library.Element, len(e.Items))
			for i, item := range e.Items {
				items[i] = whole(t, item)
			}
			value = items
		}
		v, err := library.NewValue(value)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, &library.Element{Tag: tag.Tag{Group: e.Tag.Group(), Element: e.Tag.Element()}, RawValueRepresentation: e.VR, Value: v})
	}
	return out
}
