package dicomweb_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"chatxray/dicomweb"
	"chatxray/pipeline"
	"chatxray/pipeline/archive"
)

func patience(idle time.Duration) option {
	return func(c *dicomweb.Config, _ *dicomweb.Deps, _ *archive.Options) { c.Idle = idle }
}

// A client that asks and never reads is cut off, whatever it asks for, and also where it asks for a WebSocket.
func TestClientThatNeverReads(t *testing.T) {
	s := start(t, patience(time.Second))
	var sets []pipeline.Dataset
	for i := range 30 {
		sets = append(sets, object(t, "1.2.1", "1.2.1.1", fmt.Sprint("1.2.1.1.", i)))
	}
	s.store(sets...)
	for _, path := range []string{"/healthz", "/metrics", "/nowhere", "/dicom-web/instances", "/dicom-web/studies/1.2.1", "/dicom-web/studies/1.2.1/metadata",
		"/dicom-web/instances Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			host := s.host()
			conn, err := net.Dial("tcp", host)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
				t.Fatal(err)
			}
			path, upgrade, _ := strings.Cut(path, " ")
			request := []byte(strings.Repeat("GET "+path+" HTTP/1.1\r\nHost: "+host+"\r\n"+upgrade+"\r\n", 1000))
			for err == nil { // until the answers have filled every buffer, and the server has lost its patience
				_, err = conn.Write(request)
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the server still waits for the client to read")
			}
		})
	}
}

// A client that reads slowly gets everything, however long it takes.
func TestSlowClient(t *testing.T) {
	const idle = 3 * time.Second
	s := start(t, patience(idle))
	file := append(pixelFile(t, 4<<20, 0), make([]byte, 4<<20)...)
	if r := s.post("/studies", "application/dicom", bytes.NewReader(file)); r.StatusCode != 200 {
		t.Fatalf("%d %s", r.StatusCode, r.body)
	}
	began := time.Now()
	resp, err := http.Get(s.root + "/studies/1.2")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got := int64(0)
	for err == nil {
		var n int64
		n, err = io.CopyN(io.Discard, resp.Body, 512<<10)
		got += n
		time.Sleep(time.Second)
	}
	if err != io.EOF || got < int64(len(file)) {
		t.Errorf("%d bytes, then %v", got, err)
	}
	if took := time.Since(began); took < 2*idle {
		t.Errorf("it took only %v, which shows nothing", took)
	}
}
