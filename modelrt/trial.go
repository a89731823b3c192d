package modelrt

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"chatxray/modelrt/kernel"
	"chatxray/pipeline"
)

// Trial is what two models are compared on: an image to report on, or, where Image is nil, a prompt for a model of text; empty is the bundle's own.
type Trial struct {
	Image  *pipeline.Image
	Prompt string
}

// Tried is what a model wrote, greedily.
type Tried struct {
	Tokens   []int32
	Findings []pipeline.Finding // of an image
}

// Try writes the report of an image, or what follows a prompt.
func (m *Model) Try(ctx context.Context, t Trial) (*Tried, error) {
	if t.Image != nil {
		seen, err := m.see(ctx, t.Image, classRoutine)
		if err != nil {
			return nil, err
		}
		a, err := m.write(ctx, seen, classRoutine)
		if err != nil && !(errors.Is(err, pipeline.ErrModel) && a != nil && len(a.tokens) > 0) { // what may not leave can still be compared
			return nil, err
		}
		tried := &Tried{Tokens: a.tokens}
		written, err := m.parse(a)
		if err != nil {
			written = &contents{} // nothing is said
		}
		tried.Findings, err = m.findings(written, seen.scores)
		return tried, err
	}
	tried := &Tried{}
	said, err := m.composeFor(ctx, cmp.Or(t.Prompt, m.task.template), nil)
	if err != nil {
		return nil, err
	}
	limit := min(m.limit, m.prompt.longest-len(said.keys))
	return tried, m.engine.write(&text{ctx: ctx, class: classRoutine, adapter: m.worn, prompt: said.embeds, keys: said.keys, places: said.places, choose: greedyWithin(m.guard),
		take: func(id int32, _ float64) bool {
			if m.prompt.stops[id] {
				return false
			}
			tried.Tokens = append(tried.Tokens, id)
			return len(tried.Tokens) < limit
		}})
}

// Followed is how a model takes a text that another one wrote.
type Followed struct {
	Agreed  int           // tokens of the text that the model would have chosen in their place, after the same tokens
	Each    time.Duration // of decoding a token, the prompt left out
	Decoded int           // tokens that Each is the mean of
}

// Follow feeds a text token by token, as decoding does. Nothing else must be written meanwhile, for the time to mean something.
func (m *Model) Follow(ctx context.Context, t Trial, tokens []int32) (*Followed, error) {
	if len(tokens) == 0 {
		return nil, fmt.Errorf("%w: a text without tokens", pipeline.ErrInvalid)
	}
	var seen []*sight
	prompt := cmp.Or(t.Prompt, m.task.template)
	if t.Image != nil {
		s, err := m.see(ctx, t.Image, classRoutine)
		if err != nil {
			return nil, err
		}
		seen, prompt = append(seen, s), m.task.template
	}
	said, err := m.composeFor(ctx, prompt, seen)
	if err != nil {
		return nil, err
	}
	f, next, state := &Followed{}, 0, m.guard.Start()
	var first, last time.Time
	err = m.engine.write(&text{ctx: ctx, class: classRoutine, adapter: m.worn, prompt: said.embeds, keys: said.keys, places: said.places,
		choose: func(logits []float32) (int32, float64, error) {
			if last = time.Now(); next == 0 {
				first = last
			}
			best, p := kernel.Best(logits)
			if !m.guard.Allows(state, best) {
				m.guard.Mask(state, logits)
				best, _ = kernel.Best(logits)
			}
			if best == tokens[next] {
				f.Agreed++
			}
			var ok bool
			if state, ok = m.guard.Next(state, tokens[next]); !ok {
				return 0, 0, fmt.Errorf("%w: token %d of the text is none that the language allows", pipeline.ErrInvalid, next)
			}
			next++
			return tokens[next-1], p, nil
		},
		take: func(int32, float64) bool { return next < len(tokens) }})
	if err == nil && next > 1 {
		f.Decoded = next - 1
		f.Each = last.Sub(first) / time.Duration(f.Decoded)
	}
	return f, err
}
