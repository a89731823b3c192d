// Objects compares archives whose files lie in a folder and in S3: STOW-RS of studies of one instance, over loopback, each answered 200. The server is
// versitygw over a folder of the same disk, so that both sides write to it.
//
//	go run ./bench/objects -versitygw $(bash scripts/tool.sh versitygw)
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"chatxray/dicomweb"
	"chatxray/pipeline"
	"chatxray/pipeline/archive"
	"chatxray/pipeline/dicom"
)

func main() {
	gateway := flag.String("versitygw", "versitygw", "the S3 server")
	dir := flag.String("dir", "", "where everything is written; default: a temporary folder")
	studies := flag.Int("studies", 400, "of each kind and each round")
	rounds := flag.Int("rounds", 5, "of which the median counts")
	clients := flag.Int("clients", 8, "at the same time")
	flag.Parse()
	if err := run(*gateway, *dir, *studies, *rounds, *clients); err != nil {
		log.Fatal(err)
	}
}

func run(gateway, dir string, studies, rounds, clients int) error {
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "objects"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	}
	s3, stop, err := store(gateway, filepath.Join(dir, "s3"))
	if err != nil {
		return err
	}
	defer stop()
	for _, size := range []int{64 << 10, 8 << 20} {
		took := map[string][]time.Duration{}
		for round := range rounds {
			for _, kind := range []string{"folder", "s3"} {
				opts := archive.Options{Header: dicom.OpenHeader}
				if kind == "s3" {
					opts.Objects, opts.S3, opts.Cache = fmt.Sprintf("s3://kept/%d/%d", size, round), s3, 1<<30
				}
				n := studies
				if size > 1<<20 {
					n = max(1, n/8)
				}
				t, err := one(filepath.Join(dir, fmt.Sprint(kind, size, "-", round)), opts, n, clients, size)
				if err != nil {
					return err
				}
				took[kind] = append(took[kind], t/time.Duration(n))
			}
		}
		median := func(kind string) time.Duration {
			slices.Sort(took[kind])
			return took[kind][rounds/2]
		}
		f, o := median("folder"), median("s3")
		fmt.Printf("%d kB: folder %.0f studies/s, S3 %.0f studies/s, ratio %.2f (%d clients)\n", size>>10, float64(time.Second)/float64(f), float64(time.Second)/float64(o),
			float64(f)/float64(o), clients)
	}
	return nil
}

// one stores n studies in a new archive and returns how long that took.
func one(dir string, opts archive.Options, n, clients, size int) (time.Duration, error) {
	a, err := archive.Open(dir, dicom.OpenFile, opts)
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	defer a.Close()
	server := httptest.NewServer(dicomweb.New(dicomweb.Default(), a, dicomweb.Deps{Log: zerolog.Nop(), Lookup: dicom.Lookup}))
	defer server.Close()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
	defer client.CloseIdleConnections()
	bodies := make([][]byte, n)
	for i := range bodies {
		if bodies[i], err = object(i, size); err != nil {
			return 0, err
		}
	}
	next := make(chan []byte)
	var work sync.WaitGroup
	var mu sync.Mutex
	begun := time.Now()
	for range clients {
		work.Go(func() {
			for b := range next {
				r, perr := client.Post(server.URL+dicomweb.Root+"/studies", "application/dicom", bytes.NewReader(b))
				if perr == nil {
					_, _ = io.Copy(io.Discard, r.Body)
					r.Body.Close()
					if r.StatusCode != http.StatusOK {
						perr = fmt.Errorf("answered %s", r.Status)
					}
				}
				if perr != nil {
					mu.Lock()
					err = perr
					mu.Unlock()
				}
			}
		})
	}
	for _, b := range bodies {
		next <- b
	}
	close(next)
	work.Wait()
	return time.Since(begun), err
}

// object is an instance of about so many bytes.
func object(n, size int) ([]byte, error) {
	study := fmt.Sprintf("1.2.3.%d", n)
	var d pipeline.Dataset
	d.SetText(pipeline.TagSOPClassUID, "UI", "1.2.840.10008.5.1.4.1.1.1.1")
	d.SetText(pipeline.TagSOPInstanceUID, "UI", study+".1.1")
	d.SetText(pipeline.TagModality, "CS", "DX")
	d.SetText(pipeline.TagStudyInstanceUID, "UI", study)
	d.SetText(pipeline.TagSeriesInstanceUID, "UI", study+".1")
	b, err := dicom.Encode(d)
	if err != nil {
		return nil, err
	}
	pixels := make([]byte, size)
	for i := range pixels {
		pixels[i] = byte(i * (n + 7) >> 3)
	}
	b = append(b, 0xE0, 0x7F, 0x10, 0x00, 'O', 'W', 0, 0, byte(size), byte(size>>8), byte(size>>16), byte(size>>24))
	return append(b, pixels...), nil
}

// store starts the S3 server with the bucket kept.
func store(bin, dir string) (c archive.S3, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return c, nil, err
	}
	at := l.Addr().String()
	l.Close()
	if err := os.MkdirAll(filepath.Join(dir, "kept"), 0o700); err != nil {
		return c, nil, err
	}
	cmd := exec.Command(bin, "--access", "bench", "--secret", "of-the-bench", "--port", at, "posix", dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return c, nil, err
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		var d net.Dialer
		conn, derr := d.DialContext(context.Background(), "tcp", at)
		if err = derr; derr == nil {
			conn.Close()
			break
		}
	}
	c = archive.S3{Endpoint: "http://" + at, Region: "us-east-1", AccessKey: "bench", SecretKey: "of-the-bench", PathStyle: true, TimeoutSeconds: 30}
	return c, func() { _, _ = cmd.Process.Kill(), cmd.Wait() }, err
}
