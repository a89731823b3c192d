package dicomweb_test

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chatxray/dicomweb"
	"chatxray/pipeline"
	"chatxray/pipeline/archive"
)

// TestSameUID stores other content under a UID that is kept, with both policies of the configuration.
func TestSameUID(t *testing.T) {
	for _, replace := range []bool{false, true} {
		s := start(t, func(_ *dicomweb.Config, _ *dicomweb.Deps, o *archive.Options) { o.Replace = replace })
		s.store(object(t, "1.2.1", "1.2.1.1", "1.2.1.1.1", pipeline.TagPatientName, "Before^A"))
		path, err := s.archive.Instances(t.Context(), "1.2.1", "", "")
		if err != nil {
			t.Fatal(err)
		}
		first, err := os.ReadFile(path[0].Path)
		if err != nil {
			t.Fatal(err)
		}
		other := file(t, object(t, "1.2.1", "1.2.1.1", "1.2.1.1.1", pipeline.TagPatientName, "After^B"))
		r := s.post("/studies", related("b"), bytes.NewReader(multipartOf("b", other)))
		m := r.model(t)
		if !replace {
			items := m.items(t, "00081198")
			if r.StatusCode != http.StatusConflict || len(items) != 1 || items[0].first("00081197") != "273" || !strings.Contains(items[0].first("00000902"), "the first stays") {
				t.Errorf("kept: %d %s", r.StatusCode, r.body)
			}
			if names := s.get("/studies").models(t); !strings.Contains(names[0].first("00100010"), "Before^A") {
				t.Errorf("kept: %v", names)
			}
			continue
		}
		items := m.items(t, "00081199")
		if r.StatusCode != http.StatusOK || len(items) != 1 || items[0].first("00081196") != "273" || !strings.Contains(items[0].first("00000902"), "replaced") {
			t.Errorf("replaced: %d %s", r.StatusCode, r.body)
		}
		got := s.get("/studies/1.2.1/series/1.2.1.1/instances/1.2.1.1.1", "Accept", "application/dicom")
		if !bytes.Equal(got.body, other) {
			t.Error("the new content does not come back")
		}
		if names := s.get("/studies?PatientName=after*").models(t); len(names) != 1 || names[0].first("00201208") != "1" {
			t.Errorf("the index does not tell the new content: %v", names)
		}
		if names := s.get("/studies?PatientName=before*").models(t); len(names) != 0 {
			t.Errorf("the index still tells the old content: %v", names)
		}
		old, err := os.ReadFile(path[0].Path)
		if err != nil || !bytes.Equal(old, first) {
			t.Error("the old content is not beside:", err)
		}
		if files, _ := filepath.Glob(filepath.Join(filepath.Dir(path[0].Path), "*")); len(files) != 2 {
			t.Error(files)
		}
		// The same again is a duplicate of the new content.
		if r := s.post("/studies", related("b"), bytes.NewReader(multipartOf("b", other))); r.StatusCode != http.StatusOK || r.model(t).items(t, "00081199")[0].first("00000902") != "" {
			t.Errorf("again: %d %s", r.StatusCode, r.body)
		}
		// Under another study it is no replacement.
		elsewhere := file(t, object(t, "1.2.9", "1.2.1.1", "1.2.1.1.1"))
		if r := s.post("/studies", related("b"), bytes.NewReader(multipartOf("b", elsewhere))); r.StatusCode != http.StatusConflict {
			t.Errorf("in another study: %d %s", r.StatusCode, r.body)
		}
	}
}
