package dicom

import (
	"fmt"
	"os"

	"chatxray/pipeline"
)

// ReadHeader reads the attributes of a file on disk as OpenFile does, without summing its bytes up: a few kilobytes of a large file are
// read. An error of the file system is returned as it is.
func ReadHeader(path string) (pipeline.Dataset, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is no regular file", pipeline.ErrInvalid, path)
	}
	w, err := walk(reader(f, st.Size()), true)
	if err != nil {
		return nil, err
	}
	return w.header, nil
}
