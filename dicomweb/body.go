package dicomweb

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"chatxray/pipeline"
)

// counted counts what passes and keeps the error that ended it.
type counted struct {
	r   io.Reader
	n   int64
	err error // other than io.EOF
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if err != nil && err != io.EOF {
		c.err = err
	}
	return n, err
}

// requestBody is a request's body within its limit and its patience. It remembers why it ended early, because readers above it
// (multipart, the archive) wrap or swallow the cause.
type requestBody struct {
	r        io.Reader
	left     int64  // bytes until it is too large
	large    func() // before the first read of much at once
	before   func()
	passed   func(n int)
	ended    func()
	classify func(error) error
	err      error
}

func (b *requestBody) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if len(p) > partWindow && b.large != nil {
		b.large()
		b.large = nil
	}
	b.before()
	n, err := b.r.Read(p)
	b.left -= int64(n)
	b.passed(n)
	switch {
	case b.left < 0:
		b.err = errBodyTooLarge
	case err == io.EOF:
		b.ended()
		return n, io.EOF
	case err != nil:
		b.err = b.classify(err)
	}
	return n, b.err
}

var errBodyTooLarge = fmt.Errorf("%w: the request has more bytes than this service takes; send fewer instances at once", errTooLarge)

// bytesIn is the key under which the access log finds how many bytes of a body were read, as an *int64.
const bytesIn = "bytes_in"

// received is how many bytes of a request's body were read.
func received(c *gin.Context) int64 {
	if in, ok := c.Value(bytesIn).(*int64); ok {
		return *in
	}
	return 0
}

// body prepares a request's body: deadline before each read, limit, gzip. It must not replace c.Request.Body: the server looks at its type
// to refuse an expectation without reading the body.
func (s *server) body(c *gin.Context) (*requestBody, error) {
	control := http.NewResponseController(c.Writer)
	in := new(int64)
	c.Set(bytesIn, in)
	wire := &requestBody{r: c.Request.Body, left: s.MaxBody, classify: broken,
		large:  func() { widen(c.Request.Context()) },
		before: func() { _ = control.SetReadDeadline(time.Now().Add(s.Idle)) },
		passed: func(n int) { *in += int64(n) },
		ended:  func() { _ = control.SetReadDeadline(time.Time{}) }}
	switch e := strings.ToLower(strings.TrimSpace(c.GetHeader("Content-Encoding"))); e {
	case "", "identity":
		return wire, nil
	case "gzip", "x-gzip":
		return unpack(wire, s.MaxBody)
	default:
		return nil, fmt.Errorf("%w: the Content-Encoding %q; this service knows gzip", errMediaType, printable(e))
	}
}

// maxUnwanted is how many bytes of a body are read that means nothing.
const maxUnwanted = 256 << 10

// unwanted bounds the wait for a body that no handler reads: net/http reads what is left of it before an answer goes out, however long that
// takes. What comes with another method than POST means nothing (RFC 9110 section 9.3) and is read here, so that no deadline is left for
// the answer.
func (s *server) unwanted(c *gin.Context) {
	if c.Request.ContentLength == 0 || c.Request.ProtoMajor != 1 {
		return
	}
	control := http.NewResponseController(c.Writer)
	_ = control.SetReadDeadline(time.Now().Add(s.Idle))
	if c.Request.Method == http.MethodPost {
		return
	}
	n, err := io.CopyN(io.Discard, c.Request.Body, maxUnwanted+1)
	switch {
	case errors.Is(err, io.EOF):
		_ = control.SetReadDeadline(time.Time{})
		return
	case err == nil:
		err = fmt.Errorf("%w: a body that this method does not have, of more than %d bytes", errTooLarge, n-1)
	default:
		err = broken(err)
	}
	c.Header("Connection", "close")
	s.refuse(c, err)
}

// broken tells why the bytes of the wire ended.
func broken(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("the upload stood still for too long; nothing of it was kept: %w", os.ErrDeadlineExceeded)
	}
	return fmt.Errorf("%w; nothing of it was kept", errBroken)
}

// unpack reads a gzip body whose content has at most limit bytes.
func unpack(wire *requestBody, limit int64) (*requestBody, error) {
	damaged := func(error) error {
		if wire.err != nil {
			return wire.err
		}
		return fmt.Errorf("%w: the body is not gzip, as the Content-Encoding says, or is damaged", pipeline.ErrInvalid)
	}
	z, err := gzip.NewReader(wire)
	if err != nil {
		return nil, damaged(err)
	}
	nothing := func() {}
	return &requestBody{r: z, left: limit, before: nothing, passed: func(int) {}, ended: nothing, classify: damaged}, nil
}
