package dicomweb

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/textproto"
	"strings"

	"chatxray/pipeline"
)

// maxPreamble bounds what may stand before the first delimiter.
const maxPreamble = 64 << 10

// partWindow is how much of a body is looked at together. A slow client holds as much.
const partWindow = 32 << 10

// parts reads a multipart body (RFC 2046 section 5.1) part by part. mime/multipart would do, but it looks for delimiters in pieces of 4 KB
// and from the back, byte by byte, which costs as much as writing the part to disk (bench/dicomweb). Its rules are kept; a test
// compares the two.
type parts struct {
	r         *bufio.Reader // over from
	from      *ahead
	delimiter []byte // CRLF, two hyphens, boundary
	last      *part  // nil before the first part
	closed    bool   // the closing delimiter has been read
}

// newMultipart finds the first delimiter. It refuses bodies whose lines end in LF alone: their parts would be cut at bytes that belong to
// the payload.
func newMultipart(body io.Reader, boundary string) (*parts, error) {
	from := &ahead{r: body}
	m := &parts{r: bufio.NewReaderSize(from, partWindow), from: from, delimiter: []byte("\r\n--" + boundary)}
	for seen, atStart := 0, true; seen <= maxPreamble; {
		line, err := m.r.ReadSlice('\n')
		seen += len(line)
		if atStart && bytes.HasPrefix(line, m.delimiter[2:]) {
			tail := bytes.TrimSuffix(bytes.TrimSuffix(line[len(m.delimiter)-2:], []byte("\r\n")), []byte("\n"))
			switch tail := string(bytes.TrimRight(tail, " \t")); {
			case tail != "" && tail != "--": // another boundary that begins as ours does
			case err == nil && !bytes.HasSuffix(line, []byte("\r\n")):
				return nil, errLF
			case err != nil && tail == "":
				return nil, cutOff(err)
			default:
				m.closed = tail == "--"
				return m, nil
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

var (
	errLF       = fmt.Errorf("%w: the lines of the multipart body end in LF, not in CRLF", pipeline.ErrInvalid)
	errPartHead = fmt.Errorf("%w: the header of a part is none, or too long", pipeline.ErrInvalid)
)

// cutOff is the error of a body that ends too early.
func cutOff(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errUnclosed
	}
	return err
}

// next returns the next part, or io.EOF behind the closing delimiter; what comes after that means nothing. A body that ends without it
// is invalid.
func (m *parts) next() (*part, error) {
	if m.last != nil && !m.closed {
		if _, err := io.Copy(io.Discard, m.last); err != nil {
			return nil, err
		}
		if err := m.delimit(m.last.skip); err != nil {
			return nil, err
		}
	}
	if m.closed {
		return nil, io.EOF
	}
	h, err := m.header()
	if err != nil {
		return nil, err
	}
	m.last = &part{Header: h, of: m}
	return m.last, nil
}

// delimit reads a delimiter of so many bytes, and what follows it on its line.
func (m *parts) delimit(n int) error {
	if _, err := m.r.Discard(n); err != nil {
		return cutOff(err)
	}
	if two, err := m.r.Peek(2); err == nil && string(two) == "--" {
		m.closed = true
		return nil
	}
	line, err := m.line()
	if err == nil && len(bytes.TrimRight(line, " \t")) > 0 {
		return fmt.Errorf("%w: something stands behind a delimiter of the multipart body", pipeline.ErrInvalid)
	}
	return err
}

// The limits of a part's header.
const (
	maxPartLines = 64
	maxPartLine  = 8 << 10
)

// header reads the header of a part, which may be empty.
func (m *parts) header() (textproto.MIMEHeader, error) {
	h := textproto.MIMEHeader{}
	for range maxPartLines {
		line, err := m.line()
		if err != nil || len(line) == 0 {
			return h, err
		}
		key, value, ok := strings.Cut(string(line), ":")
		if !ok || key == "" || strings.ContainsFunc(key, notOfToken) || strings.ContainsFunc(value, control) {
			return nil, errPartHead
		}
		h.Add(key, strings.TrimSpace(value))
	}
	return nil, errPartHead
}

// notOfToken tells a character that no name of a header field has (RFC 9110 section 5.6.2).
func notOfToken(r rune) bool {
	return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}

// control tells a character that no value of a header field has (section 5.5).
func control(r rune) bool { return r < ' ' && r != '\t' || r == 0x7F }

// line reads a line that ends in CRLF, and returns it without.
func (m *parts) line() ([]byte, error) {
	line, err := m.r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull), len(line) > maxPartLine:
		return nil, errPartHead
	case err != nil:
		return nil, cutOff(err)
	case !bytes.HasSuffix(line, []byte("\r\n")):
		return nil, errLF
	}
	return line[:len(line)-2], nil
}

var errUnclosed = fmt.Errorf("%w: the body ends without the closing delimiter, so it may be cut off; nothing of it was kept", pipeline.ErrInvalid)
