package modelrt

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"unicode/utf8"

	"chatxray/modelrt/guard"
	"chatxray/pipeline"
)

// talks is what conversations share. The mutex is over all of it.
type talks struct {
	mu         sync.Mutex
	vocabulary *guard.Vocabulary
	guards     map[string]*guard.Guard // by language
	forms      recent[string, *guard.Grammar]
	sights     recent[pipeline.Digest, *chatSight]
}

// chatSight is what is remembered of an image: its embeddings, and what they were made of.
type chatSight struct {
	image []float32
	input *pipeline.InputRef // nil for a picture that is no DICOM object
}

// What is remembered at most.
const (
	keptSights = 64 << 20 // bytes
	keptForms  = 8
)

// Card tells who answers.
func (m *Model) Card() pipeline.ModelCard {
	f := m.bundle.Manifest
	return pipeline.ModelCard{Ref: m.Ref(), Languages: f.Languages, Context: f.Decoder.MaxLength, Images: chatImages, ImageTokens: f.Vision.ImageTokens,
		IntendedUse: f.IntendedUse, License: f.License}
}

// chatImages is how many images a conversation has: the bundles of this format know one image.
const chatImages = 1

// Chat writes the next message of a conversation and hands it to emit, when that is not nil, as it comes: whole characters, never the
// beginning of a stop string. Emit may be slow; an error from it ends the answer and comes back. What the answer's language and form do not
// allow is never written. The same request gives the same answer, whatever else the model does.
//
// Images of the last conversations are remembered by their content, and the engine knows the places of earlier turns, so that another turn
// costs what is new in it.
//
// When ctx ends, the answer's slot is free within some milliseconds and Chat returns ctx's cause. Other errors are a *pipeline.ChatError for
// what is wrong in the request, those of ChatImage.Load, a pipeline.Refusal, or wrap ErrModel, ErrBusy (too many wait) or ErrNotFound (the
// model is closed).
func (m *Model) Chat(ctx context.Context, r pipeline.ChatRequest, emit func(pipeline.ChatPiece) error) (*pipeline.ChatAnswer, error) {
	p, err := m.chatPrompt(r)
	if err != nil {
		return nil, err
	}
	w, err := m.newWriter(r, p)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	a := &pipeline.ChatAnswer{Prompt: len(p.ids), Model: m.Ref(), Language: w.language}
	t := &text{ctx: ctx, class: classChat, adapter: m.worn, ids: p.ids, choose: w.choose, take: w.take}
	for _, i := range p.images {
		s, err := m.sightOf(ctx, i.image)
		if err != nil {
			return nil, err
		}
		if s.input != nil {
			a.Inputs = append(a.Inputs, *s.input)
		}
		t.pictures = append(t.pictures, placed{i.at, s.image})
	}
	t.keys = p.keys(t.pictures, m.bundle.Manifest.Vision.ImageTokens)
	written := make(chan error, 1)
	go func() {
		written <- m.engine.write(t)
		close(w.pieces)
	}()
	var all strings.Builder
	for piece := range w.pieces {
		all.WriteString(piece.Text)
		a.Tokens = append(a.Tokens, piece.Tokens...)
		if emit != nil && ctx.Err() == nil {
			if err := emit(piece); err != nil {
				cancel(err)
			}
		}
	}
	if err := <-written; err != nil {
		return nil, fmt.Errorf("answering with %s: %w", m.bundle.Manifest.Name, err)
	}
	if err := context.Cause(ctx); err != nil { // emit's, about the last piece
		return nil, err
	}
	if w.err != nil {
		return nil, fmt.Errorf("answering with %s: %w", m.bundle.Manifest.Name, w.err)
	}
	a.Text, a.End, a.Written, a.Reused, a.Spent = all.String(), w.end, w.count, t.reused, t.spent
	return a, nil
}

// chatPrompt is the tokens of a conversation; those of images are -1.
type chatPrompt struct {
	ids    []int32
	images []chatPlace
}

type chatPlace struct {
	at    int
	image *pipeline.ChatImage
}

// keys names the places of a prompt.
func (p *chatPrompt) keys(pictures []placed, places int) []uint64 {
	keys := make([]uint64, len(p.ids))
	for i, id := range p.ids {
		keys[i] = uint64(uint32(id))
	}
	for _, s := range pictures {
		copy(keys[s.at:], imageKeys(s.rows, places))
	}
	return keys
}

// chatPrompt checks and tokenises the messages.
func (m *Model) chatPrompt(r pipeline.ChatRequest) (*chatPrompt, error) {
	if f := or(m.bundle.Manifest.Family, defaultFamily); f != defaultFamily {
		return nil, &pipeline.ChatError{Param: "model", Err: fmt.Errorf("%w: conversations with models of the family %s; it writes reports only", pipeline.ErrUnsupported, f)}
	}
	if err := checkMessages(r.Messages); err != nil {
		return nil, &pipeline.ChatError{Param: "messages", Err: err}
	}
	stretches, err := m.chatTemplate(r.Messages)
	if err != nil {
		return nil, err
	}
	bytes, context := 0, m.bundle.Manifest.Decoder.MaxLength
	for _, s := range stretches {
		bytes += len(s.text)
	}
	if bytes > longestToken*context { // not worth counting
		return nil, overflow("the messages have %d bytes, which cannot be %d tokens, the context of this model", bytes, context)
	}
	p := &chatPrompt{}
	for _, s := range stretches {
		switch {
		case s.image != nil:
			p.images = append(p.images, chatPlace{len(p.ids), s.image})
			for range m.bundle.Manifest.Vision.ImageTokens {
				p.ids = append(p.ids, -1)
			}
		case s.ours:
			p.ids = append(p.ids, m.prompt.tokenizer.EncodeTemplate(s.text)...)
		default:
			p.ids = append(p.ids, m.prompt.tokenizer.Encode(s.text)...)
		}
	}
	switch n := len(p.ids); {
	case n >= context:
		return nil, overflow("the messages have %d tokens, %d of them for the image; the context of this model is %d tokens with the answer", n, m.bundle.Manifest.Vision.ImageTokens*len(p.images), context)
	case n+r.MaxTokens > context:
		return nil, overflow("the messages have %d tokens and the answer may have %d; the context of this model is %d tokens, which leaves %d", n, r.MaxTokens, context, context-n)
	}
	return p, nil
}

// longestToken is more bytes than a token spells.
const longestToken = 1024

func overflow(format string, a ...any) error {
	return &pipeline.ChatError{Param: "messages", Code: "context_length_exceeded", Err: fmt.Errorf("%w: %s", pipeline.ErrInvalid, fmt.Sprintf(format, a...))}
}

// checkMessages wants instructions, then question and answer, the last a question, and the images that the model needs.
func checkMessages(messages []pipeline.ChatMessage) error {
	invalid := func(i int, what string) error { return fmt.Errorf("%w: message %d %s", pipeline.ErrInvalid, i+1, what) }
	images, spoken := 0, false
	for i, s := range messages {
		switch s.Role {
		case pipeline.RoleSystem:
			if spoken {
				return invalid(i, "is the system's, but others came before it")
			}
		case pipeline.RoleUser, pipeline.RoleAssistant:
			spoken = true
		default:
			return invalid(i, "is of nobody that this model knows")
		}
		if len(s.Parts) == 0 {
			return invalid(i, "is empty")
		}
		for _, p := range s.Parts {
			switch {
			case p.Image != nil && s.Role != pipeline.RoleUser:
				return invalid(i, "has an image, but only the user's may have one")
			case p.Image != nil:
				images++
			case !utf8.ValidString(p.Text):
				return invalid(i, "is no UTF-8")
			}
		}
	}
	switch {
	case len(messages) == 0 || messages[len(messages)-1].Role != pipeline.RoleUser:
		return fmt.Errorf("%w: the last message must be the user's", pipeline.ErrInvalid)
	case images != chatImages:
		return fmt.Errorf("%w: the messages have %d images; this model answers about exactly %d", pipeline.ErrInvalid, images, chatImages)
	}
	return nil
}

// stretch is a part of a prompt: text of ours, in which special tokens are recognised; text of others, in which they are not; or an image.
type stretch struct {
	text  string
	ours  bool
	image *pipeline.ChatImage
}

// chatTemplate renders a conversation up to where the answer begins. The template is ChatML, of which prompt.template must be one turn:
// then a conversation of one image and the report's instruction is the report's prompt, token by token. Parts of a message are lines.
func (m *Model) chatTemplate(messages []pipeline.ChatMessage) ([]stretch, error) {
	const begin, end, answer = "<|im_start|>", "<|im_end|>", "assistant\n"
	template := m.bundle.Manifest.Prompt.Template
	if !strings.HasPrefix(template, begin+"user\n") || !strings.HasSuffix(template, end+"\n"+begin+answer) {
		return nil, fmt.Errorf("%w: bundle %s has no template of conversations", pipeline.ErrUnsupported, m.bundle.Manifest.Name)
	}
	var out []stretch
	for _, s := range messages {
		out = append(out, stretch{text: begin, ours: true})
		text := string(s.Role) + "\n"
		for i, p := range s.Parts {
			if i > 0 {
				text += "\n"
			}
			if p.Image != nil {
				out = append(out, stretch{text: text}, stretch{image: p.Image})
				text = ""
				continue
			}
			text += p.Text
		}
		out = append(out, stretch{text: text}, stretch{text: end, ours: true}, stretch{text: "\n"})
	}
	return append(out, stretch{text: begin, ours: true}, stretch{text: answer}), nil
}

// sightOf returns what the eyes make of an image, or what is remembered of one with the same content.
func (m *Model) sightOf(ctx context.Context, i *pipeline.ChatImage) (*chatSight, error) {
	m.talks.mu.Lock()
	s, ok := m.talks.sights.get(i.Content)
	m.talks.mu.Unlock()
	if ok {
		return s, nil
	}
	img, err := i.Load(ctx)
	if err != nil {
		return nil, err
	}
	seen, err := m.see(ctx, img)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", i.Name, err)
	}
	s = &chatSight{image: seen.image}
	if img.Instance != nil {
		ref := pipeline.InputOf(img.Instance, img.Frame)
		ref.ViewByModel = img.ViewUnknown
		s.input = &ref
	}
	m.talks.mu.Lock()
	m.talks.sights.put(i.Content, s, 4*len(s.image), keptSights)
	m.talks.mu.Unlock()
	return s, nil
}
