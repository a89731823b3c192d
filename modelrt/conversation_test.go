package modelrt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"chatxray/pipeline"
)

// familyChats is testdata/families/NAME.chat.json: conversations as reference code that somebody else wrote tokenises them (train/families/chats.py).
type familyChats struct {
	Reference     string `json:"reference"`
	Conversations []struct {
		Title    string  `json:"title"`
		IDs      []int32 `json:"ids"`  // nil where the reference cannot hold it
		Ours     bool    `json:"ours"` // its form is our own
		Messages []struct {
			Role  pipeline.ChatRole `json:"role"`
			Parts []any             `json:"parts"` // numbers are pictures
		} `json:"messages"`
	} `json:"conversations"`
}

// familyConversations returns the conversations of a family and, for each picture, who counts how often it is decoded.
func familyConversations(t testing.TB, name string, g familyGolden) (chats familyChats, requests map[string]pipeline.ChatRequest, pictures []*asked) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "families", name+".chat.json"))
	if err != nil {
		t.Fatalf("the family %s has no conversations: %v", name, err)
	}
	if err := json.Unmarshal(b, &chats); err != nil {
		t.Fatal(err)
	}
	for i, e := range g.Images[:2] {
		if len(e.Pictures) > 0 {
			img := picture(e.Pictures[0].Gray, e.Pictures[0].Rows, e.Pictures[0].Columns)
			img.Instance.Digest[0] = byte(i + 1)
			pictures = append(pictures, askedAbout(img))
		}
	}
	requests = map[string]pipeline.ChatRequest{}
	for _, c := range chats.Conversations {
		var list []pipeline.ChatMessage
		for _, m := range c.Messages {
			s := pipeline.ChatMessage{Role: m.Role}
			for _, p := range m.Parts {
				if at, ok := p.(float64); ok {
					s.Parts = append(s.Parts, pipeline.ChatPart{Image: &pictures[int(at)].ChatImage})
				} else {
					s = say(s, p.(string))
				}
			}
			list = append(list, s)
		}
		requests[c.Title] = question(list...)
		requests[c.Title] = short(requests[c.Title])
	}
	return chats, requests, pictures
}

func short(r pipeline.ChatRequest) pipeline.ChatRequest {
	r.MaxTokens = 12
	return r
}

// seenPlaces lays a conversation about what its images are.
func seenPlaces(m *Model, r pipeline.ChatRequest) (*placing, error) {
	said, images, err := m.conversation(r)
	if err != nil {
		return nil, err
	}
	var grids []raster
	for _, i := range images {
		s, err := m.sightOf(context.Background(), i)
		if err != nil {
			return nil, err
		}
		grids = append(grids, s.grid)
	}
	return m.chatPlaces(r, said, grids)
}

// TestConversations holds every family's chat template to its reference: the same tokens, or a reason why there are none.
func TestConversations(t *testing.T) {
	untried := maps.Clone(families)
	for _, path := range must(filepath.Glob("testdata/families/*/manifest.json")) {
		name := filepath.Base(filepath.Dir(path))
		delete(untried, must(OpenBundle(filepath.Dir(path))).Manifest.Family)
		t.Run(name, func(t *testing.T) {
			m, g := openFamily(t, name), familyValues(t, name)
			chats, requests, pictures := familyConversations(t, name, g)
			held := 0
			for _, c := range chats.Conversations {
				l, err := seenPlaces(m, requests[c.Title])
				switch {
				case c.IDs != nil:
					held++
					if err != nil || !slices.Equal(l.ids, c.IDs) {
						t.Errorf("%s: %v\n got %v\nwant %v\n of %s", c.Title, err, l, c.IDs, chats.Reference)
					}
				case c.Ours:
					if err != nil {
						t.Errorf("%s: %v", c.Title, err)
					}
				default:
					var wrong *pipeline.ChatError
					if !errors.As(err, &wrong) || wrong.Param != "messages" || !errors.Is(err, pipeline.ErrInvalid) {
						t.Errorf("%s: the reference cannot hold it: %v", c.Title, err)
					} else {
						t.Logf("%s: %v", c.Title, err)
					}
				}
			}
			if held == 0 {
				t.Error("no conversation")
			}
			t.Run("turns", func(t *testing.T) { familyTurns(t, m, name, requests, pictures) })
			t.Run("beside", func(t *testing.T) { familyBeside(t, m, requests) })
			t.Run("guarded", func(t *testing.T) { familyGuarded(t, m, requests) })
			t.Run("refused", func(t *testing.T) { familyRefuses(t, m, pictures) })
		})
	}
	for name := range untried {
		t.Errorf("the family %s has no bundle in testdata/families", name)
	}
}

// familyTurns: the second turn decodes and encodes nothing and feeds only what is new, and answers as a model does that knows nothing of the first.
func familyTurns(t *testing.T, m *Model, name string, requests map[string]pipeline.ChatRequest, pictures []*asked) {
	fresh := openFamily(t, name)
	for _, p := range pictures {
		p.loads = 0
	}
	m.talks.sights = recent[pipeline.Digest, *chatSight]{}
	first := requests["one"]
	first.Messages = slices.Clone(first.Messages)
	one, err := m.Chat(context.Background(), first, nil)
	if err != nil {
		t.Fatal(err)
	}
	second := first
	second.Messages = append(second.Messages, assistant(one.Text), user("Since when?"))
	l, err := seenPlaces(m, second)
	if err != nil {
		t.Fatal(err)
	}
	other := second
	other.Messages = append(slices.Clone(second.Messages[:2]), user("7"))
	known := 0 // whatever is asked
	for o := must(seenPlaces(m, other)); known < len(o.ids) && o.ids[known] == l.ids[known]; known++ {
	}
	m.talks.settling.Wait() // somebody reads the answer
	two, err := m.Chat(context.Background(), second, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(pictures) > 0 && pictures[0].loads != 1 {
		t.Errorf("decoded and encoded %d times", pictures[0].loads)
	}
	if m.bundle.Manifest.Decoder.Mask == maskPrefix {
		known = 0 // every place of a prompt sees what is new in it
	} else if known <= one.Prompt {
		t.Errorf("whatever is asked, %d places are the same; turn 1 had %d", known, one.Prompt)
	}
	if two.Reused != known || two.Prompt != len(l.ids) {
		t.Errorf("turn 2 has %d places, %d of them reused, want %d", two.Prompt, two.Reused, known)
	}
	t.Logf("turn 1: %d places, %d tokens; turn 2: %d places, %d fed", one.Prompt, one.Written, two.Prompt, two.Prompt-two.Reused)
	clean, err := fresh.Chat(context.Background(), second, nil)
	if err != nil || clean.Text != two.Text || clean.Reused != 0 {
		t.Errorf("%v: %q after turn 1, %q alone, %d places reused", err, two.Text, clean.Text, clean.Reused)
	}
}

// familyBeside: conversations held at the same time get the answers that each gets alone.
func familyBeside(t *testing.T, m *Model, requests map[string]pipeline.ChatRequest) {
	alone := map[string]string{}
	for title, r := range requests {
		if a, err := m.Chat(context.Background(), r, nil); err == nil {
			alone[title] = a.Text
		}
	}
	var wait sync.WaitGroup
	for range 2 {
		for title, want := range alone {
			wait.Go(func() {
				if a, err := m.Chat(context.Background(), requests[title], nil); err != nil || a.Text != want {
					t.Errorf("%s: %v: %q, %q alone", title, err, a.Text, want)
				}
			})
		}
	}
	wait.Wait()
}

// familyGuarded: nothing that a message says is a token of the template, an image, or an end, in one part or in several.
func familyGuarded(t *testing.T, m *Model, requests map[string]pipeline.ChatRequest) {
	special := map[int32]bool{}
	var spelled strings.Builder
	p := m.bundle.Manifest.Prompt
	for _, s := range slices.Concat([]string{"<|im_start|>", "<|im_end|>", "<s>", "</s>", "<0x04>", "|SPEAKER|", "|NEWLINE|", "[gMASK]", "<sop>", "<start_of_turn>", "<end_of_turn>",
		"<start_of_image>", "<|vision_start|>", "<img>", "</img>", "<unk>", "<ImageHere>", "IMAGE", p.Sentinel, p.ImageToken, p.RowEnd, p.BOS, p.EOS}, m.bundle.Manifest.Generation.StopTokens) {
		spelled.WriteString(s)
		if id, ok := m.prompt.tokenizer.ID(s); ok && s != "" && m.prompt.tokenizer.Guard(s) != s {
			special[id] = true
		}
	}
	count := func(r pipeline.ChatRequest) (n int) {
		l, err := seenPlaces(m, r)
		if err != nil {
			t.Fatal(err)
		}
		for i, id := range l.ids {
			if special[id] && l.image[i] < 0 {
				n++
			}
		}
		return n
	}
	one := requests["one"]
	one.MaxTokens = 1
	evil := func(parts ...pipeline.ChatPart) pipeline.ChatRequest {
		r := one
		r.Messages = slices.Clone(one.Messages)
		s := &r.Messages[0]
		s.Parts = append(slices.Clone(s.Parts), parts...)
		return r
	}
	want := count(one)
	if got := count(evil(pipeline.ChatPart{Text: spelled.String()})); got != want {
		t.Errorf("%d special tokens, %d of them are the template's", got, want)
	}
	if m.prompt.images > 1 { // an image stands between, which a template may set elsewhere
		image := one.Messages[0].Parts[0]
		cut := "<|im_end|>"
		if p.Sentinel != "" {
			cut += p.Sentinel
		}
		more := count(evil(image))
		for at := 1; at < len(cut); at++ {
			if got := count(evil(pipeline.ChatPart{Text: cut[:at]}, image, pipeline.ChatPart{Text: cut[at:]})); got != more {
				t.Errorf("%q and %q: %d special tokens, %d of them are the template's", cut[:at], cut[at:], got, more)
			}
		}
	}
}

// familyRefuses: what a family cannot hold is refused with the number that it can.
func familyRefuses(t *testing.T, m *Model, pictures []*asked) {
	refused := func(says string, r pipeline.ChatRequest) {
		t.Helper()
		_, err := m.Chat(t.Context(), r, nil)
		var wrong *pipeline.ChatError
		if !errors.As(err, &wrong) || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
	context := m.bundle.Manifest.Decoder.MaxLength
	refused(fmt.Sprintf("context of this model is %d", context), question(user(strings.Repeat("heart ", 2*context), pictures[:min(len(pictures), 1)]...)))
	if len(pictures) == 0 {
		refused("takes none", question(user("Q", picture2())))
		return
	}
	most := howMany(m.prompt.images)
	refused("0 images; this model answers about "+most, question(user("Q")))
	refused("50 images; this model answers about "+most, question(user("Q", slices.Repeat(pictures[:1], 50)...)))
}

// A chat template that is none, never ends, or has no place for the image is refused when the bundle is opened.
func TestChatTemplatesOfBundles(t *testing.T) {
	for _, c := range []struct {
		template string
		sentinel error
		says     string
	}{
		{"{% for", pipeline.ErrInvalid, "chat_template.jinja"},
		{"{% include 'x' %}", pipeline.ErrUnsupported, "include"},
		{"{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}", pipeline.ErrInvalid, "chat_template.jinja"},
		{"{{ 'x' * 2000000 }}", pipeline.ErrInvalid, "bytes"},
		{"{{ raise_exception('no') }}", pipeline.ErrInvalid, "no"},
		{"{{ messages[0].content[1].text }}", pipeline.ErrUnsupported, "places for 0 images, the conversation has 1"},
		{"<image>" + strings.Repeat(" heart", 400), pipeline.ErrInvalid, "decoder.max_length"},
		{"<image>x", nil, ""},
	} {
		dir := copyBundle(t)
		put(t, dir, "chat_template.jinja", []byte(c.template))
		relist(t, dir, nil)
		_, err := Verify(dir)
		if c.sentinel == nil && err != nil || c.sentinel != nil && (!errors.Is(err, c.sentinel) || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%.40q: %v", c.template, err)
		}
	}
}
