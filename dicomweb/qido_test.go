package dicomweb_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chatxray/dicomweb"
	"chatxray/pipeline"
	"chatxray/pipeline/archive"
)

func searched(t *testing.T, options ...option) *service {
	s := start(t, options...)
	s.store(
		object(t, "1.2.1", "1.2.1.1", "1.2.1.1.1", pipeline.TagSpecificCharacterSet, "ISO_IR 192", pipeline.TagPatientName, "Müller^Jörg=山田^太郎", pipeline.TagPatientID, "A1"),
		object(t, "1.2.1", "1.2.1.1", "1.2.1.1.2", pipeline.TagInstanceNumber, "2"),
		object(t, "1.2.1", "1.2.1.2", "1.2.1.2.1", pipeline.TagModality, "SR"),
		object(t, "1.2.2", "1.2.2.1", "1.2.2.1.1", pipeline.TagPatientID, "B1", pipeline.TagStudyDate, "20251231", pipeline.TagPatientName, "Doe^Jane"),
		object(t, "1.2.3", "1.2.3.1", "1.2.3.1.1", pipeline.TagPatientID, "C1", pipeline.TagPatientName, "Doe^John"))
	return s
}

func TestSearch(t *testing.T) {
	s := searched(t)
	for _, c := range []struct {
		path string
		tag  string // the UID of the level
		want string
	}{
		{"/studies", "0020000D", "1.2.1 1.2.2 1.2.3"},
		{"/studies/", "0020000D", "1.2.1 1.2.2 1.2.3"},
		{"/studies?PatientID=B1", "0020000D", "1.2.2"},
		{"/studies?00100020=B1", "0020000D", "1.2.2"},
		{"/studies?PatientName=doe*&StudyDate=20260101-", "0020000D", "1.2.3"},
		{"/studies?PatientName=m%C3%BCller*", "0020000D", "1.2.1"},
		{"/studies?ModalitiesInStudy=SR", "0020000D", "1.2.1"},
		{"/studies?StudyInstanceUID=1.2.1,1.2.3", "0020000D", "1.2.1 1.2.3"},
		{"/studies?StudyInstanceUID=1.2.1&StudyInstanceUID=1.2.2", "0020000D", "1.2.1 1.2.2"},
		{"/studies?StudyInstanceUID=1.2.1%5C1.2.3", "0020000D", "1.2.1 1.2.3"},
		{"/studies?PatientID=nobody", "0020000D", ""},
		{"/studies?limit=1&offset=1&includefield=all&fuzzymatching=true", "0020000D", "1.2.2"},
		{"/studies?includefield=00081030,00100020&includefield=StudyDescription", "0020000D", "1.2.1 1.2.2 1.2.3"},
		{"/studies?PatientName=", "0020000D", "1.2.1 1.2.2 1.2.3"},
		{"/series?Modality=SR", "0020000E", "1.2.1.2"},
		{"/studies/1.2.1/series", "0020000E", "1.2.1.1 1.2.1.2"},
		{"/studies/1.2.1/series?SeriesInstanceUID=1.2.1.2", "0020000E", "1.2.1.2"},
		{"/studies/1.2.1/instances", "00080018", "1.2.1.1.1 1.2.1.1.2 1.2.1.2.1"},
		{"/studies/1.2.1/series/1.2.1.1/instances?InstanceNumber=2", "00080018", "1.2.1.1.2"},
		{"/instances?SOPClassUID=1.2.840.10008.5.1.4.1.1.1.1&PatientID=B1", "00080018", "1.2.2.1.1"},
	} {
		t.Run(c.path, func(t *testing.T) {
			r := s.get(c.path, "Accept", "application/dicom+json")
			if r.StatusCode != http.StatusOK || r.Header.Get("Content-Type") != "application/dicom+json" {
				t.Fatalf("%d %s", r.StatusCode, r.body)
			}
			var got []string
			for _, m := range r.models(t) {
				got = append(got, m.first(c.tag))
			}
			if diff := cmp.Diff(c.want, strings.Join(got, " ")); diff != "" {
				t.Error(diff)
			}
			if c.want == "" && string(r.body) != "[]" {
				t.Errorf("an empty result is %s", r.body)
			}
		})
	}
}

func TestSearchRefuses(t *testing.T) {
	s := searched(t)
	for path, named := range map[string]string{
		"/studies?PatientsName=x&Foo=1":    "Foo, PatientsName",
		"/studies?PatientComments=x":       "PatientComments",
		"/studies?Modality=DX":             "Modality",
		"/studies?StudyDate=tomorrow":      "(0008,0020)",
		"/studies?limit=0":                 "limit",
		"/studies?limit=many":              "limit",
		"/studies?offset=-1":               "offset",
		"/studies?PatientID=%zz":           "query",
		"/studies?StudyInstanceUID=1.2..3": "(0020,000D)",
	} {
		if r := s.get(path); r.StatusCode != http.StatusBadRequest || !strings.Contains(string(r.body), named) {
			t.Errorf("%s: %d %s", path, r.StatusCode, r.body)
		}
	}
	if r := s.get("/studies", "Accept", "image/jpeg"); r.StatusCode != http.StatusNotAcceptable {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
}

func TestSearchAnswer(t *testing.T) {
	s := searched(t, func(c *dicomweb.Config, _ *dicomweb.Deps, _ *archive.Options) {
		c.MaxResults, c.BaseURL = 2, "https://reports.example/x/dicom-web/"
	})
	r := s.get("/studies")
	if w := r.Header.Get("Warning"); w != `299 chatxray "There are 1 additional results that can be requested"` {
		t.Error(w)
	}
	want := `{"00080005":{"vr":"CS","Value":["ISO_IR 192"]},"00080020":{"vr":"DA","Value":["20260102"]},"00080030":{"vr":"TM"},"00080050":{"vr":"SH"},
		"00080056":{"vr":"CS","Value":["ONLINE"]},"00080061":{"vr":"CS","Value":["DX","SR"]},"00080062":{"vr":"UI","Value":["1.2.840.10008.5.1.4.1.1.1.1"]},"00080090":{"vr":"PN"},
		"00081190":{"vr":"UR","Value":["https://reports.example/x/dicom-web/studies/1.2.1"]},
		"00100010":{"vr":"PN","Value":[{"Alphabetic":"Müller^Jörg","Ideographic":"山田^太郎"}]},"00100020":{"vr":"LO","Value":["A1"]},
		"00100030":{"vr":"DA"},"00100040":{"vr":"CS"},"0020000D":{"vr":"UI","Value":["1.2.1"]},"00200010":{"vr":"SH"},
		"00201206":{"vr":"IS","Value":[2]},"00201208":{"vr":"IS","Value":[3]}}`
	var got, expect []any
	if err := json.Unmarshal(r.body, &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte("["+want+"]"), &expect); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(expect[0], got[0]); diff != "" {
		t.Error(diff)
	}
}

// TestAddress: what clients are told to retrieve by, behind reverse proxies (17).
func TestAddress(t *testing.T) {
	s := searched(t)
	host := strings.TrimSuffix(strings.TrimPrefix(s.root, "http://"), dicomweb.Root)
	for _, c := range []struct {
		headers []string
		want    string
	}{
		{nil, "http://" + host + "/dicom-web"},
		{[]string{"X-Forwarded-Proto", "https", "X-Forwarded-Host", "pacs.example:8443, inner"}, "https://pacs.example:8443/dicom-web"},
		{[]string{"X-Forwarded-Proto", "https", "X-Forwarded-Host", "pacs.example", "X-Forwarded-Prefix", "/ai/"}, "https://pacs.example/ai/dicom-web"},
		{[]string{"Forwarded", `for=192.0.2.1;proto=https;host="pacs.example:444", for=10.0.0.1;host=inner`}, "https://pacs.example:444/dicom-web"},
		{[]string{"X-Forwarded-Proto", "https", "X-Forwarded-Host", "pacs.example", "X-Forwarded-Port", "8443"}, "https://pacs.example:8443/dicom-web"},
		{[]string{"X-Forwarded-Proto", "https", "X-Forwarded-Host", "pacs.example", "X-Forwarded-Port", "443"}, "https://pacs.example/dicom-web"},
		{[]string{"X-Forwarded-Proto", "https", "X-Forwarded-Host", "[2001:db8::1]", "X-Forwarded-Port", "444"}, "https://[2001:db8::1]:444/dicom-web"},
		{[]string{"X-Forwarded-Host", "pacs.example:81", "X-Forwarded-Port", "82"}, "http://pacs.example:81/dicom-web"},
		{[]string{"X-Forwarded-Host", "pacs.example", "X-Forwarded-Port", "99999"}, "http://pacs.example/dicom-web"},
		{[]string{"Forwarded", "host=one.example;proto=https", "X-Forwarded-Host", "two.example", "X-Forwarded-Port", "82"}, "https://one.example/dicom-web"},
		{[]string{"Forwarded", `for="[2001:db8::2]";host="[2001:db8::1]:8443";proto=HTTPS`}, "https://[2001:db8::1]:8443/dicom-web"},
		{[]string{"X-Forwarded-Prefix", "/a/../..//b?c"}, "http://" + host + "/dicom-web"},
		{[]string{"X-Forwarded-Host", `evil"/><script>`, "X-Forwarded-Proto", "javascript"}, "http://" + host + "/dicom-web"},
	} {
		m := s.get("/studies?limit=1", c.headers...).models(t)
		if got := m[0].first("00081190"); got != c.want+"/studies/1.2.1" {
			t.Errorf("%v: %s", c.headers, got)
		}
	}
}
