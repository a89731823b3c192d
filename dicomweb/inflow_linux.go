package dicomweb

import "syscall"

// receiveAhead asks to be woken by inflow bytes, which makes the system have room for them (tcp_set_rcvlowat), and takes that back at
// once. SO_RCVBUF would make room too, but ends the system's own adaptation and has a lower limit.
func receiveAhead(fd uintptr) {
	_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVLOWAT, inflow)
	_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVLOWAT, 1)
}
