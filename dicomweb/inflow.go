package dicomweb

import (
	"context"
	"crypto/tls"
	"net"
	"syscall"
)

// inflow is how much the system may have received of an upload that comes quickly and is not yet read. With less, the sender waits for us
// all the time, and each of its waits costs both sides.
const inflow = 4 << 20

// connection is the key of a request's connection in its context.
type connection struct{}

// widen lets the system receive ahead on a request's connection, as it does by itself on one that has been in use for long.
func widen(ctx context.Context) {
	c, _ := ctx.Value(connection{}).(net.Conn)
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if p, ok := c.(patientConn); ok {
		c = p.Conn
	}
	if s, ok := c.(syscall.Conn); ok {
		if raw, err := s.SyscallConn(); err == nil {
			_ = raw.Control(receiveAhead)
		}
	}
}
