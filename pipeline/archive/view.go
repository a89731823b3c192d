package archive

import (
	"context"
	"io"

	"chatxray/pipeline"
)

// View calls f with the archive in dir, opened without a right to change it: only what reads the index may be called, and Content. A service may have
// the archive open meanwhile.
func View(ctx context.Context, dir string, opts Options, f func(*Archive) error) error {
	a, err := toLookAt(ctx, dir, opts)
	if err != nil {
		return err
	}
	defer a.read.Close()
	if a.bucket != nil {
		defer a.bucket.close()
	}
	return f(a)
}

// Content opens the file of an instance that Entries has returned, where it is kept.
func (a *Archive) Content(ctx context.Context, in *pipeline.Instance) (io.ReadCloser, error) {
	r, err := a.openKept(ctx, in)
	return r, bare(err)
}

// Own tells whether an instance that Entries has returned is a document of ours.
func (a *Archive) Own(ctx context.Context, in *pipeline.Instance) (own bool, err error) {
	err = a.read.QueryRowContext(ctx, "SELECT own FROM instance WHERE uid = ?", in.SOPInstanceUID).Scan(&own)
	return own, indexErrorOrNil(err)
}
