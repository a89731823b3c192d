package modelrt

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"chatxray/modelrt/chat"
	"chatxray/pipeline"
)

// prompt makes places of texts and images.
type prompt struct {
	family    family
	tokenizer Tokenizer
	sentinel  string
	longest   int // tokens of prompt and answer
	stops     map[int32]bool

	imageToken           int32  // id at the places of an image
	pad                  string // its spelling, where it stands in the text that is tokenised; else empty
	imageStart, imageEnd string
	rowEnd               int32 // -1 for none

	chat     *chat.Template // nil for a model without conversations
	bos, eos string
	before   []int32 // stands before what does not begin with bos
	parts    bool    // messages are lists of parts
	images   int     // the most of a conversation

	report   string   // the prompt of a report
	template *placing // and how it lies around an image of the size of the decoys
}

// length is the number of places of the template around an image of the size of the decoys.
func (p *prompt) length() int { return len(p.template.ids) }

// prompt reads the tokenizer and the chat template, and tokenises the report's prompt.
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
		imageStart: m.Prompt.ImageStart, imageEnd: m.Prompt.ImageEnd, bos: m.Prompt.BOS, eos: m.Prompt.EOS, parts: m.sighted(), report: m.Prompt.Template,
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
	if k := m.Prompt.ImageToken; m.Prompt.Splice == splicePads && t.Guard(k) != k {
		p.pad = k
	}
	for _, s := range m.Generation.StopTokens {
		id, ok := t.ID(s)
		if !ok {
			return nil, fmt.Errorf("%w: %s has no stop token %q", pipeline.ErrInvalid, m.Tokenizer.File, s)
		}
		p.stops[id] = true
	}
	if m.sighted() {
		p.images = max(m.Prompt.Images, 1)
	}
	if err := p.readChat(b); err != nil {
		return nil, err
	}
	for i := len(m.Languages) - 1; i >= 0; i-- {
		w := m.Wording(m.Languages[i])
		if i == 0 {
			w.Template = p.report
		}
		if p.template, err = p.lay(w.Template, m.usualImage()); err != nil {
			return nil, fmt.Errorf("the report's prompt in the language %s: %w", m.Languages[i], err)
		}
		if _, err := p.lay(or(w.Structured, w.Template), m.usualImage()); err != nil { // checked only
			return nil, fmt.Errorf("the structured template of the language %s: %w", m.Languages[i], err)
		}
	}
	return p, nil
}

// cut tokenises what stands before, between and behind the images of a prompt. Where pads stand in the text, it is tokenised as one; texts
// around a sentinel are tokenised apart.
func (p *prompt) cut(text string, images int) (parts [][]int32) {
	switch {
	case p.pad != "":
		rest := p.tokenizer.EncodeTemplate(strings.ReplaceAll(text, p.sentinel, p.imageStart+p.pad+p.imageEnd))
		for at := slices.Index(rest, p.imageToken); at >= 0; at = slices.Index(rest, p.imageToken) {
			parts, rest = append(parts, rest[:at]), rest[at+1:]
		}
		parts = append(parts, rest)
	case p.sentinel != "":
		texts := strings.Split(text, p.sentinel)
		for i, s := range texts {
			if i > 0 {
				s = p.imageEnd + s
			}
			if i < len(texts)-1 {
				s += p.imageStart
			}
			parts = append(parts, p.tokenizer.EncodeTemplate(s))
		}
	default:
		parts = append(make([][]int32, images), p.tokenizer.EncodeTemplate(text))
	}
	if p.bos != "" && !strings.HasPrefix(text, p.bos) {
		last := len(parts) - 1
		if p.sentinel != "" {
			last = 0
		}
		parts[last] = slices.Concat(p.before, parts[last])
	}
	return parts
}

// place places the tokens of a prompt. text holds the sentinel once for each image; where images are prepended, it holds none.
func (p *prompt) place(text string, images []raster) (*placing, error) {
	if len(images) > maxImages {
		return nil, fmt.Errorf("%w: %d images in one prompt; %d are taken", pipeline.ErrInvalid, len(images), maxImages)
	}
	l, first := &placing{step: [3]int32{1, 1, 1}}, make([]int32, len(images))
	parts := p.cut(text, len(images))
	if n := len(parts) - 1; n != len(images) {
		return nil, fmt.Errorf("%w: the prompt has places for %d images, there are %d", pipeline.ErrInvalid, n, len(images))
	}
	next := int32(0)
	for i, ids := range parts {
		l.text(ids...)
		if i == len(images) {
			break
		}
		first[i] = next
		for range images[i].rows {
			for range images[i].columns {
				l.put(p.imageToken, next)
				next++
			}
			if p.rowEnd >= 0 {
				l.text(p.rowEnd)
			}
		}
	}
	if p.family.lay != nil {
		p.family.lay(l, images, first)
	}
	return l, nil
}

// lay is place, and refuses a prompt that leaves no place for an answer.
func (p *prompt) lay(text string, images []raster) (*placing, error) {
	total := 0
	for _, r := range images {
		total += r.count()
	}
	if total >= p.longest {
		return nil, fmt.Errorf("%w: the images have %d tokens, which leaves none of decoder.max_length %d for an answer", pipeline.ErrInvalid, total, p.longest)
	}
	l, err := p.place(text, images)
	if err != nil {
		return nil, err
	}
	return l, l.check(p.longest)
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
