package modelrt

import (
	"fmt"
	"math"

	"chatxray/pipeline"
)

// prompt makes places of texts and images.
type prompt struct {
	family    family
	tokenizer Tokenizer
	sentinel  string
	longest   int // tokens of prompt and answer
	stops     map[int32]bool

	imageToken           int32 // id at the places of an image
	imageStart, imageEnd string
	rowEnd               int32 // -1 for none

	template *placing // the template around an image of the size of the decoys
}

// length is the number of places of the template around an image of the size of the decoys.
func (p *prompt) length() int { return len(p.template.ids) }

// prompt reads the tokenizer and tokenises the template: the texts before and after the sentinel each by itself.
func (b *Bundle) prompt() (*prompt, error) {
	m := b.Manifest
	t, err := OpenTokenizer(b.path(m.Tokenizer.File), m.Tokenizer.Type)
	if err != nil {
		return nil, err
	}
	if t.Size() > m.Decoder.Vocab {
		return nil, fmt.Errorf("%w: %s has %d tokens, decoder.vocab is %d", pipeline.ErrInvalid, m.Tokenizer.File, t.Size(), m.Decoder.Vocab)
	}
	p := &prompt{
		family: m.family(), tokenizer: t, sentinel: m.Prompt.Sentinel, longest: m.Decoder.MaxLength, stops: map[int32]bool{}, rowEnd: -1,
		imageStart: m.Prompt.ImageStart, imageEnd: m.Prompt.ImageEnd,
	}
	for _, s := range []struct {
		token string
		id    *int32
	}{{m.Prompt.ImageToken, &p.imageToken}, {m.Prompt.RowEnd, &p.rowEnd}} {
		if s.token == "" {
			continue
		}
		id, ok := t.ID(s.token)
		if !ok {
			return nil, fmt.Errorf("%w: %s has no token %q", pipeline.ErrInvalid, m.Tokenizer.File, s.token)
		}
		*s.id = id
	}
	for _, s := range m.Generation.StopTokens {
		id, ok := t.ID(s)
		if !ok {
			return nil, fmt.Errorf("%w: %s has no stop token %q", pipeline.ErrInvalid, m.Tokenizer.File, s)
		}
		p.stops[id] = true
	}
	if p.template, err = p.lay(m.Prompt.Template, m.usualImage()); err != nil {
		return nil, fmt.Errorf("prompt.template: %w", err)
	}
	return p, nil
}

const maxDecoys = 16

// decoys reads the features of other patients' images, [feature_tokens × feature_dim] each.
func (b *Bundle) decoys() ([][]float32, error) {
	tensors, err := readTensors(b.path(b.Manifest.Evidence.Decoys))
	if err != nil {
		return nil, err
	}
	v := b.Manifest.Vision
	t, ok := tensors["image_features"]
	if !ok || len(t.shape) != 3 || t.shape[0] < 1 || t.shape[0] > maxDecoys || t.shape[1] != v.FeatureTokens || t.shape[2] != v.FeatureDim {
		return nil, fmt.Errorf("%w: image_features is %v; it must be [1 to %d, %d, %d]", pipeline.ErrInvalid, t.shape, maxDecoys, v.FeatureTokens, v.FeatureDim)
	}
	if !finite(t.values) {
		return nil, fmt.Errorf("%w: image_features holds numbers that are not finite", pipeline.ErrInvalid)
	}
	size := v.FeatureTokens * v.FeatureDim
	rows := make([][]float32, t.shape[0])
	for i := range rows {
		rows[i] = t.values[i*size:][:size]
		for j := range i {
			if same(rows[i], rows[j]) {
				return nil, fmt.Errorf("%w: decoys %d and %d are one image; evidence needs different ones", pipeline.ErrInvalid, j+1, i+1)
			}
		}
	}
	return rows, nil
}

func finite(values []float32) bool {
	for _, v := range values {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return false
		}
	}
	return true
}
