package chaos

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// front is what stands before a server of others and can behave badly for a while: it refuses connections by itself, the rest is its handler's.
type front struct {
	addr    string // ours, host:port
	handler http.Handler

	mu     sync.Mutex
	server *http.Server
	mode   string
	until  time.Time
	calm   *sync.Cond // the mode has changed
}

func newFront(t *testing.T, h http.Handler) *front {
	t.Helper()
	f := &front{addr: fmt.Sprintf("127.0.0.1:%d", freePort(t)), handler: h}
	f.calm = sync.NewCond(&f.mu)
	if err := f.listen(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.behave("", 0); _ = f.server.Close() })
	return f
}

func (f *front) listen() error {
	l, err := net.Listen("tcp", f.addr)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.server = &http.Server{Handler: f.handler, ReadHeaderTimeout: time.Minute}
	go func(s *http.Server) { _ = s.Serve(l) }(f.server)
	return nil
}

// behave makes it misbehave for a while, as a fault names it; "" ends that.
func (f *front) behave(mode string, d time.Duration) {
	f.mu.Lock()
	was := f.mode
	f.mode, f.until = mode, time.Now().Add(d)
	server := f.server
	f.calm.Broadcast()
	f.mu.Unlock()
	refuses := func(mode string) bool { return strings.HasSuffix(mode, " refuses") }
	if refuses(mode) && !refuses(was) {
		_ = server.Close()
	}
	if refuses(was) && !refuses(mode) {
		for f.listen() != nil {
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// tick ends a fault whose time is over.
func (f *front) tick() {
	f.mu.Lock()
	over := f.mode != "" && time.Now().After(f.until)
	f.mu.Unlock()
	if over {
		f.behave("", 0)
	}
}

func (f *front) now() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mode
}

// hang answers nothing while a fault lasts, and then breaks off.
func (f *front) hang(mode string) {
	f.mu.Lock()
	for f.mode == mode {
		f.calm.Wait()
	}
	f.mu.Unlock()
	panic(http.ErrAbortHandler)
}
