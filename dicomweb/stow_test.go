package dicomweb_test

import (
	"bytes"
	"compress/gzip"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chatxray/pipeline"
)

func gzipped(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.Bytes()
}

// TestShapes sends what clients send in the field, by the names that the traps have in the table of field reports.
func TestShapes(t *testing.T) {
	one := file(t, object(t, "1.2.1", "1.2.1.1", "1.2.1.1.1"))
	two := file(t, object(t, "1.2.1", "1.2.1.1", "1.2.1.1.2"))
	lookAlike := file(t, object(t, "1.2.1", "1.2.1.1", "1.2.1.1.3", pipeline.TagPatientComments, "a\r\n--bndX\r\nb\r\n--bn\r\n--bnd-\r\nc\n--bnd\nd"))
	long := strings.Repeat("0123456789", 7) + "abc"
	plain := multipartOf("bnd", one, two)
	const crlf = "\r\n"
	for _, c := range []struct {
		name        string
		contentType string
		body        []byte
		headers     []string
		status      int
		kept        int
	}{
		{name: "curl: unquoted type (1)", contentType: "multipart/related; type=application/dicom; boundary=bnd", body: plain, status: 200, kept: 2},
		{name: "type after boundary, odd case and spaces (1)", contentType: "Multipart/Related ;BOUNDARY=bnd ; Type = Application/DICOM", body: plain, status: 200, kept: 2},
		{name: "no type (1)", contentType: "multipart/related; boundary=bnd", body: plain, status: 200, kept: 2},
		{name: "quoted boundary (2)", contentType: `multipart/related; type="application/dicom"; boundary="bnd"`, body: plain, status: 200, kept: 2},
		{name: "transfer-syntax parameter (2)", contentType: `multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.1; boundary=bnd`, body: plain, status: 200, kept: 2},
		{name: "misquoted type (2)", contentType: `multipart/related; type="application/dicom; transfer-syntax=*"; boundary=bnd`, body: plain, status: 200, kept: 2},
		{name: "boundary of 73 characters (3)", contentType: related(long), body: multipartOf(long, one, two), status: 200, kept: 2},
		{name: "look-alike boundary in the payload (3)", contentType: related("bnd"), body: multipartOf("bnd", lookAlike, two), status: 200, kept: 2},
		{name: "dcmjs: CRLF first, none at the end (4)", contentType: related("bnd"), body: bytes.TrimSuffix(append([]byte(crlf), plain...), []byte(crlf)), status: 200, kept: 2},
		{name: "preamble and epilogue (4)", contentType: related("bnd"), body: append(append([]byte("This is a message.\r\n"), plain...), "bye"...), status: 200, kept: 2},
		{name: "Orthanc: lengths in the parts, no CRLF at the end (4)", contentType: related("bnd"), status: 200, kept: 1,
			body: fmt.Appendf(nil, "--bnd\r\nContent-Type: application/dicom\r\nContent-Length: %d\r\nMIME-Version: 1.0\r\n\r\n%s\r\n--bnd--", len(one), one)},
		{name: "part without headers (4)", contentType: related("bnd"), status: 200, kept: 1, body: []byte("--bnd\r\n\r\n" + string(one) + "\r\n--bnd--\r\n")},
		{name: "part headers of other kinds (4)", contentType: related("bnd"), status: 200, kept: 1,
			body: []byte("--bnd  \r\nContent-Location: x\r\ncontent-type:application/dicom;transfer-syntax=1.2.840.10008.1.2.1\r\nContent-Transfer-Encoding: binary\r\n\r\n" + string(one) + "\r\n--bnd--\r\n")},
		{name: "single instance without multipart", contentType: "application/dicom", body: one, status: 200, kept: 1},
		{name: "gzip body (6)", contentType: related("bnd"), body: gzipped(plain), headers: []string{"Content-Encoding", "gzip"}, status: 200, kept: 2},
		{name: "a GIF in a part (7)", contentType: related("bnd"), body: multipartOf("bnd", one, []byte("GIF89a")), status: 202, kept: 1},
		{name: "a part of another type (7)", contentType: related("bnd"), body: bytes.Replace(plain, []byte("application/dicom"), []byte("application/pdf"), 1), status: 202, kept: 1},
		{name: "a part in base64 (7)", contentType: related("bnd"), status: 202, kept: 1,
			body: append([]byte("--bnd\r\nContent-Type: application/dicom\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAA\r\n"), multipartOf("bnd", one)...)},
		{name: "a part of 0 bytes (7)", contentType: related("bnd"), body: multipartOf("bnd", nil, two), status: 202, kept: 1},
		{name: "a part that lies about its length (7)", contentType: related("bnd"), status: 202, kept: 1,
			body: append(fmt.Appendf(nil, "--bnd\r\nContent-Length: %d\r\n\r\n%s\r\n", len(one)+1, one), multipartOf("bnd", two)...)},
		{name: "only bad parts", contentType: related("bnd"), body: multipartOf("bnd", []byte("GIF89a"), nil), status: 409},

		{name: "LF framing (6)", contentType: related("bnd"), body: bytes.ReplaceAll(plain, []byte(crlf), []byte("\n")), status: 400},
		{name: "no closing delimiter (6)", contentType: related("bnd"), body: bytes.TrimSuffix(plain, []byte("\r\n--bnd--\r\n")), status: 400},
		{name: "closing delimiter cut off (6)", contentType: related("bnd"), body: bytes.TrimSuffix(plain, []byte("-\r\n")), status: 400},
		{name: "cut off in a part's headers (6)", contentType: related("bnd"), body: []byte("--bnd\r\nContent-Type: applica"), status: 400},
		{name: "zero parts (6)", contentType: related("bnd"), body: []byte("--bnd--\r\n"), status: 400},
		{name: "empty body (6)", contentType: related("bnd"), status: 400},
		{name: "empty single instance (6)", contentType: "application/dicom", body: gzipped(nil), headers: []string{"Content-Encoding", "gzip"}, status: 400},
		{name: "another boundary (6)", contentType: related("else"), body: plain, status: 400},
		{name: "no boundary", contentType: "multipart/related", body: plain, status: 400},
		{name: "boundary of 2,000 characters", contentType: related(strings.Repeat("b", 2000)), body: plain, status: 400},
		{name: "not gzip as it says", contentType: related("bnd"), body: plain, headers: []string{"Content-Encoding", "gzip"}, status: 400},
		{name: "gzip cut off", contentType: related("bnd"), body: gzipped(plain)[:len(gzipped(plain))-20], headers: []string{"Content-Encoding", "gzip"}, status: 400},
		{name: "unknown encoding", contentType: related("bnd"), body: plain, headers: []string{"Content-Encoding", "br"}, status: 415},
		{name: "files that are said to be metadata", contentType: `multipart/related; type="application/dicom+json"; boundary=bnd`, body: plain, status: 400},
		{name: "form data", contentType: "multipart/form-data; boundary=bnd", body: plain, status: 415},
		{name: "no Content-Type", contentType: "", body: plain, status: 415},
		{name: "an answer that we cannot give", contentType: related("bnd"), body: plain, headers: []string{"Accept", "image/png"}, status: 406},
	} {
		for _, chunked := range []bool{false, true} {
			name := c.name
			if chunked {
				name += ", chunked (5)"
			}
			t.Run(name, func(t *testing.T) {
				s := start(t)
				var body io.Reader = bytes.NewReader(c.body)
				if chunked {
					body = io.MultiReader(body)
				}
				r := s.post("/studies", c.contentType, body, c.headers...)
				if r.StatusCode != c.status || s.kept() != c.kept {
					t.Errorf("status %d, kept %d: %s", r.StatusCode, s.kept(), r.body)
				}
				if c.status >= 400 && c.status != 409 && !bytes.Contains(r.body, []byte(`"error"`)) {
					t.Errorf("no sentence in the answer: %s", r.body)
				}
				if c.status == 200 || c.status == 202 {
					if got := len(r.model(t).items(t, "00081199")); got != c.kept {
						t.Errorf("%d kept, %d told", c.kept, got)
					}
				}
			})
		}
	}
}

// TestAnswer compares what is told of each part with what became of it.
func TestAnswer(t *testing.T) {
	s := start(t)
	first := file(t, object(t, "1.2.1", "1.2.1.1", "1.2.1.1.1"))
	s.post("/studies", "application/dicom", bytes.NewReader(first))
	parts := [][]byte{
		first, // duplicate
		file(t, object(t, "1.2.1", "1.2.1.1", "1.2.1.1.1", pipeline.TagPatientID, "other")), // conflict
		file(t, object(t, "1.2.1", "1.2.1.1", "1.2.1.1.2")),                                 // new
		file(t, object(t, "1.2.9", "1.2.9.1", "1.2.9.1.1")),                                 // of another study
		[]byte("no DICOM"),
		bytes.Replace(first, []byte("1.2.840.10008.1.2.1\x00"), []byte("1.2.840.10008.1.2.77"), 1),
	}
	r := s.post("/studies/1.2.1", related("b"), bytes.NewReader(multipartOf("b", parts...)), "X-Forwarded-Proto", "https", "X-Forwarded-Host", "pacs.example")
	if r.StatusCode != http.StatusAccepted || r.Header.Get("Content-Type") != "application/dicom+json" {
		t.Fatalf("%d %s %s", r.StatusCode, r.Header.Get("Content-Type"), r.body)
	}
	if w := r.Header.Get("Warning"); !strings.HasPrefix(w, "299 ") || !strings.Contains(w, "1.2.1.1.1") {
		t.Errorf("Warning: %s", w)
	}
	m := r.model(t)
	var got []string
	for _, seq := range []string{"00081199", "00081198", "0008119A"} {
		for _, item := range m.items(t, seq) {
			got = append(got, strings.TrimSpace(strings.Join([]string{seq, item.first("00081155"), item.first("00081196"), item.first("00081197"), item.first("00081190")}, " ")))
			for _, f := range item.items(t, "00741048") {
				got[len(got)-1] += " " + f.first("00720026")
			}
			if c := item.first("00000902"); len(c) > 64 {
				t.Error("the comment is longer than an LO:", c)
			}
		}
	}
	base := "https://pacs.example/dicom-web/studies/1.2.1"
	want := []string{
		fmt.Sprintf("00081199 1.2.1.1.1 %d  %s/series/1.2.1.1/instances/1.2.1.1.1", 0x0111, base),
		fmt.Sprintf("00081199 1.2.1.1.2   %s/series/1.2.1.1/instances/1.2.1.1.2", base),
		fmt.Sprintf("00081198 1.2.1.1.1  %d", 0x0111),
		fmt.Sprintf("00081198 1.2.9.1.1  %d 0020000D", 0xA900),
		fmt.Sprintf("0008119A   %d", 0xC000),
		fmt.Sprintf("0008119A   %d", 0xC122), // Referenced Transfer Syntax Not Supported
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := m.first("00081190"); got != base {
		t.Error("RetrieveURL of the study:", got)
	}
	if s.kept() != 2 {
		t.Error(s.kept(), "kept")
	}

	// A request of duplicates alone: as many items as were sent, none failed, or Orthanc's job fails (8).
	r = s.post("/studies", related("b"), bytes.NewReader(multipartOf("b", first, parts[2])))
	m = r.model(t)
	if r.StatusCode != 200 || len(m.items(t, "00081199")) != 2 || len(m["00081198"].Value)+len(m["0008119A"].Value) != 0 {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
}

// TestAnswerFormat: what clients write into Accept when they store.
func TestAnswerFormat(t *testing.T) {
	s := start(t)
	b := multipartOf("b", file(t, object(t, "1.2", "1.2.3", "1.2.3.4")))
	for accept, want := range map[string]string{"": "json", "*/*": "json", "application/json": "json", "application/xml": "xml", `multipart/related; type="application/dicom+xml"`: "xml",
		related("b"): "json", "multipart/related; type=application/octet-stream": "json", "application/dicom": "json", "application/dicom+xml;q=0.9, application/dicom+json;q=0.2": "xml",
		"application/dicom+json;q=0, */*": "xml", "*/*, application/dicom+xml;q=0": "json", "application/*;q=0, application/dicom+xml;q=0.1": "xml"} {
		if r := s.post("/studies", related("b"), bytes.NewReader(b), "Accept", accept); r.StatusCode != http.StatusOK || r.Header.Get("Content-Type") != "application/dicom+"+want {
			t.Errorf("%q: %d %s", accept, r.StatusCode, r.Header.Get("Content-Type"))
		}
	}
}

// TestNoAnswerIsWelcome: q=0 takes a form out of a range that has it.
func TestNoAnswerIsWelcome(t *testing.T) {
	s := start(t)
	for _, accept := range []string{"*/*, application/dicom+json;q=0, application/dicom+xml;q=0", "application/*;q=0, */*;q=0.5", "*;q=0"} {
		if r := s.get("/studies", "Accept", accept); r.StatusCode != http.StatusNotAcceptable {
			t.Errorf("%q: %d %s", accept, r.StatusCode, r.Header.Get("Content-Type"))
		}
	}
}

func TestAnswerInXML(t *testing.T) {
	s := start(t)
	r := s.post("/studies", related("b"), bytes.NewReader(multipartOf("b", file(t, object(t, "1.2", "1.2.3", "1.2.3.4")))), "Accept", "application/dicom+xml")
	var m struct {
		XMLName    xml.Name `xml:"NativeDicomModel"`
		Attributes []struct {
			Tag   string `xml:"tag,attr"`
			VR    string `xml:"vr,attr"`
			Value string
			Items []struct {
				Attributes []struct {
					Tag   string `xml:"tag,attr"`
					Value string
				} `xml:"DicomAttribute"`
			} `xml:"Item"`
		} `xml:"DicomAttribute"`
	}
	if err := xml.Unmarshal(r.body, &m); err != nil {
		t.Fatal(err)
	}
	if len(m.Attributes) != 2 || m.Attributes[1].Tag != "00081199" || m.Attributes[1].VR != "SQ" || m.Attributes[1].Items[0].Attributes[1].Value != "1.2.3.4" {
		t.Errorf("%s", r.body)
	}
}
