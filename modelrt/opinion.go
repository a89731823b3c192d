package modelrt

import (
	"context"
	"fmt"
	"strings"

	"chatxray/pipeline"
)

// opinionAsked is what bundles with a chat template are asked that have no words of their own for it. It stands before the draft.
const opinionAsked = "Read this draft of a radiology report. Say in a few sentences what of its wording is unclear, contradicts itself, or is missing. You do not see the image.\n\n"

// Opinion writes what the model thinks of the wording of a draft, in one of its languages (empty is the task's). It sees no image. The draft
// is text, whatever it spells. Tokens are chosen greedily.
//
// Errors: ErrUnsupported where the bundle does not write the language, or has no prompt for opinions; a *pipeline.ChatError with numbers where
// the draft leaves no room for an answer; else those of Chat.
func (m *Model) Opinion(ctx context.Context, draft, language string) (*pipeline.ChatAnswer, error) {
	f := m.bundle.Manifest
	if language == "" {
		language = m.task.language
	}
	language, err := f.Language(language)
	if err != nil {
		return nil, err
	}
	l, err := m.opinionPlaces(draft, language)
	if err != nil {
		return nil, err
	}
	if n := len(l.ids); n >= f.Decoder.MaxLength {
		return nil, overflow("the draft and the question about it have %d tokens; the context of %s is %d tokens with the answer", n, f.Name, f.Decoder.MaxLength)
	}
	w, err := m.newWriter(pipeline.ChatRequest{Language: language, Sampling: pipeline.DefaultSampling(), Stop: f.Generation.StopStrings})
	if err != nil {
		return nil, err
	}
	t := m.chatText(l, nil)
	w.begin(t.ids, f.Decoder.MaxLength)
	t.ctx, t.class, t.choose, t.take = ctx, classRoutine, w.choose, w.take
	err = m.engine.write(t)
	close(w.pieces)
	if err == nil {
		err = w.err
	}
	if err != nil {
		return nil, fmt.Errorf("an opinion by %s: %w", f.Name, err)
	}
	var said strings.Builder
	for piece := range w.pieces {
		said.WriteString(piece.Text)
	}
	a := &pipeline.ChatAnswer{End: w.end, Prompt: len(l.ids), Reused: t.reused, Written: w.count, Model: m.Ref(), Language: w.language, Spent: t.spent}
	a.Text = strings.TrimSpace(said.String())
	return a, nil
}

// CanOpine says why Opinion would be refused in a language, whatever the draft.
func (m *Manifest) CanOpine(language string) error {
	language, err := m.Language(language)
	switch w := m.Wording(language); {
	case err != nil:
		return err
	case m.Kind == KindRemote: // an endpoint is asked in words
		if m.Remote.Prompt == "" {
			return fmt.Errorf("%w: bundle %s has no words to ask for an opinion (remote.prompt)", pipeline.ErrUnsupported, m.Name)
		}
	case w.Opinion == "" && (m.Prompt.ChatTemplate == "" || !isEnglish(language)):
		return fmt.Errorf("%w: bundle %s has no prompt for an opinion in %q (prompts.%s.opinion)", pipeline.ErrUnsupported, m.Name, language, language)
	}
	return nil
}

// WeightsBytes is how much memory the weights of the preferred form take here.
func (b *Bundle) WeightsBytes() int64 {
	if b.Manifest.Kind == KindRemote {
		return 0
	}
	if b.Manifest.Base.Part == "" {
		n := int64(0)
		for _, f := range b.Manifest.Files {
			n += f.Bytes
		}
		return n
	}
	return b.Manifest.Base.Forms[0].WeightsBytes
}

// opinionPlaces lays the question about a draft: in the bundle's own words, or, in English, in ours through its chat template.
func (m *Model) opinionPlaces(draft, language string) (*placing, error) {
	f := m.bundle.Manifest
	if err := f.CanOpine(language); err != nil {
		return nil, err
	}
	own := f.Wording(language).Opinion
	if own == "" {
		said, err := m.prompt.render([]pipeline.ChatMessage{{Role: pipeline.RoleUser, Parts: []pipeline.ChatPart{{Text: opinionAsked + draft}}}})
		if err != nil {
			return nil, err
		}
		return m.prompt.place(said, nil)
	}
	before, after, _ := strings.Cut(own, draftMark)
	k := m.prompt.tokenizer
	l := &placing{step: [3]int32{1, 1, 1}}
	l.text(k.EncodeTemplate(before)...)
	l.text(k.Encode(draft)...)
	l.text(k.EncodeTemplate(after)...)
	if m.prompt.family.lay != nil {
		m.prompt.family.lay(l, nil, nil)
	}
	return l, nil
}

func isEnglish(tag string) bool {
	base, _, _ := strings.Cut(tag, "-")
	return strings.EqualFold(base, "en")
}
