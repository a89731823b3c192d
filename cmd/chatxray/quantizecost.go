package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"chatxray/modelrt"
	"chatxray/pipeline"
	"chatxray/pipeline/label"
)

// measuring adds up what two models make of the same texts.
type measuring struct {
	texts, tokens, agreed, same int
	decoded                     int
	spent                       [2]time.Duration // in decoding these
	between                     labelCount       // the second model's labels against the first's
	reported                    int
	known                       [2]labelCount // against reports
}

func (m *measuring) one(ctx context.Context, from, to *modelrt.Model, t trial) error {
	var said [2]*modelrt.Tried
	for i, model := range []*modelrt.Model{from, to} {
		var err error
		if said[i], err = model.Try(ctx, t.Trial); err != nil {
			return err
		}
	}
	tokens := said[0].Tokens
	if len(tokens) == 0 {
		return nil
	}
	m.texts++
	agreed, decoded := 0, 0
	if slices.Equal(tokens, said[1].Tokens) {
		m.same++
	}
	var each [2]time.Duration // the quicker of two: other work slows either
	for range 2 {
		for i, model := range []*modelrt.Model{from, to} {
			f, err := model.Follow(ctx, t.Trial, tokens)
			if err != nil {
				return err
			}
			if each[i] == 0 {
				each[i] = f.Each
			}
			if each[i] = min(each[i], f.Each); i == 1 {
				agreed, decoded = f.Agreed, f.Decoded
			}
		}
	}
	m.tokens, m.agreed, m.decoded = m.tokens+len(tokens), m.agreed+agreed, m.decoded+decoded
	for i := range each {
		m.spent[i] += each[i] * time.Duration(decoded)
	}
	if t.Image == nil {
		return nil
	}
	m.between.add(said[0].Findings, said[1].Findings)
	if strings.TrimSpace(t.report) != "" {
		m.reported++
		truth := label.Report(strings.FieldsFunc(t.report, func(r rune) bool { return strings.ContainsRune(".!?\n", r) }))
		for i := range said {
			m.known[i].add(truth, said[i].Findings)
		}
	}
	return nil
}

func (m *measuring) into(c *quantizeCost) {
	c.Texts, c.Tokens, c.Same = m.texts, m.tokens, m.same
	c.Top1 = float64(m.agreed) / float64(m.tokens)
	if n := float64(m.decoded); n > 0 {
		c.FromTokenMS, c.TokenMS = m.spent[0].Seconds()*1e3/n, m.spent[1].Seconds()*1e3/n
	}
	c.LabelsF1 = m.between.f1()
	if m.reported > 0 {
		c.SourceF1, c.QuantizedF1 = m.known[0].f1(), m.known[1].f1()
	}
}

// labelCount counts labels that are present, over all of them and all texts.
type labelCount struct{ both, wanted, got int }

func (n *labelCount) add(want, got []pipeline.Finding) {
	for i := range want {
		w, g := want[i].Presence == pipeline.Present, got[i].Presence == pipeline.Present
		if w {
			n.wanted++
		}
		if g {
			n.got++
		}
		if w && g {
			n.both++
		}
	}
}

// f1 is nil where no label is present on either side.
func (n labelCount) f1() *float64 {
	if n.wanted+n.got == 0 {
		return nil
	}
	f := 2 * float64(n.both) / float64(n.wanted+n.got)
	return &f
}

// String is the report for people.
func (c *quantizeCost) String() string {
	var b strings.Builder
	row := func(name, format string, a ...any) { fmt.Fprintf(&b, "%-16s %s\n", name, fmt.Sprintf(format, a...)) }
	row("from", "%s %s, form %s", c.From.Name, c.From.Version, c.FromForm)
	row("to", "%s: %d matrices, %d kept as they were", c.To, c.Matrices, len(c.Kept))
	row("against", "%s: %d texts, %d tokens", c.Against, c.Texts, c.Tokens)
	row("top-1 agreement", "%.4f; %d of %d texts identical", c.Top1, c.Same, c.Texts)
	if c.LabelsF1 != nil {
		row("labels F1", "%.3f against the source's reports", *c.LabelsF1)
	}
	if c.SourceF1 != nil && c.QuantizedF1 != nil {
		row("", "%.3f against the given reports, the source %.3f: %+.3f", *c.QuantizedF1, *c.SourceF1, *c.QuantizedF1-*c.SourceF1)
	}
	row("size", "%.1f MB, from %.1f MB: %.2f of it", float64(c.Bytes)/1e6, float64(c.FromBytes)/1e6, float64(c.Bytes)/float64(c.FromBytes))
	row("decode", "%.2f ms a token, the source %.2f ms: %.2f times as fast", c.TokenMS, c.FromTokenMS, c.FromTokenMS/max(c.TokenMS, 1e-9))
	return b.String()
}
