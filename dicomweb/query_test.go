package dicomweb_test

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chatxray/dicomweb"
	"chatxray/pipeline"
	"chatxray/pipeline/archive"
)

// uids are the values of an attribute in a search's answer.
func (s *service) uids(path, tag string) string {
	s.t.Helper()
	r := s.get(path)
	if r.StatusCode != http.StatusOK {
		s.t.Fatalf("%s: %d %s", path, r.StatusCode, r.body)
	}
	var out []string
	for _, m := range r.models(s.t) {
		out = append(out, m.first(tag))
	}
	return strings.Join(out, " ")
}

func TestSearchParameters(t *testing.T) {
	s := searched(t)
	var item pipeline.Dataset
	item.SetText(pipeline.TagScheduledProcedureStepID, "SH", "STEP7")
	item.SetText(pipeline.TagRequestedProcedureID, "SH", "PROC7")
	d := object(t, "1.2.4", "1.2.4.1", "1.2.4.1.1", pipeline.TagPatientName, "Zed^Zoe", pipeline.TagPatientAge, "007Y", pipeline.TagManufacturer, "Maker")
	d.SetItems(pipeline.TagRequestAttributesSequence, item)
	d.SetInts(pipeline.TagRows, "US", 10)
	s.store(d)
	for _, c := range []struct{ path, tag, want string }{
		{"/studies?orderby=-PatientName", "0020000D", "1.2.4 1.2.1 1.2.3 1.2.2"},
		{"/studies?orderby=StudyDate,-00100010", "0020000D", "1.2.2 1.2.4 1.2.1 1.2.3"},
		{"/studies?PatientName=joerg&fuzzymatching=true", "0020000D", "1.2.1"},
		{"/studies?PatientName=joerg&fuzzymatching=false", "0020000D", ""},
		{"/studies?ModalitiesInStudy=SR%5CCT", "0020000D", "1.2.1"},
		{"/studies?ModalitiesInStudy=SR,DX", "0020000D", "1.2.1 1.2.2 1.2.3 1.2.4"},
		{"/studies?ModalitiesInStudy=SR&ModalitiesInStudy=CT", "0020000D", "1.2.1"},
		{"/studies?SOPClassesInStudy=1.2.840.10008.5.1.4.1.1.1.1&limit=1", "0020000D", "1.2.1"},
		{"/studies?SOPClassesInStudy=1.2.3", "0020000D", ""},
		{"/series?RequestAttributesSequence.ScheduledProcedureStepID=STEP7", "0020000E", "1.2.4.1"},
		{"/series?00400275.00400009=STEP7&00400275.00401001=PROC*", "0020000E", "1.2.4.1"},
		{"/series?RequestAttributesSequence.00400009=STEP8", "0020000E", ""},
		{"/studies?includefield=PatientAge&PatientID=*", "00101010", "   007Y"},
		{"/studies?includefield=00101010,StudyDescription&StudyInstanceUID=1.2.4", "00101010", "007Y"},
		{"/instances?includefield=all&StudyInstanceUID=1.2.4", "00080070", "Maker"},
		{"/studies?includefield=all&StudyInstanceUID=1.2.4", "00080070", ""},
		{"/studies?StudyDate=&PatientSex=*&accept=application/dicom%2Bjson", "0020000D", "1.2.1 1.2.2 1.2.3 1.2.4"},
		{"/studies?accept=application/dicom+json&limit=1", "0020000D", "1.2.1"},
		{"/series?Modality=DX,SR&PatientID=SECRET*", "0020000E", "1.2.4.1"},
		{"/studies?PatientAge=&StudyInstanceUID=1.2.4", "00101010", "007Y"}, // a key without value matches everything and is returned
		{"/studies?00101010=*&StudyInstanceUID=1.2.4", "00101010", "007Y"},
		{"/studies?Manufacturer=&StudyInstanceUID=1.2.4", "00080070", ""}, // of a lower level
		{"/instances?Manufacturer=&StudyInstanceUID=1.2.4", "00080070", "Maker"},
	} {
		if got := s.uids(c.path, c.tag); got != c.want {
			t.Errorf("%s: %q, want %q", c.path, got, c.want)
		}
	}
	// A nested field comes as its sequence with nothing else in it.
	r := s.get("/instances?SOPInstanceUID=1.2.4.1.1&includefield=RequestAttributesSequence.ScheduledProcedureStepID").models(t)
	if items := r[0].items(t, "00400275"); len(items) != 1 || items[0].first("00400009") != "STEP7" {
		t.Error(items)
	}
	m := s.get("/instances?SOPInstanceUID=1.2.4.1.1").models(t)[0]
	for tag, want := range map[string]string{"00083002": "1.2.840.10008.1.2.1", "00080056": "ONLINE", "00280010": "10", "00080061": "DX",
		"00201206": "1", "00201208": "1", "00201209": "1", "00080062": "1.2.840.10008.5.1.4.1.1.1.1", "00080005": "ISO_IR 192"} {
		if m.first(tag) != want {
			t.Errorf("%s is %q, want %q", tag, m.first(tag), want)
		}
	}
}

func TestSearchCounts(t *testing.T) {
	s := searched(t)
	for path, want := range map[string]string{
		"/studies/count": `{"count":3}`,
		"/studies/count?PatientName=doe*&limit=1":       `{"count":2}`,
		"/studies/count?PatientID=*1":                   `{"count":3}`,
		"/studies/count?ModalitiesInStudy=SR":           `{"count":1}`,
		"/series/count":                                 `{"count":4}`,
		"/instances/count?Modality=DX":                  `{"count":4}`,
		"/studies/1.2.1/series/count":                   `{"count":2}`,
		"/studies/1.2.1/instances/count":                `{"count":3}`,
		"/studies/1.2.1/series/1.2.1.1/instances/count": `{"count":2}`,
	} {
		if r := s.get(path); r.StatusCode != http.StatusOK || string(r.body) != want {
			t.Errorf("%s: %d %s, want %s", path, r.StatusCode, r.body, want)
		}
	}
	for path, want := range map[string]string{
		"/studies?limit=1":                           "There are 2 additional results",
		"/studies?limit=1&PatientName=doe*":          "There are 1 additional results",
		"/instances?limit=2&offset=1":                "There are 2 additional results",
		"/studies?limit=1&PatientSex=*&PatientID=*1": "There are 2 additional results",
		"/studies?limit=3":                           "",
	} {
		if w := s.get(path).Header.Get("Warning"); !strings.Contains(w, want) || want == "" && w != "" {
			t.Errorf("%s: %q, want %q", path, w, want)
		}
	}
}

// TestUnknownKeys: refused by name, or left out with a warning that names them.
func TestUnknownKeys(t *testing.T) {
	const path = "/studies?PatientsName=x&Modality=DX&PatientID=B1&includefield=Nonsense&00091001=x&RequestAttributesSequence.ScheduledProcedureStepID=1"
	names := []string{"PatientsName", "Modality", "Nonsense", "00091001", "RequestAttributesSequence.ScheduledProcedureStepID"}
	r := searched(t).get(path)
	for _, n := range names {
		if r.StatusCode != http.StatusBadRequest || !strings.Contains(string(r.body), n) {
			t.Errorf("refuse: %d %s lacks %s", r.StatusCode, r.body, n)
		}
	}
	s := searched(t, func(c *dicomweb.Config, _ *dicomweb.Deps, _ *archive.Options) { c.UnknownKeys = "warn" })
	r = s.get(path)
	for _, n := range names {
		if w := r.Header.Get("Warning"); r.StatusCode != http.StatusOK || !strings.Contains(w, n) || !strings.HasPrefix(w, "299 ") {
			t.Errorf("warn: %d %s lacks %s", r.StatusCode, w, n)
		}
	}
	if m := r.models(t); len(m) != 1 || m[0].first("0020000D") != "1.2.2" {
		t.Error("what is known is not matched:", m)
	}
	if r := s.get("/studies?emptyvaluematching=true&multiplevaluematching=true&limit=1"); r.StatusCode != http.StatusOK || len(r.Header.Values("Warning")) != 3 ||
		!strings.Contains(strings.Join(r.Header.Values("Warning"), " "), "The emptyvaluematching parameter is not supported.") {
		t.Errorf("%d %v", r.StatusCode, r.Header.Values("Warning"))
	}
	if r := s.get("/studies?StudyDate=tomorrow"); r.StatusCode != http.StatusBadRequest {
		t.Errorf("a wrong value: %d", r.StatusCode)
	}
	if r := s.get("/studies?" + url.QueryEscape("a\"\r\nX-Injected: 1") + "=1"); r.StatusCode != http.StatusOK || r.Header.Get("X-Injected") != "" {
		t.Errorf("%d %v", r.StatusCode, r.Header)
	}
}

// TestSearchXML: a part of Native DICOM Model for each result, with the same attributes as in JSON.
func TestSearchXML(t *testing.T) {
	s := searched(t)
	for _, accept := range []string{`multipart/related; type="application/dicom+xml"`, `multipart/related; type=application/dicom+xml`, "application/dicom+xml",
		`application/dicom+json;q=0.1, multipart/related;type="application/dicom+xml";q=0.9`} {
		r := s.get("/studies", "Accept", accept)
		kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
		if r.StatusCode != http.StatusOK || err != nil || kind != "multipart/related" || params["type"] != "application/dicom+xml" {
			t.Fatalf("%s: %d %s %v", accept, r.StatusCode, r.Header.Get("Content-Type"), err)
		}
		parts := multipart.NewReader(strings.NewReader(string(r.body)), params["boundary"])
		var got [][]string
		for {
			p, err := parts.NextPart()
			if err == io.EOF {
				break
			}
			if err != nil || p.Header.Get("Content-Type") != "application/dicom+xml" {
				t.Fatal(err, p)
			}
			var model struct {
				XMLName    xml.Name `xml:"NativeDicomModel"`
				Attributes []struct {
					Tag string `xml:"tag,attr"`
				} `xml:"DicomAttribute"`
			}
			if err := xml.NewDecoder(p).Decode(&model); err != nil {
				t.Fatal(err)
			}
			var tags []string
			for _, a := range model.Attributes {
				tags = append(tags, a.Tag)
			}
			got = append(got, tags)
		}
		var want [][]string
		for _, m := range s.get("/studies").models(t) {
			var tags []string
			for tag := range m {
				tags = append(tags, tag)
			}
			slices.Sort(tags)
			want = append(want, tags)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", accept, diff)
		}
	}
	if r := s.get("/studies?PatientID=nobody", "Accept", "application/dicom+xml"); r.StatusCode != http.StatusNoContent || len(r.body) > 0 {
		t.Errorf("no result: %d %s", r.StatusCode, r.body)
	}
}

// TestSearchHostile: what is made to cost or to slip through ends soon and with a reason.
func TestSearchHostile(t *testing.T) {
	s := searched(t)
	many := func(n int, f string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, f+"&", i)
		}
		return b.String()
	}
	long := strings.Repeat("9", 65)
	for _, c := range []struct {
		name, path string
		status     int
	}{
		{"a query of 100 kB", "/studies?PatientID=" + strings.Repeat("x", 100_000), http.StatusRequestURITooLong},
		{"a query of megabytes", "/studies?PatientID=" + strings.Repeat("x", 3<<20), http.StatusRequestHeaderFieldsTooLarge},
		{"thousands of keys", "/studies?" + many(5000, "k%d=1"), http.StatusBadRequest},
		{"hundreds of names that mean nothing", "/studies?" + many(200, "k%d=1"), http.StatusBadRequest},
		{"hundreds of fields that mean nothing", "/studies?includefield=" + strings.Repeat("Nothing,", 199), http.StatusBadRequest},
		{"one key thousands of times", "/studies?" + many(3000, "PatientID=%d"), http.StatusBadRequest},
		{"thousands of UIDs", "/studies?" + many(600, "StudyInstanceUID=1.2.%d"), http.StatusBadRequest},
		{"thousands of fields", "/studies?includefield=" + strings.Repeat("00100010,", 5000), http.StatusBadRequest},
		{"thousands of criteria", "/studies?orderby=" + strings.Repeat("PatientID,", 5000), http.StatusBadRequest},
		{"a path of sequences", "/studies?includefield=" + strings.Repeat("00400275.", 1000) + "00400009", http.StatusBadRequest},
		{"a UID of 65 characters", "/studies?StudyInstanceUID=" + long, http.StatusBadRequest},
		{"a UID of 65 characters in the path", "/studies/" + long + "/series", http.StatusBadRequest},
		{"a padded UID", "/studies?StudyInstanceUID=1.2.1%00", http.StatusOK},
		{"a UID with a space behind", "/studies?StudyInstanceUID=1.2.1%20", http.StatusOK},
		{"a path that climbs", "/studies/..%2F..%2Fetc/series", http.StatusNotFound},
		{"SQL", "/studies?PatientID=" + url.QueryEscape("' OR 1=1; DROP TABLE study; --"), http.StatusOK},
		{"SQL in a name", "/studies?" + url.QueryEscape("PatientID'--") + "=1", http.StatusBadRequest},
		{"SQL in orderby", "/studies?orderby=" + url.QueryEscape("PatientID; DROP TABLE study"), http.StatusBadRequest},
		{"a wildcard bomb", "/studies?PatientID=" + strings.Repeat("*a", 200), http.StatusBadRequest},
		{"question marks", "/studies?PatientID=" + strings.Repeat("?", 500), http.StatusOK},
		{"no UTF-8", "/studies?PatientName=%ff%fe", http.StatusOK},
		{"an offset beyond all", "/studies?offset=1099511627776", http.StatusOK},
		{"an offset that overflows", "/studies?offset=99999999999999999999", http.StatusBadRequest},
		{"a huge limit", "/studies?limit=2147483647", http.StatusOK},
		{"limit twice", "/studies?limit=1&limit=2", http.StatusBadRequest},
	} {
		begun := time.Now()
		r := s.get(c.path)
		if took := time.Since(begun); r.StatusCode != c.status || took > 3*time.Second {
			t.Errorf("%s: %d in %v, want %d; %.200s", c.name, r.StatusCode, took, c.status, r.body)
		}
		if r.StatusCode == http.StatusBadRequest || r.StatusCode == http.StatusRequestURITooLong {
			var e struct{ Error string }
			if err := json.Unmarshal(r.body, &e); err != nil || e.Error == "" || len(e.Error) > 2000 {
				t.Errorf("%s: no reason is told: %.200s", c.name, r.body)
			}
		}
	}
	if got := s.uids("/studies", "0020000D"); got != "1.2.1 1.2.2 1.2.3" {
		t.Error("afterwards:", got)
	}
}
