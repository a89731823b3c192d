package dicom

import (
	"cmp"
	"encoding/binary"
	"math"
	"math/bits"
	"slices"

	"chatxray/pipeline"
)

// The way from a stored value to gray 0..1, dense = bright (PS3.4 section N.2, PS3.3 sections C.11.1, C.11.2 and C.7.6.3.1.2).
// What the standard leaves to the reader is settled as follows.
//
//   - Modality: the Modality LUT Sequence before Rescale Slope and Intercept. A slope of 0, or one that is no number, counts as 1.
//   - VOI: the first usable item of the VOI LUT Sequence before the first usable pair of Window Center and Width. Frame-level functional
//     groups stand in for the attributes of the same name, per frame before shared.
//   - Without either: the whole range of values for up to 8 bits stored, above that the 0.5th to the 99.5th percentile of a grid of
//     pixels inside the shutter, padding left out.
//   - Inverted: MONOCHROME1, or Presentation LUT Shape INVERSE, or both (they say the same). FOR PROCESSING objects follow Pixel
//     Intensity Relationship Sign instead, where they have it: 1 means that dense is low.
//   - Pixel Padding Value, or the range to Pixel Padding Range Limit, is 0.
//   - Bits outside Bits Stored mean nothing and are ignored.

// wordFormat is what the raw words of an image mean.
type wordFormat struct {
	words        int // 1<<8 or 1<<16: how many raw words there are
	stored, high int // Bits Stored, High Bit; stored is at most 16
	signed       bool
	// 32-bit values were brought to 16 bits: the stored value is base + word × step. step is 0 otherwise.
	base, step float64
}

// index returns which of the 1<<stored values a raw word holds.
func (f wordFormat) index(word int) int {
	return word >> (f.high + 1 - f.stored) & (1<<f.stored - 1)
}

// value returns the stored value at an index.
func (f wordFormat) value(index int) float64 {
	switch {
	case f.step != 0:
		return f.base + float64(index)*f.step
	case f.signed && index >= 1<<(f.stored-1):
		return float64(index - 1<<f.stored)
	}
	return float64(index)
}

// spread makes a lookup for every raw word of one for every value.
func (f wordFormat) spread(values []float32) []float32 {
	if len(values) == f.words && f.high+1 == f.stored {
		return values
	}
	out := make([]float32, f.words)
	if f.high+1 == f.stored {
		for at := 0; at < len(out); at += len(values) {
			copy(out[at:], values)
		}
		return out
	}
	for w := range out {
		out[w] = values[f.index(w)]
	}
	return out
}

// functionalGroup returns the data set that holds the attributes of a frame-level macro: the macro's item of the frame, the
// shared one, or the object itself (PS3.3 section C.7.6.16).
func functionalGroup(h pipeline.Dataset, frame int, macro pipeline.Tag) pipeline.Dataset {
	if frames := h.Items(pipeline.TagPerFrameFunctionalGroupsSequence); frame < len(frames) {
		if item := frames[frame].Items(macro); len(item) > 0 {
			return item[0]
		}
	}
	if shared := h.Items(pipeline.TagSharedFunctionalGroupsSequence); len(shared) > 0 {
		if item := shared[0].Items(macro); len(item) > 0 {
			return item[0]
		}
	}
	return h
}

// table is a lookup table of the standard: entry i stands for the value first+i; values before and beyond take the end entries.
type table struct {
	first   int
	entries []uint16
	bits    int // of an entry, from the descriptor
}

func (t *table) at(v float64) float64 {
	i := math.Round(v) - float64(t.first)
	return float64(t.entries[int(min(max(i, 0), float64(len(t.entries)-1)))])
}

// readTable reads a descriptor and its data; nil where they are absent or make no table. signed: the values that are looked up
// may be negative, which settles a descriptor whose "US or SS" was read as the other one.
func readTable(d pipeline.Dataset, descriptor, data pipeline.Tag, signed bool) *table {
	words := wordsOf(d, descriptor)
	if len(words) < 3 {
		return nil
	}
	n := int(words[0])
	if n == 0 {
		n = 1 << 16
	}
	t := &table{first: int(words[1]), bits: int(words[2])}
	if signed {
		t.first = int(int16(words[1]))
	}
	if e, _ := d.Get(data); t.bits <= 8 && len(e.Bytes) >= n && len(e.Bytes) < 2*n {
		for _, b := range e.Bytes[:n] { // two entries a word, the first in the low byte
			t.entries = append(t.entries, uint16(b))
		}
	} else {
		t.entries = wordsOf(d, data)
	}
	t.entries = t.entries[:min(n, len(t.entries))]
	if len(t.entries) == 0 {
		return nil
	}
	return t
}

// wordsOf returns the values of an attribute of 16-bit words, whichever of its value representations it came in.
func wordsOf(d pipeline.Dataset, tag pipeline.Tag) []uint16 {
	e, _ := d.Get(tag)
	var out []uint16
	if len(e.Ints) > 0 {
		out = make([]uint16, len(e.Ints))
		for i, v := range e.Ints {
			out[i] = uint16(v)
		}
		return out
	}
	out = make([]uint16, len(e.Bytes)/2)
	for i := range out {
		out[i] = binary.LittleEndian.Uint16(e.Bytes[2*i:])
	}
	return out
}

// modality takes stored values to the manufacturer's output units (PS3.3 section C.11.1).
type modality struct {
	table            *table
	slope, intercept float64
}

func modalityOf(h pipeline.Dataset, frame int, signed bool) modality {
	d := functionalGroup(h, frame, pipeline.TagPixelValueTransformationSequence)
	m := modality{slope: 1}
	for _, item := range d.Items(pipeline.TagModalityLUTSequence) {
		if m.table = readTable(item, pipeline.TagLUTDescriptor, pipeline.TagLUTData, signed); m.table != nil {
			return m
		}
	}
	if s := d.Floats(pipeline.TagRescaleSlope); len(s) > 0 && s[0] != 0 && finite(s[0]) {
		m.slope = s[0]
	}
	if i := d.Floats(pipeline.TagRescaleIntercept); len(i) > 0 && finite(i[0]) {
		m.intercept = i[0]
	}
	return m
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

func (m modality) value(v float64) float64 {
	if m.table != nil {
		return m.table.at(v)
	}
	return v*m.slope + m.intercept
}

// voi takes output units to 0..1.
type voi func(float64) float64

// voiOf returns the VOI transformation of a frame; nil where the object has none. signed: the output units may be negative.
func voiOf(h pipeline.Dataset, frame int, signed bool) voi {
	d := functionalGroup(h, frame, pipeline.TagFrameVOILUTSequence)
	for _, item := range d.Items(pipeline.TagVOILUTSequence) {
		if t := readTable(item, pipeline.TagLUTDescriptor, pipeline.TagLUTData, signed); t != nil {
			if full := t.full(); full > 0 {
				return func(x float64) float64 { return t.at(x) / full }
			}
		}
	}
	centers, widths := d.Floats(pipeline.TagWindowCenter), d.Floats(pipeline.TagWindowWidth)
	for i := range min(len(centers), len(widths)) {
		if w := window(d.String(pipeline.TagVOILUTFunction), centers[i], widths[i]); w != nil {
			return w
		}
	}
	return nil
}

// full is the entry that stands for 1: the largest of the descriptor's bits. A descriptor that does not fit its entries (smaller
// than one of them, or more than twice as large as all) gives way to the bits that the entries need.
func (t *table) full() float64 {
	need := bits.Len16(slices.Max(t.entries))
	if t.bits < need || t.bits > 16 || need < t.bits-1 {
		return float64(int(1)<<need - 1)
	}
	return float64(int(1)<<t.bits - 1)
}

// window is one of the functions of PS3.3 section C.11.2.1; nil where the width is none that the function allows. An unknown or
// absent function is LINEAR.
func window(function string, c, w float64) voi {
	if !finite(c) || !finite(w) || w <= 0 {
		return nil
	}
	switch function {
	case "SIGMOID":
		return func(x float64) float64 { return 1 / (1 + math.Exp(-4*(x-c)/w)) }
	case "LINEAR_EXACT":
		return ramp(c-w/2, c+w/2)
	}
	if w < 1 {
		return nil
	}
	return ramp(c-0.5-(w-1)/2, c-0.5+(w-1)/2)
}

// ramp is 0 up to low, 1 above high and straight between.
func ramp(low, high float64) voi {
	return func(x float64) float64 {
		switch {
		case x <= low:
			return 0
		case x > high:
			return 1
		}
		return (x - low) / (high - low)
	}
}

// inverted reports whether a low output value of the VOI transformation is dense, and so must become bright.
func inverted(h pipeline.Dataset, photometric string) bool {
	if h.String(pipeline.TagPresentationIntentType) == "FOR PROCESSING" {
		if sign, ok := h.Int(pipeline.TagPixelIntensityRelationshipSign); ok && (sign == 1 || sign == -1) {
			return sign == 1
		}
	}
	return photometric == "MONOCHROME1" || h.String(pipeline.TagPresentationLUTShape) == "INVERSE"
}

// padding is a range of stored values that are no image; none where from > to.
type padding struct{ from, to float64 }

func paddingOf(h pipeline.Dataset, signed bool) padding {
	stored := func(tag pipeline.Tag) (float64, bool) {
		v, ok := h.Int(tag)
		if signed {
			return float64(int16(v)), ok
		}
		return float64(uint16(v)), ok
	}
	value, ok := stored(pipeline.TagPixelPaddingValue)
	if !ok {
		return padding{1, 0}
	}
	if limit, ok := stored(pipeline.TagPixelPaddingRangeLimit); ok {
		return padding{min(value, limit), max(value, limit)}
	}
	return padding{value, value}
}

func (p padding) has(v float64) bool { return v >= p.from && v <= p.to }

// grayLookup returns the lookup of a MONOCHROME image. census counts the raw words of a grid of pixels; it is called only where the
// object has no VOI transformation. chosen, if any, stands in for the object's own.
func grayLookup(h pipeline.Dataset, frame int, f wordFormat, photometric string, chosen voi, census func() []uint32) []float32 {
	mod, pad, invert := modalityOf(h, frame, f.signed), paddingOf(h, f.signed), inverted(h, photometric)
	output := make([]float64, 1<<f.stored)
	for i := range output {
		output[i] = mod.value(f.value(i))
	}
	transform := chosen
	if transform == nil {
		transform = voiOf(h, frame, slices.Min(output) < 0)
	}
	if transform == nil {
		transform = automatic(f, pad, output, census)
	}
	values := make([]float32, len(output))
	for i, x := range output {
		y := transform(x)
		if invert {
			y = 1 - y
		}
		if pad.has(f.value(i)) || !(y >= 0) {
			y = 0
		}
		values[i] = float32(min(y, 1))
	}
	return f.spread(values)
}

const autoTail = 0.005 // of the pixels lie below and above the automatic window

// automatic is the VOI transformation of an object that has none.
func automatic(f wordFormat, pad padding, output []float64, census func() []uint32) voi {
	whole := ramp(slices.Min(output), slices.Max(output))
	if f.stored <= 8 {
		return whole
	}
	type level struct {
		x float64
		n int
	}
	var levels []level
	total := 0
	counts := make([]int, len(output))
	for word, n := range census() {
		counts[f.index(word)] += int(n)
	}
	for i, n := range counts {
		if n > 0 && !pad.has(f.value(i)) {
			levels = append(levels, level{output[i], n})
			total += n
		}
	}
	if total == 0 {
		return whole
	}
	slices.SortFunc(levels, func(a, b level) int { return cmp.Compare(a.x, b.x) })
	skip := int(autoTail * float64(total))
	low, high := 0, len(levels)-1
	for below := levels[low].n; below <= skip && low < high; below += levels[low].n {
		low++
	}
	for above := levels[high].n; above <= skip && high > low; above += levels[high].n {
		high--
	}
	if low == high {
		low, high = 0, len(levels)-1
	}
	if low == high {
		return whole
	}
	return ramp(levels[low].x, levels[high].x)
}
