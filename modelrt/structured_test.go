package modelrt

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"chatxray/pipeline"
)

// formOracle is another reading of JSON Schema.
func formOracle(t testing.TB, schema []byte) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	if err := c.AddResource("s.json", must(jsonschema.UnmarshalJSON(strings.NewReader(string(schema))))); err != nil {
		t.Fatal(err)
	}
	return must(c.Compile("s.json"))
}

func meets(t testing.TB, s *pipeline.Structured) error {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(string(s.Report)))
	if err != nil {
		return err
	}
	return formOracle(t, s.Schema).Validate(v)
}

// openForm opens the tiny bundle for structured reports, with changes.
func openForm(t testing.TB, language string, changes map[string]any) *Model {
	t.Helper()
	dir := copyBundle(t)
	all := tongues()
	for k, v := range changes {
		all[k] = v
	}
	if err := os.WriteFile(filepath.Join(dir, manifestName), edited(t, all), 0o644); err != nil {
		t.Fatal(err)
	}
	o := tinyOptions(t)
	o.Language, o.Structured = language, true
	m, err := Open(context.Background(), runtimeFor(t), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// What the tiny model writes into the form meets its schema, also where it is cut off; every sentence has its evidence.
func TestStructuredReport(t *testing.T) {
	german := map[string]any{"de": map[string]any{"template": germanTemplate}, "zh": map[string]any{"template": chineseTemplate, "structured": chineseForm}}
	for name, tt := range map[string]struct {
		language string
		length   int
		truncate bool
	}{
		"whole": {"zh", 2048, false}, "truncated": {"zh", 128, true},
	} {
		t.Run(name, func(t *testing.T) {
			m := openForm(t, tt.language, map[string]any{"decoder/max_length": tt.length, "prompts": german})
			if !tt.truncate { // its weights are chance: it is left no way to say nothing
				m.task.schema = must(m.bundle.structuredSchema(func(string) ([]string, bool) { return []string{"心影正常。", `未见 "积液"。`}, true }))
				m.task.form = must(m.grammarOf("zh", m.guard.Scripts(), m.task.schema))
			}
			a := must(m.write(context.Background(), must(m.see(context.Background(), tinyValues(t).image(), classRoutine)), classRoutine))
			if a.truncated != tt.truncate {
				t.Fatalf("truncated: %v: %q", a.truncated, a.text)
			}
			if tt.truncate {
				entries, _ := readEntries(a.text)
				s := must(m.completed(entries))
				if err := meets(t, &pipeline.Structured{Schema: m.task.schema, Report: s}); err != nil {
					t.Errorf("%v: %s", err, s)
				}
				return
			}
			r, err := m.Read(context.Background(), tinyValues(t).image())
			if err != nil {
				t.Fatalf("%v\n%s", err, a.text)
			}
			if err := meets(t, r.Structured); err != nil {
				t.Errorf("%v: %s", err, r.Structured.Report)
			}
			if !r.Structured.Taught || r.Language != "zh" || len(r.Sentences) == 0 || len(r.Findings) != len(pipeline.Labels) {
				t.Errorf("%+v", r)
			}
			for _, s := range r.Sentences {
				var spelled []byte
				for _, id := range r.Tokens[s.FirstToken : s.FirstToken+s.Tokens] {
					spelled = append(spelled, m.prompt.tokenizer.TokenBytes(id)...)
				}
				if quoted := strings.Trim(string(must(json.Marshal(s.Text))), `"`); s.Evidence.LogLikelihood >= 0 || len(s.Evidence.Decoys) == 0 || !strings.Contains(string(spelled), quoted) && !strings.Contains(string(spelled), s.Text) {
					t.Errorf("%q in the tokens %q, %+v", s.Text, spelled, s.Evidence)
				}
			}
		})
	}
}

// A bundle that was not taught fills in a form of its report's sentences: the reading is the one without a form, and the form quotes it.
func TestFilledForm(t *testing.T) {
	label := func(s []string) []pipeline.Finding {
		f := notSaid(s)
		f[2].Presence, f[2].Sentences = pipeline.Absent, []int{0, 1} // Cardiomegaly
		return f
	}
	for name, tt := range map[string]struct {
		knows  bool
		length int
	}{"known": {true, 1024}, "unknown": {false, 1024}, "truncated": {true, 160}} {
		t.Run(name, func(t *testing.T) {
			var readings [2]*pipeline.Reading
			for i, structured := range []bool{false, true} {
				dir := copyBundle(t)
				if err := os.WriteFile(filepath.Join(dir, manifestName), edited(t, map[string]any{"decoder/max_length": tt.length}), 0o644); err != nil {
					t.Fatal(err)
				}
				o := tinyOptions(t)
				o.Structured, o.Label, o.Knows = structured, label, func(string) bool { return tt.knows }
				m := must(Open(context.Background(), runtimeFor(t), dir, o))
				readings[i] = must(m.Read(context.Background(), tinyValues(t).image()))
				m.Close()
			}
			plain, s := readings[0], readings[1].Structured
			if readings[1].Structured = nil; plain.Structured != nil || s == nil || s.Taught || s.Truncated != (name == "truncated") {
				t.Fatalf("%+v", s)
			}
			if diff := cmp.Diff(plain, readings[1], cmpopts.IgnoreFields(pipeline.Reading{}, "RunSeconds", "Model")); diff != "" {
				t.Errorf("the form changes the reading: %s", diff)
			}
			if err := meets(t, s); err != nil {
				t.Errorf("%v: %s", err, s.Report)
			}
			var form struct{ Findings []pipeline.StructuredFinding }
			if err := json.Unmarshal(s.Report, &form); err != nil || len(form.Findings) != 4 || form.Findings[1].Label != "Cardiomegaly" {
				t.Fatalf("%v %s", err, s.Report)
			}
			if name == "truncated" {
				return
			}
			for _, f := range form.Findings {
				quoted := slices.ContainsFunc(plain.Sentences, func(s pipeline.Sentence) bool { return s.Text == f.Sentence })
				switch said := f.Status != pipeline.NotSaid; {
				case said != quoted:
					t.Errorf("%+v is not of the report", f)
				case tt.knows && said != (f.Label == "Cardiomegaly"):
					t.Errorf("%+v", f)
				}
			}
			if tt.knows && (len(s.Unsupported) == 1) == (form.Findings[1].Status == pipeline.Absent) || !tt.knows && s.Unsupported != nil {
				t.Errorf("unsupported: %v, %+v", s.Unsupported, form.Findings[1])
			}
		})
	}
}

// filled is an answer of the given form, a token for every three bytes.
func filled(text string) *answer {
	a := &answer{}
	for i := 0; i < len(text); i += 3 {
		a.add(int32(i), -1, []byte(text[i:min(i+3, len(text))]), nil)
	}
	return a
}

// Codes come from the form where its sentences bear them out.
func TestStructuredFindings(t *testing.T) {
	m := openForm(t, "zh", map[string]any{"labels": pipeline.Labels})
	m.label = func(s []string) []pipeline.Finding { // what the sentence says is its first word, about its last
		f := notSaid(s)
		words := strings.Fields(s[0])
		for i := range f {
			if strings.EqualFold(f[i].Label, words[len(words)-1]) {
				f[i].Presence, f[i].Sentences = pipeline.Presence(words[0]), []int{0}
			}
		}
		return f
	}
	form := func(entries ...string) *answer { return filled(`{"findings": [` + strings.Join(entries, ", ") + `]}`) }
	one := func(label, status, sentence string) string {
		return string(must(json.Marshal(pipeline.StructuredFinding{Label: label, Status: pipeline.Presence(status), Side: "left", Sentence: sentence})))
	}
	for name, tt := range map[string]struct {
		form        *answer
		want        map[string]pipeline.Presence
		unsupported []string
		sentences   []string
	}{
		"as stated": {form(one("Edema", "present", "present is edema"), one("Pneumonia", "absent", "absent \\\"is\" pneumonia")),
			map[string]pipeline.Presence{"Edema": pipeline.Present, "Pneumonia": pipeline.Absent}, nil, []string{"present is edema", "absent \\\"is\" pneumonia"}},
		"not borne out": {form(one("Edema", "present", "absent is edema"), one("Fracture", "absent", "absent is edema")),
			map[string]pipeline.Presence{"Edema": pipeline.Undetermined}, []string{"Edema", "Fracture"}, []string{"absent is edema", "absent is edema"}},
		"without words": {form(one("Edema", "present", "  "), one("Fracture", "not said", ""), one("Pneumonia", "absent", "absent pneumonia")),
			map[string]pipeline.Presence{"Pneumonia": pipeline.Absent}, nil, []string{"absent pneumonia"}},
		"twice": {form(one("Edema", "absent", "absent edema"), one("Edema", "present", "present edema")),
			map[string]pipeline.Presence{"Edema": pipeline.Present}, nil, []string{"absent edema", "present edema"}},
		"no finding beside one": {form(one("Edema", "present", "present edema"), `{"label":"No Finding","status":"present","side":"none","sentence":"present is No Finding"}`),
			map[string]pipeline.Presence{"Edema": pipeline.Present}, []string{"No Finding"}, []string{"present edema", "present is No Finding"}},
	} {
		w, err := m.parse(tt.form)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := map[string]pipeline.Presence{}
		for _, f := range must(m.findings(w, []float32{0, 0, 0})) {
			if f.Presence != pipeline.NotSaid {
				got[f.Label] = f.Presence
			}
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if diff := cmp.Diff(tt.unsupported, w.structured.Unsupported); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		var sentences []string
		for _, s := range w.sentences {
			sentences = append(sentences, s.Text)
			var spelled string
			for i := s.FirstToken; i < s.FirstToken+s.Tokens; i++ {
				end := len(tt.form.text)
				if i+1 < len(tt.form.starts) {
					end = tt.form.starts[i+1]
				}
				spelled += string(tt.form.text[tt.form.starts[i]:end])
			}
			if !strings.Contains(spelled, strings.Trim(string(must(json.Marshal(s.Text))), `"`)) {
				t.Errorf("%s: %q is not in its tokens %q", name, s.Text, spelled)
			}
		}
		if diff := cmp.Diff(tt.sentences, sentences); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	// "No Finding" gives way.
	none := map[string][]pipeline.Finding{"No Finding": {{Presence: pipeline.Present, Sentences: []int{0}}}}
	for label, p := range map[string]pipeline.Presence{"Edema": pipeline.Present, "Fracture": pipeline.Undetermined, "Support Devices": pipeline.Present} {
		none[label] = []pipeline.Finding{{Presence: p, Sentences: []int{1}}}
		want := map[string]pipeline.Presence{"Edema": pipeline.Absent, "Fracture": pipeline.Undetermined, "Support Devices": pipeline.Present}[label]
		if got := stated(none)[0]; got.Presence != want {
			t.Errorf("beside %s %s No Finding is %s", label, p, got.Presence)
		}
		delete(none, label)
	}
	for _, text := range []string{``, `[]`, `{"findings":[7]}`, `{"findings":[{"label":"Cold","status":"present"}]}`, `{"findings":[{"label":"Edema","status":"yes","sentence":"x"}]}`, `{"findings":[]}`, `{"findings":[{"label":"Ed`} {
		if _, err := m.parse(filled(text)); !errors.Is(err, pipeline.ErrModel) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// A form that is cut off anywhere keeps its whole entries, and still meets the schema.
func TestStructuredCutOff(t *testing.T) {
	m := openForm(t, "zh", nil)
	text := `{"findings":[{"label":"No Finding","status":"not said"}, {"label":"Cardiomegaly","status":"present","side":"none","sentence":"The \"heart\" is large."},{"label":"Lung Opacity","status":"not said"},{"label":"Pleural Effusion","status":"not said"}]}`
	for n := range text {
		entries, err := readEntries([]byte(text[:n]))
		if err == nil {
			t.Fatalf("%q is whole", text[:n])
		}
		s := &pipeline.Structured{Schema: m.task.schema, Report: must(m.completed(entries))}
		if err := meets(t, s); err != nil {
			t.Fatalf("%q: %v", text[:n], err)
		}
		if want := strings.Count(text[:n], "}"); len(entries) != want {
			t.Fatalf("%q has %d entries", text[:n], len(entries))
		}
	}
	if entries, err := readEntries([]byte(text)); err != nil || len(entries) != 4 {
		t.Error(err, entries)
	}
	if meets(t, &pipeline.Structured{Schema: m.task.schema, Report: []byte(`{"findings":[]}`)}) == nil {
		t.Error("the validator takes an empty form")
	}
}

// A bundle may bring its own form.
func TestStructuredOwnSchema(t *testing.T) {
	dir := copyBundle(t)
	own := `{"type":"object","properties":{"findings":{"type":"array","minItems":1,"maxItems":1,"items":{"type":"object","properties":{"label":{"const":"Cardiomegaly"},"status":{"enum":["absent"]},"sentence":{"enum":["The heart is normal."]}},"required":["label","status","sentence"],"additionalProperties":false}}},"required":["findings"],"additionalProperties":false}`
	put(t, dir, "form.json", []byte(own))
	taught := map[string]any{"en": map[string]any{"structured": "<|im_start|>user\n<image>\nFill in.<|im_end|>\n<|im_start|>assistant\n"}}
	relist(t, dir, map[string]any{"structured": map[string]any{"schema": "form.json"}, "decoder/max_length": 512, "prompts": taught})
	o := tinyOptions(t)
	o.Structured = true
	m := must(Open(context.Background(), runtimeFor(t), dir, o))
	defer m.Close()
	r := must(m.Read(context.Background(), tinyValues(t).image()))
	if string(r.Structured.Schema) != own || meets(t, r.Structured) != nil || len(r.Sentences) != 1 || r.Sentences[0].Text != "The heart is normal." {
		t.Errorf("%+v", r)
	}
	put(t, dir, "form.json", []byte(`{"type":"object","patternProperties":{}}`))
	relist(t, dir, map[string]any{"structured": map[string]any{"schema": "form.json"}, "prompts": taught})
	if _, err := Open(context.Background(), runtimeFor(t), dir, o); !errors.Is(err, pipeline.ErrUnsupported) || !strings.Contains(err.Error(), "patternProperties") {
		t.Error(err)
	}
	if _, err := ParseManifest(edited(t, map[string]any{"structured": map[string]any{"schema": "none.json"}})); err == nil || !strings.Contains(err.Error(), `structured.schema: "none.json" is not in files`) {
		t.Error(err)
	}
}
