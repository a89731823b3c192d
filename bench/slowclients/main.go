// Command slowclients measures what many slow uploads cost a fast client and the service's memory. The service (HTTP face and archive,
// without a model) runs in a process of its own.
//
//	go run ./bench/slowclients [-clients 1000]
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"chatxray/dicomweb"
	"chatxray/pipeline"
	"chatxray/pipeline/archive"
	"chatxray/pipeline/dicom"
)

func main() {
	clients := flag.Int("clients", 1000, "slow clients")
	serving := flag.String("serve", "", "be the service, over this folder")
	flag.Parse()
	var err error
	if *serving != "" {
		err = serve(*serving)
	} else {
		err = measure(*clients)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "slowclients:", err)
		os.Exit(1)
	}
}

func serve(dir string) error {
	a, err := archive.Open(dir, dicom.OpenFile, archive.Options{Header: dicom.OpenHeader})
	if err != nil {
		return err
	}
	defer a.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	ctx, cancel := context.WithCancel(context.Background())
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); cancel() }() // ends with its parent
	cfg := dicomweb.Default()
	cfg.Drain = time.Second
	_ = dicomweb.Serve(ctx, l, dicomweb.New(cfg, a, dicomweb.Deps{Lookup: dicom.Lookup, Log: zerolog.Nop()}), cfg)
	return nil
}

func measure(clients int) error {
	dir, err := os.MkdirTemp("", "slowclients")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	child := exec.Command(os.Args[0], "-serve", dir)
	child.Stderr = os.Stderr
	in, err := child.StdinPipe()
	if err != nil {
		return err
	}
	out, err := child.StdoutPipe()
	if err != nil {
		return err
	}
	if err := child.Start(); err != nil {
		return err
	}
	defer func() { in.Close(); _ = child.Wait() }()
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return err
	}
	address = strings.TrimSpace(address)
	n := 0
	fast := func() (time.Duration, error) {
		var times []time.Duration
		for range 9 {
			n++
			took, err := upload(address, n)
			if err != nil {
				return 0, err
			}
			times = append(times, took)
		}
		slices.Sort(times)
		return times[len(times)/2], nil
	}
	idle := rss(child.Process.Pid)
	alone, err := fast()
	if err != nil {
		return err
	}
	before := rss(child.Process.Pid)
	stop := make(chan struct{})
	var work sync.WaitGroup
	failed := make(chan error, clients)
	for range clients {
		work.Go(func() { failed <- slow(address, stop) })
	}
	time.Sleep(5 * time.Second)
	during := rss(child.Process.Pid)
	beside, err := fast()
	close(stop)
	work.Wait()
	close(failed)
	for ferr := range failed {
		err = errors.Join(err, ferr)
	}
	fmt.Printf("RSS idle %d MB, after uploads of 8.4 MB %d MB, with %d uploads of 1 kB/s %d MB (%.0f kB each)\n", idle>>10, before>>10, clients, during>>10, float64(during-before)/float64(clients))
	fmt.Printf("upload of 8.4 MB, median of 9: alone %v, beside them %v\n", alone.Round(time.Millisecond), beside.Round(time.Millisecond))
	return err
}

// slow uploads 1 kB/s until it is told to stop.
func slow(address string, stop <-chan struct{}) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/related; type=\"application/dicom\"; boundary=b\r\nContent-Length: 10000000\r\n\r\n--b\r\nContent-Type: application/dicom\r\n\r\n")
	for {
		if _, err := conn.Write(make([]byte, 1000)); err != nil {
			return fmt.Errorf("a slow client was cut off: %w", err)
		}
		select {
		case <-stop:
			return nil
		case <-time.After(time.Second):
		}
	}
}

// upload stores one instance of 8.4 MB.
func upload(address string, n int) (time.Duration, error) {
	const size = 8 << 20
	var d pipeline.Dataset
	for _, e := range []struct {
		tag      pipeline.Tag
		vr, text string
	}{{pipeline.TagSOPClassUID, "UI", "1.2.840.10008.5.1.4.1.1.1.1"}, {pipeline.TagSOPInstanceUID, "UI", fmt.Sprint("1.2.3.4.", n)}, {pipeline.TagModality, "CS", "DX"},
		{pipeline.TagStudyInstanceUID, "UI", fmt.Sprint("1.2.", n)}, {pipeline.TagSeriesInstanceUID, "UI", fmt.Sprint("1.2.3.", n)}, {pipeline.TagPhotometricInterpretation, "CS", "MONOCHROME2"}} {
		d.SetText(e.tag, e.vr, e.text)
	}
	for tag, v := range map[pipeline.Tag]int64{pipeline.TagSamplesPerPixel: 1, pipeline.TagRows: 2048, pipeline.TagColumns: 2048,
		pipeline.TagBitsAllocated: 16, pipeline.TagBitsStored: 16, pipeline.TagHighBit: 15, pipeline.TagPixelRepresentation: 0} {
		d.SetInts(tag, "US", v)
	}
	b, err := dicom.Encode(d)
	if err != nil {
		return 0, err
	}
	b = binary.LittleEndian.AppendUint32(append(b, "\xE0\x7F\x10\x00OW\x00\x00"...), size)
	b = append(b, make([]byte, size)...)
	began := time.Now()
	r, err := http.Post("http://"+address+"/dicom-web/studies", "application/dicom", bytes.NewReader(b))
	if err != nil {
		return 0, err
	}
	defer r.Body.Close()
	if answer, _ := io.ReadAll(r.Body); r.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("%s: %s", r.Status, answer)
	}
	return time.Since(began), nil
}

// rss is the resident memory of a process in kB.
func rss(pid int) int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for _, l := range strings.Split(string(b), "\n") {
		if v, ok := strings.CutPrefix(l, "VmRSS:"); ok {
			var kb int
			_, _ = fmt.Sscan(v, &kb)
			return kb
		}
	}
	return 0
}
