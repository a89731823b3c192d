package dicom

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	library "github.com/suyashkumar/dicom"
	"github.com/suyashkumar/dicom/pkg/tag"

	"chatxray/pipeline"
)

// writeElements lets the library write elements.
func writeElements(out io.Writer, ds pipeline.Dataset, enc coding) error {
	lib, err := library.NewWriter(out, library.SkipVRVerification(), library.SkipValueTypeVerification())
	if err != nil {
		return err
	}
	lib.SetTransferSyntax(enc.order(), enc.implicit)
	w := elementWriter{out: out, lib: lib, enc: enc, text: []string{""}}
	if w.value, err = library.NewValue(w.text); err != nil {
		return err
	}
	return w.dataset(ds)
}

func (e coding) order() binary.ByteOrder {
	if e.big {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

// elementWriter gives the library one element after the other, an item's between its delimiters: a sequence that it is given whole is copied
// by it at every level. Values that it would pad wrongly, write word by word or not at all are given to it as one string of their bytes,
// which it writes as it is.
type elementWriter struct {
	out   io.Writer
	lib   *library.Writer
	enc   coding
	text  []string // one, which value is made of
	value library.Value
	next  library.Element
}

func (w *elementWriter) dataset(ds pipeline.Dataset) error {
	if err := checkOrder(ds); err != nil {
		return err
	}
	for i := range ds {
		if err := w.element(&ds[i]); err != nil {
			return err
		}
	}
	return nil
}

func (w *elementWriter) element(e *pipeline.Element) (err error) {
	info, vr := vrOf(e.VR), e.VR
	if info.form == formNone {
		return fmt.Errorf("%w DICOM: %v has the value representation %q, which is none of the standard", pipeline.ErrInvalid, e.Tag, e.VR)
	}
	switch vr {
	case "SV", "UV", "OV":
		vr = "UN"
	}
	w.next = library.Element{Tag: tag.Tag{Group: e.Tag.Group(), Element: e.Tag.Element()}, RawValueRepresentation: vr}
	if info.form == formItems {
		return w.sequence(e.Items)
	}
	if w.next.Value, err = w.valueOf(e, info); err != nil {
		return err
	}
	return w.write()
}

func (w *elementWriter) write() error {
	if err := w.lib.WriteElement(&w.next); err != nil {
		return fmt.Errorf("%w DICOM: %v cannot be written: %v", pipeline.ErrInvalid, w.next.Tag, err)
	}
	return nil
}

func (w *elementWriter) sequence(items []pipeline.Dataset) error {
	if err := w.write(); err != nil { // without a value it is the header alone, of undefined length
		return err
	}
	for _, item := range items {
		if err := w.delimiter(tagItem, undefined); err != nil {
			return err
		}
		if err := w.dataset(item); err != nil {
			return err
		}
		if err := w.delimiter(tagItemEnd, 0); err != nil {
			return err
		}
	}
	return w.delimiter(tagSequenceEnd, 0)
}

// delimiter writes what stands around items and sequences of undefined length (PS3.5 section 7.5).
func (w *elementWriter) delimiter(t pipeline.Tag, length uint32) error {
	order, b := w.enc.order(), make([]byte, itemHeaderLength)
	order.PutUint16(b, t.Group())
	order.PutUint16(b[2:], t.Element())
	order.PutUint32(b[4:], length)
	_, err := w.out.Write(b)
	return err
}

// valueOf makes the library's value of an element that is no sequence.
func (w *elementWriter) valueOf(e *pipeline.Element, info vrInfo) (library.Value, error) {
	switch info.form {
	case formTag:
		halves := make([]int, 0, 2*len(e.Ints))
		for _, t := range e.Ints {
			halves = append(halves, int(t>>16&0xFFFF), int(t&0xFFFF))
		}
		return valueIn(e, 2*len(halves), halves)
	case formFloat:
		return valueIn(e, info.size*len(e.Floats), e.Floats)
	case formUint, formInt:
		if info.size == 8 { // UN is little endian in every syntax (PS3.5 section 6.2.2)
			var b []byte
			for _, n := range e.Ints {
				b = binary.LittleEndian.AppendUint64(b, uint64(n))
			}
			return w.bytes(string(b)), nil
		}
		ints := make([]int, len(e.Ints))
		for i, n := range e.Ints {
			if least, most := bounds(info); n < least || n > most {
				return nil, fmt.Errorf("%w DICOM: %v holds %d, which is out of the range of %s", pipeline.ErrInvalid, e.Tag, n, e.VR)
			}
			ints[i] = int(n)
		}
		return valueIn(e, info.size*len(ints), ints)
	case formBytes:
		b := e.Bytes
		if len(b)%info.size != 0 {
			return nil, fmt.Errorf("%w DICOM: %v has %d bytes, no multiple of the %d of a word of %s", pipeline.ErrInvalid, e.Tag, len(b), info.size, e.VR)
		}
		if w.enc.big && info.size > 1 && e.VR != "OV" {
			b = swapped(b, info.size)
		}
		return w.bytes(even(string(b), "\x00")), nil
	}
	pad := " "
	if e.VR == "UI" {
		pad = "\x00"
	}
	s := even(strings.Join(e.Text, "\\"), pad)
	return w.bytes(s), fits(e, len(s))
}

func valueIn(e *pipeline.Element, length int, value any) (library.Value, error) {
	if err := fits(e, length); err != nil {
		return nil, err
	}
	return library.NewValue(value)
}

// bytes is the value that is written as it is; it counts until the next call.
func (w *elementWriter) bytes(s string) library.Value {
	w.text[0] = s
	return w.value
}

func even(s, pad string) string {
	if len(s)%2 == 1 {
		return s + pad
	}
	return s
}

// fits refuses values that the 16-bit length of a short VR cannot hold; the library would cut the length off.
func fits(e *pipeline.Element, length int) error {
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
