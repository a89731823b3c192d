package dicom

import (
	"fmt"

	"chatxray/pipeline"
)

// Open checks a whole DICOM file in memory and parses its header. The Instance keeps data and shares memory with it: the caller
// must not change it afterwards. Errors wrap pipeline.ErrInvalid, ErrUnknown or ErrUnsupported.
func Open(data []byte) (*pipeline.Instance, error) {
	return nil, fmt.Errorf("open %d bytes: %w", len(data), pipeline.ErrUnsupported)
}

// OpenFile does what Open does for a file on disk. The Instance keeps the path and the header, not the bytes.
func OpenFile(path string) (*pipeline.Instance, error) {
	return nil, fmt.Errorf("open %s: %w", path, pipeline.ErrUnsupported)
}
