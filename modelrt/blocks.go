package modelrt

import (
	"encoding/binary"
	"math"
)

// The quantisations of ggml (ggml-quants.c, quantize_row_q4_1_ref and quantize_row_q8_0_ref), a block of 32 values each: the bytes are
// those that its own tools make.

func quantizeQ41(block []byte, x []float32) {
	low, high := x[0], x[0]
	for _, v := range x {
		low, high = min(low, v), max(high, v)
	}
	d := (high - low) / 15
	inverse := float32(0)
	if d != 0 {
		inverse = 1 / d
	}
	binary.LittleEndian.PutUint16(block, toHalf(d))
	binary.LittleEndian.PutUint16(block[2:], toHalf(low))
	code := func(v float32) byte { return byte(min(15, int(float32(float32(v-low)*inverse)+0.5))) }
	for i := range 16 {
		block[4+i] = code(x[i]) | code(x[16+i])<<4
	}
}

func quantizeQ80(block []byte, x []float32) {
	most := float32(0)
	for _, v := range x {
		most = max(most, float32(math.Abs(float64(v))))
	}
	d := most / 127
	inverse := float32(0)
	if d != 0 {
		inverse = 1 / d
	}
	binary.LittleEndian.PutUint16(block, toHalf(d))
	for i, v := range x {
		block[2+i] = byte(int8(math.Round(float64(float32(v * inverse)))))
	}
}

// toHalf rounds to an IEEE 754 binary16 number, to even where two are as near.
func toHalf(f float32) uint16 {
	bits := math.Float32bits(f)
	sign, exponent, fraction := uint16(bits>>16&0x8000), int(bits>>23&255)-127, bits&(1<<23-1)
	switch {
	case exponent == 128 && fraction != 0:
		return sign | 0x7e00
	case exponent > 15:
		return sign | 0x7c00
	case exponent < -25:
		return sign
	}
	whole, drop := uint32(exponent+15)<<23|fraction, 13
	if exponent < -14 { // subnormal
		whole, drop = fraction|1<<23, 13+(-14-exponent)
	}
	h := whole >> drop
	if rest, half := whole&(1<<drop-1), uint32(1)<<(drop-1); rest > half || rest == half && h&1 == 1 {
		h++ // into the exponent where the fraction overflows
	}
	return sign | uint16(h)
}
