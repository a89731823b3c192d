package dicomweb

import (
	"encoding/binary"
	"image"
	"math"
	"math/bits"
)

// rowed is a gray picture that is made row by row, so that a large one need not be in memory before it is compressed.
type rowed interface {
	image.Image
	// Row writes the pixels of a row.
	Row(y int, into []uint8)
}

// grayRows makes a *image.Gray rowed.
type grayRows struct{ *image.Gray }

// Row implements rowed.
func (g grayRows) Row(y int, into []uint8) { copy(into, g.Pix[y*g.Stride:]) }

// encodeGray compresses a gray picture as baseline JPEG (ISO 10918-1) with the standard's tables. It takes a third of image/jpeg's
// time: two blocks go through the transformation in the halves of 64-bit words, which works because every step of it is linear,
// and coefficients that vanish in both are seen at once.
func encodeGray(m rowed, quality int) []byte {
	w, h := m.Bounds().Dx(), m.Bounds().Dy()
	e := jpegEncoder{out: make([]byte, 0, w*h/4+1024)}
	e.tables(quality)
	e.header(w, h)
	across := (w + 15) / 16 * 16
	strip := make([]uint8, 8*across)
	for y := 0; y < h; y += 8 {
		for i := range 8 {
			row := strip[i*across:][:across]
			if y+i < h {
				m.Row(y+i, row[:w])
				for x := w; x < across; x++ { // the edge goes on
					row[x] = row[w-1]
				}
			} else {
				copy(row, strip[(i-1)*across:])
			}
		}
		for x := 0; x < w; x += 16 {
			e.pair(strip[x:], across, x+8 < w)
		}
	}
	e.put(0x7F, 7) // fills the last byte with ones
	for e.n >= 8 {
		e.n -= 8
		e.byte(byte(e.bits >> e.n))
	}
	return append(e.out, 0xFF, 0xD9)
}

type jpegEncoder struct {
	out    []byte
	bits   uint64
	n      uint
	dc     int32 // of the block before
	quant  [64]byte
	scale  [64]int64  // in zigzag order: 2^48 / (step of the quantisation in the transformation's units)
	bias   [64]uint64 // a power of two below half a step, in both halves
	beyond [64]uint64 // the bits that are set when a biased coefficient is not small
	dcCode [12]huffman
	acCode [256]huffman
	work   [64]int64
	at     [2][64]uint8 // of the two blocks, where in zigzag order the coefficients are that are not zero
	value  [2][64]int32
}

type huffman struct {
	code uint32
	n    uint8
}

// The luminance quantisation of annex K.1, in zigzag order.
var jpegQuant = [64]byte{
	16, 11, 12, 14, 12, 10, 16, 14, 13, 14, 18, 17, 16, 19, 24, 40, 26, 24, 22, 22, 24, 49, 35, 37, 29, 40, 58, 51, 61, 60, 57, 51,
	56, 55, 64, 72, 92, 78, 64, 68, 87, 69, 55, 56, 80, 109, 81, 87, 95, 98, 103, 104, 103, 62, 77, 113, 121, 112, 100, 120, 92, 101, 103, 99,
}

var jpegZigzag = [64]uint8{
	0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28,
	35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
}

// The luminance Huffman tables of annex K.3: how many codes of each length, and their symbols.
var (
	jpegDCCounts  = [16]byte{0, 1, 5, 1, 1, 1, 1, 1, 1}
	jpegDCSymbols = []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}
	jpegACCounts  = [16]byte{0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 0x7D}
	jpegACSymbols = []byte("\x01\x02\x03\x00\x04\x11\x05\x12\x21\x31\x41\x06\x13\x51\x61\x07\x22\x71\x14\x32\x81\x91\xa1\x08\x23\x42\xb1\xc1\x15\x52\xd1\xf0" +
		"\x24\x33\x62\x72\x82\x09\x0a\x16\x17\x18\x19\x1a\x25\x26\x27\x28\x29\x2a\x34\x35\x36\x37\x38\x39\x3a\x43\x44\x45\x46\x47\x48\x49" +
		"\x4a\x53\x54\x55\x56\x57\x58\x59\x5a\x63\x64\x65\x66\x67\x68\x69\x6a\x73\x74\x75\x76\x77\x78\x79\x7a\x83\x84\x85\x86\x87\x88\x89" +
		"\x8a\x92\x93\x94\x95\x96\x97\x98\x99\x9a\xa2\xa3\xa4\xa5\xa6\xa7\xa8\xa9\xaa\xb2\xb3\xb4\xb5\xb6\xb7\xb8\xb9\xba\xc2\xc3\xc4\xc5" +
		"\xc6\xc7\xc8\xc9\xca\xd2\xd3\xd4\xd5\xd6\xd7\xd8\xd9\xda\xe1\xe2\xe3\xe4\xe5\xe6\xe7\xe8\xe9\xea\xf1\xf2\xf3\xf4\xf5\xf6\xf7\xf8\xf9\xfa")
)

// dctBits is how many fractional bits each of the two passes of the transformation adds.
const dctBits = 8

// tables makes the tables of a quality, 1 to 100, as libjpeg scales it.
func (e *jpegEncoder) tables(quality int) {
	percent := 200 - 2*quality
	if quality < 50 {
		percent = 5000 / quality
	}
	var aan [8]float64 // the factors that the transformation leaves in its output
	for i := range aan {
		aan[i] = math.Cos(float64(i)*math.Pi/16) * math.Sqrt2
	}
	aan[0] = 1
	for k := range e.quant {
		step := min(max((int(jpegQuant[k])*percent+50)/100, 1), 255)
		e.quant[k] = byte(step)
		at := jpegZigzag[k]
		unit := float64(step) * 8 * aan[at/8] * aan[at%8] * (1 << (2 * dctBits))
		e.scale[k] = int64(math.Round((1 << 48) / unit))
		t := uint64(1) << (bits.Len64(uint64(unit/2)) - 1)
		e.bias[k] = t | t<<32
		small := 2*t - 1
		e.beyond[k] = ^(small | small<<32)
	}
	e.beyond[0] = 0 // the first coefficient goes its own way
	assign := func(counts [16]byte, symbols []byte, set func(byte, huffman)) {
		code, at := uint32(0), 0
		for n, count := range counts {
			for range count {
				set(symbols[at], huffman{code, uint8(n + 1)})
				code++
				at++
			}
			code <<= 1
		}
	}
	assign(jpegDCCounts, jpegDCSymbols, func(s byte, h huffman) { e.dcCode[s] = h })
	assign(jpegACCounts, jpegACSymbols, func(s byte, h huffman) { e.acCode[s] = h })
}

// header writes everything before the scan.
func (e *jpegEncoder) header(w, h int) {
	segment := func(marker byte, content ...byte) {
		e.out = append(e.out, 0xFF, marker)
		e.out = binary.BigEndian.AppendUint16(e.out, uint16(len(content)+2))
		e.out = append(e.out, content...)
	}
	e.out = append(e.out, 0xFF, 0xD8)
	segment(0xE0, 'J', 'F', 'I', 'F', 0, 1, 1, 0, 0, 1, 0, 1, 0, 0)
	segment(0xDB, append([]byte{0}, e.quant[:]...)...)
	segment(0xC0, 8, byte(h>>8), byte(h), byte(w>>8), byte(w), 1, 1, 0x11, 0)
	segment(0xC4, append(append([]byte{0x00}, jpegDCCounts[:]...), jpegDCSymbols...)...)
	segment(0xC4, append(append([]byte{0x10}, jpegACCounts[:]...), jpegACSymbols...)...)
	segment(0xDA, 1, 1, 0, 0, 63, 0)
}

// pair compresses the block at the beginning of a strip, and the one to the right of it where that belongs to the picture.
func (e *jpegEncoder) pair(strip []uint8, stride int, both bool) {
	first := binary.LittleEndian.Uint64(strip)
	flat := first == first<<8|first&0xFF
	for y := 0; y < 8; y++ {
		row := strip[y*stride:][:16]
		a, b := binary.LittleEndian.Uint64(row), binary.LittleEndian.Uint64(row[8:])
		flat = flat && a == first && b == first
		d := (*[8]int64)(e.work[8*y:])
		d[0], d[1] = int64(a&0xFF|b&0xFF<<32), int64(a>>8&0xFF|b>>8&0xFF<<32)
		d[2], d[3] = int64(a>>16&0xFF|b>>16&0xFF<<32), int64(a>>24&0xFF|b>>24&0xFF<<32)
		d[4], d[5] = int64(a>>32&0xFF|b>>32&0xFF<<32), int64(a>>40&0xFF|b>>40&0xFF<<32)
		d[6], d[7] = int64(a>>48&0xFF|b>>48&0xFF<<32), int64(a>>56|b>>56<<32)
	}
	const gray = 128 * 64 << (2 * dctBits) // what 128 in every pixel makes of the first coefficient
	if flat {
		dc := int32(((int64(first&0xFF)*64<<(2*dctBits)-gray)*e.scale[0] + 1<<47) >> 48)
		e.block(dc, nil, nil)
		if both {
			e.block(dc, nil, nil)
		}
		return
	}
	w := &e.work
	for y := range 8 {
		dct8(w, 8*y, 1)
	}
	for x := range 8 {
		dct8(w, x, 8)
	}
	at, at2, value, value2 := &e.at[0], &e.at[1], &e.value[0], &e.value[1]
	n, n2 := 0, 0
	for from := 0; from < 64; from += 8 {
		var large uint64
		for k := from; k < from+8; k++ {
			large |= (uint64(w[jpegZigzag[k&63]&63]) + e.bias[k&63]) & e.beyond[k&63]
		}
		if large == 0 {
			continue
		}
		for k := max(from, 1); k < from+8; k++ { // without branches, which nobody could predict
			low, high := halves(w[jpegZigzag[k&63]&63])
			q := int32((low*e.scale[k&63] + 1<<47) >> 48)
			at[n&63], value[n&63] = uint8(k), q
			n += int(uint32(q|-q) >> 31)
			q = int32((high*e.scale[k&63] + 1<<47) >> 48)
			at2[n2&63], value2[n2&63] = uint8(k), q
			n2 += int(uint32(q|-q) >> 31)
		}
	}
	low, high := halves(w[0])
	e.block(int32(((low-gray)*e.scale[0]+1<<47)>>48), at[:n], value[:n])
	if both {
		e.block(int32(((high-gray)*e.scale[0]+1<<47)>>48), at2[:n2], value2[:n2])
	}
}

// halves takes a sum of one number and 2^32 times another apart.
func halves(v int64) (low, high int64) {
	low = int64(int32(v))
	return low, (v - low) >> 32
}

// The factors of the transformation in 2^dctBits.
const (
	f0382 = 98  // 0.382683433
	f0541 = 139 // 0.541196100
	f0707 = 181 // 0.707106781
	f1306 = 334 // 1.306562965
)

// dct8 is the one-dimensional transformation of Arai, Agui and Nakajima, of every step-th number from one on. What comes has dctBits more
// bits than what went in.
func dct8(w *[64]int64, at, step int) {
	i0, i1, i2, i3 := at&63, (at+step)&63, (at+2*step)&63, (at+3*step)&63
	i4, i5, i6, i7 := (at+4*step)&63, (at+5*step)&63, (at+6*step)&63, (at+7*step)&63
	s07, d07 := w[i0]+w[i7], w[i0]-w[i7]
	s16, d16 := w[i1]+w[i6], w[i1]-w[i6]
	s25, d25 := w[i2]+w[i5], w[i2]-w[i5]
	s34, d34 := w[i3]+w[i4], w[i3]-w[i4]

	e0, e3 := s07+s34, (s07-s34)<<dctBits
	e1, e2 := s16+s25, s16-s25
	z1 := e2*f0707 + (s07-s34)*f0707
	w[i0] = (e0 + e1) << dctBits
	w[i4] = (e0 - e1) << dctBits
	w[i2] = e3 + z1
	w[i6] = e3 - z1

	o0, o1, o2 := d34+d25, d25+d16, d16+d07
	z5 := (o0 - o2) * f0382
	z2, z4, z3 := o0*f0541+z5, o2*f1306+z5, o1*f0707
	d07 <<= dctBits
	z11, z13 := d07+z3, d07-z3
	w[i5] = z13 + z2
	w[i3] = z13 - z2
	w[i1] = z11 + z4
	w[i7] = z11 - z4
}

// block writes the codes of one block: its first coefficient, and where the others are that are not zero.
func (e *jpegEncoder) block(dc int32, at []uint8, value []int32) {
	diff := dc - e.dc
	e.dc = dc
	e.coefficient(&e.dcCode[bits.Len32(magnitude(diff))], diff)
	last := uint8(0)
	for i, k := range at {
		run := k - last - 1
		last = k
		for ; run > 15; run -= 16 {
			e.put(uint64(e.acCode[0xF0].code), uint(e.acCode[0xF0].n))
		}
		v := value[i]
		e.coefficient(&e.acCode[run<<4|uint8(bits.Len32(magnitude(v)))], v)
	}
	if last != 63 {
		e.put(uint64(e.acCode[0].code), uint(e.acCode[0].n))
	}
}

func magnitude(v int32) uint32 {
	sign := v >> 31
	return uint32(v ^ sign - sign)
}

// coefficient writes a code and the bits of the value behind it.
func (e *jpegEncoder) coefficient(h *huffman, v int32) {
	size := uint(bits.Len32(magnitude(v)))
	low := uint32(v+v>>31) & (1<<size - 1)
	e.put(uint64(h.code)<<size|uint64(low), uint(h.n)+size)
}

// put appends n bits, at most 32.
func (e *jpegEncoder) put(b uint64, n uint) {
	e.bits = e.bits<<n | b
	if e.n += n; e.n < 32 {
		return
	}
	e.n -= 32
	word := uint32(e.bits >> e.n)
	if (^word-0x01010101)&word&0x80808080 == 0 { // no byte is 0xFF
		e.out = binary.BigEndian.AppendUint32(e.out, word)
		return
	}
	for shift := 24; shift >= 0; shift -= 8 {
		e.byte(byte(word >> shift))
	}
}

// byte appends a byte of the scan; a zero follows 0xFF.
func (e *jpegEncoder) byte(b byte) {
	if e.out = append(e.out, b); b == 0xFF {
		e.out = append(e.out, 0)
	}
}
