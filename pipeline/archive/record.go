package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"chatxray/pipeline"
)

// Records returns the records of a study, oldest first; none is no error.
func (a *Archive) Records(ctx context.Context, studyUID string) ([]pipeline.Record, error) {
	if !pipeline.ValidUID(studyUID) {
		return nil, fmt.Errorf("%w: the Study Instance UID is no UID", pipeline.ErrInvalid)
	}
	rows, err := a.index.often(ctx, findRecords, studyUID)
	if err != nil {
		return nil, indexError(err)
	}
	return scanRecords(rows)
}

func recordsOf(ctx context.Context, tx writing, study string) ([]pipeline.Record, error) {
	rows, err := tx.rows(ctx, findRecords, study)
	if err != nil {
		return nil, err
	}
	return scanRecords(rows)
}

// scanRecords reads the column content of rows and closes them.
func scanRecords(rows rows) (out []pipeline.Record, err error) {
	defer rows.Close()
	for rows.Next() {
		var content []byte
		var r pipeline.Record
		if err := rows.Scan(&content); err != nil {
			return nil, indexError(err)
		}
		if err := json.Unmarshal(content, &r); err != nil {
			return nil, fmt.Errorf("%w: a record of the index cannot be read: %w", pipeline.ErrInvalid, err)
		}
		out = append(out, r)
	}
	return out, indexErrorOrNil(rows.Err())
}

// UpdateRecord changes a record, or makes it with Key and StudyInstanceUID set, and notes steps of the study's life, as one step: after a
// crash there is all of it or nothing. l is what Begin has returned, with the fence 0 where nobody need have begun; the error wraps pipeline.ErrNotFound
// when the study is gone, and is
// pipeline.ErrLost when another worker has begun since. It returns the record as it is kept then.
func (a *Archive) UpdateRecord(ctx context.Context, l pipeline.Life, key string, change func(*pipeline.Record), steps ...pipeline.Change) (pipeline.Record, error) {
	return a.Report(ctx, l, key, nil, change, steps...)
}

// Report is UpdateRecord that keeps documents of our own with the record, beside the instances of the study: after a crash there are the record and all of
// them, or nothing. A document that differs from the one that is here under its UID is dropped if a record refers to that one, which was written before an
// upgrade, say, and may have been delivered. Anything else under its UID wraps pipeline.ErrConflict.
func (a *Archive) Report(ctx context.Context, l pipeline.Life, key string, docs []pipeline.Document, change func(*pipeline.Record), steps ...pipeline.Change) (r pipeline.Record, err error) {
	study := l.StudyInstanceUID
	if err := recordName(study, key); err != nil {
		return r, err
	}
	if err := ctx.Err(); err != nil {
		return r, err
	}
	req := &request{own: true, studies: []string{study}}
	if req.staged, err = a.stageDocuments(ctx, study, docs); err != nil {
		return r, err
	}
	var content []byte
	req.do = func(ctx context.Context, tx writing) error {
		there := tx.row(ctx, lockedLife, study)
		records, err := recordsOf(ctx, tx, study)
		if err != nil {
			return err
		}
		now, err := fencedBy(there, l)
		if err != nil {
			return err
		}
		r, req.reported = pipeline.Record{Key: key, StudyInstanceUID: study}, map[string]bool{}
		for _, known := range records {
			if known.Key == key {
				r = known
			}
			for _, d := range known.Documents {
				req.reported[d.SOPInstanceUID] = true
			}
		}
		change(&r)
		if content, err = keepRecord(ctx, tx, r); err != nil {
			return err
		}
		for i, c := range steps {
			if i > 0 {
				if now, err = fenced(ctx, tx, l); err != nil {
					return err
				}
			}
			if !c.Applies(now, r) {
				continue
			}
			if c.State == "" {
				c.State = now.State
				err = note(ctx, tx, study, c)
			} else {
				err = moveFrom(ctx, tx, now, l, c)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	if a.submit(ctx, req); req.err != nil {
		return r, fmt.Errorf("record %s of study %s cannot be written: %w", key, study, req.err)
	}
	if err := a.copyRecord(context.WithoutCancel(ctx), study, key, content); err != nil {
		a.opts.Warn("the copy of a record cannot be written; an index that is made anew would lack it", a.path(recordsDir, study, key+".json"), err)
	}
	return r, nil
}

// keepRecord puts a record into the index; it returns its content there, JSON, which is that of its copy, too.
func keepRecord(ctx context.Context, tx writing, r pipeline.Record) (content []byte, err error) {
	if content, err = json.Marshal(r); err != nil {
		return nil, err
	}
	outgoing := 0
	if r.Outgoing() {
		outgoing = 1
	} else if r.GivenUp() {
		outgoing = 2
	}
	return content, tx.exec(ctx, putRecord, r.StudyInstanceUID, r.Key, nanos(r.Completed), outgoing, content)
}

// copies reads the records beside the pictures of a study.
func (a *Archive) copies(ctx context.Context, study string) (out []pipeline.Record, err error) {
	names, err := namesBelow(ctx, a.files, recordFile(study))
	for _, name := range names {
		key, ok := strings.CutSuffix(name, ".json")
		if !ok || !validKey(key) {
			continue
		}
		var r pipeline.Record
		b, err := readAll(ctx, a.files, recordFile(study, name))
		if errors.Is(err, pipeline.ErrUnavailable) {
			return nil, err
		}
		if err == nil {
			err = json.Unmarshal(b, &r)
		}
		if err != nil || r.Key != key || r.StudyInstanceUID != study {
			a.opts.Warn("the copy of a record cannot be read; it is left out", recordFile(study, name), err)
			continue
		}
		out = append(out, r)
	}
	slices.SortStableFunc(out, func(x, y pipeline.Record) int { return x.Completed.Compare(y.Completed) })
	return out, err
}

// PutPreview keeps the picture that the model saw, a PNG file.
func (a *Archive) PutPreview(ctx context.Context, studyUID, key string, png []byte) error {
	if err := recordName(studyUID, key); err != nil {
		return err
	}
	if err := a.files.write(ctx, recordFile(studyUID, key+".png"), png); err != nil {
		return fmt.Errorf("the preview of record %s cannot be written: %w", key, err)
	}
	return nil
}

// Preview reads a picture that PutPreview has kept; pipeline.ErrNotFound when there is none.
func (a *Archive) Preview(ctx context.Context, studyUID, key string) ([]byte, error) {
	if !pipeline.ValidUID(studyUID) || !validKey(key) {
		return nil, fmt.Errorf("%w: no preview has this name", pipeline.ErrNotFound)
	}
	b, err := readAll(ctx, a.files, recordFile(studyUID, key+".png"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: record %s of study %s has no preview", pipeline.ErrNotFound, key, studyUID)
	}
	return b, bare(err)
}

// recordName checks the names of a record.
func recordName(studyUID, key string) error {
	if !pipeline.ValidUID(studyUID) || !validKey(key) {
		return fmt.Errorf("%w: a record needs a Study Instance UID and a key of 1 to 128 letters, digits, '-' and '_'", pipeline.ErrInvalid)
	}
	return nil
}

func validKey(key string) bool {
	return len(key) > 0 && len(key) <= 128 && strings.Trim(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == ""
}
