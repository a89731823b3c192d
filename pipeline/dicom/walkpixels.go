package dicom

import "chatxray/pipeline"

// span is a part of the source.
type span struct{ off, length int64 }

// pixelData is where the pixels of an object are. At most one of them is there.
type pixelData struct {
	tag       pipeline.Tag // 0: none
	vr        string
	value     span   // native
	word      int    // bytes of one word of its VR
	fragments []span // encapsulated, without the offset table
	first     int64  // position of the first fragment's item: offset tables count from here
	table     []byte // Basic Offset Table
	encap     bool
	end       int64 // behind the whole element
	// Extended Offset Table and its lengths (PS3.3 section C.7.6.3.1.8), 8 bytes each, little endian.
	extended, extendedLengths []byte
}

// found notes the pixel attributes of the outermost data set. It is true where the value is pixels.
func (w *walker) found(h head) (bool, error) {
	var err error
	switch h.tag {
	case pipeline.TagPixelData, pipeline.TagFloatPixelData, pipeline.TagDoubleFloatPixelData:
		if w.pixels.tag != 0 {
			return true, w.bad(h.value, "%v is a second pixel data attribute", h.tag)
		}
		w.pixels.tag, w.pixels.value, w.pixels.word = h.tag, span{h.value, int64(h.length)}, vrOf(h.vr).size
		w.pixels.vr, w.pixels.end = h.vr, h.value+int64(h.length)
		return true, nil
	case pipeline.TagExtendedOffsetTable:
		w.pixels.extended, err = w.offsets(h)
	case pipeline.TagExtendedOffsetTableLengths:
		w.pixels.extendedLengths, err = w.offsets(h)
	}
	return err != nil, err
}

func (w *walker) offsets(h head) ([]byte, error) {
	if h.length > 8*maxFragments || h.length%8 != 0 {
		return nil, w.bad(h.value, "%v has %d bytes, more than %d offsets or no multiple of 8", h.tag, h.length, maxFragments)
	}
	return w.src.take(h.value, int64(h.length))
}

// encapsulated passes over a fragmented value (PS3.5 annex A.4) and, in the outermost data set, notes its fragments.
func (w *walker) encapsulated(h head, end int64, depth int) (int64, error) {
	le := coding{}
	top := depth == 0 && h.tag == pipeline.TagPixelData
	if top && w.pixels.tag != 0 {
		return 0, w.bad(h.value, "%v is a second pixel data attribute", h.tag)
	}
	off, first := h.value, true
	for {
		f, err := w.head(off, end, le)
		switch {
		case err != nil:
			return 0, err
		case f.tag == tagSequenceEnd:
			if top {
				w.pixels.tag, w.pixels.vr, w.pixels.encap, w.pixels.end = h.tag, h.vr, true, f.value
			}
			return f.value, nil
		case f.tag != tagItem:
			return 0, w.bad(off, "%v stands where a fragment of %v should begin", f.tag, h.tag)
		case f.length == undefined || int64(f.length) > end-f.value:
			return 0, w.bad(off, "a fragment of %v claims %d bytes and %d are left; the file is truncated", h.tag, f.length, end-f.value)
		}
		if w.fragments++; w.fragments > maxFragments {
			return 0, w.bad(off, "more than %d fragments", maxFragments)
		}
		next := f.value + int64(f.length)
		switch {
		case first && top:
			if f.length > 4*maxFragments {
				return 0, w.bad(off, "the Basic Offset Table has %d bytes", f.length)
			}
			if w.pixels.table, err = w.src.take(f.value, int64(f.length)); err != nil {
				return 0, err
			}
			w.pixels.first = next
		case top:
			w.pixels.fragments = append(w.pixels.fragments, span{f.value, int64(f.length)})
		}
		first, off = false, next
	}
}
