package archive_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chatxray/pipeline"
	"chatxray/pipeline/archive"
	"chatxray/pipeline/dicom"
)

// TestReplace: the study shows the new content as a changed set of inputs, who reads the old one is not disturbed, and an index that is
// made anew from the files says the same.
func TestReplace(t *testing.T) { onEach(t, testReplace) }

func testReplace(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	a := open(t, dir, archive.Options{Replace: true})
	mustStore(t, a, object(t, "1.2.1", "1.2.1.1", "1.2.1.1.1"), object(t, "1.2.1", "1.2.1.1", "1.2.1.1.2"))
	before, err := a.Study(ctx, "1.2.1")
	if err != nil {
		t.Fatal(err)
	}
	told := 0
	a.OnStored(func(_ string, news bool) {
		if news {
			told++
		}
	})
	for i, name := range []string{"Second^A", "Third^A"} {
		o := store(t, a, object(t, "1.2.1", "1.2.1.1", "1.2.1.1.1", pipeline.TagPatientName, name, pipeline.TagModality, "CR"))[0]
		if o.Err != nil || !o.Replaced || o.Duplicate || told != i+1 {
			t.Fatalf("%+v, told %d times", o, told)
		}
	}
	after, err := a.Study(ctx, "1.2.1")
	if err != nil {
		t.Fatal(err)
	}
	if len(after.Instances) != 2 || after.Instances[0].Digest == before.Instances[0].Digest || after.Instances[1].Digest != before.Instances[1].Digest {
		t.Errorf("the set of inputs: %v", after.Instances)
	}
	steps := pipeline.Steps{Model: model{}, Select: func(st *pipeline.Study) (chosen []pipeline.Chosen, _ []pipeline.Refusal) {
		for _, in := range st.Instances {
			chosen = append(chosen, pipeline.Chosen{Instance: in})
		}
		return chosen, nil
	}}
	if steps.Key(before) == steps.Key(after) {
		t.Error("the line would not read the study again")
	}
	old, err := dicom.OpenFile(before.Instances[0].Path)
	if err != nil || old.Digest != before.Instances[0].Digest {
		t.Error("who reads the old content is disturbed:", err)
	}
	versions, err := a.Versions(after.Instances[0])
	folder := filepath.Dir(before.Instances[0].Path)
	if diff := cmp.Diff([]string{before.Instances[0].Path, filepath.Join(folder, "1.2.1.1.1~2.dcm"), filepath.Join(folder, "1.2.1.1.1~3.dcm")}, versions); diff != "" || err != nil {
		t.Error(diff, err)
	}
	// What it must not replace: one of our own documents.
	document := pipeline.Document{StudyInstanceUID: "1.2.1", SeriesInstanceUID: "1.2.1.9", SOPInstanceUID: "1.2.1.9.1",
		SOPClassUID: "1.2.840.10008.5.1.4.1.1.1.1", Bytes: object(t, "1.2.1", "1.2.1.9", "1.2.1.9.1")}
	if err := put(a, document); err != nil {
		t.Fatal(err)
	}
	if o := store(t, a, object(t, "1.2.1", "1.2.1.9", "1.2.1.9.1", pipeline.TagPatientID, "P9"))[0]; o.Err == nil {
		t.Error("a document of our own was replaced")
	}
	want := searchAll(t, a)
	a.Close()

	loseIndex(t, dir)
	warn := func(what, path string, err error) { t.Error(what, path, err) }
	if n, err := archive.Rebuild(ctx, dir, dicom.OpenFile, indexed(t, dir, archive.Options{Warn: warn})); err != nil || n != 3 {
		t.Fatal(n, err)
	}
	a = open(t, dir, archive.Options{Warn: warn})
	compared(t, a)
	if diff := cmp.Diff(want, searchAll(t, a)); diff != "" {
		t.Error(diff)
	}
	a.Close()

	// A crash after the file got its name and before the index knows it.
	newest := object(t, "1.2.1", "1.2.1.1", "1.2.1.1.2", pipeline.TagPatientName, "Fourth^A")
	if err := os.WriteFile(filepath.Join(folder, "1.2.1.1.2~2.dcm"), newest, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "clean")); err != nil {
		t.Fatal(err)
	}
	a = open(t, dir, archive.Options{Warn: warn})
	compared(t, a)
	found, err := a.Instances(ctx, "1.2.1", "", "1.2.1.1.2")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(found[0].Path); err != nil || !bytes.Equal(b, newest) {
		t.Error("the newest file does not count after a crash:", err)
	}
	if r, err := a.Search(ctx, pipeline.Query{Match: []pipeline.Match{{Tag: pipeline.TagPatientName, Value: "fourth*"}}}); err != nil || len(r.Results) != 1 {
		t.Error(r, err)
	}

	// A deletion takes what was replaced along.
	if n, left, err := a.Delete(ctx, "1.2.1", "1.2.1.1", "1.2.1.1.1"); n != 1 || !left || err != nil {
		t.Error(n, left, err)
	}
	for _, f := range versions {
		if _, err := os.Stat(f); err == nil {
			t.Error("a replaced file stays:", f)
		}
	}
}

// model only has a name.
type model struct{ pipeline.Model }

func (model) Ref() pipeline.ModelRef { return pipeline.ModelRef{Name: "none"} }

func searchAll(t *testing.T, a *archive.Archive) (got []any) {
	t.Helper()
	for _, l := range []pipeline.Level{pipeline.StudyLevel, pipeline.SeriesLevel, pipeline.InstanceLevel} {
		r, err := a.Search(context.Background(), pipeline.Query{Level: l})
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, r)
	}
	return got
}
