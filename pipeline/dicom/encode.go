package dicom

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/klauspost/compress/flate"
	library "github.com/suyashkumar/dicom"
	"github.com/suyashkumar/dicom/pkg/tag"

	"chatxray/pipeline"
)

// What our files say about their writer (PS3.7 annex D.3.3.2).
const (
	ImplementationClassUID    = "2.25.334715236592480127493512333867679646109"
	ImplementationVersionName = "CHATXRAY_0_1"
)

// Encode writes a data set as a DICOM file in Explicit VR Little Endian; see Write.
func Encode(ds pipeline.Dataset) ([]byte, error) {
	var out bytes.Buffer
	if err := Write(&out, ds, ExplicitVRLittleEndian); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Write writes a data set as a DICOM file (PS3.10) in a transfer syntax that Syntaxes says we encode. The same data set gives the
// same bytes. ds holds no group 0002: that is made from SOP Class UID, SOP Instance UID and the syntax. Its elements and those of
// its items ascend. Text is UTF-8; where it is not ASCII, Specific Character Set must be ISO_IR 192. Pixel Data, if any, is
// native little-endian words, as in Element.Bytes; a compressed syntax compresses each frame, and a lossy one
// says so in (0028,2110) and its kin. Values of SV, UV and OV are written as UN, which the writing library has no VR for.
// Errors wrap pipeline.ErrInvalid, ErrUnsupported, ErrUnknown or ErrMissingPart, or are those of w.
func Write(w io.Writer, ds pipeline.Dataset, transferSyntaxUID string) error {
	s, err := lookupSyntax(transferSyntaxUID)
	if err != nil {
		return err
	}
	if !s.Encodes {
		return fmt.Errorf("%w transfer syntax %s (%s): it cannot be written", pipeline.ErrUnsupported, s.UID, s.Name)
	}
	var pixels []byte
	if e, ok := ds.Get(pipeline.TagPixelData); ok {
		if ds, pixels, err = encodePixels(context.Background(), ds, e, s); err != nil {
			return err
		}
	} else if s.Encapsulated {
		return fmt.Errorf("%w DICOM: the transfer syntax %s is for objects with Pixel Data", pipeline.ErrInvalid, s.Name)
	}
	var out bytes.Buffer
	if err := writeMeta(&out, ds, s); err != nil {
		return err
	}
	set := &out
	if s.deflate {
		set = new(bytes.Buffer)
	}
	if err := writeDataset(set, ds, pixels, s.enc); err != nil {
		return err
	}
	if s.deflate {
		f, err := flate.NewWriter(&out, flate.DefaultCompression)
		if err != nil {
			return err
		}
		if _, err := f.Write(set.Bytes()); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
		if out.Len()%2 == 1 {
			out.WriteByte(0)
		}
	}
	_, err = w.Write(out.Bytes())
	return err
}

// writeMeta writes the preamble and group 0002.
func writeMeta(out *bytes.Buffer, ds pipeline.Dataset, s *syntax) error {
	class, object := ds.String(pipeline.TagSOPClassUID), ds.String(pipeline.TagSOPInstanceUID)
	if !pipeline.ValidUID(class) || !pipeline.ValidUID(object) {
		return fmt.Errorf("%w DICOM: a file needs a SOP Class UID and a SOP Instance UID", pipeline.ErrInvalid)
	}
	var meta pipeline.Dataset
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
	for _, e := range ds {
		switch {
		case e.Tag.Group() == 2:
			return nil, nil, fmt.Errorf("%w DICOM: the data set holds %v, which belongs to the file", pipeline.ErrInvalid, e.Tag)
		case e.Tag.Element() == 0, e.Tag == pipeline.TagPixelData: // group lengths would be wrong
		case e.Tag < pipeline.TagPixelData:
			before = append(before, e)
		default:
			after = append(after, e)
		}
	}
	return before, after, nil
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

// writeElements lets the library write elements.
func writeElements(out io.Writer, ds pipeline.Dataset, enc coding) error {
	w, err := library.NewWriter(out, library.SkipVRVerification(), library.SkipValueTypeVerification())
	if err != nil {
		return err
	}
	w.SetTransferSyntax(enc.order(), enc.implicit)
	elements, err := libraryElements(ds, enc)
	if err != nil {
		return err
	}
	for _, e := range elements {
		if err := w.WriteElement(e); err != nil {
			return fmt.Errorf("%w DICOM: %v cannot be written: %v", pipeline.ErrInvalid, e.Tag, err)
		}
	}
	return nil
}

func (e coding) order() binary.ByteOrder {
	if e.big {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

// libraryElements makes the library's elements of ours. Values that it would pad wrongly, write word by word or not at all are given
// to it as one string of their bytes, which it writes as it is.
func libraryElements(ds pipeline.Dataset, enc coding) ([]*library.Element, error) {
	out := make([]*library.Element, 0, len(ds))
	for i, e := range ds {
		if i > 0 && e.Tag <= ds[i-1].Tag {
			return nil, fmt.Errorf("%w DICOM: %v does not come after %v; a data set ascends", pipeline.ErrInvalid, e.Tag, ds[i-1].Tag)
		}
		if vrOf(e.VR).form == formNone {
			return nil, fmt.Errorf("%w DICOM: %v has the value representation %q, which is none of the standard", pipeline.ErrInvalid, e.Tag, e.VR)
		}
		value, err := libraryValue(&e, enc)
		if err != nil {
			return nil, err
		}
		v, err := library.NewValue(value)
		if err != nil {
			return nil, err
		}
		out = append(out, &library.Element{
			Tag:                    tag.Tag{Group: e.Tag.Group(), Element: e.Tag.Element()},
			RawValueRepresentation: e.VR,
			Value:                  v,
		})
	}
	return out, nil
}

// libraryValue makes the library's value of an element, and may change its VR to UN.
func libraryValue(e *pipeline.Element, enc coding) (any, error) {
	info := vrOf(e.VR)
	switch info.form {
	case formItems:
		items := make([][]*library.Element, len(e.Items))
		for i, item := range e.Items {
			var err error
			if items[i], err = libraryElements(item, enc); err != nil {
				return nil, err
			}
		}
		return items, nil
	case formTag:
		halves := make([]int, 0, 2*len(e.Ints))
		for _, t := range e.Ints {
			halves = append(halves, int(t>>16&0xFFFF), int(t&0xFFFF))
		}
		return halves, fits(*e, 2*len(halves))
	case formFloat:
		floats := append([]float64{}, e.Floats...)
		return floats, fits(*e, info.size*len(floats))
	case formUint, formInt:
		if info.size == 8 {
			return libraryLong(e)
		}
		ints := make([]int, len(e.Ints))
		for i, n := range e.Ints {
			if least, most := bounds(info); n < least || n > most {
				return nil, fmt.Errorf("%w DICOM: %v holds %d, which is out of the range of %s", pipeline.ErrInvalid, e.Tag, n, e.VR)
			}
			ints[i] = int(n)
		}
		return ints, fits(*e, info.size*len(ints))
	case formBytes:
		b := e.Bytes
		if len(b)%info.size != 0 {
			return nil, fmt.Errorf("%w DICOM: %v has %d bytes, no multiple of the %d of a word of %s", pipeline.ErrInvalid, e.Tag, len(b), info.size, e.VR)
		}
		if enc.big && info.size > 1 && e.VR != "OV" {
			b = swapped(b, info.size)
		}
		if e.VR == "OV" {
			e.VR = "UN"
		}
		return []string{even(string(b), "\x00")}, nil
	}
	return libraryText(*e, info)
}

// libraryLong makes UN of 64-bit integers: little endian in every syntax (PS3.5 section 6.2.2).
func libraryLong(e *pipeline.Element) (any, error) {
	var b []byte
	for _, n := range e.Ints {
		b = binary.LittleEndian.AppendUint64(b, uint64(n))
	}
	e.VR = "UN"
	return []string{string(b)}, nil
}

// libraryText joins and pads text.
func libraryText(e pipeline.Element, info vrInfo) (any, error) {
	joined := ""
	for i, v := range e.Text {
		if i > 0 {
			joined += "\\"
		}
		joined += v
	}
	pad := " "
	if e.VR == "UI" {
		pad = "\x00"
	}
	joined = even(joined, pad)
	if info.long {
		return []string{joined}, nil
	}
	return []string{joined}, fits(e, len(joined))
}

func even(s, pad string) string {
	if len(s)%2 == 1 {
		return s + pad
	}
	return s
}

// fits refuses values that the 16-bit length of a short VR cannot hold; the library would cut the length off.
func fits(e pipeline.Element, length int) error {
	if length > 0xFFFE && !vrOf(e.VR).long {
		return fmt.Errorf("%w DICOM: %v has %d bytes, more than %s can hold", pipeline.ErrInvalid, e.Tag, length, e.VR)
	}
	return nil
}

func bounds(info vrInfo) (least, most int64) {
	bits := 8 * info.size
	if info.form == formInt {
		return -1 << (bits - 1), 1<<(bits-1) - 1
	}
	return 0, 1<<bits - 1
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
