package archive

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"

	"chatxray/pipeline"
)

// checkSpace is how many bytes of an upload may pass between two looks at the free space.
const checkSpace = 16 << 20

var copyBuffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// Stage streams one DICOM file to disk and checks it; nothing is promised before Commit. Errors: what r returns; the opener's, when
// the bytes are not an instance that it lets pass; pipeline.ErrFull. The temporary file is gone after an error.
func (a *Archive) Stage(ctx context.Context, r io.Reader) (*pipeline.Staged, error) {
	return a.stage(ctx, r, a.Room)
}

// stage stages with room as the judge of the free space.
func (a *Archive) stage(ctx context.Context, r io.Reader, room func(int64) error) (*pipeline.Staged, error) {
	f, err := os.CreateTemp(a.path(incomingDir), "*.part")
	if err != nil {
		return nil, fmt.Errorf("an upload cannot be written: %w", full(err))
	}
	sum := sha256.New()
	size, err := take(ctx, f, sum, r, room)
	if cerr := f.Close(); err == nil && cerr != nil {
		err = full(cerr)
	}
	var in *pipeline.Instance
	if err == nil {
		in, err = a.look(f.Name())
	}
	if err == nil {
		err = validUIDs(in)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return nil, err
	}
	in.Path, in.Data, in.Header = f.Name(), nil, indexed(in)
	sum.Sum(in.Digest[:0])
	return &pipeline.Staged{Instance: in, Size: size}, nil
}

// take copies r to f and sums it up. A write error that means a full disk wraps pipeline.ErrFull.
func take(ctx context.Context, f *os.File, sum hash.Hash, r io.Reader, room func(int64) error) (size int64, err error) {
	buf := copyBuffers.Get().(*[32 << 10]byte)
	defer copyBuffers.Put(buf)
	for unchecked := int64(checkSpace); ; {
		if err := ctx.Err(); err != nil {
			return size, err
		}
		if unchecked >= checkSpace {
			if err := room(0); err != nil {
				return size, err
			}
			unchecked = 0
		}
		n, rerr := fill(r, buf[:])
		if _, err := f.Write(buf[:n]); err != nil {
			return size, fmt.Errorf("an upload cannot be written: %w", full(err))
		}
		sum.Write(buf[:n])
		size += int64(n)
		unchecked += int64(n)
		if rerr == io.EOF {
			return size, nil
		}
		if rerr != nil {
			return size, rerr
		}
	}
}

// fill reads until b is full: parts of a multipart body come in pieces of a few kilobytes, and a write of each would cost more than
// the rest.
func fill(r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = r.Read(b[n:])
		n += m
	}
	return n, err
}

// validUIDs guards the paths that are made of UIDs, whoever parsed them.
func validUIDs(in *pipeline.Instance) error {
	for _, u := range []struct{ name, uid string }{
		{"Study Instance UID (0020,000D)", in.StudyInstanceUID},
		{"Series Instance UID (0020,000E)", in.SeriesInstanceUID},
		{"SOP Instance UID (0008,0018)", in.SOPInstanceUID},
		{"SOP Class UID (0008,0016)", in.SOPClassUID},
	} {
		if !pipeline.ValidUID(u.uid) {
			return fmt.Errorf("%w: the %s is missing or is no UID", pipeline.ErrInvalid, u.name)
		}
	}
	return nil
}

// Discard removes staged instances that will not be committed.
func (a *Archive) Discard(staged ...*pipeline.Staged) {
	for _, s := range staged {
		if err := os.Remove(s.Instance.Path); err != nil && !errors.Is(err, os.ErrNotExist) {
			a.opts.Warn("a discarded upload stays until the next start", s.Instance.Path, err)
		}
	}
}
