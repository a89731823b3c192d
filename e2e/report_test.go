package e2e

import (
	"bytes"
	"encoding/json"
	"image/png"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// What report --json prints is what docs/report.schema.json says, for a study that is read and for one that is refused.
func TestReportJSON(t *testing.T) {
	schema, err := jsonschema.NewCompiler().Compile(filepath.Join(root, "docs", "report.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	frontal, study := phantom(t)
	lateral, _ := phantom(t, "--view", "LL", "--seed", "3")
	out := t.TempDir()
	stdout, _ := chatxray(t, 0, "report", "--json", "--plain", "--out", out, frontal, lateral)
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines for two studies:\n%s", len(lines), stdout)
	}
	states := map[string]int{}
	for _, l := range lines {
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(l))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(v); err != nil {
			t.Errorf("%v\n%s", err, l)
		}
		states[v.(map[string]any)["state"].(string)]++
		delete(v.(map[string]any), "schema")
		if schema.Validate(v) == nil {
			t.Error("the schema takes an object without its version")
		}
	}
	if states["reported"] != 1 || states["refused"] != 1 {
		t.Errorf("states %v", states)
	}
	for _, name := range []string{study + ".findings.dcm", study + ".narrative.dcm", study + ".png"} {
		if st, err := os.Stat(filepath.Join(out, name)); err != nil || st.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// report - reads standard input, and says that a phantom is one; a lateral view alone is exit code 4.
func TestReportFromStandardInput(t *testing.T) {
	file, _ := phantom(t)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(built(t), "report", "-")
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.Output()
	if err != nil || !bytes.Contains(out, []byte("PHANTOM")) || !bytes.Contains(out, []byte("evidence")) {
		t.Errorf("%v\n%s", err, out)
	}
	lateral, _ := phantom(t, "--view", "LL")
	said, _ := chatxray(t, 4, "report", lateral)
	if !strings.Contains(said, "lateral") {
		t.Errorf("it does not say why:\n%s", said)
	}
}

// A bundle that was not made for children does not read them.
func TestReportOfAChild(t *testing.T) {
	bundle := copyBundle(t, filepath.Join(root, "bundles", "chatxray-base"))
	manifest := filepath.Join(bundle, "manifest.json")
	b, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	m["patients"] = map[string]any{"min_age_years": 18}
	if b, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(manifest, b, 0o644); err != nil {
		t.Fatal(err)
	}
	file, _ := phantom(t)
	image, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for age, code := range map[string]int{"017Y": 4, "018Y": 0} {
		at := element(t, image, 0x0010, 0x0040, "CS") + 2 // behind Patient's Sex
		aged := filepath.Join(t.TempDir(), age+".dcm")
		if err := os.WriteFile(aged, slices.Concat(image[:at], []byte("\x10\x00\x10\x10AS\x04\x00"+age), image[at:]), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, _ := chatxray(t, code, "report", "--bundle", bundle, aged); strings.Contains(out, "younger") != (code == 4) {
			t.Errorf("%s: %s", age, out)
		}
	}
}

// The objects that the command writes pass the validators; the service's go through the same code.
func TestReportsPassDciodvfy(t *testing.T) {
	validator, err := exec.LookPath("dciodvfy")
	if err != nil {
		t.Skip("dciodvfy is not installed (Debian package dicom3tools)")
	}
	t.Setenv("TZ", "Asia/Kolkata") // the phantom states no offset, so the machine's counts
	file, study := phantom(t)
	out := t.TempDir()
	chatxray(t, 0, "report", "--out", out, file)
	for _, kind := range []string{"findings", "narrative"} {
		said, _ := exec.Command(validator, filepath.Join(out, study+"."+kind+".dcm")).CombinedOutput()
		if bytes.Contains(said, []byte("Error")) || len(said) == 0 {
			t.Errorf("%s: %s", kind, said)
		}
		if b, err := os.ReadFile(filepath.Join(out, study+"."+kind+".dcm")); err != nil || !bytes.Contains(b, []byte("SH\x06\x00+0530")) {
			t.Errorf("%s: not in the zone of the machine (%v)", kind, err)
		}
	}
}

// A UID names one content: a second run makes other objects.
func TestReportAgain(t *testing.T) {
	file, study := phantom(t)
	seen := map[string]string{}
	for _, out := range []string{t.TempDir(), t.TempDir()} {
		stdout, _ := chatxray(t, 0, "report", "--json", "--out", out, file)
		var rep struct {
			Documents []struct {
				Kind, Path string
				UID        string `json:"sop_instance_uid"`
			}
		}
		if err := json.Unmarshal([]byte(stdout), &rep); err != nil || len(rep.Documents) != 2 {
			t.Fatalf("%v\n%s", err, stdout)
		}
		for _, d := range rep.Documents {
			b, err := os.ReadFile(d.Path)
			if err != nil || !bytes.Contains(b, []byte(d.UID)) || !bytes.Contains(b, []byte(study)) {
				t.Errorf("%s is not document %s of study %s (%v)", d.Path, d.UID, study, err)
			}
			if first, ok := seen[d.UID]; ok && first != string(b) {
				t.Errorf("the %s document has the UID of an earlier one and other bytes", d.Kind)
			}
			seen[d.UID] = string(b)
		}
	}
}

// The whole demonstration, on a phantom.
func TestDemo(t *testing.T) {
	bin := built(t)
	file, study := phantom(t)
	dir := t.TempDir() // a project with nothing but what the script uses
	for _, d := range []string{"bin", "scripts"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	script, err := os.ReadFile(filepath.Join(root, "scripts", "demo.sh"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "scripts", "demo.sh"), script, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(bin, filepath.Join(dir, "bin", "chatxray")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("bash", "scripts/demo.sh")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "STUDY="+file, "KEEP=", "CHATXRAY_BUNDLES="+filepath.Join(root, "bundles"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, w := range []string{study, "evidence", "PHANTOM", ".findings.dcm", ".narrative.dcm", ".png"} {
		if !bytes.Contains(out, []byte(w)) {
			t.Errorf("the demonstration does not show %q:\n%s", w, out)
		}
	}
}

// A running service draws where a sentence of a report rests on the picture.
func TestHeatmapOfService(t *testing.T) {
	s := serve(t, t.TempDir())
	file, study := phantom(t)
	chatxray(t, 0, "send", s.dicomweb(), file)
	chatxray(t, 0, "show", s.dicomweb(), study)
	pictures := map[string]string{}
	for _, resource := range []string{"image", "heatmap?sentence=1", "heatmap?sentence=2"} {
		b, err := get(s.dicomweb() + "/studies/" + study + "/reading/" + resource)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := png.Decode(bytes.NewReader(b)); err != nil {
			t.Fatalf("%s: %v", resource, err)
		}
		if other, twice := pictures[string(b)]; twice {
			t.Errorf("%s is %s", resource, other)
		}
		pictures[string(b)] = resource
	}
	for query, status := range map[string]int{"sentence=99": 404, "sentence=0": 400} {
		resp, err := http.Get(s.dicomweb() + "/studies/" + study + "/reading/heatmap?" + query)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != status {
			t.Errorf("%q: %s, want %d", query, resp.Status, status)
		}
	}
	if b, err := http.Post(s.dicomweb()+"/studies/"+study+"/reading/release", "", nil); err != nil || b.StatusCode != http.StatusConflict {
		t.Errorf("releasing a report that is not held: %v %v", b, err)
	}
}
