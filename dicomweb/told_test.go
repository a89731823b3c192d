package dicomweb_test

import (
	"net/http"
	"strings"
	"testing"

	"chatxray/dicomweb"
)

// TestWrongRequestsAreTold: who asks for what there is not hears what there is.
func TestWrongRequestsAreTold(t *testing.T) {
	s := start(t)
	s.store(object(t, "1.2.1", "1.2.1.1", "1.2.1.1.1"))
	guarded := start(t, with(func(c *dicomweb.Config) { c.Auth.Tokens = threeTokens }))
	for _, c := range []struct {
		s             *service
		method, path  string
		authorization string
		status        int
		says          string
	}{
		{s, "GET", "/studies?PatientNme=x", "", 400, "PatientNme (PatientName?)"},
		{s, "GET", "/studies?patientid=x", "", 400, "patientid (PatientID?)"},
		{s, "GET", "/studies?Modality=CR", "", 400, "Modality (ModalitiesInStudy?)"},
		{s, "GET", "/studies?(0010,0020)=x", "", 400, "(0010,0020) (00100020?)"},
		{s, "GET", "/studies?0010,0020=x", "", 400, "0010,0020 (00100020?)"},
		{s, "GET", "/studies?SeriesNumber=1", "", 400, "tag SeriesNumber\""},
		{s, "GET", "/instances?InstanceNumbr=1", "", 400, "InstanceNumbr (InstanceNumber?)"},
		{s, "GET", "/studies?Completely=1", "", 400, "tag Completely\""},
		{s, "GET", "/studies?includefield=PatientAges&" + strings.Repeat("x", 60) + "=1", "", 400, "PatientAges"},
		{s, "GET", "/studies?fuzzymatching=yes", "", 400, "fuzzymatching is neither true nor false"},
		{s, "GET", "/studies?fuzzymatching=", "", 200, "["},
		{s, "GET", "/studies/1.2.3", "", 404, "nothing of study 1.2.3\""},
		{s, "GET", "/studies/1.2.1/series/1.2.3", "", 404, "nothing of series 1.2.3 in study 1.2.1\""},
		{s, "GET", "/studies/1.2.1/series/1.2.1.1/instances/1.2.3", "", 404, "nothing of instance 1.2.3 in series 1.2.1.1 in study 1.2.1\""},
		{s, "GET", "/study", "", 404, "OPTIONS /dicom-web lists"},
		{s, "GET", "", "", 405, "this resource knows OPTIONS only"},
		{s, "PUT", "/studies/1.2.1", "", 405, "this resource knows GET and HEAD and POST only"},
		{s, "DELETE", "/studies/1.2.1", "", 405, "dicomweb.delete is off"},
		{guarded, "GET", "/studies", "", 401, "needs an Authorization header"},
		{guarded, "GET", "/studies", readToken, 401, `must begin with \"Bearer \"`},
	} {
		r, err := http.NewRequest(c.method, c.s.root+c.path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if c.authorization != "" {
			r.Header.Set("Authorization", c.authorization)
		}
		if got := c.s.do(r); got.StatusCode != c.status || !strings.Contains(string(got.body), c.says) {
			t.Errorf("%s %s: %d %s, want %d with %s", c.method, c.path, got.StatusCode, got.body, c.status, c.says)
		}
	}
	r, err := http.Get(strings.TrimSuffix(s.root, dicomweb.Root) + "/studies")
	if err != nil || r.StatusCode != http.StatusNotFound {
		t.Fatal(r, err)
	}
	defer r.Body.Close()
}

// TestAcceptInTheQuery: a link says what it wants, where a browser cannot set the header.
func TestAcceptInTheQueryIsParsed(t *testing.T) {
	s := start(t)
	s.store(object(t, "1.2.1", "1.2.1.1", "1.2.1.1.1"))
	const instance = "/studies/1.2.1/series/1.2.1.1/instances/1.2.1.1.1"
	for _, c := range []struct {
		path   string
		status int
		media  string
	}{
		{"/studies/1.2.1?accept=application/zip", 200, "application/zip"},
		{"/studies/1.2.1?accept=application%2Fzip", 200, "application/zip"},
		{instance + "?accept=application/dicom;transfer-syntax=*", 406, ""}, // an unencoded semicolon is none of a query
		{instance + "?accept=application/dicom%3Btransfer-syntax=*", 200, "application/dicom; transfer-syntax="},
		{instance + "?accept=image/jpeg", 406, ""},
		{instance + "?accept=", 406, ""}, // the header counts
		{instance + "/metadata?accept=%09", 406, ""},
		{instance + "/metadata?accept=application/dicom+json", 200, "application/dicom+json"},
		{instance + "/metadata?accept=application/dicom%2Bxml", 200, "application/dicom+xml"},
		{instance + `/metadata?accept=multipart/related%3B+type=application/dicom+xml`, 200, `multipart/related; type="application/dicom+xml"`},
		{`/studies?accept=multipart/related%3B+type=application/dicom+xml`, 200, `multipart/related; type="application/dicom+xml"`},
	} {
		r := s.get(c.path, "Accept", "text/html")
		if r.StatusCode != c.status || !strings.HasPrefix(r.Header.Get("Content-Type"), c.media) {
			t.Errorf("%s: %d %s %.200s", c.path, r.StatusCode, r.Header.Get("Content-Type"), r.body)
		}
	}
}
