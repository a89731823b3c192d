package main

import (
	"context"
	"fmt"
	"strings"

	"chatxray/config"
	"chatxray/modelrt"
	"chatxray/pipeline"
	"chatxray/sr"
)

// opinionNotice stands with every second opinion.
const opinionNotice = "Another model's comment on the wording of the draft, unreviewed. It has not seen the image, changes nothing of the report, and is in no document."

// secondOpinion is what another model says about a draft. It is no part of the reading.
type secondOpinion struct {
	Draft    bool              `json:"draft"` // always
	Notice   string            `json:"notice"`
	Model    pipeline.ModelRef `json:"model"`
	Language string            `json:"language"`
	Text     string            `json:"text"`
	End      pipeline.ChatEnd  `json:"finish_reason"`
}

// openSecond starts the bundle of the second opinion, where one is wanted. One text at a time is enough for it.
func (c reportCmd) openSecond(ctx context.Context, s streams, first *engine) (*engine, error) {
	if c.SecondOpinion == "" {
		return nil, nil
	}
	cfg := config.Default()
	cfg.Model = c.over(cfg.Model)
	cfg.Model.Bundle, cfg.Model.Texts = c.SecondOpinion, 1
	b, err := modelrt.OpenBundle(bundleDir(c.SecondOpinion))
	if err != nil {
		return nil, bundleError(c.SecondOpinion, err)
	}
	s.log.Info().Str("bundle", b.Manifest.Name).Int64("weights_mb", b.WeightsBytes()>>20).Int64("beside_mb", first.model.Bundle().WeightsBytes()>>20).
		Msg("the second bundle is loaded beside the first; both are in memory until the end")
	return startEngine(ctx, s, cfg, func(o *modelrt.Options) { o.Language = first.model.Language() })
}

// opinion asks about the wording of a reading.
func (e *engine) opinion(ctx context.Context, r *pipeline.Reading) (*secondOpinion, error) {
	a, err := e.model.Opinion(ctx, draftText(r), r.Language)
	if err != nil {
		return nil, err
	}
	return &secondOpinion{true, opinionNotice, a.Model, a.Language, a.Text, a.End}, nil
}

// draftText is a report in words alone: its sections under their headings.
func draftText(r *pipeline.Reading) string {
	var b strings.Builder
	for _, section := range []pipeline.Section{pipeline.SectionFindings, pipeline.SectionImpression} {
		var texts []string
		for _, s := range r.Sentences {
			if s.Section == section {
				texts = append(texts, s.Text)
			}
		}
		if len(texts) > 0 {
			fmt.Fprintf(&b, "%s: %s\n", sr.Heading(r.Language, section), strings.Join(texts, " "))
		}
	}
	return strings.TrimSpace(b.String())
}

// opinion shows a second opinion.
func (p page) opinion(o *secondOpinion) {
	fmt.Fprintf(p.w, "\n%s\n%s\n", p.style("1", fmt.Sprintf("SECOND OPINION on the wording, by %s %s", o.Model.Name, o.Model.Version)),
		p.style("33", strings.Join(wrap(o.Notice, textWidth+10), "\n")))
	for _, line := range strings.Split(o.Text, "\n") {
		fmt.Fprintln(p.w, strings.Join(wrap(line, textWidth+10), "\n"))
	}
}
