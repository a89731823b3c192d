package dicom

import (
	"fmt"
	"syscall"

	"github.com/tetratelabs/wazero/experimental"
)

// codecMemory makes the memory of an instance outside Go's heap: it grows in place without a copy, and goes back to the system when
// the instance is closed.
func codecMemory() experimental.MemoryAllocator {
	return experimental.MemoryAllocatorFunc(func(_, most uint64) experimental.LinearMemory {
		b, err := syscall.Mmap(-1, 0, int(most), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE|syscall.MAP_NORESERVE)
		if err != nil {
			panic(fmt.Sprintf("dicom: no address space of %d bytes for a codec: %v", most, err))
		}
		return &mapped{b}
	})
}

type mapped struct{ b []byte }

func (m *mapped) Reallocate(size uint64) []byte {
	if size > uint64(len(m.b)) {
		return nil
	}
	return m.b[:size]
}

func (m *mapped) Free() {
	_ = syscall.Munmap(m.b)
	m.b = nil
}
