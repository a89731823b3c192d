package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"chatxray/pipeline"
)

// Records returns the records of a study, oldest first; none is no error.
func (a *Archive) Records(_ context.Context, studyUID string) ([]pipeline.Record, error) {
	if !pipeline.ValidUID(studyUID) {
		return nil, fmt.Errorf("%w: the Study Instance UID is no UID", pipeline.ErrInvalid)
	}
	files, err := os.ReadDir(a.path(recordsDir, studyUID))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the records of study %s cannot be listed: %w", studyUID, bare(err))
	}
	var out []pipeline.Record
	for _, f := range files {
		key, ok := strings.CutSuffix(f.Name(), ".json")
		if !ok || !validKey(key) {
			continue
		}
		r, err := a.record(studyUID, key)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	slices.SortStableFunc(out, func(x, y pipeline.Record) int { return x.Completed.Compare(y.Completed) })
	return out, nil
}

func (a *Archive) record(studyUID, key string) (pipeline.Record, error) {
	var r pipeline.Record
	b, err := os.ReadFile(a.path(recordsDir, studyUID, key+".json"))
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		return r, fmt.Errorf("record %s of study %s cannot be read: %w", key, studyUID, bare(err))
	}
	return r, nil
}

// UpdateRecord changes a record, or makes it with Key and StudyInstanceUID set, as one step: after a crash there is the old one or the
// new one. It returns the record as it is on disk then.
func (a *Archive) UpdateRecord(_ context.Context, studyUID, key string, change func(*pipeline.Record)) (pipeline.Record, error) {
	if err := a.recordFolder(studyUID, key); err != nil {
		return pipeline.Record{}, err
	}
	a.records.Lock()
	defer a.records.Unlock()
	r, err := a.record(studyUID, key)
	if errors.Is(err, os.ErrNotExist) {
		r, err = pipeline.Record{Key: key, StudyInstanceUID: studyUID}, nil
	}
	if err != nil {
		return r, err
	}
	change(&r)
	b, err := json.MarshalIndent(r, "", " ")
	if err == nil {
		err = writeDurably(a.path(recordsDir, studyUID, key+".json"), b)
	}
	if err != nil {
		return r, fmt.Errorf("record %s of study %s cannot be written: %w", key, studyUID, full(err))
	}
	return r, nil
}

// PutPreview keeps the picture that the model saw, a PNG file.
func (a *Archive) PutPreview(_ context.Context, studyUID, key string, png []byte) error {
	if err := a.recordFolder(studyUID, key); err != nil {
		return err
	}
	if err := writeDurably(a.path(recordsDir, studyUID, key+".png"), png); err != nil {
		return fmt.Errorf("the preview of record %s cannot be written: %w", key, full(err))
	}
	return nil
}

// Preview reads a picture that PutPreview has kept; pipeline.ErrNotFound when there is none.
func (a *Archive) Preview(_ context.Context, studyUID, key string) ([]byte, error) {
	if !pipeline.ValidUID(studyUID) || !validKey(key) {
		return nil, fmt.Errorf("%w: no preview has this name", pipeline.ErrNotFound)
	}
	b, err := os.ReadFile(a.path(recordsDir, studyUID, key+".png"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: record %s of study %s has no preview", pipeline.ErrNotFound, key, studyUID)
	}
	return b, bare(err)
}

// recordFolder checks the names and makes the study's folder, durably.
func (a *Archive) recordFolder(studyUID, key string) error {
	if !pipeline.ValidUID(studyUID) || !validKey(key) {
		return fmt.Errorf("%w: a record needs a Study Instance UID and a key of 1 to 128 letters, digits, '-' and '_'", pipeline.ErrInvalid)
	}
	changed, err := makeDirs(filepath.Join(a.dir, recordsDir), studyUID)
	for _, d := range changed {
		err = errors.Join(err, syncDir(d))
	}
	if err != nil {
		return fmt.Errorf("the records of study %s cannot be written: %w", studyUID, full(err))
	}
	return nil
}

func validKey(key string) bool {
	return len(key) > 0 && len(key) <= 128 && strings.Trim(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == ""
}
