package dicomweb_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"chatxray/dicomweb"
	"chatxray/pipeline"
	"chatxray/pipeline/archive"
	"chatxray/pipeline/dicom"
)

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
	uploading(t, s.host())
	busy := s.post("/studies", related("b"), bytes.NewReader(body))
	if busy.StatusCode != http.StatusServiceUnavailable || busy.Header.Get("Retry-After") == "" {
		t.Errorf("%d %s", busy.StatusCode, busy.body)
	}
	_, _ = pw.Write(body[50:])
	pw.Close()
	if r := <-done; r.StatusCode != 200 {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
}

// While too much waits to be read nothing is taken in, not even by half, and everything else goes on.
func TestFull(t *testing.T) {
	var full atomic.Bool
	s := start(t, func(_ *dicomweb.Config, d *dicomweb.Deps, _ *archive.Options) {
		d.Full = func(context.Context) error {
			if full.Load() {
				return fmt.Errorf("%w: 7 studies wait to be read", pipeline.ErrBusy)
			}
			return nil
		}
	})
	body := multipartOf("b", file(t, object(t, "1.2", "1.2.3", "1.2.3.4")), file(t, object(t, "1.2", "1.2.3", "1.2.3.5")))
	full.Store(true)
	for _, path := range []string{"/studies", "/studies/1.2"} {
		r := s.post(path, related("b"), bytes.NewReader(body))
		if r.StatusCode != http.StatusServiceUnavailable || r.Header.Get("Retry-After") == "" || !strings.Contains(string(r.body), "7 studies wait") || s.kept() != 0 {
			t.Errorf("%d %s", r.StatusCode, r.body)
		}
	}
	for _, path := range []string{"/readyz", "/dicom-web/studies"} {
		r, err := http.Get("http://" + s.host() + path)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode != http.StatusOK {
			t.Errorf("%s answers %d", path, r.StatusCode)
		}
	}
	full.Store(false)
	if r := s.post("/studies", related("b"), bytes.NewReader(body)); r.StatusCode != 200 {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
}

// raw speaks HTTP by hand and returns what the server says until it is silent for a moment, or closes.
func raw(t *testing.T, s *service, request string, more ...string) string {
	t.Helper()
	host := s.host()
	conn, err := net.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var said strings.Builder
	br := bufio.NewReader(conn)
	for i, part := range append([]string{request}, more...) {
		if _, err := io.WriteString(conn, strings.ReplaceAll(part, "HOST", host)); err != nil {
			return said.String()
		}
		patience := 700 * time.Millisecond
		if i == len(more) && strings.Contains(request, "Connection: close") {
			patience = 30 * time.Second
		}
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		b, _ := io.ReadAll(br)
		said.Write(b)
	}
	return said.String()
}

// TestExpectContinue: the answer to the expectation must not wait for the body (10).
func TestExpectContinue(t *testing.T) {
	s := start(t)
	body := multipartOf("b", file(t, object(t, "1.2", "1.2.3", "1.2.3.4")))
	head := "POST /dicom-web/studies HTTP/1.1\r\nHost: HOST\r\nContent-Type: " + related("b") + "\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
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
	s.get("/studies?SECRET^KEY=1")
	s.get("/studies?limit=SECRET")
	s.get("/studies?00100010=SECRET&PatientBirthDate=SECRET&StudyDate=SECRET-SECRET")
	s.get("/studies?SECRET%zz")
	s.get("/SECRET?SECRET", "Authorization", "Bearer SECRET", "X-Forwarded-For", "SECRET", "Origin", "SECRET")
	s.get("/studies/1.2/series/1.2.3/instances/1.2.3.4/bulkdata/SECRET", "Range", "SECRET", "If-None-Match", "SECRET")
	for _, c := range [][2]string{
		{"application/dicom+json", `[{"SECRET":{"vr":"PN"}}]`}, {"application/dicom+json", `[{"00100010":{"vr":"SECRET"}}]`}, {"application/dicom+json", `["SECRET"]`},
		{"application/dicom+json", `[{"00100010":{"vr":"PN","Value":[{"Alphabetic":"SECRET"}]},"00100030":{"vr":"DA","Value":[{"SECRET":1}]},"00280010":{"vr":"US","Value":["SECRET"]}}]`},
		{"application/dicom+xml", `<SECRET/>`}, {"application/dicom+xml", `<NativeDicomModel><SECRET/></NativeDicomModel>`},
		{"application/dicom+xml", `<NativeDicomModel><DicomAttribute tag="00100010" vr="PN"><SECRET/></DicomAttribute></NativeDicomModel>`},
		{"application/dicom+xml", `<NativeDicomModel><DicomAttribute tag="00100020" vr="LO"><Value number="1"><SECRET/></Value></DicomAttribute></NativeDicomModel>`},
		{"application/dicom+xml", `<?xml version="1.0" encoding="SECRET"?><NativeDicomModel/>`},
		{related("b"), "--b\r\nContent-Type: SECRET\r\n\r\nx\r\n--b--"}, {related("b"), "--b\r\nContent-Transfer-Encoding: SECRET\r\n\r\nx\r\n--b--"},
		{related("b"), "--b\r\nContent-Length: SECRET\r\n\r\nx\r\n--b--"}, {related("b"), "--b\r\nSECRET\r\n\r\nx\r\n--b--"}, {"SECRET", "SECRET"},
		{`multipart/related; type="application/dicom+json"; boundary=b`, "--b\r\nContent-Type: SECRET\r\n\r\nx\r\n--b--"},
	} {
		s.post("/studies", c[0], strings.NewReader(c[1]))
	}
	s.post("/studies", "application/dicom", strings.NewReader("x"), "Content-Encoding", "SECRET")
	s.get("/studies/1.2/series/1.2.3/instances/1.2.3.4", "Accept", "application/dicom; transfer-syntax=SECRET")
	metrics := metricsOf(t, s.host())
	if !strings.Contains(metrics, `chatxray_stow_instances_total{result="stored"} 1`) || !strings.Contains(s.log.String(), `"status":200`) {
		t.Errorf("nothing counted or logged: %s %s", metrics, s.log)
	}
	for name, text := range map[string]string{"log": s.log.String(), "metrics": metrics} {
		for _, word := range []string{"SECRET", "secret", "Ada", "Probe", "1.2.3.4\"} "} {
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

// uploading waits until one upload is running.
func uploading(t *testing.T, host string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !strings.Contains(metricsOf(t, host), "chatxray_uploads_running 1"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no upload is running")
		}
	}
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
		ended <- dicomweb.Serve(ctx, l, dicomweb.New(cfg, a, dicomweb.Deps{Imaging: imaging()}), cfg)
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
	uploading(t, l.Addr().String())
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
