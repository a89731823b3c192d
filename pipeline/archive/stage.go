package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"chatxray/pipeline"
)

// checkSpace is how many bytes of an upload may pass between two looks at the free space.
const checkSpace = 16 << 20

var copyBuffers = sync.Pool{New: func() any { return new([128 << 10]byte) }}

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
	size, err := take(ctx, f, r, room)
	if cerr := f.Close(); err == nil && cerr != nil {
		err = full(cerr)
	}
	var in *pipeline.Instance
	if err == nil {
		in, err = a.open(f.Name())
	}
	if err == nil {
		err = validUIDs(in)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return nil, err
	}
	in.Path, in.Data, in.Header = f.Name(), nil, indexed(in)
	return &pipeline.Staged{Instance: in, Size: size}, nil
}

// take copies r to f. A write error that means a full disk wraps pipeline.ErrFull.
func take(ctx context.Context, f *os.File, r io.Reader, room func(int64) error) (size int64, err error) {
	buf := copyBuffers.Get().(*[128 << 10]byte)
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
		n, rerr := r.Read(buf[:])
		if _, err := f.Write(buf[:n]); err != nil {
			return size, fmt.Errorf("an upload cannot be written: %w", full(err))
		}
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
