package modelrt

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"chatxray/pipeline"
)

// blockFormat is a ggml tensor type: blocks of a fixed number of values (ggml's ggml-common.h and ggml-quants.c).
type blockFormat struct {
	values, bytes int64
	decode        func(dst []float32, block []byte)
}

var blockFormats = map[uint32]blockFormat{
	0: {1, 4, func(dst []float32, b []byte) { dst[0] = math.Float32frombits(binary.LittleEndian.Uint32(b)) }},
	3: {32, 20, decodeQ41},
	8: {32, 34, decodeQ80},
}

// decodeQ41: scale d and minimum m as float16, then 16 bytes whose low halves are values 0..15 and high halves 16..31.
// The product is rounded before the sum: no fused multiply-add, the same bytes everywhere.
func decodeQ41(dst []float32, b []byte) {
	d, m := half(binary.LittleEndian.Uint16(b)), half(binary.LittleEndian.Uint16(b[2:]))
	for j, q := range b[4:20] {
		dst[j] = float32(d*float32(q&15)) + m
		dst[j+16] = float32(d*float32(q>>4)) + m
	}
}

// decodeQ80: scale d as float16, then 32 signed bytes.
func decodeQ80(dst []float32, b []byte) {
	d := half(binary.LittleEndian.Uint16(b))
	for j, q := range b[2:34] {
		dst[j] = d * float32(int8(q))
	}
}

// operation makes the tensor of a slot out of the base model, and hands its bytes to emit in pieces. emit may keep no piece.
type operation struct {
	rank   int
	joins  bool // several sources side by side
	packed bool // bytes of a packed matrix, else values
	make   func(c *conversion, s slot, emit func([]byte) error) error
}

// valueSizes are the values that a slot may have, in bytes: of operations that pack, or of the others.
func (o operation) valueSizes() map[string]int64 {
	if o.packed {
		return map[string]int64{"uint8": 1}
	}
	return map[string]int64{precisionFloat32: 4, precisionFloat16: 2, precisionBFloat16: 2}
}

// operations are the words of the layout's "op".
var operations map[string]operation

func init() {
	operations = map[string]operation{
		"f32":       {1, false, false, floats(asIs(0))},
		"q8deq":     {2, false, false, floats(asIs(8))},
		"deq_t":     {2, true, false, floats(transposed)},
		"pack_f32":  {1, true, true, packed(packings["pack_f32"], 3, 8)},
		"pack_q4_1": {1, true, true, packed(packings["pack_q4_1"], 3)},
		"pack_q8_0": {1, true, true, packed(packings["pack_q8_0"], 8)},
	}
}

// floats makes an operation of one that emits values.
func floats(of func(*conversion, slot, func([]float32) error) error) func(*conversion, slot, func([]byte) error) error {
	return func(c *conversion, s slot, emit func([]byte) error) error {
		return of(c, s, func(values []float32) error {
			return emit(encoded(values, s.DType))
		})
	}
}

// encoded are values as bytes, rounded to the nearest of the type, of two as near to the even one.
func encoded(values []float32, dtype string) []byte {
	switch dtype {
	case precisionFloat16:
		b := make([]byte, 2*len(values))
		for i, v := range values {
			binary.LittleEndian.PutUint16(b[2*i:], toHalf(v))
		}
		return b
	case precisionBFloat16:
		b := make([]byte, 2*len(values))
		for i, v := range values {
			binary.LittleEndian.PutUint16(b[2*i:], toBrain(v))
		}
		return b
	}
	b := make([]byte, 4*len(values))
	for i, v := range values {
		binary.LittleEndian.PutUint32(b[4*i:], math.Float32bits(v))
	}
	return b
}

// toBrain rounds to bfloat16: the upper half of a float32.
func toBrain(v float32) uint16 {
	bits := math.Float32bits(v)
	if v != v {
		return uint16(bits>>16) | 1<<6 // stays no number
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}

// toHalf rounds to float16 (IEEE 754 binary16), which has no numbers above 65504.
func toHalf(v float32) uint16 {
	bits := math.Float32bits(v)
	sign, magnitude := uint16(bits>>16&0x8000), bits&0x7fffffff
	switch {
	case magnitude > 0x7f800000: // no number
		return sign | 0x7e00
	case magnitude >= 0x477ff000: // 65520 and above
		return sign | 0x7c00
	case magnitude < 0x38800000: // below 2^-14: multiples of 2^-24, to which this sum rounds
		sum := math.Float32frombits(magnitude) + 0.5
		return sign | uint16(math.Float32bits(sum)-math.Float32bits(0.5))
	}
	magnitude += 0xfff + magnitude>>13&1
	return sign | uint16((magnitude-0x38000000)>>13)
}

// asIs dequantises a tensor of one ggml type, its rows in order: shape [rows, columns], or [columns] for a vector.
func asIs(kind uint32) func(*conversion, slot, func([]float32) error) error {
	return func(c *conversion, s slot, emit func([]float32) error) error {
		t, f, r, err := c.base.rows(s.Src[0])
		if err != nil {
			return err
		}
		rows, columns := int64(1), int64(s.Shape[0])
		if len(s.Shape) == 2 {
			rows, columns = columns, int64(s.Shape[1])
		}
		if t.kind != kind || t.rows != rows || t.columns != columns {
			return mismatch(s, s.Src[0], t)
		}
		row := make([]byte, columns/f.values*f.bytes)
		batch := max(1, int64(1<<18)/columns)
		out := make([]float32, 0, batch*columns)
		for n := int64(0); n < rows; n += batch {
			out = out[:0]
			for range min(batch, rows-n) {
				out = out[:int64(len(out))+columns]
				if err := decodeRow(out[int64(len(out))-columns:], row, r, f); err != nil {
					return err
				}
			}
			if err := emit(out); err != nil {
				return err
			}
		}
		return nil
	}
}

// transposed dequantises matrices [out, in] of one in to [in, out], one beside the other, and adds their LoRA.
func transposed(c *conversion, s slot, emit func([]float32) error) error {
	in, wide := s.Shape[0], s.Shape[1]
	w := make([]float32, in*wide)
	from := 0
	for _, name := range s.Src {
		out, err := c.transpose(w, s, name, from)
		if err != nil {
			return err
		}
		from += out
	}
	if from != wide {
		return fmt.Errorf("%w base model: %s have %d rows together; the layout wants %v. It is not the base model that the bundle was made for",
			pipeline.ErrInvalid, s.sources(), from, s.Shape)
	}
	return emit(w)
}

// transpose puts the matrix called name into the columns from.. of w and returns how many they are.
func (c *conversion) transpose(w []float32, s slot, name string, from int) (int, error) {
	t, f, r, err := c.base.rows(name)
	if err != nil {
		return 0, err
	}
	in, wide, out := s.Shape[0], s.Shape[1], int(t.rows)
	if t.columns != int64(in) || t.rows > int64(wide-from) {
		return 0, mismatch(s, name, t)
	}
	order, err := c.order(name, out)
	if err != nil {
		return 0, err
	}
	raw, row := make([]byte, int64(in)/f.values*f.bytes), make([]float32, in)
	for n := range out {
		if err := decodeRow(row, raw, r, f); err != nil {
			return 0, err
		}
		for i, v := range row {
			w[i*wide+from+order(n)] = v
		}
	}
	if l, ok := c.lora[name]; ok {
		if l.out != out {
			return 0, fmt.Errorf("%w LoRA: it has %d rows for %s, which has %d", pipeline.ErrInvalid, l.out, name, out)
		}
		l.addTo(w, wide, from)
	}
	return out, nil
}

func decodeRow(dst []float32, raw []byte, r io.Reader, f blockFormat) error {
	if _, err := io.ReadFull(r, raw); err != nil {
		return fmt.Errorf("reading the base model: %w", err)
	}
	for i := int64(0); i < int64(len(dst))/f.values; i++ {
		f.decode(dst[i*f.values:(i+1)*f.values], raw[i*f.bytes:(i+1)*f.bytes])
	}
	return nil
}

func mismatch(s slot, name string, t ggufTensor) error {
	return fmt.Errorf("%w base model: tensor %s is of ggml type %d with %d rows of %d; the layout wants %s of %v. It is not the base model that the bundle was made for",
		pipeline.ErrInvalid, name, t.kind, t.rows, t.columns, s.Op, s.Shape)
}
