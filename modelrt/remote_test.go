package modelrt

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chatxray/pipeline"
)

// remoteManifest is a manifest of the kind remote with keys changed as changed does.
func remoteManifest(t testing.TB, url string, changes map[string]any) []byte {
	t.Helper()
	m := fmt.Sprintf(`{"version":1,"kind":"remote","name":"far","revision":"2","license":"x","intended_use":"x","training_data":"x","languages":["en","de"],
		"preprocess":{"width":32,"height":24,"fit":"keep","interpolation":"box","voi":"default"},
		"remote":{"url":%q,"model":"m","images":2,"prompt":"Write.","system":"You are a radiologist.","evidence":"none","attempts":1},
		"generation":{"max_new_tokens":40,"stop_strings":["END"]},"report":{"impression_prefix":"Impression:"},"labels":["Edema"]}`, url)
	return changed(t, []byte(m), changes)
}

// elsewhere is a bundle of the kind remote whose endpoint a test plays: it serves the model m and answers chats by h.
func elsewhere(t *testing.T, h func(w http.ResponseWriter, body map[string]any), changes map[string]any, files map[string][]byte) *Remote {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/models" {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"data":[{"id":"m","root":"org/m-4b"}]}`)
			return
		}
		var body map[string]any
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		h(w, body)
	}))
	t.Cleanup(s.Close)
	if changes == nil {
		changes = map[string]any{}
	}
	listed := map[string]any{}
	dir := t.TempDir()
	for name, b := range files {
		listed[name] = map[string]any{"bytes": len(b), "sha256": fmt.Sprintf("%x", sha256.Sum256(b))}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	changes["files"] = listed
	if err := os.WriteFile(filepath.Join(dir, manifestName), remoteManifest(t, s.URL+"/v1", changes), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := OpenRemote(dir, Options{Label: notSaid, Now: fixed})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// says streams an answer in pieces.
func says(w http.ResponseWriter, pieces ...string) {
	w.Header().Set("Content-Type", "text/event-stream")
	for _, p := range pieces {
		b, _ := json.Marshal(map[string]any{"system_fingerprint": "fp1", "choices": []any{map[string]any{"delta": map[string]any{"content": p}}}})
		fmt.Fprintf(w, "data: %s\n\n", b)
	}
	fmt.Fprint(w, `data: {"choices":[{"delta":{},"finish_reason":"stop"}]}`+"\n\ndata: [DONE]\n\n")
}

func film() *pipeline.Image {
	gray := make([]uint8, 48*64)
	for i := range gray {
		gray[i] = uint8(i % 251)
	}
	return picture(gray, 48, 64)
}

// Of an image its picture leaves, as Preview shows it, with the words of the manifest; nothing of its header.
func TestRemoteSends(t *testing.T) {
	var body map[string]any
	r := elsewhere(t, func(w http.ResponseWriter, b map[string]any) {
		body = b
		says(w, "The heart is normal. ", "Impression: Normal.")
	}, nil, nil)
	img := film()
	reading, err := r.Read(t.Context(), img)
	if err != nil {
		t.Fatal(err)
	}
	shown, err := r.Preview(img)
	if err != nil {
		t.Fatal(err)
	}
	p, err := png.Decode(bytes.NewReader(shown))
	if err != nil || p.Bounds() != image.Rect(0, 0, 32, 24) {
		t.Errorf("%v %v", err, p.Bounds())
	}
	got, _ := json.Marshal(body)
	want, _ := json.Marshal(map[string]any{"model": "m", "max_tokens": 40, "temperature": 0, "stop": []string{"END"}, "stream": true, "stream_options": map[string]any{"include_usage": true},
		"messages": []any{map[string]any{"role": "system", "content": "You are a radiologist."}, map[string]any{"role": "user", "content": []any{
			map[string]any{"type": "image_url", "image_url": map[string]any{"url": "data:image/png;base64," + base64.StdEncoding.EncodeToString(shown)}},
			map[string]any{"type": "text", "text": "Write."}}}}})
	if !bytes.Equal(got, want) {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if m := reading.Model; m.Name != "far" || m.Version != "2" || m.Served != "m, root org/m-4b, fingerprint fp1" || m.Digest == r.bundle.Digest || m.Digest != r.Ref().Digest {
		t.Errorf("%+v", m)
	}
	if len(reading.Sentences) != 2 || reading.Sentences[1].Section != pipeline.SectionImpression || reading.NoEvidence == "" || reading.Sentences[0].Tokens != 0 || len(reading.Findings) != len(pipeline.Labels) {
		t.Errorf("%+v", reading)
	}
	b, err := json.Marshal(reading.Sentences[0])
	if err != nil || strings.Contains(string(b), "evidence") {
		t.Errorf("%s", b)
	}
}

// What the endpoint writes may not leave where it is in another script, no sentence, or nothing at all; a view that nobody can tell is not sent.
func TestRemoteRefuses(t *testing.T) {
	text := ""
	asked := 0
	r := elsewhere(t, func(w http.ResponseWriter, _ map[string]any) { asked++; says(w, "The heart is ", text) }, nil, nil)
	for said, want := range map[string]error{"normal.": nil, "正常。": pipeline.ErrModel, "normal\u200b.": pipeline.ErrModel, "\ufffd": pipeline.ErrModel} {
		text = said
		reading, err := r.Read(t.Context(), film())
		if !errors.Is(err, want) || (err == nil) != (reading != nil) {
			t.Errorf("%q: %v", said, err)
		}
		if err != nil && strings.Contains(err.Error(), "heart") {
			t.Errorf("the error tells the text: %v", err)
		}
	}
	asked = 0
	img := film()
	img.ViewUnknown = true
	if _, err := r.Read(t.Context(), img); !errors.As(err, &pipeline.Refusal{}) || asked != 0 {
		t.Errorf("%v, asked %d times", err, asked)
	}
	if _, err := OpenRemote(r.bundle.Dir, Options{Structured: true, Label: r.label, Now: r.now}); !errors.Is(err, pipeline.ErrUnsupported) {
		t.Errorf("a form: %v", err)
	}
	empty := elsewhere(t, func(w http.ResponseWriter, _ map[string]any) { says(w, " \n") }, nil, nil)
	if _, err := empty.Read(t.Context(), film()); !errors.Is(err, pipeline.ErrModel) {
		t.Error(err)
	}
	text = elsewhere(t, func(http.ResponseWriter, map[string]any) {}, map[string]any{"preprocess": nil, "remote/images": 0}, nil).bundle.Manifest.Name
	if text != "far" {
		t.Error(text)
	}
}

// A chat passes through with its images and its history; what the language does not allow ends it before it is handed on.
func TestRemoteChat(t *testing.T) {
	var body map[string]any
	answer := []string{"Links ", "ein Erguss."}
	r := elsewhere(t, func(w http.ResponseWriter, b map[string]any) { body = b; says(w, answer...) }, nil, nil)
	loaded := 0
	img := &pipeline.ChatImage{Name: "i", Content: pipeline.Digest{1}, Load: func(context.Context) (*pipeline.Image, error) { loaded++; return film(), nil }}
	ask := pipeline.ChatRequest{Language: "de", Sampling: pipeline.DefaultSampling(), Messages: []pipeline.ChatMessage{
		{Role: pipeline.RoleUser, Parts: []pipeline.ChatPart{{Image: img}, {Text: "Q1"}}}, {Role: pipeline.RoleAssistant, Parts: []pipeline.ChatPart{{Text: "A1"}}},
		{Role: pipeline.RoleUser, Parts: []pipeline.ChatPart{{Text: "Q2"}}}}}
	emitted := ""
	take := func(p pipeline.ChatPiece) error { emitted += p.Text; return nil }
	for range 2 {
		emitted = ""
		a, err := r.Chat(t.Context(), ask, take)
		if err != nil || a.Text != "Links ein Erguss." || emitted != a.Text || a.Language != "de" || len(a.Inputs) != 1 || a.Inputs[0].SOPInstanceUID != "2.25.3" || a.End != pipeline.EndStop {
			t.Errorf("%v %+v %q", err, a, emitted)
		}
	}
	if n := len(body["messages"].([]any)); n != 3 || loaded != 1 || body["max_tokens"] != 40.0 || body["language"] != nil {
		t.Errorf("%d messages, decoded %d times: %v", n, loaded, body["language"])
	}
	answer, emitted = []string{"Links ", "胸水"}, ""
	if _, err := r.Chat(t.Context(), ask, take); !errors.Is(err, pipeline.ErrModel) || emitted != "Links " {
		t.Errorf("%v %q", err, emitted)
	}
	answer = []string{"{not JSON"}
	form := ask
	form.Schema = json.RawMessage(`{"type":"object"}`)
	if _, err := r.Chat(t.Context(), form, nil); !errors.Is(err, pipeline.ErrModel) {
		t.Error(err)
	}
	for param, change := range map[string]func(*pipeline.ChatRequest){
		"language": func(q *pipeline.ChatRequest) { q.Language = "zh" },
		"evidence": func(q *pipeline.ChatRequest) { q.Evidence = true },
		"stop":     func(q *pipeline.ChatRequest) { q.Stop = []string{""} },
		"messages": func(q *pipeline.ChatRequest) {
			q.Messages = []pipeline.ChatMessage{{Role: pipeline.RoleUser, Parts: []pipeline.ChatPart{{Image: img}, {Image: img}, {Image: img}}}}
		},
	} {
		q := ask
		change(&q)
		_, err := r.Chat(t.Context(), q, nil)
		if about := (*pipeline.ChatError)(nil); !errors.As(err, &about) || about.Param != param {
			t.Errorf("%s: %v", param, err)
		}
	}
	answer = []string{"Unclear."}
	for language, want := range map[string]string{"": "de", "DE": "de", "EN": "en"} { // that of the reports, unless another is asked for
		q := ask
		q.Language, r.language = language, "de"
		if a, err := r.Chat(t.Context(), q, nil); err != nil || a.Language != want {
			t.Errorf("%q: %+v %v", language, a, err)
		}
	}
	if a, err := r.Opinion(t.Context(), "The draft.", ""); err != nil || a.Text != "Unclear." || fmt.Sprint(body["messages"]) != "[map[content:Write.\nThe draft. role:user]]" {
		t.Errorf("%v %v", err, body["messages"])
	}
}

// Evidence by prompt_logprobs: the report's own text after the picture, the decoys and a black picture, summed up by sentence.
func TestRemotePromptEvidence(t *testing.T) {
	decoy := func(v uint8) []byte {
		g := image.NewGray(image.Rect(0, 0, 32, 24))
		g.Pix[0] = v
		var b bytes.Buffer
		if err := png.Encode(&b, g); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	picture := ""
	tokens := []string{"The", " heart", " is normal", ".", " Impression", ":", " Normal", "."}
	handler := func(w http.ResponseWriter, body map[string]any) {
		messages := body["messages"].([]any)
		url := messages[1].(map[string]any)["content"].([]any)[0].(map[string]any)["image_url"].(map[string]any)["url"].(string)
		if body["prompt_logprobs"] == nil {
			picture = url
			says(w, "The heart is normal. ", "Impression: Normal.")
			return
		}
		each := map[string]float64{picture: -1, "data:image/png;base64," + base64.StdEncoding.EncodeToString(decoy(1)): -2,
			"data:image/png;base64," + base64.StdEncoding.EncodeToString(decoy(2)): -4}[url]
		if each == 0 {
			b, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(url, "data:image/png;base64,"))
			p, err := png.Decode(bytes.NewReader(b))
			if err != nil || p.Bounds() != image.Rect(0, 0, 32, 24) || bytes.Count(p.(*image.Gray).Pix, []byte{0}) != 32*24 {
				t.Error("the last picture is not black", err)
			}
			each = -8
		}
		list := []any{nil, map[string]any{"1": map[string]any{"logprob": -99, "decoded_token": "Write."}}}
		for _, s := range tokens {
			list = append(list, map[string]any{"5": map[string]any{"logprob": each, "decoded_token": s}})
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"prompt_logprobs": list})
	}
	r := elsewhere(t, handler, map[string]any{"remote/evidence": "prompt_logprobs", "remote/decoys": []string{"a.png", "b.png"}}, map[string][]byte{"a.png": decoy(1), "b.png": decoy(2)})
	reading, err := r.Read(t.Context(), film())
	if err != nil {
		t.Fatal(err)
	}
	want := []pipeline.Evidence{{LogLikelihood: -4, Decoys: []float64{-8, -16}, Blank: -32, Drop: 8, Rank: 1}, {LogLikelihood: -2, Decoys: []float64{-4, -8}, Blank: -16, Drop: 4, Rank: 2}}
	for i, s := range reading.Sentences {
		if fmt.Sprint(s.Evidence) != fmt.Sprint(want[i]) {
			t.Errorf("%q: %+v, want %+v", s.Text, s.Evidence, want[i])
		}
	}
	if reading.NoEvidence != "" || len(reading.Sentences) != 2 || reading.Sentences[1].FirstToken != 6 {
		t.Errorf("%+v", reading)
	}
	tokens = []string{"another text"}
	if reading, err = r.Read(t.Context(), film()); err != nil || reading.NoEvidence == "" || len(reading.Sentences[0].Evidence.Decoys) != 0 {
		t.Errorf("%v %+v", err, reading)
	}
}

// What another chatxray tells must fit its report.
func TestRemoteOwnEvidence(t *testing.T) {
	good := map[string]any{"decoys": [][]float64{{-2, -2}, {-4, -4}}, "blank": []float64{-3, -3}}
	e := good
	r := elsewhere(t, func(w http.ResponseWriter, body map[string]any) {
		if body["evidence"] != true || body["logprobs"] != true || body["language"] != "en" {
			t.Errorf("%v", body)
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for _, v := range []any{
			map[string]any{"choices": []any{map[string]any{"delta": map[string]any{"content": "Clear. Normal."}, "logprobs": map[string]any{"content": []any{
				map[string]any{"token": "Clear.", "logprob": -0.5}, map[string]any{"token": " Normal.", "logprob": -1}}}}}},
			map[string]any{"choices": []any{map[string]any{"delta": map[string]any{}, "finish_reason": "stop"}}, "chatxray": map[string]any{"evidence": e}}} {
			b, _ := json.Marshal(v)
			fmt.Fprintf(w, "data: %s\n\n", b)
		}
		fmt.Fprint(w, "data: [DONE]\n\n")
	}, map[string]any{"remote/evidence": "chatxray"}, nil)
	reading, err := r.Read(t.Context(), film())
	if err != nil || reading.NoEvidence != "" || math.Abs(reading.Sentences[1].Evidence.Drop-2) > 1e-9 || reading.Sentences[0].Evidence.LogLikelihood != -0.5 {
		t.Errorf("%v %+v", err, reading)
	}
	for name, bad := range map[string]map[string]any{
		"none":      nil,
		"no decoys": {"decoys": [][]float64{}, "blank": []float64{-3, -3}},
		"short":     {"decoys": [][]float64{{-2}}, "blank": []float64{-3, -3}},
		"positive":  {"decoys": [][]float64{{-2, 2}}, "blank": []float64{-3, -3}},
		"no blank":  {"decoys": [][]float64{{-2, -2}}},
	} {
		e = bad
		if reading, err := r.Read(t.Context(), film()); err != nil || reading.NoEvidence == "" || len(reading.Sentences) != 2 || len(reading.Sentences[0].Evidence.Decoys) > 0 {
			t.Errorf("%s: %v %+v", name, err, reading)
		}
	}
}

// What is about weights or features is refused in words for a model elsewhere.
func TestRemoteHasNoModel(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, manifestName, remoteManifest(t, "http://127.0.0.1/v1", nil))
	b := must(Verify(dir))
	_, digest := b.BaseDigest()
	_, quantized := Quantize(context.Background(), b, BaseModel{}, "", "q4", filepath.Join(dir, "out"))
	for what, err := range map[string]error{"base digest": digest, "quantise": quantized, "heat": b.Manifest.CanHeat()} {
		if !errors.Is(err, pipeline.ErrUnsupported) || !strings.Contains(err.Error(), "elsewhere") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if b.WeightsBytes() != 0 || b.Manifest.CanRead() != nil {
		t.Error(b.WeightsBytes(), b.Manifest.CanRead())
	}
}

func TestRemoteManifest(t *testing.T) {
	m, err := ParseManifest(remoteManifest(t, "https://h/v1", nil))
	if err != nil || m.Kind != KindRemote || m.Preprocess.Channels != 1 {
		t.Fatalf("%v %+v", err, m)
	}
	for want, change := range map[string]map[string]any{
		"graphs: is for models that run here":       {"graphs": map[string]any{"vision": "v.onnx"}},
		"decoder: is for models that run here":      {"decoder": map[string]any{"layers": 2}},
		"remote: is missing":                        {"remote": nil},
		"remote.url: images would cross":            {"remote/url": "http://h/v1"},
		"unknown key remote.temperature":            {"remote/temperature": 1},
		"preprocess: is about images":               {"remote/images": 0},
		`languages: language "tlh"`:                 {"languages": []string{"tlh"}},
		"labels: is empty":                          {"labels": []string{}},
		"generation.max_new_tokens: 0":              {"generation/max_new_tokens": 0},
		`remote.decoys: "a.png" is not in files`:    {"remote/evidence": "prompt_logprobs", "remote/decoys": []string{"a.png"}},
		`files: "../x" is no file`:                  {"files": map[string]any{"../x": map[string]any{"bytes": 1, "sha256": strings.Repeat("0", 64)}}},
		`kind: "local" is not known`:                {"kind": "local", "remote": nil},
		"remote: is for bundles of the kind remote": {"kind": ""},
	} {
		if _, err := ParseManifest(remoteManifest(t, "https://h/v1", change)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	if _, err := Open(t.Context(), nil, writeManifest(t, remoteManifest(t, "https://h/v1", nil)), tinyOptions(t)); !errors.Is(err, pipeline.ErrUnsupported) {
		t.Error(err)
	}
	if _, err := OpenRemote("testdata/tiny", Options{Label: notSaid, Now: fixed}); !errors.Is(err, pipeline.ErrUnsupported) {
		t.Error(err)
	}
	bad := remoteManifest(t, "https://h/v1", map[string]any{"remote/evidence": "prompt_logprobs", "remote/decoys": []string{"a.png"},
		"files": map[string]any{"a.png": map[string]any{"bytes": 1, "sha256": fmt.Sprintf("%x", sha256.Sum256([]byte("x")))}}})
	dir := writeManifest(t, bad)
	if err := os.WriteFile(filepath.Join(dir, "a.png"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(dir); !errors.Is(err, pipeline.ErrInvalid) || !strings.Contains(err.Error(), "a.png is no PNG file of up to 32×24 pixels") {
		t.Error(err)
	}
}

func writeManifest(t testing.TB, b []byte) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, manifestName), b, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}
