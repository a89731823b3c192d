// Package e2e drives the built binary together with software that others wrote. Nothing here imports the product.
package e2e

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
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var root = func() string {
	dir, err := os.Getwd()
	if err != nil {
		panic(err)
	}
	for dir != "/" {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	panic("no go.mod above the working directory")
}()

var build = sync.OnceValues(func() (string, error) {
	watchSources()
	bin := filepath.Join(os.TempDir(), fmt.Sprintf("chatxray-e2e-%d", os.Getpid()))
	cmd := exec.Command("go", "build", "-o", bin, "./cmd/chatxray")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return bin, nil
})

// watchSources looks at every source of the module. go test knows what a test has looked at (once it runs tests), and would else take a result from its cache
// though the product, which nothing here imports, has changed.
func watchSources() {
	_ = filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != root && strings.HasPrefix(d.Name(), ".") {
			return filepath.SkipDir
		}
		if filepath.Ext(path) == ".go" {
			_, err = os.Stat(path)
		}
		return err
	})
}

func TestMain(m *testing.M) {
	if os.Getenv("CHATXRAY_BUNDLES") == "" {
		os.Setenv("CHATXRAY_BUNDLES", filepath.Join(root, "bundles"))
	}
	code := m.Run()
	if bin, err := build(); err == nil {
		os.Remove(bin)
	}
	os.Exit(code)
}

// built builds chatxray once and skips the test where its run-time parts are not fetched.
func built(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("-short leaves out what runs the whole service")
	}
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(bin, "doctor").CombinedOutput(); err != nil {
		if bytes.Contains(out, []byte("missing run-time part")) {
			t.Skipf("run-time parts are not fetched (make parts):\n%s", out)
		}
		t.Fatalf("chatxray doctor: %v\n%s", err, out)
	}
	return bin
}

// chatxray runs a command to its end and returns both outputs; it fails the test unless the exit code is the wanted one.
func chatxray(t *testing.T, want int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errw bytes.Buffer
	cmd := exec.Command(built(t), args...)
	cmd.Stdout, cmd.Stderr = &out, &errw
	err := cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != want {
		t.Fatalf("chatxray %s: exit code %d, want %d (%v)\n%s%s", strings.Join(args, " "), code, want, err, out.String(), errw.String())
	}
	return out.String(), errw.String()
}

// service is a running chatxray serve.
type service struct {
	t    *testing.T
	root string // http://127.0.0.1:port
	cmd  *exec.Cmd
	log  *lockedBuffer
	done chan struct{}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}
func (l *lockedBuffer) String() string { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

// serve starts the service on a free port and waits until it is ready.
func serve(t *testing.T, data string, args ...string) *service {
	t.Helper()
	return serveUnder(t, nil, data, args...)
}

// serveUnder does what serve does with a command before it (nsenter, say).
func serveUnder(t *testing.T, under []string, data string, args ...string) *service {
	t.Helper()
	s := launch(t, under, data, args...)
	eventually(t, 2*time.Minute, "the service to be ready", func() error { _, err := get(s.root + "/readyz"); return err })
	return s
}

// launch starts the service and waits until it listens.
func launch(t *testing.T, under []string, data string, args ...string) *service {
	t.Helper()
	portFile := filepath.Join(t.TempDir(), "port")
	s := &service{t: t, log: &lockedBuffer{}, done: make(chan struct{})}
	argv := slices.Concat(under, []string{built(t), "--log-json", "serve", "--listen", "127.0.0.1:0", "--port-file", portFile, "--data", data}, args)
	s.cmd = exec.Command(argv[0], argv[1:]...)
	s.cmd.Stderr, s.cmd.Stdout = s.log, s.log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.cmd.Wait(); close(s.done) }()
	t.Cleanup(func() {
		s.stop(syscall.SIGTERM)
		if t.Failed() {
			t.Logf("log of the service:\n%s", s.log.String())
		}
	})
	eventually(t, 2*time.Minute, "the service to listen", func() error {
		select {
		case <-s.done:
			t.Fatalf("the service ended:\n%s", s.log.String())
		default:
		}
		b, err := os.ReadFile(portFile)
		if err != nil {
			return err
		}
		s.root = "http://127.0.0.1:" + strings.TrimSpace(string(b))
		return nil
	})
	return s
}

// stop ends the service with a signal and waits for it.
func (s *service) stop(sig syscall.Signal) {
	_ = s.cmd.Process.Signal(sig)
	select {
	case <-s.done:
	case <-time.After(30 * time.Second):
		_ = s.cmd.Process.Kill()
		s.t.Error("the service did not stop within 30 s")
	}
}

func (s *service) dicomweb() string { return s.root + "/dicom-web" }

// metric returns the value of one sample of /metrics.
func (s *service) metric(name string) string {
	s.t.Helper()
	b, err := get(s.root + "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, l := range strings.Split(string(b), "\n") {
		if v, ok := strings.CutPrefix(l, name+" "); ok {
			return v
		}
	}
	s.t.Fatalf("/metrics has no %s:\n%s", name, b)
	return ""
}

func get(url string) ([]byte, error) {
	resp, err := http.Get(url)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s answers %s: %s", url, resp.Status, b)
	}
	return b, err
}

func getJSON(t *testing.T, url string, v any) {
	t.Helper()
	b, err := get(url)
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// eventually tries until f has no error.
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

// phantom writes a synthetic radiograph and returns its path and Study Instance UID.
func phantom(t *testing.T, args ...string) (path, study string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "phantom.dcm")
	out, _ := chatxray(t, 0, append([]string{"phantom", "--rows", "1024", "--columns", "860", "--print-uid", "--out", path}, args...)...)
	return path, strings.TrimSpace(out)
}

// answered sends a request and returns the body of its answer, which must be a success.
func answered(t *testing.T, r *http.Request) []byte {
	t.Helper()
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode/100 != 2 {
		t.Fatalf("%s %s: %s %s %v", r.Method, r.URL.Path, resp.Status, b, err)
	}
	return b
}
