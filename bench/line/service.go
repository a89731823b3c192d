package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// archive is the data of a service that is started again and again.
type archive struct {
	b            *bench
	name, config string
	index        string // URL of its database in PostgreSQL; empty: SQLite
}

func (b *bench) archive(name, config string) (a *archive, err error) {
	a = &archive{b: b, name: name, config: config}
	if b.postgres != nil {
		a.index, err = b.postgres.Create(name)
	}
	return a, err
}

// service is what serves an archive: one process that does all, or, over PostgreSQL, a web and workers.
type service struct {
	web     *server
	workers []*server // the web where it does all
}

// serve starts the service over the archive, with so many workers if it has any, whose stub reader takes so long, and waits until all are ready.
func (a *archive) serve(sleep time.Duration, workers int) (s *service, err error) {
	roles := []string{"all"}
	if a.index != "" {
		roles = append([]string{"web"}, slices.Repeat([]string{"worker"}, workers)...)
	}
	s = &service{}
	for i, role := range roles {
		p, err := a.start(fmt.Sprintf("%s-%s-%d", a.name, role, i), role, sleep)
		if err != nil {
			return nil, errors.Join(err, s.stop())
		}
		if role != "worker" {
			s.web = p
		}
		if role != "web" {
			s.workers = append(s.workers, p)
		}
	}
	for _, p := range s.processes() {
		if err := p.ready(); err != nil {
			return nil, errors.Join(err, s.stop())
		}
	}
	return s, nil
}

func (a *archive) start(name, role string, sleep time.Duration) (*server, error) {
	file, data := filepath.Join(a.b.dir, name), filepath.Join(a.b.dir, a.name)
	config := fmt.Sprintf("listen: 127.0.0.1:0\ndata: %s\nrole: %s\narchive: {index: %q}\njobs: {redis: \"redis://127.0.0.1:%d/0\"}\ndicomweb: {max_results: 10}\n%s",
		data, role, a.index, a.b.port, a.config)
	if err := os.WriteFile(file+".yaml", []byte(config), 0o644); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(file+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	_ = os.Remove(file + ".port") // of an earlier start
	cmd := exec.Command(a.b.binary, "--log-json", "serve", "--config", file+".yaml", "--port-file", file+".port", "--reader", "stub", "--stub-sleep", sleep.String())
	cmd.Stderr = log
	return &server{cmd: cmd, file: file}, a.b.start(cmd)
}

// processes are all of them, the web first.
func (s *service) processes() []*server {
	if s.web == nil || len(s.workers) > 0 && s.workers[0] == s.web {
		return s.workers
	}
	return append([]*server{s.web}, s.workers...)
}

func (s *service) stop() (err error) {
	for _, p := range s.processes() {
		err = errors.Join(err, p.cmd.Process.Signal(syscall.SIGTERM))
	}
	for _, p := range s.processes() {
		err = errors.Join(err, p.cmd.Wait())
	}
	return err
}

// kill ends all processes at once, as a lack of power would.
func (s *service) kill() (err error) {
	for _, p := range s.processes() {
		err = errors.Join(err, p.cmd.Process.Kill())
	}
	for _, p := range s.processes() {
		_ = p.cmd.Wait() // it was killed
	}
	return err
}

// compared waits until a process has compared all files with the index, as its log says.
func (s *service) compared() error {
	for end := time.Now().Add(5 * time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		for _, p := range s.processes() {
			log, err := os.ReadFile(p.file + ".log")
			if err != nil {
				return err
			}
			if bytes.Contains(log, []byte(compared)) {
				return nil
			}
		}
	}
	return errors.New("the files were not compared with the index within 5 minutes")
}

// compared is what the log says then.
const compared = "the files were compared with the index"

func (p *server) ready() error {
	for end := time.Now().Add(5 * time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		port, err := os.ReadFile(p.file + ".port")
		if err != nil {
			continue
		}
		p.root = "http://127.0.0.1:" + strings.TrimSpace(string(port))
		if _, err := p.get("/readyz"); err == nil {
			return nil
		}
	}
	said, _ := os.ReadFile(p.file + ".log")
	return fmt.Errorf("the service is not ready: %.2000s", said)
}

func (p *server) get(path string) ([]byte, error) {
	resp, err := http.Get(p.root + path)
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

// samples are those of /metrics whose names begin so, by what comes after that, summed over the workers.
func (s *service) samples(prefix string) (map[string]float64, error) {
	sum := map[string]float64{}
	for _, p := range s.workers {
		b, err := p.get("/metrics")
		if err != nil {
			return nil, err
		}
		for l := range strings.Lines(string(b)) {
			name, value, _ := strings.Cut(strings.TrimSpace(l), " ")
			if rest, ok := strings.CutPrefix(name, prefix); ok {
				v, _ := strconv.ParseFloat(value, 64)
				sum[rest] += v
			}
		}
	}
	return sum, nil
}

// metric is a sample of /metrics, summed over the workers; -1 where there is none.
func (s *service) metric(name string) float64 {
	all, err := s.samples(name)
	if v, ok := all[""]; ok && err == nil {
		return v
	}
	return -1
}

// until waits until a metric has a value; idle: and until nothing is read any more.
func (s *service) until(name string, value int, idle bool) error {
	for end := time.Now().Add(5 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if s.metric(name) >= float64(value) && (!idle || s.metric("chatxray_studies_reading") == 0) {
			return nil
		}
	}
	return fmt.Errorf("%s does not reach %d", name, value)
}

// complete waits until no study is being received any more.
func (s *service) complete() error {
	for end := time.Now().Add(30 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		var page struct{ Studies []struct{} }
		b, err := s.web.get("/dicom-web/readings?state=receiving")
		if err == nil {
			err = json.Unmarshal(b, &page)
		}
		if err != nil {
			return err
		}
		if len(page.Studies) == 0 {
			return nil
		}
	}
	return errors.New("studies do not become complete")
}

// rate is how many studies are read in a second, over a while.
func (s *service) rate(d time.Duration) (float64, error) {
	began := time.Now()
	from, err := s.samples(read)
	if err != nil {
		return 0, err
	}
	time.Sleep(d)
	took := time.Since(began)
	to, err := s.samples(read)
	return (to[""] - from[""]) / took.Seconds(), err
}

// begun is when the reading of a study began.
func (s *service) begun(uid string) (time.Time, error) {
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var t struct {
			Steps []struct {
				At    time.Time
				State string
			}
		}
		if b, err := s.web.get("/dicom-web/studies/" + uid + "/reading/timeline"); err == nil {
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
