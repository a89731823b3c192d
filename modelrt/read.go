package modelrt

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"chatxray/pipeline"
)

// Read reads one image: it makes the tensor, encodes it, writes a report greedily, scores each sentence under this image, the
// decoys and a blank image, and labels the sentences. The Reading is whole: every sentence has its evidence.
//
// When ctx ends, ONNX Runtime is told to stop, Read waits until it has (some ten milliseconds) and returns ctx's cause. Other
// errors are a pipeline.Refusal (not a frontal view) or wrap ErrInvalid (the image), ErrModel (nothing came out that may leave), ErrBusy
// (too many wait) or ErrNotFound (the model is closed).
func (m *Model) Read(ctx context.Context, img *pipeline.Image) (*pipeline.Reading, error) {
	if img == nil || img.Instance == nil {
		return nil, fmt.Errorf("%w: an image without its instance", pipeline.ErrInvalid)
	}
	reading, err := m.read(ctx, img)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.bundle.Manifest.Name, err)
	}
	return reading, nil
}

func (m *Model) read(ctx context.Context, img *pipeline.Image) (*pipeline.Reading, error) {
	class := classOf(img)
	seen, err := m.see(ctx, img, class)
	if err != nil {
		return nil, err
	}
	a, err := m.write(ctx, seen, class)
	if err != nil {
		return nil, err
	}
	written, err := m.parse(a)
	if err != nil {
		return nil, err
	}
	sentences := written.sentences
	scoring, err := m.support(ctx, a, sentences, seen.twins)
	if err != nil {
		return nil, err
	}
	calibration := m.calibrate(sentences)
	findings, err := m.findings(written, seen.scores)
	if err != nil {
		return nil, err
	}
	r := &pipeline.Reading{
		StudyInstanceUID: img.Instance.StudyInstanceUID,
		Inputs:           []pipeline.InputRef{pipeline.InputOf(img.Instance, img.Frame)},
		Model:            m.Ref(),
		Language:         m.task.language,
		Tokens:           a.tokens,
		Sentences:        sentences,
		Findings:         findings,
		Structured:       written.structured,
		Calibration:      calibration,
		Truncated:        a.truncated,
		Created:          m.now(),
		RunSeconds:       (seen.spent + a.spent + scoring).Seconds(),
	}
	if err := m.rules.judge(r, img.Instance.Header, func(left []pipeline.Sentence) ([]pipeline.Finding, error) {
		return m.findings(&contents{sentences: left}, seen.scores)
	}); err != nil {
		return nil, err
	}
	if m.task.fill {
		var spent time.Duration
		r.Structured, spent, err = m.fill(ctx, seen, a, r)
		r.RunSeconds += spent.Seconds()
	}
	return r, err
}

// see encodes an image, after those that are more urgent or came before it.
func (m *Model) see(ctx context.Context, img *pipeline.Image, class int) (*sight, error) {
	return m.seeing(ctx, img, class, func() {})
}

// seeing encodes an image, and calls then while its features are still there.
func (m *Model) seeing(ctx context.Context, img *pipeline.Image, class int, then func()) (*sight, error) {
	if err := m.eyes.enter(ctx, class); err != nil {
		return nil, err
	}
	defer m.eyes.leave()
	if err := m.bundle.Manifest.CanRead(); err != nil {
		return nil, err
	}
	if m.closed {
		return nil, errClosed
	}
	c, err := begin(ctx)
	if err != nil {
		return nil, err
	}
	defer c.end()
	if m.bundle.Manifest.bySize() {
		return m.lookAtPatches(c, img)
	}
	if err := m.pre.Into(m.pixels.GetData(), img); err != nil {
		return nil, err
	}
	if err := m.look(c); err != nil {
		return nil, err
	}
	if err := m.checkView(img); err != nil {
		return nil, err
	}
	image, err := m.adapt(c)
	if err != nil {
		return nil, err
	}
	s := m.usualSight(slices.Clone(image))
	s.spent, s.twins = c.spent, m.twins(m.features.GetData())
	if m.scores != nil {
		s.scores = slices.Clone(m.scores.GetData())
	}
	then()
	return s, nil
}

// write decodes greedily after the prompt around the image, to a stop token, a stop string or the limit.
func (m *Model) write(ctx context.Context, s *sight, class int) (*answer, error) {
	p, stops, a := m.prompt, m.task.stops, &answer{}
	said, err := m.composeFor(ctx, m.task.template, []*sight{s})
	if err != nil {
		return nil, err
	}
	limit := min(m.limit, p.longest-len(said.keys))
	t := &text{ctx: ctx, class: class, form: m.task.form != nil, adapter: m.worn, prompt: said.embeds, keys: said.keys, places: said.places, choose: m.choice(), take: func(id int32, logprob float64) bool {
		if p.stops[id] || a.add(id, logprob, p.tokenizer.TokenBytes(id), stops) {
			return false
		}
		a.truncated = len(a.tokens) == limit
		return !a.truncated
	}}
	err = m.engine.write(t)
	a.spent = t.spent
	if a.truncated { // perhaps within a character
		a.cut(whole(a.text))
	}
	if err == nil {
		err = m.guard.Scripts().Check(string(a.text)) // the guard makes it impossible; this is what would tell
	}
	return a, err
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
func (m *Model) support(ctx context.Context, a *answer, sentences []pipeline.Sentence, twins []bool) (time.Duration, error) {
	others, spent, err := m.scoreOthers(ctx, a.tokens)
	if err != nil {
		return spent, err
	}
	rows, err := besides(a.logprobs, others, twins)
	if err != nil {
		return spent, err
	}
	weigh(sentences, rows)
	return spent, nil
}

// besides are the rows that sentences are weighed by: the log-probabilities of an answer's tokens under the image, under each decoy that is not the
// image itself, as twins says, and under the blank image. others are those of all decoys and of the blank image.
func besides(own []float64, others [][]float64, twins []bool) ([][]float64, error) {
	rows := [][]float64{own}
	for i, o := range others {
		if i >= len(twins) || !twins[i] {
			rows = append(rows, o)
		}
	}
	if len(rows) < 3 {
		return nil, fmt.Errorf("%w: the bundle's decoys are all of the image that is read; there is nothing to compare it with", pipeline.ErrModel)
	}
	return rows, nil
}

// weigh sums up the log-probabilities of each sentence's tokens, and ranks the sentences by them: rows are of the image, of each decoy, and last of
// the blank image.
func weigh(sentences []pipeline.Sentence, rows [][]float64) {
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
	rank(sentences)
}

// scoreOthers returns the log-probabilities (natural logarithm) of ids under each decoy and the blank image: what the model makes of the
// same words after another picture.
func (m *Model) scoreOthers(ctx context.Context, ids []int32) ([][]float64, time.Duration, error) {
	if len(ids) == 0 {
		return nil, 0, fmt.Errorf("%w: it wrote nothing", pipeline.ErrModel)
	}
	p := m.prompt
	return m.engine.score(ctx, m.worn, p.template, p.length(), p.template.ids[p.length()-1], ids)
}

// findings labels the sentences, where the report does not state findings itself, and sets beside each label what the head says.
func (m *Model) findings(w *contents, scores []float32) ([]pipeline.Finding, error) {
	found := w.findings
	if found == nil {
		texts := make([]string, len(w.sentences))
		for i, s := range w.sentences {
			texts[i] = s.Text
		}
		found = m.labelled(texts)
	}
	return m.bundle.Manifest.headed(found, scores)
}

// headed sets beside each label what the head says. A label that the bundle was not taught is not said.
func (m *Manifest) headed(found []pipeline.Finding, scores []float32) ([]pipeline.Finding, error) {
	if len(found) != len(pipeline.Labels) {
		return nil, fmt.Errorf("%w: the labeler gave %d findings for %d labels", pipeline.ErrInvalid, len(found), len(pipeline.Labels))
	}
	for i := range found {
		label := pipeline.Labels[i]
		if found[i].Label != label {
			return nil, fmt.Errorf("%w: the labeler gave %q in the place of %q", pipeline.ErrInvalid, found[i].Label, label)
		}
		if !slices.Contains(m.Labels, label) {
			found[i] = pipeline.Finding{Label: label, Presence: pipeline.NotSaid}
		}
		at := slices.Index(m.Vision.Findings, label)
		if at < 0 {
			continue
		}
		score := 1 / (1 + math.Exp(-float64(scores[at])))
		threshold := 0.5
		if len(m.Vision.Thresholds) > 0 {
			threshold = m.Vision.Thresholds[at]
		}
		found[i].Score = &score
		found[i].Conflict = found[i].Presence == pipeline.Present && score < threshold ||
			found[i].Presence == pipeline.Absent && score >= threshold
	}
	return found, nil
}
