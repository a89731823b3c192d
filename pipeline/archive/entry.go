package archive

import (
	"context"
	"database/sql"
	"errors"
	"strconv"
	"strings"

	"chatxray/pipeline"
)

// entry is one instance on its way into the index.
type entry struct {
	in       *pipeline.Instance // Header as indexed has made it
	size     int64
	own      bool
	received int64  // Unix nanoseconds
	version  int    // of the content; 0 is 1
	place    string // in S3, see objects.go; of all contents
}

// What is matched of a study and of a series, in the order of studyValues and seriesValues.
var (
	studyValueColumns = []string{"name_alphabetic", "name_ideographic", "name_phonetic", "patient_id", "birth_date", "sex", "study_date",
		"study_time", "accession", "study_id", "referring", "referring_ideographic", "referring_phonetic", "description", "issuer",
		"accession_issuer", "accession_issuer_uid", "attrs"}
	seriesValueColumns = []string{"modality", "number", "description", "step_date", "step_time", "body_part", "laterality", "series_date",
		"series_time", "attrs"}
)

// The statements that every instance or study needs; they are prepared once.
var (
	touchStudy   = "UPDATE study SET received = nullif(max(ifnull(received, 0), ifnull(?, 0)), 0) WHERE uid = ? RETURNING id"
	findStudy    = "SELECT id FROM study WHERE uid = ?"
	newStudy     = insertInto("study", "uid, received", studyValueColumns)
	changeStudy  = "UPDATE study SET " + strings.Join(studyValueColumns, " = ?, ") + " = ? WHERE id = ?"
	findSeries   = "SELECT id FROM series WHERE study = ? AND uid = ?"
	newSeries    = strings.Replace(insertInto("series", "study, uid", seriesValueColumns), ") RETURNING", ") ON CONFLICT DO NOTHING RETURNING", 1)
	changeSeries = "UPDATE series SET " + strings.Join(seriesValueColumns, " = ?, ") + " = ? WHERE id = ?"
	newInstance  = "INSERT INTO instance (series, uid, class, syntax, number, digest, size, own, received, attrs, version, place) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)"
	// Of a document, whose study the index has.
	newDocumentSeries = "INSERT INTO series (study, uid, " + strings.Join(seriesValueColumns, ", ") + ") SELECT s.id, ?2" + placeholders(3, len(seriesValueColumns)) +
		" FROM study s WHERE s.uid = ?1 AND NOT EXISTS (SELECT 1 FROM series e WHERE e.study = s.id AND e.uid = ?2)"
	newDocumentRequest = "INSERT INTO request (series, step, procedure, accession) SELECT e.id, ?3, ?4, ?5" + seriesByUID +
		" AND NOT EXISTS (SELECT 1 FROM request r WHERE r.series = e.id AND r.step = ?3 AND r.procedure = ?4 AND r.accession = ?5)"
	newDocument = "INSERT INTO instance (series, uid, class, syntax, number, digest, size, own, received, attrs, version, place) VALUES ((SELECT e.id" + seriesByUID + ")" +
		placeholders(3, 11) + ")"
	newWord      = "INSERT INTO name_word (field, word, study) VALUES (?,?,?)"
	newRequest   = "INSERT INTO request (series, step, procedure, accession) VALUES (?,?,?,?)"
	findInstance = "SELECT " + instanceColumns + instanceTables + " WHERE i.uid = ?"
	prepared     = []string{touchStudy, findStudy, newStudy, changeStudy, findSeries, newSeries, changeSeries, newInstance, newWord, newRequest, findInstance,
		newDocumentSeries, newDocumentRequest, newDocument, lockedLife, arriveLife, beginLife, moveLife, newChange, lastState, findRecords, putRecord, savepoint, release}
)

const seriesByUID = " FROM series e JOIN study s ON s.id = e.study WHERE s.uid = ?1 AND e.uid = ?2"

// placeholders are n of them, numbered, each behind a comma.
func placeholders(first, n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(",?" + strconv.Itoa(first+i))
	}
	return b.String()
}

func insertInto(table, first string, columns []string) string {
	return "INSERT INTO " + table + " (" + first + ", " + strings.Join(columns, ", ") + ") VALUES (?,?" + strings.Repeat(",?", len(columns)) + ") RETURNING id"
}

// insert writes an entry with its series and study. The first instance of a study or series gives their attributes.
func insert(ctx context.Context, tx writing, e entry) error {
	study, err := studyOf(ctx, tx, e)
	if err != nil {
		return err
	}
	series, err := seriesOf(ctx, tx, study, e)
	if err != nil {
		return err
	}
	return tx.exec(ctx, newInstance, append([]any{series}, instanceValues(e)...)...)
}

// insertDocument is insert for a document of a study that the index has; it asks nothing.
func insertDocument(ctx context.Context, tx writing, e entry) error {
	study, series, h := e.in.StudyInstanceUID, e.in.SeriesInstanceUID, e.in.Header
	err := tx.exec(ctx, newDocumentSeries, append([]any{study, series}, seriesValues(h)...)...)
	for _, item := range h.Items(pipeline.TagRequestAttributesSequence) {
		err = errors.Join(err, tx.exec(ctx, newDocumentRequest, append([]any{study, series}, requestValues(item)...)...))
	}
	return errors.Join(err, tx.exec(ctx, newDocument, append([]any{study, series}, instanceValues(e)...)...))
}

func instanceValues(e entry) []any {
	h := e.in.Header
	return []any{e.in.SOPInstanceUID, e.in.SOPClassUID, e.in.TransferSyntaxUID, number(h, pipeline.TagInstanceNumber), e.in.Digest.String(), e.size, e.own, e.received,
		encode(pick(h, instanceAttributes)), max(e.version, 1), e.place}
}

// studyOf finds or makes the row of an entry's study.
func studyOf(ctx context.Context, tx writing, e entry) (id int64, err error) {
	var received any
	if !e.own {
		received = e.received
	}
	if e.own {
		err = tx.row(ctx, findStudy, e.in.StudyInstanceUID).Scan(&id)
	} else {
		err = tx.row(ctx, touchStudy, received, e.in.StudyInstanceUID).Scan(&id)
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return id, err
	}
	err = tx.row(ctx, newStudy, append([]any{e.in.StudyInstanceUID, received}, studyValues(e.in.Header)...)...).Scan(&id)
	if err != nil {
		return 0, err
	}
	return id, setWords(ctx, tx, id, e.in.Header)
}

// studyValues are the attributes of a study, and what is matched of them.
func studyValues(h pipeline.Dataset) []any {
	name, referring := foldName(h.String(pipeline.TagPatientName)), foldName(h.String(pipeline.TagReferringPhysicianName))
	var issuer pipeline.Dataset
	if items := h.Items(pipeline.TagIssuerOfAccessionNumberSequence); len(items) > 0 {
		issuer = items[0]
	}
	return []any{name[0], name[1], name[2], h.String(pipeline.TagPatientID), dateKey(h.String(pipeline.TagPatientBirthDate)),
		h.String(pipeline.TagPatientSex), dateKey(h.String(pipeline.TagStudyDate)), timeKey(h.String(pipeline.TagStudyTime)),
		h.String(pipeline.TagAccessionNumber), h.String(pipeline.TagStudyID), referring[0], referring[1], referring[2],
		h.String(pipeline.TagStudyDescription), h.String(pipeline.TagIssuerOfPatientID), issuer.String(pipeline.TagLocalNamespaceEntityID),
		issuer.String(pipeline.TagUniversalEntityID), encode(pick(h, studyAttributes))}
}

// setStudy gives a study other attributes.
func setStudy(ctx context.Context, tx writing, id int64, h pipeline.Dataset) error {
	err := tx.exec(ctx, changeStudy, append(studyValues(h), id)...)
	if err == nil {
		err = tx.exec(ctx, "DELETE FROM name_word WHERE study = ?", id)
	}
	if err != nil {
		return err
	}
	return setWords(ctx, tx, id, h)
}

// fuzzyFields are the names whose words are kept; the place is name_word.field.
var fuzzyFields = [...]pipeline.Tag{pipeline.TagPatientName, pipeline.TagReferringPhysicianName}

func setWords(ctx context.Context, tx writing, id int64, h pipeline.Dataset) error {
	for field, tag := range fuzzyFields {
		for _, w := range words(h.String(tag)) {
			if err := tx.exec(ctx, newWord, field, w, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// seriesOf finds or makes the row of an instance's series.
func seriesOf(ctx context.Context, tx writing, study int64, e entry) (id int64, err error) {
	err = tx.row(ctx, findSeries, study, e.in.SeriesInstanceUID).Scan(&id)
	if !errors.Is(err, sql.ErrNoRows) {
		return id, err
	}
	err = tx.row(ctx, newSeries, append([]any{study, e.in.SeriesInstanceUID}, seriesValues(e.in.Header)...)...).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return id, tx.row(ctx, findSeries, study, e.in.SeriesInstanceUID).Scan(&id)
	}
	if err != nil {
		return 0, err
	}
	return id, setRequests(ctx, tx, id, e.in.Header)
}

// seriesValues are the attributes of a series, and what is matched of them.
func seriesValues(h pipeline.Dataset) []any {
	return []any{h.String(pipeline.TagModality), number(h, pipeline.TagSeriesNumber), h.String(pipeline.TagSeriesDescription),
		dateKey(h.String(pipeline.TagPerformedProcedureStepStartDate)), timeKey(h.String(pipeline.TagPerformedProcedureStepStartTime)),
		h.String(pipeline.TagBodyPartExamined), h.String(pipeline.TagLaterality), dateKey(h.String(pipeline.TagSeriesDate)),
		timeKey(h.String(pipeline.TagSeriesTime)), encode(pick(h, seriesAttributes))}
}

// setSeries gives a series other attributes.
func setSeries(ctx context.Context, tx writing, id int64, h pipeline.Dataset) error {
	err := tx.exec(ctx, changeSeries, append(seriesValues(h), id)...)
	if err == nil {
		err = tx.exec(ctx, "DELETE FROM request WHERE series = ?", id)
	}
	if err != nil {
		return err
	}
	return setRequests(ctx, tx, id, h)
}

func setRequests(ctx context.Context, tx writing, id int64, h pipeline.Dataset) error {
	for _, item := range h.Items(pipeline.TagRequestAttributesSequence) {
		if err := tx.exec(ctx, newRequest, append([]any{id}, requestValues(item)...)...); err != nil {
			return err
		}
	}
	return nil
}

func requestValues(item pipeline.Dataset) []any {
	return []any{item.String(pipeline.TagScheduledProcedureStepID), item.String(pipeline.TagRequestedProcedureID), item.String(pipeline.TagAccessionNumber)}
}

// number writes an IS value in its shortest form, so that 007 is 7.
func number(h pipeline.Dataset, t pipeline.Tag) string {
	if n, ok := h.Int(t); ok {
		return strconv.Itoa(n)
	}
	return strings.TrimSpace(h.String(t))
}

// dateKey writes a date as it is matched, YYYYMMDD; the form YYYY.MM.DD is older than the standard. Empty where it is no date.
func dateKey(s string) string {
	s = strings.ReplaceAll(strings.TrimSpace(s), ".", "")
	if len(s) != 8 || !digits(s) {
		return ""
	}
	return s
}

// timeKey writes a time as it is matched, HHMMSS and perhaps a fraction; the form HH:MM:SS is older than the standard. Empty where it
// is no time.
func timeKey(s string) string {
	s = strings.ReplaceAll(strings.TrimSpace(s), ":", "")
	if !isTime(s) {
		return ""
	}
	if strings.Contains(s, ".") {
		return strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return (s + "0000")[:6]
}
