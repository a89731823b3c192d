package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"chatxray/phantom"
	"chatxray/pipeline/dicom"
)

// server is one of the two that are compared.
type server struct {
	name string
	root string // of the DICOMweb resources
	cmd  *exec.Cmd
}

// set is the objects that both servers have.
type set struct {
	files [][]byte
	paths []string // of their WADO-RS resources, under root
}

// newSet draws radiographs of 2048 x 2048 pixels of 16 bits, 8.4 MB each.
func newSet() (*set, error) {
	s := new(set)
	for seed := range uint64(4) {
		p, err := phantom.Draw(phantom.Options{Seed: seed + 1, Rows: 2048, Columns: 2048, BitsStored: 12, Photometric: "MONOCHROME2", View: "PA"})
		if err != nil {
			return nil, err
		}
		b, err := dicom.Encode(p.Dataset())
		if err != nil {
			return nil, err
		}
		in, err := dicom.Open(b)
		if err != nil {
			return nil, err
		}
		s.files = append(s.files, b)
		s.paths = append(s.paths, "/studies/"+in.StudyInstanceUID+"/series/"+in.SeriesInstanceUID+"/instances/"+in.SOPInstanceUID)
	}
	return s, nil
}

// startOther starts what ours is compared with, in a folder of its own: Orthanc, or another build of the service.
func startOther(bin, dir string) (*server, error) {
	if bin == "" {
		return startOrthanc(dir)
	}
	s, err := startOurs(bin, dir)
	if err == nil {
		s.name = "other"
	}
	return s, err
}

func startOrthanc(dir string) (*server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	plugins, _ := filepath.Glob("/usr/share/orthanc/plugins/libOrthancDicomWeb.so*")
	if len(plugins) == 0 {
		return nil, errors.New("Orthanc's DICOMweb plugin is not installed (Debian packages orthanc, orthanc-dicomweb)")
	}
	data := filepath.Join(dir, "data")
	cfg, err := json.Marshal(map[string]any{
		"Name": "bench", "HttpPort": port, "DicomServerEnabled": false, "RemoteAccessAllowed": false, "AuthenticationEnabled": false,
		"StorageDirectory": data, "IndexDirectory": data, "Plugins": plugins[:1], "DicomWeb": map[string]any{"Enable": true}, "SyncStorageArea": true, "MaximumStorageSize": 0,
	})
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "orthanc.json")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(file, cfg, 0o600); err != nil {
		return nil, err
	}
	s := &server{name: "Orthanc", root: fmt.Sprintf("http://127.0.0.1:%d/dicom-web", port), cmd: exec.Command("Orthanc", file)}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	return s, s.await()
}

// startOurs starts the service without anything being read meanwhile.
func startOurs(bin, dir string) (*server, error) {
	cfg, port := filepath.Join(dir, "chatxray.yaml"), filepath.Join(dir, "port")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(cfg, []byte("line:\n  quiet: 1h\n"), 0o600); err != nil {
		return nil, err
	}
	s := &server{name: "ChatXRay", cmd: exec.Command(bin, "--log-level", "error", "serve", "--config", cfg, "--data", filepath.Join(dir, "data"),
		"--listen", "127.0.0.1:0", "--port-file", port)}
	s.cmd.Stderr = os.Stderr
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	for end := time.Now().Add(2 * time.Minute); s.root == ""; time.Sleep(100 * time.Millisecond) {
		if b, err := os.ReadFile(port); err == nil && len(b) > 0 {
			s.root = "http://127.0.0.1:" + strings.TrimSpace(string(b)) + "/dicom-web"
		}
		if time.Now().After(end) {
			s.stop()
			return nil, errors.New("the service does not start")
		}
	}
	return s, s.await()
}

func (s *server) await() error {
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if resp, err := http.Get(s.root + "/studies?limit=1"); err == nil {
			resp.Body.Close()
			return nil
		}
		if time.Now().After(end) {
			s.stop()
			return fmt.Errorf("%s does not answer", s.name)
		}
	}
}

func (s *server) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	_ = s.cmd.Wait()
}

// cpu is the processor time that the server's process has had, user and system, in ms.
func (s *server) cpu() (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 13 {
		return 0, errors.New("/proc/PID/stat has another form")
	}
	user, err1 := strconv.ParseFloat(fields[11], 64)
	system, err2 := strconv.ParseFloat(fields[12], 64)
	const tick = 10 // ms: USER_HZ is 100 on Linux
	return (user + system) * tick, errors.Join(err1, err2)
}

// store sends the set by STOW-RS.
func (s *server) store(objects *set) error {
	const boundary = "bench"
	for _, f := range objects.files {
		body := bytes.NewBufferString("--" + boundary + "\r\nContent-Type: application/dicom\r\n\r\n")
		body.Write(f)
		body.WriteString("\r\n--" + boundary + "--\r\n")
		resp, err := http.Post(s.root+"/studies", `multipart/related; type="application/dicom"; boundary=`+boundary, body)
		if err != nil {
			return err
		}
		answer, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s does not store: %d %s", s.name, resp.StatusCode, answer)
		}
	}
	return nil
}

// get asks for a resource and reads the answer; the header must be 200 and the body at least so long.
func (s *server) get(path, accept string, least int64) error {
	r, err := http.NewRequest(http.MethodGet, s.root+path, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Accept", accept)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || n < least) {
		err = fmt.Errorf("%s answers %s with %d and %d bytes", s.name, path, resp.StatusCode, n)
	}
	return err
}
