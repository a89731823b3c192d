package dicom

import (
	"context"
	"encoding/binary"
	"fmt"

	"chatxray/pipeline"
)

// RLELossless is the run-length transfer syntax (PS3.5 annex G). It is small enough to be our own.
const RLELossless = "1.2.840.10008.1.2.5"

const (
	rleHeader      = 64
	rleMaxSegments = 15
)

func init() {
	register(syntax{Syntax: Syntax{UID: RLELossless, Name: "RLE Lossless"}, decode: decodeRLE, encode: encodeRLE})
}

// decodeRLE puts a frame together from its segments: for each sample one segment a byte, the most significant first.
func decodeRLE(_ context.Context, f encoded) (*Pixels, error) {
	l := f.layout
	if l.allocated == 1 {
		return nil, fmt.Errorf("%w image: RLE with 1 bit allocated", pipeline.ErrUnsupported)
	}
	size, want := l.wordBytes(), l.samples*l.wordBytes()
	if len(f.data) < rleHeader {
		return nil, fmt.Errorf("%w RLE: %d bytes, less than its header", pipeline.ErrInvalid, len(f.data))
	}
	if n := binary.LittleEndian.Uint32(f.data); int64(n) != int64(want) || want > rleMaxSegments {
		return nil, fmt.Errorf("%w RLE: %d segments in place of %d", pipeline.ErrInvalid, n, want)
	}
	// Two bytes of a run make at most 128: a frame that its codestream cannot fill is refused before it is made.
	plane := l.rows * l.columns
	if int64(plane)*int64(want) > 64*int64(len(f.data)) {
		return nil, fmt.Errorf("%w RLE: %d bytes cannot hold %d x %d pixels", pipeline.ErrInvalid, len(f.data), l.rows, l.columns)
	}
	out := make([]byte, l.frameBytes())
	for s := range want {
		from, to := int64(binary.LittleEndian.Uint32(f.data[4+4*s:])), int64(len(f.data))
		if s+1 < want {
			to = int64(binary.LittleEndian.Uint32(f.data[8+4*s:]))
		}
		if from < rleHeader || to < from || to > int64(len(f.data)) {
			return nil, fmt.Errorf("%w RLE: segment %d lies at bytes %d to %d of %d", pipeline.ErrInvalid, s+1, from, to, len(f.data))
		}
		sample, byteOf := s/size, size-1-s%size
		if n := unpackRuns(out[sample*size+byteOf:], l.samples*size, plane, f.data[from:to]); n < plane {
			return nil, fmt.Errorf("%w RLE: segment %d ends after %d of %d bytes", pipeline.ErrInvalid, s+1, n, plane)
		}
	}
	l.planar = 0
	return l.pixels(out), nil
}

// unpackRuns writes n bytes of a PackBits segment to every step-th byte of out and returns how many there were.
func unpackRuns(out []byte, step, n int, in []byte) int {
	done := 0
	for i := 0; i < len(in) && done < n; {
		c := int(int8(in[i]))
		i++
		switch {
		case c >= 0:
			for range min(c+1, len(in)-i, n-done) {
				out[done*step] = in[i]
				i++
				done++
			}
		case c != -128 && i < len(in):
			for range min(1-c, n-done) {
				out[done*step] = in[i]
				done++
			}
			i++
		}
	}
	return done
}

// encodeRLE writes each row of each byte plane by itself, as the standard wants.
func encodeRLE(_ context.Context, p *Pixels) ([]byte, error) {
	size := p.BitsAllocated / 8
	segments := p.SamplesPerPixel * size
	if segments > rleMaxSegments {
		return nil, fmt.Errorf("%w image: %d byte planes are too many for RLE", pipeline.ErrUnsupported, segments)
	}
	out := make([]byte, rleHeader)
	binary.LittleEndian.PutUint32(out, uint32(segments))
	row := make([]byte, p.Columns)
	for s := range segments {
		binary.LittleEndian.PutUint32(out[4+4*s:], uint32(len(out)))
		sample, byteOf := s/size, size-1-s%size
		for y := range p.Rows {
			for x := range row {
				row[x] = p.Data[p.at(y, x, sample)*size+byteOf]
			}
			out = packRuns(out, row)
		}
		if len(out)%2 == 1 {
			out = append(out, 0)
		}
	}
	return out, nil
}

// at is the index of a sample in Data.
func (p *Pixels) at(y, x, sample int) int {
	if p.PlanarConfiguration == 1 {
		return (sample*p.Rows+y)*p.Columns + x
	}
	return (y*p.Columns+x)*p.SamplesPerPixel + sample
}

// packRuns appends a row in PackBits: runs of three or more alike, else literals, 128 at most.
func packRuns(out, row []byte) []byte {
	for i := 0; i < len(row); {
		run := 1
		for i+run < len(row) && run < 128 && row[i+run] == row[i] {
			run++
		}
		if run > 2 {
			out = append(out, byte(1-run), row[i])
			i += run
			continue
		}
		start := i
		for i < len(row) && i-start < 128 {
			if i+2 < len(row) && row[i] == row[i+1] && row[i] == row[i+2] {
				break
			}
			i++
		}
		out = append(append(out, byte(i-start-1)), row[start:i]...)
	}
	return out
}
