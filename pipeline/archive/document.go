package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"chatxray/pipeline"
)

// PutDocument keeps a document of our own beside the instances of its study; when it returns nil the document survives a crash.
// The same document again is no error, and neither is one of an earlier attempt that differs, written before an upgrade say: it may
// have been delivered, so it stays. Anything else under its UID wraps pipeline.ErrConflict.
func (a *Archive) PutDocument(ctx context.Context, d pipeline.Document) error {
	s, err := a.stage(ctx, bytes.NewReader(d.Bytes), func(int64) error { return nil }) // the reserve is there for it
	if err != nil {
		return fmt.Errorf("document %s: %w", d.SOPInstanceUID, err)
	}
	if in := s.Instance; in.StudyInstanceUID != d.StudyInstanceUID || in.SeriesInstanceUID != d.SeriesInstanceUID ||
		in.SOPInstanceUID != d.SOPInstanceUID || in.SOPClassUID != d.SOPClassUID {
		a.Discard(s)
		return fmt.Errorf("%w: document %s says other UIDs than its bytes", pipeline.ErrInvalid, d.SOPInstanceUID)
	}
	err = a.commit(ctx, []*pipeline.Staged{s}, true)[0].Err
	if !errors.Is(err, pipeline.ErrConflict) {
		return err
	}
	ours, err := a.instances(ctx, "i.own = 1", d.StudyInstanceUID, d.SeriesInstanceUID, d.SOPInstanceUID)
	if err != nil && !errors.Is(err, pipeline.ErrNotFound) {
		return err
	}
	if len(ours) == 0 || ours[0].SOPClassUID != d.SOPClassUID {
		return fmt.Errorf("%w: the archive keeps an object that this service did not write under the UID of document %s; it stays, and the document cannot be stored",
			pipeline.ErrConflict, d.SOPInstanceUID)
	}
	return nil
}

// Document reads a document again; pipeline.ErrNotFound when it is not there.
func (a *Archive) Document(ctx context.Context, studyUID string, ref pipeline.DocumentRef) (pipeline.Document, error) {
	found, err := a.Instances(ctx, studyUID, ref.SeriesInstanceUID, ref.SOPInstanceUID)
	if err != nil {
		return pipeline.Document{}, err
	}
	b, err := os.ReadFile(found[0].Path)
	if err != nil {
		return pipeline.Document{}, fmt.Errorf("document %s: %w", ref.SOPInstanceUID, bare(err))
	}
	return pipeline.Document{Kind: ref.Kind, StudyInstanceUID: studyUID, SeriesInstanceUID: ref.SeriesInstanceUID,
		SOPInstanceUID: ref.SOPInstanceUID, SOPClassUID: ref.SOPClassUID, Bytes: b}, nil
}
