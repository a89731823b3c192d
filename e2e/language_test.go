package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// tongue is a tiny bundle of a family that states Chinese and German too. Its weights are chance, so its form leaves it one thing to say.
func tongue(t *testing.T, family string, manifest object) string {
	t.Helper()
	dir := copyBundle(t, filepath.Join(root, "modelrt", "testdata", "families", family))
	form := `{"type":"object","properties":{"findings":{"type":"array","minItems":1,"maxItems":1,"items":{"type":"object","properties":{` +
		`"label":{"const":"Cardiomegaly"},"sentence":{"const":"心影不大。"},"status":{"const":"absent"},"side":{"const":"none"}},` +
		`"required":["label","sentence","status","side"],"additionalProperties":false}}},"required":["findings"],"additionalProperties":false}`
	if err := os.WriteFile(filepath.Join(dir, "form.json"), []byte(form), 0o644); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	var m object
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	for k, v := range manifest {
		m[k] = v
	}
	m["languages"], m["structured"] = []string{"en", "zh"}, object{"schema": "form.json"}
	m["files"].(object)["form.json"] = object{"sha256": fmt.Sprintf("%x", sha256.Sum256([]byte(form))), "bytes": len(form)}
	if b, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "manifest.json"), b, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A Chinese report from the form of one bundle with the opinion of another: JSON, terminal and DICOM SR are in Chinese, and say what they are.
func TestReportInChinese(t *testing.T) {
	bundle := tongue(t, "llava", object{"prompts": object{"zh": object{"template": "<s>USER: <image>\n描述。 ASSISTANT:", "structured": "<s>USER: <image>\n填写。 ASSISTANT:"}}})
	second := tongue(t, "llama", object{"prompts": object{"zh": object{"template": "<s>[INST] 描述。 [/INST]", "opinion": "<s>[INST] 评论：{draft} [/INST]"}}})
	file, study := phantom(t)
	out := t.TempDir()
	args := []string{"report", "--bundle", bundle, "--language", "zh", "--structured", "--second-opinion", second, "--out", out, file}
	stdout, stderr := chatxray(t, 0, append(args, "--json")...)
	schema, err := jsonschema.NewCompiler().Compile(filepath.Join(root, "docs", "report.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(stdout))
	if err != nil {
		t.Fatal(err)
	}
	if err := schema.Validate(v); err != nil {
		t.Errorf("%v\n%s", err, stdout)
	}
	if !strings.Contains(stderr, "both are in memory") {
		t.Errorf("it does not tell that two bundles are in memory:\n%s", stderr)
	}
	var rep struct {
		Reading struct {
			Language   string
			Sentences  []struct{ Text string }
			Findings   []struct{ Label, Presence string }
			Structured struct {
				Schema, Report json.RawMessage
				Taught         bool
			}
		}
		Opinion struct {
			Draft    bool
			Language string
			Model    struct{ Name string }
		} `json:"second_opinion"`
	}
	if err := json.Unmarshal([]byte(stdout), &rep); err != nil {
		t.Fatal(err)
	}
	r := rep.Reading
	if r.Language != "zh" || len(r.Sentences) != 1 || r.Sentences[0].Text != "心影不大。" || !r.Structured.Taught || r.Findings[2].Presence != "absent" {
		t.Errorf("%+v", r)
	}
	if o := rep.Opinion; !o.Draft || o.Language != "zh" || o.Model.Name != "tiny-llama" {
		t.Errorf("%+v", o)
	}
	// The form meets its own schema, says an outside validator.
	c := jsonschema.NewCompiler()
	if v, err = jsonschema.UnmarshalJSON(bytes.NewReader(r.Structured.Schema)); err == nil {
		err = c.AddResource("form.json", v)
	}
	if err != nil {
		t.Fatal(err)
	}
	form, err := c.Compile("form.json")
	if err != nil {
		t.Fatal(err)
	}
	if v, err = jsonschema.UnmarshalJSON(bytes.NewReader(r.Structured.Report)); err != nil || form.Validate(v) != nil {
		t.Errorf("%v: %s", err, r.Structured.Report)
	}
	if v, _ = jsonschema.UnmarshalJSON(strings.NewReader(`{"findings":[]}`)); form.Validate(v) == nil {
		t.Error("the form's schema takes anything")
	}
	for _, kind := range []string{"findings", "narrative"} {
		path := filepath.Join(out, study+"."+kind+".dcm")
		b, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(b, []byte("ISO_IR 192")) || !bytes.Contains(b, []byte("心影不大。")) {
			t.Errorf("%s: %v", kind, err)
		}
		if bytes.Contains(b, []byte("tiny-llama")) {
			t.Errorf("%s names the model of the second opinion", kind)
		}
		dump, err := exec.Command("dsrdump", path).Output()
		if err != nil {
			t.Errorf("dsrdump (Debian package dcmtk): %v", err)
		}
		for _, want := range []string{`(zh,RFC5646,"中文")`, map[string]string{"findings": `"心影增大")=(272519000,SCT,"不存在")`, "narrative": `"影像所见"`}[kind]} {
			if !bytes.Contains(dump, []byte(want)) {
				t.Errorf("%s lacks %s:\n%s", kind, want, dump)
			}
		}
		said, _ := exec.Command("dciodvfy", path).CombinedOutput()
		if bytes.Contains(said, []byte("Error")) || len(said) == 0 {
			t.Errorf("%s: %s", kind, said)
		}
	}
	shown, _ := chatxray(t, 0, args...)
	for _, want := range []string{"影像所见", "心影增大", "不存在", "FORM", "SECOND OPINION on the wording, by tiny-llama", "It has not seen the image"} {
		if !strings.Contains(strings.Join(strings.Fields(shown), " "), want) { // lines are wrapped
			t.Errorf("the terminal does not show %q:\n%s", want, shown)
		}
	}
}

// What a bundle does not write, or was not made for, is refused before it is loaded, with what there is.
func TestReportLanguageRefused(t *testing.T) {
	bundle := tongue(t, "llava", object{"prompts": object{"zh": object{"template": "<s>USER: <image>\n描述。 ASSISTANT:"}}})
	file, _ := phantom(t)
	if _, errs := chatxray(t, 3, "report", "--bundle", bundle, "--language", "fr", file); !strings.Contains(errs, `does not write "fr"; it writes en, zh`) {
		t.Error(errs)
	}
	if _, errs := chatxray(t, 3, "report", "--bundle", bundle, "--language", "zh", "--second-opinion", bundle, file); !strings.Contains(errs, "prompts.zh.opinion") {
		t.Error(errs)
	}
	if _, errs := chatxray(t, 3, "report", "--language", "de", file); !strings.Contains(errs, "it writes en") {
		t.Error(errs)
	}
}
