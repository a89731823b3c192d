package dicom

import (
	"fmt"
	"io"

	"chatxray/pipeline"
)

// source is where a walker reads from: a whole file in memory, or a file on disk through one small window, so that a header
// of a few kilobytes before a gigabyte of pixels costs a few kilobytes.
type source struct {
	data   []byte // the whole file, or nil
	r      io.ReaderAt
	size   int64
	window []byte // of r, at start
	start  int64
}

const pageBytes = 32 << 10 // more than most headers have

func memory(data []byte) *source { return &source{data: data, size: int64(len(data))} }

func reader(r io.ReaderAt, size int64) *source { return &source{r: r, size: size} }

// view returns n bytes at off. They are valid until the next call and must not be written to.
func (s *source) view(off int64, n int) ([]byte, error) {
	if off < 0 || n < 0 || int64(n) > s.size-off {
		return nil, fmt.Errorf("%w DICOM: %d bytes are wanted at byte %d of %d; the file is truncated", pipeline.ErrInvalid, n, off, s.size)
	}
	if s.data != nil {
		return s.data[off : off+int64(n) : off+int64(n)], nil
	}
	if n > pageBytes {
		return s.fetch(make([]byte, n), off)
	}
	if off < s.start || off+int64(n) > s.start+int64(len(s.window)) {
		if s.window == nil {
			s.window = make([]byte, min(pageBytes, s.size))
		}
		w, err := s.fetch(s.window[:min(pageBytes, s.size-off)], off)
		if err != nil {
			s.window = nil
			return nil, err
		}
		s.window, s.start = w, off
	}
	i := off - s.start
	return s.window[i : i+int64(n) : i+int64(n)], nil
}

// take returns n bytes at off for keeps: a part of the file in memory, else a copy.
func (s *source) take(off, n int64) ([]byte, error) {
	if off < 0 || n < 0 || n > s.size-off {
		return nil, fmt.Errorf("%w DICOM: %d bytes are wanted at byte %d of %d; the file is truncated", pipeline.ErrInvalid, n, off, s.size)
	}
	if s.data != nil {
		return s.data[off : off+n : off+n], nil
	}
	if i := off - s.start; i >= 0 && i+n <= int64(len(s.window)) {
		return append(make([]byte, 0, n), s.window[i:i+n]...), nil
	}
	return s.fetch(make([]byte, n), off)
}

func (s *source) fetch(into []byte, off int64) ([]byte, error) {
	n, err := s.r.ReadAt(into, off)
	if n == len(into) {
		return into, nil
	}
	if err == nil || err == io.EOF {
		err = pipeline.ErrInvalid
	}
	return nil, fmt.Errorf("the file ended or failed while %d bytes at byte %d were read: %w", len(into), off, err)
}
