package dicomweb

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"chatxray/pipeline"
)

// piece is a part of an answer: bytes, or a file that is opened when its turn comes.
type piece struct {
	bytes []byte
	value io.ReadSeeker
	from  int64 // where value is to be read from
	path  string
	size  int64
}

func bytesPiece(b []byte) piece { return piece{bytes: b, size: int64(len(b))} }

// pieces are an answer whose length is known: an io.ReadSeeker that never holds more than one of its files open.
type pieces struct {
	all    []piece
	at     int64
	file   *os.File // of all[opened]
	opened int
}

func (p *pieces) size() (n int64) {
	for _, one := range p.all {
		n += one.size
	}
	return n
}

// Seek implements io.Seeker.
func (p *pieces) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += p.at
	case io.SeekEnd:
		offset += p.size()
	}
	if offset < 0 {
		return 0, errors.New("seek before the beginning")
	}
	p.at = offset
	return offset, nil
}

// here returns a reader at the position, and how much of its piece is left.
func (p *pieces) here() (io.Reader, int64, error) {
	skip := p.at
	for i, one := range p.all {
		switch {
		case skip >= one.size:
			skip -= one.size
			continue
		case one.path == "" && one.value == nil:
			return bytes.NewReader(one.bytes[skip:]), one.size - skip, nil
		}
		left := one.size - skip
		from, skip := one.value, skip+one.from
		if section, ok := from.(*io.SectionReader); ok { // of a file, which the system can send by itself
			if r, off, _ := section.Outer(); r != nil {
				if f, ok := r.(*os.File); ok {
					from, skip = f, off+skip
				}
			}
		}
		if one.path != "" {
			if p.file == nil || p.opened != i {
				p.Close()
				f, err := os.Open(one.path)
				if err != nil {
					return nil, 0, err
				}
				p.file, p.opened = f, i
			}
			from = p.file
		}
		_, err := from.Seek(skip, io.SeekStart)
		return from, left, err
	}
	return nil, 0, io.EOF
}

// Read implements io.Reader.
func (p *pieces) Read(b []byte) (int, error) {
	r, left, err := p.here()
	if err != nil {
		return 0, err
	}
	n, err := r.Read(b[:min(int64(len(b)), left)])
	p.at += int64(n)
	if err == io.EOF { // a file that has become shorter
		err = io.ErrUnexpectedEOF
	}
	if n > 0 {
		err = nil
	}
	return n, err
}

// Close closes the file that is open.
func (p *pieces) Close() {
	if p.file != nil {
		p.file.Close()
		p.file = nil
	}
}

// bytesOut is the key under which the access log finds how many bytes of an answer went past gin.
const bytesOut = "bytes_out"

// steady is the writer of an answer: it lets the system send files without copying them.
type steady struct {
	c   *gin.Context
	err error // the first one: net/http keeps it to itself
}

// Header implements http.ResponseWriter.
func (w *steady) Header() http.Header { return w.c.Writer.Header() }

// WriteHeader implements http.ResponseWriter.
func (w *steady) WriteHeader(status int) { w.c.Status(status) }

// Write implements http.ResponseWriter.
func (w *steady) Write(b []byte) (int, error) {
	n, err := w.c.Writer.Write(b)
	w.note(err)
	return n, err
}

func (w *steady) note(err error) {
	if w.err == nil {
		w.err = err
	}
}

// ReadFrom implements io.ReaderFrom.
func (w *steady) ReadFrom(r io.Reader) (sent int64, err error) {
	defer func() { w.note(err) }()
	limit, _ := r.(*io.LimitedReader)
	unwrap, _ := w.c.Writer.(interface{ Unwrap() http.ResponseWriter })
	var p *pieces
	var raw io.ReaderFrom
	if limit != nil && unwrap != nil {
		p, _ = limit.R.(*pieces)
		raw, _ = unwrap.Unwrap().(io.ReaderFrom)
	}
	if p == nil || raw == nil {
		return io.Copy(struct{ io.Writer }{w}, r)
	}
	w.c.Writer.WriteHeaderNow()
	for limit.N > 0 {
		from, left, err := p.here()
		if err != nil {
			return sent, err
		}
		step := min(left, limit.N)
		var n int64
		if _, isFile := from.(*os.File); isFile {
			n, err = raw.ReadFrom(&io.LimitedReader{R: from, N: step})
			w.c.Set(bytesOut, w.c.GetInt64(bytesOut)+n)
		} else {
			n, err = io.CopyN(struct{ io.Writer }{w.c.Writer}, from, step)
		}
		p.at, limit.N, sent = p.at+n, limit.N-n, sent+n
		switch {
		case err != nil:
			return sent, err
		case n < step:
			return sent, io.ErrUnexpectedEOF
		}
	}
	return sent, nil
}

// entityTag names a representation: what it is made of, how, and by which version. What has the same tag has the same bytes.
func (s *server) entityTag(found []*pipeline.Instance, how ...string) string {
	h := sha256.New()
	for _, x := range append(how, s.Version) {
		fmt.Fprintf(h, "%d:%s", len(x), x)
	}
	for _, in := range found {
		fmt.Fprintf(h, "\n%s/%s/%s %s", in.StudyInstanceUID, in.SeriesInstanceUID, in.SOPInstanceUID, in.Digest)
	}
	return `"` + base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:18]) + `"`
}

// boundaryOf makes a multipart boundary of an entity tag, so that the same representation has the same bytes.
func boundaryOf(tag string) string { return "chatxray-" + strings.Trim(tag, `"`) }

// modified is when the newest of the files came. A set of them has changed, too, when one is taken away, which its folders tell.
func modified(found []*pipeline.Instance, set bool) (newest time.Time, sizes []int64, err error) {
	folders := map[string]bool{}
	for _, in := range found {
		if set {
			series := filepath.Dir(in.Path)
			folders[series], folders[filepath.Dir(series)] = true, true
		}
		st, err := os.Stat(in.Path)
		if errors.Is(err, os.ErrNotExist) {
			return time.Time{}, nil, errGone(in)
		}
		if err != nil {
			return time.Time{}, nil, fmt.Errorf("instance %s cannot be read: %w", in.SOPInstanceUID, err)
		}
		if st.ModTime().After(newest) {
			newest = st.ModTime()
		}
		sizes = append(sizes, st.Size())
	}
	for dir := range folders {
		if st, err := os.Stat(dir); err == nil && st.ModTime().After(newest) {
			newest = st.ModTime()
		}
	}
	return newest, sizes, nil
}

// fresh sets the headers that name a representation, and answers 304 where the client has it already (RFC 9110 section 13).
func (s *server) fresh(c *gin.Context, tag string, at time.Time) (done bool) {
	h := c.Writer.Header()
	h.Set("ETag", tag)
	h.Set("Cache-Control", "private, no-cache")
	if !at.IsZero() {
		h.Set("Last-Modified", at.UTC().Format(http.TimeFormat))
	}
	switch match := c.Request.Header.Values("If-None-Match"); {
	case len(match) > 0:
		done = slices.ContainsFunc(split(strings.Join(match, ","), ','), func(t string) bool {
			t = strings.TrimSpace(t)
			return t == "*" || strings.TrimPrefix(t, "W/") == tag
		})
	case !at.IsZero():
		since, err := http.ParseTime(c.GetHeader("If-Modified-Since"))
		done = err == nil && !at.Truncate(time.Second).After(since)
	}
	if done {
		c.Status(http.StatusNotModified)
		c.Writer.WriteHeaderNow()
	}
	return done
}

// content answers with bytes whose length is known: Range, If-Range, If-Match, HEAD and all. fresh has been called. There is never an
// error to refuse: what breaks off is noted, and cut by net/http, which has told the length.
func (s *server) content(c *gin.Context, media string, at time.Time, p *pieces) error {
	defer p.Close()
	c.Header("Content-Type", media)
	w := &steady{c: c}
	http.ServeContent(w, c.Request, "", at, p)
	if w.err != nil { // net/http cuts the connection: fewer bytes than Content-Length says
		_ = c.Error(fmt.Errorf("the answer broke off: %w", w.err))
	}
	return nil
}

// stream answers with bytes that are made as they go: no Range. write is not called for HEAD.
func (s *server) stream(c *gin.Context, media string, write func(io.Writer) error) error {
	c.Header("Content-Type", media)
	c.Header("Accept-Ranges", "none")
	c.Status(http.StatusOK)
	if c.Request.Method == http.MethodHead {
		c.Writer.WriteHeaderNow()
		return nil
	}
	return write(&steady{c: c})
}

// convert streams what is converted as it goes, in the client's turn of the gate.
func (s *server) convert(c *gin.Context, media string, write func(io.Writer) error) error {
	return s.stream(c, media, func(w io.Writer) error {
		y, err := s.gate.yield(c.Request.Context())
		if err != nil {
			return err
		}
		defer y.close()
		y.w = w
		return write(y)
	})
}

// partsTo writes a multipart body.
func partsTo(w io.Writer, boundary string) *multipart.Writer {
	mw := multipart.NewWriter(w)
	_ = mw.SetBoundary(boundary) // one that boundaryOf has made
	return mw
}
