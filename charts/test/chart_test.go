package charts

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the golden manifests anew")

// TestValueFiles lints and renders the chart with each values file, looks at all that comes of it, and compares it with the golden one.
// go test -update writes these anew.
func TestValueFiles(t *testing.T) {
	files := valueFiles()
	if len(files) < 5 {
		t.Fatalf("%d values files", len(files))
	}
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".yaml")
		t.Run(name, func(t *testing.T) {
			got, err := verify(chartDir, f)
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", name+".golden.yaml")
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("differs from %s; if it should, run go test -update in charts/test:\n%s", golden, diff)
			}
		})
	}
}

// TestModes: what the two modes are made of.
func TestModes(t *testing.T) {
	for name, want := range map[string]string{
		"default": "xray-chatxray[all]",
		"scaled":  "xray-chatxray-web[web] xray-chatxray-worker[worker]",
		"locked":  "xray-web[web] xray-worker[worker]",
	} {
		rendered, err := render(chartDir, filepath.Join(chartDir, "ci", name+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		all, err := decode(rendered)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, d := range all.deployments {
			got = append(got, d.Name+"["+d.Spec.Template.Labels["app.kubernetes.io/component"]+"]")
			role := "role: " + d.Spec.Template.Labels["app.kubernetes.io/component"]
			for _, c := range all.configs {
				if c.Name == d.Name && name != "default" && !strings.Contains(c.Data["config.yaml"], role+"\n") {
					t.Errorf("%s is not %s", d.Name, role)
				}
			}
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s: %s, want %s", name, s, want)
		}
	}
}

// notes renders NOTES.txt, which helm shows only after it spoke to a cluster.
func notes(t *testing.T, values string) string {
	t.Helper()
	chart := filepath.Join(t.TempDir(), "chatxray")
	if err := os.CopyFS(chart, os.DirFS(chartDir)); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(chart, "templates", "NOTES.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{"_notes.tpl": `{{ define "notes" }}` + string(b) + `{{ end }}`, "notes.yaml": `notes: {{ include "notes" . | toJson }}`} {
		if err := os.WriteFile(filepath.Join(chart, "templates", file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out, err := render(chart, values, "--show-only", "templates/notes.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		Notes string `json:"notes"`
	}
	if err := yaml.Unmarshal(out, &v); err != nil {
		t.Fatal(err)
	}
	return v.Notes
}

// TestNotes: they say where the service is, and their commands are shell.
func TestNotes(t *testing.T) {
	for _, f := range valueFiles() {
		text := notes(t, f)
		if !strings.Contains(text, "/dicom-web") || !strings.Contains(text, "needs a radiologist") {
			t.Errorf("%s: %s", f, text)
		}
		var script strings.Builder
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "  kubectl ") || strings.HasPrefix(line, "  export ") || strings.HasPrefix(line, "  chatxray ") {
				script.WriteString(line)
			}
		}
		cmd := exec.Command("bash", "-n")
		cmd.Stdin = strings.NewReader(script.String())
		if msg, err := cmd.CombinedOutput(); err != nil || strings.Count(script.String(), "\n") < 3 {
			t.Errorf("%s: %v %s\n%s", f, err, msg, text)
		}
	}
}
