package dicomweb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// Serve answers on a listener until ctx ends; then it takes no new request and lets the running ones finish for at most cfg.Drain. It
// closes the listener. The error is nil when everything has finished.
func Serve(ctx context.Context, l net.Listener, h http.Handler, cfg Config) error {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(prepared(l, func(l net.Listener) net.Listener { return l })) }()
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
