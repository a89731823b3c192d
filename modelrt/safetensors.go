package modelrt

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"

	"chatxray/pipeline"
)

// stored is a tensor of a safetensors file, widened to float32.
type stored struct {
	shape  []int
	values []float32
}

const maxTensorFile = 1 << 30

// readTensors reads a safetensors file whose tensors are F16, BF16 or F32 (github.com/huggingface/safetensors, "Format").
func readTensors(path string) (map[string]stored, error) {
	b, err := readBounded(path, maxTensorFile)
	if err != nil {
		return nil, err
	}
	return parseTensors(b)
}

func parseTensors(b []byte) (map[string]stored, error) {
	bad := func(format string, a ...any) (map[string]stored, error) {
		return nil, fmt.Errorf("%w safetensors file: %s", pipeline.ErrInvalid, fmt.Sprintf(format, a...))
	}
	if len(b) < 8 {
		return bad("%d bytes", len(b))
	}
	n := binary.LittleEndian.Uint64(b)
	if n > uint64(len(b)-8) {
		return bad("a header of %d bytes in a file of %d", n, len(b))
	}
	var header map[string]json.RawMessage
	if err := json.Unmarshal(b[8:8+n], &header); err != nil {
		return bad("header: %v", err)
	}
	data := b[8+n:]
	tensors := make(map[string]stored, len(header))
	for name, raw := range header {
		if name == "__metadata__" {
			continue
		}
		var t struct {
			DType   string    `json:"dtype"`
			Shape   []int     `json:"shape"`
			Offsets [2]uint64 `json:"data_offsets"`
		}
		d := json.NewDecoder(bytes.NewReader(raw))
		d.DisallowUnknownFields()
		if err := d.Decode(&t); err != nil {
			return bad("%s: %v", name, err)
		}
		width, ok := map[string]uint64{"F16": 2, "BF16": 2, "F32": 4}[t.DType]
		if !ok {
			return nil, fmt.Errorf("%w safetensors file: %s is %s; F16, BF16 and F32 are read", pipeline.ErrUnsupported, name, t.DType)
		}
		if t.Offsets[0] > t.Offsets[1] || t.Offsets[1] > uint64(len(data)) {
			return bad("%s lies outside the file", name)
		}
		body := data[t.Offsets[0]:t.Offsets[1]]
		count := uint64(len(body)) / width
		if !fills(t.Shape, count) || uint64(len(body)) != count*width {
			return bad("%s: shape %v in %d bytes of %s", name, t.Shape, len(body), t.DType)
		}
		v := make([]float32, count)
		for i := range v {
			switch t.DType {
			case "F16":
				v[i] = half(binary.LittleEndian.Uint16(body[2*i:]))
			case "BF16": // the upper half of a float32
				v[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(body[2*i:])) << 16)
			default:
				v[i] = math.Float32frombits(binary.LittleEndian.Uint32(body[4*i:]))
			}
		}
		tensors[name] = stored{t.Shape, v}
	}
	return tensors, nil
}

// fills says whether a tensor of this shape has count elements.
func fills(shape []int, count uint64) bool {
	n := uint64(1)
	for _, d := range shape {
		if d < 0 || d > math.MaxInt32 || n*uint64(d) > math.MaxInt32*4 {
			return false
		}
		n *= uint64(d)
	}
	return n == count
}

// half widens an IEEE 754 binary16 number.
func half(h uint16) float32 {
	sign, exponent, fraction := uint32(h>>15)<<31, uint32(h>>10&31), uint32(h&1023)
	switch exponent {
	case 0:
		return math.Float32frombits(sign | math.Float32bits(float32(fraction)/(1<<24)))
	case 31:
		return math.Float32frombits(sign | 0xff<<23 | fraction<<13)
	}
	return math.Float32frombits(sign | (exponent+112)<<23 | fraction<<13)
}
