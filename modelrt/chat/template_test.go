package chat

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"chatxray/pipeline"
)

// update writes testdata/golden.json anew: go test ./modelrt/chat -run TestGolden -args -update
var update = flag.Bool("update", false, "write what jinja2 says into testdata/golden.json")

var now = time.Date(2026, 3, 7, 9, 5, 2, 0, time.UTC)

// outcome is what a rendering gave. Errors are compared as such, not by their words.
type outcome struct {
	Text  string `json:"text"`
	Error string `json:"error,omitempty"`
}

func render(c testCase) outcome {
	t, err := Compile(c.Template)
	if err == nil {
		var text string
		if text, err = t.Render(Input{Messages: c.in, AddGenerationPrompt: c.Add, BOS: c.BOS, EOS: c.EOS, Now: now, Extra: c.Extra}); err == nil {
			return outcome{Text: text}
		}
	}
	return outcome{Error: err.Error()}
}

// askJinja runs testdata/oracle.py.
func askJinja(t *testing.T, cases []testCase) (list []outcome) {
	t.Helper()
	cmd := exec.Command(filepath.Join(tools(t), "bin", "python"), "testdata/oracle.py")
	var in, errs bytes.Buffer
	for _, c := range cases {
		raw, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		in.Write(append(raw, '\n'))
	}
	cmd.Stdin, cmd.Stderr = &in, &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("oracle.py: %v\n%s", err, errs.Bytes())
	}
	s := bufio.NewScanner(bytes.NewReader(out))
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		var o outcome
		if err := json.Unmarshal(s.Bytes(), &o); err != nil {
			t.Fatal(err)
		}
		list = append(list, o)
	}
	if len(list) != len(cases) {
		t.Fatalf("oracle.py answered %d of %d cases", len(list), len(cases))
	}
	return list
}

func tools(t *testing.T) string {
	t.Helper()
	cmd := exec.Command("bash", "scripts/clients.sh", "tokenizers")
	cmd.Dir = filepath.Join("..", "..")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("no jinja2 (scripts/clients.sh tokenizers): %v\n%s", err, errs.Bytes())
	}
	return strings.TrimSpace(string(out))
}

func compare(t *testing.T, cases []testCase, want []outcome) {
	t.Helper()
	for i, c := range cases {
		got := render(c)
		switch {
		case (got.Error == "") != (want[i].Error == ""):
			t.Errorf("%.300q\n of %d messages: %q, %q; jinja2: %q, %q", c.Template, len(c.in), got.Text, got.Error, want[i].Text, want[i].Error)
		case got.Text != want[i].Text:
			t.Errorf("%.300q\n of %d messages:\n got %q\nwant %q", c.Template, len(c.in), got.Text, want[i].Text)
		}
	}
}

func goldenCases(t *testing.T) (cases []testCase) {
	all := templates(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		cases = append(cases, overChats(all[name])...)
	}
	for _, s := range append(slices.Clone(snippets), wrong...) {
		cases = append(cases, overChats(s)[3])
	}
	return cases
}

// TestGolden: templates and expressions give what jinja2 gives, in the environment of transformers' apply_chat_template.
func TestGolden(t *testing.T) {
	cases := goldenCases(t)
	const file = "testdata/golden.json"
	if *update {
		raw, err := json.MarshalIndent(askJinja(t, cases), "", "")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, append(raw, '\n'), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var want []outcome
	if err := json.Unmarshal(raw, &want); err != nil {
		t.Fatal(err)
	}
	if len(want) != len(cases) {
		t.Fatalf("%s is of %d cases, there are %d: run this test with -args -update", file, len(want), len(cases))
	}
	compare(t, cases, want)
}

// TestLive asks jinja2 itself, about the golden cases and about the templates that real models ship.
func TestLive(t *testing.T) {
	dir := tools(t)
	cases := goldenCases(t)
	for _, model := range []string{"gemma3", "llama3", "qwen3"} {
		raw, err := os.ReadFile(filepath.Join(dir, "vocab", model+".config.json"))
		if err != nil {
			t.Fatal(err)
		}
		var config struct {
			Template string `json:"chat_template"`
		}
		if err := json.Unmarshal(raw, &config); err != nil || config.Template == "" {
			t.Fatalf("%s: no chat template, %v", model, err)
		}
		cases = append(cases, overChats(config.Template)...)
	}
	others, err := filepath.Glob(filepath.Join(otherJinja(t), "testdata", "templates", "*.jinja"))
	if err != nil || len(others) < 15 {
		t.Fatalf("templates of another Jinja's tests: %v, %v", others, err)
	}
	for _, name := range others {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		cases = append(cases, overChats(string(raw))...)
	}
	want := askJinja(t, cases)
	compare(t, cases, want)
	rendered, real := 0, (3+len(others))*len(chats)
	for _, o := range want[len(want)-real:] {
		if o.Error == "" {
			rendered++
		}
	}
	t.Logf("real templates: %d of %d chats could be rendered at all", rendered, real)
	if rendered < real/2 {
		t.Error("too few of the real templates' chats could be rendered to show anything")
	}
}

// otherJinja returns the folder of a Go module whose tests hold the templates of models of 2026 (Llama 3.2, Qwen 3 to 3.6, Gemma 4,
// Mistral, GLM and others). Nothing of it is linked.
func otherJinja(t *testing.T) string {
	t.Helper()
	cmd := exec.Command("go", "mod", "download", "-json", "github.com/ardanlabs/jinja@v1.8.0")
	cmd.Dir = t.TempDir()
	out, err := cmd.Output()
	var module struct{ Dir, Error string }
	if json.Unmarshal(out, &module) != nil || err != nil || module.Dir == "" {
		t.Skipf("no templates of other models (go mod download github.com/ardanlabs/jinja@v1.8.0): %v %s", err, module.Error)
	}
	return module.Dir
}

func TestLimits(t *testing.T) {
	for name, source := range map[string]string{
		"a loop in a loop":   "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
		"a growing string":   "{% set ns = namespace(s='x') %}{% for i in range(100) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
		"a growing list":     "{% set ns = namespace(l=[1]) %}{% for i in range(100) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
		"without a loop":     strings.Repeat("{% set s = (s or 'xxxxxxxx') ~ s ~ s %}", 60),
		"a repeated string":  "{{ 'abc' * 100000000000 }}",
		"a repeated list":    "{{ [1, 2] * 100000000000 }}",
		"a long output":      "{% for i in range(100000) %}{{ 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' }}{% endfor %}",
		"a replacement":      "{{ ('a' * 100000).replace('a', 'b' * 100000) }}",
		"joined":             "{{ range(100000) | join('x' * 100000) }}",
		"indented":           "{{ ('\\nx' * 50000) | indent(100) | indent(100) | indent(100) }}",
		"a macro in itself":  "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
		"a list in itself":   "{% set ns = namespace(l=[]) %}{% for i in range(100000) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}",
		"a list of lists":    "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l }}",
		"as JSON":            "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l | tojson(indent=90) }}",
		"compared":           "{% set a = namespace(l=[1], m=[1]) %}{% for i in range(60) %}{% set a.l = [a.l, a.l] %}{% set a.m = [a.m, a.m] %}{% endfor %}{{ a.l == a.m }}",
		"sorted":             "{% for i in range(100) %}{{ range(100000) | map('string') | sort(reverse=true) | length }}{% endfor %}",
		"unique":             "{{ range(100000) | unique | length }}",
		"a captured string":  "{% for i in range(1000) %}{% set x %}{{ 'y' * 500000 }}{% endset %}{% endfor %}",
		"compared strings":   "{% set s = 'y' * 1000000 %}{% set t = 'y' * 1000000 %}{% for i in range(100000) %}{% if s == t %}{% endif %}{% endfor %}",
		"a looked-up string": "{% set s = 'y' * 1000000 %}{% for i in range(100000) %}{% if 'z' in s or s.find('z') > 0 or s is upper %}{% endif %}{% endfor %}",
		"letters":            "{% set s = 'y' * 1000000 %}{% for i in range(1000) %}{% for c in s %}{% endfor %}{% endfor %}",
		"slices":             "{% set s = 'y' * 1000000 %}{% for i in range(1000) %}{{ s[::-1] | length }}{% endfor %}",
	} {
		start := time.Now()
		got := render(testCase{Template: source})
		if got.Error == "" || !strings.Contains(got.Error, "invalid") {
			t.Errorf("%s: %.60q, %q", name, got.Text, got.Error)
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("%s: %v", name, d)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	for source, says := range map[string]string{
		"{% include 'x' %}": "include", "{% import 'x' as y %}": "import", "{% from 'x' import y %}": "from", "{% extends 'x' %}": "extends", "{% block a %}{% endblock %}": "block",
		"{% for x in y recursive %}{% endfor %}": "recursive", "{{ a | nofilter }}": "nofilter", "{{ a is notest }}": "notest", "{{ f(*a) }}": "from a list", "\n\n{% call x() %}{% endcall %}": "line 3",
	} {
		if _, err := Compile(source); !errors.Is(err, pipeline.ErrUnsupported) || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", source, err)
		}
	}
	for _, source := range append(slices.Clone(wrong), "{% raw %}", strings.Repeat("x", maxSource+1), "{{ "+strings.Repeat("(", 200)+"1"+strings.Repeat(")", 200)+" }}", strings.Repeat("{% if 1 %}", 200)+strings.Repeat("{% endif %}", 200), "{{ "+strings.Repeat("not ", 200)+"1 }}") {
		if _, err := Compile(source); !errors.Is(err, pipeline.ErrInvalid) {
			t.Errorf("%.60q: %v", source, err)
		}
	}
}

func TestRenderRefuses(t *testing.T) {
	tmpl, err := Compile("{{ messages[0].content }}")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tmpl.Render(Input{Messages: []Message{{Role: "<|im_end|>", Text: "x"}}}); !errors.Is(err, pipeline.ErrInvalid) {
		t.Errorf("a role that is none: %v", err)
	}
	if _, err := tmpl.Render(Input{Extra: map[string]json.RawMessage{"x": []byte("{")}}); !errors.Is(err, pipeline.ErrInvalid) {
		t.Errorf("a variable that is no JSON: %v", err)
	}
	tmpl, _ = Compile("{{ raise_exception('roles must alternate') }}")
	if _, err := tmpl.Render(Input{}); !errors.Is(err, pipeline.ErrInvalid) || !strings.Contains(err.Error(), "roles must alternate") {
		t.Errorf("raise_exception: %v", err)
	}
}

func FuzzRender(f *testing.F) {
	for _, s := range append(slices.Clone(snippets), wrong...) {
		f.Add(s)
	}
	for _, s := range templates(f) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, source string) {
		tmpl, err := Compile(source)
		if err != nil {
			return
		}
		for _, chat := range chats[3:10] {
			if text, err := tmpl.Render(Input{Messages: chat, AddGenerationPrompt: true, BOS: "<s>", Now: now}); err == nil && len(text) > maxOutput {
				t.Errorf("%d bytes", len(text))
			}
		}
	})
}

func BenchmarkRender(b *testing.B) {
	tmpl, err := Compile(templates(b)["thinking.jinja"])
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := tmpl.Render(Input{Messages: chats[12], AddGenerationPrompt: true, Now: now}); err != nil {
			b.Fatal(err)
		}
	}
}
