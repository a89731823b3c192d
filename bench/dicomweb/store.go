package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

var storeMeasures = []measure{
	storing("STOW-RS 8.4 MB, one client", 1, false),
	storing("STOW-RS 8.4 MB, four clients", 4, false),
	storing("STOW-RS 8.4 MB, one client, with its length", 1, true),
	storing("STOW-RS 8.4 MB, four clients, with its length", 4, true),
}

// storing is a measure of clients that send new instances at the same time, one request each: with a Content-Length, or in chunks.
func storing(name string, clients int, sized bool) measure {
	return measure{name: name, bar: "1/3", share: 1, per: clients, prepare: func(s *server, objects *set) (func(int) error, error) {
		return func(int) error {
			var group errgroup.Group
			for range clients {
				group.Go(func() error { return s.send(objects, 1, sized) })
			}
			return group.Wait()
		}, nil
	}}
}

// sent counts the instances that were made, so that each is new.
var sent atomic.Int64

// renamed is a copy of an object under a SOP Instance UID of its own, of the same length.
func (s *set) renamed(i int) []byte {
	uid := s.paths[i][strings.LastIndexByte(s.paths[i], '/')+1:]
	other := uid[:len(uid)-9] + fmt.Sprintf("%09d", sent.Add(1))
	return bytes.ReplaceAll(s.files[i], []byte(uid), []byte(other))
}

// send stores n new instances in one request; they are made as they are sent, unless its length is to be known before.
func (s *server) send(objects *set, n int, sized bool) error {
	const boundary = "bench"
	body, w := io.Pipe()
	go func() {
		var err error
		for i := range n {
			_, err = io.WriteString(w, "--"+boundary+"\r\nContent-Type: application/dicom\r\n\r\n")
			if err == nil {
				_, err = w.Write(objects.renamed(i % len(objects.files)))
			}
			if err == nil {
				_, err = io.WriteString(w, "\r\n")
			}
			if err != nil {
				break
			}
		}
		if err == nil {
			_, err = io.WriteString(w, "--"+boundary+"--\r\n")
		}
		w.CloseWithError(err)
	}()
	var stream io.Reader = body
	if sized {
		b, err := io.ReadAll(body)
		if err != nil {
			return err
		}
		stream = bytes.NewReader(b)
	}
	resp, err := http.Post(s.root+"/studies", `multipart/related; type="application/dicom"; boundary=`+boundary, stream)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s does not store: %d %s", s.name, resp.StatusCode, answer)
	}
	return err
}

// bulkInstances is how many instances the one large request has.
const bulkInstances = 100

// growth is how far one request of many instances takes the server's memory above what it has when idle, in MB.
func (s *server) growth(objects *set) (float64, error) {
	idle, err := s.status("VmRSS")
	if err != nil {
		return 0, err
	}
	// 5 sets the peak back to the present (proc(5)).
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", s.cmd.Process.Pid), []byte("5"), 0); err != nil {
		return 0, err
	}
	if err := s.send(objects, bulkInstances, false); err != nil {
		return 0, err
	}
	peak, err := s.status("VmHWM")
	return peak - idle, err
}

// status is a size of /proc/PID/status in MB.
func (s *server) status(key string) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, key+":"); ok {
			kilobytes, err := strconv.ParseFloat(strings.Fields(value)[0], 64)
			return kilobytes / 1024, err
		}
	}
	return 0, errors.New("/proc/PID/status has no " + key)
}
