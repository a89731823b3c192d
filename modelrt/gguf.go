package modelrt

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"chatxray/pipeline"
)

// gguf is an opened GGUF file, version 3 (ggml's docs/gguf.md). Only what a conversion needs is kept of its header.
type gguf struct {
	r       io.ReaderAt
	numbers map[string]uint64 // metadata that are whole numbers
	words   map[string]string // metadata that are short strings
	tensors map[string]ggufTensor
	data    int64 // where tensor data begin
	size    int64
}

// ggufTensor is where a tensor lies. Its rows are contiguous: columns is ggml's first dimension.
type ggufTensor struct {
	rows, columns int64
	kind          uint32
	offset        int64
}

const (
	maxGGUFName  = 1 << 16
	maxGGUFWord  = 1 << 10 // longer strings are skipped
	maxGGUFDepth = 4       // of arrays in arrays
)

// openGGUF reads the header of a GGUF file of size bytes. Nothing is allocated that the file does not back with bytes.
func openGGUF(r io.ReaderAt, size int64) (*gguf, error) {
	g := &gguf{r: r, size: size, numbers: map[string]uint64{}, words: map[string]string{}, tensors: map[string]ggufTensor{}}
	h := &ggufHeader{r: bufio.NewReaderSize(io.NewSectionReader(r, 0, size), 1<<16), left: size}
	if err := g.read(h); err != nil {
		return nil, fmt.Errorf("%w GGUF file: %v", pipeline.ErrInvalid, err)
	}
	return g, nil
}

func (g *gguf) read(h *ggufHeader) error {
	if magic := h.take(4); h.err != nil || string(magic) != "GGUF" {
		return fmt.Errorf("it does not begin with GGUF")
	}
	if v := h.u32(); v != 3 {
		return fmt.Errorf("version %d; version 3 is read", v)
	}
	tensors, pairs := h.u64(), h.u64()
	for range pairs {
		key := h.text(maxGGUFName)
		h.value(key, h.u32(), g, 0)
		if h.err != nil {
			return fmt.Errorf("metadata: %w", h.err)
		}
	}
	for range tensors {
		name := h.text(maxGGUFName)
		n := h.u32()
		if h.err == nil && (n < 1 || n > 4) {
			return fmt.Errorf("tensor %q has %d dimensions", name, n)
		}
		t := ggufTensor{rows: 1, columns: 1}
		for d := range n {
			v := h.u64()
			if v < 1 || v > math.MaxInt32 {
				h.fail("dimension %d", v)
			} else if d == 0 {
				t.columns = int64(v)
			} else if t.rows *= int64(v); t.rows > math.MaxInt32 {
				h.fail("%d rows", t.rows)
			}
			if h.err != nil {
				return fmt.Errorf("tensor %q: %w", name, h.err)
			}
		}
		t.kind = h.u32()
		t.offset = int64(h.u64())
		if h.err != nil {
			return fmt.Errorf("tensor %q: %w", name, h.err)
		}
		if _, twice := g.tensors[name]; twice {
			return fmt.Errorf("tensor %q stands there twice", name)
		}
		g.tensors[name] = t
	}
	align := int64(32)
	if a, ok := g.numbers["general.alignment"]; ok {
		if a < 1 || a > 1<<20 {
			return fmt.Errorf("alignment %d", a)
		}
		align = int64(a)
	}
	header := g.size - h.left
	g.data = (header + align - 1) / align * align
	return nil
}

// rows returns a reader over the bytes of tensor name: t.rows rows of blocks of its kind.
func (g *gguf) rows(name string) (ggufTensor, blockFormat, *io.SectionReader, error) {
	t, ok := g.tensors[name]
	if !ok {
		return t, blockFormat{}, nil, fmt.Errorf("%w base model: it has no tensor %s", pipeline.ErrInvalid, name)
	}
	f, ok := blockFormats[t.kind]
	if !ok {
		return t, f, nil, fmt.Errorf("%w base model: tensor %s is of ggml type %d; F32 (0), Q4_1 (3) and Q8_0 (8) are read", pipeline.ErrUnsupported, name, t.kind)
	}
	if t.columns%f.values != 0 {
		return t, f, nil, fmt.Errorf("%w base model: tensor %s has rows of %d values in blocks of %d", pipeline.ErrInvalid, name, t.columns, f.values)
	}
	length := t.rows * (t.columns / f.values) // both at most 2^31
	if length > g.size/f.bytes || t.offset < 0 || t.offset > g.size-g.data || length*f.bytes > g.size-g.data-t.offset {
		return t, f, nil, fmt.Errorf("%w base model: tensor %s ends after the file", pipeline.ErrInvalid, name)
	}
	return t, f, io.NewSectionReader(g.r, g.data+t.offset, length*f.bytes), nil
}

// ggufHeader is a bounded cursor over the header; its first error stays.
type ggufHeader struct {
	r    *bufio.Reader
	left int64
	buf  [8]byte
	err  error
}

func (h *ggufHeader) fail(format string, a ...any) {
	if h.err == nil {
		h.err = fmt.Errorf(format, a...)
	}
}

// take returns the next n bytes, at most 8 of them, valid until the next call.
func (h *ggufHeader) take(n int) []byte {
	b := h.buf[:n]
	clear(b)
	if h.err == nil && int64(n) > h.left {
		h.fail("it ends within the header")
	}
	if h.err != nil {
		return b
	}
	if _, err := io.ReadFull(h.r, b); err != nil {
		h.err = err
	}
	h.left -= int64(n)
	return b
}

func (h *ggufHeader) u32() uint32 { return binary.LittleEndian.Uint32(h.take(4)) }
func (h *ggufHeader) u64() uint64 { return binary.LittleEndian.Uint64(h.take(8)) }

func (h *ggufHeader) text(limit uint64) string {
	n := h.u64()
	if h.err == nil && (n > limit || n > uint64(h.left)) {
		h.fail("a string of %d bytes", n)
	}
	if h.err != nil {
		return ""
	}
	b := make([]byte, n)
	_, h.err = io.ReadFull(h.r, b)
	h.left -= int64(n)
	return string(b)
}

func (h *ggufHeader) skip(n uint64) {
	if h.err == nil && n > uint64(h.left) {
		h.fail("it ends within the header")
	}
	for n > 0 && h.err == nil {
		part := min(n, 1<<20)
		_, h.err = h.r.Discard(int(part))
		h.left -= int64(part)
		n -= part
	}
}

// value reads one metadata value (gguf_metadata_value_type) and keeps it in g where it is a whole number or a short string.
func (h *ggufHeader) value(key string, kind uint32, g *gguf, depth int) {
	switch kind {
	case 0, 1, 7: // uint8, int8, bool
		g.numbers[key] = uint64(h.take(1)[0])
	case 2, 3: // uint16, int16
		g.numbers[key] = uint64(binary.LittleEndian.Uint16(h.take(2)))
	case 4, 5: // uint32, int32
		g.numbers[key] = uint64(h.u32())
	case 10, 11: // uint64, int64
		g.numbers[key] = h.u64()
	case 6: // float32
		h.skip(4)
	case 12: // float64
		h.skip(8)
	case 8:
		if n, err := h.r.Peek(8); err == nil && binary.LittleEndian.Uint64(n) <= maxGGUFWord {
			g.words[key] = h.text(maxGGUFWord)
		} else {
			h.skip(h.u64())
		}
	case 9:
		h.array(depth)
	default:
		h.fail("value type %d", kind)
	}
}

func (h *ggufHeader) array(depth int) {
	kind, n := h.u32(), h.u64()
	width, ok := map[uint32]uint64{0: 1, 1: 1, 7: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 10: 8, 11: 8, 12: 8}[kind]
	switch {
	case h.err != nil:
	case ok && n > uint64(h.left)/width:
		h.fail("an array of %d values", n)
	case ok:
		h.skip(n * width)
	case kind == 8:
		for ; n > 0 && h.err == nil; n-- {
			h.skip(h.u64())
		}
	case kind == 9 && depth < maxGGUFDepth:
		for ; n > 0 && h.err == nil; n-- {
			h.array(depth + 1)
		}
	default:
		h.fail("an array of type %d", kind)
	}
}
