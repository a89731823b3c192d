package archive

import (
	"syscall"
	"unsafe"
)

// directFlag has a file written past the page cache (open(2)).
const directFlag = syscall.O_DIRECT

// mapped is a large block, as one huge page where the system has one: pages of the common size cost a fault each at first, and each write
// past the page cache has to find them one by one.
type mapped struct {
	block []byte
	whole []byte // what was mapped, so that the block can begin where a huge page does
}

func mapLarge() *mapped {
	whole, err := syscall.Mmap(-1, 0, 2*largeBlock, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return &mapped{block: make([]byte, largeBlock)} // it may not be aligned, and then goes through the page cache
	}
	m := &mapped{whole[-uintptr(unsafe.Pointer(&whole[0]))%largeBlock:][:largeBlock], whole}
	_ = syscall.Madvise(m.block, syscall.MADV_HUGEPAGE)
	return m
}

func (m *mapped) unmap() {
	if m.whole != nil {
		_ = syscall.Munmap(m.whole)
	}
}
