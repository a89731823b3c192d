package dicomweb_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"

	"chatxray/dicomweb"
	"chatxray/pipeline"
	"chatxray/pipeline/archive"
)

const (
	readToken  = "0123456789abcdef"
	storeToken = "fedcba9876543210"
	adminToken = "admin-0123456789"
)

var threeTokens = []dicomweb.Token{{Name: "viewer", Token: readToken, Roles: []dicomweb.Role{dicomweb.RoleRead}},
	{Name: "modality", Token: storeToken, Roles: []dicomweb.Role{dicomweb.RoleStore}},
	{Name: "root", Token: adminToken, Roles: []dicomweb.Role{dicomweb.RoleAdmin, dicomweb.RoleRead}}}

// with sets the configuration of a service.
func with(f func(*dicomweb.Config)) option {
	return func(c *dicomweb.Config, _ *dicomweb.Deps, _ *archive.Options) { f(c) }
}

func basicAuth(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

func TestTokens(t *testing.T) {
	s := start(t, with(func(c *dicomweb.Config) { c.Auth.Tokens = threeTokens }))
	for header, status := range map[string]int{"": 401, "Bearer wrong": 401, "Basic fedcba9876543210": 401, "Bearer " + readToken: 200,
		"bearer  " + readToken: 200, "Bearer " + storeToken: 403, "Bearer " + adminToken: 200, "Bearer " + readToken + "0": 401} {
		r := s.get("/studies", "Authorization", header)
		if r.StatusCode != status || status == 401 && !strings.HasPrefix(r.Header.Get("WWW-Authenticate"), "Bearer ") {
			t.Errorf("%q: %d %v", header, r.StatusCode, r.Header)
		}
		if status == 403 && !bytes.Contains(r.body, []byte("role read")) {
			t.Errorf("the answer does not name the role: %s", r.body)
		}
	}
	body := multipartOf("b", file(t, object(t, "1.2", "1.2.3", "1.2.3.4")))
	for token, status := range map[string]int{readToken: 403, adminToken: 403, storeToken: 200} {
		if r := s.post("/studies", related("b"), bytes.NewReader(body), "Authorization", "Bearer "+token); r.StatusCode != status {
			t.Errorf("store with %s: %d %s", token, r.StatusCode, r.body)
		}
	}
	if log := s.log.String(); strings.Contains(log, "fedcba") || !strings.Contains(log, `"by":"token:modality"`) {
		t.Error("a token is in the log, or a name is not:", log)
	}
	for _, open := range []string{"/healthz", "/readyz"} {
		if r, err := http.Get(strings.TrimSuffix(s.root, dicomweb.Root) + open); err != nil || r.StatusCode != 200 {
			t.Error(open, r, err)
		}
	}
}

// TestTriesAreSlowed: wrong tokens are answered 429 after a while; right ones pass all the same.
func TestTriesAreSlowed(t *testing.T) {
	s := start(t, with(func(c *dicomweb.Config) { c.Auth.Tokens = threeTokens }))
	counts := map[int]int{}
	for i := range 30 {
		r := s.get("/studies", "Authorization", fmt.Sprintf("Bearer guess-%d", i))
		counts[r.StatusCode]++
		if r.StatusCode == http.StatusTooManyRequests && r.Header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	}
	if counts[401] < 5 || counts[401] > 12 || counts[401]+counts[429] != 30 {
		t.Error(counts)
	}
	if r := s.get("/studies", "Authorization", "Bearer "+readToken); r.StatusCode != 200 {
		t.Error("a right token is locked out:", r.StatusCode)
	}
	if r := s.get("/studies"); r.StatusCode != 401 {
		t.Error("without a token:", r.StatusCode)
	}
}

func argon(password string) string {
	salt := []byte("saltsaltsalt")
	e := base64.RawStdEncoding
	return "$argon2id$v=19$m=8192,t=1,p=1$" + e.EncodeToString(salt) + "$" + e.EncodeToString(argon2.IDKey([]byte(password), salt, 1, 8192, 1, 32))
}

func TestPasswords(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("first pass:word"), 10)
	if err != nil {
		t.Fatal(err)
	}
	htpasswd := filepath.Join(t.TempDir(), "htpasswd")
	write := func(text string) {
		if err := os.WriteFile(htpasswd, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# people\n\ncarol:" + argon("third") + "\ndave:" + strings.Replace(string(hash), "$2a$", "$2y$", 1) + "\n")
	s := start(t, with(func(c *dicomweb.Config) {
		c.Auth.Users = []dicomweb.User{{Name: "alice", Hash: pipeline.Secret(hash), Roles: []dicomweb.Role{dicomweb.RoleRead}},
			{Name: "bob", Hash: pipeline.Secret(argon("second")), Roles: []dicomweb.Role{dicomweb.RoleStore}}}
		c.Auth.Htpasswd = dicomweb.Htpasswd{File: htpasswd, Roles: map[string][]dicomweb.Role{"carol": {dicomweb.RoleAdmin}, "*": {dicomweb.RoleRead}}}
	}))
	for _, c := range []struct {
		user, password string
		status         int
	}{
		{"alice", "first pass:word", 200}, {"alice", "first pass:word ", 401}, {"alice", "", 401}, {"bob", "second", 403}, {"bob", "first pass:word", 401},
		{"carol", "third", 403}, {"dave", "first pass:word", 200}, {"nobody", "first pass:word", 401}, {"", "", 401},
	} {
		r := s.get("/studies", "Authorization", basicAuth(c.user, c.password))
		if r.StatusCode != c.status || c.status == 401 && !strings.HasPrefix(r.Header.Get("WWW-Authenticate"), "Basic ") {
			t.Errorf("%s %q: %d %s", c.user, c.password, r.StatusCode, r.body)
		}
	}
	// The second time it is remembered: no tenth of a second each.
	began := time.Now()
	for range 50 {
		if r := s.get("/studies", "Authorization", basicAuth("alice", "first pass:word")); r.StatusCode != 200 {
			t.Fatal(r.StatusCode)
		}
	}
	if took := time.Since(began); took > 1500*time.Millisecond {
		t.Errorf("50 requests took %v", took)
	}
	// The file changes: who is no longer in it is out, although the password was remembered; a broken file changes nothing.
	wait := func(user, password string, status int) {
		t.Helper()
		got := 0
		for end := time.Now().Add(8 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
			if got = s.get("/studies", "Authorization", basicAuth(user, password)).StatusCode; got == status {
				return
			}
		}
		t.Errorf("%s: %d, want %d", user, got, status)
	}
	write("erin:" + argon("fifth") + "\n")
	wait("erin", "fifth", 200)
	if r := s.get("/studies", "Authorization", basicAuth("dave", "first pass:word")); r.StatusCode == 200 {
		t.Error("a removed user is let in")
	}
	write("erin:plain\n")
	time.Sleep(2500 * time.Millisecond)
	wait("erin", "fifth", 200)
	if log := s.log.String(); strings.Contains(log, "fifth") || strings.Contains(log, ":plain") || !strings.Contains(log, "line 1") {
		t.Error(log)
	}
}

func TestListen(t *testing.T) {
	guarded := dicomweb.Config{Auth: dicomweb.Auth{Tokens: threeTokens}}
	for _, c := range []struct {
		cfg     dicomweb.Config
		address string
		ok      bool
	}{
		{dicomweb.Config{}, "127.0.0.1:8080", true}, {dicomweb.Config{}, "[::1]:8080", true}, {dicomweb.Config{}, "localhost:0", true},
		{dicomweb.Config{}, "0.0.0.0:8080", false}, {dicomweb.Config{}, ":8080", false}, {dicomweb.Config{}, "10.1.2.3:80", false},
		{dicomweb.Config{}, "nonsense", false}, {guarded, ":8080", true}, {dicomweb.Config{Unguarded: true}, ":8080", true},
	} {
		if err := c.cfg.CheckListen(c.address); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.address, err)
		}
	}
}

// TestRoutesNeedRoles: nothing but health answers to who shows nothing, and each route refuses who lacks its role.
func TestRoutesNeedRoles(t *testing.T) {
	s := start(t, with(func(c *dicomweb.Config) { c.Auth.Tokens = threeTokens }))
	n := 0
	for path, item := range s.document(t, readToken).Paths {
		for method, op := range item {
			if op.Role == "" {
				continue
			}
			n++
			url := strings.TrimSuffix(s.root, dicomweb.Root) + strings.NewReplacer("{study}", "1.2", "{series}", "1.2.3", "{instance}", "1.2.3.4", "{path}", "00091010").Replace(path)
			for token, roles := range map[string]string{"": "", readToken: "read", storeToken: "store", adminToken: "admin read"} {
				r, err := http.NewRequest(strings.ToUpper(method), url, nil)
				if err != nil {
					t.Fatal(err)
				}
				if token != "" {
					r.Header.Set("Authorization", "Bearer "+token)
				}
				status := s.do(r).StatusCode
				may := token != "" && (op.Role == "any" || strings.Contains(roles, op.Role))
				if may == (status == 401 || status == 403) || token == "" && status != 401 {
					t.Errorf("%s %s with %q: %d", method, path, roles, status)
				}
			}
		}
	}
	if n < 20 {
		t.Errorf("only %d routes were tried", n)
	}
}

// TestClientLimits: more than a client may have is 429 with Retry-After; another client is not touched.
func TestClientLimits(t *testing.T) {
	s := start(t, with(func(c *dicomweb.Config) {
		c.Auth.Tokens = threeTokens
		c.Limits.Rate = 2
	}))
	counts := map[int]int{}
	for range 20 {
		r := s.get("/studies", "Authorization", "Bearer "+readToken)
		counts[r.StatusCode]++
		if r.StatusCode == 429 && r.Header.Get("Retry-After") != "1" {
			t.Error(r.Header)
		}
	}
	if counts[200] < 4 || counts[429] < 10 {
		t.Error(counts)
	}
	if r := s.get("/studies", "Authorization", "Bearer "+adminToken); r.StatusCode != 200 {
		t.Error("another client is held back:", r.StatusCode)
	}
}

// TestRequestsInFlight: a client that has all of its requests under way must wait; the others need not.
func TestRequestsInFlight(t *testing.T) {
	s := start(t, with(func(c *dicomweb.Config) {
		c.Auth.Tokens = threeTokens
		c.Limits.InFlight = 1
	}))
	body := multipartOf("b", file(t, object(t, "1.2", "1.2.3", "1.2.3.4")))
	pr, pw := io.Pipe()
	done := make(chan reply)
	go func() { done <- s.post("/studies", related("b"), pr, "Authorization", "Bearer "+storeToken) }()
	if _, err := pw.Write(body[:50]); err != nil {
		t.Fatal(err)
	}
	again := func() reply {
		return s.post("/studies", related("b"), bytes.NewReader(body), "Authorization", "Bearer "+storeToken)
	}
	running := func() bool { // else what is sent again may be first
		r, err := http.NewRequest(http.MethodGet, "http://"+s.host()+"/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+readToken)
		return bytes.Contains(s.do(r).body, []byte("chatxray_uploads_running 1"))
	}
	for end := time.Now().Add(10 * time.Second); !running() && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	r := reply{}
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if r = again(); r.StatusCode == http.StatusTooManyRequests {
			break
		}
	}
	if r.StatusCode != http.StatusTooManyRequests || r.Header.Get("Retry-After") == "" {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
	if r := s.get("/studies", "Authorization", "Bearer "+readToken); r.StatusCode != 200 {
		t.Error("another client:", r.StatusCode)
	}
	_, _ = pw.Write(body[50:])
	pw.Close()
	if r := <-done; r.StatusCode != 200 {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
	if r := again(); r.StatusCode != 200 {
		t.Errorf("afterwards: %d %s", r.StatusCode, r.body)
	}
}

// TestProxies: behind a trusted proxy a client is who X-Forwarded-For says; nobody else can say so.
func TestProxies(t *testing.T) {
	for _, trusted := range []bool{true, false} {
		s := start(t, with(func(c *dicomweb.Config) {
			c.Limits.Rate = 1
			if trusted {
				c.Proxies = []string{"127.0.0.0/8"}
			}
		}))
		passed := 0
		for i := range 20 {
			if s.get("/studies", "X-Real-IP", fmt.Sprint("203.0.113.", i), "X-Forwarded-For", fmt.Sprintf("203.0.113.99, 203.0.113.%d", i)).StatusCode == 200 {
				passed++
			}
		}
		if trusted != (passed == 20) {
			t.Errorf("trusted %v: %d of 20 passed", trusted, passed)
		}
		if logged := strings.Contains(s.log.String(), `"client":"203.0.113.7"`); logged != trusted {
			t.Errorf("trusted %v: the log says %v", trusted, logged)
		}
	}
}
