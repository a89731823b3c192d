package modelrt

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"chatxray/pipeline"
)

// Preprocess says how a model wants its image: the manifest's "preprocess" object. The model sees gray values 0..1 (dense = 1)
// resampled to Width×Height, (gray - Mean) / Std for each channel, as float32 [Channels, Height, Width].
type Preprocess struct {
	Width    int `json:"width"`    // of the tensor, pixels
	Height   int `json:"height"`   // of the tensor, pixels
	Channels int `json:"channels"` // 1, or 3 with the gray picture in each
	// Fit is how the picture goes into Width×Height: "squash" gives up its aspect ratio; "pad" keeps it and leaves black
	// at two sides; "crop" keeps it and cuts two sides, about the centre; "keep" keeps it and makes a smaller tensor, the
	// largest that Width×Height holds, never larger than the picture itself, filled up at the right and below to whole patches where
	// there is a Patch; "area" gives the picture sides of whole patches (Patch×Merge) and MinPixels to MaxPixels of them, its aspect
	// ratio about kept. Of "area", Width×Height is a usual size, that of the decoys.
	Fit string `json:"fit"`
	// Interpolation is "box", "bilinear", "bicubic" (a = -0.5) or "lanczos", antialiased as PIL's are.
	Interpolation string    `json:"interpolation"`
	Mean          []float64 `json:"mean"` // one a channel, of gray 0..1
	Std           []float64 `json:"std"`  // one a channel, above 0
	// VOI is the gray scale: "default" is the image's own lookup (its VOI LUT or window); "stretch" maps, after that, the
	// 0.5th to the 99.5th percentile of a grid of pixels to 0..1.
	VOI string `json:"voi"`

	Patch     int     `json:"patch"`      // side of a patch, of models that take any size; 0 for none
	Merge     int     `json:"merge"`      // patches each way that become one embedding; 0 for 1
	MinPixels int     `json:"min_pixels"` // of the tensor, for "area"
	MaxPixels int     `json:"max_pixels"`
	PadValue  float64 `json:"pad_value"` // gray 0..1 beside the picture
}

// unit is what the sides of a tensor are multiples of.
func (p Preprocess) unit() int { return max(p.Patch, 1) * max(p.Merge, 1) }

// gray sets what makes a picture of a manifest that asks for no tensor.
func (p *Preprocess) gray() {
	if p.Width > 0 && p.Channels == 0 && p.Mean == nil && p.Std == nil {
		p.Channels, p.Mean, p.Std = 1, []float64{0}, []float64{1}
	}
}

// The limits and choices of Preprocess.
const maxSide = 4096

var (
	fits = []string{"squash", "pad", "crop", "keep", "area"}
	vois = []string{"default", "stretch"}
)

// Validate returns every fault of p joined, each wrapping pipeline.ErrInvalid.
func (p Preprocess) Validate() error {
	var faults []error
	fault := func(key, format string, a ...any) {
		faults = append(faults, fmt.Errorf("%w preprocess.%s: %s", pipeline.ErrInvalid, key, fmt.Sprintf(format, a...)))
	}
	side := func(key string, n int) {
		if n < 1 || n > maxSide {
			fault(key, "%d is not from 1 to %d", n, maxSide)
		}
	}
	word := func(key, value string, words []string) {
		if !slices.Contains(words, value) {
			fault(key, "%q is none of %s", value, strings.Join(words, ", "))
		}
	}
	perChannel := func(key string, values []float64, least float64) {
		if len(values) != p.Channels {
			fault(key, "%d values for %d channels", len(values), p.Channels)
		}
		for _, v := range values {
			if math.IsNaN(v) || math.IsInf(v, 0) || v <= least {
				fault(key, "%v is out of range", v)
			}
		}
	}
	side("width", p.Width)
	side("height", p.Height)
	if p.Channels != 1 && p.Channels != 3 {
		fault("channels", "%d is neither 1 nor 3", p.Channels)
	}
	word("fit", p.Fit, fits)
	word("interpolation", p.Interpolation, slices.Sorted(maps.Keys(kernels)))
	perChannel("mean", p.Mean, math.Inf(-1))
	perChannel("std", p.Std, 0)
	word("voi", p.VOI, vois)
	if p.Patch < 0 || p.Patch > maxSide || p.Merge < 0 || p.Merge > maxSide || p.unit() > maxSide {
		fault("patch", "%d by %d is out of range", p.Patch, p.Merge)
	}
	if !(p.PadValue >= 0 && p.PadValue <= 1) {
		fault("pad_value", "%v is not from 0 to 1", p.PadValue)
	}
	if p.Fit == "area" {
		if p.Patch < 1 || p.MinPixels < 1 || p.MinPixels > p.MaxPixels || p.MaxPixels > maxSide*maxSide || p.MaxPixels < p.unit()*p.unit() {
			fault("max_pixels", "the fit area wants a patch and from 1 to %d pixels, at least one patch", maxSide*maxSide)
		} else if p.Width%p.unit() != 0 || p.Height%p.unit() != 0 || p.Width*p.Height < p.MinPixels || p.Width*p.Height > p.MaxPixels {
			fault("width", "%d×%d is no size that the fit area makes", p.Width, p.Height)
		}
	}
	return errors.Join(faults...)
}

// Preprocessor makes tensors of images. It keeps its buffers: images of the size of the one before cost no allocation. It is
// for one goroutine at a time.
type Preprocessor struct {
	spec       Preprocess
	kernel     filter
	gain, bias []float32 // channel c is gray×gain[c] + bias[c]

	planned      plan
	outer, inner taps      // over stored rows, over stored columns
	used         [2]int    // columns that inner reads
	ring         []float32 // shaded rows: row r in slot r % outer.most
	acc          []float32 // one row of the image, resampled along the other axis
	line         []float32 // acc resampled
	stretched    []float32
	counts       []uint32
}

// plan is what the taps depend on.
type plan struct {
	at            Placement
	rows, columns int // as stored
}

// NewPreprocessor checks p and makes a Preprocessor of it.
func NewPreprocessor(p Preprocess) (*Preprocessor, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	pp := &Preprocessor{spec: p, kernel: kernels[p.Interpolation]}
	for c := range p.Channels {
		pp.gain = append(pp.gain, float32(1/p.Std[c]))
		pp.bias = append(pp.bias, float32(-p.Mean[c]/p.Std[c]))
	}
	return pp, nil
}

// Spec returns what p was made of.
func (p *Preprocessor) Spec() Preprocess { return p.spec }

// Place returns where m lies in the tensor; Channels×Height×Width of it is the length that Into wants.
func (p *Preprocessor) Place(m *pipeline.Image) Placement { return p.spec.Place(m) }

// Into writes the model's tensor for m to dst, float32 [Channels, Height, Width] of Place(m). Where a kernel overshoots, so does
// the tensor.
func (p *Preprocessor) Into(dst []float32, m *pipeline.Image) error {
	at, err := p.prepare(m)
	if err != nil {
		return err
	}
	plane := at.Width * at.Height
	if len(dst) != plane*p.spec.Channels {
		return fmt.Errorf("%w tensor of %d values for %d×%d×%d", pipeline.ErrInvalid, len(dst), p.spec.Channels, at.Height, at.Width)
	}
	for c, bias := range p.bias {
		if at.W*at.H < plane {
			fill(dst[c*plane:][:plane], float32(p.spec.PadValue)*p.gain[c]+bias)
		}
	}
	p.render(m, func(from, step int, line []float32) {
		for c, gain := range p.gain {
			out, bias := dst[c*plane+from:], p.bias[c]
			if step == 1 {
				out = out[:len(line)]
				for i, v := range line {
					out[i] = v*gain + bias
				}
				continue
			}
			for i, v := range line {
				out[i*step] = v*gain + bias
			}
		}
	})
	return nil
}

// Gray writes the picture that the model sees to dst: Height×Width of Place(m), 0..255, rounded and cut to that range.
func (p *Preprocessor) Gray(dst []uint8, m *pipeline.Image) error {
	at, err := p.prepare(m)
	if err != nil {
		return err
	}
	if len(dst) != at.Width*at.Height {
		return fmt.Errorf("%w picture of %d pixels for %d×%d", pipeline.ErrInvalid, len(dst), at.Height, at.Width)
	}
	clear(dst)
	p.render(m, func(from, step int, line []float32) {
		for i, v := range line {
			dst[from+i*step] = uint8(min(max(v, 0), 1)*255 + 0.5)
		}
	})
	return nil
}

func fill(s []float32, v float32) {
	for i := range s {
		s[i] = v
	}
}

// prepare checks m and brings taps and buffers to its size.
func (p *Preprocessor) prepare(m *pipeline.Image) (Placement, error) {
	pixels, words := len(m.Pix8), 1<<8
	if m.Pix16 != nil {
		pixels, words = len(m.Pix16), 1<<16
	}
	if m.Rows < 1 || m.Columns < 1 || pixels != m.Rows*m.Columns || len(m.LUT) != words ||
		m.Top < 0 || m.Top > m.Bottom || m.Bottom > m.Rows || m.Left < 0 || m.Left > m.Right || m.Right > m.Columns {
		return Placement{}, fmt.Errorf("%w image: %d pixels and a lookup of %d for %d×%d", pipeline.ErrInvalid, pixels, len(m.LUT), m.Rows, m.Columns)
	}
	want := plan{p.spec.Place(m), m.Rows, m.Columns}
	const longest = 200 // as transformers' smart_resize
	if p.spec.Fit == "area" && max(m.Rows, m.Columns) > longest*min(m.Rows, m.Columns) {
		return Placement{}, fmt.Errorf("%w image: %d×%d is too long for its width for this model", pipeline.ErrInvalid, m.Rows, m.Columns)
	}
	if want == p.planned {
		return want.at, nil
	}
	at := want.at
	across := func(t *taps, stored int) { t.build(p.kernel, stored, at.Left, at.SourceWidth, at.W, m.Upright.FlipX) }
	down := func(t *taps, stored int) { t.build(p.kernel, stored, at.Top, at.SourceHeight, at.H, m.Upright.FlipY) }
	if m.Upright.Transpose {
		across(&p.outer, m.Rows)
		down(&p.inner, m.Columns)
	} else {
		down(&p.outer, m.Rows)
		across(&p.inner, m.Columns)
	}
	p.used = [2]int{m.Columns, 0}
	for o := range p.inner.first {
		a, w := p.inner.of(o)
		p.used[0], p.used[1] = min(p.used[0], a), max(p.used[1], a+len(w))
	}
	p.ring = slices.Grow(p.ring[:0], p.outer.most*m.Columns)[:p.outer.most*m.Columns]
	p.acc = slices.Grow(p.acc[:0], m.Columns)[:m.Columns]
	p.line = slices.Grow(p.line[:0], len(p.inner.first))[:len(p.inner.first)]
	p.planned = want
	return at, nil
}

// render resamples m in one pass over its stored rows, and hands out one line after another of the picture: its values go to
// from, from+step, ... of a plane of Place(m). The line is good until emit returns.
//
// Rows are shaded once each and combined first, because that is work on whole rows in memory order; the combined row is then
// resampled along itself. An image that lies on its side is the same work with the lines written down the columns.
func (p *Preprocessor) render(m *pipeline.Image, emit func(from, step int, line []float32)) {
	at, lut := p.planned.at, m.LUT
	if p.spec.VOI == "stretch" {
		lut = p.stretch(m)
	}
	left, right := max(m.Left, p.used[0]), min(m.Right, p.used[1])
	width := max(right-left, 0)
	next := m.Top
	clear(p.acc)
	lines := len(p.outer.first)
	for i := range lines {
		o := i
		if m.Upright.Transpose && m.Upright.FlipX || !m.Upright.Transpose && m.Upright.FlipY {
			o = lines - 1 - i
		}
		a, weights := p.outer.of(o)
		b := min(a+len(weights), m.Bottom)
		if a < m.Top {
			weights, a = weights[min(m.Top-a, len(weights)):], m.Top
		}
		weights = weights[:max(min(b-a, len(weights)), 0)]
		end := a + len(weights)
		shade(p.ring, m, max(a, next), end, left, width, lut)
		next = max(next, end)
		line(p.line, p.acc, left, width, p.ring, m.Columns, a, weights, &p.inner)
		if m.Upright.Transpose {
			emit(at.Y*at.Width+at.X+o, at.Width, p.line)
		} else {
			emit((at.Y+o)*at.Width+at.X, 1, p.line)
		}
	}
}

const (
	levels     = 1 << 12 // steps of gray in which percentiles are counted
	grid       = 512     // pixels each way that are counted
	tail       = 0.005   // of the pixels lie below and above the stretched range
	leastRange = 1.0 / 64
)

// stretch returns m's lookup with the bulk of its gray values stretched to 0..1; unchanged where there is next to no range.
func (p *Preprocessor) stretch(m *pipeline.Image) []float32 {
	if p.counts == nil {
		p.counts = make([]uint32, levels)
		p.stretched = make([]float32, 1<<16)
	}
	clear(p.counts)
	total := 0
	for y := m.Top; y < m.Bottom; y += max(m.Rows/grid, 1) {
		for x := m.Left; x < m.Right; x += max(m.Columns/grid, 1) {
			v := m.LUT[wordAt(m, y*m.Columns+x)]
			p.counts[int(min(max(v, 0), 1)*(levels-1))]++
			total++
		}
	}
	skip := int(tail * float64(total))
	low, below := 0, int(p.counts[0])
	for low < levels-1 && below <= skip {
		low++
		below += int(p.counts[low])
	}
	high, above := levels-1, int(p.counts[levels-1])
	for high > 0 && above <= skip {
		high--
		above += int(p.counts[high])
	}
	from, span := float32(low)/(levels-1), float32(high-low)/(levels-1)
	if span < leastRange {
		return m.LUT
	}
	out := p.stretched[:len(m.LUT)]
	for i, v := range m.LUT {
		out[i] = min(max((v-from)/span, 0), 1)
	}
	return out
}

func wordAt(m *pipeline.Image, i int) uint16 {
	if m.Pix16 != nil {
		return m.Pix16[i]
	}
	return uint16(m.Pix8[i])
}
