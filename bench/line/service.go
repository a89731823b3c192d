package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"chatxray/phantom"
	"chatxray/pipeline"
	"chatxray/pipeline/dicom"
)

// server is a program that runs beside the measurement.
type server struct {
	cmd  *exec.Cmd
	root string // of a service
	log  string
}

func (s *server) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	_ = s.cmd.Wait()
}

// cpu is the processor time that the program has used.
func (s *server) cpu() time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if err != nil || len(f) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(f[11], 10, 64)
	system, _ := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100
}

// resident is its memory in MB.
func (s *server) resident() float64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	for _, l := range strings.Split(string(b), "\n") {
		var kb float64
		if n, _ := fmt.Sscanf(l, "VmRSS: %f kB", &kb); n == 1 {
			return kb / 1024
		}
	}
	return 0
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func startRedis(dir string) (*server, int, error) {
	port, err := freePort()
	if err != nil {
		return nil, 0, err
	}
	s := &server{cmd: exec.Command("redis-server", "--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", dir)}
	if err := s.cmd.Start(); err != nil {
		return nil, 0, err
	}
	for range 100 {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			c.Close()
			return s, port, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil, 0, errors.New("redis-server does not start")
}

// archive is the data of a service that is started again and again.
type archive struct {
	b            *bench
	name, config string
}

func (b *bench) archive(name, config string) *archive { return &archive{b, name, config} }

// serve starts the service over the archive, with the stub reader taking so long, and waits until it is ready.
func (a *archive) serve(sleep string) (*server, error) {
	if sleep == "" {
		sleep = "0s"
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(a.b.dir, a.name)
	file := dir + ".yaml"
	config := fmt.Sprintf("listen: 127.0.0.1:%d\ndata: %s\njobs: {redis: \"redis://127.0.0.1:%d/0\"}\ndicomweb: {max_results: 10}\n%s", port, dir, a.b.port, a.config)
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		return nil, err
	}
	s := &server{root: fmt.Sprintf("http://127.0.0.1:%d", port), log: dir + ".log"}
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	s.cmd = exec.Command(a.b.binary, "--log-json", "serve", "--config", file, "--reader", "stub", "--stub-sleep", sleep)
	s.cmd.Stderr = log
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	for end := time.Now().Add(5 * time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if b, err := s.get("/readyz"); err == nil && len(b) > 0 {
			return s, nil
		}
	}
	said, _ := os.ReadFile(s.log)
	return nil, fmt.Errorf("the service is not ready: %.2000s", said)
}

func (s *server) get(path string) ([]byte, error) {
	resp, err := http.Get(s.root + path)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s", path, resp.Status)
	}
	return b, err
}

// metric is a sample of /metrics; -1 where there is none.
func (s *server) metric(name string) float64 {
	b, err := s.get("/metrics")
	if err != nil {
		return -1
	}
	for _, l := range strings.Split(string(b), "\n") {
		if v, ok := strings.CutPrefix(l, name+" "); ok {
			n, _ := strconv.ParseFloat(v, 64)
			return n
		}
	}
	return -1
}

// until waits until a metric has a value; idle: and until nothing is read any more.
func (s *server) until(name string, value int, idle bool) error {
	for end := time.Now().Add(5 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if s.metric(name) >= float64(value) && (!idle || s.metric("chatxray_studies_reading") == 0) {
			return nil
		}
	}
	return fmt.Errorf("%s does not reach %d", name, value)
}

// rate is how many studies are read in a second, over a while.
func (s *server) rate(d time.Duration) (float64, error) {
	began, from := time.Now(), s.metric("chatxray_studies_read_total")
	time.Sleep(d)
	to := s.metric("chatxray_studies_read_total")
	if from < 0 || to < 0 {
		return 0, errors.New("/metrics does not answer")
	}
	return (to - from) / time.Since(began).Seconds(), nil
}

// begun is when the reading of a study began.
func (s *server) begun(uid string) (time.Time, error) {
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var t struct {
			Steps []struct {
				At    time.Time
				State string
			}
		}
		if b, err := s.get("/dicom-web/studies/" + uid + "/reading/timeline"); err == nil {
			_ = json.Unmarshal(b, &t)
		}
		for _, step := range t.Steps {
			if step.State == "reading" {
				return step.At, nil
			}
		}
	}
	return time.Time{}, fmt.Errorf("study %s is not read", uid)
}

// The radiograph of every study is the same file with other UIDs, which all have the same length.
var template = sync.OnceValues(func() ([]byte, error) {
	p, err := phantom.Draw(phantom.Options{Seed: 1, Rows: phantom.LeastSide, Columns: phantom.LeastSide})
	if err != nil {
		return nil, err
	}
	ds := p.Dataset()
	ds.SetText(pipeline.TagStudyInstanceUID, "UI", uidOf(1, 0))
	ds.SetText(pipeline.TagSeriesInstanceUID, "UI", uidOf(2, 0))
	ds.SetText(pipeline.TagSOPInstanceUID, "UI", uidOf(3, 0))
	ds.SetText(pipeline.TagRequestedProcedurePriority, "SH", "MEDIUM")
	var b bytes.Buffer
	err = dicom.Write(&b, ds, "1.2.840.10008.1.2.1")
	return b.Bytes(), err
})

func uidOf(kind, n int) string {
	v := new(big.Int).Lsh(big.NewInt(int64(10+kind)), 120)
	return "2.25." + v.Add(v, big.NewInt(int64(n))).String()
}

func (b *bench) uid(n int) string { return uidOf(1, n) }

// store sends n new studies of one radiograph each, so many in a request and so many requests at a time.
func (s *server) store(b *bench, n, each, parallel int, priority string) error {
	t, err := template()
	if err != nil {
		return err
	}
	if priority != "" {
		t = bytes.Replace(t, []byte("MEDIUM"), []byte(fmt.Sprintf("%-6s", priority)), 1)
	}
	var work errgroup.Group
	work.SetLimit(parallel)
	for n > 0 {
		k, first := min(n, each), b.next
		n, b.next = n-k, b.next+k
		work.Go(func() error {
			var body bytes.Buffer
			w := multipart.NewWriter(&body)
			for i := range k {
				file := t
				for kind := 1; kind <= 3; kind++ {
					file = bytes.ReplaceAll(file, []byte(uidOf(kind, 0)), []byte(uidOf(kind, first+i)))
				}
				p, _ := w.CreatePart(textproto.MIMEHeader{"Content-Type": {"application/dicom"}})
				_, _ = p.Write(file)
			}
			_ = w.Close()
			resp, err := http.Post(s.root+"/dicom-web/studies", `multipart/related; type="application/dicom"; boundary=`+w.Boundary(), &body)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if said, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
				return fmt.Errorf("STOW-RS answers %s: %.500s (%w)", resp.Status, said, err)
			}
			return nil
		})
	}
	return work.Wait()
}

// receiver answers every STOW-RS request that it has stored all; while it holds, it answers nothing.
type receiver struct {
	*http.Server
	addr string
	gate sync.RWMutex
	held bool
}

func newReceiver() (*receiver, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &receiver{addr: l.Addr().String()}
	r.Server = &http.Server{Handler: r, ReadHeaderTimeout: time.Minute}
	go func() { _ = r.Serve(l) }()
	return r, nil
}

func (r *receiver) hold(on bool) {
	if on && !r.held {
		r.gate.Lock()
	} else if !on && r.held {
		r.gate.Unlock()
	}
	r.held = on
}

// ServeHTTP implements http.Handler.
func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	n := 0
	_, params, _ := mime.ParseMediaType(q.Header.Get("Content-Type"))
	for parts := multipart.NewReader(q.Body, params["boundary"]); ; n++ {
		p, err := parts.NextRawPart()
		if err != nil {
			break
		}
		_, _ = io.Copy(io.Discard, p)
	}
	r.gate.RLock()
	defer r.gate.RUnlock()
	w.Header().Set("Content-Type", "application/dicom+json")
	_ = json.NewEncoder(w).Encode(map[string]any{"00081199": map[string]any{"vr": "SQ", "Value": make([]struct{}, n)}})
}
