package e2e

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const everyRole = "schemathesis-0123456789"

// TestSchemathesis lets schemathesis ask a running service what its OpenAPI document says, and much that it does not.
func TestSchemathesis(t *testing.T) {
	built(t)
	config := filepath.Join(t.TempDir(), "chatxray.yaml")
	if err := os.WriteFile(config, []byte("dicomweb:\n  delete: true\n  auth:\n    tokens: [{name: all, token: "+everyRole+", roles: [store, read, admin]}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := serve(t, t.TempDir(), "--config", config)
	file, study := phantom(t)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`/series/([0-9.]+)/instances/([0-9.]+)"`).FindSubmatch(authorized(t, http.MethodPost, s.dicomweb()+"/studies", b))
	if m == nil {
		t.Fatal("the answer names no instance")
	}
	for _, run := range []struct {
		name string
		args []string
	}{
		{"stored", nil},
		{"deletions", []string{"--config-file", deletions(t), "--include-method", "DELETE"}},
	} {
		t.Run(run.name, func(t *testing.T) {
			args := []string{filepath.Join(root, "scripts", "schemathesis.sh")}
			if len(run.args) > 0 {
				args = append(args, run.args[:2]...)
				run.args = run.args[2:]
			}
			cmd := exec.Command("bash", append(append(args, "run", s.dicomweb()+"/openapi.json", "-H", "Authorization: Bearer "+everyRole, "--no-color"), run.args...)...)
			cmd.Env = append(os.Environ(), "STUDY="+study, "SERIES="+string(m[1]), "INSTANCE="+string(m[2]))
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "No issues found") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	if found := authorized(t, http.MethodGet, s.dicomweb()+"/studies/"+study+"/metadata", nil); len(found) < 100 {
		t.Errorf("the stored study is gone: %s", found)
	}
}

// deletions is a configuration that leaves the UIDs to chance.
func deletions(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "schemathesis.toml")
	if err := os.WriteFile(path, []byte("seed = 1\nwarnings = false\n[checks.ignored_auth]\nenabled = false\n[generation]\nmax-examples = 12\ndatabase = \"none\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func authorized(t *testing.T, method, url string, body []byte) []byte {
	t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(string(body)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+everyRole)
	r.Header.Set("Content-Type", "application/dicom")
	return answered(t, r)
}
