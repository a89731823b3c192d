package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"chatxray/pipeline/dicom"
)

// study is what one study took, in ms.
type study struct {
	total, run float64            // complete to SR stored; of it inside ONNX Runtime
	steps      map[string]float64 // by name
	order      []string           // of the steps
}

// service is a running chatxray serve.
type service struct {
	bin, url string
	cmd      *exec.Cmd
	mu       sync.Mutex
	steps    map[string]*study // by Study Instance UID
}

// start starts the service on a free port and waits until it listens.
func start(bin, dir string, quiet time.Duration) (*service, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	cfg, port := filepath.Join(dir, "c.yaml"), filepath.Join(dir, "port")
	if err := os.WriteFile(cfg, fmt.Appendf(nil, "line:\n  quiet: %v\n", quiet), 0o644); err != nil {
		return nil, err
	}
	s := &service{bin: bin, steps: map[string]*study{}}
	s.cmd = exec.Command(bin, "--log-level", "debug", "--log-json", "serve", "--config", cfg, "--data", filepath.Join(dir, "data"),
		"--listen", "127.0.0.1:0", "--port-file", port)
	log, err := s.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go s.listen(log)
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if b, err := os.ReadFile(port); err == nil && len(b) > 0 {
			s.url = "http://127.0.0.1:" + strings.TrimSpace(string(b)) + "/dicom-web"
			return s, nil
		}
	}
	s.stop()
	return nil, errors.New("the service did not start")
}

func (s *service) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	_ = s.cmd.Wait()
}

// listen takes the steps out of the service's log and shows what else is worth it.
func (s *service) listen(log io.Reader) {
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		var l struct {
			Level, Study, Step string
			Took               float64
		}
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil || l.Level == "warn" || l.Level == "error" {
			fmt.Fprintln(os.Stderr, lines.Text())
		}
		if l.Step == "" {
			continue
		}
		s.mu.Lock()
		st := s.of(l.Study)
		if _, again := st.steps[l.Step]; !again {
			st.order = append(st.order, l.Step)
		}
		st.steps[l.Step] += l.Took
		s.mu.Unlock()
	}
}

func (s *service) of(uid string) *study {
	if s.steps[uid] == nil {
		s.steps[uid] = &study{steps: map[string]float64{}}
	}
	return s.steps[uid]
}

// report sends an object and waits for the report of its study.
func (s *service) report(path, uid string) (study, error) {
	if out, err := exec.Command(s.bin, "send", s.url, path).CombinedOutput(); err != nil {
		return study{}, fmt.Errorf("send: %w: %s", err, out)
	}
	for end := time.Now().Add(5 * time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		var status struct {
			State  string
			Record struct {
				Completed, Reported time.Time
				Error               string
				Reading             struct {
					RunSeconds float64 `json:"run_seconds"`
				}
			}
		}
		resp, err := http.Get(s.url + "/studies/" + uid + "/reading")
		if err != nil {
			return study{}, err
		}
		err = json.NewDecoder(resp.Body).Decode(&status)
		resp.Body.Close()
		if err != nil {
			return study{}, err
		}
		switch r := status.Record; status.State {
		case "reported":
			time.Sleep(50 * time.Millisecond) // for the last line of the log
			s.mu.Lock()
			defer s.mu.Unlock()
			st := *s.of(uid)
			st.total, st.run = 1e3*r.Reported.Sub(r.Completed).Seconds(), 1e3*r.Reading.RunSeconds
			if _, ok := st.steps["model"]; ok {
				st.steps["model"] -= st.run
			}
			return st, nil
		case "refused", "failed":
			return study{}, fmt.Errorf("study %s: %s %s", uid, status.State, r.Error)
		}
	}
	return study{}, fmt.Errorf("study %s is not reported after 5 minutes", uid)
}

// copies makes objects of a file that differ in nothing but their UIDs: the last digits of these are a number, as long as before.
func copies(path string) (kind, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return kind{}, err
	}
	in, err := dicom.Peek(data)
	if err != nil {
		return kind{}, err
	}
	return kind{filepath.Base(path), func(path string, i int) (string, error) {
		b := bytes.Clone(data)
		for _, uid := range []string{in.StudyInstanceUID, in.SeriesInstanceUID, in.SOPInstanceUID} {
			b = bytes.ReplaceAll(b, []byte(uid), []byte(numbered(uid, i)))
		}
		return numbered(in.StudyInstanceUID, i), os.WriteFile(path, b, 0o600)
	}}, nil
}

// numbered puts a number in the place of a UID's last four digits, none of which becomes 0.
func numbered(uid string, i int) string {
	b := []byte(uid)
	for at, left := len(b)-1, 4; at >= 0 && left > 0; at-- {
		if b[at] != '.' {
			b[at] = byte('1' + i%9)
			i, left = i/9, left-1
		}
	}
	return string(b)
}
