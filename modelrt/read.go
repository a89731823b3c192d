package modelrt

import (
	"context"
	"fmt"
	"math"
	"slices"

	"chatxray/modelrt/kernel"
	"chatxray/pipeline"
)

// Read reads one image: it makes the tensor, encodes it, writes a report greedily, scores each sentence under this image, the
// decoys and a blank image, and labels the sentences. The Reading is whole: every sentence has its evidence.
//
// When ctx ends, ONNX Runtime is told to stop, Read waits until it has (some ten milliseconds) and returns ctx's cause. Other
// errors are a pipeline.Refusal (not a frontal view) or wrap ErrInvalid (the image), ErrModel (nothing came out that may leave) or ErrNotFound (the model is closed).
func (m *Model) Read(ctx context.Context, img *pipeline.Image) (*pipeline.Reading, error) {
	if img == nil || img.Instance == nil {
		return nil, fmt.Errorf("%w: an image without its instance", pipeline.ErrInvalid)
	}
	select {
	case m.turn <- struct{}{}:
		defer func() { <-m.turn }()
	case <-ctx.Done():
		return nil, fmt.Errorf("reading %s: %w", img.Instance.SOPInstanceUID, context.Cause(ctx))
	}
	reading, err := m.read(ctx, img)
	if err != nil {
		return nil, fmt.Errorf("reading %s with %s: %w", img.Instance.SOPInstanceUID, m.bundle.Manifest.Name, err)
	}
	return reading, nil
}

func (m *Model) read(ctx context.Context, img *pipeline.Image) (*pipeline.Reading, error) {
	if m.closed {
		return nil, fmt.Errorf("%w: %w", pipeline.ErrNotFound, errClosed)
	}
	c, err := begin(ctx)
	if err != nil {
		return nil, err
	}
	defer c.end()
	if err := m.pre.Into(m.pixels.GetData(), img); err != nil {
		return nil, err
	}
	if err := m.look(c); err != nil {
		return nil, err
	}
	if err := m.checkView(img); err != nil {
		return nil, err
	}
	logits, err := m.ask(c, 0)
	if err != nil {
		return nil, err
	}
	a, err := m.write(c, logits)
	if err != nil {
		return nil, err
	}
	sentences, err := a.sentences(m.bundle.Manifest.Report.ImpressionPrefix)
	if err != nil {
		return nil, err
	}
	if err := m.support(c, a, sentences); err != nil {
		return nil, err
	}
	findings, err := m.findings(sentences)
	if err != nil {
		return nil, err
	}
	return &pipeline.Reading{
		StudyInstanceUID: img.Instance.StudyInstanceUID,
		Inputs:           []pipeline.InputRef{pipeline.InputOf(img.Instance, img.Frame)},
		Model:            m.Ref(),
		Language:         m.bundle.Manifest.Languages[0],
		Tokens:           a.tokens,
		Sentences:        sentences,
		Findings:         findings,
		Truncated:        a.truncated,
		Created:          m.now(),
		RunSeconds:       c.spent.Seconds(),
	}, nil
}

// frontal is the view that is read.
const frontal = "frontal"

// checkView asks the vision graph about an image whose header does not tell its view.
func (m *Model) checkView(img *pipeline.Image) error {
	if !img.ViewUnknown {
		return nil
	}
	uid := img.Instance.SOPInstanceUID
	if m.views == nil {
		return pipeline.Refusal{SOPInstanceUID: uid, Reason: pipeline.UnknownView,
			Detail: "nothing in its header says that the view is frontal, and this model cannot tell"}
	}
	names, logits := m.bundle.Manifest.Vision.Views, m.views.GetData()
	if best := slices.Index(logits, slices.Max(logits)); names[best] != frontal {
		return pipeline.Refusal{SOPInstanceUID: uid, Reason: pipeline.NotFrontal,
			Detail: "nothing in its header says that the view is frontal, and the model takes it as " + names[best]}
	}
	return nil
}

// support gives each sentence its evidence.
func (m *Model) support(c *call, a *answer, sentences []pipeline.Sentence) error {
	others, err := m.scoreOthers(c, a.tokens)
	if err != nil {
		return err
	}
	rows := append([][]float64{a.logprobs}, others...)
	for i := range sentences {
		s := &sentences[i]
		sums := make([]float64, len(rows))
		for r, logprobs := range rows {
			for _, v := range logprobs[s.FirstToken : s.FirstToken+s.Tokens] {
				sums[r] += v
			}
		}
		decoys := sums[1 : len(sums)-1]
		mean := 0.0
		for _, v := range decoys {
			mean += v / float64(len(decoys))
		}
		s.Evidence = pipeline.Evidence{LogLikelihood: sums[0], Decoys: decoys, Blank: sums[len(sums)-1], Drop: sums[0] - mean}
	}
	return nil
}

// scoreChunk bounds the tokens whose logits are held at once when a text is scored.
const scoreChunk = 96

// scoreOthers returns the log-probabilities (natural logarithm) of ids under each decoy and the blank image: what the model makes of the
// same words after another picture. The prompts are in the caches already; all rows go through the decoder together.
func (m *Model) scoreOthers(c *call, ids []int32) ([][]float64, error) {
	p, hidden := m.prompt, m.bundle.Manifest.Decoder.Hidden
	fed := append([]int32{p.after[len(p.after)-1]}, ids[:len(ids)-1]...)
	x := make([]float32, len(fed)*hidden)
	if err := m.decoder.lookup(c, fed, x); err != nil {
		return nil, err
	}
	result := make([][]float64, m.others)
	each := max(1, scoreChunk/m.others)
	for from := 0; from < len(ids); from += each {
		n := min(each, len(ids)-from)
		m.batch.clear()
		for row := range m.others {
			for i := range n {
				m.batch.add(1+row, p.length()-1+from+i, x[(from+i)*hidden:][:hidden], 1)
				m.batch.want()
			}
		}
		if err := m.decoder.run(c, &m.batch); err != nil {
			return nil, err
		}
		vocab := m.bundle.Manifest.Decoder.Vocab
		for i := range m.others * n {
			v := kernel.LogProbability(m.batch.logits[i*vocab:][:vocab], ids[from+i%n])
			if math.IsNaN(v) || math.IsInf(v, 0) || v > 1e-3 {
				return nil, fmt.Errorf("%w: a log-probability is %v", pipeline.ErrModel, v)
			}
			result[i/n] = append(result[i/n], v)
		}
	}
	return result, nil
}

// findings labels the sentences and sets beside each label what the head says. A label that the bundle was not taught is not said.
func (m *Model) findings(sentences []pipeline.Sentence) ([]pipeline.Finding, error) {
	texts := make([]string, len(sentences))
	for i, s := range sentences {
		texts[i] = s.Text
	}
	found := m.label(texts)
	if len(found) != len(pipeline.Labels) {
		return nil, fmt.Errorf("%w: the labeler gave %d findings for %d labels", pipeline.ErrInvalid, len(found), len(pipeline.Labels))
	}
	f := m.bundle.Manifest
	for i := range found {
		label := pipeline.Labels[i]
		if found[i].Label != label {
			return nil, fmt.Errorf("%w: the labeler gave %q in the place of %q", pipeline.ErrInvalid, found[i].Label, label)
		}
		if !slices.Contains(f.Labels, label) {
			found[i] = pipeline.Finding{Label: label, Presence: pipeline.NotSaid}
		}
		at := slices.Index(f.Vision.Findings, label)
		if at < 0 {
			continue
		}
		score := 1 / (1 + math.Exp(-float64(m.scores.GetData()[at])))
		threshold := 0.5
		if len(f.Vision.Thresholds) > 0 {
			threshold = f.Vision.Thresholds[at]
		}
		found[i].Score = &score
		found[i].Conflict = found[i].Presence == pipeline.Present && score < threshold ||
			found[i].Presence == pipeline.Absent && score >= threshold
	}
	return found, nil
}
