package dicomweb

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"chatxray/pipeline"
)

// bulkPart is metadata or bulk data of a request, in the spool.
type bulkPart struct {
	off, size     int64
	media, syntax string
}

// spool keeps metadata and bulk data until all of a request is there: a file that nobody else sees.
type spool struct {
	file  *os.File
	size  int64
	parts map[string][]bulkPart // by location
}

func newSpool() (*spool, error) {
	f, err := scratch()
	if err != nil {
		return nil, err
	}
	return &spool{file: f, parts: map[string][]bulkPart{}}, nil
}

// scratch makes a file without a name.
func scratch() (*os.File, error) {
	f, err := os.CreateTemp("", "chatxray-*")
	if err != nil {
		return nil, diskFull(fmt.Errorf("bulk data cannot be written: %w", err))
	}
	_ = os.Remove(f.Name())
	return f, nil
}

func diskFull(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: the folder for temporary files: %v", pipeline.ErrFull, err)
	}
	return err
}

// add takes a part of bulk data.
func (s *spool) add(p *part, limit int64) error {
	m := parseMediaType(p.Header.Get("Content-Type"))
	kept, err := s.take(p, limit)
	if err != nil {
		return err
	}
	kept.media, kept.syntax = m.name, m.params["transfer-syntax"]
	location := strings.TrimSpace(p.Header.Get("Content-Location"))
	s.parts[location] = append(s.parts[location], kept)
	return nil
}

// take copies bytes to the end of the file.
func (s *spool) take(from io.Reader, limit int64) (bulkPart, error) {
	r := &counted{r: io.LimitReader(from, limit+1)}
	n, err := io.Copy(s.file, r)
	switch {
	case r.err != nil && errors.Is(r.err, io.ErrUnexpectedEOF):
		return bulkPart{}, errUnclosed
	case r.err != nil:
		return bulkPart{}, r.err
	case err != nil:
		return bulkPart{}, diskFull(err)
	case n > limit:
		return bulkPart{}, fmt.Errorf("%w: a part has more than %d bytes", errTooLarge, limit)
	}
	kept := bulkPart{off: s.size, size: n}
	s.size += n
	return kept, nil
}

func (s *spool) reader(p bulkPart) *io.SectionReader {
	return io.NewSectionReader(s.file, p.off, p.size)
}
