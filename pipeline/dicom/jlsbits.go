package dicom

import (
	"encoding/binary"
	"math/bits"
)

// jlsBits reads the entropy-coded data of a JPEG-LS scan: the most significant bit first, one bit stuffed after each byte FF
// (ISO 14495-1 section A.1 and annex C.2.1). At a marker the data ends; reading on gives zeros and sets over.
type jlsBits struct {
	in    []byte
	at    int
	cache uint64 // the next bits, left aligned
	n     int    // how many
	over  bool
}

// fill has at least 56 bits in the cache afterwards, or all that are left.
func (r *jlsBits) fill() {
	if r.n < 56 && len(r.in)-r.at >= 8 {
		v := binary.BigEndian.Uint64(r.in[r.at:])
		if v&(^v-0x0101010101010101)&0x8080808080808080 == 0 { // no byte is FF
			whole := (63 - r.n) / 8
			r.cache |= v >> (64 - 8*whole) << (64 - 8*whole) >> r.n
			r.n += 8 * whole
			r.at += whole
			return
		}
	}
	for r.n <= 56 {
		if r.at >= len(r.in) {
			return
		}
		b := r.in[r.at]
		if b == 0xFF {
			if r.at+1 >= len(r.in) || r.in[r.at+1] >= 0x80 {
				return // a marker
			}
			if r.n > 49 { // a stuffed pair of 15 bits goes in whole
				return
			}
			r.cache |= (uint64(b)<<7 | uint64(r.in[r.at+1])) << (64 - 15 - r.n)
			r.n += 15
			r.at += 2
			continue
		}
		r.cache |= uint64(b) << (56 - r.n)
		r.n += 8
		r.at++
	}
}

// take reads n bits, n at most 32.
func (r *jlsBits) take(n int) int {
	if n == 0 {
		return 0
	}
	if r.n < n {
		if r.fill(); r.n < n {
			r.over = true
			r.n, r.cache = 0, 0
			return 0
		}
	}
	v := int(r.cache >> (64 - n))
	r.cache <<= n
	r.n -= n
	return v
}

// zeros counts the zeros before the next one and reads that one, too; at most most of them.
func (r *jlsBits) zeros(most int) int {
	total := 0
	for {
		if r.n < 33 {
			r.fill()
		}
		z := bits.LeadingZeros64(r.cache)
		if z < r.n {
			r.cache <<= z + 1
			r.n -= z + 1
			return total + z
		}
		if r.n == 0 {
			r.over = true
			return most
		}
		total += r.n
		r.cache, r.n = 0, 0
		if total > most {
			r.over = true
			return most
		}
	}
}

// golombHead decodes the number at the head of cache, in length bits, where it is coded with fewer than 32 zeros and whole.
func golombHead(cache uint64, k int) (m, length int) {
	z := 32 - bits.Len32(uint32(cache>>32))
	rest := cache << ((z + 1) & 63)
	return z<<(k&63) | int(rest>>1>>((63-k)&63)), z + 1 + k
}

// golomb reads a number in the limited Golomb code (section A.5.3): most zeros stand for a number that follows in qbpp bits.
func (r *jlsBits) golomb(k, most, qbpp int) int {
	if r.n < 40 {
		r.fill()
	}
	if m, length := golombHead(r.cache, k); length <= r.n && r.cache >= 1<<(64-min(most, 32)) {
		r.cache <<= length & 63
		r.n -= length
		return m
	}
	z := r.zeros(most)
	switch {
	case z < most:
		return z<<k | r.take(k)
	case z > most:
		r.over = true
		return 0
	}
	return r.take(qbpp) + 1
}

// mark is the position of the marker behind the scan.
func (r *jlsBits) mark() int { return endOfScan(r.in, r.at) }
