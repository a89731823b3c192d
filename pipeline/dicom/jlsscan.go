package dicom

import "math/bits"

// jlsRunOrder is J of section A.7.1.1.
var jlsRunOrder = [32]int{0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10, 11, 12, 13, 14, 15}

// jlsScan decodes one scan. It takes no branch on what a sample holds where that may go either way: a processor guesses such a branch
// wrong every other time, and that costs more than all the work on the sample. Arrays are a power of two long, so that an index under
// a mask needs no check. Section numbers are those of ISO 14495-1.
type jlsScan struct {
	bits                            jlsBits
	near, maxval, t1, t2, t3, reset int
	span, qbpp, limit, step         int             // step is 2×NEAR+1, span RANGE×step
	region                          *[1 << 17]uint8 // gradient under a mask -> 0..8, which is Qi of section A.3.3 and 4
	contexts                        *[1 << 9]jlsContext
	runs                            [2]jlsRunContext
}

// jlsContext is A, B, C and N of section A.2.1 and what follows from them for the next sample of the context.
type jlsContext struct {
	a, b int
	c    int32
	n    uint32
	k    uint32 // of the Golomb code (section A.5.1)
	flip uint32 // 1 where errors are mapped the other way round (section A.5.2), else 0
}

type jlsRunContext struct{ a, n, nn int }

// newJLSScan computes the parameters of a scan (section A.2.1, annex C.2.4.1.1).
func newJLSScan(precision, near int, preset [5]int) (*jlsScan, error) {
	s := &jlsScan{near: near, maxval: 1<<precision - 1, reset: 64, region: new([1 << 17]uint8), contexts: new([1 << 9]jlsContext)}
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
		s.contexts[i] = jlsContext{a: begin, n: 1, k: uint32(bits.Len(uint(begin - 1)))}
	}
	s.runs = [2]jlsRunContext{{a: begin, n: 1}, {a: begin, n: 1}}
	for d := -s.maxval; d <= s.maxval; d++ {
		s.region[d&(len(s.region)-1)] = uint8(4 + s.quantize(d))
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

// gradient is the index of d in jlsScan.region.
func gradient(d int32) int32 { return d & (1<<17 - 1) }

// context is Q of section A.3.4 with its sign, from the neighbours left, above, above left and above right.
func (s *jlsScan) context(ra, rb, rc, rd int32) int {
	return 81*int(s.region[gradient(rd-rb)]) + 9*int(s.region[gradient(rb-rc)]) + int(s.region[gradient(rc-ra)]) - 364
}

// line decodes one line of one component. Lines have a sample more at either end; run is RUNindex.
func (s *jlsScan) line(above, here []int32, run *int) {
	region, cache, have := s.region, s.bits.cache, s.bits.n
	least := uint64(1) << (64 - min(s.most(s.limit), 32))
	ra, rb, rc := here[0], above[1], above[0]
	g := int(region[gradient(rb-rc)])
	out := here[1 : len(here)-1]
	right := above[2:][:len(out)]
	for x := 0; x < len(out); x++ {
		rd := right[x]
		q := 9*g - 364
		g = int(region[gradient(rd-rb)])
		q += 81*g + int(region[gradient(rc-ra)])
		if q == 0 {
			s.bits.cache, s.bits.n = cache, have
			last := s.run(above, here, x+1, run)
			if last == 0 {
				return
			}
			cache, have = s.bits.cache, s.bits.n
			ra, rb, rc, x = here[last], above[last+1], above[last], last-1
			g = int(region[gradient(rb-rc)])
			continue
		}
		ctx, sign := s.at(q)
		px := s.predict(ctx, sign, ra, rb, rc)
		m, length := golombHead(cache, int(ctx.k))
		if left := have - length; left >= 0 && cache >= least {
			cache <<= length & 63
			have = left
		} else { // the code is long, or the cache is short
			s.bits.cache, s.bits.n = cache, have
			m = s.bits.golomb(int(ctx.k), s.most(s.limit), s.qbpp)
			cache, have = s.bits.cache, s.bits.n
		}
		v := s.sample(ctx, sign, px, m)
		out[x] = v
		ra, rb, rc = v, rd, rb
	}
	s.bits.cache, s.bits.n = cache, have
}

// run decodes a run from sample x on and the sample that ends it. It returns the place of that sample; 0 where the line ends.
func (s *jlsScan) run(above, here []int32, x int, run *int) int {
	ra := here[x-1]
	n, broken := s.runLength(len(here)-1-x, run)
	for i := range here[x:][:n] {
		here[x+i] = ra
	}
	x += n
	if broken {
		kind := 0
		if rb := above[x]; ra-rb <= int32(s.near) && rb-ra <= int32(s.near) {
			kind = 1
		}
		here[x] = s.interruption(ra, above[x], kind, *run)
		*run = max(0, *run-1)
	}
	if s.bits.over || !broken {
		return 0
	}
	return x
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

// regular decodes one sample in regular mode.
func (s *jlsScan) regular(q int, ra, rb, rc int32) int32 {
	ctx, sign := s.at(q)
	m := s.bits.golomb(int(ctx.k), s.most(s.limit), s.qbpp)
	return s.sample(ctx, sign, s.predict(ctx, sign, ra, rb, rc), m)
}

// at returns the context Q and its sign, which is 0 or -1: v^sign - sign negates v by it.
func (s *jlsScan) at(q int) (ctx *jlsContext, sign int) {
	sign = q >> 63
	return &s.contexts[(q^sign-sign)&(len(s.contexts)-1)], sign
}

// predict is section A.4: the median of left, above and left + above - above left, corrected.
func (s *jlsScan) predict(ctx *jlsContext, sign int, ra, rb, rc int32) int {
	d := ra - rb
	low := d & (d >> 31)
	high := ra - low // of both
	v := high - rc
	v &^= v >> 31
	v -= d - 2*low
	px := int(high+v&(v>>31)) + (int(ctx.c) ^ sign - sign)
	if uint(px) > uint(s.maxval) { // seldom
		px = max(0, min(s.maxval, px))
	}
	return px
}

// sample makes a sample of its prediction and the mapped error m, and the context learns from it (sections A.5.2 and A.6).
func (s *jlsScan) sample(ctx *jlsContext, sign, px, m int) int32 {
	m ^= int(ctx.flip)
	e := m>>1 ^ -(m & 1)
	v := s.reconstruct(px, e^sign-sign)
	a, b, n := ctx.a+max(e, -e), ctx.b+e*s.step, int(ctx.n)
	if n == s.reset {
		a, b, n = a>>1, b>>1, n>>1
	}
	n++
	low, high := (b+n-1)>>63, -b>>63 // -1 where b <= -n, where b > 0
	b = max(min(b+n&low-n&high, 0), 1-n)
	ctx.c = max(min(ctx.c+int32(low-high), 127), -128)
	k := max(bits.Len32(uint32(a))-bits.Len32(uint32(n)), 0)
	k += int(uint(n<<(k&63)-a) >> 63)
	ctx.a, ctx.b, ctx.n, ctx.k = a, b, uint32(n), uint32(k)
	ctx.flip = uint32(((2*b+n-1)&(k+s.near-1))>>63) & 1
	return v
}

// reconstruct adds an error to a prediction, modulo the range.
func (s *jlsScan) reconstruct(px, e int) int32 {
	v := px + e*s.step
	if uint(v) > uint(s.maxval) { // seldom
		return s.wrap(v, e)
	}
	return int32(v)
}

// wrap brings a sample into the range. An error that is too large to be one ends the scan: it would make the contexts overflow.
func (s *jlsScan) wrap(v, e int) int32 {
	if max(e, -e) > s.span {
		s.bits.over = true
	}
	if v < -s.near {
		v += s.span
	} else if v > s.maxval+s.near {
		v -= s.span
	}
	return int32(max(0, min(s.maxval, v)))
}

// most is how many zeros a Golomb code begins with at most (section A.5.3).
func (s *jlsScan) most(limit int) int { return limit - s.qbpp - 1 }

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
	m := s.bits.golomb(k, s.most(s.limit-jlsRunOrder[run]-1), s.qbpp)
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
