package dicomweb

import (
	"bytes"
	"fmt"
	"io"
	"net/textproto"
	"strconv"
	"strings"

	"chatxray/pipeline"
)

// part is one part. Its content can be read until the next part is asked for.
type part struct {
	Header textproto.MIMEHeader
	of     *parts
	begun  bool  // a byte of the content has been read
	skip   int   // the length of the delimiter that ended it
	end    error // io.EOF at the delimiter; else what ended the body
}

// Read reads the content of the part. Into a large b it reads from the body, not by way of the window.
func (p *part) Read(b []byte) (int, error) {
	m := p.of
	for p.end == nil && len(b) > 0 {
		have := m.r.Buffered()
		buf, _ := m.r.Peek(have)
		n := p.sure(buf)
		switch {
		case n > 0:
			p.begun = true
			return m.r.Read(b[:min(n, len(b))]) // from the window
		case p.end != nil:
		case p.begun && len(b) >= directRead && len(m.from.rest) <= m.dubious():
			n, err := p.direct(b[:directRead])
			if n > 0 {
				return n, nil
			}
			p.fail(err)
		default:
			_, err := m.r.Peek(have + 1)
			p.fail(err)
		}
	}
	return 0, p.end
}

// fail ends a part that no delimiter has ended.
func (p *part) fail(err error) {
	if err != nil && p.end == nil {
		p.end = cutOff(err)
	}
}

// direct reads from the body into b, behind the few bytes that are there already and may begin a delimiter. It returns how much of b is
// content, and puts the rest back.
func (p *part) direct(b []byte) (int, error) {
	m := p.of
	have, _ := m.r.Read(b[:m.r.Buffered()])
	have += m.from.takeBack(b[have:])
	got, err := m.from.Read(b[have:])
	got += have
	n := p.sure(b[:got])
	m.from.putBack(b[n:got])
	return n, err
}

// directRead is how much is read at once into the memory of who reads a part. What follows a delimiter in it is put back.
const directRead = 256 << 10

// dubious is how many bytes may be the beginning of a delimiter, and not be known for one.
func (m *parts) dubious() int { return len(m.delimiter) + 1 }

// ahead is a body of which some has been read and put back.
type ahead struct {
	r    io.Reader
	rest []byte
	few  [128]byte // where rest is, as a rule
	err  error     // of r, behind rest
}

func (a *ahead) Read(b []byte) (n int, err error) {
	if len(a.rest) > 0 {
		return a.takeBack(b), nil
	}
	if a.err == nil {
		n, a.err = a.r.Read(b)
	}
	return n, a.err
}

func (a *ahead) takeBack(b []byte) int {
	n := copy(b, a.rest)
	if a.rest = a.rest[n:]; len(a.rest) == 0 {
		a.rest = nil // and its memory is free
	}
	return n
}

// putBack has b, which is copied, read again; there must be nothing to be read again.
func (a *ahead) putBack(b []byte) { a.rest = append(a.few[:0], b...) }

// sure returns how many bytes at the front of buf are content, whatever comes. At a delimiter it sets the end.
func (p *part) sure(buf []byte) int {
	m := p.of
	if bare := m.delimiter[2:]; !p.begun && bytes.HasPrefix(buf, bare) && delimits(buf[len(bare):]) == yes {
		p.skip, p.end = len(bare), io.EOF // the part has no content, and the empty line before it is the delimiter's
		return 0
	}
	n := max(0, len(buf)-m.dubious()) // what comes behind may be the beginning of a delimiter
	for from := 0; ; {                // CR and LF are common among pixels of less than 16 bits, hyphens are not
		i := bytes.Index(buf[from:], m.delimiter[2:])
		if i < 0 {
			break
		}
		i += from - 2
		if from = i + 3; i < 0 || !bytes.HasPrefix(buf[i:], m.delimiter[:2]) {
			continue
		}
		verdict := delimits(buf[i+len(m.delimiter):])
		if verdict == no {
			continue
		}
		if n = i; n == 0 && verdict == yes {
			p.skip, p.end = len(m.delimiter), io.EOF
			return 0
		}
		break
	}
	return n
}

type verdict int

const (
	no verdict = iota
	yes
	unknown // more has to be seen
)

// delimits tells from what follows a boundary whether it is the end of a part, and not the beginning of another word.
func delimits(after []byte) verdict {
	switch {
	case len(after) == 0, len(after) == 1 && after[0] == '-':
		return unknown
	case after[0] == ' ', after[0] == '\t', after[0] == '\r', after[0] == '\n', string(after[:min(2, len(after))]) == "--":
		return yes
	}
	return no
}

// checkPart refuses a part that is not a DICOM file as it is.
func checkPart(p *part) error {
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
func checkLength(p *part, n int64) error {
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
