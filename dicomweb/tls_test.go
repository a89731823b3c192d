package dicomweb_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"chatxray/dicomweb"
	"chatxray/pipeline/archive"
	"chatxray/pipeline/dicom"
)

// authority is a CA made for a test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	a := &authority{t: t}
	a.cert, a.key, _ = a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

func (a *authority) sign(c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey, []byte) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := c, key
	if a.cert != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return parsed, key, der
}

// leaf writes a certificate and its key as PEM files.
func (a *authority) leaf(dir string, c *x509.Certificate) (certificate, key string) {
	a.t.Helper()
	_, k, der := a.sign(c)
	b, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		a.t.Fatal(err)
	}
	certificate, key = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	a.write(key, "PRIVATE KEY", b)
	a.write(certificate, "CERTIFICATE", der)
	return certificate, key
}

func (a *authority) write(path, kind string, der []byte) {
	a.t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// secure is a service behind TLS as main starts it.
type secure struct {
	url     string
	archive *archive.Archive
	stop    func() error // ends it and waits
}

func startSecure(t *testing.T, cfg dicomweb.Config) *secure {
	t.Helper()
	if err := cfg.Check(); err != nil {
		t.Fatal(err)
	}
	a, err := archive.Open(t.TempDir(), dicom.OpenFile, archive.Options{})
	if err != nil {
		t.Fatal(err)
	}
	conf, err := cfg.TLS.Open(zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	guard, err := dicomweb.NewGuard(cfg, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- dicomweb.Serve(ctx, tls.NewListener(l, conf), dicomweb.New(cfg, a, dicomweb.Deps{Open: dicom.OpenFile, Lookup: dicom.Lookup, Guard: guard}), cfg)
	}()
	s := &secure{url: "https://localhost:" + portOf(l) + dicomweb.Root, archive: a, stop: func() error { cancel(); err := <-ended; ended <- err; return err }}
	t.Cleanup(func() {
		_ = s.stop()
		a.Close()
	})
	return s
}

func portOf(l net.Listener) string {
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// client trusts one authority and shows a certificate, where there is one.
func client(t *testing.T, ca *authority, pair ...string) *http.Client {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	conf := &tls.Config{RootCAs: pool}
	if len(pair) == 2 {
		c, err := tls.LoadX509KeyPair(pair[0], pair[1])
		if err != nil {
			t.Fatal(err)
		}
		conf.Certificates = []tls.Certificate{c}
	}
	tr := &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

func serverLeaf(serial int64) *x509.Certificate {
	return &x509.Certificate{Subject: pkix.Name{CommonName: "localhost", SerialNumber: big.NewInt(serial).String()}, DNSNames: []string{"localhost"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
}

func TestTLS(t *testing.T) {
	ca, dir := newAuthority(t, "test CA"), t.TempDir()
	cfg := dicomweb.Default()
	cfg.TLS.Certificate, cfg.TLS.Key = ca.leaf(dir, serverLeaf(1))
	s := startSecure(t, cfg)
	get := func(c *http.Client) *http.Response {
		t.Helper()
		r, err := c.Get(s.url + "/studies")
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		return r
	}
	if r := get(client(t, ca)); r.ProtoMajor != 2 || r.StatusCode != 200 {
		t.Error(r.Proto, r.Status)
	}
	old := client(t, ca)
	old.Transport.(*http.Transport).TLSClientConfig.MaxVersion = tls.VersionTLS11
	if _, err := old.Get(s.url + "/studies"); err == nil {
		t.Error("TLS 1.1 is spoken")
	}
	// A renewed certificate is in force without a restart; a broken file changes nothing.
	ca.leaf(dir, serverLeaf(2))
	var serial string
	for end := time.Now().Add(10 * time.Second); serial != "2" && time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		serial = get(client(t, ca)).TLS.PeerCertificates[0].Subject.SerialNumber
	}
	if serial != "2" {
		t.Error("the renewed certificate is not in force")
	}
	if err := os.WriteFile(cfg.TLS.Certificate, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2500 * time.Millisecond)
	if got := get(client(t, ca)).TLS.PeerCertificates[0].Subject.SerialNumber; got != "2" {
		t.Error(got)
	}
}

func TestClientCertificates(t *testing.T) {
	ca, dir := newAuthority(t, "test CA"), t.TempDir()
	clients, others := newAuthority(t, "hospital"), newAuthority(t, "somebody else")
	cfg := dicomweb.Default()
	cfg.TLS.Certificate, cfg.TLS.Key = ca.leaf(dir, serverLeaf(1))
	cfg.TLS.ClientCA = filepath.Join(dir, "clients.pem")
	ca.write(cfg.TLS.ClientCA, "CERTIFICATE", clients.cert.Raw)
	cfg.Auth.Certificates = []dicomweb.Certificate{{Name: "gateway", Subject: "CN=gateway,O=Hospital", Roles: []dicomweb.Role{dicomweb.RoleStore}},
		{Name: "viewer", SAN: "spiffe://hospital/viewer", Roles: []dicomweb.Role{dicomweb.RoleRead}}}
	cfg.Auth.Tokens = threeTokens
	s := startSecure(t, cfg)
	usage := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	uri, _ := url.Parse("spiffe://hospital/viewer")
	gateway := &x509.Certificate{Subject: pkix.Name{CommonName: "gateway", Organization: []string{"Hospital"}}, ExtKeyUsage: usage}
	for _, c := range []struct {
		name   string
		ca     *authority
		cert   *x509.Certificate
		token  string
		status int // 0: no connection
	}{
		{"the subject", clients, gateway, "", 403},
		{"an alternative name", clients, &x509.Certificate{Subject: pkix.Name{CommonName: "x"}, URIs: []*url.URL{uri}, ExtKeyUsage: usage}, "", 200},
		{"of nobody", clients, &x509.Certificate{Subject: pkix.Name{CommonName: "gateway"}, ExtKeyUsage: usage}, "", 401},
		{"of another CA", others, gateway, "", 401}, // not even sent: the service names the CAs that it takes
		{"for servers", clients, &x509.Certificate{Subject: gateway.Subject, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, "", 0},
		{"none", nil, nil, "", 401},
		{"none but a token", nil, nil, readToken, 200},
		{"a token wins", clients, gateway, readToken, 200},
		{"a wrong token is not made good", clients, gateway, "wrong", 401},
	} {
		t.Run(c.name, func(t *testing.T) {
			var pair []string
			if c.ca != nil {
				cert, key := c.ca.leaf(t.TempDir(), c.cert)
				pair = []string{cert, key}
			}
			r, _ := http.NewRequest(http.MethodGet, s.url+"/studies", nil)
			if c.token != "" {
				r.Header.Set("Authorization", "Bearer "+c.token)
			}
			got, err := client(t, ca, pair...).Do(r)
			if c.status == 0 {
				if err == nil {
					t.Error("let in:", got.Status)
				}
				return
			}
			if err != nil || got.StatusCode != c.status {
				t.Fatal(got, err)
			}
			got.Body.Close()
		})
	}
}

// TestGracefulStopHTTP2 stops the service in the middle of an upload over HTTP/2 that is far larger than any window.
func TestGracefulStopHTTP2(t *testing.T) {
	ca := newAuthority(t, "test CA")
	cfg := dicomweb.Default()
	cfg.TLS.Certificate, cfg.TLS.Key = ca.leaf(t.TempDir(), serverLeaf(1))
	s := startSecure(t, cfg)
	web := client(t, ca)
	pr, pw := io.Pipe()
	type result struct {
		status, proto int
		err           error
	}
	done := make(chan result, 1)
	go func() {
		r, err := web.Post(s.url+"/studies", related("b"), pr)
		if err != nil {
			done <- result{err: err}
			return
		}
		r.Body.Close()
		done <- result{r.StatusCode, r.ProtoMajor, nil}
	}()
	const size = 16 << 20
	body := append([]byte("--b\r\nContent-Type: application/dicom\r\n\r\n"), pixelFile(t, size, 1)...)
	if _, err := pw.Write(append(body, make([]byte, size/4)...)); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- s.stop() }()
	time.Sleep(500 * time.Millisecond)
	if _, err := client(t, ca).Get(s.url + "/studies"); err == nil {
		t.Error("the stopping service takes new connections")
	}
	for range 3 {
		if _, err := pw.Write(make([]byte, size/4)); err != nil {
			t.Fatal("the upload was cut off:", err)
		}
	}
	_, _ = io.Copy(pw, bytes.NewReader([]byte("\r\n--b--\r\n")))
	pw.Close()
	if r := <-done; r.err != nil || r.status != 200 || r.proto != 2 {
		t.Errorf("%+v", r)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if all, err := s.archive.Instances(context.Background(), "", "", ""); err != nil || len(all) != 1 {
		t.Error(all, err)
	}
}
