package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"image"
	"image/png"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"chatxray/config"
	"chatxray/pipeline"
)

// stubSays begins every report of the stub reader, its lines in the log, and its row of /readyz.
const stubSays = "STUB READER: no model looked at this image"

// stub is a reader without a model, to try the machinery around one: queue, archive, documents, delivery. It needs neither ONNX Runtime nor a
// bundle. Its text is another one at every call, so that a second reading of a study cannot hide behind equal documents; the log has a line for
// each call.
type stub struct {
	sleep time.Duration // how long it takes over an image
	log   zerolog.Logger
}

// startStub makes the steps with a stub in the place of the model. Nothing is asked or answered.
func startStub(s streams, cfg config.Config, sleep time.Duration) *engine {
	setUpCodecs(s.log)
	s.log.Warn().Dur("sleep", sleep).Msg(stubSays + "; every report says so and nothing else. --reader model reads")
	e := &engine{steps: looking(0)}
	e.steps.Model, e.steps.Write = stub{sleep, s.log}, writing(cfg)
	return e
}

// Ref implements pipeline.Model.
func (stub) Ref() pipeline.ModelRef {
	return pipeline.ModelRef{Name: "stub", Version: "1", Digest: sha256.Sum256([]byte("chatxray stub reader 1"))}
}

// Read implements pipeline.Model: it waits, and finds nothing.
func (r stub) Read(ctx context.Context, m *pipeline.Image) (*pipeline.Reading, error) {
	call := rand.Text()
	r.log.Info().Str("study", m.Instance.StudyInstanceUID).Str("image", m.Instance.SOPInstanceUID).Str("call", call).Msg(stubSays)
	select {
	case <-time.After(r.sleep):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	out := &pipeline.Reading{Model: r.Ref(), Language: "en", NoEvidence: "the stub reader looks at no image", RunSeconds: r.sleep.Seconds(),
		Sentences: []pipeline.Sentence{{Text: stubSays + ". Call " + call + ".", Section: pipeline.SectionFindings}}}
	for _, l := range pipeline.Labels {
		out.Findings = append(out.Findings, pipeline.Finding{Label: l, Presence: pipeline.NotSaid})
	}
	return out, nil
}

// Preview implements pipeline.Model: one black pixel.
func (stub) Preview(*pipeline.Image) ([]byte, error) { return blackPixel() }

var blackPixel = sync.OnceValues(func() ([]byte, error) {
	var b bytes.Buffer
	err := png.Encode(&b, image.NewGray(image.Rect(0, 0, 1, 1)))
	return b.Bytes(), err
})
