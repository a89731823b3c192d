package modelrt

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"chatxray/pipeline"
)

// slot is one tensor of weights.bin: Op makes it of the base model's tensors Src, which are one but where Op joins several.
type slot struct {
	Op     string   `json:"op"`
	Src    []string `json:"src"`
	Offset int64    `json:"offset"`
	Bytes  int64    `json:"bytes"`
	DType  string   `json:"dtype"`
	Shape  []int    `json:"shape"`
}

func (s slot) sources() string { return strings.Join(s.Src, ", ") }

// maxJoined bounds the matrices of one slot; query, key and value are three.
const maxJoined = 8

const (
	maxLayoutFile = 16 << 20
	maxLayout     = 64 << 20 // unpacked
)

// readLayout reads layout.json.gz: the slots of weights.bin in the order of their offsets, which end at weights bytes.
func readLayout(path string, weights int64) ([]slot, error) {
	packed, err := readBounded(path, maxLayoutFile)
	if err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("%w layout: %v", pipeline.ErrInvalid, err)
	}
	b, err := io.ReadAll(io.LimitReader(z, maxLayout+1))
	if err != nil || len(b) > maxLayout {
		return nil, fmt.Errorf("%w layout: it unpacks to more than %d bytes or is damaged", pipeline.ErrInvalid, maxLayout)
	}
	return parseLayout(b, weights)
}

func parseLayout(b []byte, weights int64) ([]slot, error) {
	var slots []slot
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&slots); err != nil {
		return nil, fmt.Errorf("%w layout: %v", pipeline.ErrInvalid, err)
	}
	end := int64(0)
	for _, s := range slots {
		bad := func(format string, a ...any) ([]slot, error) {
			return nil, fmt.Errorf("%w layout: %s of %s: %s", pipeline.ErrInvalid, s.Op, s.sources(), fmt.Sprintf(format, a...))
		}
		op, ok := operations[s.Op]
		size := op.valueSizes()[s.DType]
		switch {
		case !ok:
			return nil, fmt.Errorf("%w layout: operation %q of %s", pipeline.ErrUnsupported, s.Op, s.sources())
		case len(s.Src) < 1 || len(s.Src) > maxJoined || len(s.Src) > 1 && !op.joins:
			return bad("%d sources", len(s.Src))
		case size == 0 || len(s.Shape) != op.rank:
			return bad("%s of %d dimensions", s.DType, len(s.Shape))
		case s.Bytes < 1 || s.Bytes%size != 0 || !fills(s.Shape, uint64(s.Bytes/size)):
			return bad("shape %v in %d bytes", s.Shape, s.Bytes)
		case s.Offset < end || s.Offset > weights || s.Bytes > weights-s.Offset:
			return bad("%d bytes at %d, after %d and before %d", s.Bytes, s.Offset, end, weights)
		}
		end = s.Offset + s.Bytes
	}
	if end != weights {
		return nil, fmt.Errorf("%w layout: it ends at %d, base.weights_bytes is %d", pipeline.ErrInvalid, end, weights)
	}
	return slots, nil
}
