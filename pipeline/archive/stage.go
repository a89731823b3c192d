package archive

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"chatxray/pipeline"
)

// Stage streams one DICOM file to disk and checks it; nothing is promised before Commit. Errors: what r returns; the opener's, when
// the bytes are not an instance that it lets pass; pipeline.ErrFull. The temporary file is gone after an error.
func (a *Archive) Stage(ctx context.Context, r io.Reader) (*pipeline.Staged, error) {
	return a.stage(ctx, r, a.Room, a.look)
}

// stage stages with room as the judge of the free space; look says what the file is.
func (a *Archive) stage(ctx context.Context, r io.Reader, room func(int64) error, look func(path string) (*pipeline.Instance, error)) (*pipeline.Staged, error) {
	f, err := os.CreateTemp(a.own.folder, a.stagedPattern())
	if err != nil {
		return nil, fmt.Errorf("an upload cannot be written: %w", full(err))
	}
	t := taking{f: f, sum: sha256.New()}
	err = t.take(ctx, r, room)
	if cerr := t.close(); err == nil && cerr != nil {
		err = full(cerr)
	}
	var in *pipeline.Instance
	if err == nil {
		in, err = look(f.Name())
	}
	if err == nil {
		err = validUIDs(in)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return nil, err
	}
	lane := in.Header.Lane()
	in.Path, in.Data, in.Header = f.Name(), nil, indexed(in)
	t.sum.Sum(in.Digest[:0])
	return &pipeline.Staged{Instance: in, Size: t.size, Lane: lane}, nil
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
