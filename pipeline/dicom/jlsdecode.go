package dicom

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/bits"

	"chatxray/pipeline"
)

// JPEG-LS is decoded by our own code: the codec module's CharLS was built with assertions that valid images of 16 bits trip over, and
// it leaves components that are not interleaved in planes. Section numbers are those of ISO 14495-1 (ITU-T T.87).

// jlsRunOrder is J of section A.7.1.1.
var jlsRunOrder = [32]int{0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10, 11, 12, 13, 14, 15}

// jlsScan decodes one scan.
type jlsScan struct {
	bits                            jlsBits
	near, maxval, t1, t2, t3, reset int
	span, qbpp, limit, step         int    // step is 2×NEAR+1, span RANGE×step
	region                          []int8 // gradient + maxval -> -4..4
	contexts                        [365]jlsContext
	runs                            [2]jlsRunContext
}

type jlsContext struct{ a, b, c, n int }

type jlsRunContext struct{ a, n, nn int }

// decodeJPEGLS decodes all scans of a codestream to interleaved samples.
func decodeJPEGLS(_ context.Context, f encoded) (*Pixels, error) {
	l := f.layout
	h, err := jpegStream(f.data)
	if err = firstError(err, h.fits(l)); err != nil {
		return nil, err
	}
	if h.precision < 2 || h.precision > 16 || l.allocated != 8 && l.allocated != 16 {
		return nil, fmt.Errorf("%w image: JPEG-LS of %d bits in %d", pipeline.ErrUnsupported, h.precision, l.allocated)
	}
	// A run of a whole line takes at least a bit: what the codestream cannot hold is refused before it is made.
	if int64(l.rows) > 8*int64(len(f.data)) {
		return nil, badStream("%d bytes cannot hold %d rows", len(f.data), l.rows)
	}
	d := jlsDecoder{layout: l, in: f.data, precision: h.precision, out: make([]byte, l.frameBytes())}
	if err := d.run(); err != nil {
		return nil, err
	}
	l.planar = 0
	return l.pixels(d.out), nil
}

// jlsDecoder goes through the marker segments; jpegStream has checked their lengths.
type jlsDecoder struct {
	layout     layout
	in, out    []byte
	precision  int
	preset     [5]int // MAXVAL T1 T2 T3 RESET, 0 for the default
	components []byte // identifiers, in the order of the frame header
	done       int    // components
}

func (d *jlsDecoder) run() error {
	for i := 2; i+4 <= len(d.in); {
		m := d.in[i+1]
		if m == 0xFF {
			i++
			continue
		}
		if m == 0xD9 || d.done == d.layout.samples {
			break
		}
		n := int(binary.BigEndian.Uint16(d.in[i+2:]))
		segment := d.in[i+4 : i+2+n]
		i += 2 + n
		switch m {
		case 0xF7: // SOF55
			if len(segment) != 6+3*d.layout.samples {
				return badStream("its frame header has %d bytes", len(segment))
			}
			for c := range d.layout.samples {
				if segment[7+3*c] != 0x11 {
					return fmt.Errorf("%w image: JPEG-LS with subsampled components", pipeline.ErrUnsupported)
				}
				d.components = append(d.components, segment[6+3*c])
			}
		case 0xF8: // LSE
			if len(segment) != 11 || segment[0] != 1 {
				return fmt.Errorf("%w image: JPEG-LS with mapping tables or extended sizes", pipeline.ErrUnsupported)
			}
			for p := range d.preset {
				d.preset[p] = int(binary.BigEndian.Uint16(segment[1+2*p:]))
			}
		case 0xDD: // DRI
			return fmt.Errorf("%w image: JPEG-LS with restart intervals", pipeline.ErrUnsupported)
		case 0xE8: // APP8: a colour transform of HP's
			if len(segment) >= 5 && string(segment[:4]) == "mrfx" && segment[4] != 0 {
				return fmt.Errorf("%w image: JPEG-LS with a colour transform", pipeline.ErrUnsupported)
			}
		case 0xDA:
			next, err := d.scan(segment, i)
			if err != nil {
				return err
			}
			i = next
		}
	}
	if d.done != d.layout.samples {
		return badStream("it holds %d of %d components", d.done, d.layout.samples)
	}
	return nil
}

// scan decodes the scan whose header is segment and whose data begins at i.
func (d *jlsDecoder) scan(segment []byte, i int) (int, error) {
	if len(segment) < 1 || len(segment) != 4+2*int(segment[0]) || len(d.components) == 0 {
		return 0, badStream("a scan header has %d bytes", len(segment))
	}
	count, tail := int(segment[0]), segment[len(segment)-3:]
	near, interleave, first := int(tail[0]), tail[1], d.done
	for c := range count {
		if first+c >= len(d.components) || segment[1+2*c] != d.components[first+c] {
			return 0, badStream("a scan's components are not the next ones")
		}
		if segment[2+2*c] != 0 {
			return 0, fmt.Errorf("%w image: JPEG-LS with mapping tables", pipeline.ErrUnsupported)
		}
	}
	if tail[2] != 0 || interleave > 2 || interleave == 0 && count != 1 || count == 0 {
		return 0, badStream("a scan has interleave mode %d and %d components", interleave, count)
	}
	s, err := newJLSScan(d.precision, near, d.preset)
	if err != nil {
		return 0, err
	}
	s.bits = jlsBits{in: d.in, at: i}
	l, w := d.layout, d.layout.columns
	if interleave == 2 && count == 1 {
		interleave = 0
	}
	lines := make([]int32, 2*count*(w+2))
	line := func(y, c int) []int32 { return lines[((y&1)*count+c)*(w+2):][:w+2] }
	run := make([]int, count)
	above, here := make([][]int32, count), make([][]int32, count)
	for y := range l.rows {
		for c := range count {
			above[c], here[c] = line(y+1, c), line(y, c)
			above[c][w+1], here[c][0] = above[c][w], above[c][1]
		}
		if interleave == 2 {
			s.samples(above, here, &run[0])
		} else {
			for c := range count {
				s.line(above[c], here[c], &run[c])
			}
		}
		if s.bits.over {
			return 0, badStream("its data ends or breaks off in row %d of %d", y+1, l.rows)
		}
		for c := range count {
			d.store(here[c][1:w+1], y, first+c)
		}
	}
	d.done += count
	return s.bits.mark(), nil
}

// store writes a line of one component to its places.
func (d *jlsDecoder) store(line []int32, y, component int) {
	n := d.layout.samples
	at := y*d.layout.columns*n + component
	if d.layout.allocated == 8 {
		for _, v := range line {
			d.out[at] = byte(v)
			at += n
		}
		return
	}
	for _, v := range line {
		binary.LittleEndian.PutUint16(d.out[2*at:], uint16(v))
		at += n
	}
}

// newJLSScan computes the parameters of a scan (section A.2.1, annex C.2.4.1.1).
func newJLSScan(precision, near int, preset [5]int) (*jlsScan, error) {
	s := &jlsScan{near: near, maxval: 1<<precision - 1, reset: 64}
	if preset[0] > 0 && preset[0] <= s.maxval {
		s.maxval = preset[0]
	}
	if near > min(255, s.maxval/2) {
		return nil, badStream("NEAR is %d for samples up to %d", near, s.maxval)
	}
	clamp := func(v, least int) int {
		if v > s.maxval || v < least {
			return least
		}
		return v
	}
	if s.maxval >= 128 {
		f := (min(s.maxval, 4095) + 128) / 256
		s.t1 = clamp(f+2+3*near, near+1)
		s.t2 = clamp(4*f+3+5*near, s.t1)
		s.t3 = clamp(17*f+4+7*near, s.t2)
	} else {
		f := 256 / (s.maxval + 1)
		s.t1 = clamp(max(2, 3/f+3*near), near+1)
		s.t2 = clamp(max(3, 7/f+5*near), s.t1)
		s.t3 = clamp(max(4, 21/f+7*near), s.t2)
	}
	for i, into := range []*int{&s.t1, &s.t2, &s.t3, &s.reset} {
		if preset[1+i] > 0 {
			*into = preset[1+i]
		}
	}
	if s.t1 <= near || s.t2 < s.t1 || s.t3 < s.t2 || s.t3 > s.maxval || s.reset < 3 {
		return nil, badStream("its thresholds are %d, %d, %d and the reset %d", s.t1, s.t2, s.t3, s.reset)
	}
	s.step = 2*near + 1
	levels := (s.maxval+2*near)/s.step + 1
	s.span = levels * s.step
	s.qbpp = bits.Len(uint(levels - 1))
	bpp := max(2, bits.Len(uint(s.maxval)))
	s.limit = 2 * (bpp + max(8, bpp))
	begin := max(2, (levels+32)/64)
	for i := range s.contexts {
		s.contexts[i] = jlsContext{a: begin, n: 1}
	}
	s.runs = [2]jlsRunContext{{a: begin, n: 1}, {a: begin, n: 1}}
	s.region = make([]int8, 2*s.maxval+1)
	for i := range s.region {
		s.region[i] = s.quantize(i - s.maxval)
	}
	return s, nil
}

// quantize is section A.3.3.
func (s *jlsScan) quantize(d int) int8 {
	sign := int8(1)
	if d < 0 {
		d, sign = -d, -1
	}
	switch {
	case d <= s.near:
		return 0
	case d < s.t1:
		return sign
	case d < s.t2:
		return 2 * sign
	case d < s.t3:
		return 3 * sign
	}
	return 4 * sign
}

// context is Q of section A.3.4 with its sign, from the neighbours left, above, above left and above right.
func (s *jlsScan) context(ra, rb, rc, rd int32) int {
	m := int32(s.maxval)
	return 81*int(s.region[rd-rb+m]) + 9*int(s.region[rb-rc+m]) + int(s.region[rc-ra+m])
}

// line decodes one line of one component. Lines have a sample more at either end; run is RUNindex.
func (s *jlsScan) line(above, here []int32, run *int) {
	w := len(here) - 2
	for x := 1; x <= w; {
		ra, rb, rc, rd := here[x-1], above[x], above[x-1], above[x+1]
		if q := s.context(ra, rb, rc, rd); q != 0 {
			here[x] = s.regular(q, ra, rb, rc)
			x++
			continue
		}
		n, broken := s.runLength(w-x+1, run)
		for range n {
			here[x] = ra
			x++
		}
		if broken {
			kind := 0
			if rb = above[x]; ra-rb <= int32(s.near) && rb-ra <= int32(s.near) {
				kind = 1
			}
			here[x] = s.interruption(ra, rb, kind, *run)
			x++
			*run = max(0, *run-1)
		}
		if s.bits.over {
			return
		}
	}
}

// samples decodes one line of interleaved samples (interleave mode 2): a run is one of all components.
func (s *jlsScan) samples(above, here [][]int32, run *int) {
	w := len(here[0]) - 2
	var q [4]int
	for x := 1; x <= w; {
		flat := true
		for c := range here {
			q[c] = s.context(here[c][x-1], above[c][x], above[c][x-1], above[c][x+1])
			flat = flat && q[c] == 0
		}
		if !flat {
			for c := range here {
				here[c][x] = s.regular(q[c], here[c][x-1], above[c][x], above[c][x-1])
			}
			x++
			continue
		}
		n, broken := s.runLength(w-x+1, run)
		for c := range here {
			ra := here[c][x-1]
			for i := range n {
				here[c][x+i] = ra
			}
		}
		x += n
		if broken {
			for c := range here {
				here[c][x] = s.interruption(here[c][x-1], above[c][x], 0, *run)
			}
			x++
			*run = max(0, *run-1)
		}
		if s.bits.over {
			return
		}
	}
}

// regular decodes one sample in regular mode (section A.4 to A.6).
func (s *jlsScan) regular(q int, ra, rb, rc int32) int32 {
	sign := 1
	if q < 0 {
		q, sign = -q, -1
	}
	ctx := &s.contexts[q]
	px := int(ra + rb - rc)
	if lo, hi := min(ra, rb), max(ra, rb); rc >= hi {
		px = int(lo)
	} else if rc <= lo {
		px = int(hi)
	}
	px = max(0, min(s.maxval, px+sign*ctx.c))
	k := 0
	for ctx.n<<k < ctx.a {
		k++
	}
	m := s.mapped(k, s.limit)
	e := m >> 1
	if m&1 == 1 {
		e = ^e // -(m+1)/2
	}
	if s.near == 0 && k == 0 && 2*ctx.b <= -ctx.n {
		e = ^e
	}
	ctx.update(e, s.step, s.reset)
	return s.reconstruct(px, sign*e)
}

// update is section A.6.
func (c *jlsContext) update(e, step, reset int) {
	c.b += e * step
	c.a += max(e, -e)
	if c.n == reset {
		c.a >>= 1
		c.b >>= 1
		c.n >>= 1
	}
	c.n++
	switch {
	case c.b <= -c.n:
		c.b = max(c.b+c.n, 1-c.n)
		c.c = max(c.c-1, -128)
	case c.b > 0:
		c.b = min(c.b-c.n, 0)
		c.c = min(c.c+1, 127)
	}
}

// reconstruct adds an error to a prediction, modulo the range.
func (s *jlsScan) reconstruct(px, e int) int32 {
	v := px + e*s.step
	if v < -s.near {
		v += s.span
	} else if v > s.maxval+s.near {
		v -= s.span
	}
	return int32(max(0, min(s.maxval, v)))
}

// mapped reads a mapped error (section A.5.2). One that is too large to be an error ends the scan: it would make the contexts
// overflow.
func (s *jlsScan) mapped(k, limit int) int {
	m := s.bits.golomb(k, limit, s.qbpp)
	if m > 2*s.span {
		s.bits.over = true
		return 0
	}
	return m
}

// runLength decodes how many samples repeat (section A.7.1), at most left; broken says that another sample follows in the line.
func (s *jlsScan) runLength(left int, run *int) (n int, broken bool) {
	for s.bits.take(1) == 1 {
		full := 1 << jlsRunOrder[*run]
		if n+full > left {
			return left, false
		}
		n += full
		*run = min(*run+1, 31)
		if n == left {
			return n, false
		}
	}
	n += s.bits.take(jlsRunOrder[*run])
	if n >= left {
		s.bits.over = true
		return left, false
	}
	return n, true
}

// interruption decodes the sample that ends a run (section A.7.2); kind is RItype.
func (s *jlsScan) interruption(ra, rb int32, kind, run int) int32 {
	ctx := &s.runs[kind]
	px, sign := int(rb), 1
	temp := ctx.a
	if kind == 1 {
		px = int(ra)
		temp += ctx.n >> 1
	} else if ra > rb {
		sign = -1
	}
	k := 0
	for ctx.n<<k < temp {
		k++
	}
	m := s.mapped(k, s.limit-jlsRunOrder[run]-1)
	t := m + kind
	odd := t & 1
	e := (t + odd) >> 1
	if (k != 0 || 2*ctx.nn >= ctx.n) == (odd == 1) {
		e = -e
	}
	if e < 0 {
		ctx.nn++
	}
	ctx.a += (m + 1 - kind) >> 1
	if ctx.n == s.reset {
		ctx.a >>= 1
		ctx.n >>= 1
		ctx.nn >>= 1
	}
	ctx.n++
	return s.reconstruct(px, sign*e)
}
