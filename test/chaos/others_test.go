package chaos

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// impatient gives up on a service that hangs; patient waits for a busy machine.
var (
	impatient = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	patient   = &http.Client{Timeout: 2 * time.Minute, Transport: &http.Transport{DisableKeepAlives: true}} // Orthanc closes connections that a request may be on its way through
)

// call sends a request and decodes the JSON of its answer, which must be a success, into v unless that is nil.
func call(c *http.Client, method, url string, body []byte, v any) error {
	q, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	q.Header.Set("Accept", "application/dicom+json, application/json")
	resp, err := c.Do(q)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s answers %s: %.300s", method, url, resp.Status, b)
	}
	if err == nil && v != nil && len(b) > 0 {
		err = json.Unmarshal(b, v)
	}
	return err
}

func eventually(t *testing.T, patience time.Duration, what string, f func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("waited %v for %s: %v", patience, what, err)
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// missing skips the test for what is not installed, or fails it where a number of faults was asked for, as by make chaos.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CHAOS_FAULTS") != "" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// program finds a program of others.
func program(t *testing.T, name, pkg string) string {
	t.Helper()
	for _, dir := range []string{"", "/usr/bin/", "/usr/sbin/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path
		}
	}
	missing(t, fmt.Sprintf("%s is not installed: apt-get install %s", name, pkg))
	return ""
}

// redis keeps a redis-server running that keeps nothing on disk.
func redis(t *testing.T, logs string) (server *process, port int) {
	t.Helper()
	bin := program(t, "redis-server", "redis-server")
	port = freePort(t)
	server = keep(t, &process{name: "redis", log: filepath.Join(logs, "redis.log"),
		argv: []string{bin, "--port", fmt.Sprint(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", t.TempDir()}})
	eventually(t, time.Minute, "redis-server to start", func() error { return redisSays(port, "PING") })
	return server, port
}

// redisSays sends a command, which must succeed.
func redisSays(port int, command string) error {
	c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	if _, err := fmt.Fprintf(c, "%s\r\n", command); err != nil {
		return err
	}
	b := make([]byte, 64)
	n, err := c.Read(b)
	if err == nil && !strings.HasPrefix(string(b[:n]), "+") {
		err = fmt.Errorf("redis answers %s with %q", command, b[:n])
	}
	return err
}

// orthanc starts an Orthanc that is the sender's archive and the receiver, and returns its root.
func orthanc(t *testing.T, logs, service string) string {
	t.Helper()
	bin := program(t, "Orthanc", "orthanc")
	plugins, _ := filepath.Glob("/usr/share/orthanc/plugins/libOrthancDicomWeb.so*")
	if len(plugins) == 0 {
		missing(t, "Orthanc's DICOMweb plugin is not installed: apt-get install orthanc-dicomweb")
	}
	port, dir := freePort(t), t.TempDir()
	b, _ := json.Marshal(map[string]any{"Name": "chaos", "HttpPort": port, "DicomServerEnabled": false, "RemoteAccessAllowed": false, "AuthenticationEnabled": false,
		"StorageDirectory": dir, "IndexDirectory": dir, "Plugins": plugins[:1], "JobsHistorySize": 100000, "ConcurrentJobs": 4, "HttpTimeout": 8, "SaveJobs": false,
		"DicomWeb": map[string]any{"Servers": map[string]any{"chatxray": []string{service + "/dicom-web/"}}}})
	file := filepath.Join(dir, "orthanc.json")
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
	keep(t, &process{name: "Orthanc", log: filepath.Join(logs, "orthanc.log"), argv: []string{bin, file}})
	root := fmt.Sprintf("http://127.0.0.1:%d", port)
	eventually(t, time.Minute, "Orthanc to start", func() error { return call(patient, http.MethodGet, root+"/system", nil, nil) })
	return root
}
