package archive

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"chatxray/pipeline"
)

// versionPath is where the content of an instance is. The first lies in SOP.dcm; one that replaced another in SOP~2.dcm, SOP~3.dcm and
// so on, beside the earlier ones, which nothing refers to any more. A file never changes: who reads one goes on undisturbed.
func (a *Archive) versionPath(own bool, study, series, sop string, version int) string {
	if version > 1 {
		sop += "~" + strconv.Itoa(version)
	}
	return a.instancePath(own, study, series, sop)
}

// free is where a document of our own can lie whose content has this version or a later one: nothing is there.
func (a *Archive) free(in *pipeline.Instance, version int) (int, string) {
	for ; ; version++ {
		path := a.versionPath(true, in.StudyInstanceUID, in.SeriesInstanceUID, in.SOPInstanceUID, version)
		if _, err := os.Lstat(path); err != nil || a.bucket != nil {
			return version, path
		}
	}
}

// cutVersion reads the name of a file without its extension.
func cutVersion(name string) (sop string, version int, ok bool) {
	sop, n, numbered := strings.Cut(name, "~")
	if !numbered {
		return sop, 1, true
	}
	version, err := strconv.Atoi(n)
	return sop, version, err == nil && version > 1 && strconv.Itoa(version) == n
}

// Versions lists the files of an instance, the one that counts last and those that it replaced before it. The error is the operating
// system's; an instance without files has none.
func (a *Archive) Versions(in *pipeline.Instance) ([]string, error) {
	dir, name := filepath.Split(in.Path)
	sop, last, ok := cutVersion(strings.TrimSuffix(name, ".dcm"))
	if !ok {
		return nil, nil
	}
	var out []string
	for v := 1; v <= last; v++ {
		path := filepath.Join(dir, sop+".dcm")
		if v > 1 {
			path = filepath.Join(dir, sop+"~"+strconv.Itoa(v)+".dcm")
		}
		if _, err := os.Lstat(path); err == nil {
			out = append(out, path)
		} else if !errors.Is(err, os.ErrNotExist) {
			return out, err
		}
	}
	return out, nil
}

// replaceable tells whether the content of an instance may take the place of what is kept under its UID, in the same series: both are from outside, or
// documents of our own, of which a crash has left the first without its record.
func (g *grouped) replaceable(known *pipeline.Instance, knownOwn bool, in *pipeline.Instance, own bool) bool {
	return (g.a.opts.Replace || own) && own == knownOwn &&
		known.StudyInstanceUID == in.StudyInstanceUID && known.SeriesInstanceUID == in.SeriesInstanceUID
}

// replace keeps an instance as the next version of one that is kept under its UID. The study and the series take their attributes from
// it, because it is the newest that is known of them; not from a document of our own.
func (g *grouped) replace(ctx context.Context, tx writing, s *pipeline.Staged, own bool, place string, o *pipeline.Outcome) error {
	in := s.Instance
	var version int
	if err := tx.row(ctx, "SELECT version + 1 FROM instance WHERE uid = ?", in.SOPInstanceUID).Scan(&version); err != nil {
		return err
	}
	final := g.a.versionPath(own, in.StudyInstanceUID, in.SeriesInstanceUID, in.SOPInstanceUID, version)
	if own && g.a.bucket == nil {
		version, final = g.a.free(in, version)
	}
	if g.a.bucket != nil {
		final = g.a.files.path(objectName(own, in, place))
	}
	if o.Err = full(g.place(in, final, own)); o.Err != nil {
		return nil
	}
	kept := *in
	kept.Path = final
	o.Instance, o.Replaced = &kept, true
	return renew(ctx, tx, entry{in: &kept, size: s.Size, own: own, received: g.a.opts.Now().UnixNano(), version: version, place: place})
}

// renew makes an entry the content of the instance that the index has under its UID, and of its series and its study.
func renew(ctx context.Context, tx writing, e entry) error {
	var id, series, study int64
	err := tx.row(ctx, "SELECT i.id, e.id, e.study FROM instance i JOIN series e ON e.id = i.series WHERE i.uid = ?",
		e.in.SOPInstanceUID).Scan(&id, &series, &study)
	if err != nil {
		return err
	}
	h := e.in.Header
	err = tx.exec(ctx, `UPDATE instance SET class = ?, syntax = ?, number = ?, digest = ?, size = ?, received = ?, attrs = ?, version = ?, place = trim(place || ' ' || ?) WHERE id = ?`,
		e.in.SOPClassUID, e.in.TransferSyntaxUID, number(h, pipeline.TagInstanceNumber), e.in.Digest.String(), e.size, e.received,
		encode(pick(h, instanceAttributes)), e.version, e.place, id)
	if err == nil && !e.own {
		err = tx.exec(ctx, "UPDATE study SET received = max(ifnull(received, 0), ?) WHERE id = ?", e.received, study)
	}
	if err != nil || e.own {
		return err
	}
	return errors.Join(setStudy(ctx, tx, study, h), setSeries(ctx, tx, series, h))
}
