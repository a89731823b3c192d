package dicomweb_test

import (
	"bytes"
	"net/http"
	"testing"

	"chatxray/dicomweb"
	"chatxray/pipeline/archive"
)

// TestStoreAway: where files are kept in S3, and nobody listens there, an upload is answered 503 with Retry-After and nothing of it is found.
func TestStoreAway(t *testing.T) {
	s := start(t, func(_ *dicomweb.Config, _ *dicomweb.Deps, o *archive.Options) {
		o.Objects, o.Cache = "s3://kept", 1<<20
		o.S3 = archive.S3{Endpoint: "http://127.0.0.1:1", Region: "us-east-1", AccessKey: "tester", SecretKey: "of-the-tests", PathStyle: true, TimeoutSeconds: 1}
	})
	r := s.post("/studies", related("b"), bytes.NewReader(multipartOf("b", file(t, object(t, "1.2", "1.2.3", "1.2.3.4")))))
	if r.StatusCode != http.StatusServiceUnavailable || r.Header.Get("Retry-After") == "" {
		t.Errorf("answered %d %v %s", r.StatusCode, r.Header, r.body)
	}
	if r := s.get("/studies"); string(r.body) != "[]" {
		t.Errorf("found: %d %s", r.StatusCode, r.body)
	}
}
