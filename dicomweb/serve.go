package dicomweb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"
)

// Serve answers on a listener until ctx ends; then it takes no new request and lets the running ones finish for at most cfg.Drain. It
// closes the listener. The error is nil when everything has finished. A client that takes nothing of an answer for cfg.Idle is cut off.
func Serve(ctx context.Context, l net.Listener, h http.Handler, cfg Config) error {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    128 << 10, // a query that is too long gets an answer that says so
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connection{}, c) },
	}
	ended := make(chan error, 1)
	go func() {
		ended <- srv.Serve(prepared(l, func(l net.Listener) net.Listener { return patient{l, cfg.Idle} }))
	}()
	select {
	case err := <-ended:
		return fmt.Errorf("the HTTP server ended: %w", err)
	case <-ctx.Done():
	}
	patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.Drain)
	defer cancel()
	if err := srv.Shutdown(patience); err != nil {
		return errors.Join(fmt.Errorf("requests were cut off after %v: %w", cfg.Drain, err), srv.Close())
	}
	return nil
}

// patient is a listener whose connections wait for idle, not longer, until the other side takes some of what is written to it. How
// long a whole answer takes does not matter.
type patient struct {
	net.Listener
	idle time.Duration
}

func (p patient) Accept() (net.Conn, error) {
	c, err := p.Listener.Accept()
	if err != nil {
		return nil, passing(err)
	}
	// The kernel says that there is room again when a third of its buffer is free: a buffer of its own choice, megabytes, would make a
	// slow link look like one that stands still.
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetWriteBuffer(sendBuffer)
	}
	return patientConn{c, p.idle}, nil
}

// ofOneConnection are errors of accept that say nothing about the listener: the network errors that accept(2) of Linux passes on from the new connection, a
// firewall's refusal of it, and memory that the kernel lacks just now.
var ofOneConnection = []error{syscall.ENETDOWN, syscall.EPROTO, syscall.ENOPROTOOPT, syscall.EHOSTDOWN, syscall.EHOSTUNREACH, syscall.EOPNOTSUPP, syscall.ENETUNREACH,
	syscall.EPERM, syscall.ENOBUFS, syscall.ENOMEM}

// passing has net/http go on after such an error, as it does by itself where file descriptors are lacking: it waits up to a second, says so, and tries again. Any
// other error ends the server, and the process.
func passing(err error) error {
	for _, e := range ofOneConnection {
		if errors.Is(err, e) {
			return temporary{err}
		}
	}
	return err
}

type temporary struct{ error }

func (t temporary) Unwrap() error { return t.error }
func (temporary) Timeout() bool   { return false }
func (temporary) Temporary() bool { return true }

const sendBuffer = 256 << 10

type patientConn struct {
	net.Conn
	idle time.Duration
}

// patientPiece is what has to be taken within idle.
const patientPiece = 64 << 10

// ReadFrom lets the system send a file without copying it, piece by piece as Write does.
func (c patientConn) ReadFrom(r io.Reader) (n int64, err error) {
	to, ok := c.Conn.(io.ReaderFrom)
	limit, limited := r.(*io.LimitedReader)
	if !ok || !limited {
		return io.Copy(struct{ io.Writer }{c}, r)
	}
	for limit.N > 0 {
		_ = c.SetWriteDeadline(time.Now().Add(c.idle))
		m, err := to.ReadFrom(&io.LimitedReader{R: limit.R, N: min(limit.N, patientPiece)}) // not nested, or net does not know the file
		n, limit.N = n+m, limit.N-m
		if err != nil || m == 0 {
			return n, err
		}
	}
	return n, nil
}

// Write moves the deadline on before each piece: the connection's own Write has one for all of b.
func (c patientConn) Write(b []byte) (n int, err error) {
	for {
		_ = c.SetWriteDeadline(time.Now().Add(c.idle))
		m, err := c.Conn.Write(b[:min(len(b), patientPiece)])
		n, b = n+m, b[m:]
		if err != nil || len(b) == 0 {
			return n, err
		}
	}
}

// CloseWrite lets the server say that an answer has ended while it does not read the rest of a request.
func (c patientConn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}
