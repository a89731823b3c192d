package dicomweb_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"chatxray/dicomweb"
	"chatxray/pipeline/archive"
)

// A face passes on what needs the model, for those who may ask, with what they have shown; a process behind it answers nothing but that.
func TestParts(t *testing.T) {
	part := func(p dicomweb.Part, model http.Handler) *service {
		return start(t, with(func(c *dicomweb.Config) { c.Auth.Tokens = threeTokens }), func(_ *dicomweb.Config, d *dicomweb.Deps, _ *archive.Options) {
			d.Part, d.Model = p, model
		})
	}
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %s", r.Method, r.URL.Path, r.Header.Get("Authorization"), b)
	})
	ask := func(s *service, method, path, token string) (int, string) {
		t.Helper()
		r, err := http.NewRequest(method, "http://"+s.host()+path, strings.NewReader("what is said"))
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	face, alone, behind := part(dicomweb.Face, echo), part(dicomweb.Face, nil), part(dicomweb.Behind, nil)
	for _, c := range []struct {
		of           *service
		method, path string
		token        string
		status       int
		says         string
	}{
		{face, "POST", "/v1/chat/completions", readToken, 200, "POST /v1/chat/completions Bearer " + readToken + " what is said"},
		{face, "POST", "/v1/chat/completions", storeToken, 403, "role read"},
		{face, "POST", "/v1/chat/completions", "", 401, ""},
		{face, "GET", "/v1/models", readToken, 200, "GET /v1/models"},
		{face, "GET", "/dicom-web/studies", readToken, 204, ""},
		{alone, "POST", "/v1/chat/completions", readToken, 503, "worker_url"},
		{alone, "GET", "/v1/models/x", readToken, 503, "worker_url"},
		{behind, "GET", "/dicom-web/studies", readToken, 404, ""},
		{behind, "GET", "/wado", readToken, 404, ""},
		{behind, "POST", "/dicom-web/studies", storeToken, 404, ""},
		{behind, "GET", "/metrics", readToken, 200, "chatxray_"},
		{behind, "GET", "/readyz", "", 200, ""},
	} {
		status, body := ask(c.of, c.method, c.path, c.token)
		if status != c.status && !(c.status == 204 && status == 200) || !strings.Contains(body, c.says) {
			t.Errorf("%s %s: %d %s, want %d %s", c.method, c.path, status, body, c.status, c.says)
		}
	}
}
