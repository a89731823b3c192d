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
