//go:build !linux

package archive

// directFlag is none: elsewhere everything goes through the page cache.
const directFlag = 0
