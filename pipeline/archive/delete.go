package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"chatxray/pipeline"
)

// deletion is what Delete has been told to remove: a study, a series or an instance. It lies in the folder deleting, durably, before the
// first file goes, and is finished after a crash: what is asked for goes wholly or not at all.
type deletion struct {
	Study    string `json:"study"`
	Series   string `json:"series,omitempty"`
	Instance string `json:"instance,omitempty"`
}

// deletingDir has one note for each process: Archive.placing is held, so that there is only one at a time.
const deletingDir = "deleting"

// fileTrees are the folders whose second level is a Study Instance UID, and what lies below it a series and an instance.
var fileTrees = []string{instancesDir, documentsDir}

// Delete removes a study, a series ("" for all) or one instance ("" for all) with its files and index entries, received ones and documents
// of our own alike; with the last instance of a study go its records and pictures. It returns how many instances that were and whether
// anything of the study is left. When it returns without an error, nothing of them comes back after a crash. The error wraps
// pipeline.ErrNotFound where there is nothing; after another one, some files may be gone already: ask again.
func (a *Archive) Delete(ctx context.Context, study, series, sop string) (n int, left bool, err error) {
	for _, uid := range []string{study, series, sop} {
		if uid != "" && !pipeline.ValidUID(uid) {
			return 0, false, fmt.Errorf("%w: what is to be deleted is not named by UIDs", pipeline.ErrInvalid)
		}
	}
	if study == "" || series == "" && sop != "" {
		return 0, false, fmt.Errorf("%w: a deletion needs the UIDs from the study down", pipeline.ErrInvalid)
	}
	return a.delete(ctx, deletion{study, series, sop}, nil)
}

// delete carries a deletion out unless allowed, which is asked when nothing changes any more, has an error.
func (a *Archive) delete(ctx context.Context, d deletion, allowed func() error) (n int, left bool, err error) {
	a.closing.RLock()
	defer a.closing.RUnlock()
	if a.closed {
		return 0, false, fmt.Errorf("%w: the archive is being closed", pipeline.ErrBusy)
	}
	held, err := a.hold(d.Study) // no commit meanwhile: what is stored again afterwards stays
	if err != nil {
		return 0, false, err
	}
	defer held.release()
	found, err := a.Entries(ctx, d.Study, d.Series, d.Instance)
	if err == nil && allowed != nil {
		err = allowed()
	}
	if err != nil {
		return 0, false, err
	}
	if a.bucket != nil {
		left, err = a.discardObjects(context.WithoutCancel(ctx), d)
		return len(found), left, err
	}
	note, err := a.noteDeletion(d)
	if err != nil {
		return 0, false, fmt.Errorf("a deletion in study %s cannot be noted: %w", d.Study, full(err))
	}
	left, err = a.carryOut(context.WithoutCancel(ctx), d, held)
	err = errors.Join(err, os.Remove(note), syncDir(filepath.Dir(note)))
	if err != nil {
		return 0, false, fmt.Errorf("a deletion in study %s was not finished, ask again: %w", d.Study, indexError(err))
	}
	return len(found), left, nil
}

// noteDeletion makes a deletion something that a start after a crash finishes.
func (a *Archive) noteDeletion(d deletion) (path string, err error) {
	changed, err := makeDirs(a.dir, deletingDir)
	if err != nil {
		return "", err
	}
	for _, dir := range changed {
		if err := syncDir(dir); err != nil {
			return "", err
		}
	}
	b, err := json.Marshal(d)
	if err != nil {
		return "", err
	}
	path = a.path(deletingDir, a.own.note)
	return path, writeDurably(path, b)
}

// finishDeletions carries out what a crash has interrupted.
func (a *Archive) finishDeletions(ctx context.Context) error {
	files, err := os.ReadDir(a.path(deletingDir))
	if errors.Is(err, os.ErrNotExist) || err == nil && len(files) == 0 {
		return nil
	}
	for _, f := range files {
		path := a.path(deletingDir, f.Name())
		switch {
		case strings.HasSuffix(f.Name(), ".json"):
			err = errors.Join(err, a.finishDeletion(ctx, path))
		case !a.index.shared() || a.own.alone: // a note that was never finished
			err = errors.Join(err, os.Remove(path))
		}
	}
	return errors.Join(err, syncDir(a.path(deletingDir)))
}

// finishDeletion carries out one, unless the process whose it is does so, or has done so.
func (a *Archive) finishDeletion(ctx context.Context, note string) error {
	d, err := readDeletion(note)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	held, err := a.hold(d.Study)
	if err != nil {
		return err
	}
	defer held.release()
	if now, err := readDeletion(note); err != nil || now != d { // it was finished while this process waited
		return nil
	}
	if _, err := a.carryOut(ctx, d, held); err != nil {
		return fmt.Errorf("an interrupted deletion in study %s cannot be finished: %w", d.Study, indexError(err))
	}
	return os.Remove(note)
}

func readDeletion(note string) (d deletion, err error) {
	b, err := os.ReadFile(note)
	if errors.Is(err, os.ErrNotExist) {
		return d, err
	}
	if err == nil {
		err = json.Unmarshal(b, &d)
	}
	if err != nil || !pipeline.ValidUID(d.Study) || d.Series != "" && !pipeline.ValidUID(d.Series) || d.Instance != "" && !pipeline.ValidUID(d.Instance) {
		return d, fmt.Errorf("%w: the note %s of an interrupted deletion cannot be read", pipeline.ErrInvalid, note)
	}
	return d, nil
}

// carryOut removes files first, then index entries: while a file is there an entry leads to it, so that a failure can be asked for again. It
// may be repeated.
func (a *Archive) carryOut(ctx context.Context, d deletion, held *held) (left bool, err error) {
	for _, tree := range fileTrees {
		if err := held.still(); err != nil {
			return true, err
		}
		if err := removeBelow(a.path(tree), d); err != nil {
			return true, err
		}
	}
	if err := held.still(); err != nil {
		return true, err
	}
	if left, err = a.removeEntries(ctx, d, nil); err != nil || left {
		return left, err
	}
	a.records.Lock()
	defer a.records.Unlock()
	if err := os.RemoveAll(a.path(recordsDir, d.Study)); err != nil {
		return false, err
	}
	return false, syncDir(a.path(recordsDir))
}

// removeBelow removes what a deletion names below one tree, and the folders that are empty then, durably.
func removeBelow(root string, d deletion) error {
	parts := []string{d.Study}
	switch {
	case d.Instance != "":
		parts = append(parts, d.Series, d.Instance+".dcm")
	case d.Series != "":
		parts = append(parts, d.Series)
	}
	gone := []string{filepath.Join(root, filepath.Join(parts...))}
	if d.Instance != "" { // and what it replaced
		folder := filepath.Dir(gone[0])
		files, err := os.ReadDir(folder)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		for _, f := range files {
			if strings.HasPrefix(f.Name(), d.Instance+"~") {
				gone = append(gone, filepath.Join(folder, f.Name()))
			}
		}
	}
	for _, path := range gone {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	for up := len(parts) - 1; up >= 0; up-- {
		dir := filepath.Join(root, filepath.Join(parts[:up]...))
		if err := syncDir(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if up == 0 {
			break
		}
		if left, err := os.ReadDir(dir); err == nil && len(left) == 0 {
			if err := os.Remove(dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeEntries removes the index entries of a deletion, and series and study with their last instance; left tells whether the study has
// another one. first runs before, in the same transaction.
func (a *Archive) removeEntries(ctx context.Context, d deletion, first func(writing) error) (left bool, err error) {
	tx, err := a.begin(ctx)
	if err != nil {
		return false, err
	}
	defer tx.Rollback()
	if first != nil {
		if err := first(tx); err != nil {
			return false, err
		}
	}
	for _, q := range []string{
		`DELETE FROM instance WHERE (?3 = '' OR uid = ?3) AND series IN
			(SELECT e.id FROM series e JOIN study s ON s.id = e.study WHERE s.uid = ?1 AND (?2 = '' OR e.uid = ?2))`,
		`DELETE FROM series WHERE study = (SELECT id FROM study WHERE uid = ?1) AND (?2 = ?2 AND ?3 = ?3)
			AND NOT EXISTS (SELECT 1 FROM instance i WHERE i.series = series.id)`,
		`DELETE FROM study WHERE uid = ?1 AND (?2 = ?2 AND ?3 = ?3) AND NOT EXISTS (SELECT 1 FROM series e WHERE e.study = study.id)`,
	} {
		if err := tx.exec(ctx, q, d.Study, d.Series, d.Instance); err != nil {
			return false, err
		}
	}
	var studies int
	if err := tx.row(ctx, `SELECT count(*) FROM study WHERE uid = ?`, d.Study).Scan(&studies); err != nil {
		return false, err
	}
	if studies == 0 {
		for _, table := range []string{"life", "change", "record"} {
			if err := tx.exec(ctx, "DELETE FROM "+table+" WHERE study = ?", d.Study); err != nil {
				return false, err
			}
		}
	}
	return studies > 0, tx.Commit()
}

// discardObjects removes index entries first, and notes in the same transaction which objects go with them: nothing refers to them then, and they are
// removed at once, or when S3 answers again. Files beside the records are looked for before anything changes.
func (a *Archive) discardObjects(ctx context.Context, d deletion) (left bool, err error) {
	a.records.Lock()
	defer a.records.Unlock()
	var beside []string
	err = a.files.list(ctx, recordFile(d.Study), func(l keptFile) error {
		beside = append(beside, l.name)
		return nil
	})
	if err != nil {
		return true, fmt.Errorf("nothing of study %s was deleted: %w", d.Study, err)
	}
	left, err = a.removeEntries(ctx, d, func(tx writing) error {
		names, err := objectsOf(ctx, tx, d)
		if err != nil {
			return err
		}
		var others int
		err = tx.row(ctx, `SELECT count(*) FROM instance i JOIN series e ON e.id = i.series JOIN study s ON s.id = e.study
			WHERE s.uid = ?1 AND NOT ((?2 = '' OR e.uid = ?2) AND (?3 = '' OR i.uid = ?3))`, d.Study, d.Series, d.Instance).Scan(&others)
		if others == 0 {
			names = append(names, beside...)
		}
		return errors.Join(err, discard(ctx, tx, names, time.Unix(0, 0)))
	})
	if err != nil {
		return left, fmt.Errorf("a deletion in study %s was not done, ask again: %w", d.Study, indexError(err))
	}
	if err := a.clear(ctx); err != nil {
		return left, fmt.Errorf("study %s, or what was to be deleted of it, is gone, but its files are in S3 still; they are removed when it answers: %w", d.Study, err)
	}
	return left, nil
}

// objectsOf lists the objects of what a deletion names, of all their contents.
func objectsOf(ctx context.Context, tx writing, d deletion) (names []string, err error) {
	rows, err := tx.rows(ctx, `SELECT i.own, e.uid, i.uid, i.place FROM instance i JOIN series e ON e.id = i.series JOIN study s ON s.id = e.study
		WHERE s.uid = ?1 AND (?2 = '' OR e.uid = ?2) AND (?3 = '' OR i.uid = ?3)`, d.Study, d.Series, d.Instance)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		in := pipeline.Instance{StudyInstanceUID: d.Study}
		var own bool
		var places string
		if err := rows.Scan(&own, &in.SeriesInstanceUID, &in.SOPInstanceUID, &places); err != nil {
			return nil, err
		}
		for _, p := range strings.Fields(places) {
			names = append(names, objectName(own, &in, p))
		}
	}
	return names, rows.Err()
}
