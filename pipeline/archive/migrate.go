package archive

import (
	"context"
	"fmt"
	"time"

	"chatxray/pipeline"
)

// migration brings an index from one version to the next: SQL, then what takes Go, in one transaction.
type migration struct {
	sql      string
	postgres string // the same for PostgreSQL where it differs; the first three are postgres.sql
	fill     func(*Archive, context.Context, writing) error
}

// migrations bring an index from version i to i+1. A migration that has been released is never changed.
var migrations = []migration{{sql: `
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
`}, {sql: `
-- What a result tells of the levels below stands in the rows themselves; triggers keep it right whoever writes.
ALTER TABLE study ADD COLUMN referring_ideographic TEXT NOT NULL DEFAULT '';
ALTER TABLE study ADD COLUMN referring_phonetic TEXT NOT NULL DEFAULT '';
ALTER TABLE study ADD COLUMN issuer TEXT NOT NULL DEFAULT '';
ALTER TABLE study ADD COLUMN accession_issuer TEXT NOT NULL DEFAULT '';
ALTER TABLE study ADD COLUMN accession_issuer_uid TEXT NOT NULL DEFAULT '';
ALTER TABLE study ADD COLUMN modalities TEXT NOT NULL DEFAULT ''; -- backslashes between
ALTER TABLE study ADD COLUMN classes TEXT NOT NULL DEFAULT ''; -- backslashes between
ALTER TABLE study ADD COLUMN series_count INTEGER NOT NULL DEFAULT 0;
ALTER TABLE study ADD COLUMN instance_count INTEGER NOT NULL DEFAULT 0;
ALTER TABLE series ADD COLUMN instance_count INTEGER NOT NULL DEFAULT 0;
ALTER TABLE series ADD COLUMN body_part TEXT NOT NULL DEFAULT '';
ALTER TABLE series ADD COLUMN laterality TEXT NOT NULL DEFAULT '';
ALTER TABLE series ADD COLUMN series_date TEXT NOT NULL DEFAULT '';
ALTER TABLE series ADD COLUMN series_time TEXT NOT NULL DEFAULT '';
ALTER TABLE instance ADD COLUMN version INTEGER NOT NULL DEFAULT 1; -- of the content; above 1 where it replaced another
CREATE INDEX study_when ON study(study_date, study_time);
-- The items of Request Attributes Sequence.
CREATE TABLE request (
	series INTEGER NOT NULL REFERENCES series(id) ON DELETE CASCADE,
	step TEXT NOT NULL, procedure TEXT NOT NULL, accession TEXT NOT NULL
);
CREATE INDEX request_series ON request(series);
CREATE INDEX request_step ON request(step) WHERE step != '';
CREATE INDEX request_procedure ON request(procedure) WHERE procedure != '';
CREATE INDEX request_accession ON request(accession) WHERE accession != '';
-- The words of person names, for fuzzy matching. field: 0 Patient's Name, 1 Referring Physician's Name.
CREATE TABLE name_word (
	field INTEGER NOT NULL, word TEXT NOT NULL, study INTEGER NOT NULL REFERENCES study(id) ON DELETE CASCADE,
	PRIMARY KEY (field, word, study)
) WITHOUT ROWID;
CREATE INDEX name_word_study ON name_word(study);
-- Which studies have changed, in order: what columns.go has in memory follows it.
CREATE TABLE study_change (seq INTEGER PRIMARY KEY AUTOINCREMENT, study INTEGER NOT NULL);
CREATE TRIGGER study_in AFTER INSERT ON study BEGIN INSERT INTO study_change (study) VALUES (new.id); END;
CREATE TRIGGER study_out AFTER DELETE ON study BEGIN INSERT INTO study_change (study) VALUES (old.id); END;
CREATE TRIGGER study_edit AFTER UPDATE OF study_date, name_alphabetic, name_ideographic, name_phonetic, modalities ON study
	WHEN old.study_date != new.study_date OR old.name_alphabetic != new.name_alphabetic OR old.name_ideographic != new.name_ideographic
		OR old.name_phonetic != new.name_phonetic OR old.modalities != new.modalities
	BEGIN INSERT INTO study_change (study) VALUES (new.id); END;
CREATE TRIGGER series_in AFTER INSERT ON series BEGIN
	UPDATE study SET series_count = series_count + 1, modalities = CASE
		WHEN new.modality = '' OR instr('\' || modalities || '\', '\' || new.modality || '\') > 0 THEN modalities
		WHEN modalities = '' THEN new.modality ELSE modalities || '\' || new.modality END
	WHERE id = new.study;
END;
CREATE TRIGGER series_out AFTER DELETE ON series BEGIN
	UPDATE study SET series_count = series_count - 1,
		modalities = ifnull((SELECT group_concat(modality, '\') FROM (SELECT DISTINCT modality FROM series WHERE study = old.study AND modality != '')), '')
	WHERE id = old.study;
END;
CREATE TRIGGER series_edit AFTER UPDATE OF modality ON series WHEN old.modality != new.modality BEGIN
	UPDATE study SET
		modalities = ifnull((SELECT group_concat(modality, '\') FROM (SELECT DISTINCT modality FROM series WHERE study = new.study AND modality != '')), '')
	WHERE id = new.study;
END;
CREATE TRIGGER instance_in AFTER INSERT ON instance BEGIN
	UPDATE series SET instance_count = instance_count + 1 WHERE id = new.series;
	UPDATE study SET instance_count = instance_count + 1, classes = CASE
		WHEN instr('\' || classes || '\', '\' || new.class || '\') > 0 THEN classes
		WHEN classes = '' THEN new.class ELSE classes || '\' || new.class END
	WHERE id = (SELECT study FROM series WHERE id = new.series);
END;
CREATE TRIGGER instance_out AFTER DELETE ON instance BEGIN
	UPDATE series SET instance_count = instance_count - 1 WHERE id = old.series;
	UPDATE study SET instance_count = instance_count - 1,
		classes = ifnull((SELECT group_concat(class, '\') FROM (SELECT DISTINCT i.class AS class FROM instance i JOIN series e ON e.id = i.series WHERE e.study = study.id)), '')
	WHERE id = (SELECT study FROM series WHERE id = old.series);
END;
CREATE TRIGGER instance_edit AFTER UPDATE OF class ON instance WHEN old.class != new.class BEGIN
	UPDATE study SET
		classes = ifnull((SELECT group_concat(class, '\') FROM (SELECT DISTINCT i.class AS class FROM instance i JOIN series e ON e.id = i.series WHERE e.study = study.id)), '')
	WHERE id = (SELECT study FROM series WHERE id = new.series);
END;
UPDATE series SET instance_count = (SELECT count(*) FROM instance WHERE series = series.id);
UPDATE study SET series_count = (SELECT count(*) FROM series e WHERE e.study = study.id),
	instance_count = ifnull((SELECT sum(instance_count) FROM series e WHERE e.study = study.id), 0),
	modalities = ifnull((SELECT group_concat(modality, '\') FROM (SELECT DISTINCT modality FROM series e WHERE e.study = study.id AND modality != '')), ''),
	classes = ifnull((SELECT group_concat(class, '\') FROM (SELECT DISTINCT i.class AS class FROM instance i JOIN series e ON e.id = i.series WHERE e.study = study.id)), '');
`, fill: fillKeys}, {sql: `
-- What is to be done for a study, and what was (life.go). Times are Unix nanoseconds, 0 for none.
CREATE TABLE life (
	study TEXT PRIMARY KEY, -- Study Instance UID
	state TEXT NOT NULL, since INTEGER NOT NULL, reason TEXT NOT NULL DEFAULT '', worker TEXT NOT NULL DEFAULT '',
	next INTEGER NOT NULL DEFAULT 0, first INTEGER NOT NULL DEFAULT 0,
	lane INTEGER NOT NULL DEFAULT 2, -- of pipeline.Lanes, counted from 1
	open INTEGER NOT NULL, -- 1: something is still to be done
	attempts INTEGER NOT NULL DEFAULT 0, fence INTEGER NOT NULL DEFAULT 0, news INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX life_open ON life(study) WHERE open = 1;
CREATE INDEX life_state ON life(state, study);
CREATE TABLE change (
	id INTEGER PRIMARY KEY, study TEXT NOT NULL, at INTEGER NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL, worker TEXT NOT NULL,
	next INTEGER NOT NULL
);
CREATE INDEX change_study ON change(study);
CREATE TABLE record (
	study TEXT NOT NULL, key TEXT NOT NULL, completed INTEGER NOT NULL,
	outgoing INTEGER NOT NULL, -- 1: documents are on their way to a destination; 2: none are, but some were given up
	content BLOB NOT NULL,
	PRIMARY KEY (study, key)
) WITHOUT ROWID;
CREATE TABLE archive (id TEXT NOT NULL); -- tells this archive from others that share a Redis
INSERT INTO archive VALUES (lower(hex(randomblob(8))));
CREATE INDEX record_outgoing ON record(study || ' ' || key) WHERE outgoing = 1;
CREATE INDEX record_dead ON record(study) WHERE outgoing != 0;
`, fill: (*Archive).fillLives}, {sql: `
ALTER TABLE instance ADD COLUMN place TEXT NOT NULL DEFAULT ''; -- of its contents in S3, the last one counts (objects.go)
-- Files in S3 that are to be removed, again and again until a time: what is on its way there may come later than its removal.
CREATE TABLE garbage (name TEXT PRIMARY KEY, until INTEGER NOT NULL) WITHOUT ROWID;
`, postgres: `
ALTER TABLE instance ADD COLUMN place TEXT COLLATE "C" NOT NULL DEFAULT '';
CREATE TABLE garbage (name TEXT COLLATE "C" PRIMARY KEY, until BIGINT NOT NULL);
`}, {sql: `
-- A series counts with its first instance: entering one changes its study once.
DELETE FROM series WHERE NOT EXISTS (SELECT 1 FROM instance i WHERE i.series = series.id);
DROP TRIGGER series_in; DROP TRIGGER series_out; DROP TRIGGER instance_in; DROP TRIGGER instance_out;
CREATE TRIGGER instance_in AFTER INSERT ON instance BEGIN
	UPDATE series SET instance_count = instance_count + 1 WHERE id = new.series;
	UPDATE study SET instance_count = study.instance_count + 1, series_count = series_count + (e.instance_count = 1),
		classes = CASE WHEN instr('\' || classes || '\', '\' || new.class || '\') > 0 THEN classes
			WHEN classes = '' THEN new.class ELSE classes || '\' || new.class END,
		modalities = CASE WHEN e.modality = '' OR instr('\' || modalities || '\', '\' || e.modality || '\') > 0 THEN modalities
			WHEN modalities = '' THEN e.modality ELSE modalities || '\' || e.modality END
	FROM series e WHERE e.id = new.series AND study.id = e.study;
END;
CREATE TRIGGER instance_out AFTER DELETE ON instance BEGIN
	UPDATE series SET instance_count = instance_count - 1 WHERE id = old.series;
	UPDATE study SET instance_count = instance_count - 1, series_count = series_count - (SELECT instance_count = 0 FROM series WHERE id = old.series),
		classes = ifnull((SELECT group_concat(class, '\') FROM (SELECT DISTINCT i.class AS class FROM instance i JOIN series e ON e.id = i.series WHERE e.study = study.id)), ''),
		modalities = ifnull((SELECT group_concat(modality, '\') FROM
			(SELECT DISTINCT modality FROM series e WHERE e.study = study.id AND e.instance_count > 0 AND modality != '')), '')
	WHERE id = (SELECT study FROM series WHERE id = old.series);
END;
`, postgres: `
DELETE FROM series WHERE NOT EXISTS (SELECT 1 FROM instance i WHERE i.series = series.id);
DROP TRIGGER series_counted ON series;
CREATE OR REPLACE FUNCTION modalities_of(bigint) RETURNS text LANGUAGE sql STABLE AS $$
	SELECT coalesce(string_agg(DISTINCT modality, '\'), '') FROM series WHERE study = $1 AND modality != '' AND instance_count > 0 $$;
CREATE OR REPLACE FUNCTION count_series() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
	IF OLD.modality != NEW.modality THEN
		UPDATE study SET modalities = modalities_of(NEW.study) WHERE id = NEW.study;
	END IF;
	RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION count_instances() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE parent bigint; n bigint; BEGIN
	IF TG_OP = 'INSERT' THEN
		WITH e AS (UPDATE series SET instance_count = instance_count + 1 WHERE id = NEW.series RETURNING study, instance_count, modality)
		UPDATE study SET instance_count = study.instance_count + 1, series_count = series_count + (e.instance_count = 1)::int,
			classes = with_item(classes, NEW.class), modalities = with_item(modalities, e.modality) FROM e WHERE id = e.study;
	ELSIF TG_OP = 'DELETE' THEN
		UPDATE series SET instance_count = instance_count - 1 WHERE id = OLD.series RETURNING study, instance_count INTO parent, n;
		UPDATE study SET instance_count = instance_count - 1, series_count = series_count - (n = 0)::int, classes = classes_of(parent), modalities = modalities_of(parent)
			WHERE id = parent;
	ELSIF OLD.class != NEW.class THEN
		SELECT study INTO parent FROM series WHERE id = NEW.series;
		UPDATE study SET classes = classes_of(parent) WHERE id = parent;
	END IF;
	RETURN NULL;
END $$;
CREATE TRIGGER series_counted AFTER UPDATE OF modality ON series FOR EACH ROW EXECUTE FUNCTION count_series();
ALTER TABLE record SET (toast_tuple_target = 8160); -- compressing most of them would cost more than it saves
`}}

func (a *Archive) migrate() error {
	ctx := context.Background()
	for {
		version, err := a.indexVersion(ctx)
		if err != nil {
			return err
		}
		if version > len(migrations) {
			return newer(version)
		}
		if version == len(migrations) {
			return nil
		}
		if err := a.migrateFrom(ctx, version); err != nil {
			return err
		}
	}
}

func (a *Archive) indexVersion(ctx context.Context) (int, error) {
	tx, err := a.begin(ctx)
	if err != nil {
		return 0, err
	}
	defer tx.Rollback()
	return a.index.version(ctx, tx)
}

// migrateFrom takes one step, unless another process has taken it meanwhile.
func (a *Archive) migrateFrom(ctx context.Context, version int) error {
	tx, err := a.begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := a.index.locked(ctx, tx); err != nil {
		return err
	}
	if now, err := a.index.version(ctx, tx); err != nil || now != version {
		return err
	}
	text, to := a.index.migration(version)
	err = tx.script(ctx, text)
	if fill := migrations[to-1].fill; err == nil && fill != nil {
		err = fill(a, ctx, tx)
	}
	if err == nil && version == 0 && a.bucket == nil { // another process may find this index before this one can say that nothing is in it yet
		err = full(writeDurably(a.path(rebuildingNote), nil))
	}
	if err == nil {
		err = a.index.setVersion(ctx, tx, to)
	}
	if err != nil {
		return err
	}
	return tx.Commit()
}

// errNewer is that of an index which knows more than this program.
var errNewer = fmt.Errorf("%w: a newer program has made the index", pipeline.ErrUnsupported)

func newer(version int) error {
	return fmt.Errorf("%w: it has version %d, this program knows up to %d; nothing was changed: use that program, or a newer one", errNewer, version, len(migrations))
}

// checkable tells whether Check understands an index of a version.
func checkable(version int) error {
	switch {
	case version == len(migrations):
		return nil
	case version > len(migrations):
		return newer(version)
	}
	return fmt.Errorf("%w: the index has version %d, this program checks version %d; a start of the service brings it there", pipeline.ErrUnsupported, version, len(migrations))
}

// fillKeys makes the columns of version 2 from the attributes that version 1 has kept.
func fillKeys(_ *Archive, ctx context.Context, tx writing) error {
	err := eachKept(ctx, tx, "study", func(id int64, h pipeline.Dataset) error { return setStudy(ctx, tx, id, h) })
	if err != nil {
		return err
	}
	return eachKept(ctx, tx, "series", func(id int64, h pipeline.Dataset) error { return setSeries(ctx, tx, id, h) })
}

// eachKept calls f with the attributes of every row of a table, some thousand rows at a time.
func eachKept(ctx context.Context, tx writing, table string, f func(id int64, h pipeline.Dataset) error) error {
	for last := int64(0); ; {
		ids, all, err := someKept(ctx, tx, table, last)
		if err != nil || len(ids) == 0 {
			return err
		}
		for i, id := range ids {
			h, err := decode(nil, all[i])
			if err == nil {
				err = f(id, h)
			}
			if err != nil {
				return err
			}
		}
		last = ids[len(ids)-1]
	}
}

func someKept(ctx context.Context, tx writing, table string, behind int64) (ids []int64, attrs []string, err error) {
	rows, err := tx.rows(ctx, "SELECT id, attrs FROM "+table+" WHERE id > ? ORDER BY id LIMIT 4096", behind)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		var one string
		if err := rows.Scan(&id, &one); err != nil {
			return nil, nil, err
		}
		ids, attrs = append(ids, id), append(attrs, one)
	}
	return ids, attrs, rows.Err()
}

// fillLives makes lives and records from the copies beside the pictures: for an index that is older than they are, or that is made anew.
// Studies that have a life keep it.
func (a *Archive) fillLives(ctx context.Context, tx writing) error {
	for last := ""; ; {
		studies, err := someStudies(ctx, tx, last)
		if err != nil || len(studies) == 0 {
			return err
		}
		for _, s := range studies {
			if err := a.fillLife(ctx, tx, s.uid, fromNanos(s.received)); err != nil {
				return err
			}
		}
		last = studies[len(studies)-1].uid
	}
}

type receivedStudy struct {
	uid      string
	received int64
}

func someStudies(ctx context.Context, tx writing, behind string) (out []receivedStudy, err error) {
	rows, err := tx.rows(ctx, "SELECT uid, ifnull(received, 0) FROM study WHERE uid > ? AND uid NOT IN (SELECT study FROM life) ORDER BY uid LIMIT 4096", behind)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var s receivedStudy
		if err := rows.Scan(&s.uid, &s.received); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, rows.Err()
}

func (a *Archive) fillLife(ctx context.Context, tx writing, study string, received time.Time) error {
	records, err := a.copies(ctx, study)
	if err != nil {
		return err
	}
	for _, r := range records {
		if _, err := keepRecord(ctx, tx, r); err != nil {
			return err
		}
	}
	c, open := pipeline.Change{At: received, State: pipeline.StateReceiving}, 1
	if r := pipeline.Settled(records, received); r != nil {
		c, open = pipeline.Change{At: r.Completed, State: r.State, Reason: "known from its record; the index was made anew"}, 0
	}
	if received.IsZero() { // nothing of it is from outside
		open = 0
	}
	err = tx.exec(ctx, "INSERT INTO life (study, state, since, reason, first, open, news) VALUES (?, ?, ?, ?, ?, ?, 1)",
		study, string(c.State), nanos(c.At), c.Reason, nanos(received), open)
	if err == nil {
		err = note(ctx, tx, study, c)
	}
	return err
}
