package remote

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"unicode/utf8"
)

// events hands out the data of each event of a stream (Server-Sent Events, WHATWG HTML section 9.2). Comments, names and ids are skipped. It ends
// with io.EOF at the end of the stream.
type events struct {
	lines *bufio.Scanner
}

func newEvents(r io.Reader) *events {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 4096), maxLine)
	return &events{s}
}

// next returns the data of the next event, good until the next call. Its errors are a *failure, io.EOF, or those of the reader.
func (e *events) next() ([]byte, error) {
	var data []byte
	some := false
	for e.lines.Scan() {
		line := e.lines.Bytes()
		if len(line) == 0 {
			if some {
				return data, nil
			}
			continue
		}
		value, ok := bytes.CutPrefix(line, []byte("data:"))
		if !ok {
			continue
		}
		if !utf8.Valid(value) {
			return nil, wrote("it wrote bytes that are no UTF-8")
		}
		value = bytes.TrimPrefix(value, []byte(" "))
		if string(value) == "[DONE]" { // some send no empty line after it
			return value, nil
		}
		if some {
			data = append(data, '\n')
		}
		if len(data)+len(value) > maxLine {
			return nil, odd("an event of its stream is longer than %d bytes", maxLine)
		}
		data, some = append(data, value...), true
	}
	switch err := e.lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return nil, odd("a line of its stream is longer than %d bytes", maxLine)
	case err != nil:
		return nil, err
	}
	return nil, io.EOF
}
