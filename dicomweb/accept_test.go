package dicomweb_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"chatxray/dicomweb"
)

// failing is a listener whose next Accepts fail.
type failing struct {
	net.Listener
	with []error
}

func (f *failing) Accept() (net.Conn, error) {
	if len(f.with) > 0 {
		err := f.with[0]
		f.with = f.with[1:]
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", err)}
	}
	return f.Listener.Accept()
}

// What befalls one connection, or passes, does not end the service; a listener that is none any more does.
func TestAcceptFails(t *testing.T) {
	serve := func(with ...error) (url string, ended chan error, stop func()) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		t.Cleanup(cancel)
		ended = make(chan error, 1)
		hello := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
		go func() {
			ended <- dicomweb.Serve(ctx, &failing{l, with}, hello, dicomweb.Config{Idle: time.Minute, Drain: time.Minute})
		}()
		return "http://" + l.Addr().String(), ended, cancel
	}
	url, ended, stop := serve(syscall.ENOBUFS, syscall.ENOMEM, syscall.EMFILE, syscall.EPERM, syscall.EHOSTUNREACH, syscall.EPROTO)
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err, len(ended))
	}
	r.Body.Close()
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	_, ended, _ = serve(syscall.EBADF)
	if err := <-ended; !errors.Is(err, syscall.EBADF) || !strings.Contains(err.Error(), "the HTTP server ended") {
		t.Error(err)
	}
}
