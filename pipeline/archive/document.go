package archive

import (
	"bytes"
	"context"
	"fmt"
	"os"

	"chatxray/pipeline"
)

// stageDocuments stages documents of our own that belong to a study; an error leaves none.
func (a *Archive) stageDocuments(ctx context.Context, study string, docs []pipeline.Document) (staged []*pipeline.Staged, err error) {
	for _, d := range docs {
		look := a.look
		if d.Header != nil {
			look = func(string) (*pipeline.Instance, error) { return instanceOf(d.Header), nil }
		}
		s, err := a.stage(ctx, bytes.NewReader(d.Bytes), func(int64) error { return nil }, look) // the reserve is there for it
		if err != nil {
			a.Discard(staged...)
			return nil, fmt.Errorf("document %s: %w", d.SOPInstanceUID, err)
		}
		staged = append(staged, s)
		if in := s.Instance; in.StudyInstanceUID != study || in.StudyInstanceUID != d.StudyInstanceUID || in.SeriesInstanceUID != d.SeriesInstanceUID ||
			in.SOPInstanceUID != d.SOPInstanceUID || in.SOPClassUID != d.SOPClassUID {
			a.Discard(staged...)
			return nil, fmt.Errorf("%w: document %s says other UIDs than its bytes, or than its record", pipeline.ErrInvalid, d.SOPInstanceUID)
		}
	}
	return staged, nil
}

func instanceOf(h pipeline.Dataset) *pipeline.Instance {
	return &pipeline.Instance{StudyInstanceUID: h.String(pipeline.TagStudyInstanceUID), SeriesInstanceUID: h.String(pipeline.TagSeriesInstanceUID),
		SOPInstanceUID: h.String(pipeline.TagSOPInstanceUID), SOPClassUID: h.String(pipeline.TagSOPClassUID),
		TransferSyntaxUID: h.String(pipeline.TagTransferSyntaxUID), Header: h}
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
