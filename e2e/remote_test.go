package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

type object = map[string]any

// remoteBundle writes a bundle of the kind remote for an endpoint and returns its folder.
func remoteBundle(t *testing.T, endpoint object) string {
	t.Helper()
	m := object{"version": 1, "kind": "remote", "name": "elsewhere", "revision": "7", "license": "Apache-2.0", "intended_use": "tests", "training_data": "that of the endpoint's model",
		"languages": []string{"en"}, "remote": endpoint, "generation": object{"max_new_tokens": 160}, "report": object{"impression_prefix": "Impression:"}}
	var base struct {
		Labels     []string
		Preprocess object
	}
	b, err := os.ReadFile(filepath.Join(root, "bundles", "chatxray-base", "manifest.json"))
	if err == nil {
		err = json.Unmarshal(b, &base)
	}
	if err != nil {
		t.Fatal(err)
	}
	m["labels"] = base.Labels
	if endpoint["images"] != 0 {
		for _, key := range []string{"channels", "mean", "std"} {
			delete(base.Preprocess, key)
		}
		m["preprocess"] = base.Preprocess
	}
	if b, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "manifest.json"), b, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// chatxrayAt is the endpoint of a running chatxray with the default bundle.
func chatxrayAt(s *service, evidence string) object {
	return object{"url": s.root + "/v1", "model": "chatxray-base", "images": 1, "prompt": "Write a report of this chest radiograph.", "evidence": evidence}
}

// farReport is a report as report --json prints it, which must be what docs/report.schema.json says.
type farReport struct {
	Reading struct {
		NoEvidence string `json:"no_evidence"`
		Model      struct{ Name, Version, Digest, Served string }
		Sentences  []struct {
			Text, Section string
			Evidence      *struct {
				LogLikelihood float64 `json:"log_likelihood"`
				Decoys        []float64
				Blank, Drop   float64
			}
		}
		Findings []struct{ Label, Presence string }
	}
}

func report(t *testing.T, args ...string) (r farReport, errs string) {
	t.Helper()
	out, errs := chatxray(t, 0, append([]string{"report", "--json"}, args...)...)
	schema, err := jsonschema.NewCompiler().Compile(filepath.Join(root, "docs", "report.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(out))
	if err == nil {
		err = errors.Join(schema.Validate(v), json.Unmarshal([]byte(out), &r))
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return r, errs
}

// A report by a second instance of this program is the local one: the same sentences, findings and evidence. What differs is that the pixels went over
// as 8 bits.
func TestRemoteChatxray(t *testing.T) {
	s := serve(t, t.TempDir())
	file, study := phantom(t)
	local, _ := report(t, file)
	out := t.TempDir()
	far, errs := report(t, "--bundle", remoteBundle(t, chatxrayAt(s, "chatxray")), "--out", out, file)
	if len(far.Reading.Sentences) != len(local.Reading.Sentences) || far.Reading.NoEvidence != "" {
		t.Fatalf("%+v\nwant\n%+v", far, local)
	}
	worst := 0.0
	for i, want := range local.Reading.Sentences {
		got := far.Reading.Sentences[i]
		if got.Text != want.Text || got.Section != want.Section || got.Evidence == nil || len(got.Evidence.Decoys) != len(want.Evidence.Decoys) {
			t.Fatalf("sentence %d is %+v, want %+v", i, got, want)
		}
		for k := range want.Evidence.Decoys {
			worst = max(worst, math.Abs(got.Evidence.Decoys[k]-want.Evidence.Decoys[k]))
		}
		worst = max(worst, math.Abs(got.Evidence.LogLikelihood-want.Evidence.LogLikelihood), math.Abs(got.Evidence.Blank-want.Evidence.Blank), math.Abs(got.Evidence.Drop-want.Evidence.Drop))
	}
	t.Logf("the largest difference of a log-likelihood is %.4f nats", worst)
	if worst > 0.1 {
		t.Errorf("a log-likelihood differs by %.3f nats", worst)
	}
	for i, want := range local.Reading.Findings {
		if far.Reading.Findings[i] != want {
			t.Errorf("%+v, want %+v", far.Reading.Findings[i], want)
		}
	}
	if m := far.Reading.Model; m.Name != "elsewhere" || m.Version != "7" || m.Digest == local.Reading.Model.Digest || !strings.Contains(m.Served, local.Reading.Model.Digest) {
		t.Errorf("the model is %+v", m)
	}
	if !strings.Contains(errs, "the pixels of images") || !strings.Contains(errs, s.root) {
		t.Errorf("it does not say where images go to:\n%s", errs)
	}
	if strings.Contains(s.log.String(), study) {
		t.Error("the endpoint knows the study")
	}
	narrative, err := os.ReadFile(filepath.Join(out, study+".narrative.dcm"))
	if err != nil || !strings.Contains(string(narrative), "The model ran elsewhere; its endpoint calls it: chatxray-base, revision ") {
		t.Error("the narrative does not say where the model ran", err)
	}
	if told, _ := chatxray(t, 0, "doctor", "--bundle", remoteBundle(t, chatxrayAt(s, "chatxray"))); !strings.Contains(told, "serves chatxray-base") {
		t.Errorf("doctor says\n%s", told)
	}
	wrong := chatxrayAt(s, "none")
	wrong["model"] = "another"
	if told, _ := chatxray(t, 7, "doctor", "--bundle", remoteBundle(t, wrong)); !strings.Contains(told, `does not serve the model "another"; it has "chatxray-base"`) {
		t.Errorf("doctor says\n%s", told)
	}
	// Without log-probabilities it is said everywhere.
	bundle := remoteBundle(t, chatxrayAt(s, "none"))
	out = t.TempDir()
	bare, _ := report(t, "--bundle", bundle, "--out", out, file)
	if bare.Reading.NoEvidence == "" || len(bare.Reading.Sentences) != len(local.Reading.Sentences) || bare.Reading.Sentences[0].Evidence != nil {
		t.Errorf("%+v", bare)
	}
	if narrative, err = os.ReadFile(filepath.Join(out, study+".narrative.dcm")); err != nil || strings.Count(string(narrative), "No evidence available: ") != len(bare.Reading.Sentences) {
		t.Error("the narrative does not say so", err)
	}
	if told, _ := chatxray(t, 0, "report", "--bundle", bundle, file); !strings.Contains(told, "No evidence available: the model's endpoint gives no log-probabilities.") || strings.Contains(told, "nats") {
		t.Errorf("the console says\n%s", told)
	}
	if told, _ := chatxray(t, 0, "ask", "--bundle", bundle, file, "Write a report of this chest radiograph."); !strings.Contains(told, local.Reading.Sentences[0].Text) {
		t.Errorf("ask says\n%s", told)
	}
	// Evidence of anything but a report is refused, before a word is written.
	body := `{"model":"chatxray-base","evidence":true,"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAAAAABWESUoAAAAF0lEQVR4nGNgGAWjYBSMglEwCkbBSAcACCAAAf5yYlkAAAAASUVORK5CYII="}},{"type":"text","text":"Why?"}]}]}`
	resp, err := http.Post(s.root+"/v1/chat/completions", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); resp.StatusCode != 400 || !strings.Contains(string(b), "prompt.instruction") {
		t.Errorf("%s %s", resp.Status, b)
	}
}

// A service whose model is elsewhere takes studies while the endpoint is away, and reads them when it is back; chats pass through.
func TestRemoteService(t *testing.T) {
	port := freePort(t)
	at := fmt.Sprintf("127.0.0.1:%d", port)
	endpoint := chatxrayAt(&service{root: "http://" + at}, "chatxray")
	endpoint["attempts"] = 1
	s := serve(t, t.TempDir(), "--bundle", remoteBundle(t, endpoint))
	if !strings.Contains(s.log.String(), "does not say yet what it serves") {
		t.Errorf("the log says\n%s", s.log.String())
	}
	file, study := phantom(t)
	chatxray(t, 0, "send", s.dicomweb(), file)
	var st struct {
		State  string
		Record struct {
			Error   string
			Reading struct {
				Model     struct{ Served string }
				Sentences []struct{ Text string }
			}
		}
	}
	eventually(t, 2*time.Minute, "the study to wait for the endpoint", func() error {
		getJSON(t, s.dicomweb()+"/studies/"+study+"/reading", &st)
		if st.State != "failed" || !strings.Contains(st.Record.Error, "unavailable") {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	client := openai.NewClient(option.WithBaseURL(s.root+"/v1"), option.WithAPIKey("none"), option.WithMaxRetries(0))
	ask := openai.ChatCompletionNewParams{Model: "elsewhere", Messages: []openai.ChatCompletionMessageParamUnion{
		openai.UserMessage([]openai.ChatCompletionContentPartUnionParam{
			openai.ImageContentPart(openai.ChatCompletionContentPartImageImageURLParam{URL: "dicom:" + study}), openai.TextContentPart("Write a report of this chest radiograph.")})}}
	_, err := client.Chat.Completions.New(context.Background(), ask)
	if refused := (*openai.Error)(nil); !errors.As(err, &refused) || refused.StatusCode != 503 || refused.Code != "endpoint_unavailable" || strings.Contains(refused.Message, at) {
		t.Errorf("%v", err)
	}
	back := serve(t, t.TempDir(), "--listen", at)
	eventually(t, 5*time.Minute, "the study to be reported", func() error {
		getJSON(t, s.dicomweb()+"/studies/"+study+"/reading", &st)
		if st.State != "reported" {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	if m := st.Record.Reading; !strings.HasPrefix(m.Model.Served, "chatxray-base, ") || len(m.Sentences) == 0 {
		t.Errorf("%+v", m)
	}
	var whole *openai.ChatCompletion
	eventually(t, time.Minute, "the endpoint to be asked again", func() (err error) { // the breaker may rest
		whole, err = client.Chat.Completions.New(context.Background(), ask)
		return err
	})
	if !strings.Contains(whole.Choices[0].Message.Content, st.Record.Reading.Sentences[0].Text) || whole.Usage.TotalTokens < 40 || whole.Model != "elsewhere" {
		t.Errorf("%+v", whole)
	}
	ask.StreamOptions = openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)}
	stream, collected, pieces := client.Chat.Completions.NewStreaming(context.Background(), ask), openai.ChatCompletionAccumulator{}, 0
	for stream.Next() {
		collected.AddChunk(stream.Current())
		pieces++
	}
	if err := stream.Err(); err != nil || collected.Choices[0].Message.Content != whole.Choices[0].Message.Content || pieces < 10 {
		t.Errorf("%v, %d pieces: %+v", err, pieces, collected.ChatCompletion)
	}
	if strings.Contains(back.log.String(), study) {
		t.Error("the endpoint knows the study")
	}
}

// llamaServer runs llama.cpp's HTTP server with the base model of the default bundle, which knows text only.
func llamaServer(t *testing.T, key string) (url string) {
	t.Helper()
	python := filepath.Join(software(t, "llama"), "bin", "python")
	built(t) // its run-time parts are there
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	models, err := filepath.Glob(filepath.Join(cache, "chatxray", "parts", "smollm2-135m-instruct-gguf", "*", "*.gguf"))
	if err != nil || len(models) == 0 {
		t.Fatal("the base model is not in the cache", err)
	}
	cmd := exec.Command(python, filepath.Join(root, "e2e", "clients", "llama.py"), models[len(models)-1], "smollm2", key)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var log lockedBuffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		killer := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Signal(syscall.SIGKILL) })
		_ = cmd.Wait()
		killer.Stop()
		if t.Failed() {
			t.Logf("llama.cpp:\n%s", log.String())
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("llama.cpp does not start: %v\n%s", err, log.String())
	}
	return strings.TrimSpace(line)
}

// An outside server: chats pass through llama.cpp's own, which is a model of text here; what it does not know is told.
func TestRemoteLlama(t *testing.T) {
	const key = "sesame-0123456789"
	endpoint := object{"url": llamaServer(t, key) + "/v1", "model": "smollm2", "key": "env:LLAMA_KEY", "images": 0, "prompt": "Is anything unclear in this draft?", "evidence": "none"}
	bundle := remoteBundle(t, endpoint)
	t.Setenv("LLAMA_KEY", "wrong-0123456789")
	if told, _ := chatxray(t, 7, "doctor", "--bundle", bundle); !strings.Contains(told, "does not take the key (401") || strings.Contains(told, "wrong-0123456789") {
		t.Errorf("doctor says\n%s", told)
	}
	t.Setenv("LLAMA_KEY", key)
	if told, _ := chatxray(t, 0, "doctor", "--bundle", bundle); !strings.Contains(told, "serves smollm2; it takes no images") {
		t.Errorf("doctor says\n%s", told)
	}
	s := serve(t, t.TempDir(), "--bundle", bundle)
	client := openai.NewClient(option.WithBaseURL(s.root+"/v1"), option.WithAPIKey("none"), option.WithMaxRetries(0))
	ask := openai.ChatCompletionNewParams{Model: "elsewhere", MaxTokens: openai.Int(24), Logprobs: openai.Bool(true),
		Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("Write the words: the heart is normal in size.")}}
	whole, err := client.Chat.Completions.New(context.Background(), ask)
	if err != nil {
		t.Fatal(err)
	}
	c := whole.Choices[0]
	spelled := ""
	for _, k := range c.Logprobs.Content {
		for _, b := range k.Bytes {
			spelled += string([]byte{byte(b)})
		}
		if k.Logprob > 0 {
			t.Errorf("%+v", k)
		}
	}
	if c.Message.Content == "" || spelled != c.Message.Content || whole.Usage.CompletionTokens == 0 || whole.Usage.PromptTokens < 8 {
		t.Errorf("%+v, of tokens that spell %q", whole, spelled)
	}
	stream, text, pieces := client.Chat.Completions.NewStreaming(context.Background(), ask), "", 0
	for stream.Next() {
		for _, c := range stream.Current().Choices {
			text += c.Delta.Content
		}
		pieces++
	}
	if err := stream.Err(); err != nil || text != c.Message.Content || pieces < 8 {
		t.Errorf("%v: %d pieces of %q, want %q", err, pieces, text, c.Message.Content)
	}
	form := ask
	form.ResponseFormat = openai.ChatCompletionNewParamsResponseFormatUnion{OfJSONSchema: &openai.ResponseFormatJSONSchemaParam{
		JSONSchema: openai.ResponseFormatJSONSchemaJSONSchemaParam{Name: "side", Schema: object{"enum": []string{"left", "right"}}}}}
	if a, err := client.Chat.Completions.New(context.Background(), form); err != nil || a.Choices[0].Message.Content != `"left"` && a.Choices[0].Message.Content != `"right"` {
		t.Errorf("%v %+v", err, a)
	}
	// It has 512 places: what is longer is refused by it, and told as it is by our own models.
	long := ask
	long.Messages = []openai.ChatCompletionMessageParamUnion{openai.UserMessage(strings.Repeat("word ", 2000))}
	_, err = client.Chat.Completions.New(context.Background(), long)
	if refused := (*openai.Error)(nil); !errors.As(err, &refused) || refused.StatusCode != 400 || refused.Code != "context_length_exceeded" {
		t.Errorf("%v", err)
	}
	image := ask
	image.Messages = []openai.ChatCompletionMessageParamUnion{openai.UserMessage([]openai.ChatCompletionContentPartUnionParam{
		openai.ImageContentPart(openai.ChatCompletionContentPartImageImageURLParam{URL: "dicom:1.2.3"}), openai.TextContentPart("x")})}
	_, err = client.Chat.Completions.New(context.Background(), image)
	if refused := (*openai.Error)(nil); !errors.As(err, &refused) || refused.StatusCode != 400 || refused.Code != "too_many_images" {
		t.Errorf("%v", err)
	}
	file, _ := phantom(t)
	if _, errs := chatxray(t, 3, "report", "--bundle", bundle, file); !strings.Contains(errs, "takes no images") {
		t.Errorf("report says\n%s", errs)
	}
}
