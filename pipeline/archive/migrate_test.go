package archive

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chatxray/pipeline"
)

// TestMigration opens an index of version 1: what version 2 matches and counts is there for the studies of before.
func TestMigration(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	db, err := sql.Open("sqlite", filepath.Join(dir, "index.db"))
	if err != nil {
		t.Fatal(err)
	}
	must := func(text string, args ...any) {
		t.Helper()
		if _, err := db.Exec(text, args...); err != nil {
			t.Fatal(err)
		}
	}
	must(migrations[0].sql)
	must("PRAGMA user_version = 1")
	const studies = 4200 // more than one piece of the migration
	must("BEGIN")
	for i := 1; i <= studies; i++ {
		var study, series pipeline.Dataset
		study.SetText(pipeline.TagPatientName, "PN", "Müller^Ga=が^=")
		study.SetText(pipeline.TagStudyDate, "DA", "2020.01.02")
		study.SetText(pipeline.TagStudyInstanceUID, "UI", fmt.Sprint("1.2.", i))
		series.SetText(pipeline.TagModality, "CS", "DX")
		var item pipeline.Dataset
		item.SetText(pipeline.TagScheduledProcedureStepID, "SH", fmt.Sprint("S", i))
		series.SetItems(pipeline.TagRequestAttributesSequence, item)
		must(`INSERT INTO study VALUES (?, ?, 1, 'muller^ga', 'か', '', '', '', '', '2020.01.02', '', '', '', '', '', ?)`, i, fmt.Sprint("1.2.", i), encode(study))
		must(`INSERT INTO series VALUES (?, ?, ?, 'DX', '1', '', '', '', ?)`, i, i, fmt.Sprint("1.2.", i, ".1"), encode(series))
		must(`INSERT INTO instance VALUES (?, ?, ?, '1.2.840.10008.5.1.4.1.1.1.1', '1.2.840.10008.1.2.1', '1', '', 1, 0, 1, '[]')`, i, i, fmt.Sprint("1.2.", i, ".1.1"))
	}
	must("COMMIT")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	a, err := prepare(dir, nil, Options{}, false)
	if err != nil {
		t.Fatal(err)
	}
	defer a.lock.Close()
	if _, err := a.index.open(a); err != nil {
		t.Fatal(err)
	}
	defer a.closeIndex()
	for _, c := range []struct {
		level pipeline.Level
		match pipeline.Match
		want  int
	}{
		{pipeline.StudyLevel, pipeline.Match{Tag: pipeline.TagStudyDate, Value: "20200102"}, studies},
		{pipeline.StudyLevel, pipeline.Match{Tag: pipeline.TagPatientName, Value: "muller*"}, studies},
		{pipeline.StudyLevel, pipeline.Match{Tag: pipeline.TagPatientName, Value: "=が"}, studies},
		{pipeline.StudyLevel, pipeline.Match{Tag: pipeline.TagPatientName, Value: "=か"}, 0},
		{pipeline.StudyLevel, pipeline.Match{Tag: pipeline.TagModalitiesInStudy, Value: "DX"}, studies},
		{pipeline.SeriesLevel, pipeline.Match{In: pipeline.TagRequestAttributesSequence, Tag: pipeline.TagScheduledProcedureStepID, Value: "S4111"}, 1},
	} {
		n, err := a.Count(ctx, pipeline.Query{Level: c.level, Match: []pipeline.Match{c.match}})
		if err != nil || n != c.want {
			t.Errorf("%s=%s: %d, want %d, %v", c.match.Tag, c.match.Value, n, c.want, err)
		}
	}
	fuzzy, err := a.Search(ctx, pipeline.Query{Fuzzy: true, Limit: 1, Match: []pipeline.Match{{Tag: pipeline.TagPatientName, Value: "mueller"}}})
	if err != nil || len(fuzzy.Results) != 1 || fuzzy.Left != studies-1 {
		t.Fatal(fuzzy, err)
	}
	d := fuzzy.Results[0]
	if diff := cmp.Diff([]string{"DX", "1", "1", "1.2.840.10008.5.1.4.1.1.1.1"}, []string{d.String(pipeline.TagModalitiesInStudy), d.String(pipeline.TagNumberOfStudyRelatedSeries),
		d.String(pipeline.TagNumberOfStudyRelatedInstances), d.String(pipeline.TagSOPClassesInStudy)}); diff != "" {
		t.Error(diff)
	}
	// What is deleted is counted no more, and found no more.
	for _, table := range []string{"instance", "series", "study"} {
		if _, err := writer(a).Exec("DELETE FROM " + table + " WHERE id = 4111"); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := a.Count(ctx, pipeline.Query{}); err != nil || n != studies-1 {
		t.Error(n, err)
	}
	var left int
	if err := writer(a).QueryRow("SELECT (SELECT count(*) FROM name_word WHERE study = 4111) + (SELECT count(*) FROM request WHERE series = 4111)").Scan(&left); err != nil || left != 0 {
		t.Error(left, err)
	}
	// And a series counts from its first instance to its last, an instance as long as it is there.
	if _, err := writer(a).Exec("INSERT INTO series (id, study, uid, modality, number, description, step_date, step_time, attrs) VALUES (9999, 1, '1.9', 'SR', '', '', '', '', '[]')"); err != nil {
		t.Fatal(err)
	}
	enter := "INSERT INTO instance (id, series, uid, class, syntax, number, digest, size, own, received, attrs) VALUES (%d, 9999, '1.9.%[1]d', '1.2', '', '', '', 0, 1, 0, '[]')"
	modalities := func() string {
		r, err := a.Search(ctx, pipeline.Query{Match: []pipeline.Match{{Tag: pipeline.TagStudyInstanceUID, Value: "1.2.1"}}})
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(r.Results[0].Strings(pipeline.TagModalitiesInStudy), r.Results[0].String(pipeline.TagNumberOfStudyRelatedSeries), r.Results[0].String(pipeline.TagNumberOfStudyRelatedInstances))
	}
	for _, step := range []struct{ do, want string }{
		{"", "[DX]11"},
		{fmt.Sprintf(enter, 9998), "[DX SR]22"},
		{fmt.Sprintf(enter, 9999), "[DX SR]23"},
		{"DELETE FROM instance WHERE id = 9999", "[DX SR]22"},
		{"DELETE FROM instance WHERE id = 9998", "[DX]11"},
		{"DELETE FROM series WHERE id = 9999", "[DX]11"},
		{"DELETE FROM instance WHERE id = 1", "[]00"},
	} {
		if _, err := writer(a).Exec(step.do); err != nil {
			t.Fatal(err)
		}
		if got := modalities(); got != step.want {
			t.Errorf("%s: %s, want %s", step.do, got, step.want)
		}
	}
}
