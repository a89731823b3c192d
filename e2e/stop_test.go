package e2e

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A service that is told to stop lets an upload finish, and begins no study meanwhile. What waits is read after the next start.
func TestNothingIsBegunWhileStopping(t *testing.T) {
	dir := t.TempDir()
	var files []string
	for i := range 6 {
		file := filepath.Join(dir, fmt.Sprintf("phantom%d.dcm", i))
		chatxray(t, 0, "phantom", "--seed", fmt.Sprint(i+1), "-o", file)
		files = append(files, file)
	}
	data, stub := t.TempDir(), []string{"--reader", "stub", "--stub-sleep", "2s"}
	s := serve(t, data, stub...)
	chatxray(t, 0, append([]string{"send", s.dicomweb()}, files...)...)
	eventually(t, time.Minute, "a study to be reported", func() error {
		if !strings.Contains(s.log.String(), `"message":"reported"`) {
			return fmt.Errorf("none is")
		}
		return nil
	})
	body, upload := io.Pipe()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.dicomweb()+"/studies", body)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", `multipart/related; type="application/dicom"; boundary=x`)
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		if resp, err := http.DefaultClient.Do(request); err == nil {
			resp.Body.Close()
		}
	}()
	if _, err := io.WriteString(upload, "--x\r\nContent-Type: application/dicom\r\n\r\n"); err != nil { // it is read: the request is under way
		t.Fatal(err)
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	time.Sleep(7 * time.Second) // three more could be read
	select {
	case <-s.done:
		t.Error("it ended before the upload")
	default:
	}
	_, _ = io.WriteString(upload, "\r\n--x--\r\n")
	_ = upload.Close()
	<-answered
	select {
	case <-s.done:
	case <-time.After(time.Minute):
		t.Fatal("it does not end")
	}
	before, after, ok := strings.Cut(s.log.String(), "stopping: ")
	if !ok || strings.Count(after, `"message":"reported"`) > 1 {
		t.Errorf("more than what was begun was read after the signal:\n%s", after)
	}
	if strings.Count(before+after, `"message":"reported"`) >= len(files) {
		t.Error("all were read: this proves nothing")
	}
	s = serve(t, data, stub...)
	eventually(t, time.Minute, "all to be reported", func() error {
		b, err := get(s.dicomweb() + "/readings?state=reported")
		if n := strings.Count(string(b), "study_instance_uid"); err != nil || n != len(files) {
			return fmt.Errorf("%d of %d are, %v", n, len(files), err)
		}
		return nil
	})
}
