package modelrt

import (
	"context"
	"fmt"
	"strings"

	"chatxray/pipeline"
)

// opinionAsked is what bundles of ChatML are asked that have no words of their own for it. It stands before the draft.
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
	before, after, err := f.opinionTemplate(language)
	if err != nil {
		return nil, err
	}
	k := m.prompt.tokenizer
	l := &placing{step: [3]int32{1, 1, 1}}
	l.text(k.EncodeTemplate(before)...)
	l.text(k.Encode(draft)...)
	l.text(k.EncodeTemplate(after)...)
	if m.prompt.family.lay != nil {
		m.prompt.family.lay(l, nil, nil)
	}
	if n := len(l.ids); n >= f.Decoder.MaxLength {
		return nil, overflow("the draft and the question about it have %d tokens; the context of %s is %d tokens with the answer", n, f.Name, f.Decoder.MaxLength)
	}
	p := &chatPrompt{ids: l.ids}
	w, err := m.newWriter(pipeline.ChatRequest{Language: language, Sampling: pipeline.DefaultSampling(), Stop: f.Generation.StopStrings}, p)
	if err != nil {
		return nil, err
	}
	c, err := begin(ctx)
	if err != nil {
		return nil, err
	}
	embeds := make([]float32, len(l.ids)*f.Decoder.Hidden)
	err = m.decoder.lookup(c, l.ids, embeds)
	c.end()
	if err != nil {
		return nil, err
	}
	t := &text{ctx: ctx, class: classRoutine, prompt: embeds, keys: l.keys(nil, f.Decoder.Hidden), places: l, choose: w.choose, take: w.take}
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
	switch {
	case err != nil:
	case m.Kind != KindRemote:
		_, _, err = m.opinionTemplate(language)
	case m.Remote.Prompt == "": // an endpoint is asked in words
		err = fmt.Errorf("%w: bundle %s has no words to ask for an opinion (remote.prompt)", pipeline.ErrUnsupported, m.Name)
	}
	return err
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

// opinionTemplate is the text before and behind a draft: the bundle's own, or of ChatML ours, where the language is English.
func (m *Manifest) opinionTemplate(language string) (before, after string, err error) {
	if own := m.Wording(language).Opinion; own != "" {
		before, after, _ = strings.Cut(own, draftMark)
		return before, after, nil
	}
	const turn, answer = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
	if t := m.Wording(language).Template; strings.HasPrefix(t, turn) && strings.HasSuffix(t, answer) && isEnglish(language) {
		return turn + opinionAsked, answer, nil
	}
	return "", "", fmt.Errorf("%w: bundle %s has no prompt for an opinion in %q (prompts.%s.opinion)", pipeline.ErrUnsupported, m.Name, language, language)
}

func isEnglish(tag string) bool {
	base, _, _ := strings.Cut(tag, "-")
	return strings.EqualFold(base, "en")
}
