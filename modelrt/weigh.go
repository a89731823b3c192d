package modelrt

import (
	"context"
	"fmt"
	"slices"

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
	sentences, err := a.sentences(m.task.prefix)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", pipeline.ErrInvalid, err)
	}
	others, _, err := m.scoreOthers(ctx, a.tokens)
	if err != nil {
		return nil, err
	}
	var all [][]pipeline.Sentence
	for _, img := range images {
		seen, err := m.see(ctx, img, classRoutine)
		if err != nil {
			return nil, err
		}
		prompt, err := m.composeFor(ctx, m.task.template, []*sight{seen})
		if err != nil {
			return nil, err
		}
		own, _, err := m.scoreAfter(ctx, classRoutine, prompt, a.tokens)
		if err != nil {
			return nil, err
		}
		rows, err := besides(own, others, seen.twins)
		if err != nil {
			return nil, err
		}
		weighed := slices.Clone(sentences)
		weigh(weighed, rows)
		m.calibrate(weighed)
		all = append(all, weighed)
	}
	return all, nil
}
