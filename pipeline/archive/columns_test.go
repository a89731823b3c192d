package archive

import (
	"context"
	"database/sql"
	"fmt"
	"testing"

	"chatxray/pipeline"
)

// TestPrune: changes that are in memory do not pile up in the index, and those that come afterwards are still noticed.
func TestPrune(t *testing.T) {
	ctx := context.Background()
	a, err := prepare(t.TempDir(), nil, Options{}, false)
	if err != nil {
		t.Fatal(err)
	}
	defer a.lock.Close()
	if _, err := a.index.open(a); err != nil {
		t.Fatal(err)
	}
	defer a.closeIndex()
	change := func(text string) {
		t.Helper()
		if _, err := writer(a).Exec(text); err != nil {
			t.Fatal(err)
		}
	}
	prune := func() (left int) {
		t.Helper()
		tx, err := a.begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.columns.prune(ctx, tx); err != nil {
			t.Fatal(err)
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		if err := writer(a).QueryRow("SELECT count(*) FROM study_change").Scan(&left); err != nil {
			t.Fatal(err)
		}
		return left
	}
	count := func() int {
		t.Helper()
		n, err := a.Count(ctx, pipeline.Query{})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	const studies = maxChanges + 10
	change(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10010)
		INSERT INTO study (id, uid, name_alphabetic, name_ideographic, name_phonetic, patient_id, birth_date, sex, study_date, study_time, accession, study_id, referring, description, attrs)
		SELECT i, '1.2.' || i, '', '', '', '', '', '', '', '', '', '', '', '', '[]' FROM n`)
	if left := prune(); left != studies {
		t.Errorf("%d changes are left before anything is in memory, want %d", left, studies)
	}
	if n := count(); n != studies {
		t.Fatal(n)
	}
	if left := prune(); left != 1 {
		t.Errorf("%d changes are left, want the last one", left)
	}
	change("DELETE FROM study WHERE id IN (3, 10010)")
	if n := count(); n != studies-2 {
		t.Errorf("%d studies, want %d", n, studies-2)
	}
	// SQLite gives the number of the last row again.
	change(`INSERT INTO study (uid, name_alphabetic, name_ideographic, name_phonetic, patient_id, birth_date, sex, study_date, study_time, accession, study_id, referring, description, attrs)
		VALUES ('1.9', 'new', '', '', '', '', '', '', '', '', '', '', '', '[]')`)
	r, err := a.Search(ctx, pipeline.Query{Match: []pipeline.Match{{Tag: pipeline.TagPatientName, Value: "new*"}}})
	if err != nil || len(r.Results) != 1 || count() != studies-1 {
		t.Error(r, err)
	}
}

// TestManySets: however many sets of modalities there are, studies are found.
func TestManySets(t *testing.T) {
	c := columns{codes: map[string]uint32{}}
	for i := int64(1); i <= 70_000; i++ {
		c.put(columnRow{id: i, modalities: fmt.Sprint("M", i)})
	}
	for _, id := range []int64{1, 1 << 16, 1<<16 + 1, 70_000} {
		if ids, n := c.match(filter{sets: []string{fmt.Sprint("M", id)}}, 0, 10); n != 1 || len(ids) != 1 || ids[0] != id {
			t.Error(id, ids, n)
		}
	}
}

// writer is the database of an index in SQLite.
func writer(a *Archive) *sql.DB { return a.index.(*sqliteIndex).write }
