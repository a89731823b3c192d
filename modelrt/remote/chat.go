package remote

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"chatxray/pipeline"
)

// Request asks for the next message of a conversation.
type Request struct {
	Messages  []Message
	Sampling  pipeline.Sampling
	MaxTokens int // at least 1
	Stop      []string
	Logprobs  bool
	Top       int
	Schema    json.RawMessage // JSON Schema; nil for free text
	Language  string          // told to another chatxray only
	Evidence  bool            // asked of another chatxray only
}

// Message is one turn.
type Message struct {
	Role  pipeline.ChatRole
	Parts []Part
}

// Part is a text, or a picture where PNG is not nil.
type Part struct {
	Text string
	PNG  []byte
}

// Answer is the next message. Counts of tokens are 0 where the endpoint does not tell them.
type Answer struct {
	pipeline.ChatPiece
	End                     pipeline.ChatEnd
	Prompt, Reused, Written int
	Model, Fingerprint      string // as the answer names them
	Evidence                *pipeline.ChatEvidence
	Spent                   time.Duration // from asking to the end, of the attempt that succeeded
}

// Bounds of an answer beside those that were asked for.
const (
	bytesOfToken = 256 // more than a token of text has
	moreEvents   = 1024
)

// Chat asks and hands the answer to emit while it comes: whole characters. Nothing is asked again once emit has been called; an error from emit ends the
// answer and comes back. Errors: ErrUnavailable (it does not answer, or not as the interface has it), ErrBusy, ErrInvalid (it refuses the request),
// ErrModel (what it writes may not leave), or ctx's cause.
func (c *Client) Chat(ctx context.Context, r Request, emit func(pipeline.ChatPiece) error) (*Answer, error) {
	body := c.body(r)
	var a *Answer
	taken := false
	err := c.attempts(ctx, &taken, func(ctx context.Context) (err error) {
		a, err = c.chat(ctx, r, body, func(p pipeline.ChatPiece) error {
			taken = true
			return emit(p)
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	return a, nil
}

// watch ends a context when a stage takes too long.
type watch struct {
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

func (w *watch) stage(what string, d time.Duration) {
	w.stop()
	w.timer = time.AfterFunc(d, func() { w.cancel(&late{what, d}) })
}

func (w *watch) stop() {
	if w.timer != nil {
		w.timer.Stop()
	}
}

// chat is one attempt.
func (c *Client) chat(ctx context.Context, r Request, body object, emit func(pipeline.ChatPiece) error) (*Answer, error) {
	began := time.Now()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := watch{cancel: cancel}
	defer w.stop()
	w.stage("it wrote nothing", time.Duration(c.cfg.Timeouts.Connect+c.cfg.Timeouts.First))
	resp, err := c.send(ctx, http.MethodPost, "/chat/completions", body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if !of(resp, "text/event-stream") {
		return nil, odd("it answers with %s where the interface has a stream; look at remote.url", kind(resp))
	}
	a := &Answer{}
	var text strings.Builder
	stream := newEvents(resp.Body)
	for n := 0; ; n++ {
		data, err := stream.next()
		if errors.Is(err, io.EOF) && a.End == "" {
			return nil, away("it broke off its answer")
		}
		if string(data) == "[DONE]" || errors.Is(err, io.EOF) {
			break
		}
		if f := (*failure)(nil); errors.As(err, &f) {
			return nil, err
		} else if err != nil {
			return nil, broken(ctx, err)
		}
		w.stage("it went on with nothing", time.Duration(c.cfg.Timeouts.Between))
		piece, err := a.take(data)
		if err != nil {
			return nil, err
		}
		text.WriteString(piece.Text)
		a.Tokens = append(a.Tokens, piece.Tokens...)
		if text.Len() > bytesOfToken*r.MaxTokens || n > 4*r.MaxTokens+moreEvents {
			return nil, wrote("it goes on writing beyond the %d tokens that it was asked for", r.MaxTokens)
		}
		if piece.Text != "" || len(piece.Tokens) > 0 {
			if err := emit(piece); err != nil {
				return nil, err
			}
		}
	}
	if a.End == "" {
		return nil, away("it ended its stream without saying why its answer ended")
	}
	if err := context.Cause(ctx); err != nil {
		return nil, broken(ctx, err)
	}
	a.Text, a.Spent = text.String(), time.Since(began)
	return a, nil
}

// chunk is an event of the interface, as far as it is looked at.
type chunk struct {
	Model             string
	SystemFingerprint string `json:"system_fingerprint"`
	Error             json.RawMessage
	Choices           []struct {
		Index int
		Delta struct {
			Content, Refusal string
			ToolCalls        []json.RawMessage `json:"tool_calls"`
		}
		Logprobs *struct {
			Content []token
		}
		FinishReason string `json:"finish_reason"`
	}
	Usage *struct {
		Prompt  int `json:"prompt_tokens"`
		Written int `json:"completion_tokens"`
		Details *struct {
			Cached int `json:"cached_tokens"`
		} `json:"prompt_tokens_details"`
	}
	Chatxray struct {
		Evidence *pipeline.ChatEvidence
	}
}

type token struct {
	Token   string
	Logprob float64
	Bytes   []int   // may be null; otherwise it has what Token cannot, pieces of characters
	Top     []token `json:"top_logprobs"`
}

func (t token) token() pipeline.ChatToken {
	out := pipeline.ChatToken{Text: []byte(t.Token), Logprob: t.Logprob}
	if t.Bytes != nil {
		out.Text = make([]byte, len(t.Bytes))
		for i, b := range t.Bytes {
			out.Text[i] = byte(b)
		}
	}
	for _, o := range t.Top {
		out.Top = append(out.Top, o.token())
	}
	return out
}

// take reads an event.
func (a *Answer) take(data []byte) (p pipeline.ChatPiece, err error) {
	var k chunk
	if err := json.Unmarshal(data, &k); err != nil {
		return p, odd("an event of its stream is no JSON of the interface")
	}
	if len(k.Error) > 0 && !bytes.Equal(k.Error, []byte("null")) {
		return p, away("it broke off its answer with an error")
	}
	if k.Model != "" {
		a.Model = short(k.Model)
	}
	if k.SystemFingerprint != "" {
		a.Fingerprint = short(k.SystemFingerprint)
	}
	if u := k.Usage; u != nil {
		a.Prompt, a.Written = max(u.Prompt, 0), max(u.Written, 0)
		if u.Details != nil {
			a.Reused = max(u.Details.Cached, 0)
		}
	}
	if k.Chatxray.Evidence != nil {
		a.Evidence = k.Chatxray.Evidence
	}
	for _, ch := range k.Choices {
		if ch.Index != 0 {
			continue
		}
		if ch.Delta.Refusal != "" {
			return p, wrote("it refuses to answer")
		}
		if len(ch.Delta.ToolCalls) > 0 {
			return p, wrote("it calls a tool instead of answering")
		}
		if a.End != "" && ch.Delta.Content != "" {
			return p, odd("its stream goes on behind the end of the answer")
		}
		p.Text += ch.Delta.Content
		if ch.Logprobs != nil {
			for _, t := range ch.Logprobs.Content {
				p.Tokens = append(p.Tokens, t.token())
			}
		}
		switch ch.FinishReason {
		case "":
		case string(pipeline.EndStop), string(pipeline.EndLength):
			a.End = pipeline.ChatEnd(ch.FinishReason)
		case "content_filter":
			return p, wrote("its filter withholds the answer")
		default:
			return p, wrote("its answer ended in a way that is not known here")
		}
	}
	return p, nil
}

// object is a JSON object.
type object map[string]any

// body is a request of the interface. What has its default is left out, because not every server knows every member.
func (c *Client) body(r Request) object {
	b := object{"model": c.cfg.Model, "messages": messages(r.Messages), "max_tokens": r.MaxTokens, "temperature": r.Sampling.Temperature,
		"stream": true, "stream_options": object{"include_usage": true}}
	how, plain := r.Sampling, pipeline.DefaultSampling()
	if how.Temperature > 0 {
		b["seed"] = int64(how.Seed)
	}
	for _, m := range []struct {
		key       string
		is, usual float64
	}{{"top_p", how.TopP, plain.TopP}, {"min_p", how.MinP, plain.MinP}, {"repetition_penalty", how.RepetitionPenalty, plain.RepetitionPenalty}} {
		if m.is != m.usual {
			b[m.key] = m.is
		}
	}
	if how.TopK != plain.TopK {
		b["top_k"] = how.TopK
	}
	if len(r.Stop) > 0 {
		b["stop"] = r.Stop
	}
	if r.Logprobs {
		b["logprobs"] = true
		if r.Top > 0 {
			b["top_logprobs"] = r.Top
		}
	}
	if r.Schema != nil {
		b["response_format"] = object{"type": "json_schema", "json_schema": object{"name": "answer", "schema": r.Schema, "strict": true}}
	}
	if c.cfg.Evidence == EvidenceChatxray {
		if r.Language != "" {
			b["language"] = r.Language
		}
		if r.Evidence {
			b["evidence"] = true
		}
	}
	return b
}

// messages are the turns as the interface has them: a plain string where there is text only, which every server takes.
func messages(list []Message) []object {
	out := make([]object, len(list))
	for i, m := range list {
		var texts []string
		var parts []object
		for _, p := range m.Parts {
			if p.PNG != nil {
				parts = append(parts, object{"type": "image_url", "image_url": object{"url": "data:image/png;base64," + base64.StdEncoding.EncodeToString(p.PNG)}})
				continue
			}
			texts = append(texts, p.Text)
			parts = append(parts, object{"type": "text", "text": p.Text})
		}
		out[i] = object{"role": m.Role, "content": any(parts)}
		if len(texts) == len(parts) {
			out[i]["content"] = strings.Join(texts, "\n")
		}
	}
	return out
}
