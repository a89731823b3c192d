package dicomweb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"mime"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"chatxray/pipeline"
)

// chatCall is a request of OpenAI's interface.
type chatCall struct {
	model         string
	chat          Chat // that the model's name is of
	request       pipeline.ChatRequest
	stream, usage bool
	timeout       time.Duration   // of the answer
	said          []pipeline.Said // the messages, as they are kept
	studies       []string        // that they are about
}

// readCall reads the body. release gives back what it takes of memory and must be called in any case.
func (s *server) readCall(c *gin.Context) (call *chatCall, release func(), err error) {
	release = func() {}
	if media, _, err := mime.ParseMediaType(c.GetHeader("Content-Type")); err != nil || media != "application/json" {
		return nil, release, fmt.Errorf("%w: the body must be application/json", errMediaType)
	}
	limit := min(s.MaxBody, maxChatBody)
	if c.Request.ContentLength > limit {
		return nil, release, tooLargeCall(limit)
	}
	body, err := s.body(c)
	if err != nil {
		return nil, release, err
	}
	body.left = limit
	counted := &room{r: body, taken: &s.talking.bytes}
	release = counted.release
	b, err := io.ReadAll(counted)
	if errors.Is(err, errTooLarge) {
		return nil, release, tooLargeCall(limit)
	}
	if err != nil {
		return nil, release, err
	}
	call, err = s.parseCall(c.Request.Context(), b)
	return call, release, err
}

// room is a body that has its part of the bytes that all bodies under way may have.
type room struct {
	r     io.Reader
	taken *atomic.Int64
	own   int64
}

func (m *room) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.own += int64(n)
	if m.taken.Add(int64(n)) > maxChatBytes {
		return n, fmt.Errorf("%w: the requests under way have too many bytes; try again later", pipeline.ErrBusy)
	}
	return n, err
}

func (m *room) release() { m.taken.Add(-m.own) }

func tooLargeCall(limit int64) error {
	return fmt.Errorf("%w: a request has at most %d MiB", errTooLarge, limit>>20)
}

// mostSeconds is how long an answer may take, from when the request was read.
const mostSeconds = 600.0

// maxAsked is more tokens than an answer of any model has.
const maxAsked = 1 << 16

// parseCall reads a request. Its errors name the member that is wrong.
func (s *server) parseCall(ctx context.Context, b []byte) (*chatCall, error) {
	if !utf8.Valid(b) {
		return nil, wrong("", "the body is no UTF-8")
	}
	g, err := objectOf(b, "")
	if err != nil {
		return nil, wrong("", "the body is no JSON object")
	}
	call := &chatCall{}
	if err := g.take("model", "a string", &call.model); err != nil {
		return nil, err
	}
	if call.model == "" {
		return nil, wrong("model", "is missing; this service has %s", inQuotes(s.chatNames()))
	}
	if call.chat, err = s.chatCalled(call.model); err != nil {
		return nil, err
	}
	for _, read := range []func(given) error{call.readAnswerForm, call.readSampling, ignored} {
		if err := read(g); err != nil {
			return nil, err
		}
	}
	messages := g.raw("messages")
	if err := g.end(); err != nil {
		return nil, err
	}
	return call, s.readMessages(ctx, call, messages)
}

// ignored takes what changes nothing, and refuses what would.
func ignored(g given) error {
	for key, what := range map[string]string{"user": "a string", "safety_identifier": "a string", "prompt_cache_key": "a string", "service_tier": "a string"} {
		if err := g.take(key, what, new(string)); err != nil {
			return err
		}
	}
	if err := g.take("store", "true or false", new(bool)); err != nil {
		return err
	}
	if err := g.take("metadata", "an object of strings", &map[string]string{}); err != nil {
		return err
	}
	for _, k := range []struct {
		key, why string
		harmless []string
	}{
		{"n", "this service gives one answer to a request", []string{"1"}},
		{"presence_penalty", "not known; repetition_penalty is", []string{"0", "0.0"}},
		{"frequency_penalty", "not known; repetition_penalty is", []string{"0", "0.0"}},
		{"logit_bias", "not known", []string{"{}"}},
		{"tools", "this model calls no tools", []string{"[]"}},
		{"tool_choice", "this model calls no tools", []string{`"none"`, `"auto"`}},
		{"modalities", "this model writes text only", []string{`["text"]`}},
	} {
		if err := g.only(k.key, k.why, k.harmless...); err != nil {
			return err
		}
	}
	return nil
}

// readAnswerForm reads what the answer is to look like.
func (call *chatCall) readAnswerForm(g given) error {
	r := &call.request
	if err := g.take("stream", "true or false", &call.stream); err != nil {
		return err
	}
	if v := g.raw("stream_options"); v != nil {
		o, err := objectOf(v, "stream_options")
		if err == nil {
			err = errors.Join(o.take("include_usage", "true or false", &call.usage), o.take("include_obfuscation", "true or false", new(bool)), o.end())
		}
		if err != nil {
			return err
		}
	}
	var most, also, top int64
	_, err := g.integer("max_tokens", &most, 1, maxAsked)
	if err != nil {
		return err
	}
	if _, err := g.integer("max_completion_tokens", &also, 1, maxAsked); err != nil {
		return err
	}
	if r.MaxTokens = int(max(most, also)); most != 0 && also != 0 {
		r.MaxTokens = int(min(most, also))
	}
	if err := g.take("logprobs", "true or false", &r.Logprobs); err != nil {
		return err
	}
	if _, err := g.integer("top_logprobs", &top, 0, 20); err != nil {
		return err
	}
	if r.Top = int(top); top > 0 && !r.Logprobs {
		return wrong("top_logprobs", "is for requests whose logprobs is true")
	}
	if v := g.raw("stop"); v != nil {
		var one string
		if json.Unmarshal(v, &one) == nil {
			r.Stop = []string{one}
		} else if json.Unmarshal(v, &r.Stop) != nil {
			return wrong("stop", "is neither a string nor a list of strings")
		}
	}
	if err := g.take("evidence", "true or false", &r.Evidence); err != nil {
		return err
	}
	if err := g.take("language", "a string", &r.Language); err != nil {
		return err
	}
	seconds := mostSeconds
	if err := g.number("timeout", &seconds, 0.001, mostSeconds); err != nil {
		return err
	}
	call.timeout = time.Duration(seconds * float64(time.Second))
	return call.readFormat(g.raw("response_format"))
}

// readFormat reads response_format.
func (call *chatCall) readFormat(v json.RawMessage) error {
	if v == nil {
		return nil
	}
	o, err := objectOf(v, "response_format")
	if err != nil {
		return err
	}
	kind := ""
	if err := o.take("type", "a string", &kind); err != nil {
		return err
	}
	switch kind {
	case "text":
	case "json_object":
		call.request.Schema = json.RawMessage(`{"type":"object"}`)
	case "json_schema":
		j, err := objectOf(o.raw("json_schema"), "response_format.json_schema")
		if err != nil {
			return err
		}
		call.request.Schema = j.raw("schema")
		if call.request.Schema == nil {
			return wrong("response_format.json_schema.schema", "is missing")
		}
		if err := errors.Join(j.take("name", "a string", new(string)), j.take("description", "a string", new(string)), j.take("strict", "true or false", new(bool)), j.end()); err != nil {
			return err
		}
	default:
		return wrong("response_format.type", "is none of text, json_object, json_schema")
	}
	return o.end()
}

// readSampling reads how tokens are chosen. Unlike OpenAI's, the default is the likeliest token.
func (call *chatCall) readSampling(g given) error {
	how := pipeline.DefaultSampling()
	var topK, seed int64
	for _, f := range []struct {
		key         string
		into        *float64
		least, most float64
	}{
		{"temperature", &how.Temperature, 0, 2}, {"top_p", &how.TopP, 0, 1}, {"min_p", &how.MinP, 0, 1}, {"repetition_penalty", &how.RepetitionPenalty, 0.1, 2},
	} {
		if err := g.number(f.key, f.into, f.least, f.most); err != nil {
			return err
		}
	}
	if _, err := g.integer("top_k", &topK, 0, maxAsked); err != nil {
		return err
	}
	there, err := g.integer("seed", &seed, math.MinInt64, math.MaxInt64)
	if err != nil {
		return err
	}
	if !there {
		seed = rand.Int64N(1 << 53) // a number that every JSON reader keeps
	}
	how.TopK, how.Seed = int(topK), uint64(seed)
	call.request.Sampling = how
	return nil
}
