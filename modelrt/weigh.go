package modelrt

import (
	"context"
	"fmt"

	"chatxray/pipeline"
)

// Weigh returns, for each image, the sentences of a text with the evidence that they would have, had the model written it about that image.
// The text is anybody's, in the form of the model's reports. Errors are those of Read; ErrInvalid where the text has no sentence or is too long.
func (m *Model) Weigh(ctx context.Context, images []*pipeline.Image, said string) ([][]pipeline.Sentence, error) {
	a := &answer{}
	for _, id := range m.prompt.tokenizer.Encode(said) {
		a.add(id, 0, m.prompt.tokenizer.TokenBytes(id), nil)
	}
	if n := m.prompt.length() + len(a.tokens); n > m.bundle.Manifest.Decoder.MaxLength {
		return nil, fmt.Errorf("%w: prompt and text have %d tokens, decoder.max_length is %d", pipeline.ErrInvalid, n, m.bundle.Manifest.Decoder.MaxLength)
	}
	sentences, err := a.sentences(m.bundle.Manifest.Report.ImpressionPrefix)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", pipeline.ErrInvalid, err)
	}
	others, _, err := m.scoreOthers(ctx, a.tokens)
	if err != nil {
		return nil, err
	}
	var all [][]pipeline.Sentence
	for _, img := range images {
		seen, err := m.see(ctx, img)
		if err != nil {
			return nil, err
		}
		prompt, err := m.composeFor(ctx, m.bundle.Manifest.Prompt.Template, []*sight{seen})
		if err != nil {
			return nil, err
		}
		if a.logprobs, _, err = m.scoreAfter(ctx, classRoutine, prompt, a.tokens); err != nil {
			return nil, err
		}
		weighed, err := a.weighed(sentences, others, seen.twins)
		if err != nil {
			return nil, err
		}
		m.calibrate(weighed)
		all = append(all, weighed)
	}
	return all, nil
}
