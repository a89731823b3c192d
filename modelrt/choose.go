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

// greedyUnder is greedyWithin for any constraint.
func greedyUnder(c guard.Constraint) func(logits []float32) (int32, float64, error) {
	return func(logits []float32) (int32, float64, error) {
		id, p, err := greedy(logits)
		if err != nil {
			return 0, 0, err
		}
		all := float64(logits[id]) - p // log sum exp
		if err := c.Mask(logits); err != nil {
			return 0, 0, err
		}
		if id, _ = kernel.Best(logits); math.IsInf(float64(logits[id]), -1) {
			return 0, 0, fmt.Errorf("%w: no token is left that its language and form allow", pipeline.ErrModel)
		}
		return id, float64(logits[id]) - all, c.Accept(id)
	}
}

// guardFor returns the guard of a language, made at its first use.
func (m *Model) guardFor(language string) (*guard.Guard, error) {
	m.talks.mu.Lock()
	defer m.talks.mu.Unlock()
	if g := m.talks.guards[language]; g != nil {
		return g, nil
	}
	scripts, err := guard.ScriptsFor(language)
	if err != nil {
		return nil, fmt.Errorf("language %s of bundle %s: %w", language, m.bundle.Manifest.Name, err)
	}
	if m.talks.vocabulary == nil {
		var stops []int32
		for id := range m.prompt.stops {
			stops = append(stops, id)
		}
		if m.talks.vocabulary, err = vocabularyOf(m.prompt.tokenizer, m.bundle.Manifest.Decoder.Vocab, stops); err != nil {
			return nil, err
		}
	}
	g, err := guard.New(m.talks.vocabulary, scripts)
	if err != nil {
		return nil, err
	}
	if m.talks.guards == nil {
		m.talks.guards = map[string]*guard.Guard{}
	}
	m.talks.guards[language] = g
	return g, nil
}

// grammarOf returns the grammar of a JSON Schema in a language whose guard was made; the last few are remembered.
func (m *Model) grammarOf(language string, scripts guard.Scripts, schema []byte) (*guard.Grammar, error) {
	key := language + "\n" + string(schema)
	m.talks.mu.Lock()
	g, ok := m.talks.forms.get(key)
	m.talks.mu.Unlock()
	if ok {
		return g, nil
	}
	g, err := guard.NewSchema(m.talks.vocabulary, scripts, schema)
	if err == nil {
		m.talks.mu.Lock()
		m.talks.forms.put(key, g, 1, keptForms)
		m.talks.mu.Unlock()
	}
	return g, err
}
