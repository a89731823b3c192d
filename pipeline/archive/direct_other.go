//go:build !linux

package archive

// directFlag is none: elsewhere everything goes through the page cache.
const directFlag = 0

// mapped is a large block.
type mapped struct{ block []byte }

func mapLarge() *mapped { return &mapped{make([]byte, largeBlock)} }

func (m *mapped) unmap() {}
