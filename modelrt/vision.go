package modelrt

import (
	"context"
	"fmt"
	"slices"
	"time"

	ort "github.com/yalue/onnxruntime_go"

	"chatxray/pipeline"
)

// sight is what the eyes make of an image.
type sight struct {
	image    []float32 // embeddings
	grid     raster    // how they lie
	features []float32 // of images of any size
	scores   []float32 // of the findings head; nil without one
	twins    []bool    // which decoys are this image; nil where none can be
	spent    time.Duration
}

// usualImage is the grid of the decoys and the blank image: the only one where the vision graph takes one size.
func (m *Manifest) usualImage() []raster {
	switch p := m.Preprocess; {
	case !m.sighted():
		return nil
	case m.bySize():
		return []raster{{(p.Height + p.unit() - 1) / p.unit(), (p.Width + p.unit() - 1) / p.unit()}}
	}
	return []raster{{1, m.Vision.ImageTokens}}
}

func (m *Model) usualSight(image []float32) *sight {
	return &sight{image: image, grid: m.bundle.Manifest.usualImage()[0]}
}

// composed is a prompt ready for the engine.
type composed struct {
	places *placing
	embeds []float32
	keys   []uint64
}

// compose lays a prompt around images and looks up its words. Errors: ErrInvalid where the text has places for another number of images
// or leaves none for an answer.
func (m *Model) compose(c *call, text string, seen []*sight) (*composed, error) {
	hidden := m.bundle.Manifest.Decoder.Hidden
	var grids []raster
	var images [][]float32
	var keys []uint64
	for _, s := range seen {
		grids, images, keys = append(grids, s.grid), append(images, s.image), append(keys, imageKeys(s.image, s.grid.count())...)
	}
	l, err := m.prompt.lay(text, grids)
	if err != nil {
		return nil, err
	}
	said := &composed{places: l, embeds: make([]float32, len(l.ids)*hidden), keys: l.keys(keys)}
	if err := m.decoder.lookup(c, l.ids, said.embeds); err != nil {
		return nil, err
	}
	all := slices.Concat(images...)
	for i, e := range l.image {
		if e >= 0 {
			copy(said.embeds[i*hidden:][:hidden], all[int(e)*hidden:])
		}
	}
	return said, nil
}

func (m *Model) composeFor(ctx context.Context, text string, seen []*sight) (*composed, error) {
	c, err := begin(ctx)
	if err != nil {
		return nil, err
	}
	defer c.end()
	return m.compose(c, text, seen)
}

// loadEyes loads the vision graph, where there is one, and the adapter.
func (m *Model) loadEyes(r *Runtime, threads int, spin bool) (err error) {
	f := m.bundle.Manifest
	inputs, outputs := []string{"pixel_values"}, []string{"image_features"}
	if f.bySize() {
		if inputs = []string{"patches", "at"}; f.Vision.Window > 0 {
			inputs = append(inputs, "window")
		}
	}
	if len(f.Vision.Findings) > 0 {
		outputs = append(outputs, "findings_logits")
	}
	if len(f.Vision.Views) > 0 {
		outputs = append(outputs, "view_logits")
	}
	if f.Graphs.Vision != "" {
		if m.vision, err = r.load(m.bundle.path(f.Graphs.Vision), inputs, outputs, threads, spin); err != nil {
			return err
		}
	}
	m.adapter, err = r.load(m.bundle.path(f.Graphs.Adapter), []string{"image_features"}, []string{"image_embeds"}, 1, false)
	return err
}

// blank is the embeddings of a black picture.
func (m *Model) blank(c *call) ([]float32, error) {
	p := m.bundle.Manifest.Preprocess
	plane := p.Height * p.Width
	black := make([]float32, p.Channels*plane)
	for i := range p.Channels {
		fill(black[i*plane:][:plane], float32(-p.Mean[i]/p.Std[i]))
	}
	if m.bundle.Manifest.bySize() {
		s, err := m.embedPatches(c, m.prompt.family.patches(m.bundle.Manifest, black, p.Width, p.Height))
		if err != nil {
			return nil, err
		}
		return s.image, nil
	}
	copy(m.pixels.GetData(), black)
	if err := m.look(c); err != nil {
		return nil, err
	}
	image, err := m.adapt(c)
	return slices.Clone(image), err
}

// look runs the vision graph: pixels to features, scores and views.
func (m *Model) look(c *call) error {
	filled := []*ort.Tensor[float32]{m.features}
	for _, t := range []*ort.Tensor[float32]{m.scores, m.views} {
		if t != nil {
			filled = append(filled, t)
		}
	}
	out := make([]ort.Value, len(filled))
	for i, t := range filled {
		out[i] = t
	}
	if err := c.run(m.vision, []ort.Value{m.pixels}, out); err != nil {
		return err
	}
	for _, t := range filled {
		if !finite(t.GetData()) {
			return fmt.Errorf("%w: the vision graph's output is not finite", pipeline.ErrModel)
		}
	}
	return nil
}

// adapt makes the embeddings of the image of its features.
func (m *Model) adapt(c *call) ([]float32, error) {
	if err := c.run(m.adapter, []ort.Value{m.features}, []ort.Value{m.image}); err != nil {
		return nil, err
	}
	return m.image.GetData(), nil
}

// adaptFeatures makes the embeddings of an image of the usual size.
func (m *Model) adaptFeatures(c *call, features []float32) ([]float32, error) {
	f := m.bundle.Manifest
	if !f.bySize() {
		copy(m.features.GetData(), features)
		image, err := m.adapt(c)
		return slices.Clone(image), err
	}
	return m.adaptAny(c, features, f.Vision.FeatureTokens, f.usualImage()[0].count())
}

// adaptAny makes the embeddings of n features, of which there are so many.
func (m *Model) adaptAny(c *call, features []float32, n, count int) ([]float32, error) {
	f := m.bundle.Manifest
	image := make([]float32, count*f.Decoder.Hidden)
	var t tensors
	defer t.destroy()
	in := newTensor(&t, features, 1, int64(n), int64(f.Vision.FeatureDim))
	out := newTensor(&t, image, 1, int64(count), int64(f.Decoder.Hidden))
	if t.err != nil {
		return nil, t.err
	}
	return image, c.run(m.adapter, []ort.Value{in}, []ort.Value{out})
}

// lookAtPatches encodes an image of any size.
func (m *Model) lookAtPatches(c *call, img *pipeline.Image) (*sight, error) {
	at, err := m.pre.prepare(img)
	if err != nil {
		return nil, err
	}
	f := m.bundle.Manifest
	if unit := f.Preprocess.unit(); (at.Width/unit)*(at.Height/unit) >= f.Decoder.MaxLength {
		return nil, fmt.Errorf("%w image: it makes %d tokens, which leaves none of decoder.max_length %d for an answer",
			pipeline.ErrInvalid, (at.Width/unit)*(at.Height/unit), f.Decoder.MaxLength)
	}
	pixels := make([]float32, f.Preprocess.Channels*at.Width*at.Height)
	if err := m.pre.Into(pixels, img); err != nil {
		return nil, err
	}
	if err := m.checkView(img); err != nil {
		return nil, err
	}
	s, err := m.embedPatches(c, m.prompt.family.patches(f, pixels, at.Width, at.Height))
	if err == nil {
		s.spent = c.spent
	}
	return s, err
}

// embedPatches runs the vision graph, where there is one, and the adapter. Without a vision graph the patches are the features.
func (m *Model) embedPatches(c *call, p *patches) (*sight, error) {
	v := m.bundle.Manifest.Vision
	n := len(p.values) / v.PatchDim
	features, count := p.values, n
	if m.vision != nil {
		var t tensors
		defer t.destroy()
		count = n * v.FeatureTokens / m.usualPatches()
		features = make([]float32, count*v.FeatureDim)
		in := []ort.Value{newTensor(&t, p.values, int64(n), int64(v.PatchDim)), newTensor(&t, p.at, int64(n), 2)}
		if v.Window > 0 {
			in = append(in, newTensor(&t, p.window, int64(n)))
		}
		out := newTensor(&t, features, 1, int64(count), int64(v.FeatureDim))
		if t.err != nil {
			return nil, t.err
		}
		if err := c.run(m.vision, in, []ort.Value{out}); err != nil {
			return nil, err
		}
		if !finite(features) {
			return nil, fmt.Errorf("%w: the vision graph's output is not finite", pipeline.ErrModel)
		}
	}
	image, err := m.adaptAny(c, features, count, p.grid.count())
	return &sight{image: image, grid: p.grid, features: features}, err
}

// usualPatches is how many patches an image of the usual size has.
func (m *Model) usualPatches() int {
	p := m.bundle.Manifest.Preprocess
	return ((p.Width + p.Patch - 1) / p.Patch) * ((p.Height + p.Patch - 1) / p.Patch)
}
