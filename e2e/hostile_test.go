package e2e

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// resident is the resident memory of the service, in MB.
func (s *service) resident() int {
	s.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(b), "VmRSS:")
	kb, err := strconv.Atoi(strings.Fields(after)[0])
	if err != nil {
		s.t.Fatal(err)
	}
	return kb >> 10
}

// bomb is a gzip'ed text of 24 MB.
func bomb(open, each, end string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, open+strings.Repeat(each, (24<<20)/len(each))+end)
	_ = w.Close()
	return b.String()
}

// TestHostileClients: requests that were made to break a server, over real sockets. Each is answered with its reason, memory stays where it
// was, and what comes after each of them is stored, found and given back byte for byte.
func TestHostileClients(t *testing.T) {
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip("/proc absent: the memory of the service cannot be seen")
	}
	path, study := phantom(t)
	radiograph, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, t.TempDir(), "--config", configured(t, "line:\n  quiet: 1h\n"))
	if status, answer := stow(t, s, radiograph); status != http.StatusOK {
		t.Fatalf("%d %s", status, answer)
	}
	post := func(contentType, headers, body string) string {
		return fmt.Sprintf("POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: %s\r\nContent-Length: %d\r\n%s\r\n%s",
			contentType, len(body), headers, body)
	}
	const million = 1_000_000
	tiny := strings.Repeat("--bnd\r\n\r\nx\r\n", million) + "--bnd--\r\n"
	packed := func(kind, body string) string {
		return post("application/dicom+"+kind, "Content-Encoding: gzip\r\n", body)
	}
	get := func(path, headers string) string {
		return "GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + headers + "\r\n"
	}
	for _, c := range []struct{ name, request, status, says string }{
		{"a million tiny parts", post(asDICOM, "", tiny), "413", "more than 5000 parts"},
		{"a million values", packed("json", bomb(`{"00280010":{"vr":"US","Value":[`, "0,", "0]}}")), "413", "too many attributes"},
		{"a million instances", packed("json", bomb("[", "{},", "{}]")), "413", "too many attributes"},
		{"a million items", packed("xml", bomb(`<NativeDicomModel><DicomAttribute tag="00081140" vr="SQ">`, "<Item/>", "</DicomAttribute></NativeDicomModel>")), "413", "too many attributes"},
		{"10,000 deep", post("application/dicom+json", "", strings.Repeat(`{"a":`, 10_001)), "400", "metadata"},
		{"entities", post("application/dicom+xml", "", `<!DOCTYPE x [<!ENTITY a "aaaaaaaaaaaaaaaa">]><NativeDicomModel>&a;</NativeDicomModel>`), "400", "metadata"},
		{"bulk data of this machine", post("application/dicom+json", "", `{"00080016":{"vr":"UI","Value":["1.2.840.10008.5.1.4.1.1.7"]},"00080018":{"vr":"UI","Value":["1.2.3.4"]},"00420011":{"vr":"OB","BulkDataURI":"file:///etc/passwd"}}`), "409", "BulkDataURI"},
		{"gzip in the place of DICOM", post("application/dicom", "Content-Encoding: gzip\r\n", bomb("", "x", "")), "409", "DICOM"},
		{"a length and chunks", get("/healthz", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n", "200", "ok"},
		{"two lengths", get("/healthz", "Content-Length: 5\r\nContent-Length: 6\r\n") + "xxxxx", "400", ""},
		{"20,000 headers", get("/healthz", strings.Repeat("X-Bomb: x\r\n", 20_000)), "431", ""},
		{"9,000 ranges", get("/dicom-web/openapi.json", "Range: bytes="+strings.Repeat("0-0,", 9_000)+"0-0\r\n"), "200", ""},
		{"a WebSocket", get("/dicom-web/studies", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n"), "200", "["},
		{"a line break in a path", get("/dicom-web/%0d%0aSet-Cookie:%20a=b", ""), "404", "no such resource"},
		{"a host that is markup", "GET /healthz HTTP/1.1\r\nHost: \"><script>\r\nConnection: close\r\n\r\n", "400", ""},
		{"a viewport of 100,000 pixels", get("/dicom-web/studies/1.2/rendered?viewport=100000,100000", ""), "400", "viewport"},
		{"a window of no number", get("/dicom-web/studies/1.2/rendered?window=NaN,Inf", ""), "400", "window"},
		{"wildcards", get("/dicom-web/studies?PatientID="+strings.Repeat("*%3F", 9), ""), "400", "wildcards"},
		{"SQL", get("/dicom-web/studies?PatientID=%27%20OR%201%3D1%20--", ""), "200", "[]"},
		{"nothing at all", get("//", ""), "404", "no such resource"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before, began := s.resident(), time.Now()
			conn, err := net.Dial("tcp", strings.TrimPrefix(s.root, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
			go func() { _, _ = io.WriteString(conn, c.request) }()
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			said, _ := io.ReadAll(resp.Body)
			if answer := string(said) + resp.Header.Get("Warning"); !strings.HasPrefix(resp.Status, c.status) || !strings.Contains(answer, c.says) {
				t.Errorf("%s %.300s", resp.Status, answer)
			}
			if grown, took := s.resident()-before, time.Since(began); grown > 150 || took > 15*time.Second {
				t.Errorf("it took %d MB and %v", grown, took)
			}
			if status, answer := stow(t, s, radiograph); status != http.StatusOK {
				t.Errorf("afterwards: %d %s", status, answer)
			}
			var found []map[string]struct{ Value []any }
			getJSON(t, s.dicomweb()+"/studies/"+study+"/instances?includefield=SeriesInstanceUID", &found)
			if len(found) != 1 {
				t.Fatalf("afterwards: %d instances are found", len(found))
			}
			r, err := http.NewRequest(http.MethodGet, fmt.Sprintf("%s/studies/%s/series/%v/instances/%v", s.dicomweb(), study, found[0]["0020000E"].Value[0], found[0]["00080018"].Value[0]), nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Accept", "application/dicom; transfer-syntax=*")
			if b := answered(t, r); !bytes.Equal(b, radiograph) {
				t.Errorf("afterwards: %d bytes come back, of %d", len(b), len(radiograph))
			}
		})
	}
}
