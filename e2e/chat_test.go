package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

const reader = "reader-0123456789"

// talkative is a service with one study, whose token may store and read.
func talkative(t *testing.T) (s *service, study string) {
	t.Helper()
	config := configured(t, "dicomweb:\n  auth:\n    tokens: [{name: ada, token: "+reader+", roles: [store, read]}]\n")
	s = serve(t, t.TempDir(), "--config", config)
	file, study := phantom(t)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequest(http.MethodPost, s.dicomweb()+"/studies", strings.NewReader(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+reader)
	r.Header.Set("Content-Type", "application/dicom")
	answered(t, r)
	return s, study
}

// PyPI's openai does what clients do with a running service.
func TestOpenAIPython(t *testing.T) {
	s, study := talkative(t)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, filepath.Join(software(t, "openai"), "bin", "python"), filepath.Join(root, "e2e", "clients", "chat.py"), s.root+"/v1", reader, study)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("%v\n%s", err, errs.String())
	}
	var done []string
	for _, l := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		var line struct{ Operation, Error string }
		if err := json.Unmarshal([]byte(l), &line); err != nil {
			t.Fatalf("%v in %q", err, l)
		}
		done = append(done, line.Operation)
		t.Run(line.Operation, func(t *testing.T) {
			if line.Error != "" {
				t.Error(line.Error)
			}
		})
	}
	want := []string{"models", "answer about a reference", "answer about a picture", "stream", "second turn", "seeds", "stop strings", "logprobs", "structured output", "errors"}
	if !slices.Equal(done, want) {
		t.Errorf("done are %q", done)
	}
	// What was said about the study is kept with it, and nothing of it is in the log.
	var kept struct {
		Conversations []struct {
			Author   string
			Messages []struct {
				Role, Text string
				Answer     *struct {
					Draft bool
					Model struct{ Digest string }
				}
			}
		}
	}
	if err := json.Unmarshal(asked(t, s.dicomweb()+"/studies/"+study+"/conversations"), &kept); err != nil || len(kept.Conversations) < 10 {
		t.Fatal(err, len(kept.Conversations))
	}
	turns := 0
	for _, k := range kept.Conversations {
		last := k.Messages[len(k.Messages)-1]
		if k.Author != "token:ada" || last.Answer == nil || !last.Answer.Draft || len(last.Answer.Model.Digest) != 64 {
			t.Errorf("%+v", k)
		}
		turns = max(turns, len(k.Messages))
	}
	if turns != 4 {
		t.Errorf("the longest conversation has %d messages", turns)
	}
	if log := s.log.String(); strings.Contains(log, "enlarged") || strings.Contains(log, "frobnicate") {
		t.Error("the log has what was said")
	}
}

func asked(t *testing.T, url string) []byte {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+reader)
	return answered(t, r)
}

// openai-go asks, streams, is refused, and goes away in the middle of an answer.
func TestOpenAIGo(t *testing.T) {
	s, study := talkative(t)
	ctx := context.Background()
	client := openai.NewClient(option.WithBaseURL(s.root+"/v1"), option.WithAPIKey(reader), option.WithMaxRetries(0))
	models, err := client.Models.List(ctx)
	if err != nil || len(models.Data) != 1 {
		t.Fatal(err)
	}
	request := func(url, text string) openai.ChatCompletionNewParams {
		return openai.ChatCompletionNewParams{Model: models.Data[0].ID, Messages: []openai.ChatCompletionMessageParamUnion{
			openai.UserMessage([]openai.ChatCompletionContentPartUnionParam{
				openai.ImageContentPart(openai.ChatCompletionContentPartImageImageURLParam{URL: url}), openai.TextContentPart(text)})}}
	}
	ask := request("dicom:"+study, "Write a report of this chest radiograph.")
	whole, err := client.Chat.Completions.New(ctx, ask)
	if err != nil || !strings.Contains(whole.Choices[0].Message.Content, "heart") || whole.Usage.TotalTokens < 40 {
		t.Fatalf("%v %+v", err, whole)
	}
	ask.StreamOptions = openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)}
	stream, collected := client.Chat.Completions.NewStreaming(ctx, ask), openai.ChatCompletionAccumulator{}
	for stream.Next() {
		if !collected.AddChunk(stream.Current()) {
			t.Errorf("a piece does not fit: %+v", stream.Current())
		}
	}
	if err := stream.Err(); err != nil || collected.Choices[0].Message.Content != whole.Choices[0].Message.Content || collected.Choices[0].FinishReason != "stop" ||
		collected.Usage.CompletionTokens != whole.Usage.CompletionTokens || collected.Usage.PromptTokensDetails.CachedTokens == 0 {
		t.Errorf("%v %+v, want %+v", err, collected.ChatCompletion, whole)
	}
	two := ask
	two.StreamOptions = openai.ChatCompletionStreamOptionsParam{}
	two.Messages = append(slices.Clone(ask.Messages), whole.Choices[0].Message.ToParam(), openai.UserMessage("Is the heart enlarged?"))
	if a, err := client.Chat.Completions.New(ctx, two); err != nil || a.Usage.PromptTokensDetails.CachedTokens < whole.Usage.PromptTokens {
		t.Errorf("%v %+v", err, a)
	}
	_, err = client.Chat.Completions.New(ctx, request("https://example.org/x.png", "x"))
	if refused := (*openai.Error)(nil); !errors.As(err, &refused) || refused.StatusCode != 400 || refused.Type != "invalid_request_error" || refused.Param != "messages[0].content[0].image_url.url" {
		t.Errorf("%v", err)
	}
	going, leave := context.WithCancel(ctx)
	leaving := client.Chat.Completions.NewStreaming(going, request("dicom:"+study, "Describe all that you see."))
	for range 2 {
		if !leaving.Next() {
			t.Error(leaving.Err())
		}
	}
	leave()
	leaving.Close()
	eventually(t, 2*time.Second, "the slot to be free", func() error {
		for _, l := range strings.Split(string(asked(t, s.root+"/metrics")), "\n") {
			if l == "chatxray_texts_writing 0" {
				return nil
			}
		}
		return errors.New("the text is still being written")
	})
}

// chatxray ask answers once, goes on, and keeps to a form.
func TestAsk(t *testing.T) {
	file, study := phantom(t)
	out, errs := chatxray(t, 0, "ask", file, "Write a report of this chest radiograph.")
	if !strings.Contains(out, "heart") || !strings.Contains(out, "DRAFT") {
		t.Errorf("%s%s", out, errs)
	}
	schema := filepath.Join(t.TempDir(), "side.json")
	if err := os.WriteFile(schema, []byte(`{"enum":["left","right"]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	out, _ = chatxray(t, 0, "ask", "--json", "--temperature", "2", "--seed", "3", "--schema", schema, filepath.Dir(file), "Which", "side?")
	var a struct {
		Schema, Question, Answer string
		Draft                    bool
		Study                    string `json:"study_instance_uid"`
		End                      string `json:"finish_reason"`
		Sampling                 struct{ Seed int }
	}
	if err := json.Unmarshal([]byte(out), &a); err != nil || a.Schema != "chatxray.answer/1" || a.Answer != `"left"` && a.Answer != `"right"` || !a.Draft || a.Study != study ||
		a.Question != "Which side?" || a.End != "stop" || a.Sampling.Seed != 3 {
		t.Errorf("%v %s", err, out)
	}
	cmd := exec.Command(built(t), "ask", "--interactive", "--json", "--max-tokens", "8", file)
	cmd.Stdin = strings.NewReader("What is the size of the heart?\n\n" + strings.Repeat("word ", 600) + "\nAnd the lungs?\n")
	lines, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var cached []int
	for _, l := range strings.Split(strings.TrimSpace(string(lines)), "\n") {
		var v struct {
			Cached int `json:"cached_tokens"`
		}
		if err := json.Unmarshal([]byte(l), &v); err != nil {
			t.Fatal(err, l)
		}
		cached = append(cached, v.Cached)
	}
	if len(cached) != 2 || cached[0] != 0 || cached[1] < 30 {
		t.Errorf("cached tokens of the turns: %v", cached)
	}
	chatxray(t, 2, "ask", file)
	chatxray(t, 2, "ask", "--interactive", "-")
	chatxray(t, 3, "ask", "--language", "zh", file, "x")
	chatxray(t, 3, "ask", file, strings.Repeat("word ", 600))
	lateral, _ := phantom(t, "--view", "LL")
	chatxray(t, 4, "ask", lateral, "x")
}
