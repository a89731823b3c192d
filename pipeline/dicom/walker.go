package dicom

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"chatxray/pipeline"
)

// The walker's limits. Each is far above what real objects need; together they keep time and memory linear in the file's size.
const (
	maxDepth     = 16      // sequences within sequences
	maxElements  = 2 << 20 // in all, items included
	maxFragments = 1 << 20
	// A header may take baseBudget + sizeBudget × file bytes of memory, and most of a large file are its pixels.
	baseBudget = 12 << 20
	sizeBudget = 3
	mostBudget = baseBudget + 96<<20
	// Other binary values are left out of the header above this length; they are found through their object.
	maxBinary = 256 << 10
)

const undefined = 0xFFFFFFFF

const (
	tagItem          pipeline.Tag = 0xFFFEE000
	tagItemEnd       pipeline.Tag = 0xFFFEE00D
	tagSequenceEnd   pipeline.Tag = 0xFFFEE0DD
	tagPadding       pipeline.Tag = 0xFFFCFFFC // Data Set Trailing Padding
	elementCost                   = 144        // bytes of a pipeline.Element
	groupPixels                   = 0x7FE0
	itemHeaderLength              = 8
)

// coding is how elements are written (PS3.5 section 7).
type coding struct{ implicit, big bool }

func (e coding) u16(b []byte) uint16 {
	if e.big {
		return binary.BigEndian.Uint16(b)
	}
	return binary.LittleEndian.Uint16(b)
}

func (e coding) u32(b []byte) uint32 {
	if e.big {
		return binary.BigEndian.Uint32(b)
	}
	return binary.LittleEndian.Uint32(b)
}

func (e coding) u64(b []byte) uint64 {
	if e.big {
		return binary.BigEndian.Uint64(b)
	}
	return binary.LittleEndian.Uint64(b)
}

func (e coding) tag(b []byte) pipeline.Tag {
	return pipeline.Tag(e.u16(b))<<16 | pipeline.Tag(e.u16(b[2:]))
}

// walker goes through a data set once. It builds the header where keep is set, and finds the pixels in any case.
type walker struct {
	src       *source
	keep      bool
	budget    int64
	elements  int
	fragments int
	signed    bool // Pixel Representation of the outermost data set: settles "US or SS" in implicit VR
	pixels    pixelData
	left      []pipeline.Bulk // what the header leaves out, where keep is set
	places    []int64         // where each of left begins
	trail     []step          // the items around the data set that is being read
}

// step is one item on the way to a nested data set.
type step struct {
	tag  pipeline.Tag
	item int // from 1
}

// scope is what holds for one data set: its encoding, its text, how deep it lies.
type scope struct {
	enc   coding
	text  charset
	depth int
	tag   pipeline.Tag // of the sequence
}

func newWalker(src *source, keep bool) *walker {
	return &walker{src: src, keep: keep, budget: budgetOf(src)}
}

func budgetOf(src *source) int64 { return min(mostBudget, baseBudget+sizeBudget*src.size) }

func (w *walker) bad(off int64, format string, a ...any) error {
	return fmt.Errorf("%w DICOM: %s at byte %d", pipeline.ErrInvalid, fmt.Sprintf(format, a...), off)
}

// spend charges n bytes of memory.
func (w *walker) spend(off, n int64) error {
	if w.budget -= n; w.budget < 0 {
		return w.bad(off, "the header is larger in memory than %d MiB + %d times the file, or than %d MiB; too many attributes or values", baseBudget>>20, sizeBudget, mostBudget>>20)
	}
	return nil
}

// head is the beginning of an element.
type head struct {
	tag    pipeline.Tag
	vr     string
	length uint32
	value  int64 // where the value begins
}

// head reads the tag, VR and length at off; end is where the enclosing data set ends at the latest.
func (w *walker) head(off, end int64, enc coding) (head, error) {
	if end-off < 8 {
		return head{}, w.bad(off, "an attribute needs 8 bytes and %d are left; the file is truncated", end-off)
	}
	b, err := w.src.view(off, int(min(12, end-off)))
	if err != nil {
		return head{}, err
	}
	h := head{tag: enc.tag(b), value: off + 8}
	switch {
	case h.tag.Group() == 0xFFFE: // items have no VR
		h.length = enc.u32(b[4:])
		return h, nil
	case enc.implicit:
		h.length = enc.u32(b[4:])
		h.vr = w.implicitVR(h.tag)
		if h.length == undefined && h.tag != pipeline.TagPixelData {
			h.vr = "SQ"
		}
		return h, nil
	}
	info := vrOf(string(b[4:6]))
	switch {
	case info.form == formNone:
		return head{}, w.bad(off, "%v has the value representation %q, which is none of the standard", h.tag, b[4:6])
	case !info.long:
		h.vr, h.length = string(b[4:6]), uint32(enc.u16(b[6:]))
		return h, nil
	case len(b) < 12:
		return head{}, w.bad(off, "%v needs 12 bytes and %d are left; the file is truncated", h.tag, end-off)
	}
	h.vr, h.length, h.value = string(b[4:6]), enc.u32(b[8:]), off+12
	return h, nil
}

// implicitVR is the VR of an attribute in implicit VR (PS3.5 annex A.1).
func (w *walker) implicitVR(t pipeline.Tag) string {
	if e := t.Element(); t.Group()%2 == 1 && e >= 0x10 && e <= 0xFF {
		return "LO" // private creator
	}
	i, ok := info(t)
	if !ok || len(i.VRs) == 0 || vrOf(i.VRs[0]).form == formNone {
		if t.Element() == 0 {
			return "UL"
		}
		return "UN"
	}
	_, vr, _ := Keyword(t)
	if vr == "US" && w.signed && slices.Contains(i.VRs, "SS") && t != pipeline.TagLUTDescriptor {
		return "SS"
	}
	return vr
}

// dataset reads elements from off to end, or, where open is set, to the item's delimiter. It returns the data set in the order of
// its tags and the position behind it.
func (w *walker) dataset(off, end int64, open bool, s scope) (pipeline.Dataset, int64, error) {
	var ds elements
	if s.depth == 0 && w.keep {
		ds.last = make(pipeline.Dataset, 0, 64) // a radiograph's
	}
	for off < end {
		if s.depth == 0 {
			done, err := w.padding(off, end)
			if err != nil {
				return nil, 0, err
			}
			if done {
				off = end
				break
			}
		}
		h, err := w.head(off, end, s.enc)
		if err != nil {
			return nil, 0, err
		}
		if h.tag == tagItemEnd && open {
			return w.ordered(ds.all(), h.value, off)
		}
		if h.tag.Group() == 0xFFFE {
			return nil, 0, w.bad(off, "%v is not expected", h.tag)
		}
		if w.elements++; w.elements > maxElements {
			return nil, 0, w.bad(off, "more than %d attributes", maxElements)
		}
		e, next, bulk, err := w.element(h, end, &s)
		if err == nil && bulk && w.keep {
			err = w.leave(h)
		}
		if err != nil {
			return nil, 0, err
		}
		if w.keep && !bulk && h.tag.Element() != 0 { // group lengths are retired and lie after any change
			if err := w.spend(off, elementCost); err != nil {
				return nil, 0, err
			}
			ds.add(e)
		}
		if h.tag == pipeline.TagPixelRepresentation && s.depth == 0 {
			w.signed = len(e.Ints) == 1 && e.Ints[0] == 1
		}
		off = next
	}
	if open {
		return nil, 0, w.bad(off, "an item of undefined length does not end; the file is truncated")
	}
	return w.ordered(ds.all(), off, off)
}

// elements collects a data set. A large one grows in pieces, so that it is copied once and not at each step.
type elements struct {
	full []pipeline.Dataset
	last pipeline.Dataset
	n    int
}

const piece = 512

func (s *elements) add(e pipeline.Element) {
	if len(s.last) == piece {
		s.full = append(s.full, s.last)
		s.last = make(pipeline.Dataset, 0, piece)
	}
	s.last = append(s.last, e)
	s.n++
}

func (s *elements) all() pipeline.Dataset {
	if len(s.full) == 0 {
		return s.last
	}
	out := make(pipeline.Dataset, 0, s.n)
	for _, f := range s.full {
		out = append(out, f...)
	}
	return append(out, s.last...)
}

// ordered sorts a data set whose writer did not, and refuses one with two different values of an attribute.
func (w *walker) ordered(ds pipeline.Dataset, next, off int64) (pipeline.Dataset, int64, error) {
	byTag := func(a, b pipeline.Element) int { return cmp.Compare(a.Tag, b.Tag) }
	if !slices.IsSortedFunc(ds, byTag) {
		slices.SortStableFunc(ds, byTag)
	}
	for i := 1; i < len(ds); i++ {
		if ds[i].Tag == ds[i-1].Tag {
			return nil, 0, w.bad(off, "%v occurs twice in the data set that ends", ds[i].Tag)
		}
	}
	return ds, next, nil
}

// padding tells whether only zeros are left: some writers pad files to a block size.
func (w *walker) padding(off, end int64) (bool, error) {
	begin := off
	for off < end {
		n := int(min(end-off, 4096))
		b, err := w.src.view(off, n)
		if err != nil {
			return false, err
		}
		for i, c := range b {
			if c == 0 {
				continue
			}
			if off == begin && i < 4 {
				return false, nil
			}
			return false, w.bad(begin, "(0000,0000) is no attribute")
		}
		off += int64(n)
	}
	return true, nil
}

// element reads one value. bulk says that it is not for the header.
func (w *walker) element(h head, end int64, s *scope) (e pipeline.Element, next int64, bulk bool, err error) {
	e = pipeline.Element{Tag: h.tag, VR: h.vr}
	form := vrOf(h.vr).form
	if h.length == undefined {
		switch {
		case h.tag == pipeline.TagPixelData || form == formBytes && h.vr != "UN":
			next, err = w.encapsulated(h, end, s.depth)
			return e, next, true, err
		case form == formItems, h.vr == "UN":
			in := *s
			if h.vr == "UN" && s.enc.big {
				return e, 0, false, w.bad(h.value, "%v is an unknown sequence in big endian, whose byte order readers disagree about", h.tag)
			}
			if h.vr == "UN" { // PS3.5 section 6.2.2, note 4
				in.enc = coding{implicit: true}
			}
			e.VR, in.tag = "SQ", h.tag
			e.Items, next, err = w.sequence(h.value, end, true, in)
			return e, next, false, err
		}
		return e, 0, false, w.bad(h.value, "%v has an undefined length, which %s cannot have", h.tag, h.vr)
	}
	if int64(h.length) > end-h.value {
		return e, 0, false, w.bad(h.value, "%v claims %d bytes and %d are left; the file is truncated or the length is wrong", h.tag, h.length, end-h.value)
	}
	next = h.value + int64(h.length)
	if form == formItems {
		in := *s
		in.tag = h.tag
		e.Items, _, err = w.sequence(h.value, next, false, in)
		return e, next, false, err
	}
	if s.depth == 0 && h.tag.Group() == groupPixels {
		if bulk, err = w.found(h); bulk || err != nil {
			return e, next, true, err
		}
	}
	if isBulk(h) {
		return e, next, true, nil
	}
	if !w.keep && h.tag != pipeline.TagPixelRepresentation {
		return e, next, false, nil
	}
	err = w.value(&e, h, s)
	return e, next, false, err
}

// leave notes a value that is not for the header. Offset tables, padding and group lengths belong to the file's form, not to the object.
func (w *walker) leave(h head) error {
	if h.tag.Element() == 0 {
		return nil
	}
	switch h.tag {
	case tagPadding, pipeline.TagExtendedOffsetTable, pipeline.TagExtendedOffsetTableLengths:
		return nil
	}
	path := ""
	for _, t := range w.trail {
		path += fmt.Sprintf("%08X/%d/", uint32(t.tag), t.item)
	}
	path += fmt.Sprintf("%08X", uint32(h.tag))
	length := int64(h.length)
	if h.length == undefined {
		length = -1
	}
	w.left = append(w.left, pipeline.Bulk{Path: path, VR: h.vr, Length: length})
	w.places = append(w.places, h.value)
	return w.spend(h.value, elementCost+int64(len(path)))
}

// isBulk tells whether a value is for its object only and never for the header.
func isBulk(h head) bool {
	switch {
	case h.tag.Group() == groupPixels, h.tag == pipeline.TagEncapsulatedDocument, h.tag == tagPadding,
		h.tag == 0x54001010, h.tag == 0x56000020, // Waveform Data, Spectroscopy Data
		h.tag&0xFF00FFFF == 0x60003000, h.tag&0xFF00FFFF == 0x50003000: // Overlay Data, Curve Data
		return true
	}
	return vrOf(h.vr).form == formBytes && h.length > maxBinary
}

// sequence reads items from off to end, or, where open is set, to the sequence's delimiter.
func (w *walker) sequence(off, end int64, open bool, s scope) ([]pipeline.Dataset, int64, error) {
	if s.depth++; s.depth > maxDepth {
		return nil, 0, w.bad(off, "sequences are nested more than %d deep", maxDepth)
	}
	w.trail = append(w.trail, step{tag: s.tag})
	defer func() { w.trail = w.trail[:len(w.trail)-1] }()
	var items []pipeline.Dataset
	for off < end {
		w.trail[len(w.trail)-1].item++
		h, err := w.head(off, end, s.enc)
		switch {
		case err != nil:
			return nil, 0, err
		case h.tag == tagSequenceEnd && open:
			return items, h.value, nil
		case h.tag != tagItem:
			return nil, 0, w.bad(off, "%v stands where an item of a sequence should begin", h.tag)
		case h.length != undefined && int64(h.length) > end-h.value:
			return nil, 0, w.bad(off, "an item claims %d bytes and %d are left; the file is truncated or the length is wrong", h.length, end-h.value)
		}
		if w.elements++; w.elements > maxElements {
			return nil, 0, w.bad(off, "more than %d attributes and items", maxElements)
		}
		stop := end
		if h.length != undefined {
			stop = h.value + int64(h.length)
		}
		item, next, err := w.dataset(h.value, stop, h.length == undefined, s)
		if err != nil {
			return nil, 0, err
		}
		if w.keep {
			if err := w.spend(off, 32); err != nil {
				return nil, 0, err
			}
			items = append(items, item)
		}
		off = next
	}
	if open {
		return nil, 0, w.bad(off, "a sequence of undefined length does not end; the file is truncated")
	}
	return items, off, nil
}
