package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"chatxray/modelrt"
	"chatxray/parts"
	"chatxray/phantom"
	"chatxray/pipeline"
	"chatxray/pipeline/dicom"
	"chatxray/pipeline/label"
)

type bundlesQuantizeCmd struct {
	Bundle  string `arg:"" help:"Name or folder of the bundle."`
	Out     string `arg:"" help:"Folder of the new bundle; it must not be there."`
	To      string `required:"" help:"q4 (blocks of 4 bits, the table of tokens of 8) or q8 (of 8 bits)."`
	Form    string `help:"Form to start from. Default: the one of the most bytes." placeholder:"NAME"`
	Against string `help:"DICOM file or folder of radiographs to compare both on. Default: phantoms, which say little about radiographs." placeholder:"PATH"`
	Reports string `help:"Folder with the report of each radiograph, STUDYINSTANCEUID.txt: labels are compared with them." type:"existingdir" placeholder:"DIR"`
	Prompts string `help:"File with a prompt a line, for a model of text. Default: the bundle's own." type:"existingfile" placeholder:"FILE"`
	Threads int    `help:"Threads of decoding; 0: one a core."`
}

// Help is shown by chatxray bundles quantize --help.
func (bundlesQuantizeCmd) Help() string {
	return `The bundle that comes out is one of its own: it needs no base model, and adapters of the source's base model fit it. Both are opened and run side by side on
the same images, and what the smaller one costs is printed and written into it (quantize.json, and a section of its model card):

  top-1      of the tokens that the source writes, how many are the likeliest for the other after the same image and words
  labels F1  of the labels in the reports of one against those of the other, and, where reports are given, of both against them
  size       of the language model's graphs and weights
  decode     time of a token, both measured in turn in the same run`
}

// quantizeSchema names the JSON of quantize.json, and its version.
const quantizeSchema = "chatxray.quantize/1"

// quantizeCost is what is written into the new bundle.
type quantizeCost struct {
	Schema       string            `json:"schema"`
	From         pipeline.ModelRef `json:"from"`
	FromForm     string            `json:"from_form"`
	To           string            `json:"to"`
	Matrices     int               `json:"matrices"`
	Kept         []string          `json:"kept,omitempty"` // matrices that stayed, and why
	Against      string            `json:"against"`
	Texts        int               `json:"texts"`
	Refused      int               `json:"refused,omitempty"` // images that the model does not read
	Tokens       int               `json:"tokens"`
	Top1         float64           `json:"top1_agreement"`
	Same         int               `json:"identical_texts"`
	LabelsF1     *float64          `json:"labels_f1_against_source,omitempty"`
	SourceF1     *float64          `json:"labels_f1_source,omitempty"` // against the reports
	QuantizedF1  *float64          `json:"labels_f1_quantized,omitempty"`
	FromBytes    int64             `json:"from_bytes"`
	Bytes        int64             `json:"bytes"`
	FromTokenMS  float64           `json:"from_decode_ms_per_token"`
	TokenMS      float64           `json:"decode_ms_per_token"`
	MeasuredWith string            `json:"measured_with"`
}

// Run writes the bundle and its cost.
func (c bundlesQuantizeCmd) Run(ctx context.Context, s streams) error {
	b, err := modelrt.Verify(bundleDir(c.Bundle))
	if err != nil {
		return bundleError(c.Bundle, err)
	}
	if err := b.CanQuantize(); err != nil {
		return err
	}
	cache, err := cacheDir("weights")
	if err != nil {
		return err
	}
	base := modelrt.BaseModel{Cache: cache, Progress: progress(s.err, "making the weights of "+b.Manifest.Name)}
	if part := b.Manifest.Base.Part; part != "" {
		if base.Path, err = parts.Path(part); err != nil {
			return err
		}
	}
	setUpCodecs(s.log)
	trials, against, err := c.trials(ctx, s, b)
	if err != nil {
		return err
	}
	q, err := modelrt.Quantize(ctx, b, base, c.Form, c.To, c.Out)
	if err != nil {
		return err
	}
	cost, err := c.compare(ctx, s, b, q, trials)
	if err != nil {
		return errors.Join(fmt.Errorf("%s is written, what it costs is not known: %w", c.Out, err))
	}
	cost.Against = against
	fmt.Fprint(s.out, cost)
	return cost.keep(c.Out)
}

// trial is one thing to compare on, and the report that is known of it.
type trial struct {
	modelrt.Trial
	report string
}

func (c bundlesQuantizeCmd) trials(ctx context.Context, s streams, b *modelrt.Bundle) (list []trial, against string, err error) {
	if b.Manifest.Vision.Input == "none" {
		prompts := []string{""}
		against = "the bundle's own prompt"
		if c.Prompts != "" {
			text, err := os.ReadFile(c.Prompts)
			if err != nil {
				return nil, "", err
			}
			prompts, against = strings.Split(strings.TrimSpace(string(text)), "\n"), "prompts that were given"
		}
		for _, p := range prompts {
			list = append(list, trial{Trial: modelrt.Trial{Prompt: p}})
		}
		return list, against, nil
	}
	if c.Against == "" {
		list, err = phantoms()
		return list, "phantoms (drawn, no radiographs)", err
	}
	studies, invalid, err := openStudies(s, []string{c.Against})
	if err != nil {
		return nil, "", err
	}
	for _, st := range studies {
		img, err := frontal(ctx, looking(b.Manifest.Patients.MinAgeYears), st)
		if err != nil {
			fmt.Fprintln(s.err, "chatxray:", err)
			continue
		}
		t := trial{Trial: modelrt.Trial{Image: img}}
		if c.Reports != "" {
			text, err := os.ReadFile(filepath.Join(c.Reports, st.StudyInstanceUID+".txt"))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, "", err
			}
			t.report = string(text)
		}
		list = append(list, t)
	}
	if len(list) == 0 {
		return nil, "", errors.Join(fmt.Errorf("%w: %s has no frontal chest radiograph to compare on", pipeline.ErrNotImage, c.Against), invalid)
	}
	return list, fmt.Sprintf("%d radiographs that were given", len(list)), nil
}

// phantoms are drawn with what reports speak of.
func phantoms() (list []trial, err error) {
	for seed := range uint64(8) {
		o := phantom.Options{Seed: seed + 1, EnlargedHeart: seed&1 != 0, Rows: 1000, Columns: 820, BitsStored: 12, Photometric: "MONOCHROME2", View: "PA"}
		if seed&2 != 0 {
			o.Effusion = phantom.Right
		}
		if seed&4 != 0 {
			o.Opacity = phantom.Left
		}
		img, err := phantomImage(o)
		if err != nil {
			return nil, err
		}
		list = append(list, trial{Trial: modelrt.Trial{Image: img}})
	}
	return list, nil
}

// compare runs both models on the same texts, in turn.
func (c bundlesQuantizeCmd) compare(ctx context.Context, s streams, b *modelrt.Bundle, q *modelrt.Quantization, trials []trial) (*quantizeCost, error) {
	runtime, err := startRuntime(s.log, modelrt.CPU)
	if err != nil {
		return nil, err
	}
	open := func(dir, form string) (*modelrt.Model, error) {
		cache, err := cacheDir("weights")
		if err != nil {
			return nil, err
		}
		return modelrt.Open(ctx, runtime, dir, modelrt.Options{Base: func(_ context.Context, part string) (string, error) { return parts.Path(part) }, Cache: cache,
			Threads: c.Threads, Texts: 1, Form: form, Label: label.Report, Knows: label.Knows, Now: time.Now})
	}
	from, err := open(b.Dir, q.Form)
	if err != nil {
		return nil, err
	}
	defer from.Close()
	to, err := open(c.Out, "")
	if err != nil {
		return nil, err
	}
	defer to.Close()
	cost := &quantizeCost{Schema: quantizeSchema, From: from.Ref(), FromForm: q.Form, To: c.To, Matrices: q.Matrices, Kept: q.Kept, FromBytes: q.FromBytes, Bytes: q.Bytes, MeasuredWith: softwareVersion()}
	var m measuring
	tell := progress(s.err, "comparing")
	for i, t := range trials {
		switch err := m.one(ctx, from, to, t); {
		case errors.Is(err, pipeline.ErrNotImage):
			cost.Refused++
		case err != nil:
			return nil, err
		}
		tell(int64(i+1), int64(len(trials)))
	}
	if m.tokens == 0 {
		return nil, fmt.Errorf("%w: the source wrote nothing on %d texts", pipeline.ErrModel, len(trials))
	}
	m.into(cost)
	return cost, nil
}

// phantomImage decodes a phantom as a file would be.
func phantomImage(o phantom.Options) (*pipeline.Image, error) {
	p, err := phantom.Draw(o)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := dicom.Write(&b, p.Dataset(), phantomSyntaxes["explicit"]); err != nil {
		return nil, err
	}
	in, err := dicom.Open(b.Bytes())
	if err != nil {
		return nil, err
	}
	return dicom.Decode(context.Background(), in, 0)
}

// keep writes the cost into the bundle.
func (c *quantizeCost) keep(dir string) error {
	b, err := json.MarshalIndent(c, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "quantize.json"), append(b, '\n'), 0o644); err != nil {
		return err
	}
	card := filepath.Join(dir, "README.md")
	text, err := os.ReadFile(card)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	text = fmt.Appendf(text, "\n## Quantised\n\nMade by `chatxray bundles quantize` from %s %s (sha256 %s). What is above was measured with the source.\n\n```\n%s```\n",
		c.From.Name, c.From.Version, c.From.Digest, c)
	if err := os.WriteFile(card, text, 0o644); err != nil {
		return err
	}
	return modelrt.Seal(dir)
}
