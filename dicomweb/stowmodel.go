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

	"chatxray/pipeline"
)

const (
	maxModel = 32 << 20  // bytes of metadata in one part
	maxValue = 256 << 20 // bytes of bulk data other than pixels, which are put together in memory
)

// models is a request of metadata with bulk data (PS3.18 sections 10.5.1.1 and 8.7.3): one part of JSON, or parts of XML for one instance
// each, and parts of bulk data with their Content-Location. All of it is in the spool before any is read: metadata become many times as large
// in memory, and a slow client must not hold that.
func (u *upload) models(body io.Reader, m mediaType) error {
	s, err := newSpool()
	if err != nil {
		return err
	}
	defer s.file.Close()
	kind, models := m.name, make([]bulkPart, 1)
	if m.name != mediaMulti {
		models[0], err = s.take(body, maxModel)
	} else {
		kind = m.params["type"]
		models, err = u.modelParts(body, m, s)
	}
	if err != nil {
		return err
	}
	for _, p := range models {
		if err := u.model(kind, p, s); err != nil {
			return err
		}
	}
	return nil
}

// modelParts takes all parts and returns those of metadata.
func (u *upload) modelParts(body io.Reader, m mediaType, s *spool) (models []bulkPart, err error) {
	boundary, err := m.boundary()
	if err != nil {
		return nil, fmt.Errorf("%w: %v", pipeline.ErrInvalid, err)
	}
	mr, err := newMultipart(body, boundary)
	if err != nil {
		return nil, err
	}
	kind := m.params["type"]
	for n := 0; ; n++ {
		p, err := mr.next()
		switch {
		case err == io.EOF && len(models) == 0:
			return nil, fmt.Errorf("%w: the multipart body has no part of %s", pipeline.ErrInvalid, kind)
		case err == io.EOF:
			return models, nil
		case err != nil:
			return nil, err
		case n == u.s.MaxParts:
			return nil, fmt.Errorf("%w: the request has more than %d parts; send fewer instances at once", errTooLarge, u.s.MaxParts)
		}
		media := parseMediaType(p.Header.Get("Content-Type")).name
		switch {
		case n == 0 && media != "" && media != kind:
			return nil, fmt.Errorf("%w: the first part is %q, and the request says that it is %s", pipeline.ErrInvalid, printable(media), kind)
		case n > 0 && media != kind:
			if err := s.add(p, u.s.MaxInstance); err != nil {
				return nil, err
			}
			continue
		}
		model, err := s.take(p, maxModel)
		if err != nil {
			return nil, err
		}
		models = append(models, model)
	}
}

// model reads metadata and stages what they make, within the memory that there is for such things.
func (u *upload) model(kind string, p bulkPart, s *spool) error {
	if p.size == 0 {
		return fmt.Errorf("%w: the metadata are empty", pipeline.ErrInvalid)
	}
	release, err := u.s.gate.hold(int(p.size))
	if err != nil {
		return err
	}
	defer release()
	b := make([]byte, p.size)
	if _, err := io.ReadFull(s.reader(p), b); err != nil {
		return err
	}
	weight := weigh(kind, b)
	if weight > maxWeight {
		return fmt.Errorf("%w: the metadata have too many attributes and values; send fewer instances at once, and long lists of values as bulk data", errTooLarge)
	}
	unload, err := u.s.gate.hold(weight)
	if err != nil {
		return err
	}
	defer unload()
	sets, err := readModels(kind, b)
	if err != nil {
		return err
	}
	if len(u.parts)+len(sets) > u.s.MaxParts {
		return fmt.Errorf("%w: the request has more than %d instances; send fewer at once", errTooLarge, u.s.MaxParts)
	}
	return u.assembleAll(sets, s)
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
		parts := s.parts[strings.TrimSpace(uri)]
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
