package main

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"io/fs"
	"maps"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"chatxray/dicomweb"
	"chatxray/pipeline"
	"chatxray/pipeline/archive"
	"chatxray/pipeline/dicom"
)

// TestExport exports a study out of the folder and through the service, into a folder and a ZIP file: the same files, byte for byte as they are stored,
// which dcmtk and pydicom read.
func TestExport(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	file := func(series, sop string) []byte {
		t.Helper()
		var d pipeline.Dataset
		for tag, v := range map[pipeline.Tag]string{pipeline.TagSOPClassUID: "1.2.840.10008.5.1.4.1.1.1.1", pipeline.TagSOPInstanceUID: sop,
			pipeline.TagStudyInstanceUID: "1.2.1", pipeline.TagSeriesInstanceUID: series} {
			d.SetText(tag, "UI", v)
		}
		d.SetText(pipeline.TagPatientName, "PN", "Probe^Ada")
		b, err := dicom.Encode(d)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	a, err := archive.Open(dir, dicom.OpenFile, archive.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	want := map[string][]byte{"instances/1.2.1.1/1.2.1.1.1.dcm": file("1.2.1.1", "1.2.1.1.1"), "instances/1.2.1.1/1.2.1.1.2.dcm": file("1.2.1.1", "1.2.1.1.2"),
		"documents/1.2.1.9/1.2.1.9.1.dcm": file("1.2.1.9", "1.2.1.9.1")}
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(want))) { // the instances before the document
		b := want[name]
		if strings.HasPrefix(name, "documents") {
			ref := pipeline.DocumentRef{SeriesInstanceUID: "1.2.1.9", SOPInstanceUID: "1.2.1.9.1", SOPClassUID: "1.2.840.10008.5.1.4.1.1.1.1"}
			doc := pipeline.Document{StudyInstanceUID: "1.2.1", SeriesInstanceUID: ref.SeriesInstanceUID, SOPInstanceUID: ref.SOPInstanceUID, SOPClassUID: ref.SOPClassUID, Bytes: b}
			if _, err := a.Report(ctx, pipeline.Life{StudyInstanceUID: "1.2.1"}, "k", []pipeline.Document{doc}, func(r *pipeline.Record) {
				r.State, r.Documents = pipeline.StateReported, []pipeline.DocumentRef{ref}
			}); err != nil {
				t.Fatal(err)
			}
			continue
		}
		st, err := a.Stage(ctx, bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if o := a.Commit(ctx, []*pipeline.Staged{st})[0]; o.Err != nil {
			t.Fatal(o.Err)
		}
	}
	at := time.Now()
	if _, err := a.Converse(ctx, "1.2.1", "ada", []pipeline.Said{{Role: "user", Text: "?", Time: &at}}, 0); err != nil {
		t.Fatal(err)
	}
	line := &pipeline.Line{Archive: a}
	server := httptest.NewServer(dicomweb.New(dicomweb.Default(), a, dicomweb.Deps{Lookup: dicom.Lookup, Keyword: dicom.Keyword, Log: zerolog.Nop(),
		Readings: readings{line, a, nil}, Imaging: imaging()}))
	defer server.Close()
	out := t.TempDir()
	for name, from := range map[string]string{"folder": dir, "service": server.URL + dicomweb.Root} {
		for _, to := range []string{filepath.Join(out, name), filepath.Join(out, name+".zip")} {
			code, said, errs := command(t, "", "studies", "export", from, "1.2.1", "--to", to)
			if code != 0 || !strings.Contains(said, "2 instances, 1 documents") {
				t.Fatal(name, code, said, errs)
			}
			got := exported(t, to)
			for _, j := range []string{"records.json", "timeline.json", "conversations.json"} {
				var v struct {
					Records, Steps, Conversations []json.RawMessage
				}
				if err := json.Unmarshal(got[j], &v); (err != nil || len(v.Records)+len(v.Steps)+len(v.Conversations) != 1) && !(name == "service" && j == "conversations.json") {
					t.Errorf("%s %s: %s %v", name, j, got[j], err)
				}
				delete(got, j)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(name, "other files come out:", diff)
			}
		}
		read := exec.Command("/usr/bin/python3", "-c", `import sys, glob, pydicom
print(*sorted(pydicom.dcmread(f).SOPInstanceUID for f in glob.glob(sys.argv[1] + "/*/*/*.dcm")))`, filepath.Join(out, name))
		if b, err := read.CombinedOutput(); err != nil || strings.TrimSpace(string(b)) != "1.2.1.1.1 1.2.1.1.2 1.2.1.9.1" {
			t.Errorf("pydicom: %s %v", b, err)
		}
		files, _ := filepath.Glob(filepath.Join(out, name, "*", "*", "*.dcm"))
		for _, f := range files {
			if b, err := exec.Command("dcmftest", f).CombinedOutput(); err != nil || !strings.HasPrefix(string(b), "yes:") {
				t.Errorf("dcmftest: %s %v", b, err)
			}
		}
	}
	// What is there already stays, and what fails leaves nothing.
	if code, _, errs := command(t, "", "studies", "export", dir, "1.2.1", "--to", filepath.Join(out, "folder")); code != exitUsage {
		t.Error(code, errs)
	}
	nowhere := filepath.Join(out, "nowhere")
	if code, _, errs := command(t, "", "studies", "export", dir, "1.2.7", "--to", nowhere); code != exitFailed || !strings.Contains(errs, "not found") {
		t.Error(code, errs)
	}
	if code, _, errs := command(t, "", "studies", "export", server.URL+dicomweb.Root, "1.2.7", "--to", nowhere+".zip"); code != exitServer {
		t.Error(code, errs)
	}
	if left, _ := filepath.Glob(nowhere + "*"); len(left) > 0 {
		t.Error("it leaves", left)
	}
}

// TestRetentionDeletes: what is to go goes, told by UIDs and counted by its reason.
func TestRetentionDeletes(t *testing.T) {
	ctx := context.Background()
	now := time.Now()
	a, err := archive.Open(t.TempDir(), dicom.OpenFile, archive.Options{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	for _, study := range []string{"1.2.1", "1.2.2"} {
		var d pipeline.Dataset
		for tag, v := range map[pipeline.Tag]string{pipeline.TagSOPClassUID: "1.2.840.10008.5.1.4.1.1.1.1", pipeline.TagSOPInstanceUID: study + ".1.1",
			pipeline.TagStudyInstanceUID: study, pipeline.TagSeriesInstanceUID: study + ".1"} {
			d.SetText(tag, "UI", v)
		}
		d.SetText(pipeline.TagPatientName, "PN", "Probe^Ada")
		b, err := dicom.Encode(d)
		if err != nil {
			t.Fatal(err)
		}
		st, err := a.Stage(ctx, bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if o := a.Commit(ctx, []*pipeline.Staged{st})[0]; o.Err != nil {
			t.Fatal(o.Err)
		}
		if err := a.Move(ctx, pipeline.Life{StudyInstanceUID: study}, pipeline.Change{At: now, State: pipeline.StateReported}); err != nil {
			t.Fatal(err)
		}
		now = now.Add(36 * time.Hour)
	}
	var log bytes.Buffer
	metrics := prometheus.NewRegistry()
	k := newKeeper(deleter{&pipeline.Line{Archive: a}, a, false}, archive.Retention{Days: 2}, zerolog.New(&log), metrics)
	if err := k.pass(ctx, k.retention); err != nil {
		t.Fatal(err)
	}
	left, err := a.Lives(ctx, "", "", 10)
	if err != nil || len(left) != 1 || left[0].StudyInstanceUID != "1.2.2" {
		t.Error(left, err)
	}
	if s := log.String(); strings.Count(s, "\n") != 1 || !strings.Contains(s, `"study":"1.2.1"`) || !strings.Contains(s, `"reason":"age"`) || strings.Contains(s, "Ada") {
		t.Error(s)
	}
	counted := map[string]float64{}
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range families[0].GetMetric() {
		counted[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
	}
	if diff := cmp.Diff(map[string]float64{"age": 1, "count": 0, "disk": 0}, counted); diff != "" {
		t.Error("counted:", diff)
	}
}

// exported reads an export back.
func exported(t *testing.T, at string) map[string][]byte {
	t.Helper()
	var tree fs.FS = os.DirFS(at)
	if strings.HasSuffix(at, ".zip") {
		z, err := zip.OpenReader(at)
		if err != nil {
			t.Fatal(err)
		}
		defer z.Close()
		tree = z
	}
	out := map[string][]byte{}
	err := fs.WalkDir(tree, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		f, err := tree.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		out[name], err = io.ReadAll(f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
