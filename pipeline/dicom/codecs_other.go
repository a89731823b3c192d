//go:build !linux

package dicom

import "github.com/tetratelabs/wazero/experimental"

// codecMemory leaves the memory of an instance to wazero.
func codecMemory() experimental.MemoryAllocator { return nil }
