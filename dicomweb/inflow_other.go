//go:build !linux

package dicomweb

// receiveAhead leaves it to the system.
func receiveAhead(uintptr) {}
