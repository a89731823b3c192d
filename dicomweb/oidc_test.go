package dicomweb_test

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"chatxray/dicomweb"
)

// sso is an OpenID Connect issuer: discovery, keys, and a way to sign.
type sso struct {
	t      *testing.T
	url    string
	server *httptest.Server
	keys   map[string]*rsa.PrivateKey
	asked  atomic.Int64 // how often the keys were fetched
}

func newSSO(t *testing.T, l net.Listener) *sso {
	s := &sso{t: t, keys: map[string]*rsa.PrivateKey{}}
	s.url = "http://" + l.Addr().String()
	s.server = &httptest.Server{Listener: l, Config: &http.Server{Handler: s}}
	s.server.Start()
	t.Cleanup(s.server.Close)
	return s
}

func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (s *sso) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q,"authorization_endpoint":%q,"token_endpoint":%q}`, s.url, s.url+"/keys", s.url+"/a", s.url+"/t")
	case "/keys":
		s.asked.Add(1)
		var out []map[string]string
		for id, k := range s.keys {
			out = append(out, map[string]string{"kty": "RSA", "use": "sig", "kid": id, "alg": "RS256",
				"n": base64.RawURLEncoding.EncodeToString(k.N.Bytes()), "e": "AQAB"})
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": out})
	default:
		http.NotFound(w, r)
	}
}

func (s *sso) rotate(id string) {
	s.t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		s.t.Fatal(err)
	}
	s.keys = map[string]*rsa.PrivateKey{id: k}
}

// sign makes a token; header and claims are over what is usual, nil takes one away.
func (s *sso) sign(header, claims map[string]any) string {
	s.t.Helper()
	h := map[string]any{"alg": "RS256", "typ": "at+jwt"}
	var key *rsa.PrivateKey
	for h["kid"], key = range s.keys {
	}
	c := map[string]any{"iss": s.url, "aud": []string{"chatxray"}, "sub": "u-1", "exp": time.Now().Add(time.Minute).Unix(), "iat": time.Now().Unix(),
		"roles": []string{"read"}}
	for from, to := range map[*map[string]any]map[string]any{&header: h, &claims: c} {
		for k, v := range *from {
			if to[k] = v; v == nil {
				delete(to, k)
			}
		}
	}
	var parts []string
	for _, part := range []any{h, c} {
		b, err := json.Marshal(part)
		if err != nil {
			s.t.Fatal(err)
		}
		parts = append(parts, base64.RawURLEncoding.EncodeToString(b))
	}
	text := strings.Join(parts, ".")
	sum := sha256.Sum256([]byte(text))
	sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	switch {
	case err != nil:
		s.t.Fatal(err)
	case h["alg"] == "none":
		sig = nil
	case h["alg"] == "HS256": // with the public key as secret, an old trick
		m := hmac.New(sha256.New, key.N.Bytes())
		m.Write([]byte(text))
		sig = m.Sum(nil)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func TestOIDC(t *testing.T) {
	issuer := newSSO(t, listen(t, "127.0.0.1:0"))
	issuer.rotate("one")
	s := start(t, with(func(c *dicomweb.Config) {
		c.Auth.OIDC.Issuer, c.Auth.OIDC.Audience = issuer.url, "chatxray"
	}))
	now := time.Now()
	status := func(token string) reply { return s.get("/studies", "Authorization", "Bearer "+token) }
	stranger := newSSO(t, listen(t, "127.0.0.1:0"))
	stranger.rotate("one")
	good := issuer.sign(nil, nil)
	for _, c := range []struct {
		name   string
		token  string
		status int
	}{
		{"good", good, 200},
		{"audience as a word", issuer.sign(nil, map[string]any{"aud": "chatxray"}), 200},
		{"expired within the skew", issuer.sign(nil, map[string]any{"exp": now.Add(-10 * time.Second).Unix()}), 200},
		{"valid soon, within the skew", issuer.sign(nil, map[string]any{"nbf": now.Add(10 * time.Second).Unix()}), 200},
		{"scope-like words", issuer.sign(nil, map[string]any{"roles": "openid store read"}), 200},
		{"another role", issuer.sign(nil, map[string]any{"roles": []string{"store"}}), 403},
		{"no role", issuer.sign(nil, map[string]any{"roles": nil}), 403},
		{"a role that is none", issuer.sign(nil, map[string]any{"roles": []any{"any", "", 7, "READ"}}), 403},
		{"expired", issuer.sign(nil, map[string]any{"exp": now.Add(-time.Minute).Unix()}), 401},
		{"without an end", issuer.sign(nil, map[string]any{"exp": nil}), 401},
		{"not yet valid", issuer.sign(nil, map[string]any{"nbf": now.Add(time.Minute).Unix()}), 401},
		{"for somebody else", issuer.sign(nil, map[string]any{"aud": "other"}), 401},
		{"of another issuer", issuer.sign(nil, map[string]any{"iss": "https://other.example"}), 401},
		{"signed by somebody else", stranger.sign(nil, map[string]any{"iss": issuer.url}), 401},
	} {
		if r := status(c.token); r.StatusCode != c.status {
			t.Errorf("%s: %d %s", c.name, r.StatusCode, r.body)
		}
	}
	s = start(t, with(func(c *dicomweb.Config) { // a new one: this client has failed too often by now
		c.Auth.OIDC.Issuer, c.Auth.OIDC.Audience = issuer.url, "chatxray"
	}))
	for name, token := range map[string]string{
		"no algorithm": issuer.sign(map[string]any{"alg": "none"}, nil), "the public key as a secret": issuer.sign(map[string]any{"alg": "HS256"}, nil),
		"changed": good[:len(good)-8] + "AAAAAAAA", "claims changed": strings.Split(good, ".")[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"`+issuer.url+`"}`)) + "." + strings.Split(good, ".")[2],
		"no JWT": "a.b.c", "empty": "..",
	} {
		if r := status(token); r.StatusCode != 401 || !strings.Contains(r.Header.Get("WWW-Authenticate"), "invalid_token") {
			t.Errorf("%s: %d %s", name, r.StatusCode, r.body)
		}
	}
	// The issuer changes its key: tokens of the new one are good at once, those of the old one until they are forgotten.
	issuer.rotate("two")
	if r := status(issuer.sign(nil, nil)); r.StatusCode != 200 {
		t.Errorf("after the rotation: %d %s", r.StatusCode, r.body)
	}
	asked := issuer.asked.Load()
	for range 20 {
		status(issuer.sign(nil, nil))
	}
	if n := issuer.asked.Load(); n != asked {
		t.Errorf("the keys were fetched %d times more", n-asked)
	}
	if r := status(good); r.StatusCode != 401 {
		t.Error("the withdrawn key is still good:", r.StatusCode)
	}
	// The issuer goes down: known keys stay good; an unknown one is told apart from a wrong token.
	issuer.server.Close()
	if r := status(issuer.sign(nil, nil)); r.StatusCode != 200 {
		t.Errorf("while the issuer is down: %d %s", r.StatusCode, r.body)
	}
	issuer.rotate("three")
	if r := status(issuer.sign(nil, nil)); r.StatusCode != 503 || r.Header.Get("Retry-After") == "" {
		t.Errorf("a new key while the issuer is down: %d %s", r.StatusCode, r.body)
	}
	if strings.Contains(s.log.String(), strings.Split(good, ".")[2]) || !strings.Contains(s.log.String(), `"by":"oidc:u-1"`) {
		t.Error(s.log)
	}
}

func TestOIDCRoles(t *testing.T) {
	issuer := newSSO(t, listen(t, "127.0.0.1:0"))
	issuer.rotate("one")
	for _, c := range []struct {
		claim  string
		claims map[string]any
	}{
		{"realm_access.roles", map[string]any{"realm_access": map[string]any{"roles": []string{"radiologist", "other"}}}},
		{"https://chatxray.example/roles", map[string]any{"https://chatxray.example/roles": []string{"radiologist"}}},
		{"groups", map[string]any{"groups": "radiologist"}},
	} {
		s := start(t, with(func(cfg *dicomweb.Config) {
			cfg.Auth.OIDC = dicomweb.OIDC{Issuer: issuer.url, Audience: "chatxray", Claim: c.claim,
				Roles: map[string][]dicomweb.Role{"radiologist": {dicomweb.RoleRead}, "other": {dicomweb.RoleRead}}}
		}))
		if r := s.get("/studies", "Authorization", "Bearer "+issuer.sign(nil, c.claims)); r.StatusCode != 200 {
			t.Errorf("%s: %d %s", c.claim, r.StatusCode, r.body)
		}
		if r := s.get("/studies", "Authorization", "Bearer "+issuer.sign(nil, map[string]any{"roles": []string{"read"}})); r.StatusCode != 403 {
			t.Errorf("%s: a claim that is not mapped: %d %s", c.claim, r.StatusCode, r.body)
		}
	}
}

// TestIssuerDownAtStart: the service starts, says so at /readyz and in its answers, and goes on by itself when the issuer comes.
func TestIssuerDownAtStart(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	address := l.Addr().String()
	l.Close()
	s := start(t, with(func(c *dicomweb.Config) {
		c.Auth.OIDC.Issuer, c.Auth.OIDC.Audience = "http://"+address, "chatxray"
		c.Auth.Tokens = threeTokens
	}))
	ready := func() int {
		r, err := http.Get(strings.TrimSuffix(s.root, dicomweb.Root) + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		return r.StatusCode
	}
	const token = "eyJhbGciOiJSUzI1NiJ9.e30.AAAA"
	r := s.get("/studies", "Authorization", "Bearer "+token)
	if r.StatusCode != 503 || r.Header.Get("Retry-After") == "" || !strings.Contains(string(r.body), "issuer") || ready() != 503 {
		t.Errorf("%d %s, ready %d", r.StatusCode, r.body, ready())
	}
	if r := s.get("/studies", "Authorization", "Bearer "+readToken); r.StatusCode != 200 {
		t.Error("a static token is not taken:", r.StatusCode)
	}
	issuer := newSSO(t, listen(t, address))
	issuer.rotate("one")
	got := 0
	for end := time.Now().Add(15 * time.Second); got != 200 && time.Now().Before(end); time.Sleep(300 * time.Millisecond) {
		got = s.get("/studies", "Authorization", "Bearer "+issuer.sign(nil, nil)).StatusCode
	}
	if got != 200 || ready() != 200 {
		t.Errorf("after the issuer came: %d, ready %d", got, ready())
	}
}
