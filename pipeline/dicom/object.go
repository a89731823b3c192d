package dicom

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"chatxray/pipeline"
)

// Object is an open file: its header, what the header leaves out, and its frames. It is not for concurrent use.
type Object struct {
	walked *walked
	file   *os.File // nil for a file in memory
	frames *Frames  // once asked for
}

// OpenObject opens the file of an instance (Data, or Path) and walks through it; its header is that of the file, whatever in.Header
// has. The caller closes it. Errors are those of Open, and of the file system.
func OpenObject(in *pipeline.Instance) (*Object, error) {
	if in.Data != nil {
		w, err := walk(memory(in.Data), true)
		if err != nil {
			return nil, err
		}
		return &Object{walked: w}, nil
	}
	f, err := os.Open(in.Path)
	if err != nil {
		return nil, err
	}
	o, err := openObject(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return o, nil
}

func openObject(f *os.File) (*Object, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	w, err := walk(reader(f, st.Size()), true)
	if err != nil {
		return nil, err
	}
	return &Object{walked: w, file: f}, nil
}

// Close ends the use of the file.
func (o *Object) Close() error {
	if o.file == nil {
		return nil
	}
	return o.file.Close()
}

// Weight is about how many bytes of memory it takes until it is closed.
func (o *Object) Weight() int64 { return o.walked.weight }

// Header is every attribute but those of Left.
func (o *Object) Header() pipeline.Dataset { return o.walked.header }

// Left lists what the header leaves out.
func (o *Object) Left() []pipeline.Bulk { return o.walked.left }

// Value opens a binary value by its path, as pipeline.Bulk has it; short values of the header are found too. The value is as in the
// file, words in little endian; the fragments of video are one stream. It is valid until Close. Errors wrap pipeline.ErrNotFound, or
// pipeline.ErrUnsupported for other fragments, which are read as frames.
func (o *Object) Value(path string) (io.ReadSeeker, error) {
	for i, b := range o.walked.left {
		switch {
		case b.Path != path:
			continue
		case b.Length < 0 && o.walked.syntax.video && len(o.walked.pixels.fragments) > 0:
			return streamOf(o.walked), nil
		case b.Length < 0:
			return nil, fmt.Errorf("%w value: %s is in fragments; ask for its frames", pipeline.ErrUnsupported, path)
		}
		src, at := o.walked.src, o.walked.places[i]
		size := vrOf(b.VR).size
		switch {
		case o.walked.syntax.enc.big && size > 1:
			v, err := src.take(at, b.Length)
			if err != nil {
				return nil, err
			}
			return bytes.NewReader(swapped(v, size)), nil
		case src.data != nil:
			v, err := src.take(at, b.Length)
			return bytes.NewReader(v), err
		}
		return io.NewSectionReader(src.r, at, b.Length), nil
	}
	v, ok := valueAt(o.walked.header, strings.Split(path, "/"))
	if !ok {
		return nil, fmt.Errorf("%w: the instance has no binary value at this path", pipeline.ErrNotFound)
	}
	return bytes.NewReader(v), nil
}

// streamOf opens the fragments of a video as one.
func streamOf(w *walked) *io.SectionReader {
	var r io.ReaderAt = bytes.NewReader(w.src.data)
	if w.src.data == nil {
		r = w.src.r
	}
	all := w.pixels.fragments
	if len(all) == 1 {
		return io.NewSectionReader(r, all[0].off, all[0].length)
	}
	size := int64(0)
	for _, s := range all {
		size += s.length
	}
	return io.NewSectionReader(joined{r, all}, 0, size)
}

// joined reads fragments as if nothing lay between them.
type joined struct {
	r     io.ReaderAt
	spans []span
}

// ReadAt implements io.ReaderAt.
func (j joined) ReadAt(b []byte, off int64) (n int, err error) {
	for _, s := range j.spans {
		if off >= s.length {
			off -= s.length
			continue
		}
		m, err := j.r.ReadAt(b[n:n+int(min(int64(len(b)-n), s.length-off))], s.off+off)
		if n, off = n+m, 0; n == len(b) || err != nil {
			return n, err
		}
	}
	return n, io.EOF
}

// valueAt finds a binary value of a header by its path.
func valueAt(d pipeline.Dataset, path []string) ([]byte, bool) {
	for {
		n, err := strconv.ParseUint(path[0], 16, 32)
		if err != nil || len(path[0]) != 8 {
			return nil, false
		}
		e, ok := d.Get(pipeline.Tag(n))
		if !ok || len(path) == 2 {
			return nil, false
		}
		if len(path) == 1 {
			return e.Bytes, len(e.Bytes) > 0
		}
		item, err := strconv.Atoi(path[1])
		if err != nil || item < 1 || item > len(e.Items) {
			return nil, false
		}
		d, path = e.Items[item-1], path[2:]
	}
}

// Frames tells how many frames the object has; the error wraps pipeline.ErrNotImage for one without pixels.
func (o *Object) Frames() (int, error) {
	f, err := o.open()
	if err != nil {
		return 0, err
	}
	return f.Len(), nil
}

func (o *Object) open() (*Frames, error) {
	if o.frames == nil {
		f, err := framesOf(o.walked, o.walked.header)
		if err != nil {
			return nil, err
		}
		o.frames = f
	}
	return o.frames, nil
}

// Frame returns one frame, counted from 0, as a transfer syntax has it: the codestream, or native words in little endian. actual names
// the syntax; stored frames of every uncompressed syntax are Explicit VR Little Endian. An empty syntax is the stored one. Errors
// are those of DecodeFrame and Write.
func (o *Object) Frame(ctx context.Context, frame int, syntaxUID string) (data []byte, actual string, err error) {
	f, err := o.open()
	if err != nil {
		return nil, "", err
	}
	stored := f.walked.syntax
	have := stored.UID
	if !stored.Encapsulated {
		have = ExplicitVRLittleEndian
	}
	switch {
	case frame < 0 || frame >= f.Len():
		return nil, "", fmt.Errorf("%w: frame %d of %d", pipeline.ErrNotFound, frame+1, f.Len())
	case syntaxUID == "" || syntaxUID == have:
		if stored.Encapsulated {
			data, err = f.codestream(frame)
		} else {
			data, err = f.words(frame)
		}
		return data, have, err
	}
	target, err := encoderOf(syntaxUID)
	if err != nil {
		return nil, "", err
	}
	p, err := f.Frame(ctx, frame)
	if err != nil {
		return nil, "", err
	}
	switch {
	case !target.Encapsulated && f.layout.allocated == 1:
		return packBits(p.Data), ExplicitVRLittleEndian, nil
	case !target.Encapsulated:
		return p.Data, ExplicitVRLittleEndian, nil
	}
	data, err = encodeFrame(ctx, f.layout, p, target)
	return data, target.UID, err
}

// encoderOf finds a syntax that frames can be brought to.
func encoderOf(uid string) (*syntax, error) {
	s, err := lookupSyntax(uid)
	if err != nil {
		return nil, err
	}
	if !s.Encodes || !s.Encapsulated && uid != ExplicitVRLittleEndian {
		return nil, fmt.Errorf("%w transfer syntax %s (%s): nothing is converted to it", pipeline.ErrUnsupported, s.UID, s.Name)
	}
	return s, nil
}

// encodeFrame compresses one frame.
func encodeFrame(ctx context.Context, l layout, p *Pixels, s *syntax) ([]byte, error) {
	if l.allocated == 1 || p.SamplesPerPixel > 1 && p.Photometric != "RGB" {
		return nil, fmt.Errorf("%w image: %d bits allocated, %s; that is not compressed here", pipeline.ErrUnsupported, l.allocated, p.Photometric)
	}
	b, err := s.encode(ctx, p.interleaved().wholeWords())
	if err != nil {
		return nil, fmt.Errorf("(%s) %w", s.Name, err)
	}
	if len(b)%2 == 1 {
		b = append(b, 0)
	}
	return b, nil
}

// codestream joins the fragments of a frame.
func (f *Frames) codestream(frame int) ([]byte, error) {
	spans, err := f.walked.pixels.frameFragments(frame, f.layout.frames, f.codestreams)
	if err != nil {
		return nil, err
	}
	return f.join(spans)
}

// words returns one frame of uncompressed pixels as it is stored, in little endian. Frames of 1-bit samples that do not begin at a
// byte are shifted, so that they do.
func (f *Frames) words(frame int) ([]byte, error) {
	bits := f.layout.storedBits()
	from, to := bits*int64(frame), bits*int64(frame+1)
	b, err := f.bytes(from/8, (to+7)/8)
	if err != nil || f.layout.allocated > 1 || from%8 == 0 {
		return b, err
	}
	return packBits(unpackBits(b, int(from%8), int(bits))), nil
}

// packBits makes one bit of each byte, the first in the least significant bit.
func packBits(b []byte) []byte {
	out := make([]byte, (len(b)+7)/8)
	for i, v := range b {
		out[i/8] |= v & 1 << (i % 8)
	}
	return out
}

// Transcodes tells whether objects in one transfer syntax can be brought to another, as far as the syntaxes alone say: of the
// uncompressed ones only Explicit VR Little Endian is a target.
func Transcodes(from, to string) bool {
	a, err := lookupSyntax(from)
	_, err2 := encoderOf(to)
	return errors.Join(err, err2) == nil && (from == to || a.Decodes)
}
