package main

import (
	"bytes"
	"encoding/json"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"chatxray/modelrt"
	"chatxray/pipeline"
)

// phantomFile draws a radiograph.
func phantomFile(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "phantom.dcm")
	if code, _, errs := command(t, "", "phantom", "--out", file); code != 0 {
		t.Fatal(errs)
	}
	return file
}

// edited copies a tiny bundle and changes its manifest.
func edited(t *testing.T, family, from, to string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "edited")
	if err := os.CopyFS(dir, os.DirFS("../../modelrt/testdata/families/"+family)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "manifest.json")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.Replace(b, []byte(from), []byte(to), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// What was asked for beside a report and fails does not take the report away: it is told beside it, and the exit code says so.
func TestReportWithoutItsExtra(t *testing.T) {
	file, own := phantomFile(t), ownTiny(t)
	blocked := filepath.Join(t.TempDir(), "a file")
	if err := os.WriteFile(blocked, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	schema, err := jsonschema.NewCompiler().Compile("../../docs/report.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what extra
		code int
		says string
		args []string
	}{
		{extraOpinion, exitInvalid, "the context of tiny-llama is 40 tokens", []string{"--second-opinion", edited(t, "llama", `"max_length": 256`, `"max_length": 40`)}},
		{extraHeat, exitFailed, "a file", []string{"--heatmap", filepath.Join(blocked, "x")}},
		{extraFiles, exitFailed, "a file", []string{"--out", filepath.Join(blocked, "x")}},
	} {
		args := append([]string{"report", "--log-level", "error", "--bundle", own, "--threads", "1", "--device", "cpu", file}, c.args...)
		code, out, errs := command(t, "", args...)
		if code != c.code || !strings.Contains(out, "FINDINGS") || !strings.Contains(strings.Join(strings.Fields(out), " "), "NOT MADE: "+extraNames[c.what]+": ") || !strings.Contains(strings.Join(strings.Fields(out), " "), c.says) || errs != "" {
			t.Errorf("%v: exit code %d\n%s%s", c.args, code, out, errs)
		}
		code, out, errs = command(t, "", append(args, "--json")...)
		var rep studyReport
		if err := json.Unmarshal([]byte(out), &rep); err != nil || code != c.code || rep.State != pipeline.StateReported || rep.Reading == nil || rep.Error != "" || len(rep.Documents) == 0 ||
			!strings.Contains(rep.NotMade[c.what], c.says) || strings.Count(errs, c.says) != 1 {
			t.Errorf("%v: %v, exit code %d\n%s%s", c.args, err, code, out, errs)
		}
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(out))
		if err == nil {
			err = schema.Validate(v)
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// What a bundle can never do is said before a file is opened or a model loaded.
func TestReportSaysFirstWhatCannotBe(t *testing.T) {
	far := remoteAt(t, "http://"+closedPort(t)+"/v1")
	families := "../../modelrt/testdata/families/"
	italian := edited(t, "fuyu", "\"en\"\n", "\"it\"\n")
	for _, c := range []struct {
		says []string
		args []string
	}{
		{[]string{"heat maps: unsupported: the features of model tiny-fuyu are no square grid"}, []string{"--bundle", families + "fuyu", "--heat"}},
		{[]string{"heat maps: unsupported: the features of model tiny-qwen2vl are no square grid"}, []string{"--bundle", families + "qwen2vl", "--heatmap", "x"}},
		{[]string{"the model of bundle far is elsewhere and gives nothing to make heat maps of"}, []string{"--bundle", far, "--heat"}},
		{[]string{"words for the patient: unsupported: bundle tiny-fuyu has no words", "heat maps: ", "second opinion: unsupported: bundle tiny-fuyu has no prompt"},
			[]string{"--bundle", italian, "--plain", "--heat", "--second-opinion", italian}},
		{[]string{"second opinion: model bundle: not found: no model bundle in nosuch"}, []string{"--bundle", families + "llava", "--second-opinion", "nosuch"}},
		{[]string{"the model of bundle tiny-llama reads text and takes no images"}, []string{"--bundle", families + "llama"}},
	} {
		code, out, errs := command(t, "", append([]string{"report", "nowhere.dcm"}, c.args...)...)
		if code != exitInvalid && code != exitParts || out != "" || strings.Contains(errs, "nowhere") {
			t.Errorf("%v: exit code %d\n%s%s", c.args, code, out, errs)
		}
		for _, want := range c.says {
			if !strings.Contains(errs, want) {
				t.Errorf("%v does not say %q:\n%s", c.args, want, errs)
			}
		}
	}
}

// An endpoint that is away is told with its reason, once, and nothing stands on standard output that looks like an answer.
func TestEndpointIsAway(t *testing.T) {
	far, file := remoteAt(t, "http://"+closedPort(t)+"/v1"), phantomFile(t)
	for _, args := range [][]string{{"report", file}, {"ask", file, "What is it?"}} {
		code, out, errs := command(t, "", append(args, "--bundle", far, "--log-level", "error")...)
		if code != exitServer || out != "" || strings.Count(errs, "connection refused") != 1 || strings.Count(errs, "\n") != 1 {
			t.Errorf("%v: exit code %d\n%s%s", args, code, out, errs)
		}
	}
}

// A map without anything on it is a sentence, not a screen of dots.
func TestHeatInTheTerminal(t *testing.T) {
	var seen, out bytes.Buffer
	if err := png.Encode(&seen, image.NewGray(image.Rect(0, 0, 4, 4))); err != nil {
		t.Fatal(err)
	}
	rep := &studyReport{seen: seen.Bytes(), Reading: &pipeline.Reading{Sentences: []pipeline.Sentence{{Text: "Cold."}, {Text: "Warm."}, {Text: "Against."}}},
		heat: &pipeline.Heat{Rows: 2, Columns: 2, Sentences: [][]float64{{0.01, -0.04, 0, 0}, {0, 0, 0, 0.05}, {0, 0, -0.6, 0}}}}
	page{w: &out}.heat(rep)
	cold, rest, _ := strings.Cut(out.String(), "2  Warm.")
	warm, against, _ := strings.Cut(rest, "3  Against.")
	if !strings.Contains(cold, "no part of the image counts for more than 0.05 nats") || strings.Count(cold, "\n") != 4 {
		t.Errorf("%s", cold)
	}
	if strings.Count(warm, "\n") < 20 || !strings.Contains(against, "=") {
		t.Errorf("%s", rest)
	}
}

// The notice over words for the patient is about the bundle that wrote them.
func TestPlainNotice(t *testing.T) {
	got := plainNotice(&modelrt.Manifest{Name: "other", IntendedUse: "tests"})
	if !strings.Contains(got, "other may never have been taught") || !strings.HasSuffix(got, "intended use: tests") || strings.Contains(got, "default") {
		t.Error(got)
	}
}
