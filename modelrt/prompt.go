package modelrt

import (
	"fmt"
	"math"
	"strings"

	"chatxray/pipeline"
)

// prompt is the tokenised text around the image.
type prompt struct {
	tokenizer     Tokenizer
	before, after []int32 // the image's embeddings stand between them
	image         int     // how many embeddings
	stops         map[int32]bool
}

// length is the number of positions of the whole prompt.
func (p *prompt) length() int { return len(p.before) + p.image + len(p.after) }

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
	before, after, _ := strings.Cut(m.Prompt.Template, m.Prompt.Sentinel)
	p := &prompt{
		tokenizer: t, before: t.EncodeTemplate(before), after: t.EncodeTemplate(after),
		image: m.Vision.ImageTokens, stops: map[int32]bool{},
	}
	if len(p.before) == 0 || len(p.after) == 0 {
		return nil, fmt.Errorf("%w: prompt.template has no text before or no text after the image", pipeline.ErrInvalid)
	}
	for _, s := range m.Generation.StopTokens {
		id, ok := t.ID(s)
		if !ok {
			return nil, fmt.Errorf("%w: %s has no stop token %q", pipeline.ErrInvalid, m.Tokenizer.File, s)
		}
		p.stops[id] = true
	}
	if p.length() >= m.Decoder.MaxLength {
		return nil, fmt.Errorf("%w: the prompt has %d tokens, which leaves none of decoder.max_length %d for a report", pipeline.ErrInvalid, p.length(), m.Decoder.MaxLength)
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
