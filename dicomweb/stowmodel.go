package dicomweb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"chatxray/pipeline"
)

const (
	maxModel = 32 << 20  // bytes of metadata in one part
	maxValue = 256 << 20 // bytes of bulk data other than pixels, which are put together in memory
)

// bulkPart is bulk data of a request, in the spool.
type bulkPart struct {
	off, size     int64
	media, syntax string
}

// spool keeps bulk data until all of a request is there: a file that nobody else sees.
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

// add takes a part.
func (s *spool) add(p *part, limit int64) error {
	m := parseMediaType(p.Header.Get("Content-Type"))
	r := &counted{r: io.LimitReader(p, limit+1)}
	n, err := io.Copy(s.file, r)
	switch {
	case r.err != nil && errors.Is(r.err, io.ErrUnexpectedEOF):
		return errUnclosed
	case r.err != nil:
		return r.err
	case err != nil:
		return diskFull(err)
	case n > limit:
		return fmt.Errorf("%w: a part has more than %d bytes", errTooLarge, limit)
	}
	location := strings.TrimSpace(p.Header.Get("Content-Location"))
	s.parts[location] = append(s.parts[location], bulkPart{s.size, n, m.name, m.params["transfer-syntax"]})
	s.size += n
	return nil
}

func (s *spool) reader(p bulkPart) *io.SectionReader {
	return io.NewSectionReader(s.file, p.off, p.size)
}

// models is a request of metadata with bulk data (PS3.18 sections 10.5.1.1 and 8.7.3): one part of JSON, or parts of XML for one instance
// each, and parts of bulk data with their Content-Location.
func (u *upload) models(body io.Reader, m mediaType) error {
	release, err := u.s.gate.hold(maxModel)
	if err != nil {
		return err
	}
	defer release()
	if m.name != mediaMulti {
		b, err := limited(body, maxModel)
		if err != nil {
			return err
		}
		sets, err := readModels(m.name, b)
		if err != nil {
			return err
		}
		return u.assembleAll(sets, nil)
	}
	boundary, err := m.boundary()
	if err != nil {
		return fmt.Errorf("%w: %v", pipeline.ErrInvalid, err)
	}
	mr, err := newMultipart(body, boundary)
	if err != nil {
		return err
	}
	s, err := newSpool()
	if err != nil {
		return err
	}
	defer s.file.Close()
	sets, err := u.modelParts(mr, s, m.params["type"])
	if err != nil {
		return err
	}
	return u.assembleAll(sets, s)
}

// modelParts reads all parts.
func (u *upload) modelParts(mr *parts, s *spool, kind string) (sets []rawDataset, err error) {
	for n := 0; ; n++ {
		p, err := mr.next()
		switch {
		case err == io.EOF && len(sets) == 0:
			return nil, fmt.Errorf("%w: the multipart body has no part of %s", pipeline.ErrInvalid, kind)
		case err == io.EOF:
			return sets, nil
		case err != nil:
			return nil, err
		case n == u.s.MaxParts:
			return nil, fmt.Errorf("%w: the request has more than %d parts; send fewer instances at once", errTooLarge, u.s.MaxParts)
		}
		media := parseMediaType(p.Header.Get("Content-Type")).name
		if media != kind {
			if n == 0 && media != "" {
				return nil, fmt.Errorf("%w: the first part is %q, and the request says that it is %s", pipeline.ErrInvalid, printable(media), kind)
			}
			if n > 0 {
				if err := s.add(p, u.s.MaxInstance); err != nil {
					return nil, err
				}
				continue
			}
		}
		b, err := limited(p, maxModel)
		if err != nil {
			return nil, err
		}
		more, err := readModels(kind, b)
		if err != nil {
			return nil, err
		}
		if sets = append(sets, more...); len(sets) > u.s.MaxParts {
			return nil, fmt.Errorf("%w: the request has more than %d instances; send fewer at once", errTooLarge, u.s.MaxParts)
		}
	}
}

func readModels(kind string, b []byte) ([]rawDataset, error) {
	if kind == mediaXML {
		set, err := readXML(b)
		return []rawDataset{set}, err
	}
	sets, err := readJSON(b)
	if err == nil && len(sets) == 0 {
		err = fmt.Errorf("%w: it has no instance", errModel)
	}
	return sets, err
}

// limited reads all of r.
func limited(r io.Reader, limit int64) ([]byte, error) {
	c := &counted{r: io.LimitReader(r, limit+1)}
	b, err := io.ReadAll(c)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errUnclosed
	case err != nil:
		return nil, err
	case int64(len(b)) > limit:
		return nil, fmt.Errorf("%w: the metadata have more than %d bytes", errTooLarge, limit)
	case len(b) == 0:
		return nil, fmt.Errorf("%w: the body is empty", pipeline.ErrInvalid)
	}
	return b, nil
}

// assembleAll makes a file of each data set and stages it. An instance's own failure is noted; an error is the whole request's.
func (u *upload) assembleAll(sets []rawDataset, s *spool) error {
	for _, raw := range sets {
		m := build(raw, u.s.AllowsVR)
		f, err := u.assemble(&m, s)
		if err != nil {
			if errors.Is(err, pipeline.ErrFull) {
				return err
			}
			done := stored{err: err}
			if in := m.identity(); in.SOPInstanceUID != "" && in.SOPClassUID != "" {
				done.instance = in
			}
			u.parts = append(u.parts, done)
			continue
		}
		err = u.part(&counted{r: io.LimitReader(f, u.s.MaxInstance+1)})
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// assemble makes the file of one data set.
func (u *upload) assemble(m *modelled, s *spool) (*os.File, error) {
	var pixels []io.Reader
	var lengths []int64
	syntax, total := explicitLE, int64(0)
	for path, uri := range m.uris {
		var parts []bulkPart
		if s != nil {
			parts = s.parts[strings.TrimSpace(uri)]
		}
		if len(parts) == 0 {
			return nil, &faulty{[]pipeline.Element{lastOf(path)}, fmt.Errorf("%w: %s", errNoBulk, path)}
		}
		if path == pixelValue {
			syntax = s.syntaxOf(parts[0])
			for _, p := range parts {
				pixels, lengths = append(pixels, s.reader(p)), append(lengths, p.size)
			}
			continue
		}
		if total += parts[0].size; len(parts) > 1 || total > maxValue {
			return nil, fmt.Errorf("%w: %s: bulk data in several parts, or of more than %d bytes", errModel, path, maxValue)
		}
		release, err := u.s.gate.hold(int(parts[0].size))
		if err != nil {
			return nil, err
		}
		defer release()
		b := make([]byte, parts[0].size)
		if _, err := io.ReadFull(s.reader(parts[0]), b); err != nil {
			return nil, err
		}
		m.set(path, b)
	}
	if m.err != nil {
		return nil, m.err
	}
	if e, ok := m.ds.Get(pipeline.TagPixelData); ok && len(pixels) == 0 && len(e.Bytes) > 0 {
		pixels, lengths = []io.Reader{bytes.NewReader(e.Bytes)}, []int64{int64(len(e.Bytes))}
	}
	f, err := scratch()
	if err != nil {
		return nil, err
	}
	if err = diskFull(u.s.Assemble(f, m.ds, syntax, pixels, lengths)); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// lastOf is the attribute that a path leads to.
func lastOf(path string) pipeline.Element {
	tag, _ := strconv.ParseUint(path[strings.LastIndexByte(path, '/')+1:], 16, 32)
	return pipeline.Element{Tag: pipeline.Tag(tag)}
}

// syntaxOf is the transfer syntax of pixels: the one that the part names, else the default of its media type (PS3.18 table 8.7.3-5); JPEG
// says itself which process it is of, and is sent without a parameter most of the time.
func (s *spool) syntaxOf(p bulkPart) string {
	if p.syntax != "" && p.syntax != "*" {
		return p.syntax
	}
	for _, f := range frameMedia {
		if f.media != p.media {
			continue
		}
		if f.media == "image/jpeg" {
			return jpegProcess(s.reader(p))
		}
		return f.syntaxes[0]
	}
	return explicitLE
}

// jpegProcess is the transfer syntax that goes with the first frame header of a JPEG file.
func jpegProcess(r io.Reader) string {
	head, _ := io.ReadAll(io.LimitReader(r, 64<<10))
	for i := 2; i+4 <= len(head) && head[i] == 0xFF; i += 2 + int(binary.BigEndian.Uint16(head[i+2:])) {
		switch head[i+1] {
		case 0xC0:
			return "1.2.840.10008.1.2.4.50"
		case 0xC1, 0xC2:
			return "1.2.840.10008.1.2.4.51"
		}
	}
	return "1.2.840.10008.1.2.4.70"
}

// isModel tells whether a body holds metadata.
func isModel(m mediaType) bool {
	kinds := []string{mediaJSON, mediaXML}
	return slices.Contains(kinds, m.name) || m.name == mediaMulti && slices.Contains(kinds, m.params["type"])
}
