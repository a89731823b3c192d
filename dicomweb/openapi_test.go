package dicomweb_test

import (
	"encoding/json"
	"encoding/xml"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/gin-gonic/gin"

	"chatxray/dicomweb"
	"chatxray/pipeline/archive"
)

// apiDocument is as much of the OpenAPI document as tests look at.
type apiDocument struct {
	OpenAPI string
	Servers []struct{ URL string }
	Paths   map[string]map[string]struct {
		Role      string `json:"x-role"`
		Summary   string
		Responses map[string]json.RawMessage
	}
}

func (s *service) document(t *testing.T, token string) apiDocument {
	t.Helper()
	r := s.get("/openapi.json", "Authorization", "Bearer "+token)
	var d apiDocument
	if err := json.Unmarshal(r.body, &d); err != nil || r.StatusCode != 200 {
		t.Fatalf("%v: %d %s", err, r.StatusCode, r.body)
	}
	return d
}

// TestDocumentHasEveryRoute compares the document with what gin has, whoever registered it.
func TestDocumentHasEveryRoute(t *testing.T) {
	var routes gin.RoutesInfo
	s := start(t, func(c *dicomweb.Config, d *dicomweb.Deps, _ *archive.Options) {
		c.Delete, d.Deleter, d.Readings, d.Work = true, nobody{}, nobody{}, nobody{}
		d.Talking = dicomweb.Talking{Chat: &talker{}, Conversations: &lazily{}}
		d.Routes = func(r gin.RoutesInfo) { routes = r }
	})
	d := s.document(t, "")
	if !strings.HasPrefix(d.OpenAPI, "3.1") || len(d.Servers) != 1 || d.Servers[0].URL+dicomweb.Root != s.root {
		t.Errorf("%+v", d)
	}
	var have, told []string
	for _, r := range routes {
		parts := strings.Split(r.Path, "/")
		for i, p := range parts {
			if p != "" && strings.ContainsRune(":*", rune(p[0])) {
				parts[i] = "{" + p[1:] + "}"
			}
		}
		have = append(have, r.Method+" "+strings.Join(parts, "/"))
	}
	for path, item := range d.Paths {
		for method, op := range item {
			told = append(told, strings.ToUpper(method)+" "+path)
			if op.Summary == "" || op.Responses["4XX"] == nil {
				t.Errorf("%s %s: %+v", method, path, op)
			}
		}
	}
	slices.Sort(have)
	slices.Sort(told)
	if len(have) < 40 || !slices.Equal(have, told) {
		t.Errorf("gin has\n%s\nthe document has\n%s", strings.Join(have, "\n"), strings.Join(told, "\n"))
	}
}

func TestCapabilities(t *testing.T) {
	s := start(t)
	for accept, want := range map[string]string{"": "application/vnd.sun.wadl+xml", "application/json": "application/json; charset=utf-8", "text/html": ""} {
		for _, slash := range []string{"", "/"} {
			r, _ := http.NewRequest(http.MethodOptions, s.root+slash, nil)
			if accept != "" {
				r.Header.Set("Accept", accept)
			}
			got := s.do(r)
			if want == "" && got.StatusCode == http.StatusNotAcceptable {
				continue
			}
			if got.StatusCode != 200 || got.Header.Get("Content-Type") != want || !strings.Contains(string(got.body), "STOW-RS") {
				t.Errorf("%q: %d %v %s", accept, got.StatusCode, got.Header, got.body)
			}
			if accept == "" {
				var w struct {
					Resources struct {
						Resource []struct {
							Path   string `xml:"path,attr"`
							Method struct {
								Name string `xml:"name,attr"`
							} `xml:"method"`
						} `xml:"resource"`
					} `xml:"resources"`
				}
				if err := xml.Unmarshal(got.body, &w); err != nil || len(w.Resources.Resource) < 15 {
					t.Error(err, len(w.Resources.Resource))
				}
			}
		}
	}
	// Elsewhere OPTIONS names the methods.
	r, _ := http.NewRequest(http.MethodOptions, s.root+"/studies/1.2", nil)
	if got := s.do(r); got.StatusCode != 204 || !strings.Contains(got.Header.Get("Allow"), "GET") || !strings.Contains(got.Header.Get("Allow"), "POST") {
		t.Errorf("%d %v", got.StatusCode, got.Header)
	}
}

// TestCORS is trap 18: credentials, exposed headers, preflight, and nothing for anybody else.
func TestCORS(t *testing.T) {
	s := start(t, with(func(c *dicomweb.Config) {
		c.Auth.Tokens = threeTokens
		c.CORS.Origins = []string{"https://viewer.example"}
	}))
	preflight := func(origin string) reply {
		r, _ := http.NewRequest(http.MethodOptions, s.root+"/studies", nil)
		for k, v := range map[string]string{"Origin": origin, "Access-Control-Request-Method": "GET",
			"Access-Control-Request-Headers": "authorization,range,if-none-match", "Access-Control-Request-Private-Network": "true"} {
			r.Header.Set(k, v)
		}
		return s.do(r)
	}
	p := preflight("https://viewer.example")
	for header, want := range map[string]string{"Access-Control-Allow-Origin": "https://viewer.example", "Access-Control-Allow-Credentials": "true",
		"Access-Control-Allow-Headers": "Authorization Range If-None-Match Content-Type", "Access-Control-Allow-Methods": "GET POST DELETE",
		"Access-Control-Allow-Private-Network": "true", "Vary": "Origin"} {
		for _, w := range strings.Fields(want) {
			if !strings.Contains(strings.Join(p.Header.Values(header), ","), w) {
				t.Errorf("%s lacks %s: %v", header, w, p.Header)
			}
		}
	}
	if p.StatusCode != 204 {
		t.Error(p.StatusCode)
	}
	if p := preflight("https://evil.example"); p.StatusCode != 403 || p.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Error(p.StatusCode, p.Header)
	}
	for token, status := range map[string]int{readToken: 200, "": 401, storeToken: 403} { // a page reads why it was refused
		r := s.get("/studies", "Origin", "https://viewer.example", "Authorization", "Bearer "+token)
		if r.StatusCode != status || r.Header.Get("Access-Control-Allow-Origin") != "https://viewer.example" {
			t.Error(r.StatusCode, r.Header)
		}
		for _, h := range []string{"Warning", "ETag", "Location", "Content-Range", "WWW-Authenticate"} {
			if !strings.Contains(r.Header.Get("Access-Control-Expose-Headers"), h) {
				t.Errorf("%s is not exposed", h)
			}
		}
	}
	if r := s.get("/studies", "Origin", "https://evil.example", "Authorization", "Bearer "+readToken); r.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Error(r.Header)
	}
	if r := start(t).get("/studies", "Origin", "https://viewer.example"); r.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Error("allowed without being configured:", r.Header)
	}
}

func TestViewer(t *testing.T) {
	pages := fstest.MapFS{"index.html": {Data: []byte("<html>viewer")}, "app.bundle.0123456789abcdef0123.js": {Data: []byte("js")},
		"app-config.js": {Data: []byte("theirs")}, "assets/icon.svg": {Data: []byte("<svg/>")}, "codec.wasm": {Data: []byte("\x00asm")}}
	s := start(t, func(c *dicomweb.Config, d *dicomweb.Deps, _ *archive.Options) {
		c.Auth.Tokens, d.Pages = threeTokens, pages
	})
	s.root = strings.TrimSuffix(s.root, dicomweb.Root)
	for _, c := range []struct {
		path, accept string
		status       int
		kind, body   string
	}{
		{"/", "text/html", 200, "text/html", "viewer"},
		{"/index.html", "", 200, "text/html", "viewer"},
		{"/viewer?StudyInstanceUIDs=1.2.3", "text/html", 200, "text/html", "viewer"},
		{"/app.bundle.0123456789abcdef0123.js", "*/*", 200, "text/javascript", "js"},
		{"/assets/icon.svg", "", 200, "image/svg+xml", "<svg/>"},
		{"/codec.wasm", "", 200, "application/wasm", "asm"},
		{"/app-config.js", "", 200, "text/javascript", dicomweb.Root},
		{"/gone.js", "*/*", 404, "application/json", "error"},
		{"/assets/../../../../etc/passwd.txt", "", 404, "application/json", "error"},
		{"/..%2f..%2fetc%2fpasswd.txt", "", 404, "application/json", "error"},
		{"/dicom-web/nowhere", "text/html", 404, "application/json", "error"},
		{"/dicom-web/studies", "text/html", 401, "application/json", "error"},
	} {
		r := s.get(c.path, "Accept", c.accept)
		if r.StatusCode != c.status || !strings.HasPrefix(r.Header.Get("Content-Type"), c.kind) || !strings.Contains(string(r.body), c.body) {
			t.Errorf("%s: %d %s %.60s", c.path, r.StatusCode, r.Header.Get("Content-Type"), r.body)
		}
		if want := strings.Contains(c.path, "bundle"); c.status == 200 && want != strings.Contains(r.Header.Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %v", c.path, r.Header)
		}
	}
	if r := s.post("/", "text/plain", strings.NewReader("x")); r.StatusCode != 404 {
		t.Error(r.StatusCode)
	}
	r := start(t)
	r.root = strings.TrimSuffix(r.root, dicomweb.Root)
	if got := r.get("/"); got.StatusCode != 404 {
		t.Error("a viewer that is not configured:", got.StatusCode)
	}
}
