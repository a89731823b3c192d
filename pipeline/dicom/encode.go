package dicom

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"sort"
	"unicode/utf8"

	"github.com/klauspost/compress/flate"

	"chatxray/pipeline"
)

// What our files say about their writer (PS3.7 annex D.3.3.2).
const (
	ImplementationClassUID    = "2.25.334715236592480127493512333867679646109"
	ImplementationVersionName = "CHATXRAY_0_1"
)

// Encode writes a data set as a DICOM file in Explicit VR Little Endian; see Write.
func Encode(ds pipeline.Dataset) ([]byte, error) { return encode(ds, ExplicitVRLittleEndian) }

// Write writes a data set as a DICOM file (PS3.10) in a transfer syntax that Syntaxes says we encode. The same data set gives the
// same bytes. ds holds no group 0002: that is made from SOP Class UID, SOP Instance UID and the syntax. Its elements and those of
// its items ascend. Text is UTF-8; where it is not ASCII, Specific Character Set must be ISO_IR 192. Pixel Data, if any, is
// native little-endian words, as in Element.Bytes; a compressed syntax compresses each frame, and a lossy one
// says so in (0028,2110) and its kin. Values of SV, UV and OV are written as UN, which the writing library has no VR for.
// Errors wrap pipeline.ErrInvalid, ErrUnsupported, ErrUnknown or ErrMissingPart, or are those of w.
func Write(w io.Writer, ds pipeline.Dataset, transferSyntaxUID string) error {
	b, err := encode(ds, transferSyntaxUID)
	if err == nil {
		_, err = w.Write(b)
	}
	return err
}

func encode(ds pipeline.Dataset, transferSyntaxUID string) ([]byte, error) {
	s, err := lookupSyntax(transferSyntaxUID)
	if err != nil {
		return nil, err
	}
	if !s.Encodes {
		return nil, fmt.Errorf("%w transfer syntax %s (%s): it cannot be written", pipeline.ErrUnsupported, s.UID, s.Name)
	}
	var pixels []byte
	if e, ok := ds.Get(pipeline.TagPixelData); ok {
		if ds, pixels, err = encodePixels(context.Background(), ds, e, s); err != nil {
			return nil, err
		}
	} else if s.Encapsulated {
		return nil, fmt.Errorf("%w DICOM: the transfer syntax %s is for objects with Pixel Data", pipeline.ErrInvalid, s.Name)
	}
	var out bytes.Buffer
	out.Grow(len(pixels) + usualHeader)
	if err := writeMeta(&out, ds, s); err != nil {
		return nil, err
	}
	set := &out
	if s.deflate {
		set = new(bytes.Buffer)
	}
	if err := writeDataset(set, ds, pixels, s.enc); err != nil {
		return nil, err
	}
	if s.deflate {
		f, err := flate.NewWriter(&out, flate.DefaultCompression)
		if err != nil {
			return nil, err
		}
		if _, err := f.Write(set.Bytes()); err != nil {
			return nil, err
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
		if out.Len()%2 == 1 {
			out.WriteByte(0)
		}
	}
	return out.Bytes(), nil
}

// usualHeader is the size that most headers and documents keep below; a larger one costs some copies.
const usualHeader = 8 << 10

// writeMeta writes the preamble and group 0002.
func writeMeta(out *bytes.Buffer, ds pipeline.Dataset, s *syntax) error {
	class, object := ds.String(pipeline.TagSOPClassUID), ds.String(pipeline.TagSOPInstanceUID)
	if !pipeline.ValidUID(class) || !pipeline.ValidUID(object) {
		return fmt.Errorf("%w DICOM: a file needs a SOP Class UID and a SOP Instance UID", pipeline.ErrInvalid)
	}
	meta := make(pipeline.Dataset, 0, 6)
	meta.SetBytes(pipeline.TagFileMetaInformationVersion, "OB", []byte{0, 1})
	meta.SetText(pipeline.TagMediaStorageSOPClassUID, "UI", class)
	meta.SetText(pipeline.TagMediaStorageSOPInstanceUID, "UI", object)
	meta.SetText(pipeline.TagTransferSyntaxUID, "UI", s.UID)
	meta.SetText(pipeline.TagImplementationClassUID, "UI", ImplementationClassUID)
	meta.SetText(pipeline.TagImplementationVersionName, "SH", ImplementationVersionName)
	var group bytes.Buffer
	if err := writeElements(&group, meta, coding{}); err != nil {
		return err
	}
	var length pipeline.Dataset
	length.SetInts(pipeline.TagFileMetaInformationGroupLength, "UL", int64(group.Len()))
	out.Write(make([]byte, preamble))
	out.WriteString("DICM")
	if err := writeElements(out, length, coding{}); err != nil {
		return err
	}
	out.Write(group.Bytes())
	return nil
}

// aroundPixels checks a data set that is to be written, and returns what stands before its pixels and what behind them.
func aroundPixels(ds pipeline.Dataset) (before, after pipeline.Dataset, err error) {
	if err := checkText(ds); err != nil {
		return nil, nil, err
	}
	if err := checkOrder(ds); err != nil {
		return nil, nil, err
	}
	if i := slices.IndexFunc(ds, func(e pipeline.Element) bool { return e.Tag.Group() == 2 }); i >= 0 {
		return nil, nil, fmt.Errorf("%w DICOM: the data set holds %v, which belongs to the file", pipeline.ErrInvalid, ds[i].Tag)
	}
	groupLength := func(e pipeline.Element) bool { return e.Tag.Element() == 0 } // it would be wrong
	if slices.ContainsFunc(ds, groupLength) {
		ds = slices.DeleteFunc(slices.Clone(ds), groupLength)
	}
	at := sort.Search(len(ds), func(i int) bool { return ds[i].Tag >= pipeline.TagPixelData })
	before, after = ds[:at], ds[at:]
	if len(after) > 0 && after[0].Tag == pipeline.TagPixelData {
		after = after[1:]
	}
	return before, after, nil
}

func checkOrder(ds pipeline.Dataset) error {
	for i := 1; i < len(ds); i++ {
		if ds[i].Tag <= ds[i-1].Tag {
			return fmt.Errorf("%w DICOM: %v does not come after %v; a data set ascends", pipeline.ErrInvalid, ds[i].Tag, ds[i-1].Tag)
		}
	}
	return nil
}

// writeDataset writes a data set around its pixels, which do not go through the library: it would write them word by word.
func writeDataset(out *bytes.Buffer, ds pipeline.Dataset, pixels []byte, enc coding) error {
	before, after, err := aroundPixels(ds)
	if err != nil {
		return err
	}
	if err := writeElements(out, before, enc); err != nil {
		return err
	}
	out.Write(pixels)
	return writeElements(out, after, enc)
}

// checkText demands that text outside ASCII is declared as UTF-8.
func checkText(ds pipeline.Dataset) error {
	if ds.String(pipeline.TagSpecificCharacterSet) == "ISO_IR 192" {
		return utf8Text(ds)
	}
	t, ok := beyondASCII(ds)
	if !ok {
		return nil
	}
	return fmt.Errorf("%w DICOM: %v holds text outside ASCII; Specific Character Set must be ISO_IR 192", pipeline.ErrInvalid, t)
}

func beyondASCII(ds pipeline.Dataset) (pipeline.Tag, bool) {
	for _, e := range ds {
		for _, v := range e.Text {
			for i := range len(v) {
				if v[i] >= 0x80 {
					return e.Tag, true
				}
			}
		}
		for _, item := range e.Items {
			if t, ok := beyondASCII(item); ok {
				return t, ok
			}
		}
	}
	return 0, false
}

func utf8Text(ds pipeline.Dataset) error {
	for _, e := range ds {
		for _, v := range e.Text {
			if !utf8.ValidString(v) {
				return fmt.Errorf("%w DICOM: %v holds text that is no UTF-8", pipeline.ErrInvalid, e.Tag)
			}
		}
		for _, item := range e.Items {
			if set := item.Strings(pipeline.TagSpecificCharacterSet); len(set) > 0 && (len(set) > 1 || set[0] != "ISO_IR 192") {
				return fmt.Errorf("%w DICOM: an item of %v names another Specific Character Set than its data set", pipeline.ErrInvalid, e.Tag)
			}
			if err := utf8Text(item); err != nil {
				return err
			}
		}
	}
	return nil
}
