package dicomweb_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"image"
	"image/png"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"chatxray/dicomweb"
	"chatxray/pipeline"
	"chatxray/pipeline/archive"
)

// talker answers whatever it is asked, and remembers what that was.
type talker struct {
	mu     sync.Mutex
	asked  []pipeline.ChatRequest
	images []*pipeline.Image
	err    error
	hold   chan struct{} // after the first piece, until the context ends
	freed  chan struct{}
}

func (*talker) Card() pipeline.ModelCard {
	return pipeline.ModelCard{Ref: pipeline.ModelRef{Name: "talker", Version: "1"}, Languages: []string{"en", "de"}, Context: 64, Images: 1, IntendedUse: "tests"}
}

func (k *talker) Chat(ctx context.Context, r pipeline.ChatRequest, emit func(pipeline.ChatPiece) error) (*pipeline.ChatAnswer, error) {
	k.mu.Lock()
	k.asked = append(k.asked, r)
	k.mu.Unlock()
	if k.err != nil {
		return nil, k.err
	}
	for _, m := range r.Messages {
		for _, p := range m.Parts {
			if p.Image != nil {
				img, err := p.Image.Load(ctx)
				if err != nil {
					return nil, err
				}
				k.mu.Lock()
				k.images = append(k.images, img)
				k.mu.Unlock()
			}
		}
	}
	a := &pipeline.ChatAnswer{End: pipeline.EndStop, Prompt: 20, Reused: 5, Written: 3, Language: "en",
		Boxes: []pipeline.Box{{Label: "heart", Left: 1, Top: 2, Right: 3.5, Bottom: 4}}}
	for i, text := range []string{"Größe", " normal", "."} {
		p := pipeline.ChatPiece{Text: text}
		if r.Logprobs {
			p.Tokens = []pipeline.ChatToken{{Text: []byte(text), Logprob: -0.5, Top: []pipeline.ChatToken{{Text: []byte{0xff}, Logprob: -0.25}}}}
		}
		a.Text += text
		a.Tokens = append(a.Tokens, p.Tokens...)
		if emit != nil {
			if err := emit(p); err != nil {
				return nil, err
			}
		}
		if k.hold != nil && i == 0 {
			<-ctx.Done()
			close(k.freed)
			return nil, context.Cause(ctx)
		}
	}
	return a, nil
}

// talks starts a service that answers, with one study.
func talks(t *testing.T, k dicomweb.Chat, more ...option) *service {
	var kept lazily
	s := start(t, append([]option{func(c *dicomweb.Config, d *dicomweb.Deps, o *archive.Options) {
		d.Talking = dicomweb.Talking{Chat: k, Conversations: &kept, Reference: func(_ context.Context, study, series, sop string) (*pipeline.ChatImage, error) {
			if study != "1.2" {
				return nil, fmt.Errorf("%w: nothing of it", pipeline.ErrNotFound)
			}
			return &pipeline.ChatImage{Name: "x", Load: func(context.Context) (*pipeline.Image, error) { return &pipeline.Image{Rows: 1}, nil }}, nil
		}}
	}}, more...)...)
	kept.Archive = s.archive
	return s
}

// lazily is an archive that is opened after the service is made.
type lazily struct{ *archive.Archive }

// v1 asks a resource beside /dicom-web.
func (s *service) v1(method, path, body string, headers ...string) reply {
	s.t.Helper()
	r, err := http.NewRequest(method, strings.TrimSuffix(s.root, dicomweb.Root)+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return s.do(r)
}

// fault is an error as clients of OpenAI's interface read it.
func (r reply) fault(t *testing.T) (message, kind, code, param string) {
	t.Helper()
	var v struct {
		Error *struct {
			Message, Type string
			Code, Param   *string
		}
	}
	if err := json.Unmarshal(r.body, &v); err != nil || v.Error == nil {
		t.Fatalf("%v: %s", err, r.body)
	}
	text := func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	}
	return v.Error.Message, v.Error.Type, text(v.Error.Code), text(v.Error.Param)
}

func pngOf(t *testing.T, m image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func dataURL(media string, b []byte) string {
	return "data:" + media + ";base64," + base64.StdEncoding.EncodeToString(b)
}

func grayPicture(side int) *image.Gray {
	g := image.NewGray(image.Rect(0, 0, side, side))
	for i := range g.Pix {
		g.Pix[i] = uint8(i)
	}
	return g
}

// askedWith is a request with one image and more members.
func askedWith(url, more string) string {
	return fmt.Sprintf(`{"model":"talker","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":%q}},{"type":"text","text":"Is it normal?"}]}]%s}`, url, more)
}

// oneBox is the box of talker's answers, as docs/chat.md has it.
const oneBox = `[{"image":0,"label":"heart","x0":1,"y0":2,"x1":3.5,"y1":4}]`

func TestChatAnswers(t *testing.T) {
	k := &talker{}
	s := talks(t, k)
	s.store(object(t, "1.2", "1.2.3", "1.2.3.4"))
	r := s.v1("POST", "/v1/chat/completions", askedWith("dicom:1.2", `,"temperature":0.5,"top_p":0.9,"top_k":4,"min_p":0.1,"repetition_penalty":1.1,"seed":-3,"stop":["a","b"],
		"max_tokens":9,"max_completion_tokens":1e1,"logprobs":true,"top_logprobs":1,"language":"de","user":"u","n":1,"presence_penalty":0.0,"tools":[],"metadata":{"a":"b"},
		"response_format":{"type":"json_schema","json_schema":{"name":"x","strict":true,"schema":{"type":"string"}}}`))
	var v struct {
		ID, Object, Model string
		Created           int64
		Choices           []struct {
			Index   int
			Message struct {
				Role, Content string
				Refusal       *string
			}
			Logprobs struct {
				Content []struct {
					Token       string
					Logprob     float64
					Bytes       []int
					TopLogprobs []struct{ Bytes []int } `json:"top_logprobs"`
				}
			}
			FinishReason string `json:"finish_reason"`
		}
		Usage struct {
			Prompt  int `json:"prompt_tokens"`
			Written int `json:"completion_tokens"`
			Total   int `json:"total_tokens"`
			Details struct {
				Cached int `json:"cached_tokens"`
			} `json:"prompt_tokens_details"`
		}
		ChatXRay struct {
			Draft         bool
			Notice        string
			Seed          int64
			Conversations map[string]string
			Boxes         json.RawMessage
		}
	}
	if err := json.Unmarshal(r.body, &v); err != nil || r.StatusCode != 200 || len(v.Choices) != 1 {
		t.Fatalf("%v %d %s", err, r.StatusCode, r.body)
	}
	c := v.Choices[0]
	if !strings.HasPrefix(v.ID, "chatcmpl-") || v.Object != "chat.completion" || v.Model != "talker" || v.Created < 1e9 || c.Message.Role != "assistant" ||
		c.Message.Content != "Größe normal." || c.FinishReason != "stop" || v.Usage.Prompt != 20 || v.Usage.Written != 3 || v.Usage.Total != 23 || v.Usage.Details.Cached != 5 || string(v.ChatXRay.Boxes) != oneBox {
		t.Errorf("%s", r.body)
	}
	if l := c.Logprobs.Content; len(l) != 3 || l[0].Token != "Größe" || len(l[0].Bytes) != 7 || l[0].Bytes[2] != 0xc3 || !slices.Equal(l[0].TopLogprobs[0].Bytes, []int{0xff}) {
		t.Errorf("%s", r.body)
	}
	if !v.ChatXRay.Draft || v.ChatXRay.Seed != -3 || !strings.Contains(r.Header.Get("Warning"), "draft") || r.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%v %s", r.Header, r.body)
	}
	got := k.asked[0]
	want := pipeline.ChatRequest{Language: "de", Sampling: pipeline.Sampling{Temperature: 0.5, TopP: 0.9, TopK: 4, MinP: 0.1, RepetitionPenalty: 1.1, Seed: math.MaxUint64 - 2},
		MaxTokens: 9, Stop: []string{"a", "b"}, Logprobs: true, Top: 1, Schema: json.RawMessage(`{"type":"string"}`)}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(pipeline.ChatRequest{}, "Messages")); diff != "" {
		t.Error(diff)
	}
	if m := got.Messages; len(m) != 1 || m[0].Role != pipeline.RoleUser || len(m[0].Parts) != 2 || m[0].Parts[0].Image == nil || m[0].Parts[1].Text != "Is it normal?" {
		t.Errorf("%+v", m)
	}
	if v.ChatXRay.Conversations["1.2"] == "" {
		t.Errorf("not kept: %s", r.body)
	}
	if log := s.log.String(); strings.Contains(log, "normal") || strings.Contains(log, "Größe") {
		t.Errorf("what was said is in the log: %s", log)
	}
}

func TestChatStreams(t *testing.T) {
	s := talks(t, &talker{})
	r := s.v1("POST", "/v1/chat/completions", askedWith("dicom:1.2", `,"stream":true,"stream_options":{"include_usage":true},"logprobs":true`))
	if r.StatusCode != 200 || !strings.HasPrefix(r.Header.Get("Content-Type"), "text/event-stream") || !strings.Contains(r.Header.Get("Warning"), "draft") {
		t.Fatalf("%d %v", r.StatusCode, r.Header)
	}
	type chunk struct {
		Object  string
		Choices []struct {
			Delta        struct{ Role, Content *string }
			FinishReason *string `json:"finish_reason"`
			Logprobs     *struct{ Content []struct{ Token string } }
		}
		Usage    *struct{ Total int } `json:"usage"`
		ChatXRay *struct {
			Draft bool
			Boxes json.RawMessage
		}
	}
	var chunks []chunk
	done := false
	for _, e := range strings.Split(strings.TrimSuffix(string(r.body), "\n\n"), "\n\n") {
		data, ok := strings.CutPrefix(e, "data: ")
		if !ok || done {
			t.Fatalf("%q", e)
		}
		if data == "[DONE]" {
			done = true
			continue
		}
		var c chunk
		if err := json.Unmarshal([]byte(data), &c); err != nil || c.Object != "chat.completion.chunk" {
			t.Fatal(err, data)
		}
		chunks = append(chunks, c)
	}
	if len(chunks) != 6 || !done {
		t.Fatalf("%s", r.body)
	}
	text := ""
	for _, c := range chunks[1:4] {
		text += *c.Choices[0].Delta.Content
		if len(c.Choices[0].Logprobs.Content) != 1 || c.Choices[0].FinishReason != nil || c.Usage != nil {
			t.Errorf("%+v", c)
		}
	}
	if first, end, usage := chunks[0], chunks[4], chunks[5]; text != "Größe normal." || *first.Choices[0].Delta.Role != "assistant" || *end.Choices[0].FinishReason != "stop" ||
		!end.ChatXRay.Draft || string(end.ChatXRay.Boxes) != oneBox || strings.Count(string(r.body), "boxes") != 1 || len(usage.Choices) != 0 || usage.Usage == nil {
		t.Errorf("%s", r.body)
	}
	// Without usage there is no such piece; what is wrong has its status.
	if r := s.v1("POST", "/v1/chat/completions", askedWith("dicom:1.2", `,"stream":true`)); strings.Contains(string(r.body), "usage") || !strings.HasSuffix(string(r.body), "data: [DONE]\n\n") {
		t.Errorf("%s", r.body)
	}
	if r := s.v1("POST", "/v1/chat/completions", askedWith("dicom:7.7", `,"stream":true`)); r.StatusCode != 404 {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
}

// Who goes away in the middle of an answer ends it within 50 ms.
func TestChatGoesAway(t *testing.T) {
	k := &talker{hold: make(chan struct{}), freed: make(chan struct{})}
	s := talks(t, k)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, "POST", strings.TrimSuffix(s.root, dicomweb.Root)+"/v1/chat/completions", strings.NewReader(askedWith("dicom:1.2", `,"stream":true`)))
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for in := bufio.NewScanner(resp.Body); in.Scan() && !strings.Contains(in.Text(), "Größe"); {
	}
	cancel()
	left := time.Now()
	<-k.freed
	if took := time.Since(left); took > 50*time.Millisecond {
		t.Errorf("%v", took)
	}
}

// hugePNG claims a size; its pixels are missing.
func hugePNG(width, height uint32) []byte {
	b := []byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR")
	b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, width), height)
	b = append(b, 8, 0, 0, 0, 0)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[12:]))
}

// hugeJPEG claims a size, in a progressive frame of three components; its pixels are missing.
func hugeJPEG(width, height uint16) []byte {
	b := append([]byte{0xff, 0xd8, 0xff, 0xe0, 0, 16}, "JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"...)
	b = append(b, 0xff, 0xc2, 0, 17, 8)
	b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, height), width)
	return append(b, 3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0)
}

func TestChatRefuses(t *testing.T) {
	k := &talker{}
	s := talks(t, k)
	good := dataURL("image/png", pngOf(t, grayPicture(64)))
	image := func(url string) string { return askedWith(url, "") }
	messages := func(m string) string { return `{"model":"talker","messages":` + m + `}` }
	user := `{"role":"user","content":[{"type":"image_url","image_url":{"url":"dicom:1.2"}}]}`
	for name, c := range map[string]struct {
		body        string
		status      int
		code, param string
		says        string
	}{
		"no JSON":              {`{`, 400, "invalid_value", "", "no JSON object"},
		"two values":           {askedWith(good, "") + "{}", 400, "invalid_value", "", "no JSON object"},
		"a list":               {`[]`, 400, "invalid_value", "", "no JSON object"},
		"null":                 {`null`, 400, "invalid_value", "", "no JSON object"},
		"no UTF-8":             {`{"model":"` + "\xff" + `"}`, 400, "invalid_value", "", "UTF-8"},
		"no model":             {`{"messages":[]}`, 400, "invalid_value", "model", "missing"},
		"other model":          {`{"model":"gpt-4o","messages":[]}`, 404, "model_not_found", "model", `this service has "talker"`},
		"model no string":      {`{"model":7}`, 400, "invalid_value", "model", "not a string"},
		"unknown member":       {askedWith(good, `,"frobnicate":1`), 400, "unknown_parameter", "frobnicate", "frobnicate"},
		"two answers":          {askedWith(good, `,"n":2`), 400, "unsupported_value", "n", "one answer"},
		"tools":                {askedWith(good, `,"tools":[{"type":"function"}]`), 400, "unsupported_value", "tools", "calls no tools"},
		"penalty":              {askedWith(good, `,"presence_penalty":0.5`), 400, "unsupported_value", "presence_penalty", "repetition_penalty"},
		"temperature":          {askedWith(good, `,"temperature":3`), 400, "invalid_value", "temperature", "from 0 to 2"},
		"top without logprobs": {askedWith(good, `,"top_logprobs":2`), 400, "invalid_value", "top_logprobs", "whose logprobs is true"},
		"temperature a string": {askedWith(good, `,"temperature":"1"`), 400, "invalid_value", "temperature", "not a number"},
		"half a token":         {askedWith(good, `,"max_tokens":1.5`), 400, "invalid_value", "max_tokens", "integer"},
		"no time":              {askedWith(good, `,"timeout":0`), 400, "invalid_value", "timeout", "from 0.001 to 600"},
		"no token":             {askedWith(good, `,"max_tokens":0`), 400, "invalid_value", "max_tokens", "from 1"},
		"seed too large":       {askedWith(good, `,"seed":1e30`), 400, "invalid_value", "seed", "integer"},
		"stop":                 {askedWith(good, `,"stop":[1]`), 400, "invalid_value", "stop", "list of strings"},
		"stream":               {askedWith(good, `,"stream":"yes"`), 400, "invalid_value", "stream", "true or false"},
		"stream options":       {askedWith(good, `,"stream":true,"stream_options":{"x":1}`), 400, "unknown_parameter", "stream_options.x", "stream_options.x"},
		"format":               {askedWith(good, `,"response_format":{"type":"xml"}`), 400, "invalid_value", "response_format.type", "json_schema"},
		"format without one":   {askedWith(good, `,"response_format":{"type":"json_schema","json_schema":{"name":"x"}}`), 400, "invalid_value", "response_format.json_schema.schema", "missing"},
		"no messages":          {`{"model":"talker"}`, 400, "invalid_value", "messages", "no list"},
		"empty messages":       {messages(`[]`), 400, "invalid_value", "messages", "0 messages"},
		"many messages":        {messages("[" + strings.Repeat(`{"role":"user","content":"x"},`, 256) + user + "]"), 400, "invalid_value", "messages", "257"},
		"message a string":     {messages(`["hi"]`), 400, "invalid_value", "messages[0]", "no JSON object"},
		"role":                 {messages(`[{"role":"tool","content":"x"}]`), 400, "invalid_value", "messages[0].role", "assistant"},
		"member of a message":  {messages(`[{"role":"user","content":"x","weight":1}]`), 400, "unknown_parameter", "messages[0].weight", "weight"},
		"tool calls":           {messages(`[{"role":"assistant","content":"x","tool_calls":[{}]}]`), 400, "unsupported_value", "messages[0].tool_calls", "text and images"},
		"no content":           {messages(`[{"role":"user"}]`), 400, "invalid_value", "messages[0].content", "neither"},
		"no parts":             {messages(`[{"role":"user","content":[]}]`), 400, "invalid_value", "messages[0].content", "0 parts"},
		"part":                 {messages(`[{"role":"user","content":[{"type":"input_audio"}]}]`), 400, "invalid_value", "messages[0].content[0].type", "image_url"},
		"text no string":       {messages(`[{"role":"user","content":[{"type":"text","text":5}]}]`), 400, "invalid_value", "messages[0].content[0].text", "string"},
		"image of the system":  {messages(`[{"role":"system","content":[{"type":"image_url","image_url":{"url":"dicom:1.2"}}]}]`), 400, "invalid_value", "messages[0].content[0].type", "user's"},
		"no URL":               {messages(`[{"role":"user","content":[{"type":"image_url","image_url":{}}]}]`), 400, "invalid_value", "messages[0].content[0].image_url.url", "missing"},
		"50 images":            {messages("[" + strings.Repeat(user+",", 49) + user + "]"), 400, "too_many_images", "messages", "more than 1 images"},
		"from elsewhere":       {image("https://example.org/a.png"), 400, "invalid_value", "messages[0].content[0].image_url.url", "fetches nothing"},
		"file":                 {image("file:///etc/passwd"), 400, "invalid_value", "messages[0].content[0].image_url.url", "fetches nothing"},
		"no UID":               {image("dicom:../../etc"), 400, "invalid_value", "messages[0].content[0].image_url.url", "UIDs"},
		"too deep":             {image("dicom:1.2/3/4/5"), 400, "invalid_value", "messages[0].content[0].image_url.url", "UIDs"},
		"not kept":             {image("dicom:7.7/8"), 404, "not_found", "messages[0].content[0].image_url.url", "nothing of it"},
		"gif":                  {image("data:image/gif;base64,R0lG"), 400, "unsupported_value", "messages[0].content[0].image_url.url", "image/jpeg"},
		"no base64":            {image("data:image/png;base64,????"), 400, "invalid_value", "messages[0].content[0].image_url.url", "base64"},
		"no picture":           {image("data:image/png;base64,AAAA"), 400, "invalid_value", "messages[0].content[0].image_url.url", "neither a PNG nor a JPEG"},
		"1×1":                  {image(dataURL("image/png", pngOf(t, grayPicture(1)))), 400, "invalid_value", "messages[0].content[0].image_url.url", "1×1"},
		"20,000²":              {image(dataURL("image/png", hugePNG(20_000, 20_000))), 400, "invalid_value", "messages[0].content[0].image_url.url", "20000×20000"},
		"20,000² JPEG":         {image(dataURL("image/jpeg", hugeJPEG(20_000, 20_000))), 400, "invalid_value", "messages[0].content[0].image_url.url", "20000×20000"},
		"1×1 JPEG":             {image(dataURL("image/jpeg", hugeJPEG(1, 1))), 400, "invalid_value", "messages[0].content[0].image_url.url", "1×1"},
		"progressive JPEG":     {image(dataURL("image/jpeg", hugeJPEG(16_000, 16_000))), 400, "invalid_value", "messages[0].content[0].image_url.url", "32 million"},
		"too many pixels":      {image(dataURL("image/png", hugePNG(16_000, 16_000))), 400, "invalid_value", "messages[0].content[0].image_url.url", "32 million"},
		"pixels missing":       {image(dataURL("image/png", hugePNG(640, 640))), 400, "invalid_image", "messages[0].content[0].image_url.url", "damaged"},
		"too large":            {image("data:image/png;base64," + strings.Repeat("A", 33<<20)), 413, "request_too_large", "", "32 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			r := s.v1("POST", "/v1/chat/completions", c.body)
			message, kind, code, param := r.fault(t)
			if r.StatusCode != c.status || kind != "invalid_request_error" || code != c.code || param != c.param || !strings.Contains(message, c.says) {
				t.Errorf("%d %s", r.StatusCode, r.body)
			}
		})
	}
	if n := len(k.images); n > 0 {
		t.Errorf("%d pictures were decoded", n)
	}
	if r := s.v1("POST", "/v1/chat/completions", askedWith(good, ""), "Content-Type", "text/plain"); r.StatusCode != 415 {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
	for path, status := range map[string]int{"/v1/nothing": 404, "/v1/models/other": 404, "/v1/chat/completions": 405} {
		r := s.v1("GET", path, "")
		if r.fault(t); r.StatusCode != status {
			t.Errorf("%s: %d %s", path, r.StatusCode, r.body)
		}
	}
}

// What the model says comes with the status that clients know.
func TestChatFailures(t *testing.T) {
	k := &talker{}
	s := talks(t, k)
	for _, c := range []struct {
		err               error
		status            int
		code, param, says string
	}{
		{fmt.Errorf("%w: 256 requests wait", pipeline.ErrBusy), 429, "busy", "", "256 requests wait"},
		{&pipeline.ChatError{Param: "messages", Code: "context_length_exceeded", Err: fmt.Errorf("%w: 700 of 512", pipeline.ErrInvalid)}, 400, "context_length_exceeded", "messages", "700 of 512"},
		{pipeline.Refusal{Reason: pipeline.NotFrontal, Detail: "it is lateral"}, 400, "image_not_read", "", "it is lateral"},
		{fmt.Errorf("%w: half a sentence", pipeline.ErrModel), 500, "failed", "", "the model failed"},
		{errors.New("secret"), 500, "failed", "", "its log says why"},
		{context.DeadlineExceeded, 408, "timeout", "", "took longer than it may"},
	} {
		k.err = c.err
		for _, stream := range []string{"", `,"stream":true`} {
			r := s.v1("POST", "/v1/chat/completions", askedWith("dicom:1.2", stream))
			message, _, code, param := r.fault(t)
			if r.StatusCode != c.status || code != c.code || param != c.param || !strings.Contains(message, c.says) || strings.Contains(message, "secret") {
				t.Errorf("%v: %d %s", c.err, r.StatusCode, r.body)
			}
			if busy := c.status == 429; busy != (r.Header.Get("Retry-After") != "") {
				t.Errorf("%v: %v", c.err, r.Header)
			}
		}
	}
}

func TestModels(t *testing.T) {
	s := talks(t, &talker{})
	var list struct {
		Object string
		Data   []struct{ ID, Object string }
	}
	if r := s.v1("GET", "/v1/models/talker", ""); !strings.Contains(string(r.body), "talker may never have been taught to answer questions") || !strings.Contains(string(r.body), "Its intended use: tests") {
		t.Errorf("%s", r.body)
	}
	r := s.v1("GET", "/v1/models", "")
	if err := json.Unmarshal(r.body, &list); err != nil || list.Object != "list" || len(list.Data) != 1 || list.Data[0].ID != "talker" || list.Data[0].Object != "model" ||
		!strings.Contains(string(r.body), "poorly") || !strings.Contains(string(r.body), `"intended_use":"tests"`) {
		t.Errorf("%v %s", err, r.body)
	}
	if r := s.v1("GET", "/v1/models/talker", ""); r.StatusCode != 200 || !strings.Contains(string(r.body), `"id":"talker"`) {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
	if r := start(t).v1("GET", "/v1/models", ""); r.StatusCode != 404 {
		t.Errorf("a service that does not answer: %d", r.StatusCode)
	}
}

// More requests, or more bytes, than the service takes are told to come again.
func TestChatIsBounded(t *testing.T) {
	t.Cleanup(dicomweb.SetChatBytes(1 << 20))
	s := talks(t, &talker{})
	var slow []*io.PipeWriter
	var wait sync.WaitGroup
	for range 7 {
		r, w := io.Pipe()
		slow = append(slow, w)
		wait.Go(func() {
			req, _ := http.NewRequest("POST", strings.TrimSuffix(s.root, dicomweb.Root)+"/v1/chat/completions", r)
			req.Header.Set("Content-Type", "application/json")
			if resp, err := http.DefaultClient.Do(req); err == nil {
				resp.Body.Close()
			}
		})
		_, _ = w.Write(bytes.Repeat([]byte(" "), 130<<10))
	}
	busy := false
	for range 100 {
		if r := s.v1("POST", "/v1/chat/completions", askedWith("dicom:1.2", strings.Repeat(" ", 200<<10))); r.StatusCode == 429 && r.Header.Get("Retry-After") != "" {
			busy = true
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if !busy {
		t.Error("the service takes more bytes than it may")
	}
	for _, w := range slow {
		w.CloseWithError(errors.New("gone"))
	}
	wait.Wait()
	free := false
	for range 100 {
		if r := s.v1("POST", "/v1/chat/completions", askedWith("dicom:1.2", strings.Repeat(" ", 200<<10))); r.StatusCode == 200 {
			free = true
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if !free {
		t.Error("what the requests took was not given back")
	}
}
