package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"chatxray/pipeline"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// endpoint is a server whose handler a test gives, and a client of it that pauses next to nothing before it tries again.
func endpoint(t *testing.T, h http.HandlerFunc, change ...func(*Config)) *Client {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body) // only then does net/http notice that the client goes away
		r.Body = io.NopCloser(bytes.NewReader(b))
		h(w, r)
	}))
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return client(t, s.URL+"/v1", change...)
}

func client(t *testing.T, url string, change ...func(*Config)) *Client {
	t.Helper()
	cfg := Config{URL: url, Model: "m", Images: 1, Prompt: "Write.", Evidence: EvidenceNone}
	for _, f := range change {
		f(&cfg)
	}
	if faults := cfg.Faults(); len(faults) > 0 {
		t.Fatal(faults)
	}
	c := New(cfg)
	c.pause = time.Millisecond
	t.Cleanup(c.Close)
	return c
}

// hurried gives each stage little time; what hangs for ever is then told quickly.
func hurried(c *Config) {
	c.Timeouts = Timeouts{Connect: Duration(100 * time.Millisecond), First: Duration(100 * time.Millisecond), Between: Duration(100 * time.Millisecond)}
	c.Attempts = 2
}

func asks() Request {
	return Request{Messages: []Message{{Role: pipeline.RoleUser, Parts: []Part{{Text: "Q"}}}}, Sampling: pipeline.DefaultSampling(), MaxTokens: 8}
}

func delta(text string) string {
	b, _ := json.Marshal(map[string]any{"model": "m", "choices": []any{map[string]any{"index": 0, "delta": map[string]any{"content": text}, "finish_reason": nil}}})
	return "data: " + string(b) + "\n\n"
}

const (
	stopped = `data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n"
	done    = "data: [DONE]\n\n"
)

// streams answers with a stream.
func streams(w http.ResponseWriter, pieces ...string) {
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	for _, p := range pieces {
		_, _ = io.WriteString(w, p)
		w.(http.Flusher).Flush()
	}
}

func TestEveryFailure(t *testing.T) {
	for _, tc := range []struct {
		name    string
		answer  http.HandlerFunc
		change  func(*Config)
		is      error
		says    string
		asked   int64  // requests
		emitted string // before the failure
	}{
		{name: "hangs before its headers", answer: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
			change: hurried, is: pipeline.ErrUnavailable, says: "it wrote nothing within", asked: 2},
		{name: "hangs after its headers", answer: func(w http.ResponseWriter, r *http.Request) { streams(w, ": yes?\n\n"); <-r.Context().Done() },
			change: hurried, is: pipeline.ErrUnavailable, says: "it wrote nothing within", asked: 2},
		{name: "hangs in mid-stream", answer: func(w http.ResponseWriter, r *http.Request) { streams(w, delta("Heart")); <-r.Context().Done() },
			change: hurried, is: pipeline.ErrUnavailable, says: "went on with nothing within", asked: 1, emitted: "Heart"},
		{name: "never ends", answer: func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				streams(w, delta(""))
				time.Sleep(10 * time.Millisecond)
			}
		}, change: func(c *Config) { c.Timeouts.Whole = Duration(300 * time.Millisecond) }, is: pipeline.ErrUnavailable, says: "did not finish within", asked: 1},
		{name: "writes without end", answer: func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				streams(w, delta(strings.Repeat("a", 100)))
			}
		}, is: pipeline.ErrModel, says: "goes on writing", asked: 1, emitted: strings.Repeat("a", 2000)},
		{name: "sends nothing without end", answer: func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				streams(w, strings.Repeat(delta(""), 100))
			}
		}, is: pipeline.ErrModel, says: "goes on writing", asked: 1},
		{name: "no room", answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(429)
		}, is: pipeline.ErrBusy, says: "429", asked: 3},
		{name: "no room for a while", answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(429)
		}, is: pipeline.ErrBusy, says: "429", asked: 1},
		{name: "loading", answer: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, is: pipeline.ErrBusy, says: "503", asked: 3},
		{name: "fails", answer: func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "the patient Doe", 500) }, is: pipeline.ErrUnavailable, says: "answers 500", asked: 3},
		{name: "no JSON", answer: func(w http.ResponseWriter, _ *http.Request) { streams(w, "data: {\"choices\":[\n\n") }, is: pipeline.ErrUnavailable, says: "no JSON of the interface", asked: 1},
		{name: "a web page", answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "<html>sign in, Doe</html>")
		}, is: pipeline.ErrUnavailable, says: "text/html", asked: 1},
		{name: "an answer in one piece", answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"choices":[{"message":{"content":"x"}}]}`)
		}, is: pipeline.ErrUnavailable, says: "application/json where the interface has a stream", asked: 1},
		{name: "a huge line", answer: func(w http.ResponseWriter, _ *http.Request) { streams(w, delta(strings.Repeat("a", 2*maxLine))) },
			is: pipeline.ErrUnavailable, says: "line of its stream is longer", asked: 1},
		{name: "a huge event", answer: func(w http.ResponseWriter, _ *http.Request) {
			streams(w, strings.Repeat("data: "+strings.Repeat("a", maxLine/2)+"\n", 3)+"\n")
		}, is: pipeline.ErrUnavailable, says: "event of its stream is longer", asked: 1},
		{name: "no UTF-8", answer: func(w http.ResponseWriter, _ *http.Request) {
			streams(w, "data: {\"choices\":[{\"delta\":{\"content\":\"\xff\xfe\"}}]}\n\n", stopped, done)
		}, is: pipeline.ErrModel, says: "no UTF-8", asked: 1},
		{name: "breaks off", answer: func(w http.ResponseWriter, _ *http.Request) { streams(w, delta("Heart")) }, is: pipeline.ErrUnavailable, says: "broke off", asked: 1, emitted: "Heart"},
		{name: "breaks off before a word", answer: func(w http.ResponseWriter, _ *http.Request) { streams(w, "") }, is: pipeline.ErrUnavailable, says: "broke off", asked: 3},
		{name: "cuts the connection", answer: func(w http.ResponseWriter, _ *http.Request) { streams(w, delta("Heart")); panic(http.ErrAbortHandler) },
			is: pipeline.ErrUnavailable, says: "broke off", asked: 1, emitted: "Heart"},
		{name: "ends without a reason", answer: func(w http.ResponseWriter, _ *http.Request) { streams(w, delta("Heart"), done) }, is: pipeline.ErrUnavailable, says: "without saying why", asked: 1, emitted: "Heart"},
		{name: "an error in the stream", answer: func(w http.ResponseWriter, _ *http.Request) {
			streams(w, delta("Heart"), `data: {"error":{"message":"the patient Doe"}}`+"\n\n")
		}, is: pipeline.ErrUnavailable, says: "with an error", asked: 1, emitted: "Heart"},
		{name: "withheld", answer: func(w http.ResponseWriter, _ *http.Request) {
			streams(w, `data: {"choices":[{"delta":{},"finish_reason":"content_filter"}]}`+"\n\n", done)
		}, is: pipeline.ErrModel, says: "filter withholds", asked: 1},
		{name: "a refusal", answer: func(w http.ResponseWriter, _ *http.Request) {
			streams(w, `data: {"choices":[{"delta":{"refusal":"I cannot"}}]}`+"\n\n")
		}, is: pipeline.ErrModel, says: "refuses to answer", asked: 1},
		{name: "a tool", answer: func(w http.ResponseWriter, _ *http.Request) {
			streams(w, `data: {"choices":[{"delta":{"tool_calls":[{}]}}]}`+"\n\n")
		}, is: pipeline.ErrModel, says: "calls a tool", asked: 1},
		{name: "goes on behind the end", answer: func(w http.ResponseWriter, _ *http.Request) { streams(w, stopped, delta("more"), done) }, is: pipeline.ErrUnavailable, says: "behind the end", asked: 1},
		{name: "another model", answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(404)
			_, _ = io.WriteString(w, `{"error":{"message":"no m for Doe","type":"invalid_request_error","code":"model_not_found"}}`)
		}, is: pipeline.ErrUnavailable, says: "404, model_not_found", asked: 1},
		{name: "too long", answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(400)
			_, _ = io.WriteString(w, `{"error":{"message":"Doe","code":"context_length_exceeded"}}`)
		}, is: pipeline.ErrInvalid, says: "400, context_length_exceeded", asked: 1},
		{name: "a code that tells", answer: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(400)
			_, _ = io.WriteString(w, `{"error":{"code":"the patient Doe"}}`)
		}, is: pipeline.ErrInvalid, says: "refuses the request (400)", asked: 1},
		{name: "no key", answer: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, is: pipeline.ErrUnavailable, says: "does not take the key", asked: 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var asked atomic.Int64
			change := tc.change
			if change == nil {
				change = func(*Config) {}
			}
			c := endpoint(t, func(w http.ResponseWriter, r *http.Request) { asked.Add(1); tc.answer(w, r) }, change)
			var got strings.Builder
			_, err := c.Chat(t.Context(), asks(), func(p pipeline.ChatPiece) error { got.WriteString(p.Text); return nil })
			if !errors.Is(err, tc.is) || !strings.Contains(fmt.Sprint(err), tc.says) || strings.Contains(fmt.Sprint(err), "Doe") {
				t.Errorf("%v, want %v that says %q", err, tc.is, tc.says)
			}
			if asked.Load() != tc.asked || got.String() != tc.emitted {
				t.Errorf("%d requests, want %d; emitted %q, want %q", asked.Load(), tc.asked, got.String(), tc.emitted)
			}
			if w, a := c.Load(); w != 0 || a != 0 {
				t.Errorf("%d wait and %d are under way afterwards", w, a)
			}
		})
	}
}

// A connection that never stands: a server of TLS that says nothing, and nobody at all.
func TestConnect(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := client(t, "https://"+l.Addr().String()+"/v1", hurried)
	if _, err := c.Chat(t.Context(), asks(), nil); !errors.Is(err, pipeline.ErrUnavailable) || !strings.Contains(err.Error(), "TLS handshake timeout") {
		t.Error(err)
	}
	l.Close()
	c = client(t, "http://"+l.Addr().String()+"/v1", hurried)
	if _, err := c.Chat(t.Context(), asks(), nil); !errors.Is(err, pipeline.ErrUnavailable) || !strings.Contains(err.Error(), "connection refused") {
		t.Error(err)
	}
}

// Nobody but the endpoint itself gets the key and the images.
func TestRedirect(t *testing.T) {
	var elsewhere atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		c := endpoint(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL+r.URL.Path, status) })
		if _, err := c.Chat(t.Context(), asks(), nil); !errors.Is(err, pipeline.ErrUnavailable) || !strings.Contains(err.Error(), "redirects elsewhere") {
			t.Error(err)
		}
		if _, err := c.Identify(t.Context()); !errors.Is(err, pipeline.ErrUnavailable) {
			t.Error(err)
		}
	}
	if n := elsewhere.Load(); n != 0 {
		t.Errorf("%d requests went elsewhere", n)
	}
}

// What fails at first and then works is one answer; what was emitted is not asked for again.
func TestTriesAgain(t *testing.T) {
	n := 0
	c := endpoint(t, func(w http.ResponseWriter, _ *http.Request) {
		if n++; n < 3 {
			w.WriteHeader([]int{500, 429}[n-1])
			return
		}
		streams(w, delta("Heart "), delta("normal."), stopped, done)
	})
	a, err := c.Chat(t.Context(), asks(), func(pipeline.ChatPiece) error { return nil })
	if err != nil || a.Text != "Heart normal." || a.End != pipeline.EndStop || n != 3 {
		t.Errorf("%v %+v after %d requests", err, a, n)
	}
}

// An endpoint that fails again and again is left alone, and asked once when the rest is over.
func TestBreaker(t *testing.T) {
	var asked atomic.Int64
	c := endpoint(t, func(w http.ResponseWriter, _ *http.Request) { asked.Add(1); w.WriteHeader(500) }, func(c *Config) { c.Attempts = 1 })
	for range trips {
		if _, err := c.Chat(t.Context(), asks(), nil); !strings.Contains(fmt.Sprint(err), "answers 500") {
			t.Fatal(err)
		}
	}
	_, err := c.Chat(t.Context(), asks(), nil)
	if !errors.Is(err, pipeline.ErrUnavailable) || !strings.Contains(err.Error(), "left alone") || !strings.Contains(err.Error(), "last: it answers 500") || asked.Load() != trips {
		t.Errorf("%v after %d requests", err, asked.Load())
	}
	// Requests that are refused for what they are, and clients that go away, say nothing about the endpoint.
	asked.Store(0)
	c = endpoint(t, func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1)%2 == 0 {
			w.WriteHeader(400)
			return
		}
		<-r.Context().Done()
	}, func(c *Config) { c.Attempts = 1 })
	for n := range int64(2 * trips) {
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for asked.Load() <= n {
				time.Sleep(time.Millisecond)
			}
			if n%2 == 0 {
				cancel()
			}
		}()
		if _, err := c.Chat(ctx, asks(), nil); n%2 == 0 && !errors.Is(err, context.Canceled) || n%2 == 1 && !errors.Is(err, pipeline.ErrInvalid) {
			t.Errorf("request %d: %v", n, err)
		}
		cancel()
	}
	if s := c.breaker.State().String(); s != "closed" {
		t.Error(s)
	}
}

// Who goes away is told why, and the endpoint sees it.
func TestCancel(t *testing.T) {
	gone := make(chan struct{})
	c := endpoint(t, func(w http.ResponseWriter, r *http.Request) {
		streams(w, delta("Heart"))
		<-r.Context().Done()
		close(gone)
	})
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err := c.Chat(ctx, asks(), func(pipeline.ChatPiece) error { cancel(why); return nil })
	if !errors.Is(err, why) {
		t.Error(err)
	}
	<-gone
	// An error of who takes the pieces comes back as it is.
	c = endpoint(t, func(w http.ResponseWriter, _ *http.Request) { streams(w, delta("Heart"), stopped, done) })
	if _, err := c.Chat(t.Context(), asks(), func(pipeline.ChatPiece) error { return why }); !errors.Is(err, why) {
		t.Error(err)
	}
	// One that waits for room goes, too.
	c.cfg.Parallel = 1
	c.room = make(chan struct{}, 1)
	c.room <- struct{}{}
	ctx, cancel = context.WithCancelCause(t.Context())
	cancel(why)
	if _, err := c.Chat(ctx, asks(), nil); !errors.Is(err, why) {
		t.Error(err)
	}
	<-c.room
}

// What an answer tells beside its text, in the forms of several servers.
func TestAnswer(t *testing.T) {
	c := endpoint(t, func(w http.ResponseWriter, _ *http.Request) {
		streams(w, "\xef\xbb\xbf: a comment\nevent: message\nid: 1\n"+`data: {"model":"m-2026","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}`+"\r\n\r\n",
			`data: {"choices":[{"index":0,"delta":{"content":"5 °"},"logprobs":{"content":[{"token":"5 ","logprob":-0.5,"bytes":null},`+
				`{"token":"\ufffd","logprob":-1,"bytes":[194],"top_logprobs":[{"token":"\ufffd","logprob":-1,"bytes":[194]}]},{"token":"\ufffd","logprob":-2,"bytes":[176]}]}}]}`+"\n\n",
			`data: {"choices":[{"index":1,"delta":{"content":"another choice"}}]}`+"\n\n",
			"data: {\"choices\":[{\"index\":0,\ndata: \"delta\":{},\"finish_reason\":\"length\"}],\"system_fingerprint\":\"fp\\u0007_1\"}\n\n",
			`data: {"choices":[],"usage":{"prompt_tokens":20,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":7}}}`+"\n\n", "data: [DONE]")
	})
	a, err := c.Chat(t.Context(), asks(), func(pipeline.ChatPiece) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if a.Text != "5 °" || a.End != pipeline.EndLength || a.Prompt != 20 || a.Written != 3 || a.Reused != 7 || a.Model != "m-2026" || a.Fingerprint != "fp_1" {
		t.Errorf("%+v", a)
	}
	var spelled []byte
	for _, k := range a.Tokens {
		spelled = append(spelled, k.Text...)
	}
	if string(spelled) != a.Text || a.Tokens[1].Logprob != -1 || len(a.Tokens[1].Top) != 1 {
		t.Errorf("%q %+v", spelled, a.Tokens)
	}
}

// What is sent is what was asked and nothing else; defaults are left out.
func TestRequest(t *testing.T) {
	t.Setenv("ENDPOINT_KEY", "sesame")
	var body map[string]any
	var header http.Header
	c := endpoint(t, func(w http.ResponseWriter, r *http.Request) {
		header = r.Header
		b, _ := io.ReadAll(r.Body)
		body = nil
		if err := json.Unmarshal(b, &body); err != nil || r.URL.Path != "/v1/chat/completions" {
			t.Error(err, r.URL)
		}
		streams(w, delta("x"), stopped, done)
	}, func(c *Config) { c.Key = "env:ENDPOINT_KEY" })
	take := func(pipeline.ChatPiece) error { return nil }
	if _, err := c.Chat(t.Context(), asks(), take); err != nil {
		t.Fatal(err)
	}
	got, _ := json.Marshal(body)
	want := `{"max_tokens":8,"messages":[{"content":"Q","role":"user"}],"model":"m","stream":true,"stream_options":{"include_usage":true},"temperature":0}`
	if string(got) != want || header.Get("Authorization") != "Bearer sesame" {
		t.Errorf("%s, want %s", got, want)
	}
	for name := range header {
		switch name {
		case "Accept-Encoding", "Authorization", "Content-Length", "Content-Type", "User-Agent":
		default:
			t.Errorf("the header %s leaves", name)
		}
	}
	r := asks()
	r.Messages = []Message{{Role: pipeline.RoleSystem, Parts: []Part{{Text: "S"}, {Text: "T"}}}, {Role: pipeline.RoleUser, Parts: []Part{{PNG: []byte("png")}, {Text: "Q"}}}}
	r.Sampling = pipeline.Sampling{Temperature: 0.5, TopK: 3, TopP: 0.9, MinP: 0.1, RepetitionPenalty: 1.1, Seed: 42}
	r.Stop, r.Logprobs, r.Top, r.Schema, r.Language, r.Evidence = []string{"END"}, true, 2, json.RawMessage(`{"type":"object"}`), "en", true
	if _, err := c.Chat(t.Context(), r, take); err != nil {
		t.Fatal(err)
	}
	got, _ = json.Marshal(body)
	want = `{"logprobs":true,"max_tokens":8,"messages":[{"content":"S\nT","role":"system"},{"content":[{"image_url":{"url":"data:image/png;base64,cG5n"},"type":"image_url"},{"text":"Q","type":"text"}],"role":"user"}],` +
		`"min_p":0.1,"model":"m","repetition_penalty":1.1,"response_format":{"json_schema":{"name":"answer","schema":{"type":"object"},"strict":true},"type":"json_schema"},"seed":42,"stop":["END"],` +
		`"stream":true,"stream_options":{"include_usage":true},"temperature":0.5,"top_k":3,"top_logprobs":2,"top_p":0.9}`
	if string(got) != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if bytes.Contains(got, []byte("evidence")) {
		t.Error("a member of ours goes to another server")
	}
}

// The key comes from where the manifest says, each time anew, and no error shows it.
func TestKey(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	var given []string
	c := endpoint(t, func(w http.ResponseWriter, r *http.Request) {
		given = append(given, r.Header.Get("Authorization"))
		streams(w, delta("x"), stopped, done)
	}, func(c *Config) { c.Key = "file:" + file })
	ask := func() error {
		_, err := c.Chat(t.Context(), asks(), func(pipeline.ChatPiece) error { return nil })
		return err
	}
	if err := ask(); !errors.Is(err, pipeline.ErrUnavailable) || !strings.Contains(err.Error(), "cannot be read") {
		t.Error(err)
	}
	for _, key := range []string{"one\n", "two"} {
		if err := os.WriteFile(file, []byte(key), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := ask(); err != nil {
			t.Error(err)
		}
	}
	if fmt.Sprint(given) != "[Bearer one Bearer two]" {
		t.Error(given)
	}
	for _, key := range []string{"", "hunter2\r\nX: y", "häsch"} {
		if err := os.WriteFile(file, []byte(key), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := ask(); !errors.Is(err, pipeline.ErrUnavailable) || strings.Contains(err.Error(), "hunter2") {
			t.Error(err)
		}
	}
	c.cfg.Key = "env:NO_SUCH_VARIABLE_HERE"
	if err := ask(); !errors.Is(err, pipeline.ErrUnavailable) || !strings.Contains(err.Error(), "NO_SUCH_VARIABLE_HERE") {
		t.Error(err)
	}
}

func TestIdentify(t *testing.T) {
	list := `{"object":"list","data":[{"id":"other"},{"id":"m","object":"model","created":1,"owned_by":"vllm","root":"google/medgemma-4b-it","parent":null,"max_model_len":8192}]}`
	asked := 0
	c := endpoint(t, func(w http.ResponseWriter, r *http.Request) {
		asked++
		if r.URL.Path != "/v1/models" {
			t.Error(r.URL)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, list)
	})
	for range 3 {
		i, err := c.Identify(t.Context())
		if err != nil || i.String() != "m, root google/medgemma-4b-it" || asked != 1 || c.Known() != i {
			t.Errorf("%v %v, asked %d times", i, err, asked)
		}
	}
	c.Forget()
	list = `{"data":[{"id":"m","chatxray":{"version":"1.0.0","digest":"abc"}}]}`
	if i, err := c.Identify(t.Context()); err != nil || i.String() != "m, revision 1.0.0, digest abc" || asked != 2 {
		t.Errorf("%v %v", i, err)
	}
	c.Forget()
	list = `{"data":[{"id":"n\n\u202e"}]}`
	if _, err := c.Identify(t.Context()); !errors.Is(err, pipeline.ErrUnavailable) || !strings.Contains(err.Error(), `does not serve the model "m"; it has "n"`) {
		t.Error(err)
	}
	for _, list = range []string{`[]`, `{"data":3}`, `<html>`, ``} {
		if _, err := c.Identify(t.Context()); !errors.Is(err, pipeline.ErrUnavailable) || !strings.Contains(err.Error(), "no JSON of the interface") {
			t.Errorf("%q: %v", list, err)
		}
	}
}

// Score in the form of vLLM's answers (its ChatCompletionResponse.prompt_logprobs); no vLLM was asked.
func TestScore(t *testing.T) {
	answer := ""
	var body map[string]any
	c := endpoint(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		_ = json.Unmarshal(b, &body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, answer)
	}, func(c *Config) { c.Evidence, c.Decoys = EvidencePrompt, []string{"a.png"} })
	token := func(s string, p float64) string {
		return fmt.Sprintf(`{"7":{"logprob":%g,"rank":1,"decoded_token":%q}}`, p, s)
	}
	score := func(tokens ...string) ([]Scored, error) {
		answer = `{"prompt_logprobs":[` + strings.Join(append([]string{"null"}, tokens...), ",") + `],"choices":[]}`
		return c.Score(t.Context(), asks().Messages, "No effusion. Heart normal.")
	}
	got, err := score(token("Q", -9), token("\n", -1), token("No", -0.5), token("▁eff", -1), token("usion", -0.25), token(". ", -0.1), token("Heart", -2), token(" normal.", -3))
	if want := "[{No -0.5} {▁eff -1} {usion -0.25} {.  -0.1} {Heart -2} { normal. -3}]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("%v %v, want %s", got, err, want)
	}
	sent, _ := json.Marshal(body)
	want := `{"add_generation_prompt":false,"continue_final_message":true,"max_tokens":1,"messages":[{"content":"Q","role":"user"},{"content":"No effusion. Heart normal.","role":"assistant"}],"model":"m","prompt_logprobs":0,"temperature":0}`
	if string(sent) != want {
		t.Errorf("%s\nwant\n%s", sent, want)
	}
	for name, tokens := range map[string][]string{
		"none":             nil,
		"another text":     {token("No effusion. Heart large.", -1)},
		"part of the text": {token("Heart", -2), token(" normal.", -3)},
		"a positive one":   {token("No effusion. Heart normal.", 0.5)},
		"two at a place":   {`{"7":{"logprob":-1,"decoded_token":"No effusion. Heart normal."},"8":{"logprob":-2,"decoded_token":"x"}}`},
	} {
		if got, err := score(tokens...); !errors.Is(err, ErrNoScores) {
			t.Errorf("%s: %v %v", name, got, err)
		}
	}
	answer = `{"choices":[]}`
	if _, err := c.Score(t.Context(), asks().Messages, "x"); !errors.Is(err, ErrNoScores) {
		t.Error(err)
	}
}

func TestFaults(t *testing.T) {
	good := func() Config {
		return Config{URL: "https://h/v1", Model: "m", Images: 1, Prompt: "p", Evidence: EvidenceNone}
	}
	for says, change := range map[string]func(*Config){
		"remote.url: is no URL":                         func(c *Config) { c.URL = "h/v1" },
		"remote.url: holds a name or password":          func(c *Config) { c.URL = "https://u:hunter2@h/v1" },
		"remote.url: images would cross":                func(c *Config) { c.URL = "http://10.0.0.7/v1" },
		"remote.model: is empty":                        func(c *Config) { c.Model = " " },
		"remote.key: names no place":                    func(c *Config) { c.Key = "sk-hunter2" },
		"remote.images: -1":                             func(c *Config) { c.Images = -1 },
		"remote.prompt: is empty":                       func(c *Config) { c.Prompt = "" },
		`remote.evidence: "attention" is none of`:       func(c *Config) { c.Evidence = "attention" },
		"remote.evidence: is about images":              func(c *Config) { c.Images, c.Evidence = 0, EvidenceChatxray },
		"remote.decoys: are missing":                    func(c *Config) { c.Evidence = EvidencePrompt },
		"remote.decoys: are for":                        func(c *Config) { c.Decoys = []string{"a.png"} },
		"remote.timeouts.first: -1s is not from":        func(c *Config) { c.Timeouts.First = Duration(-time.Second) },
		"remote.attempts: 99 is not from 0":             func(c *Config) { c.Attempts = 99 },
		"remote.parallel: 1000 is not from 0":           func(c *Config) { c.Parallel = 1000 },
		"remote.context: 9999999 is not from 0 to 1048": func(c *Config) { c.Context = 9999999 },
	} {
		c := good()
		change(&c)
		err := errors.Join(c.Faults()...)
		if !errors.Is(err, pipeline.ErrInvalid) || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v does not say %q", err, says)
		}
	}
	for _, url := range []string{"http://127.0.0.1:8000/v1", "http://[::1]/v1/", "http://localhost/v1", "https://h.example/x/v1"} {
		c := good()
		if c.URL = url; len(c.Faults()) > 0 {
			t.Error(url, c.Faults())
		}
	}
	c := good()
	if c.URL, c.AllowHTTP = "http://vllm:8000/v1", true; len(c.Faults()) > 0 || c.Where() != "http://vllm:8000" {
		t.Error(c.Faults(), c.Where())
	}
}

// FuzzTake reads events of any content.
func FuzzTake(f *testing.F) {
	for _, s := range []string{delta("x"), stopped, `{"choices":[{"logprobs":{"content":[{"bytes":[1,2,300]}]}}]}`, `{"usage":{"prompt_tokens":-1}}`} {
		f.Add([]byte(strings.TrimPrefix(s, "data: ")))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a := &Answer{}
		if _, err := a.take(b); err == nil && (a.Prompt < 0 || a.Written < 0 || a.Reused < 0) {
			t.Errorf("%+v", a)
		}
	})
}
