package archive

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"modernc.org/sqlite"

	"chatxray/pipeline"
)

// migrations bring an index from version i to i+1. A migration that has been released is never changed.
var migrations = []string{`
CREATE TABLE study (
	id INTEGER PRIMARY KEY,
	uid TEXT NOT NULL UNIQUE,
	received INTEGER, -- Unix nanoseconds of the last instance from outside
	name_alphabetic TEXT NOT NULL, name_ideographic TEXT NOT NULL, name_phonetic TEXT NOT NULL, -- folded
	patient_id TEXT NOT NULL, birth_date TEXT NOT NULL, sex TEXT NOT NULL,
	study_date TEXT NOT NULL, study_time TEXT NOT NULL, accession TEXT NOT NULL, study_id TEXT NOT NULL,
	referring TEXT NOT NULL, description TEXT NOT NULL,
	attrs TEXT NOT NULL
);
CREATE INDEX study_name ON study(name_alphabetic);
CREATE INDEX study_ideographic ON study(name_ideographic) WHERE name_ideographic != '';
CREATE INDEX study_phonetic ON study(name_phonetic) WHERE name_phonetic != '';
CREATE INDEX study_patient ON study(patient_id);
CREATE INDEX study_date ON study(study_date);
CREATE INDEX study_accession ON study(accession);
CREATE TABLE series (
	id INTEGER PRIMARY KEY,
	study INTEGER NOT NULL REFERENCES study(id),
	uid TEXT NOT NULL,
	modality TEXT NOT NULL, number TEXT NOT NULL, description TEXT NOT NULL,
	step_date TEXT NOT NULL, step_time TEXT NOT NULL,
	attrs TEXT NOT NULL,
	UNIQUE (study, uid)
);
CREATE INDEX series_uid ON series(uid);
CREATE INDEX series_modality ON series(modality);
CREATE TABLE instance (
	id INTEGER PRIMARY KEY,
	series INTEGER NOT NULL REFERENCES series(id),
	uid TEXT NOT NULL UNIQUE,
	class TEXT NOT NULL, syntax TEXT NOT NULL, number TEXT NOT NULL,
	digest TEXT NOT NULL, size INTEGER NOT NULL,
	own INTEGER NOT NULL, -- 1: a document of this product
	received INTEGER NOT NULL, -- Unix nanoseconds
	attrs TEXT NOT NULL
);
CREATE INDEX instance_series ON instance(series);
`}

func (a *Archive) openIndex() error {
	dsn := func(more string) string {
		return "file:" + (&url.URL{Path: a.path("index.db")}).EscapedPath() +
			"?_pragma=busy_timeout(10000)&_pragma=foreign_keys(1)&_pragma=cache_size(-8000)" + more
	}
	var err error
	if a.write, err = sql.Open("sqlite", dsn("&_txlock=immediate&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")); err != nil {
		return err
	}
	a.write.SetMaxOpenConns(1)
	if err := a.migrate(); err != nil {
		a.write.Close()
		return fmt.Errorf("the archive's index %s cannot be used; stop the service, delete the file (it is made anew from the instances) and start again: %w", a.path("index.db"), indexError(err))
	}
	if a.read, err = sql.Open("sqlite", dsn("&_pragma=query_only(1)")); err != nil {
		a.write.Close()
		return err
	}
	a.read.SetMaxOpenConns(4)
	return nil
}

func (a *Archive) closeIndex() error { return errors.Join(a.read.Close(), a.write.Close()) }

func (a *Archive) migrate() error {
	var version int
	if err := a.write.QueryRow("PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	if version > len(migrations) {
		return fmt.Errorf("%w: the index has version %d, this program knows %d", pipeline.ErrUnsupported, version, len(migrations))
	}
	for ; version < len(migrations); version++ {
		tx, err := a.write.Begin()
		if err != nil {
			return err
		}
		if _, err = tx.Exec(migrations[version]); err == nil {
			_, err = tx.Exec("PRAGMA user_version = " + strconv.Itoa(version+1))
		}
		if err != nil {
			return errors.Join(err, tx.Rollback())
		}
		if err := tx.Commit(); err != nil {
			return err
		}
	}
	return nil
}

// SQLite's primary result codes that have a sentinel.
const (
	sqliteBusy = 5
	sqliteFull = 13
)

// indexError adds the sentinel to an error of SQLite and drops what it may quote.
func indexError(err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return full(err)
	}
	switch e.Code() & 0xFF {
	case sqliteFull:
		return fmt.Errorf("%w: the index cannot grow", pipeline.ErrFull)
	case sqliteBusy:
		return fmt.Errorf("%w: the index is locked", pipeline.ErrBusy)
	}
	return fmt.Errorf("index: %s", sqlite.ErrorCodeString[e.Code()])
}

// entry is one instance on its way into the index.
type entry struct {
	in       *pipeline.Instance // Header as indexed has made it
	size     int64
	own      bool
	received int64 // Unix nanoseconds
}

// insert writes an entry with its series and study. The first instance of a study or series gives their attributes.
func insert(ctx context.Context, tx *sql.Tx, e entry) error {
	h := e.in.Header
	alphabetic, ideographic, phonetic := foldName(h.String(pipeline.TagPatientName))
	var received any
	if !e.own {
		received = e.received
	}
	var study, series int64
	err := tx.QueryRowContext(ctx, `INSERT INTO study (uid, received, name_alphabetic, name_ideographic, name_phonetic, patient_id, birth_date,
		sex, study_date, study_time, accession, study_id, referring, description, attrs) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)
		ON CONFLICT (uid) DO UPDATE SET received = nullif(max(ifnull(received, 0), ifnull(excluded.received, 0)), 0) RETURNING id`,
		e.in.StudyInstanceUID, received, alphabetic, ideographic, phonetic, h.String(pipeline.TagPatientID),
		h.String(pipeline.TagPatientBirthDate), h.String(pipeline.TagPatientSex), h.String(pipeline.TagStudyDate),
		h.String(pipeline.TagStudyTime), h.String(pipeline.TagAccessionNumber), h.String(pipeline.TagStudyID),
		fold(h.String(pipeline.TagReferringPhysicianName)), h.String(pipeline.TagStudyDescription),
		encode(pick(h, studyAttributes))).Scan(&study)
	if err != nil {
		return err
	}
	err = tx.QueryRowContext(ctx, `INSERT INTO series (study, uid, modality, number, description, step_date, step_time, attrs)
		VALUES (?,?,?,?,?,?,?,?) ON CONFLICT (study, uid) DO UPDATE SET uid = uid RETURNING id`,
		study, e.in.SeriesInstanceUID, h.String(pipeline.TagModality), number(h, pipeline.TagSeriesNumber),
		h.String(pipeline.TagSeriesDescription), h.String(pipeline.TagPerformedProcedureStepStartDate),
		h.String(pipeline.TagPerformedProcedureStepStartTime), encode(pick(h, seriesAttributes))).Scan(&series)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO instance (series, uid, class, syntax, number, digest, size, own, received, attrs)
		VALUES (?,?,?,?,?,?,?,?,?,?)`,
		series, e.in.SOPInstanceUID, e.in.SOPClassUID, e.in.TransferSyntaxUID, number(h, pipeline.TagInstanceNumber),
		e.in.Digest.String(), e.size, e.own, e.received, encode(pick(h, instanceAttributes)))
	return err
}

// number writes an IS value in its shortest form, so that 007 is 7.
func number(h pipeline.Dataset, t pipeline.Tag) string {
	if n, ok := h.Int(t); ok {
		return strconv.Itoa(n)
	}
	return strings.TrimSpace(h.String(t))
}

const instanceColumns = `s.uid, e.uid, i.uid, i.class, i.syntax, i.digest, i.own, i.size`

const instanceTables = ` FROM instance i JOIN series e ON e.id = i.series JOIN study s ON s.id = e.study`

type row interface{ Scan(...any) error }

// scanInstance reads instanceColumns.
func (a *Archive) scanInstance(r row) (in *pipeline.Instance, own bool, size int64, err error) {
	in = &pipeline.Instance{}
	var digest string
	if err := r.Scan(&in.StudyInstanceUID, &in.SeriesInstanceUID, &in.SOPInstanceUID, &in.SOPClassUID, &in.TransferSyntaxUID, &digest, &own, &size); err != nil {
		return nil, false, 0, err
	}
	in.Path = a.instancePath(own, in.StudyInstanceUID, in.SeriesInstanceUID, in.SOPInstanceUID)
	return in, own, size, in.Digest.UnmarshalText([]byte(digest))
}

// find looks an instance up by its UID; nil where the index lacks it.
func (a *Archive) find(ctx context.Context, q interface {
	QueryRowContext(context.Context, string, ...any) *sql.Row
}, sop string) (*pipeline.Instance, error) {
	in, _, _, err := a.scanInstance(q.QueryRowContext(ctx, "SELECT "+instanceColumns+instanceTables+" WHERE i.uid = ?", sop))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return in, err
}
