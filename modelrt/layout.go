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

// lowRank is a LoRA of one matrix: a [rank, in], b [out, rank], scale 1.
type lowRank struct {
	rank, in, out int
	a, b          []float32
}

// readLoRA reads the low-rank additions, by the name of the base model's tensor ("blk.0.attn_q.weight"). Each must be for a source of
// a slot of matrices of the layout; that it fits the matrix is checked when they are added. Rows of query and key are in the order for
// half-split rope.
func readLoRA(path string, layout []slot) (map[string]lowRank, error) {
	tensors, err := readTensors(path)
	if err != nil {
		return nil, err
	}
	bad := func(name, format string, a ...any) (map[string]lowRank, error) {
		return nil, fmt.Errorf("%w LoRA: %s: %s", pipeline.ErrInvalid, name, fmt.Sprintf(format, a...))
	}
	known := map[string]slot{}
	for _, s := range layout {
		if operations[s.Op].joins {
			for _, name := range s.Src {
				known[name] = s
			}
		}
	}
	lora := map[string]lowRank{}
	for name, a := range tensors {
		stem, isA := strings.CutSuffix(name, ".lora_a")
		if !isA {
			stem, isB := strings.CutSuffix(name, ".lora_b")
			if _, paired := tensors[stem+".lora_a"]; !isB || !paired {
				return bad(name, "has no partner")
			}
			continue
		}
		b, paired := tensors[stem+".lora_b"]
		at, ok := known[stem+".weight"]
		switch {
		case !paired:
			return bad(name, "has no partner")
		case !ok:
			return bad(name, "no matrix of the layout is called %s.weight", stem)
		case len(a.shape) != 2 || len(b.shape) != 2 || a.shape[0] != b.shape[1] || len(at.Shape) == 2 && (a.shape[1] != at.Shape[0] || b.shape[0] > at.Shape[1]):
			return bad(name, "shapes %v and %v do not fit a matrix in a slot of %v", a.shape, b.shape, at.Shape)
		}
		lora[stem+".weight"] = lowRank{rank: a.shape[0], in: a.shape[1], out: b.shape[0], a: a.values, b: b.values}
	}
	return lora, nil
}

// addTo adds the LoRA to columns from.. of a matrix [in, wide]. Every product and sum is rounded to float32 by itself and in the order
// of the ranks, so that the bytes are the same on every machine.
func (l lowRank) addTo(w []float32, wide, from int) {
	row := make([]float32, l.out)
	for i := range l.in {
		clear(row)
		for r := range l.rank {
			a := l.a[r*l.in+i]
			for o := range row {
				row[o] = float32(row[o] + float32(a*l.b[o*l.rank+r]))
			}
		}
		for o, v := range row {
			w[i*wide+from+o] = float32(w[i*wide+from+o] + v)
		}
	}
}
