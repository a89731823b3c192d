package dicomweb

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"strconv"
	"strings"

	"chatxray/pipeline"
)

// maxPreamble bounds what may stand before the first delimiter.
const maxPreamble = 64 << 10

// newMultipart reads a multipart body (RFC 2046 section 5.1). It looks for the first delimiter itself, because multipart.Reader
// takes bodies whose lines end in LF alone and cuts their parts at bytes that belong to the payload.
func newMultipart(body io.Reader, boundary string) (*multipart.Reader, error) {
	br := bufio.NewReaderSize(body, 64<<10) // of the network at once; bench/dicomweb shows what smaller ones cost
	delimiter := []byte("--" + boundary)
	for seen, atStart := 0, true; seen <= maxPreamble; {
		line, err := br.ReadSlice('\n')
		seen += len(line)
		if atStart && bytes.HasPrefix(line, delimiter) {
			if tail := bytes.TrimRight(line[len(delimiter):], " \t\r\n"); len(tail) == 0 || string(tail) == "--" {
				if err == nil && !bytes.HasSuffix(line, []byte("\r\n")) {
					return nil, fmt.Errorf("%w: the lines of the multipart body end in LF, not in CRLF", pipeline.ErrInvalid)
				}
				return multipart.NewReader(io.MultiReader(bytes.NewReader(bytes.Clone(line)), br), boundary), nil
			}
		}
		atStart = err == nil
		switch {
		case errors.Is(err, io.EOF) && seen == 0:
			return nil, fmt.Errorf("%w: the body is empty", pipeline.ErrInvalid)
		case errors.Is(err, io.EOF):
			return nil, fmt.Errorf("%w: the boundary that the Content-Type names is nowhere in the body", pipeline.ErrInvalid)
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
	return nil, fmt.Errorf("%w: the boundary that the Content-Type names is not in the first %d bytes of the body", pipeline.ErrInvalid, maxPreamble)
}

// nextPart returns the next part, or io.EOF behind the closing delimiter. A body that ends without it is invalid.
func nextPart(mr *multipart.Reader) (*multipart.Part, error) {
	p, err := mr.NextRawPart()
	switch {
	case err == nil, err == io.EOF: // not errors.Is: the reader wraps io.EOF when the closing delimiter is missing
		return p, err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errUnclosed
	}
	return nil, err
}

var errUnclosed = fmt.Errorf("%w: the body ends without the closing delimiter, so it may be cut off; nothing of it was kept", pipeline.ErrInvalid)

// checkPart refuses a part that is not a DICOM file as it is.
func checkPart(p *multipart.Part) error {
	if t := parseMediaType(p.Header.Get("Content-Type")).name; t != "" && t != "application/dicom" && t != "application/octet-stream" {
		return fmt.Errorf("%w: a part is %q, and only application/dicom is stored", pipeline.ErrUnsupported, printable(t))
	}
	switch e := strings.ToLower(p.Header.Get("Content-Transfer-Encoding")); e {
	case "", "binary", "8bit", "7bit":
		return nil
	default:
		return fmt.Errorf("%w: a part has the transfer encoding %q; send it as binary", pipeline.ErrUnsupported, printable(e))
	}
}

// checkLength compares the Content-Length that a part may have with what came.
func checkLength(p *multipart.Part, n int64) error {
	said := p.Header.Get("Content-Length")
	if said == "" {
		return nil
	}
	if want, err := strconv.ParseInt(strings.TrimSpace(said), 10, 64); err != nil || want != n {
		return fmt.Errorf("%w: a part's Content-Length is not its length, which is %d bytes", pipeline.ErrInvalid, n)
	}
	return nil
}

// printable shortens what a client sent for an error message.
func printable(s string) string {
	if len(s) > 40 {
		s = s[:40]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}
