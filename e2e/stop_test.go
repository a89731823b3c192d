package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
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
	begun := make(chan struct{}) // the service reads the body
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got100Continue: func() { close(begun) }})
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.dicomweb()+"/studies", body)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", `multipart/related; type="application/dicom"; boundary=x`)
	request.Header.Set("Expect", "100-continue")
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		if resp, err := (&http.Transport{ExpectContinueTimeout: time.Minute}).RoundTrip(request); err == nil {
			resp.Body.Close()
		}
	}()
	select {
	case <-begun:
	case <-time.After(time.Minute):
		t.Fatal("the service does not read the upload")
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
	_, _ = io.WriteString(upload, "--x--\r\n")
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
