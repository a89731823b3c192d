package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"chatxray/pipeline"
)

// PutDocuments keeps documents of our own beside the instances of their study, in one commit. It returns an error or nil for each; where
// that is nil the document survives a crash. The same document again is no error, and neither is one of an earlier attempt that differs,
// written before an upgrade say: it may have been delivered, so it stays. Anything else under its UID wraps pipeline.ErrConflict.
func (a *Archive) PutDocuments(ctx context.Context, docs []pipeline.Document) []error {
	errs := make([]error, len(docs))
	var staged []*pipeline.Staged
	var of []int // which document each of staged is
	for i, d := range docs {
		s, err := a.stageDocument(ctx, d)
		if errs[i] = err; err == nil {
			staged, of = append(staged, s), append(of, i)
		}
	}
	if len(staged) == 0 {
		return errs
	}
	for n, o := range a.commit(ctx, staged, true) {
		errs[of[n]] = a.tolerated(ctx, docs[of[n]], o.Err)
	}
	return errs
}

func (a *Archive) stageDocument(ctx context.Context, d pipeline.Document) (*pipeline.Staged, error) {
	s, err := a.stage(ctx, bytes.NewReader(d.Bytes), func(int64) error { return nil }) // the reserve is there for it
	if err != nil {
		return nil, fmt.Errorf("document %s: %w", d.SOPInstanceUID, err)
	}
	if in := s.Instance; in.StudyInstanceUID != d.StudyInstanceUID || in.SeriesInstanceUID != d.SeriesInstanceUID ||
		in.SOPInstanceUID != d.SOPInstanceUID || in.SOPClassUID != d.SOPClassUID {
		a.Discard(s)
		return nil, fmt.Errorf("%w: document %s says other UIDs than its bytes", pipeline.ErrInvalid, d.SOPInstanceUID)
	}
	return s, nil
}

// tolerated is nil for the conflict of a document with one of an earlier attempt.
func (a *Archive) tolerated(ctx context.Context, d pipeline.Document, err error) error {
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
