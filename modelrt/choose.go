package modelrt

import (
	"fmt"
	"math"

	"chatxray/modelrt/guard"
	"chatxray/modelrt/kernel"
	"chatxray/pipeline"
)

// greedy returns the likeliest token, of equal ones the first, and the natural logarithm of its probability.
func greedy(logits []float32) (int32, float64, error) {
	id, p := kernel.Best(logits)
	if math.IsNaN(p) || math.IsInf(p, 0) {
		return 0, 0, fmt.Errorf("%w: the decoder's logits are not finite", pipeline.ErrModel)
	}
	return id, p, nil
}

// greedyWithin returns a choice of the likeliest token that g allows, for one text. The probability is the model's own, over all tokens, so
// that it can be set beside those under other images.
func greedyWithin(g *guard.Guard) func(logits []float32) (int32, float64, error) {
	state := g.Start()
	return func(logits []float32) (int32, float64, error) {
		id, p, err := greedy(logits)
		if err != nil {
			return 0, 0, err
		}
		if !g.Allows(state, id) {
			all := float64(logits[id]) - p // log sum exp
			g.Mask(state, logits)
			if id, _ = kernel.Best(logits); math.IsInf(float64(logits[id]), -1) {
				return 0, 0, fmt.Errorf("%w: no token is left that its language allows", pipeline.ErrModel)
			}
			p = float64(logits[id]) - all
		}
		next, ok := g.Next(state, id)
		if !ok {
			return 0, 0, fmt.Errorf("%w: it chose a token that its language does not allow", pipeline.ErrModel)
		}
		state = next
		return id, p, nil
	}
}

// guardFor makes the guard of a language.
func (m *Model) guardFor(language string) (*guard.Guard, error) {
	scripts, err := guard.ScriptsFor(language)
	if err != nil {
		return nil, fmt.Errorf("language %s of bundle %s: %w", language, m.bundle.Manifest.Name, err)
	}
	var stops []int32
	for id := range m.prompt.stops {
		stops = append(stops, id)
	}
	v, err := vocabularyOf(m.prompt.tokenizer, m.bundle.Manifest.Decoder.Vocab, stops)
	if err != nil {
		return nil, err
	}
	return guard.New(v, scripts)
}
