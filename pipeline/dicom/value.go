package dicom

import (
	"math"
	"strings"

	"chatxray/pipeline"
)

// value reads the value of an element that is no sequence into e.
func (w *walker) value(e *pipeline.Element, h head, s *scope) error {
	info := vrOf(h.vr)
	if h.vr == "UN" && !s.enc.implicit && h.tag.Group()%2 == 0 {
		if done, err := w.unknown(e, h, s); done || err != nil {
			return err
		}
	}
	if h.length == 0 {
		return nil
	}
	if int(h.length)%info.size != 0 {
		return w.bad(h.value, "%v has %d bytes, no multiple of the %d that one value of %s takes", h.tag, h.length, info.size, h.vr)
	}
	if info.form == formBytes {
		return w.binary(e, h, s.enc, info.size)
	}
	cost := int64(h.length) // text
	if info.size > 1 {
		cost *= 8 / int64(min(info.size, 8)) // int64 and float64 values
	}
	if err := w.spend(h.value, cost); err != nil {
		return err
	}
	b, err := w.src.take(h.value, int64(h.length))
	if err != nil {
		return err
	}
	switch info.form {
	case formUint, formInt:
		e.Ints = make([]int64, len(b)/info.size)
		for i := range e.Ints {
			e.Ints[i] = integer(b[i*info.size:], info, s.enc)
		}
	case formTag:
		e.Ints = make([]int64, len(b)/4)
		for i := range e.Ints {
			e.Ints[i] = int64(s.enc.tag(b[i*4:]))
		}
	case formFloat:
		e.Floats = make([]float64, len(b)/info.size)
		for i := range e.Floats {
			if info.size == 4 {
				e.Floats[i] = float64(math.Float32frombits(s.enc.u32(b[i*4:])))
			} else {
				e.Floats[i] = math.Float64frombits(s.enc.u64(b[i*8:]))
			}
		}
	default:
		return w.text(e, h, b, info, s)
	}
	return nil
}

// integer reads one binary integer. UV above the range of int64 keeps its bits.
func integer(b []byte, info vrInfo, enc coding) int64 {
	switch {
	case info.size == 2 && info.form == formInt:
		return int64(int16(enc.u16(b)))
	case info.size == 2:
		return int64(enc.u16(b))
	case info.size == 4 && info.form == formInt:
		return int64(int32(enc.u32(b)))
	case info.size == 4:
		return int64(enc.u32(b))
	}
	return int64(enc.u64(b))
}

// unknown reads an attribute of the standard that was written as UN: its value is in implicit VR little endian (PS3.5 section
// 6.2.2). It is false where the dictionary does not know the attribute, or its value is not what the dictionary says.
func (w *walker) unknown(e *pipeline.Element, h head, s *scope) (bool, error) {
	vr := w.implicitVR(h.tag)
	in := *s
	in.enc = coding{implicit: true}
	info := vrOf(vr)
	switch {
	case vr == "UN" || int(h.length)%info.size != 0:
		return false, nil
	case info.form == formItems:
		in.tag = h.tag
		n := len(w.left)
		items, _, err := w.sequence(h.value, h.value+int64(h.length), false, in)
		if err != nil {
			w.left, w.places = w.left[:n], w.places[:n]
			return false, nil // its bytes are kept
		}
		e.VR, e.Items = vr, items
		return true, nil
	}
	h.vr, e.VR = vr, vr
	return true, w.value(e, h, &in)
}

// binary reads a value of bytes, words swapped to little endian.
func (w *walker) binary(e *pipeline.Element, h head, enc coding, size int) error {
	if w.src.data == nil || enc.big && size > 1 {
		if err := w.spend(h.value, int64(h.length)); err != nil {
			return err
		}
	}
	b, err := w.src.take(h.value, int64(h.length))
	if err != nil {
		return err
	}
	if enc.big && size > 1 {
		b = swapped(b, size)
	}
	e.Bytes = b
	return nil
}

// swapped returns a copy with the bytes of each word reversed; a rest shorter than a word is copied.
func swapped(b []byte, size int) []byte {
	out := make([]byte, len(b))
	copy(out, b)
	for i := 0; i+size <= len(out); i += size {
		for l, r := i, i+size-1; l < r; l, r = l+1, r-1 {
			out[l], out[r] = out[r], out[l]
		}
	}
	return out
}

// text reads a value of characters.
func (w *walker) text(e *pipeline.Element, h head, b []byte, info vrInfo, s *scope) error {
	set := charset{}
	if info.charset {
		set = s.text
	}
	if !ascii(b) { // up to three bytes a character, and what decoders need beside
		if err := w.spend(h.value, 5*int64(len(b))); err != nil {
			return err
		}
	}
	values := []string{set.decode(b, info.form == formText, h.vr == "PN")}
	if info.form == formText {
		if err := w.spend(h.value, 16*int64(1+strings.Count(values[0], "\\"))); err != nil {
			return err
		}
		values = strings.Split(values[0], "\\")
	}
	some := false
	for i, v := range values {
		v = strings.TrimRight(v, " \x00")
		if info.lead {
			v = strings.TrimLeft(v, " \x00")
		}
		values[i] = v
		some = some || v != ""
	}
	if len(values) > 1 || some {
		e.Text = values
	}
	if h.tag == pipeline.TagSpecificCharacterSet {
		s.text = newCharset(e.Text)
	}
	return nil
}
