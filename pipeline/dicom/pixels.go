package dicom

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"

	"chatxray/pipeline"
)

// Pixels is one frame in native form: what the standard calls the stored pixel values, before any lookup.
//
// Data holds Rows×Columns×SamplesPerPixel words of BitsAllocated (8, 16 or 32) bits, little endian, row by row; samples are
// interleaved where PlanarConfiguration is 0 and plane after plane where it is 1. Bits above HighBit or below
// HighBit+1-BitsStored are as stored and mean nothing. Objects with 1 bit allocated arrive here unpacked to one byte a sample
// (BitsAllocated 8, BitsStored 1, HighBit 0). A native YBR_FULL_422 frame arrives with its chroma repeated, as YBR_FULL.
//
// Data may be a part of Instance.Data (native little-endian syntaxes): read only.
type Pixels struct {
	Rows, Columns, SamplesPerPixel     int
	Frames                             int // of the whole object
	BitsAllocated, BitsStored, HighBit int
	Signed                             bool   // two's complement in BitsStored bits
	Photometric                        string // of Data: decompressing colour JPEG and JPEG 2000 makes RGB of YBR
	PlanarConfiguration                int
	Data                               []byte
}

// DecodeFrame returns one frame, counted from 0. Errors wrap pipeline.ErrNotImage (no pixel data, or floating point),
// ErrInvalid (truncated, contradicting header), ErrUnsupported (a syntax or layout we cannot read), ErrMissingPart (the codec
// module is not there) or ErrNotFound (no such frame). ctx is looked at before the work, not during it.
func DecodeFrame(ctx context.Context, in *pipeline.Instance, frame int) (*Pixels, error) {
	f, err := OpenFrames(in)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Frame(ctx, frame)
}

// Frames reads the frames of one Instance, one after another in any order. It is not for concurrent use.
type Frames struct {
	walked *walked
	layout layout
	file   io.Closer
	starts []int // of codestreams, once found
	// borrow, where set, gives memory for a native frame that is read from a file, in place of new memory.
	borrow func(n int64) []byte
}

// OpenFrames finds the pixels of an Instance. The caller closes it.
func OpenFrames(in *pipeline.Instance) (*Frames, error) {
	if in.Data != nil {
		return newFrames(memory(in.Data), in, nil)
	}
	f, err := os.Open(in.Path)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	fr, err := newFrames(reader(f, st.Size()), in, f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return fr, nil
}

func newFrames(src *source, in *pipeline.Instance, file io.Closer) (*Frames, error) {
	w, err := walk(src, false)
	if err != nil {
		return nil, err
	}
	f, err := framesOf(w, in.Header)
	if err != nil {
		return nil, err
	}
	f.file = file
	return f, nil
}

// framesOf compares the pixels of a walked file with what its header says about them.
func framesOf(w *walked, header pipeline.Dataset) (*Frames, error) {
	switch w.pixels.tag {
	case 0:
		return nil, fmt.Errorf("%w: the object holds no pixel data", pipeline.ErrNotImage)
	case pipeline.TagFloatPixelData, pipeline.TagDoubleFloatPixelData:
		return nil, fmt.Errorf("%w: the object holds floating point pixels (a parametric map), no stored pixel values", pipeline.ErrNotImage)
	}
	l, err := newLayout(header)
	if err != nil {
		return nil, err
	}
	if !w.pixels.encap {
		if need := (l.storedBits()*int64(l.frames) + 7) / 8; need > w.pixels.value.length {
			return nil, fmt.Errorf("%w image: Pixel Data has %d bytes, %d frames of %d x %d need %d", pipeline.ErrInvalid, w.pixels.value.length, l.frames, l.rows, l.columns, need)
		}
	}
	return &Frames{walked: w, layout: l}, nil
}

// Len is the number of frames that the header declares, at least 1.
func (f *Frames) Len() int { return f.layout.frames }

// Close ends the use of the file.
func (f *Frames) Close() error {
	if f.file == nil {
		return nil
	}
	return f.file.Close()
}

// Frame decodes one frame, counted from 0. Errors are those of DecodeFrame.
func (f *Frames) Frame(ctx context.Context, frame int) (*Pixels, error) {
	if frame < 0 || frame >= f.layout.frames {
		return nil, fmt.Errorf("%w: frame %d of %d", pipeline.ErrNotFound, frame+1, f.layout.frames)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s := f.walked.syntax
	if !s.Encapsulated {
		return f.native(frame)
	}
	if s.decode == nil {
		return nil, fmt.Errorf("%w transfer syntax %s (%s): its pixels cannot be decoded here; convert the object to Explicit VR Little Endian", pipeline.ErrUnsupported, s.UID, s.Name)
	}
	data, err := f.codestream(frame)
	if err != nil {
		return nil, err
	}
	if len(data) < 8 {
		return nil, fmt.Errorf("%w image: the codestream of frame %d has %d bytes", pipeline.ErrInvalid, frame+1, len(data))
	}
	p, err := s.decode(ctx, encoded{layout: f.layout, data: data})
	if err != nil {
		return nil, fmt.Errorf("frame %d (%s): %w", frame+1, s.Name, err)
	}
	if p.Photometric == "YBR_FULL_422" { // a codestream holds every sample, or its decoder repeats the chroma
		p.Photometric = "YBR_FULL"
	}
	if want := int64(p.Rows) * int64(p.Columns) * int64(p.SamplesPerPixel) * int64(p.BitsAllocated/8); int64(len(p.Data)) != want {
		return nil, fmt.Errorf("%w image: frame %d decodes to %d bytes in place of %d", pipeline.ErrInvalid, frame+1, len(p.Data), want)
	}
	return p, nil
}

// join returns the bytes of fragments as one; a single fragment of a file in memory is not copied.
func (f *Frames) join(spans []span) ([]byte, error) {
	if len(spans) == 1 {
		return f.walked.src.take(spans[0].off, spans[0].length)
	}
	var n int64
	for _, s := range spans {
		n += s.length
	}
	out := make([]byte, 0, n)
	for _, s := range spans {
		b, err := f.walked.src.take(s.off, s.length)
		if err != nil {
			return nil, err
		}
		out = append(out, b...)
	}
	return out, nil
}

// codestreams finds the fragments that begin with the marker of a JPEG, JPEG-LS or JPEG 2000 codestream.
func (f *Frames) codestreams() ([]int, error) {
	if f.starts != nil {
		return f.starts, nil
	}
	for i, s := range f.walked.pixels.fragments {
		b, err := f.walked.src.view(s.off, int(min(s.length, 4)))
		if err != nil {
			return nil, err
		}
		if bytes.HasPrefix(b, []byte{0xFF, 0xD8, 0xFF}) || bytes.HasPrefix(b, []byte{0xFF, 0x4F, 0xFF, 0x51}) {
			f.starts = append(f.starts, i)
		}
	}
	return f.starts, nil
}

// native cuts one frame out of uncompressed pixel data.
func (f *Frames) native(frame int) (*Pixels, error) {
	l := f.layout
	bits := l.storedBits()
	from, to := bits*int64(frame), bits*int64(frame+1)
	b, err := f.bytes(from/8, (to+7)/8)
	if err != nil {
		return nil, err
	}
	if l.allocated == 1 {
		return l.pixels(unpackBits(b, int(from%8), int(l.words()))), nil
	}
	if l.photometric == "YBR_FULL_422" {
		b = l.repeatChroma(b)
		l.photometric, l.planar = "YBR_FULL", 0
	}
	return l.pixels(b), nil
}

// bytes returns a part of native pixel data in little endian. Big endian swaps the words of the VR, not the samples: 8-bit
// samples in OW change places in pairs, 32-bit samples in OW keep the order of their halves (PS3.5 section 7.3, annex D.2).
func (f *Frames) bytes(from, to int64) ([]byte, error) {
	value, src, word := f.walked.pixels.value, f.walked.src, int64(f.walked.pixels.word)
	if !f.walked.syntax.enc.big || word == 1 {
		if f.borrow != nil && src.data == nil && to-from <= src.size-value.off-from {
			return src.fetch(f.borrow(to-from), value.off+from)
		}
		return src.take(value.off+from, to-from)
	}
	begin, end := from/word*word, min((to+word-1)/word*word, value.length)
	b, err := src.take(value.off+begin, end-begin)
	if err != nil {
		return nil, err
	}
	return swapped(b, int(word))[from-begin : to-begin], nil
}

// unpackBits makes a byte of each of n bits, the least significant bit of a byte first (PS3.5 annex D.3), from bit skip on.
func unpackBits(b []byte, skip, n int) []byte {
	out := make([]byte, n)
	for i := range out {
		at := skip + i
		out[i] = b[at/8] >> (at % 8) & 1
	}
	return out
}

// repeatChroma makes YBR_FULL of a native YBR_FULL_422 frame: each four samples Y1 Y2 CB CR become two pixels (PS3.3 section
// C.7.6.3.1.2).
func (l layout) repeatChroma(b []byte) []byte {
	n := l.allocated / 8
	out := make([]byte, l.frameBytes())
	pairs := (l.columns + 1) / 2
	for y := range l.rows {
		row := out[y*l.columns*3*n:]
		for x := range l.columns {
			group := b[(y*pairs+x/2)*4*n:]
			copy(row[x*3*n:], group[x%2*n:][:n])
			copy(row[(x*3+1)*n:], group[2*n:4*n])
		}
	}
	return out
}
