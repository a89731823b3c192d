package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSecured runs the binary beyond loopback as it should be, and asks it with curl and openssl.
func TestSecured(t *testing.T) {
	bin := built(t)
	curl, openssl := program(t, "curl", "curl"), program(t, "openssl", "openssl")
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(at(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	// Open to everybody beyond loopback: it does not start.
	if _, stderr := chatxray(t, 6, "serve", "--listen", "0.0.0.0:0", "--data", at("never")); !strings.Contains(stderr, "nobody would have to authenticate") {
		t.Error(stderr)
	}
	write("openssl.cnf", "[server]\nsubjectAltName=DNS:localhost\n[client]\nextendedKeyUsage=clientAuth\n")
	for _, name := range []string{"server", "client"} { // each signed by its own authority
		run(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN="+name+" CA", "-keyout", at(name+"-ca.key"), "-out", at(name+"-ca.crt"))
		run(openssl, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/O=Hospital/CN="+name, "-keyout", at(name+".key"), "-out", at(name+".csr"))
		run(openssl, "x509", "-req", "-in", at(name+".csr"), "-CA", at(name+"-ca.crt"), "-CAkey", at(name+"-ca.key"), "-CAcreateserial", "-days", "1",
			"-extfile", at("openssl.cnf"), "-extensions", name, "-out", at(name+".crt"))
	}
	subject := strings.TrimPrefix(run(openssl, "x509", "-in", at("client.crt"), "-noout", "-subject", "-nameopt", "RFC2253"), "subject=")
	write("htpasswd", "ward:$2b$08$BAN03B88YDhZ6CfvNciZv.QPepe9Okxl4knzhfy8pFB2S2.L33wH6\n")
	write("index.html", "<html>the viewer")
	write("chatxray.yaml", `
dicomweb:
  auth:
    tokens: [{name: pacs, token: env:PACS_TO_CHATXRAY, roles: [store]}]
    htpasswd: {file: `+at("htpasswd")+`, roles: {"*": [read]}}
    certificates: [{name: gateway, subject: "`+subject+`", roles: [admin]}]
  tls: {certificate: `+at("server.crt")+`, key: `+at("server.key")+`, client_ca: `+at("client-ca.crt")+`}
  delete: true
  viewer: `+dir+`
`)
	const token = "a-token-from-the-environment"
	t.Setenv("PACS_TO_CHATXRAY", token)
	if out, _ := chatxray(t, 0, "doctor", "--config", at("chatxray.yaml")); !strings.Contains(out, "who shows tokens or passwords or client certificates, TLS until") || strings.Contains(out, token) {
		t.Error(out)
	}
	cmd := exec.Command(bin, "--log-json", "serve", "--config", at("chatxray.yaml"), "--listen", "0.0.0.0:0", "--port-file", at("port"), "--data", at("data"))
	log := background(t, cmd)
	eventually(t, 2*time.Minute, "the port", func() error { _, err := os.Stat(at("port")); return err })
	port, err := os.ReadFile(at("port"))
	if err != nil {
		t.Fatal(err)
	}
	url := "https://localhost:" + strings.TrimSpace(string(port))
	file, study := phantom(t)
	ask := func(path string, args ...string) string {
		t.Helper()
		return run(append([]string{curl, "-sS", "--cacert", at("server-ca.crt"), "-o", at("answer"), "-w", "%{http_version} %{http_code}", url + path}, args...)...)
	}
	bearer, ward := []string{"-H", "Authorization: Bearer " + token}, []string{"-u", "ward:pässword"}
	certificate := []string{"--cert", at("client.crt"), "--key", at("client.key")}
	for _, c := range []struct {
		path string
		args []string
		want string
	}{
		{"/readyz", nil, "2 200"},
		{"/dicom-web/studies", nil, "2 401"},
		{"/dicom-web/studies", bearer, "2 403"},
		{"/dicom-web/studies", append(bearer, "-H", "Content-Type: application/dicom", "-H", "Expect: 100-continue", "--data-binary", "@"+file), "2 200"},
		{"/dicom-web/studies", append(bearer, "-H", "Content-Type: application/dicom", "--http1.1", "--data-binary", "@"+file), "1.1 200"},
		{"/dicom-web/studies/" + study + "/metadata", ward, "2 200"},
		{"/dicom-web/studies/" + study, append(ward, "-X", "DELETE"), "2 403"},
		{"/dicom-web/studies/" + study, append(certificate, "-X", "DELETE"), "2 204"},
		{"/dicom-web/studies/" + study + "/metadata", ward, "2 404"},
		{"/dicom-web/studies", []string{"-u", "ward:mistaken-7"}, "2 401"},
		{"/", nil, "2 200"},
	} {
		if got := ask(c.path, c.args...); got != c.want {
			b, _ := os.ReadFile(at("answer"))
			t.Errorf("%s %v: %s, want %s: %.200s", c.path, c.args, got, c.want, b)
		}
	}
	if out, err := exec.Command(curl, "-sS", url+"/readyz").CombinedOutput(); err == nil {
		t.Errorf("curl trusts an unknown authority: %s", out)
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	eventually(t, 30*time.Second, "the service to stop", func() error {
		if err := cmd.Process.Signal(syscall.Signal(0)); err == nil && !strings.Contains(log.String(), "stopping") {
			return errors.New("it runs")
		}
		return nil
	})
	said := log.String()
	for _, secret := range []string{token, "pässword", "$2b$", "mistaken-7"} {
		if strings.Contains(said, secret) {
			t.Errorf("%q is in the log", secret)
		}
	}
	for _, want := range []string{`"by":"certificate:gateway"`, `"message":"deleted"`, `"study":"` + study + `"`, `"by":"user:ward"`} {
		if !strings.Contains(said, want) {
			t.Errorf("the log lacks %s:\n%s", want, said)
		}
	}
}
