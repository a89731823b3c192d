package dicomweb_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chatxray/dicomweb"
	"chatxray/pipeline/archive"
	"chatxray/pipeline/dicom"
)

// served runs a service as main does and returns its address.
func served(t *testing.T, cfg dicomweb.Config) (address string, a *archive.Archive) {
	t.Helper()
	a, err := archive.Open(t.TempDir(), dicom.OpenFile, archive.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l := listen(t, "127.0.0.1:0")
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- dicomweb.Serve(ctx, l, dicomweb.New(cfg, a, dicomweb.Deps{Open: dicom.OpenFile, Lookup: dicom.Lookup}), cfg)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		a.Close()
	})
	return l.Addr().String(), a
}

// TestSlowClients: a thousand uploads of 1 kB/s, and then a fast client, which must not notice them.
func TestSlowClients(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: opens 1,000 connections")
	}
	const clients = 1000
	cfg := dicomweb.Default()
	cfg.Drain = time.Second
	address, _ := served(t, cfg)
	small := multipartOf("b", file(t, object(t, "1.2", "1.2.3", "1.2.3.1")))
	fast := func(n int) time.Duration {
		t.Helper()
		body := append([]byte("--f\r\nContent-Type: application/dicom\r\n\r\n"), pixelFile(t, 4<<20, n)...)
		body = append(append(body, make([]byte, 4<<20)...), "\r\n--f--\r\n"...)
		began := time.Now()
		r, err := http.Post("http://"+address+"/dicom-web/studies", related("f"), bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode != 200 {
			t.Fatal(r.Status)
		}
		return time.Since(began)
	}
	alone := fast(1)
	peak := watchHeap()
	stop := make(chan struct{})
	var work sync.WaitGroup
	var started, cut atomic.Int64
	for range clients {
		work.Go(func() {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			fmt.Fprintf(conn, "POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: 1000000\r\n\r\n", related("b"))
			started.Add(1)
			for i := 0; ; i++ {
				chunk := small[i%len(small) : min(i%len(small)+100, len(small))]
				if i*100 >= len(small)-200 {
					chunk = make([]byte, 100)
				}
				if _, err := conn.Write(chunk); err != nil {
					cut.Add(1)
					return
				}
				select {
				case <-stop:
					return
				case <-time.After(100 * time.Millisecond):
				}
			}
		})
	}
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end) && !strings.Contains(metricsOf(t, address), fmt.Sprint("chatxray_uploads_running ", clients)); {
		time.Sleep(100 * time.Millisecond)
	}
	beside := fast(2)
	running := strings.Contains(metricsOf(t, address), fmt.Sprint("chatxray_uploads_running ", clients))
	close(stop)
	work.Wait()
	grown := peak()
	t.Logf("alone %v, beside %d slow clients %v; the heap grew by %d MB", alone, clients, beside, grown>>20)
	if !running || cut.Load() > 0 {
		t.Errorf("the slow clients were not all there: %d started, %d cut off", started.Load(), cut.Load())
	}
	if beside > 3*time.Second+3*alone {
		t.Errorf("the fast client took %v instead of %v", beside, alone)
	}
	if grown > clients*200<<10 {
		t.Errorf("each slow client takes %d kB", grown/clients>>10)
	}
}

// TestSlowloris: a header that never ends is cut off after ten seconds, whatever trickles in, and costs nobody else anything.
func TestSlowloris(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: waits for ten seconds")
	}
	cfg := dicomweb.Default()
	cfg.Drain = time.Second
	address, _ := served(t, cfg)
	began := time.Now()
	var work sync.WaitGroup
	for range 100 {
		work.Go(func() {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, "GET /dicom-web/studies HTTP/1.1\r\nHost: x\r\n")
			_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
			go func() {
				for {
					if _, err := io.WriteString(conn, "X-a: b\r\n"); err != nil {
						return
					}
					time.Sleep(500 * time.Millisecond)
				}
			}()
			_, _ = io.ReadAll(conn)
			if took := time.Since(began); took > 15*time.Second {
				t.Errorf("cut off after %v", took)
			}
		})
	}
	time.Sleep(time.Second)
	if r, err := http.Get("http://" + address + "/dicom-web/studies"); err != nil || r.StatusCode != 200 {
		t.Error(r, err)
	}
	work.Wait()
	// A header larger than it may be is told.
	r, _ := http.NewRequest(http.MethodGet, "http://"+address+"/dicom-web/studies", nil)
	r.Header.Set("X-Bomb", strings.Repeat("x", 200<<10))
	got, err := http.DefaultClient.Do(r)
	if err != nil || got.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Error(got, err)
	}
}
