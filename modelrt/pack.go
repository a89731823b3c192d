package modelrt

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"strings"

	"chatxray/modelrt/kernel"
	"chatxray/pipeline"
)

// packing turns matrices [out, in] of a GGUF file, side by side, into a packed matrix of package kernel. in are the rows of one panel
// as the file has them, each of bytes bytes, zeros where the matrices have ended; out is the panel.
type packing struct {
	form  kernel.Form
	panel func(out []byte, in [][]byte, f blockFormat)
}

var packings = map[string]packing{
	"pack_f32":  {kernel.F32, packF32},
	"pack_q4_1": {kernel.Q41, packQ41},
	"pack_q8_0": {kernel.Q80, packQ80},
}

// packed is the operation of a packing.
func packed(p packing, kinds ...uint32) func(*conversion, slot, func([]byte) error) error {
	return func(c *conversion, s slot, emit func([]byte) error) error {
		k, rows := int64(0), int64(0)
		for i, name := range s.Src {
			t, ok := c.base.tensors[name]
			if !ok {
				return fmt.Errorf("%w base model: it has no tensor %s", pipeline.ErrInvalid, name)
			}
			if !contains(kinds, t.kind) || i > 0 && (t.columns != k || t.kind != c.base.tensors[s.Src[0]].kind) {
				return mismatch(s, name, t)
			}
			k, rows = t.columns, rows+t.rows
		}
		if p.form.Bytes(int(k), int(rows)) != s.Bytes {
			return fmt.Errorf("%w base model: %s are %d rows of %d together; the layout wants %d bytes of %s. It is not the base model that the bundle was made for",
				pipeline.ErrInvalid, s.sources(), rows, k, s.Bytes, s.Op)
		}
		panels := s.Bytes / ((rows + kernel.Panel - 1) / kernel.Panel)
		out := make([]byte, panels)
		var in [][]byte
		var format blockFormat
		flush := func() error {
			for len(in) < kernel.Panel {
				in = append(in, make([]byte, k/format.values*format.bytes))
			}
			p.panel(out, in, format)
			in = in[:0]
			return emit(out)
		}
		for _, name := range s.Src {
			matrix, f, err := c.matrixRows(s, name)
			if err != nil {
				return err
			}
			format = f
			for _, row := range matrix {
				if in = append(in, row); len(in) == kernel.Panel {
					if err := flush(); err != nil {
						return err
					}
				}
			}
		}
		if len(in) > 0 {
			return flush()
		}
		return nil
	}
}

func contains(kinds []uint32, kind uint32) bool {
	for _, k := range kinds {
		if k == kind {
			return true
		}
	}
	return false
}

// matrixRows reads a matrix as the file has it. The rows of query and key, which llama.cpp stores with the halves of each head
// interleaved, come back into the order for half-split rope.
func (c *conversion) matrixRows(s slot, name string) ([][]byte, blockFormat, error) {
	t, f, r, err := c.base.rows(name)
	if err != nil {
		return nil, f, err
	}
	size := t.columns / f.values * f.bytes
	all := make([]byte, t.rows*size)
	if _, err := io.ReadFull(r, all); err != nil {
		return nil, f, fmt.Errorf("reading the base model: %w", err)
	}
	order, err := c.order(name, int(t.rows))
	if err != nil {
		return nil, f, err
	}
	rows := make([][]byte, t.rows)
	for n := range rows {
		rows[order(n)] = all[int64(n)*size:][:size]
	}
	return rows, f, nil
}

// order says where row n of a matrix of the file goes.
func (c *conversion) order(name string, rows int) (func(n int) int, error) {
	if !strings.HasSuffix(name, ".attn_q.weight") && !strings.HasSuffix(name, ".attn_k.weight") {
		return func(n int) int { return n }, nil
	}
	if c.headDim%2 != 0 || rows%c.headDim != 0 {
		return nil, fmt.Errorf("%w base model: %s has %d rows, which are no heads of %d", pipeline.ErrInvalid, name, rows, c.headDim)
	}
	return func(n int) int {
		within := n % c.headDim
		return n - within + within%2*(c.headDim/2) + within/2
	}, nil
}

func packF32(out []byte, in [][]byte, f blockFormat) {
	values := make([]float32, f.values)
	for j, row := range in {
		for b := int64(0); b*f.bytes < int64(len(row)); b++ {
			f.decode(values, row[b*f.bytes:(b+1)*f.bytes])
			for i, v := range values {
				binary.LittleEndian.PutUint32(out[4*((int(b)*len(values)+i)*kernel.Panel+j):], math.Float32bits(v))
			}
		}
	}
}

func packQ41(out []byte, in [][]byte, f blockFormat) {
	const size = kernel.Panel * (2 + 2 + 16) // of a block of all columns
	for j, row := range in {
		for b := 0; b*int(f.bytes) < len(row); b++ {
			from, to := row[b*int(f.bytes):][:20], out[b*size:][:size]
			copy(to[2*j:], from[:2])
			copy(to[2*(kernel.Panel+j):], from[2:4])
			for w := range 4 { // words of eight values; the first half of them are low halves of bytes
				var word uint32
				for i := range 8 {
					at := 8*w + i
					q := from[4+at%16]
					if at >= 16 {
						q >>= 4
					}
					word |= uint32(q&15) << (4 * i)
				}
				binary.LittleEndian.PutUint32(to[4*(kernel.Panel+w*kernel.Panel+j):], word)
			}
		}
	}
}

func packQ80(out []byte, in [][]byte, f blockFormat) {
	const size = kernel.Panel * (2 + 32)
	for j, row := range in {
		for b := 0; b*int(f.bytes) < len(row); b++ {
			from, to := row[b*int(f.bytes):][:34], out[b*size:][:size]
			copy(to[2*j:], from[:2])
			for i, q := range from[2:] {
				to[2*kernel.Panel+i*kernel.Panel+j] = q
			}
		}
	}
}
