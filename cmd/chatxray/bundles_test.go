package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chatxray/modelrt"
)

const tinyBundle = "../../modelrt/testdata/tiny"

// remoteAt writes a bundle whose model is elsewhere, and returns its folder.
func remoteAt(t *testing.T, url string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "far")
	manifest := fmt.Sprintf(`{"version":1,"kind":"remote","name":"far","revision":"2","license":"x","intended_use":"x","training_data":"x","languages":["en"],
		"preprocess":{"width":32,"height":32,"fit":"keep","interpolation":"box","voi":"default"},"remote":{"url":%q,"model":"m","images":1,"prompt":"Write.","evidence":"none","attempts":1},
		"generation":{"max_new_tokens":40},"report":{},"labels":["Edema"]}`, url)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "manifest.json"), []byte(manifest), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// closedPort is an address of this machine where nothing listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Every command about bundles works with one whose model is elsewhere, or refuses it in a sentence.
func TestBundlesOfRemote(t *testing.T) {
	dir := remoteAt(t, "http://"+closedPort(t)+"/v1")
	t.Setenv("CHATXRAY_BUNDLES", filepath.Dir(dir))
	for _, c := range []struct {
		code int
		says string
		args []string
	}{
		{0, "far   2         x        ", []string{"list"}},
		{0, "far 2: 0 files as the manifest says", []string{"verify", dir}},
		{0, "far 2: 0 files as the manifest says", []string{"verify", "far"}},
		{exitParts, "far has no model card", []string{"card", dir}},
		{exitInvalid, "no weights that could be quantised: its model is elsewhere", []string{"quantize", dir, filepath.Join(dir, "out"), "--to", "q4"}},
		{exitInvalid, "no weights that could be quantised: its model is elsewhere", []string{"quantize", dir, filepath.Join(dir, "out"), "--to", "q8", "--form", "fp32"}},
	} {
		code, out, errs := command(t, "", append([]string{"bundles"}, c.args...)...)
		if code != c.code || !strings.Contains(out+errs, c.says) {
			t.Errorf("%v: exit code %d, want %d, with %q:\n%s%s", c.args, code, c.code, c.says, out, errs)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "README.md"), []byte("# Far away\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if code, out, _ := command(t, "", "bundles", "card", "far"); code != 0 || out != "# Far away\n" {
		t.Errorf("exit code %d: %s", code, out)
	}
}

// Who asks for a bundle that is not there learns where it was looked for, and how to name one.
func TestNoBundle(t *testing.T) {
	folder := t.TempDir()
	t.Setenv("CHATXRAY_BUNDLES", folder)
	t.Chdir(t.TempDir())
	for _, args := range [][]string{{"bundles", "verify", "nosuch"}, {"bundles", "card", "nosuch"}, {"bundles", "quantize", "nosuch", "out", "--to", "q4"}, {"doctor", "--device", "cpu", "--bundle", "nosuch"},
		{"weigh", "--bundle", "nosuch"}, {"preprocess", "--bundle", "nosuch", "--out", "out", "."}} {
		code, out, errs := command(t, "", args...)
		if code != exitParts {
			t.Errorf("%v: exit code %d", args, code)
		}
		for _, want := range []string{"no model bundle in nosuch", folder, "/usr/share/chatxray/bundles", "--bundle", "CHATXRAY_BUNDLES"} {
			if !strings.Contains(out+errs, want) {
				t.Errorf("%v does not say %q:\n%s%s", args, want, out, errs)
			}
		}
	}
	code, out, _ := command(t, "", "bundles", "list")
	if code != 0 || strings.Contains(out, "REVISION") || !strings.Contains(out, "There is no model bundle in "+folder) || !strings.Contains(out, "CHATXRAY_BUNDLES") {
		t.Errorf("exit code %d: %s", code, out)
	}
}

// What the rules of reports do is no question for commands that write none.
func TestPolicyIsOfReports(t *testing.T) {
	for name, wanted := range map[string]bool{"report": true, "serve": true, "ask": false, "weigh": false, "doctor": false} {
		_, out, _ := command(t, "", name, "--help")
		if strings.Contains(out, "--policy") != wanted || !strings.Contains(out, "--bundle") {
			t.Errorf("%s:\n%s", name, out)
		}
	}
}

// ownTiny is the tiny bundle of package modelrt with weights of its own: it needs no base model and writes sentences about any image.
func ownTiny(t *testing.T) string {
	t.Helper()
	b, err := modelrt.Verify(tinyBundle)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "own")
	if _, err := modelrt.Quantize(context.Background(), b, modelrt.BaseModel{Path: "../../modelrt/testdata/tiny.gguf", Cache: t.TempDir()}, "fp32", "q8", dir); err != nil {
		t.Fatal(err)
	}
	return dir
}
