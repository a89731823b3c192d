package dicomweb

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"mime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chatxray/pipeline"
)

func TestMediaType(t *testing.T) {
	for in, want := range map[string]mediaType{
		``:            {"", map[string]string{}, 1},
		`text/plain`:  {"text/plain", map[string]string{}, 1},
		` A/B ; q=.5`: {"a/b", map[string]string{"q": ".5"}, 0.5},
		`a/b;q=7`:     {"a/b", map[string]string{"q": "7"}, 1},
		`multipart/related; type=application/dicom; boundary=--x/y`:    {"multipart/related", map[string]string{"type": "application/dicom", "boundary": "--x/y"}, 1},
		`m/r; boundary="a;b\"c\\"; boundary=second`:                    {"m/r", map[string]string{"boundary": `a;b"c\`}, 1},
		`m/r; type="application/dicom; transfer-syntax=*"; boundary=b`: {"m/r", map[string]string{"type": "application/dicom", "transfer-syntax": "*", "boundary": "b"}, 1},
		`m/r; boundary="never closed`:                                  {"m/r", map[string]string{"boundary": "never closed"}, 1},
		`m/r; nothing; =x; boundary = b `:                              {"m/r", map[string]string{"": "x", "boundary": "b"}, 1},
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
			p, perr := nextPart(mr)
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
			content, rerr := io.ReadAll(p)
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
		if err := xml.Unmarshal(appendXML(nil, d), &whole); err != nil {
			t.Errorf("no XML: %v: %s", err, appendXML(nil, d))
		}
	})
}
