package dicom

import (
	"bufio"
	"encoding/binary"

	"chatxray/pipeline"
)

// recoder copies the elements of a file that the walker has passed, as Explicit VR Little Endian. What is in that form already keeps its
// bytes; items of implicit VR and big endian get an undefined length.
type recoder struct {
	w      *walker // for its reading of heads and lengths
	enc    coding
	out    *bufio.Writer
	edits  pipeline.Dataset // of the outermost data set, in place of what the file has
	skip   func(pipeline.Tag) bool
	pixels func(*bufio.Writer) error // writes Pixel Data
}

// top copies the outermost data set.
func (r *recoder) top(off int64) error {
	src, edits := r.w.src, r.edits
	for off < src.size {
		if done, err := r.w.padding(off, src.size); done || err != nil {
			break
		}
		h, err := r.w.head(off, src.size, r.enc)
		if err != nil {
			return err
		}
		for len(edits) > 0 && edits[0].Tag < h.tag {
			if err := writeElements(r.out, edits[:1], coding{}); err != nil {
				return err
			}
			edits = edits[1:]
		}
		s := scope{enc: r.enc, depth: 0}
		_, next, _, err := r.w.element(h, src.size, &s)
		if err != nil {
			return err
		}
		_, edited := r.edits.Get(h.tag)
		switch {
		case edited && h.tag == firstTag(edits):
			if err := writeElements(r.out, edits[:1], coding{}); err != nil {
				return err
			}
			edits = edits[1:]
		case edited, r.skip(h.tag), h.tag.Element() == 0, h.tag == tagPadding:
		case h.tag == r.w.pixels.tag:
			if err := r.pixels(r.out); err != nil {
				return err
			}
		default:
			if err := r.copy(h, off, next, r.enc); err != nil {
				return err
			}
		}
		off = next
	}
	return writeElements(r.out, edits, coding{})
}

func firstTag(d pipeline.Dataset) pipeline.Tag {
	if len(d) == 0 {
		return 0
	}
	return d[0].Tag
}

// copy writes one element that lies from off to end.
func (r *recoder) copy(h head, off, end int64, enc coding) error {
	if enc == (coding{}) {
		return r.bytes(off, end-off, 1)
	}
	vr := h.vr
	if h.length == undefined && vr == "UN" { // PS3.5 section 6.2.2, note 4
		vr, enc = "SQ", coding{implicit: true}
	}
	info := vrOf(vr)
	if info.form == formItems {
		return r.sequence(h, end, enc)
	}
	length := end - h.value
	if !info.long && length > 0xFFFE {
		vr, info.long = "UN", true
	}
	if err := r.head(h.tag, vr, info.long, uint32(length)); err != nil {
		return err
	}
	size := 1
	if enc.big {
		if size = info.size; info.form == formTag {
			size = 2
		}
	}
	return r.bytes(h.value, length, size)
}

// head writes tag, VR and length.
func (r *recoder) head(t pipeline.Tag, vr string, long bool, length uint32) error {
	b := append(appendTag(nil, t), vr...)
	if long {
		b = binary.LittleEndian.AppendUint32(append(b, 0, 0), length)
	} else {
		b = binary.LittleEndian.AppendUint16(b, uint16(length))
	}
	_, err := r.out.Write(b)
	return err
}

func appendTag(b []byte, t pipeline.Tag) []byte {
	b = binary.LittleEndian.AppendUint16(b, t.Group())
	return binary.LittleEndian.AppendUint16(b, t.Element())
}

// bytes copies n bytes from off, the bytes of each word of the given size turned round.
func (r *recoder) bytes(off, n int64, size int) error {
	const step = 32 << 10
	for at := int64(0); at < n; at += step {
		b, err := r.w.src.view(off+at, int(min(step, n-at)))
		if err != nil {
			return err
		}
		if size > 1 {
			b = swapped(b, size)
		}
		if _, err := r.out.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// sequence writes a sequence whose items lie from h.value to end, its own delimiter included where its length is undefined.
func (r *recoder) sequence(h head, end int64, enc coding) error {
	if err := r.head(h.tag, "SQ", true, undefined); err != nil {
		return err
	}
	for off := h.value; off < end; {
		item, err := r.w.head(off, end, enc)
		if err != nil {
			return err
		}
		if item.tag == tagSequenceEnd {
			break
		}
		if _, err := r.out.Write(binary.LittleEndian.AppendUint32(appendTag(nil, tagItem), undefined)); err != nil {
			return err
		}
		stop := end
		if item.length != undefined {
			stop = item.value + int64(item.length)
		}
		if off, err = r.item(item.value, stop, item.length == undefined, enc); err != nil {
			return err
		}
		if _, err := r.out.Write(append(appendTag(nil, tagItemEnd), 0, 0, 0, 0)); err != nil {
			return err
		}
	}
	_, err := r.out.Write(append(appendTag(nil, tagSequenceEnd), 0, 0, 0, 0))
	return err
}

// item writes the elements of an item and returns the position behind it.
func (r *recoder) item(off, end int64, open bool, enc coding) (int64, error) {
	for off < end {
		h, err := r.w.head(off, end, enc)
		if err != nil {
			return 0, err
		}
		if h.tag == tagItemEnd && open {
			return h.value, nil
		}
		s := scope{enc: enc, depth: 1}
		_, next, _, err := r.w.element(h, end, &s)
		if err != nil {
			return 0, err
		}
		if h.tag.Element() != 0 {
			if err := r.copy(h, off, next, enc); err != nil {
				return 0, err
			}
		}
		off = next
	}
	return off, nil
}
