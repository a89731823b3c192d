package modelrt

import (
	"context"
	"slices"

	"chatxray/pipeline"
)

// settle feeds what every next turn of a conversation begins with: the answer as it is tokenised when it comes back, its end, the marks of the
// user's message. It is done while whoever asked reads the answer, and only where the engine has nothing else to do.
func (m *Model) settle(r pipeline.ChatRequest, answer string, seen []*chatSight) {
	if waiting, active := m.engine.load(); waiting+active > 0 || m.bundle.Manifest.Decoder.Mask == maskPrefix {
		return
	}
	grids := make([]raster, len(seen))
	for i, s := range seen {
		grids[i] = s.grid
	}
	say := func(role pipeline.ChatRole, text string) pipeline.ChatMessage {
		return pipeline.ChatMessage{Role: role, Parts: []pipeline.ChatPart{{Text: text}}}
	}
	next := func(question string) *placing {
		said, err := m.prompt.render(append(slices.Clone(r.Messages), say(pipeline.RoleAssistant, answer), say(pipeline.RoleUser, question)))
		if err != nil {
			return nil
		}
		l, err := m.prompt.place(said, grids)
		if err != nil {
			return nil
		}
		return l
	}
	l, other := next("Why"), next("7")
	if l == nil || other == nil {
		return
	}
	n := 0
	for n < len(l.ids) && n < len(other.ids) && l.ids[n] == other.ids[n] {
		n++
	}
	if l = l.begins(n); l == nil || n >= m.bundle.Manifest.Decoder.MaxLength {
		return
	}
	t := m.chatText(l, seen)
	t.ctx, t.class = context.Background(), classIdle
	t.choose = func([]float32) (int32, float64, error) { return 0, 0, nil }
	t.take = func(int32, float64) bool { return false }
	_ = m.engine.write(t) // whoever asks next feeds it himself where this has failed
}

// later runs what nobody waits for; end waits for it.
func (t *talks) later(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ended {
		t.settling.Go(f)
	}
}

func (t *talks) end() {
	t.mu.Lock()
	t.ended = true
	t.mu.Unlock()
	t.settling.Wait()
}

// begins is the first n places, where those hold the images; else nil.
func (p *placing) begins(n int) *placing {
	if n == 0 || slices.ContainsFunc(p.image[n:], func(e int32) bool { return e >= 0 }) || slices.Max(p.upto[:n]) > int32(n) {
		return nil
	}
	return &placing{ids: p.ids[:n], image: p.image[:n], position: p.position[:n], upto: p.upto[:n], step: p.step}
}
