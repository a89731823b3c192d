package dicomweb_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chatxray/dicomweb"
	"chatxray/pipeline"
	"chatxray/pipeline/archive"
	"chatxray/pipeline/dicom"
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
		{name: "metadata and bulk data", contentType: `multipart/related; type="application/dicom+json"; boundary=bnd`, body: plain, status: 415},
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
		fmt.Sprintf("00081198 1.2.9.1.1  %d", 0xA900),
		fmt.Sprintf("0008119A   %d", 0xC000),
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

func TestLimits(t *testing.T) {
	small := func(c *dicomweb.Config, _ *dicomweb.Deps, _ *archive.Options) {
		c.MaxBody, c.MaxInstance, c.MaxParts = 2<<20, 1<<20, 3
	}
	tiny := file(t, object(t, "1.2", "1.2.3", "1.2.3.4"))
	big := append(bytes.Clone(tiny), make([]byte, 1<<20)...)
	s := start(t, small)
	for _, c := range []struct {
		name    string
		body    []byte
		headers []string
		status  int
	}{
		{"body too large", multipartOf("b", tiny, make([]byte, 3<<20)), nil, 413},
		{"body too large when unpacked", gzipped(multipartOf("b", tiny, make([]byte, 3<<20))), []string{"Content-Encoding", "gzip"}, 413},
		{"too many parts", multipartOf("b", tiny, tiny, tiny, tiny), nil, 413},
		{"instance too large", multipartOf("b", big), nil, 409},
	} {
		for _, chunked := range []bool{false, true} {
			t.Run(fmt.Sprint(c.name, " chunked ", chunked), func(t *testing.T) {
				var body io.Reader = bytes.NewReader(c.body)
				if chunked {
					body = io.MultiReader(body)
				}
				if r := s.post("/studies", related("b"), body, c.headers...); r.StatusCode != c.status || s.kept() != 0 {
					t.Errorf("status %d, kept %d: %s", r.StatusCode, s.kept(), r.body)
				}
			})
		}
	}
}

func TestFullDiskIsTold(t *testing.T) {
	free := int64(1 << 40)
	s := start(t, func(_ *dicomweb.Config, _ *dicomweb.Deps, o *archive.Options) {
		o.FreeSpace = func(string) (int64, error) { return free, nil }
	})
	body := multipartOf("b", file(t, object(t, "1.2", "1.2.3", "1.2.3.4")))
	free = 100 << 20
	for _, r := range []io.Reader{bytes.NewReader(body), io.MultiReader(bytes.NewReader(body))} {
		if r := s.post("/studies", related("b"), r); r.StatusCode != http.StatusInsufficientStorage || s.kept() != 0 {
			t.Errorf("%d %s", r.StatusCode, r.body)
		}
	}
	free = 1 << 40
	if r := s.post("/studies", related("b"), bytes.NewReader(body)); r.StatusCode != 200 {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
}

func TestBusy(t *testing.T) {
	s := start(t, func(c *dicomweb.Config, _ *dicomweb.Deps, _ *archive.Options) { c.MaxUploads = 1 })
	pr, pw := io.Pipe()
	done := make(chan reply)
	go func() { done <- s.post("/studies", related("b"), pr) }()
	body := multipartOf("b", file(t, object(t, "1.2", "1.2.3", "1.2.3.4")))
	if _, err := pw.Write(body[:50]); err != nil {
		t.Fatal(err)
	}
	busy := reply{}
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if busy = s.post("/studies", related("b"), bytes.NewReader(body)); busy.StatusCode == http.StatusServiceUnavailable {
			break
		}
	}
	if busy.StatusCode != http.StatusServiceUnavailable || busy.Header.Get("Retry-After") == "" {
		t.Errorf("%d %s", busy.StatusCode, busy.body)
	}
	_, _ = pw.Write(body[50:])
	pw.Close()
	if r := <-done; r.StatusCode != 200 {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
}

// raw speaks HTTP by hand and returns what the server says until it is silent for a moment, or closes.
func raw(t *testing.T, s *service, request string, more ...string) string {
	t.Helper()
	host := strings.TrimSuffix(strings.TrimPrefix(s.root, "http://"), dicomweb.Root)
	conn, err := net.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var said strings.Builder
	br := bufio.NewReader(conn)
	for _, part := range append([]string{request}, more...) {
		if _, err := io.WriteString(conn, strings.ReplaceAll(part, "HOST", host)); err != nil {
			return said.String()
		}
		_ = conn.SetReadDeadline(time.Now().Add(700 * time.Millisecond))
		b, _ := io.ReadAll(br)
		said.Write(b)
	}
	return said.String()
}

// TestExpectContinue: the answer to the expectation must not wait for the body (10).
func TestExpectContinue(t *testing.T) {
	s := start(t)
	body := multipartOf("b", file(t, object(t, "1.2", "1.2.3", "1.2.3.4")))
	head := "POST /dicom-web/studies HTTP/1.1\r\nHost: HOST\r\nContent-Type: " + related("b") + "\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
	said := raw(t, s, fmt.Sprintf(head, len(body)), string(body))
	if !strings.HasPrefix(said, "HTTP/1.1 100 Continue\r\n") || !strings.Contains(said, "HTTP/1.1 200 OK") {
		t.Error(said)
	}
	// What is refused by its header alone is refused without the body.
	if said := raw(t, s, fmt.Sprintf(head, 1<<40)); !strings.HasPrefix(said, "HTTP/1.1 413 ") {
		t.Error(said)
	}
}

func TestLengthRequired(t *testing.T) {
	s := start(t)
	if said := raw(t, s, "POST /dicom-web/studies HTTP/1.1\r\nHost: HOST\r\nContent-Type: "+related("b")+"\r\n\r\n"); !strings.HasPrefix(said, "HTTP/1.1 411 ") {
		t.Error(said)
	}
}

func TestStandstill(t *testing.T) {
	s := start(t, func(c *dicomweb.Config, _ *dicomweb.Deps, _ *archive.Options) { c.Idle = time.Second })
	said := raw(t, s, "POST /dicom-web/studies HTTP/1.1\r\nHost: HOST\r\nContent-Length: 1000\r\nContent-Type: "+related("b")+"\r\n\r\n--b\r\n", "", "")
	if !strings.HasPrefix(said, "HTTP/1.1 408 ") {
		t.Error(said)
	}
}

// TestUIDs: padded UIDs are the same UIDs; what is no UID stays out of paths (11).
func TestUIDs(t *testing.T) {
	s := start(t)
	padded := bytes.ReplaceAll(file(t, object(t, "1.2.1", "1.2.1.1", "1.2.1.1.11")), []byte("1.2.1\x00"), []byte("1.2.1 "))
	if r := s.post("/studies/1.2.1", "application/dicom", bytes.NewReader(padded)); r.StatusCode != 200 {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
	if r := s.get("/studies/1.2.1/series/1.2.1.1/instances/1.2.1.1.11"); r.StatusCode != 200 {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
	traversal := bytes.ReplaceAll(file(t, object(t, "1.2.2", "1.2.3.4.5.6", "1.2.2.1.1")), []byte("1.2.3.4.5.6"), []byte("../../../xx"))
	if r := s.post("/studies", "application/dicom", bytes.NewReader(traversal)); r.StatusCode != 409 {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
	for path, status := range map[string]int{
		"/studies/..%2f..%2fetc":                    404,
		"/studies/%2e%2e":                           400,
		"/studies/1.2.1%20":                         400,
		"/studies/1.2.1%00":                         400,
		"/studies/1." + strings.Repeat("2", 70):     400,
		"/studies/1.2.1/series/x/metadata":          400,
		"/studies/1.2.1/series/1.2.1.1/instances/*": 400,
		"/studies/1.2.77":                           404,
		"/nowhere":                                  404,
	} {
		if r := s.get(path); r.StatusCode != status || !bytes.Contains(r.body, []byte(`"error"`)) {
			t.Errorf("%s: %d %s", path, r.StatusCode, r.body)
		}
	}
}

// TestNoPatientDataInLogs stores, searches and fails, and looks for the patient in what was logged.
func TestNoPatientDataInLogs(t *testing.T) {
	s := start(t)
	s.store(object(t, "1.2", "1.2.3", "1.2.3.4"))
	s.post("/studies", "application/dicom", bytes.NewReader(file(t, object(t, "1.2", "1.2.3", "1.2.3.4", pipeline.TagPatientComments, "SECRET"))))
	s.get("/studies?PatientName=SECRET*&PatientID=SECRET-ID-7")
	s.get("/studies?PatientID=SECRET" + strings.Repeat("*x", 20))
	s.get("/studies/SECRET/metadata")
	metrics := metricsOf(t, strings.TrimPrefix(strings.TrimSuffix(s.root, dicomweb.Root), "http://"))
	if !strings.Contains(metrics, `chatxray_stow_instances_total{result="stored"} 1`) || !strings.Contains(s.log.String(), `"status":200`) {
		t.Errorf("nothing counted or logged: %s %s", metrics, s.log)
	}
	for name, text := range map[string]string{"log": s.log.String(), "metrics": metrics} {
		for _, word := range []string{"SECRET", "Ada", "Probe", "1.2.3.4\"} "} {
			if strings.Contains(text, word) {
				t.Errorf("%s in the %s: %s", word, name, text)
			}
		}
	}
}

// metricsOf reads /metrics.
func metricsOf(t *testing.T, host string) string {
	r, err := http.Get("http://" + host + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestGracefulStop stops the server in the middle of an upload, which must be finished.
func TestGracefulStop(t *testing.T) {
	a, err := archive.Open(t.TempDir(), dicom.OpenFile, archive.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := dicomweb.Default()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- dicomweb.Serve(ctx, l, dicomweb.New(cfg, a, dicomweb.Deps{Open: dicom.OpenFile}), cfg)
	}()
	body := multipartOf("b", file(t, object(t, "1.2", "1.2.3", "1.2.3.4")))
	pr, pw := io.Pipe()
	done := make(chan int, 1)
	go func() {
		r, err := http.Post("http://"+l.Addr().String()+"/dicom-web/studies", related("b"), pr)
		if err != nil {
			t.Error(err)
			done <- 0
			return
		}
		r.Body.Close()
		done <- r.StatusCode
	}()
	_, _ = pw.Write(body[:100])
	for deadline := time.Now().Add(5 * time.Second); !strings.Contains(metricsOf(t, l.Addr().String()), "chatxray_uploads_running 1") && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	stop()
	time.Sleep(100 * time.Millisecond)
	if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
		t.Error("the stopping server takes new connections")
	}
	_, _ = pw.Write(body[100:])
	pw.Close()
	if status := <-done; status != 200 {
		t.Error("status", status)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestLargeRequest streams a request that is far larger than the memory it may take (9).
func TestLargeRequest(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: writes 256 MB")
	}
	s := start(t)
	const each, n = 64 << 20, 4
	pr, pw := io.Pipe()
	go func() {
		buf := make([]byte, 1<<20)
		for i := range n {
			fmt.Fprintf(pw, "--b\r\nContent-Type: application/dicom\r\n\r\n")
			_, _ = pw.Write(pixelFile(t, each, i))
			for range each / len(buf) {
				_, _ = pw.Write(buf)
			}
			fmt.Fprintf(pw, "\r\n")
		}
		fmt.Fprintf(pw, "--b--\r\n")
		pw.Close()
	}()
	peak := watchHeap()
	if r := s.post("/studies", related("b"), pr); r.StatusCode != 200 || s.kept() != n {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
	if got := peak(); got > 48<<20 {
		t.Errorf("the heap grew by %d MB for a request of %d MB", got>>20, n*each>>20)
	} else {
		t.Logf("the heap grew by %d MB for a request of %d MB", got>>20, n*each>>20)
	}
}

// pixelFile is a file with size bytes of Pixel Data, without those bytes; n ends its SOP Instance UID.
func pixelFile(t testing.TB, size uint32, n int) []byte {
	d := object(t, "1.2", "1.2.3", fmt.Sprint("1.2.3.4.", n), pipeline.TagPhotometricInterpretation, "MONOCHROME2")
	for tag, n := range map[pipeline.Tag]int64{pipeline.TagSamplesPerPixel: 1, pipeline.TagRows: int64(size) >> 13, pipeline.TagColumns: 4096,
		pipeline.TagBitsAllocated: 16, pipeline.TagBitsStored: 16, pipeline.TagHighBit: 15, pipeline.TagPixelRepresentation: 0} {
		d.SetInts(tag, "US", n)
	}
	return binary.LittleEndian.AppendUint32(append(file(t, d), "\xE0\x7F\x10\x00OW\x00\x00"...), size)
}

// watchHeap returns a function that stops watching and tells how much the heap has grown at most.
func watchHeap() (peak func() int64) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	idle, stop, result := int64(m.HeapInuse), make(chan struct{}), make(chan int64)
	go func() {
		most := int64(0)
		for {
			select {
			case <-stop:
				result <- most
				return
			case <-time.After(5 * time.Millisecond):
				runtime.ReadMemStats(&m)
				most = max(most, int64(m.HeapInuse)-idle)
			}
		}
	}()
	return func() int64 { close(stop); return <-result }
}
