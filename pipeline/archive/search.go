package archive

import (
	"context"
	"fmt"
	"strings"

	"chatxray/pipeline"
)

// kind says how the values of a key are matched.
type kind int

const (
	kindUID    kind = iota // list of UIDs
	kindText               // wildcards, case counts
	kindName               // wildcards, folded, each component group
	kindDate               // single value or range
	kindTime               // single value or range, any precision
	kindNumber             // single value
)

// key is an attribute that a query can match.
type key struct {
	level   pipeline.Level
	columns []string
	kind    kind
}

var keys = map[pipeline.Tag]key{
	pipeline.TagStudyInstanceUID:                {pipeline.StudyLevel, []string{"s.uid"}, kindUID},
	pipeline.TagPatientName:                     {pipeline.StudyLevel, []string{"s.name_alphabetic", "s.name_ideographic", "s.name_phonetic"}, kindName},
	pipeline.TagPatientID:                       {pipeline.StudyLevel, []string{"s.patient_id"}, kindText},
	pipeline.TagPatientBirthDate:                {pipeline.StudyLevel, []string{"s.birth_date"}, kindDate},
	pipeline.TagPatientSex:                      {pipeline.StudyLevel, []string{"s.sex"}, kindText},
	pipeline.TagStudyDate:                       {pipeline.StudyLevel, []string{"s.study_date"}, kindDate},
	pipeline.TagStudyTime:                       {pipeline.StudyLevel, []string{"s.study_time"}, kindTime},
	pipeline.TagAccessionNumber:                 {pipeline.StudyLevel, []string{"s.accession"}, kindText},
	pipeline.TagStudyID:                         {pipeline.StudyLevel, []string{"s.study_id"}, kindText},
	pipeline.TagReferringPhysicianName:          {pipeline.StudyLevel, []string{"s.referring"}, kindName},
	pipeline.TagStudyDescription:                {pipeline.StudyLevel, []string{"s.description"}, kindText},
	pipeline.TagModalitiesInStudy:               {pipeline.StudyLevel, []string{"m.modality"}, kindText},
	pipeline.TagSeriesInstanceUID:               {pipeline.SeriesLevel, []string{"e.uid"}, kindUID},
	pipeline.TagModality:                        {pipeline.SeriesLevel, []string{"e.modality"}, kindText},
	pipeline.TagSeriesNumber:                    {pipeline.SeriesLevel, []string{"e.number"}, kindNumber},
	pipeline.TagSeriesDescription:               {pipeline.SeriesLevel, []string{"e.description"}, kindText},
	pipeline.TagPerformedProcedureStepStartDate: {pipeline.SeriesLevel, []string{"e.step_date"}, kindDate},
	pipeline.TagPerformedProcedureStepStartTime: {pipeline.SeriesLevel, []string{"e.step_time"}, kindTime},
	pipeline.TagSOPInstanceUID:                  {pipeline.InstanceLevel, []string{"i.uid"}, kindUID},
	pipeline.TagSOPClassUID:                     {pipeline.InstanceLevel, []string{"i.class"}, kindUID},
	pipeline.TagInstanceNumber:                  {pipeline.InstanceLevel, []string{"i.number"}, kindNumber},
}

const modalitiesOfStudy = `(SELECT group_concat(modality, '\') FROM (SELECT DISTINCT modality FROM series WHERE study = s.id AND modality != '' ORDER BY modality))`

// selects holds, for each level, columns and tables of a search: attributes of the levels, modalities, and the counts below.
var selects = [...]string{
	pipeline.StudyLevel: `SELECT s.attrs, '[]', '[]', ` + modalitiesOfStudy + `, (SELECT count(*) FROM series WHERE study = s.id),
		(SELECT count(*) FROM instance i JOIN series e ON e.id = i.series WHERE e.study = s.id) FROM study s`,
	pipeline.SeriesLevel: `SELECT s.attrs, e.attrs, '[]', ` + modalitiesOfStudy + `, 0, (SELECT count(*) FROM instance WHERE series = e.id)
		FROM series e JOIN study s ON s.id = e.study`,
	pipeline.InstanceLevel: `SELECT s.attrs, e.attrs, i.attrs, ` + modalitiesOfStudy + `, 0, 0` + instanceTables,
}

var orders = [...]string{pipeline.StudyLevel: "s.id", pipeline.SeriesLevel: "e.id", pipeline.InstanceLevel: "i.id"}

// Search returns the attributes of what matches a query, in the order of arrival, which pages keep, and whether there is more behind
// Limit. A result at a lower level has the attributes of the levels above. A key that cannot be matched at the level or a value that is
// no value of the key is an error that wraps pipeline.ErrInvalid.
func (a *Archive) Search(ctx context.Context, q pipeline.Query) (results []pipeline.Dataset, more bool, err error) {
	where, args, err := conditions(q)
	if err != nil {
		return nil, false, err
	}
	sql := selects[q.Level] + where + " ORDER BY " + orders[q.Level] + " LIMIT ? OFFSET ?"
	limit := -1
	if q.Limit > 0 {
		limit = q.Limit + 1
	}
	rows, err := a.read.QueryContext(ctx, sql, append(args, limit, q.Offset)...)
	if err != nil {
		return nil, false, indexError(err)
	}
	defer rows.Close()
	for rows.Next() {
		if q.Limit > 0 && len(results) == q.Limit {
			return results, true, nil
		}
		d, err := scanResult(rows, q.Level)
		if err != nil {
			return nil, false, fmt.Errorf("reading the index: %w", indexError(err))
		}
		results = append(results, d)
	}
	if err := rows.Err(); err != nil {
		return nil, false, indexError(err)
	}
	return results, false, nil
}

func scanResult(r row, level pipeline.Level) (pipeline.Dataset, error) {
	var attrs [3]string
	var modalities *string
	var series, instances int64
	if err := r.Scan(&attrs[0], &attrs[1], &attrs[2], &modalities, &series, &instances); err != nil {
		return nil, err
	}
	var d pipeline.Dataset
	for _, s := range attrs {
		part, err := decode(s)
		if err != nil {
			return nil, err
		}
		for _, e := range part {
			d.Set(e)
		}
	}
	d.SetText(pipeline.TagInstanceAvailability, "CS", "ONLINE")
	if modalities == nil {
		modalities = new(string)
	}
	d.SetText(pipeline.TagModalitiesInStudy, "CS", strings.FieldsFunc(*modalities, func(r rune) bool { return r == '\\' })...)
	text := func(n int64) string { return fmt.Sprint(n) }
	switch level {
	case pipeline.StudyLevel:
		d.SetText(pipeline.TagNumberOfStudyRelatedSeries, "IS", text(series))
		d.SetText(pipeline.TagNumberOfStudyRelatedInstances, "IS", text(instances))
	case pipeline.SeriesLevel:
		d.SetText(pipeline.TagNumberOfSeriesRelatedInstances, "IS", text(instances))
	}
	return d, nil
}

// conditions turns the keys of a query into a WHERE clause.
func conditions(q pipeline.Query) (where string, args []any, err error) {
	var all []string
	for _, m := range q.Match {
		k, ok := keys[m.Tag]
		if !ok || k.level > q.Level {
			return "", nil, fmt.Errorf("%w: the attribute %s is no key that can be matched at the level of the %s", pipeline.ErrInvalid, m.Tag, q.Level)
		}
		value := strings.TrimRight(strings.TrimSpace(m.Value), "\x00")
		if value == "" || value == "*" {
			continue
		}
		one, values, err := k.condition(value)
		if err != nil {
			return "", nil, fmt.Errorf("%w: the key %s: %v", pipeline.ErrInvalid, m.Tag, err)
		}
		if m.Tag == pipeline.TagModalitiesInStudy {
			one = "EXISTS (SELECT 1 FROM series m WHERE m.study = s.id AND " + one + ")"
		}
		all, args = append(all, "("+one+")"), append(args, values...)
	}
	if len(all) == 0 {
		return "", nil, nil
	}
	return " WHERE " + strings.Join(all, " AND "), args, nil
}
