package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patch returns a copy of a phantom's bytes with a change.
func patch(b []byte, change func([]byte) []byte) []byte { return change(bytes.Clone(b)) }

// element finds an explicit VR little endian element by group, number and VR, and returns where its value begins.
func element(t *testing.T, b []byte, group, number uint16, vr string) int {
	t.Helper()
	var head []byte
	head = binary.LittleEndian.AppendUint16(head, group)
	head = binary.LittleEndian.AppendUint16(head, number)
	i := bytes.Index(b, append(head, vr...))
	if i < 0 {
		t.Fatalf("the phantom has no (%04X,%04X) %s", group, number, vr)
	}
	return i + 8
}

func replaced(t *testing.T, b []byte, old, new string) []byte {
	t.Helper()
	if !bytes.Contains(b, []byte(old)) || len(old) != len(new) {
		t.Fatalf("cannot put %q for %q", new, old)
	}
	return bytes.Replace(b, []byte(old), []byte(new), -1)
}

// nested is a data set of sequences in sequences, 40 KB of them.
func nested(b []byte) []byte {
	end := bytes.Index(b, []byte{0x28, 0x00, 0x02, 0x00, 'U', 'S'}) // before Samples per Pixel: tags stay in order
	var deep []byte
	for len(deep) < 40<<10 {
		deep = append(deep, 0x27, 0x00, 0x10, 0x00, 'S', 'Q', 0, 0, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xff, 0x00, 0xe0, 0xff, 0xff, 0xff, 0xff)
	}
	return append(append(bytes.Clone(b[:end]), deep...), b[end:]...)
}

// What is wrong with a file is told at the door in one sentence, with the right exit code, and through STOW-RS with the right status.
func TestBadFiles(t *testing.T) {
	good, _ := phantom(t)
	b, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	second, _ := phantom(t, "--seed", "2")
	other, err := os.ReadFile(second)
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, t.TempDir())
	for _, tc := range []struct {
		name   string
		bytes  []byte
		exit   int    // of chatxray report
		says   string // part of its sentence
		status int    // of STOW-RS
	}{
		{"not DICOM", []byte("%PDF-1.7 this is something else, and it is long enough to be taken for a file of a hundred and thirty-two bytes or more, if nobody looks at it closely."), 3, "DICOM", 409},
		{"empty", nil, 3, "", 409},
		{"truncated", b[:len(b)/2], 3, "", 409},
		{"wrong length", patch(b, func(b []byte) []byte {
			i := element(t, b, 0x0008, 0x0060, "CS")
			binary.LittleEndian.PutUint16(b[i-2:], 0xfffe)
			return b
		}), 3, "", 409},
		{"40 KB of nested sequences", nested(b), 3, "", 409},
		{"Rows of a wrong VR", patch(b, func(b []byte) []byte {
			i := element(t, b, 0x0028, 0x0010, "US")
			copy(b[i-4:], "FD")
			return b
		}), 3, "", 409},
		{"60,000 x 60,000 pixels declared", patch(b, func(b []byte) []byte {
			binary.LittleEndian.PutUint16(b[element(t, b, 0x0028, 0x0010, "US"):], 60000)
			binary.LittleEndian.PutUint16(b[element(t, b, 0x0028, 0x0011, "US"):], 60000)
			return b
		}), 4, "60", 200},
		{"private transfer syntax", replaced(t, b, "1.2.840.10008.1.2.1\x00", "1.2.840.99999.1.2.1\x00"), 3, "transfer syntax", 409},
		{"CT", patch(other, func(b []byte) []byte {
			i := element(t, b, 0x0008, 0x0060, "CS")
			copy(b[i:], "CT")
			return replaced(t, b, "1.2.840.10008.5.1.4.1.1.1.1\x00", "1.2.840.10008.5.1.4.1.1.2\x00\x00\x00")
		}), 4, "", 200},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "file.dcm")
			if err := os.WriteFile(file, tc.bytes, 0o644); err != nil {
				t.Fatal(err)
			}
			out, errs := chatxray(t, tc.exit, "report", file)
			if !strings.Contains(out+errs, tc.says) {
				t.Errorf("said nothing of %q:\n%s%s", tc.says, out, errs)
			}
			if strings.Contains(out+errs, "goroutine ") || strings.Contains(out+errs, "panic") {
				t.Errorf("it crashed:\n%s%s", out, errs)
			}
			status, answer := stow(t, s, tc.bytes)
			if status != tc.status {
				t.Errorf("STOW-RS answers %d, want %d: %s", status, tc.status, answer)
			}
		})
	}
	// The service has survived all of it and still reads.
	file, study := phantom(t, "--seed", "7")
	chatxray(t, 0, "send", s.dicomweb(), file)
	chatxray(t, 0, "show", s.dicomweb(), study)
}

func stow(t *testing.T, s *service, files ...[]byte) (status int, answer []byte) {
	t.Helper()
	var body bytes.Buffer
	for _, f := range files {
		body.WriteString("--b\r\nContent-Type: application/dicom\r\n\r\n")
		body.Write(f)
		body.WriteString("\r\n")
	}
	body.WriteString("--b--\r\n")
	resp, err := http.Post(s.dicomweb()+"/studies", `multipart/related; type="application/dicom"; boundary=b`, &body)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, answer
}

// The same UID with other pixels is refused, and what was there first stays.
func TestSameUIDOtherPixels(t *testing.T) {
	file, study := phantom(t)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, t.TempDir())
	if status, answer := stow(t, s, b); status != 200 {
		t.Fatalf("%d %s", status, answer)
	}
	other := patch(b, func(b []byte) []byte { b[len(b)-1001] ^= 1; return b })
	if status, answer := stow(t, s, other); status != 409 {
		t.Errorf("other pixels: %d %s", status, answer)
	}
	if status, answer := stow(t, s, b); status != 200 {
		t.Errorf("the same again: %d %s", status, answer)
	}
	var series []map[string]struct{ Value []any }
	getJSON(t, s.dicomweb()+"/studies/"+study+"/instances", &series)
	got, err := get(fmt.Sprintf("%s/studies/%s/series/%v/instances/%v", s.dicomweb(), study, series[0]["0020000E"].Value[0], series[0]["00080018"].Value[0]))
	if err != nil || !bytes.Contains(got, b[132:]) {
		t.Errorf("what was stored first is not what comes back (%v)", err)
	}
}

// Each fault of the surroundings is one sentence that says what to do, with the documented exit code.
func TestBadSurroundings(t *testing.T) {
	bin := built(t)
	file, _ := phantom(t)
	dir := t.TempDir()
	write := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return p
	}
	busy := serve(t, t.TempDir())
	good := filepath.Join(root, "bundles", "chatxray-base")
	wrongHash, missing := copyBundle(t, good), copyBundle(t, good)
	b, err := os.ReadFile(filepath.Join(wrongHash, "adapter.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(filepath.Join(wrongHash, "adapter.onnx"), b, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(missing, "vision.onnx")); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		env  []string
		args []string
		exit int
		says []string
	}{
		{"typo in the configuration", nil, []string{"serve", "--config", write("typo.yaml", "lissten: 127.0.0.1:0\n")}, 6, []string{"lissten", "typo.yaml"}},
		{"configuration that is not there", nil, []string{"serve", "--config", filepath.Join(dir, "nothing.yaml")}, 6, []string{"nothing.yaml"}},
		{"port in use", nil, []string{"serve", "--data", t.TempDir(), "--listen", strings.TrimPrefix(busy.root, "http://")}, 6, []string{"in use", "--listen"}},
		{"open to the world", nil, []string{"serve", "--data", t.TempDir(), "--listen", "0.0.0.0:0"}, 6, []string{"dicomweb.auth"}},
		{"no such bundle", nil, []string{"report", "--bundle", "nothing-of-that-name", file}, 5, []string{"nothing-of-that-name"}},
		{"bundle with a wrong hash", nil, []string{"report", "--bundle", wrongHash, file}, 5, []string{"adapter.onnx", "sha256"}},
		{"bundle without a graph", nil, []string{"report", "--bundle", missing, file}, 5, []string{"vision.onnx"}},
		{"parts not fetched", []string{"CHATXRAY_PARTS=" + t.TempDir()}, []string{"report", file}, 5, []string{"onnxruntime", "parts fetch"}},
		{"part that cannot be fetched", []string{"CHATXRAY_PARTS=" + t.TempDir(), "PATH=/nonexistent"}, []string{"parts", "fetch", "dcmjs-codecs"}, 5, []string{"npm"}},
		{"no such file", nil, []string{"report", filepath.Join(dir, "nothing.dcm")}, 3, []string{"nothing.dcm", "no such file"}},
		{"folder without DICOM", nil, []string{"report", t.TempDir()}, 3, []string{"no DICOM file"}},
		{"nobody at the URL", nil, []string{"send", "http://127.0.0.1:1/dicom-web", file}, 7, []string{"does not answer"}},
		{"unknown flag", nil, []string{"report", "--jsn", file}, 2, []string{"--json"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cmd := exec.Command(bin, tc.args...)
			cmd.Env = append(os.Environ(), tc.env...)
			out, _ := cmd.CombinedOutput()
			if got := cmd.ProcessState.ExitCode(); got != tc.exit {
				t.Errorf("exit code %d, want %d", got, tc.exit)
			}
			for _, w := range tc.says {
				if !strings.Contains(string(out), w) {
					t.Errorf("it does not say %q", w)
				}
			}
			if t.Failed() {
				t.Logf("it says:\n%s", out)
			}
		})
	}
}

func copyBundle(t *testing.T, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "bundle")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

// A service that is killed in the middle of a reading reports the study after a restart, once.
func TestKilledWhileReading(t *testing.T) {
	data := t.TempDir()
	quiet := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(quiet, []byte("line:\n  quiet: 200ms\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	file, study := phantom(t)
	first := serve(t, data, "--config", quiet)
	chatxray(t, 0, "send", first.dicomweb(), file)
	eventually(t, time.Minute, "the study to be read", func() error {
		if first.metric("chatxray_studies_reading") != "1" {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	first.stop(syscall.SIGKILL)
	second := serve(t, data, "--config", quiet)
	chatxray(t, 0, "show", second.dicomweb(), study)
	var found []map[string]struct{ Value []any }
	getJSON(t, second.dicomweb()+"/studies/"+study+"/instances", &found)
	if len(found) != 3 {
		t.Errorf("%d instances in the study, want the radiograph and two reports", len(found))
	}
	second.stop(syscall.SIGTERM)
	third := serve(t, data, "--config", quiet)
	time.Sleep(2 * time.Second)
	if n := third.metric("chatxray_studies_read_total"); n != "0" {
		t.Errorf("a study that was reported is read again after a restart (%s)", n)
	}
}
