package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
)

const findRecord = `SELECT content FROM record WHERE study = ? AND key = ?`

// copyRecord keeps a file of what was committed of a record. Others may have committed since, in other processes too, and their file may be there already: so the
// index is asked behind each file, until the file is what it has. Whoever writes last has asked last.
func (a *Archive) copyRecord(ctx context.Context, study, key string, content []byte) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	name := recordFile(study, key+".json")
	for {
		var err error
		if content != nil {
			err = a.files.copy(ctx, name, content)
		} else { // deleted meanwhile
			err = a.files.remove(ctx, name)
		}
		if err != nil {
			return err
		}
		now, err := a.recordContent(ctx, study, key)
		if err != nil {
			return fmt.Errorf("it was written, but cannot be compared with the index: %w", err)
		}
		if bytes.Equal(now, content) {
			return nil
		}
		content = now
	}
}

// recordContent is a record as the index has it, nil where it has none.
func (a *Archive) recordContent(ctx context.Context, study, key string) (content []byte, err error) {
	rows, err := a.index.often(ctx, findRecord, study, key)
	if err != nil {
		return nil, indexError(err)
	}
	defer rows.Close()
	if rows.Next() {
		err = rows.Scan(&content)
	}
	return content, indexErrorOrNil(errors.Join(err, rows.Err()))
}
