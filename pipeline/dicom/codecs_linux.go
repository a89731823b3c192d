package dicom

import (
	"fmt"
	"syscall"
	"unsafe"

	"github.com/tetratelabs/wazero/experimental"
)

// codecMemory is the memory of one instance, outside Go's heap: it grows in place without a copy, only what was touched takes room,
// and it goes back to the system when the instance is closed.
type codecMemory struct{ b []byte }

// allocator hands the memory to wazero.
func (m *codecMemory) allocator() experimental.MemoryAllocator {
	return experimental.MemoryAllocatorFunc(func(_, most uint64) experimental.LinearMemory {
		b, err := syscall.Mmap(-1, 0, int(most), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE|syscall.MAP_NORESERVE)
		if err != nil {
			panic(fmt.Sprintf("dicom: no address space of %d bytes for a codec: %v", most, err))
		}
		m.b = b
		return m
	})
}

// Reallocate implements experimental.LinearMemory.
func (m *codecMemory) Reallocate(size uint64) []byte {
	if size > uint64(len(m.b)) {
		return nil
	}
	return m.b[:size]
}

// Free implements experimental.LinearMemory.
func (m *codecMemory) Free() {
	_ = syscall.Munmap(m.b)
	m.b = nil
}

// resident is how many of the first size bytes are in real memory.
func (m *codecMemory) resident(size uint32) int {
	page := syscall.Getpagesize()
	pages := make([]byte, (int(size)+page-1)/page)
	if len(pages) == 0 || len(m.b) < int(size) {
		return 0
	}
	if _, _, e := syscall.Syscall(syscall.SYS_MINCORE, uintptr(unsafe.Pointer(&m.b[0])), uintptr(size), uintptr(unsafe.Pointer(&pages[0]))); e != 0 {
		return int(size)
	}
	n := 0
	for _, p := range pages {
		n += int(p & 1)
	}
	return n * page
}
