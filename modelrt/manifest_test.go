package modelrt

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"chatxray/pipeline"
)

func tinyManifest(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/tiny/manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// edited is the tiny manifest with keys set ("decoder.layers": 3) or, where the value is nil, removed.
func edited(t testing.TB, changes map[string]any) []byte { return changed(t, tinyManifest(t), changes) }

func changed(t testing.TB, manifest []byte, changes map[string]any) []byte {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(manifest, &m); err != nil {
		t.Fatal(err)
	}
	for path, v := range changes {
		at, keys := m, strings.Split(path, "/") // ~1 is a slash within a key
		for i, k := range keys {
			keys[i] = strings.ReplaceAll(k, "~1", "/")
		}
		for _, k := range keys[:len(keys)-1] {
			at = at[k].(map[string]any)
		}
		if at[keys[len(keys)-1]] = v; v == nil {
			delete(at, keys[len(keys)-1])
		}
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseManifest(t *testing.T) {
	m, err := ParseManifest(tinyManifest(t))
	if err != nil {
		t.Fatal(err)
	}
	if m.Name != "tiny" || m.Decoder.Layers != 2 || m.Preprocess.Width != 32 || m.Files["vision.onnx"].Bytes == 0 || m.Patients.MinAgeYears != 0 {
		t.Errorf("%+v", m)
	}
	m, err = ParseManifest(edited(t, map[string]any{"patients": map[string]any{"min_age_years": 18}}))
	if err != nil || m.Patients.MinAgeYears != 18 {
		t.Errorf("%v %+v", err, m)
	}
}

func TestParseManifestFaults(t *testing.T) {
	tests := []struct {
		name     string
		changes  map[string]any
		sentinel error
		want     []string // parts of the message
	}{
		{"unknown keys, two of them", map[string]any{"decoder/layer": 3, "colour": "red"}, pipeline.ErrInvalid, []string{"unknown key decoder.layer", "unknown key colour"}},
		{"a key in capitals", map[string]any{"Name": "x"}, pipeline.ErrInvalid, []string{"unknown key Name"}},
		{"a key within a list of files", map[string]any{"files/vision.onnx/mode": 1}, pipeline.ErrInvalid, []string{"unknown key files.vision.onnx.mode"}},
		{"another version", map[string]any{"version": 2}, pipeline.ErrUnsupported, []string{"version 2", "reads version 1"}},
		{"no name", map[string]any{"name": nil, "license": " "}, pipeline.ErrInvalid, []string{"name: is empty", "license: is empty"}},
		{"a wrong type", map[string]any{"decoder/layers": "two"}, pipeline.ErrInvalid, []string{"layers"}},
		{"a fraction", map[string]any{"decoder/layers": 2.5}, pipeline.ErrInvalid, []string{"layers"}},
		{"layers out of range", map[string]any{"decoder/layers": 0, "decoder/vocab": 1 << 30}, pipeline.ErrInvalid, []string{"decoder.layers: 0", "decoder.vocab: 1073741824"}},
		{"heads", map[string]any{"decoder/heads": 3}, pipeline.ErrInvalid, []string{"decoder.heads: 3 is no multiple of kv_heads 2"}},
		{"tensors that no machine holds", map[string]any{"decoder/kv_heads": 4, "decoder/head_dim": 65536, "decoder/max_length": 65536, "decoder/hidden": 65536}, pipeline.ErrInvalid, []string{"decoder.hidden: the embeddings of a prompt would be larger", "decoder.max_length: the KV cache would be larger"}},
		{"positions", map[string]any{"decoder/positions": "mrope-3d"}, pipeline.ErrUnsupported, []string{"decoder.positions", "mrope-3d", "rope-1d"}},
		{"mask", map[string]any{"decoder/mask": "prefix"}, pipeline.ErrUnsupported, []string{"decoder.mask"}},
		{"no form", map[string]any{"base/forms": []any{}}, pipeline.ErrInvalid, []string{"base.forms: 0 forms"}},
		{"kind of a form", map[string]any{"base/forms": []any{map[string]any{"name": "x", "kind": "paged"}}}, pipeline.ErrUnsupported, []string{`base.forms x: kind: "paged"`, "flat, gqa", "x: layout: names no file"}},
		{"tokenizer", map[string]any{"tokenizer/type": "sentencepiece"}, pipeline.ErrUnsupported, []string{"tokenizer.type"}},
		{"splice", map[string]any{"prompt/splice": "prepend", "prompt/sentinel": ""}, pipeline.ErrUnsupported, []string{"prompt.splice"}},
		{"fit", map[string]any{"preprocess/fit": "keep"}, pipeline.ErrUnsupported, []string{"preprocess.fit"}},
		{"preprocess", map[string]any{"preprocess/width": 0, "preprocess/std": []float64{0}}, pipeline.ErrInvalid, []string{"preprocess.width", "preprocess.std"}},
		{"no sentinel", map[string]any{"prompt/template": "hello", "prompt/instruction": ""}, pipeline.ErrInvalid, []string{"prompt.template: holds the sentinel 0 times"}},
		{"two sentinels", map[string]any{"prompt/template": "a <image> b <image>", "prompt/instruction": ""}, pipeline.ErrInvalid, []string{"2 times"}},
		{"two prompts of a report", map[string]any{"prompt/template": "a <image> b"}, pipeline.ErrInvalid, []string{"prompt.instruction: stands beside prompt.template"}},
		{"an instruction alone", map[string]any{"prompt/chat_template": ""}, pipeline.ErrInvalid, []string{"prompt.instruction: needs prompt.chat_template"}},
		{"a chat template that is no file", map[string]any{"prompt/chat_template": "x.jinja"}, pipeline.ErrInvalid, []string{`prompt.chat_template: "x.jinja" is not in files`}},
		{"images", map[string]any{"prompt/images": 65}, pipeline.ErrInvalid, []string{"prompt.images: 65"}},
		{"a path out of the folder", map[string]any{"files/..~secret": nil, "files": map[string]any{"../x": map[string]any{"sha256": strings.Repeat("0", 64), "bytes": 1}}}, pipeline.ErrInvalid, []string{`"../x" is no file of the folder`, `graphs.vision: "vision.onnx" is not in files`}},
		{"an absolute path", map[string]any{"files": map[string]any{"/etc/passwd": map[string]any{"sha256": strings.Repeat("0", 64), "bytes": 1}}}, pipeline.ErrInvalid, []string{`"/etc/passwd" is no file`}},
		{"a short sha256", map[string]any{"files/vision.onnx/sha256": "abc"}, pipeline.ErrInvalid, []string{"64 hexadecimal digits"}},
		{"weights' sha256", map[string]any{"base/weights_sha256": "abc"}, pipeline.ErrInvalid, []string{"base.weights_sha256"}},
		{"a graph that is not named", map[string]any{"files/more.onnx": map[string]any{"sha256": strings.Repeat("0", 64), "bytes": 1}}, pipeline.ErrInvalid, []string{`"more.onnx" is a graph that graphs does not name`}},
		{"the same graph twice", map[string]any{"graphs/vision": "decoder.q4.onnx"}, pipeline.ErrInvalid, []string{"is the same file as"}},
		{"a graph missing", map[string]any{"graphs/adapter": ""}, pipeline.ErrInvalid, []string{"graphs.adapter: names no file"}},
		{"no stop token", map[string]any{"generation/stop_tokens": []string{}}, pipeline.ErrInvalid, []string{"stop_tokens: is empty"}},
		{"an empty stop string", map[string]any{"generation/stop_strings": []string{""}}, pipeline.ErrInvalid, []string{"stop_strings"}},
		{"a label of no list", map[string]any{"labels": []string{"Cold", "Edema", "Edema"}}, pipeline.ErrInvalid, []string{`labels: "Cold" is none of the closed list`, `"Edema" stands there twice`}},
		{"thresholds", map[string]any{"vision/thresholds": []float64{0.5, 1}}, pipeline.ErrInvalid, []string{"2 values for 3 findings", "1 is not between 0 and 1"}},
		{"views", map[string]any{"vision/views": []string{"lateral"}}, pipeline.ErrInvalid, []string{"vision.views: 1 views"}},
		{"a view twice", map[string]any{"vision/views": []string{"frontal", "frontal", ""}}, pipeline.ErrInvalid, []string{`vision.views: "frontal"`, `vision.views: ""`}},
		{"an age", map[string]any{"patients": map[string]any{"min_age_years": -1, "max_age_years": 90}}, pipeline.ErrInvalid, []string{"patients.min_age_years: -1", "unknown key patients.max_age_years"}},
		{"an age that nobody has", map[string]any{"patients": map[string]any{"min_age_years": 121}}, pipeline.ErrInvalid, []string{"patients.min_age_years: 121"}},
		{"an age with a fraction", map[string]any{"patients": map[string]any{"min_age_years": 17.5}}, pipeline.ErrInvalid, []string{"min_age_years"}},
		{"no language", map[string]any{"languages": nil}, pipeline.ErrInvalid, []string{"languages: is empty"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			delete(tt.changes, "files/..~secret")
			_, err := ParseManifest(edited(t, tt.changes))
			if !errors.Is(err, tt.sentinel) {
				t.Fatalf("%v, want it to wrap %q", err, tt.sentinel)
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not say %q", err, w)
				}
			}
		})
	}
}

func TestParseManifestSyntax(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":     "",
		"no object":   "[]",
		"two objects": string(tinyManifest(t)) + "{}",
		"a key twice": strings.Replace(string(tinyManifest(t)), `"name": "tiny"`, `"name": "tiny", "name": "tiny"`, 1),
		"too large":   strings.Repeat(" ", maxManifest+1),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ParseManifest([]byte(text)); !errors.Is(err, pipeline.ErrInvalid) && !errors.Is(err, pipeline.ErrUnsupported) {
				t.Errorf("%v", err)
			}
		})
	}
}

func FuzzParseManifest(f *testing.F) {
	f.Add(tinyManifest(f))
	f.Add([]byte(`{"version":1,"files":{"..":{}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := ParseManifest(b); (m == nil) == (err == nil) {
			t.Errorf("%v, %v", m, err)
		}
	})
}
