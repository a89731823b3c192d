package modelrt

import (
	"context"
	"fmt"
	"math"
	"slices"

	"golang.org/x/sync/errgroup"

	"chatxray/pipeline"
)

// window is a part of a grid, half open.
type window struct{ top, left, bottom, right int }

// windows cover a square grid of side n: a quarter of it wide, each half a window from the next, the last ones at the edge.
func windows(n int) (list []window) {
	wide := (n + 3) / 4
	var starts []int
	for at := 0; at+wide < n; at += (wide + 1) / 2 {
		starts = append(starts, at)
	}
	starts = append(starts, n-wide)
	for _, top := range starts {
		for _, left := range starts {
			list = append(list, window{top, left, top + wide, left + wide})
		}
	}
	return list
}

// featureGrid is the side of the square in which features lie, row by row, and how many that are of the whole image stand before them.
func (m *Manifest) featureGrid() (side, before int, err error) {
	if n := m.Vision.FeatureTokens; m.sighted() && !m.bySize() {
		for before := range 2 {
			if side := int(math.Sqrt(float64(n - before))); side > 1 && side*side == n-before {
				return side, before, nil
			}
		}
	}
	return 0, 0, fmt.Errorf("%w: the features of model %s are no square grid, so that there are no heat maps: nothing to take places out of", pipeline.ErrUnsupported, m.Name)
}

// CanHeat says why Heat would be refused, whatever the reading.
func (m *Manifest) CanHeat() error {
	if m.Kind == KindRemote {
		return fmt.Errorf("%w: the model of bundle %s is elsewhere and gives nothing to make heat maps of", pipeline.ErrUnsupported, m.Name)
	}
	_, _, err := m.featureGrid()
	return err
}

// heatTexts is how many occluded images are scored side by side; the other slots are for reports and answers.
const heatTexts = 2

// Heat tells where each sentence of a reading rests on its image. It scores the reading's tokens some dozens of times, each time with another window of
// the features replaced by the mean of the decoys' there; features of the whole image (a first token) stay. Errors are those of
// Read; ErrInvalid where the reading is not this model's, ErrUnsupported where the features are no square grid.
func (m *Model) Heat(ctx context.Context, img *pipeline.Image, r *pipeline.Reading) (*pipeline.Heat, error) {
	f := m.bundle.Manifest
	if r.Model.Digest != m.Ref().Digest {
		return nil, fmt.Errorf("%w: the report was written by %s %s with another digest than that of the model that runs", pipeline.ErrConflict, r.Model.Name, r.Model.Version)
	}
	if r.Language != m.task.language {
		return nil, fmt.Errorf("%w: the report was written in the language %s, and the model that runs was opened for %s", pipeline.ErrConflict, r.Language, m.task.language)
	}
	side, before, err := f.featureGrid()
	if err != nil {
		return nil, err
	}
	all := r.Sentences
	if n := m.prompt.length() + len(r.Tokens); len(r.Tokens) == 0 || n > f.Decoder.MaxLength ||
		slices.ContainsFunc(all, func(s pipeline.Sentence) bool {
			return s.FirstToken < 0 || s.Tokens < 1 || s.FirstToken+s.Tokens > len(r.Tokens)
		}) ||
		slices.ContainsFunc(r.Tokens, func(id int32) bool { return id < 0 || int(id) >= f.Decoder.Vocab }) {
		return nil, fmt.Errorf("%w: the reading's tokens and sentences do not fit", pipeline.ErrInvalid)
	}
	usual := make([]float32, len(m.decoys[0]))
	for i := range usual {
		for _, o := range m.decoys {
			usual[i] += o[i] / float32(len(m.decoys))
		}
	}
	var features []float32
	if _, err := m.seeing(ctx, img, classIdle, func() { features = slices.Clone(m.features.GetData()) }); err != nil {
		return nil, err
	}
	whole, err := m.scoreFeatures(ctx, features, r.Tokens)
	if err != nil {
		return nil, err
	}
	list := windows(side)
	falls := make([][]float64, len(list)) // of each window, for each sentence
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(heatTexts)
	for i, w := range list {
		work.Go(func() error {
			without := slices.Clone(features)
			for y := w.top; y < w.bottom; y++ {
				from, to := (before+y*side+w.left)*f.Vision.FeatureDim, (before+y*side+w.right)*f.Vision.FeatureDim
				copy(without[from:to], usual[from:to])
			}
			part, err := m.scoreFeatures(ctx, without, r.Tokens)
			for _, s := range all {
				fall := 0.0
				for t := s.FirstToken; err == nil && t < s.FirstToken+s.Tokens; t++ {
					fall += whole[t] - part[t]
				}
				falls[i] = append(falls[i], fall)
			}
			return err
		})
	}
	if err := work.Wait(); err != nil {
		return nil, err
	}
	return spread(side, list, falls, len(all)), nil
}

// spread gives each place of the grid the mean of the windows over it.
func spread(side int, list []window, falls [][]float64, sentences int) *pipeline.Heat {
	h := &pipeline.Heat{Rows: side, Columns: side}
	for s := range sentences {
		sum, count := make([]float64, side*side), make([]float64, side*side)
		for i, w := range list {
			for y := w.top; y < w.bottom; y++ {
				for x := w.left; x < w.right; x++ {
					sum[y*side+x] += falls[i][s]
					count[y*side+x]++
				}
			}
		}
		for i := range sum {
			sum[i] /= count[i]
		}
		h.Sentences = append(h.Sentences, sum)
	}
	return h
}

// scoreFeatures returns the log-probabilities of ids after the prompt around features of an image.
func (m *Model) scoreFeatures(ctx context.Context, features []float32, ids []int32) ([]float64, error) {
	if err := m.eyes.enter(ctx, classIdle); err != nil {
		return nil, err
	}
	image, err := func() ([]float32, error) {
		defer m.eyes.leave()
		if m.closed {
			return nil, errClosed
		}
		c, err := begin(ctx)
		if err != nil {
			return nil, err
		}
		defer c.end()
		return m.adaptFeatures(c, features)
	}()
	if err != nil {
		return nil, err
	}
	said, err := m.composeFor(ctx, m.task.template, []*sight{m.usualSight(image)})
	if err != nil {
		return nil, err
	}
	logprobs, _, err := m.scoreAfter(ctx, classIdle, said, ids)
	return logprobs, err
}
