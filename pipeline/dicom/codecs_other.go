//go:build !linux

package dicom

import "github.com/tetratelabs/wazero/experimental"

// codecMemory leaves the memory of an instance to wazero.
type codecMemory struct{}

func (*codecMemory) allocator() experimental.MemoryAllocator { return nil }

func (*codecMemory) resident(size uint32) int { return int(size) }
