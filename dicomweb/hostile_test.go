package dicomweb_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"chatxray/dicomweb"
	"chatxray/pipeline"
	"chatxray/pipeline/archive"
)

// repeated is a text many times over, which is nowhere in memory as a whole.
type repeated struct {
	text string
	left int64
	at   int
}

func repeat(text string, times int) *repeated {
	return &repeated{text: text, left: int64(len(text)) * int64(times)}
}

func (r *repeated) Read(b []byte) (n int, err error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	for n < len(b) && r.left > 0 {
		m := copy(b[n:min(len(b), n+int(r.left))], r.text[r.at:])
		n, r.at, r.left = n+m, (r.at+m)%len(r.text), r.left-int64(m)
	}
	return n, nil
}

// TestMillionParts really sends a million tiny parts in one request, whatever the service says meanwhile. The answer comes soon and names the
// reason, and memory does not grow.
func TestMillionParts(t *testing.T) {
	s := start(t)
	one := file(t, object(t, "1.2", "1.2.3", "1.2.3.4"))
	for _, c := range []struct {
		name, kind, part string
		status           int
		says             string
	}{
		{"a byte each", "application/dicom", "--b\r\n\r\nx\r\n", 413, "more than 5000 parts"},
		{"nothing in them", "application/dicom", "--b\r\n\r\n\r\n", 413, "more than 5000 parts"},
		{"not even an empty line", "application/dicom", "--b\r\n", 400, "header of a part"},
		{"metadata", "application/dicom+json", "--b\r\nContent-Type: application/dicom+json\r\n\r\n{}\r\n", 413, "more than 5000 parts"},
		{"metadata in XML", "application/dicom+xml", "--b\r\nContent-Type: application/dicom+xml\r\n\r\n<NativeDicomModel/>\r\n", 413, "more than 5000 parts"},
		{"bulk data", "application/dicom+json", "--b\r\nContent-Location: x\r\n\r\n{}\r\n", 413, "more than 5000 parts"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", s.host())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
			peak, began := watchHeap(), time.Now()
			body := io.MultiReader(repeat(c.part, 1_000_000), strings.NewReader("--b--\r\n"))
			fmt.Fprintf(conn, "POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/related; type=%q; boundary=b\r\nContent-Length: %d\r\n\r\n",
				c.kind, 1_000_000*len(c.part)+7)
			go func() { _, _ = io.Copy(conn, body) }()
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			said, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != c.status || !bytes.Contains(said, []byte(c.says)) {
				t.Errorf("%d %s", resp.StatusCode, said)
			}
			if took, grown := time.Since(began), peak(); took > 15*time.Second || grown > 128<<20 {
				t.Errorf("it took %v and %d MB", took, grown>>20)
			}
		})
	}
	if r := s.post("/studies", related("b"), bytes.NewReader(multipartOf("b", one))); r.StatusCode != http.StatusOK || s.kept() != 1 {
		t.Errorf("afterwards: %d %s, %d kept", r.StatusCode, r.body, s.kept())
	}
	if r := s.get("/studies/1.2/series/1.2.3/instances/1.2.3.4", "Accept", "application/dicom; transfer-syntax=*"); !bytes.Equal(r.body, one) {
		t.Errorf("%d, %d bytes come back, of %d", r.StatusCode, len(r.body), len(one))
	}
}

// TestMetadataBombs: metadata of some hundred kilobytes on the wire that would be gigabytes in memory, or millions of instances.
func TestMetadataBombs(t *testing.T) {
	s := start(t)
	list := func(open, each, end string) []byte {
		return []byte(open + strings.Repeat(each, (24<<20)/len(each)) + end)
	}
	var gaps bytes.Buffer
	for i := range 200_000 {
		fmt.Fprintf(&gaps, `<Value number="%d"/>`, (i+1)*1024)
	}
	for _, c := range []struct {
		name, kind string
		body       []byte
		status     int
		says       string
	}{
		{"values", "json", list(`{"00280010":{"vr":"US","Value":[`, "0,", "0]}}"), 413, "too many attributes"},
		{"items", "json", list(`{"00081140":{"vr":"SQ","Value":[`, "{},", "{}]}}"), 413, "too many attributes"},
		{"names", "json", list(`{"00100010":{"vr":"PN","Value":[`, "{},", "{}]}}"), 413, "too many attributes"},
		{"instances", "json", list("[", "{},", "{}]"), 413, "too many attributes"},
		{"more instances than parts", "json", []byte("[" + strings.Repeat("{},", 5000) + "{}]"), 413, "more than 5000 instances"},
		{"holes between values", "xml", []byte(`<NativeDicomModel><DicomAttribute tag="00081030" vr="LO">` + gaps.String() + `</DicomAttribute></NativeDicomModel>`), 400, "attributes"},
		{"items in XML", "xml", list(`<NativeDicomModel><DicomAttribute tag="00081140" vr="SQ">`, "<Item/>", `</DicomAttribute></NativeDicomModel>`), 413, "too many attributes"},
		{"attributes of XML", "xml", list(`<NativeDicomModel `, `a="" `, `/>`), 413, "too many attributes"},
		{"values that are commas", "json", []byte(`[` + fmt.Sprintf(plainModel, 1, `,"0040A160":{"vr":"UT","Value":["\"`+strings.Repeat("{,", 4<<20)+`"]}`) + `]`), 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			packed := gzipped(c.body)
			peak := watchHeap()
			r := s.post("/studies", "application/dicom+"+c.kind, bytes.NewReader(packed), "Content-Encoding", "gzip")
			if r.StatusCode != c.status || !bytes.Contains(r.body, []byte(c.says)) {
				t.Errorf("%d %.300s", r.StatusCode, r.body)
			}
			if grown := peak(); grown > 256<<20 {
				t.Errorf("%d kB on the wire took %d MB", len(packed)>>10, grown>>20)
			}
		})
	}
}

// TestSlowMetadata: clients that do not end their metadata keep nobody from the memory that is there for making pictures and the like.
func TestSlowMetadata(t *testing.T) {
	s := start(t)
	for range 20 {
		conn, err := net.Dial("tcp", s.host())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\nContent-Type: application/dicom+json\r\nContent-Length: 1000\r\n\r\n[")
	}
	for end := time.Now().Add(10 * time.Second); !strings.Contains(metricsOf(t, s.host()), "chatxray_uploads_running 20"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the uploads are not running")
		}
	}
	if r := s.post("/studies", "application/dicom+json", strings.NewReader(fmt.Sprintf("["+plainModel+"]", 1, ""))); r.StatusCode != http.StatusOK {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
}

// TestBodyThatNeverComes: a request whose body nobody reads is answered and cut off in time, and one whose body comes is answered as ever.
func TestBodyThatNeverComes(t *testing.T) {
	s := start(t, patience(time.Second))
	s.store(object(t, "1.2", "1.2.3", "1.2.3.4"))
	for _, c := range []struct{ name, request, status string }{
		{"health", "GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n", "408"},
		{"an instance", "GET /dicom-web/studies/1.2/series/1.2.3/instances/1.2.3.4 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", "408"},
		{"a search, half of the body", "GET /dicom-web/studies HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf", "408"},
		{"no resource", "POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n", "404"},
		{"a media type that is refused", "POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 10\r\n\r\n", "415"},
		{"a large body that means nothing", "GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n" + strings.Repeat("x", 300_000), "413"},
		{"a body that means nothing, and another request", "GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "200"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", s.host())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err := io.WriteString(conn, c.request); err != nil {
				t.Fatal(err)
			}
			said, err := io.ReadAll(conn)
			if err != nil || !strings.HasPrefix(string(said), "HTTP/1.1 "+c.status) {
				t.Errorf("%v %s", err, said)
			}
			if want := strings.Count(c.request, "HTTP/1.1\r\n"); strings.Count(string(said), "HTTP/1.1 ") != want {
				t.Errorf("not %d answers: %s", want, said)
			}
		})
	}
}

// TestStoredPage: a page that somebody has stored as an encapsulated document runs no script in the browser of who looks at it.
func TestStoredPage(t *testing.T) {
	s := start(t)
	const path = "/studies/1.2/series/1.2.3/instances/1.2.3.4/bulkdata/00420011"
	for media, boxed := range map[string]bool{"text/html": true, "image/svg+xml": true, "application/pdf": false} {
		d := object(t, "1.2", "1.2.3", "1.2.3.4")
		d.SetText(pipeline.TagSOPClassUID, "UI", "1.2.840.10008.5.1.4.1.1.104.1")
		d.SetText(0x00420012, "LO", media)
		d.SetBytes(pipeline.TagEncapsulatedDocument, "OB", []byte("<script>alert(1)</script>."))
		s := start(t)
		s.store(d)
		r := s.get(path, "Accept", media+",*/*;q=0.8")
		if got := strings.Contains(r.Header.Get("Content-Security-Policy"), "sandbox"); r.StatusCode != 200 || r.Header.Get("Content-Type") != media || got != boxed ||
			r.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d %v", media, r.StatusCode, r.Header)
		}
	}
	if r := s.get(path, "Accept", "text/html"); r.StatusCode != http.StatusNotFound {
		t.Error(r.StatusCode)
	}
}

// weighty is an object that says that it takes much memory.
type weighty struct {
	slow
	weight int64
}

func (w weighty) Weight() int64 { return w.weight }

// TestWeightyObjects: files whose headers take much memory are few at the same time; the others go on.
func TestWeightyObjects(t *testing.T) {
	block, weight := make(chan struct{}), int64(300<<20)
	s := start(t, func(_ *dicomweb.Config, d *dicomweb.Deps, _ *archive.Options) {
		opened := d.Object
		d.Object = func(in *pipeline.Instance) (dicomweb.Object, error) {
			o, err := opened(in)
			return weighty{slow{o, block}, weight}, err
		}
	})
	path, _ := s.radiograph("1.2.840.10008.1.2.1", 1, nil)
	first := make(chan reply)
	go func() {
		r := s.get(path + "/rendered")
		for r.StatusCode == http.StatusServiceUnavailable { // one of those below was there before it
			r = s.get(path + "/rendered")
		}
		first <- r
	}()
	busy := reply{}
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if busy = s.get(path + "/metadata"); busy.StatusCode != http.StatusOK {
			break
		}
	}
	if busy.StatusCode != http.StatusServiceUnavailable || busy.Header.Get("Retry-After") == "" {
		t.Errorf("beside another: %d %s", busy.StatusCode, busy.body)
	}
	close(block)
	if r := <-first; r.StatusCode != http.StatusOK {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
	if r := s.get(path + "/metadata"); r.StatusCode != http.StatusOK {
		t.Errorf("afterwards: %d %s", r.StatusCode, r.body)
	}
}
