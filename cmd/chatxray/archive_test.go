package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chatxray/pipeline"
	"chatxray/pipeline/archive"
	"chatxray/pipeline/dicom"
)

// TestArchiveRebuild deletes the index of an archive and makes it anew by the command.
func TestArchiveRebuild(t *testing.T) {
	dir := t.TempDir()
	var d pipeline.Dataset
	for tag, v := range map[pipeline.Tag]string{pipeline.TagSOPClassUID: "1.2.840.10008.5.1.4.1.1.1.1", pipeline.TagSOPInstanceUID: "1.2.1.1.1",
		pipeline.TagStudyInstanceUID: "1.2.1", pipeline.TagSeriesInstanceUID: "1.2.1.1"} {
		d.SetText(tag, "UI", v)
	}
	d.SetText(pipeline.TagPatientName, "PN", "Probe^Ada")
	b, err := dicom.Encode(d)
	if err != nil {
		t.Fatal(err)
	}
	open := func() *archive.Archive {
		t.Helper()
		a, err := archive.Open(dir, dicom.OpenFile, archive.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	a := open()
	st, err := a.Stage(context.Background(), bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if o := a.Commit(context.Background(), []*pipeline.Staged{st})[0]; o.Err != nil {
		t.Fatal(o.Err)
	}
	// While a service has it open, nothing is touched.
	before, err := os.Stat(filepath.Join(dir, "index.db"))
	if err != nil {
		t.Fatal(err)
	}
	code, _, errs := command(t, "", "archive", "rebuild", "--data", dir)
	if after, err := os.Stat(filepath.Join(dir, "index.db")); code != exitFailed || !strings.Contains(errs, "open in another process") || err != nil || !os.SameFile(before, after) {
		t.Errorf("%d %s %v", code, errs, err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "index.db")); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := command(t, "", "archive", "rebuild", "--data", dir); code != 0 || !strings.HasPrefix(out, "1 instances are in the index") {
		t.Errorf("%d %s %s", code, out, errs)
	}
	a = open()
	r, err := a.Search(context.Background(), pipeline.Query{Match: []pipeline.Match{{Tag: pipeline.TagPatientName, Value: "probe*"}}})
	if err != nil || len(r.Results) != 1 {
		t.Error(r, err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := command(t, "", "archive", "check", "--data", dir); code != 0 || !strings.Contains(out, ": 1 files are as they were stored; 0 damaged, 0 missing, 0 without index entry") {
		t.Errorf("%d %s %s", code, out, errs)
	}
	// A file that is none is told, and the index is made all the same.
	strange := filepath.Join(dir, "instances", "1.2.1", "1.2.1.1", "1.2.1.1.2.dcm")
	if err := os.WriteFile(strange, []byte("no DICOM"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := command(t, "", "archive", "rebuild", "--data", dir); code != exitInvalid || !strings.HasPrefix(out, "1 instances") || !strings.Contains(errs, strange) {
		t.Errorf("%d %s %s", code, out, errs)
	}
	if code, out, errs := command(t, "", "archive", "check", "--data", dir); code != exitInvalid || !strings.Contains(out, "1 without index entry") || !strings.Contains(errs, strange+": unknown: it has no index entry") {
		t.Errorf("%d %s %s", code, out, errs)
	}
	empty := t.TempDir()
	if code, _, errs := command(t, "", "archive", "check", "--data", empty); code != exitFailed || !strings.Contains(errs, "no archive") {
		t.Errorf("%d %s", code, errs)
	}
	if code, _, errs := command(t, "", "archive", "rebuild", "--data", empty); code != exitFailed || !strings.Contains(errs, "no archive") {
		t.Errorf("%d %s", code, errs)
	}
	if left, _ := os.ReadDir(empty); len(left) > 0 {
		t.Error("a folder that is no archive was made one")
	}
	wrong := filepath.Join(empty, "wrong.yaml")
	if err := os.WriteFile(wrong, []byte("archive: {same_uid: never}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := command(t, "", "archive", "rebuild", "--config", wrong); code != exitConfig || !strings.Contains(errs, "same_uid") {
		t.Errorf("%d %s", code, errs)
	}
}
