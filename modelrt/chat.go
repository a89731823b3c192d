package modelrt

import (
	"context"
	"fmt"
	"slices"
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
	settling   sync.WaitGroup
	ended      bool // nothing more is done later
}

// chatSight is what is remembered of an image: its embeddings, and what they were made of.
type chatSight struct {
	image []float32
	grid  raster
	keys  []uint64           // of the places of the embeddings
	at    Placement          // of the image in the tensor
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
	return pipeline.ModelCard{Ref: m.Ref(), Languages: f.Languages, Context: f.Decoder.MaxLength, Images: m.prompt.images, ImageTokens: f.Vision.ImageTokens,
		IntendedUse: f.IntendedUse, License: f.License}
}

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
	said, images, err := m.conversation(r)
	if err != nil {
		return nil, err
	}
	l, err := m.chatPlaces(r, said, m.leastImages(len(images)))
	if err != nil {
		return nil, err
	}
	if r.Evidence {
		if err := m.asksReport(l); err != nil {
			return nil, err
		}
	}
	w, err := m.newWriter(r)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	a := &pipeline.ChatAnswer{Model: m.Ref(), Language: w.language}
	var seen []*chatSight
	for _, i := range images {
		s, err := m.sightOf(ctx, i)
		if err != nil {
			return nil, err
		}
		if s.input != nil {
			a.Inputs = append(a.Inputs, *s.input)
		}
		seen = append(seen, s)
	}
	if m.bundle.Manifest.bySize() {
		grids := make([]raster, len(seen))
		for i, s := range seen {
			grids[i] = s.grid
		}
		if l, err = m.chatPlaces(r, said, grids); err != nil {
			return nil, err
		}
	}
	a.Prompt = len(l.ids)
	t := m.chatText(l, seen)
	w.begin(t.ids, m.bundle.Manifest.Decoder.MaxLength)
	t.ctx, t.class, t.form, t.choose, t.take = ctx, classChat, r.Schema != nil, w.choose, w.take
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
	if n := len(seen) - 1; n >= 0 && r.Schema == nil {
		a.Boxes = m.boxes(w.ids, n, seen[n].at)
	}
	m.talks.later(func() { m.settle(r, a.Text, seen) })
	if r.Evidence {
		a.Evidence, err = m.chatEvidence(ctx, w.ids[:len(a.Tokens)])
	}
	return a, err
}

// asksReport tells whether a prompt is that of a report. The decoys' places are after that prompt, so that nothing else can be weighed.
func (m *Model) asksReport(l *placing) error {
	if slices.Equal(l.ids, m.prompt.template.ids) {
		return nil
	}
	return &pipeline.ChatError{Param: "evidence", Code: "unsupported_value", Err: fmt.Errorf("%w: evidence of another answer than a report: "+
		"the messages must be one, of the image and of the words that the bundle asks with (prompt.instruction)", pipeline.ErrUnsupported)}
}

// chatEvidence weighs the tokens of a report under other images.
func (m *Model) chatEvidence(ctx context.Context, ids []int32) (*pipeline.ChatEvidence, error) {
	rows, _, err := m.scoreOthers(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("weighing the answer with %s: %w", m.bundle.Manifest.Name, err)
	}
	last := len(rows) - 1
	return &pipeline.ChatEvidence{Decoys: rows[:last], Blank: rows[last]}, nil
}

// leastImages are the grids of n images before they are seen: the only ones there are, or, where they follow from an image's size, the smallest.
func (m *Model) leastImages(n int) []raster {
	grid := raster{1, 1}
	if m.bundle.Manifest.sighted() && !m.bundle.Manifest.bySize() {
		grid = m.bundle.Manifest.usualImage()[0]
	}
	return slices.Repeat([]raster{grid}, n)
}

// chatPlaces lays a conversation and says where it does not fit.
func (m *Model) chatPlaces(r pipeline.ChatRequest, said string, images []raster) (*placing, error) {
	l, err := m.prompt.place(said, images)
	if err != nil {
		return nil, &pipeline.ChatError{Param: "messages", Err: err}
	}
	ofImages, n, context := 0, len(l.ids), m.bundle.Manifest.Decoder.MaxLength
	for _, e := range l.image {
		if e >= 0 {
			ofImages++
		}
	}
	switch {
	case n >= context:
		return nil, overflow("the messages have %d tokens, %d of them for the image; the context of this model is %d tokens with the answer", n, ofImages, context)
	case n+r.MaxTokens > context:
		return nil, overflow("the messages have %d tokens and the answer may have %d; the context of this model is %d tokens, which leaves %d", n, r.MaxTokens, context, context-n)
	}
	return l, l.check(context)
}

// chatText makes what the engine is given of a prompt and of what was seen of its images.
func (m *Model) chatText(l *placing, seen []*chatSight) *text {
	var keys []uint64
	var rows []float32
	for _, s := range seen {
		keys, rows = append(keys, s.keys...), append(rows, s.image...)
	}
	if len(seen) == 1 {
		rows = seen[0].image // not copied
	}
	t, hidden := &text{adapter: m.worn, places: l, keys: l.keys(keys), ids: slices.Clone(l.ids)}, m.bundle.Manifest.Decoder.Hidden
	for i := 0; i < len(l.ids); i++ {
		from := i
		for i < len(l.ids) && l.image[i] >= 0 {
			t.ids[i] = -1
			i++
		}
		if i > from {
			first := int(l.image[from]) * hidden
			t.pictures = append(t.pictures, placed{from, rows[first : first+(i-from)*hidden]})
		}
	}
	return t
}

// longestToken is more bytes than a token spells.
const longestToken = 1024

func overflow(format string, a ...any) error {
	return &pipeline.ChatError{Param: "messages", Code: "context_length_exceeded", Err: fmt.Errorf("%w: %s", pipeline.ErrInvalid, fmt.Sprintf(format, a...))}
}

// checkMessages wants instructions, then question and answer, the last a question, and as many images as the model takes.
func checkMessages(messages []pipeline.ChatMessage, least, most int) error {
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
	case most == 0 && images > 0:
		return fmt.Errorf("%w: the messages have %d images; this model reads text and takes none", pipeline.ErrInvalid, images)
	case images < least, images > most && least > 0:
		return fmt.Errorf("%w: the messages have %d images; this model answers about %s", pipeline.ErrInvalid, images, howMany(most))
	case images > most:
		return fmt.Errorf("%w: the messages have %d images; this model takes up to %d", pipeline.ErrInvalid, images, most)
	}
	return nil
}

// howMany images a conversation may have.
func howMany(most int) string {
	if most == 1 {
		return "exactly 1"
	}
	return fmt.Sprintf("1 to %d", most)
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
	seen, err := m.see(ctx, img, classChat)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", i.Name, err)
	}
	s = &chatSight{image: seen.image, grid: seen.grid, keys: imageKeys(seen.image, seen.grid.count()), at: m.pre.Place(img)}
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
