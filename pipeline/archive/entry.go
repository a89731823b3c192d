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
	received int64 // Unix nanoseconds
	version  int   // of the content; 0 is 1
}

// insert writes an entry with its series and study. The first instance of a study or series gives their attributes.
func insert(ctx context.Context, tx *sql.Tx, e entry) error {
	study, err := studyOf(ctx, tx, e)
	if err != nil {
		return err
	}
	series, err := seriesOf(ctx, tx, study, e.in)
	if err != nil {
		return err
	}
	h := e.in.Header
	_, err = tx.ExecContext(ctx, `INSERT INTO instance (series, uid, class, syntax, number, digest, size, own, received, attrs, version)
		VALUES (?,?,?,?,?,?,?,?,?,?,?)`,
		series, e.in.SOPInstanceUID, e.in.SOPClassUID, e.in.TransferSyntaxUID, number(h, pipeline.TagInstanceNumber),
		e.in.Digest.String(), e.size, e.own, e.received, encode(pick(h, instanceAttributes)), max(e.version, 1))
	return err
}

// studyOf finds or makes the row of an entry's study.
func studyOf(ctx context.Context, tx *sql.Tx, e entry) (id int64, err error) {
	var received any
	if !e.own {
		received = e.received
	}
	err = tx.QueryRowContext(ctx, `UPDATE study SET received = nullif(max(ifnull(received, 0), ifnull(?, 0)), 0) WHERE uid = ? RETURNING id`,
		received, e.in.StudyInstanceUID).Scan(&id)
	if !errors.Is(err, sql.ErrNoRows) {
		return id, err
	}
	err = tx.QueryRowContext(ctx, `INSERT INTO study (uid, received, name_alphabetic, name_ideographic, name_phonetic, patient_id, birth_date,
		sex, study_date, study_time, accession, study_id, referring, description, attrs)
		VALUES (?,?,'','','','','','','','','','','','','') RETURNING id`, e.in.StudyInstanceUID, received).Scan(&id)
	if err != nil {
		return 0, err
	}
	return id, setStudy(ctx, tx, id, e.in.Header, true)
}

// setStudy writes the attributes of a study, and what is matched of them. fresh: there are no words of it yet.
func setStudy(ctx context.Context, tx *sql.Tx, id int64, h pipeline.Dataset, fresh bool) error {
	name, referring := foldName(h.String(pipeline.TagPatientName)), foldName(h.String(pipeline.TagReferringPhysicianName))
	var issuer pipeline.Dataset
	if items := h.Items(pipeline.TagIssuerOfAccessionNumberSequence); len(items) > 0 {
		issuer = items[0]
	}
	_, err := tx.ExecContext(ctx, `UPDATE study SET name_alphabetic = ?, name_ideographic = ?, name_phonetic = ?, patient_id = ?, birth_date = ?,
		sex = ?, study_date = ?, study_time = ?, accession = ?, study_id = ?, referring = ?, referring_ideographic = ?, referring_phonetic = ?,
		description = ?, issuer = ?, accession_issuer = ?, accession_issuer_uid = ?, attrs = ? WHERE id = ?`,
		name[0], name[1], name[2], h.String(pipeline.TagPatientID), dateKey(h.String(pipeline.TagPatientBirthDate)),
		h.String(pipeline.TagPatientSex), dateKey(h.String(pipeline.TagStudyDate)), timeKey(h.String(pipeline.TagStudyTime)),
		h.String(pipeline.TagAccessionNumber), h.String(pipeline.TagStudyID), referring[0], referring[1], referring[2],
		h.String(pipeline.TagStudyDescription), h.String(pipeline.TagIssuerOfPatientID), issuer.String(pipeline.TagLocalNamespaceEntityID),
		issuer.String(pipeline.TagUniversalEntityID), encode(pick(h, studyAttributes)), id)
	if err == nil && !fresh {
		_, err = tx.ExecContext(ctx, "DELETE FROM name_word WHERE study = ?", id)
	}
	for field, tag := range fuzzyFields {
		for _, w := range words(h.String(tag)) {
			if err == nil {
				_, err = tx.ExecContext(ctx, "INSERT INTO name_word (field, word, study) VALUES (?,?,?)", field, w, id)
			}
		}
	}
	return err
}

// fuzzyFields are the names whose words are kept; the place is name_word.field.
var fuzzyFields = [...]pipeline.Tag{pipeline.TagPatientName, pipeline.TagReferringPhysicianName}

// seriesOf finds or makes the row of an instance's series.
func seriesOf(ctx context.Context, tx *sql.Tx, study int64, in *pipeline.Instance) (id int64, err error) {
	err = tx.QueryRowContext(ctx, "SELECT id FROM series WHERE study = ? AND uid = ?", study, in.SeriesInstanceUID).Scan(&id)
	if !errors.Is(err, sql.ErrNoRows) {
		return id, err
	}
	err = tx.QueryRowContext(ctx, `INSERT INTO series (study, uid, modality, number, description, step_date, step_time, attrs)
		VALUES (?,?,?,'','','','','') RETURNING id`, study, in.SeriesInstanceUID, in.Header.String(pipeline.TagModality)).Scan(&id)
	if err != nil {
		return 0, err
	}
	return id, setSeries(ctx, tx, id, in.Header, true)
}

// setSeries writes the attributes of a series, and what is matched of them. fresh: there are no requests of it yet.
func setSeries(ctx context.Context, tx *sql.Tx, id int64, h pipeline.Dataset, fresh bool) error {
	_, err := tx.ExecContext(ctx, `UPDATE series SET modality = ?, number = ?, description = ?, step_date = ?, step_time = ?, body_part = ?,
		laterality = ?, series_date = ?, series_time = ?, attrs = ? WHERE id = ?`,
		h.String(pipeline.TagModality), number(h, pipeline.TagSeriesNumber), h.String(pipeline.TagSeriesDescription),
		dateKey(h.String(pipeline.TagPerformedProcedureStepStartDate)), timeKey(h.String(pipeline.TagPerformedProcedureStepStartTime)),
		h.String(pipeline.TagBodyPartExamined), h.String(pipeline.TagLaterality), dateKey(h.String(pipeline.TagSeriesDate)),
		timeKey(h.String(pipeline.TagSeriesTime)), encode(pick(h, seriesAttributes)), id)
	if err == nil && !fresh {
		_, err = tx.ExecContext(ctx, "DELETE FROM request WHERE series = ?", id)
	}
	for _, item := range h.Items(pipeline.TagRequestAttributesSequence) {
		if err == nil {
			_, err = tx.ExecContext(ctx, "INSERT INTO request (series, step, procedure, accession) VALUES (?,?,?,?)", id,
				item.String(pipeline.TagScheduledProcedureStepID), item.String(pipeline.TagRequestedProcedureID), item.String(pipeline.TagAccessionNumber))
		}
	}
	return err
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
