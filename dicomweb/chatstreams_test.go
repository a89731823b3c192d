package dicomweb_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"chatxray/dicomweb"
	"chatxray/pipeline"
)

// patientTalker answers with one piece and goes on when it is let.
type patientTalker struct {
	talker
	let chan struct{}
}

func (k *patientTalker) Chat(ctx context.Context, r pipeline.ChatRequest, emit func(pipeline.ChatPiece) error) (*pipeline.ChatAnswer, error) {
	if err := emit(pipeline.ChatPiece{Text: "First,"}); err != nil {
		return nil, err
	}
	select {
	case <-k.let:
		return &pipeline.ChatAnswer{End: pipeline.EndStop}, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

const (
	manyStreams = 10_000
	streamsAt   = "CHATXRAY_TEST_STREAMS" // the address, for the process that opens them
)

// Ten thousand clients want a stream at the same time and stay connected: as many as there may be get theirs, the others are told at once to come
// again, and nothing is left of any of them.
func TestManyStreams(t *testing.T) {
	k := &patientTalker{let: make(chan struct{})}
	s := talks(t, k)
	s.store(object(t, "1.2", "1.2.3", "1.2.3.4"))
	before := heap()
	goroutines := runtime.NumGoroutine()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestManyStreamsOpened$", "-test.count=1") // files that are open are counted by process
	cmd.Env = append(os.Environ(), streamsAt+"="+strings.TrimSuffix(s.root, dicomweb.Root))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	told := func() (streams, busy, other int) {
		for lines.Scan() {
			if n, _ := fmt.Sscanf(lines.Text(), "streams %d busy %d other %d", &streams, &busy, &other); n == 3 {
				return
			}
		}
		t.Fatal("the clients ended")
		return
	}
	streams, busy, other := told()
	t.Logf("%d streams, %d told to come again, %d others; %.0f MB more on the heap", streams, busy, other, float64(heap()-before)/1e6)
	if streams != dicomweb.MaxChats || busy != manyStreams-streams || other != 0 {
		t.Errorf("%d streams, %d told to come again, %d others", streams, busy, other)
	}
	if grown := heap() - before; grown > 512<<20 {
		t.Errorf("%d bytes more on the heap", grown)
	}
	close(k.let)
	if streams, _, other := told(); streams != dicomweb.MaxChats || other != 0 {
		t.Errorf("%d streams ended well, %d others", streams, other)
	}
	if r := s.v1("POST", "/v1/chat/completions", askedWith("dicom:1.2", `,"stream":true`)); r.StatusCode != 200 {
		t.Errorf("afterwards: %d %s", r.StatusCode, r.body)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	for until := time.Now().Add(time.Minute); runtime.NumGoroutine() > goroutines+20; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), goroutines)
		}
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestManyStreamsOpened is the clients of TestManyStreams, in a process of their own.
func TestManyStreamsOpened(t *testing.T) {
	at := os.Getenv(streamsAt)
	if at == "" {
		return
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: manyStreams, DisableCompression: true}}
	var mu sync.Mutex
	var open []io.ReadCloser
	var streams, busy, other int
	var wait sync.WaitGroup
	turn := make(chan struct{}, 256)
	for range manyStreams {
		turn <- struct{}{}
		wait.Go(func() {
			defer func() { <-turn }()
			req, err := http.NewRequest("POST", at+"/v1/chat/completions", strings.NewReader(askedWith("dicom:1.2", `,"stream":true`)))
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("Content-Type", "application/json")
			resp, err := client.Do(req)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				other++
				fmt.Fprintln(os.Stderr, err)
			case resp.StatusCode == http.StatusOK:
				streams++
				open = append(open, resp.Body)
			case resp.StatusCode == http.StatusTooManyRequests && resp.Header.Get("Retry-After") != "":
				busy++
				open = append(open, resp.Body) // not read: the connection stays
			default:
				other++
			}
		})
	}
	wait.Wait()
	fmt.Printf("streams %d busy %d other %d\n", streams, busy, other)
	streams, other = 0, 0
	for _, b := range open {
		all, err := io.ReadAll(b)
		switch {
		case err != nil && !errors.Is(err, io.EOF):
			other++
		case strings.HasSuffix(string(all), "data: [DONE]\n\n"):
			streams++
		}
	}
	fmt.Printf("streams %d busy %d other %d\n", streams, busy, other)
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}
