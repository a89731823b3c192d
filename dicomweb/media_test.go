package dicomweb

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chatxray/pipeline"
)

func TestMediaType(t *testing.T) {
	for in, want := range map[string]mediaType{
		``:            {"", map[string]string{}, 1, nil},
		`text/plain`:  {"text/plain", map[string]string{}, 1, nil},
		` A/B ; q=.5`: {"a/b", map[string]string{"q": ".5"}, 0.5, nil},
		`a/b;q=7`:     {"a/b", map[string]string{"q": "7"}, 1, nil},
		`multipart/related; type=application/dicom; boundary=--x/y`:    {"multipart/related", map[string]string{"type": "application/dicom", "boundary": "--x/y"}, 1, nil},
		`m/r; boundary="a;b\"c\\"; boundary=second`:                    {"m/r", map[string]string{"boundary": `a;b"c\`}, 1, nil},
		`m/r; type="application/dicom; transfer-syntax=*"; boundary=b`: {"m/r", map[string]string{"type": "application/dicom", "transfer-syntax": "*", "boundary": "b"}, 1, nil},
		`m/r; boundary="never closed`:                                  {"m/r", map[string]string{"boundary": "never closed"}, 1, nil},
		`m/r; nothing; =x; boundary = b `:                              {"m/r", map[string]string{"": "x", "boundary": "b"}, 1, nil},
	} {
		if diff := cmp.Diff(want, parseMediaType(in), cmp.AllowUnexported(mediaType{})); diff != "" {
			t.Error(in, diff)
		}
	}
}

// FuzzMediaType: nothing crashes, and what the strict parser of the standard library understands means the same here.
func FuzzMediaType(f *testing.F) {
	for _, s := range []string{`multipart/related; type="application/dicom"; boundary=b`, `a/b;c="d\"e;f"`, `a;b=";`, `"`, `\`, `a/b; type="x;y"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := parseMediaType(s)
		for _, m := range parseAccept([]string{s, s}) {
			m.matches("application/dicom")
		}
		name, params, err := mime.ParseMediaType(s)
		if err != nil || got.params["type"] != params["type"] { // we read more out of a misquoted type
			return
		}
		if b, ok := params["boundary"]; ok && (name != got.name || b != got.params["boundary"]) {
			t.Errorf("%q: %q %q, the standard library says %q %q", s, got.name, got.params["boundary"], name, b)
		}
	})
}

// FuzzMultipart: nothing crashes, every part comes from the body, and a body that was accepted has a closing delimiter.
func FuzzMultipart(f *testing.F) {
	f.Add([]byte("--b\r\n\r\nx\r\n--b--\r\n"), "b")
	f.Add([]byte("\r\n--b \r\nA: b\r\n\r\nx\r\n--bX\r\n--b-\r\n--b\r\n\r\n\r\n--b--"), "b")
	f.Add([]byte("--b\n\nx\n--b--\n"), "b")
	f.Add([]byte("--b--"), "b")
	f.Fuzz(func(t *testing.T, body []byte, boundary string) {
		if boundary == "" || len(boundary) > maxBoundary {
			return
		}
		mr, err := newMultipart(bytes.NewReader(body), boundary)
		for err == nil {
			p, perr := mr.next()
			if perr == io.EOF {
				if !bytes.Contains(body, []byte("--"+boundary+"--")) {
					t.Error("accepted without a closing delimiter")
				}
				return
			}
			if err = perr; err != nil {
				break
			}
			_ = checkPart(p)
			content, rerr := readIn(p, len(body)%2 == 0)
			if !bytes.Contains(body, content) {
				t.Error("a part is not in the body")
			}
			_ = checkLength(p, int64(len(content)))
			if rerr != nil {
				return
			}
		}
		if errors.Is(err, io.EOF) && !errors.Is(err, pipeline.ErrInvalid) {
			t.Error("the end of the body passes for the end of the parts:", err)
		}
	})
}

func FuzzJSON(f *testing.F) {
	f.Add("DS", "1.50\\+2\\ 3e5\\.5\\NaN\\0x1p4\\-\\007", []byte{1})
	f.Add("PN", "a^b=c=d=e", []byte(nil))
	f.Fuzz(func(t *testing.T, vr, text string, b []byte) {
		d := pipeline.Dataset{{Tag: 0x00100010, VR: vr, Text: strings.Split(text, `\`)}, {Tag: 0x00110010, VR: vr, Bytes: b},
			{Tag: 0x00120010, VR: vr, Items: []pipeline.Dataset{{{Tag: 1, VR: vr, Text: strings.Split(text, `\`)}}}}}
		out := appendJSON(nil, d, func(p string) string { return p })
		if !json.Valid(out) {
			t.Errorf("no JSON: %s", out)
		}
		var whole struct{}
		if err := xml.Unmarshal(model{}.appendXML(nil, d), &whole); err != nil {
			t.Errorf("no XML: %v: %s", err, model{}.appendXML(nil, d))
		}
	})
}

// FuzzMultipartLikeOthers: what mime/multipart takes for parts we do too, with the same content, but for bodies that we refuse as a whole.
func FuzzMultipartLikeOthers(f *testing.F) {
	f.Add([]byte("--b\r\n\r\nx\r\n--b--\r\n"), "b", 1)
	f.Add([]byte("--b\r\nA: b\r\nc:d\r\n\r\nx\r\n--bX\r\n--b-\r\n--b\r\n\r\n--b\t\r\n\r\n\r\r\n--b--"), "b", 3)
	f.Add([]byte("p\r\n--b\r\n\r\n\r\n-\r\n--b --\r\n--b\r\n\r\n\r\n--b--"), "b", 2)
	long := append([]byte("--bnd\r\n\r\n"), bytes.Repeat([]byte("\r\n--bn\r\n--bndX\r"), 9000)...)
	f.Add(append(long, "\r\n--bnd\r\n\r\nab\r\n--bnd--"...), "bnd", 70_000)
	f.Add(append(long, "\r\n--bnd\r\n\r\nab\r\n--bnd--"...), "bnd", 100)
	f.Add([]byte("--b\r\nA:\rd\r\n\r\nx\r\n--b\r\nA\x01: d\r\n\r\nx\r\n--b--"), "b", 88)
	f.Add([]byte("--b\r\n\r\n\r\n--b--\x8d"), "b", 1)
	f.Add([]byte("--b\r\r\n\r\n-\r\n--b --\r\n"), "b", 75)
	f.Fuzz(func(t *testing.T, body []byte, boundary string, step int) {
		if len(boundary) == 0 || len(boundary) > 70 || strings.ContainsAny(boundary, "\r\n \t") {
			return
		}
		ours, err := newMultipart(&stepwise{body, 1 + max(step, -step)%(100<<10)}, boundary)
		theirs := multipart.NewReader(bytes.NewReader(body), boundary)
		for n := 0; err == nil; n++ {
			var p *part
			if p, err = ours.next(); err != nil {
				break
			}
			content, rerr := readIn(p, step%2 == 0)
			if rerr != nil {
				return
			}
			q, qerr := theirs.NextRawPart()
			if qerr != nil {
				t.Fatalf("part %d is none to mime/multipart: %v", n, qerr)
			}
			if want, _ := io.ReadAll(q); !bytes.Equal(content, want) {
				t.Fatalf("part %d: %q, mime/multipart says %q", n, content, want)
			}
			if p.Header.Get("Content-Type") != q.Header.Get("Content-Type") {
				t.Fatalf("part %d: %v, mime/multipart says %v", n, p.Header, q.Header)
			}
		}
		if err == io.EOF {
			if q, qerr := theirs.NextRawPart(); q != nil { // an error is about what stands behind the closing delimiter, which means nothing to us
				t.Errorf("mime/multipart goes on with %v, %v", q, qerr)
			}
		}
	})
}

// readIn reads a part as who stores it does: in large pieces, or in small ones.
func readIn(p *part, large bool) (content []byte, err error) {
	if !large {
		return io.ReadAll(p)
	}
	piece := make([]byte, 3*directRead/2)
	for {
		n, err := p.Read(piece)
		content = append(content, piece[:n]...)
		if err == io.EOF {
			return content, nil
		}
		if err != nil {
			return content, err
		}
	}
}

// stepwise gives at most n bytes at a time.
type stepwise struct {
	b []byte
	n int
}

func (s *stepwise) Read(p []byte) (int, error) {
	if len(s.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), s.n)], s.b)
	s.b = s.b[n:]
	return n, nil
}
