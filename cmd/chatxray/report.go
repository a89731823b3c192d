package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"chatxray/config"
	"chatxray/modelrt"
	"chatxray/pipeline"
)

type reportCmd struct {
	modelFlags
	Paths         []string `arg:"" help:"DICOM files or folders; a folder is grouped by study; - is one file on standard input."`
	JSON          bool     `help:"Print one JSON object a study and line (docs/report-json.md) instead of text."`
	Plain         bool     `help:"Also ask for the report in words for the patient: an unreviewed draft, marked so; the default bundle does it badly."`
	Language      string   `help:"Language of the report, one of the bundle's. Default: its first." placeholder:"TAG"`
	Structured    bool     `help:"Also a form of findings, held to a JSON Schema; the default bundle was not taught to fill in forms, and does it badly."`
	SecondOpinion string   `help:"Another bundle comments on the wording of the draft; it sees no image. Both are in memory." placeholder:"BUNDLE"`
	Out           string   `help:"Folder for the DICOM SR objects and a PNG of what the model saw, of each study." placeholder:"DIR"`
	heatFlags
}

// Help is shown by chatxray report --help.
func (reportCmd) Help() string {
	return `Chooses the frontal chest radiograph of each study, reads it and prints the drafted report with the evidence of each sentence.
Files that are not DICOM are told on standard error; the others are read all the same.

There is no archive, so nothing is kept of a reading: every run makes documents of its own, with UIDs of their own. Send those of one
run to a PACS, not those of several.

--structured: a bundle that was taught to fill in forms writes the form, and the report is made of it. Another one writes its report as always
and fills in a form of its sentences afterwards; nothing is made of that form.`
}

// reportSchema names the JSON that report --json prints, and its version.
const reportSchema = "chatxray.report/1"

// studyReport is one line of report --json, and what the service answers about a study.
type studyReport struct {
	Schema           string             `json:"schema"`
	StudyInstanceUID string             `json:"study_instance_uid"`
	State            pipeline.State     `json:"state"`
	Error            string             `json:"error,omitempty"`
	Reading          *pipeline.Reading  `json:"reading,omitempty"`
	Plain            *plainReport       `json:"plain,omitempty"`
	SecondOpinion    *secondOpinion     `json:"second_opinion,omitempty"`
	Refused          []pipeline.Refusal `json:"refused,omitempty"`
	Documents        []writtenDocument  `json:"documents,omitempty"`
	Preview          string             `json:"preview,omitempty"`   // path of the PNG
	HeatMaps         []string           `json:"heat_maps,omitempty"` // paths of PNG files, one a sentence
	NotMade          map[extra]string   `json:"not_made,omitempty"`  // why something that was asked for beside the report is not there

	heat *pipeline.Heat
	seen []byte // the picture that the model saw
}

type writtenDocument struct {
	Kind           pipeline.DocumentKind `json:"kind"`
	SOPInstanceUID string                `json:"sop_instance_uid"`
	Path           string                `json:"path,omitempty"`
}

// Run reads every study of the paths. Its error is the gravest of what happened.
func (c reportCmd) Run(ctx context.Context, s streams) error {
	if err := c.possible(); err != nil {
		return err
	}
	studies, invalid, err := openStudies(s, c.Paths)
	if err != nil {
		return err
	}
	if len(studies) == 0 {
		return invalid
	}
	eng, err := c.open(ctx, s)
	if err != nil {
		return err
	}
	defer eng.Close()
	second, err := c.openSecond(ctx, s, eng)
	if err != nil {
		return err
	}
	if second != nil {
		defer second.Close()
	}
	var failed, nothing error
	read := 0
	for i, st := range studies {
		if len(studies) > 1 {
			fmt.Fprintf(s.err, "[%d/%d] study %s\n", i+1, len(studies), st.StudyInstanceUID)
		}
		rep, img, docs, err := c.study(ctx, eng, second, st)
		switch {
		case rep.Reading != nil:
			read++
			if c.Out != "" {
				err = errors.Join(err, rep.notMade(ctx, extraFiles, writeOut(c.Out, &rep, img, docs)))
			}
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, pipeline.ErrNotImage):
			nothing, err = err, nil
		}
		if err != nil {
			failed = errors.Join(failed, err)
			if c.JSON || rep.Reading == nil { // beside a report in words it stands there
				fmt.Fprintf(s.err, "chatxray: study %s: %v\n", st.StudyInstanceUID, err)
			}
		}
		if c.JSON || rep.Error == "" {
			if err := printReport(s, c.JSON, rep); err != nil {
				return err
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	switch {
	case failed != nil:
		return fmt.Errorf("%w%w", errQuiet, failed)
	case invalid != nil:
		return invalid
	case read == 0:
		return fmt.Errorf("%w%w", errQuiet, nothing)
	}
	return nil
}

// open starts the model in the language and form that are asked for.
func (c reportCmd) open(ctx context.Context, s streams) (*engine, error) {
	cfg := config.Default()
	cfg.Model = c.over(cfg.Model)
	cfg.Model.Language = c.Language
	return startEngine(ctx, s, cfg, func(o *modelrt.Options) { o.Structured = c.Structured })
}

// study reads a study and makes what is wanted beside the report. Where the report has a Reading, the error is about what beside it could not be made.
func (c reportCmd) study(ctx context.Context, eng, second *engine, st *pipeline.Study) (studyReport, []byte, []pipeline.Document, error) {
	rep := studyReport{Schema: reportSchema, StudyInstanceUID: st.StudyInstanceUID, State: pipeline.StateFailed}
	failed := func(err error) (studyReport, []byte, []pipeline.Document, error) {
		rep.Error = err.Error()
		return rep, nil, nil, err
	}
	seen, err := eng.steps.Look(ctx, st)
	var r *pipeline.Reading
	if err == nil {
		r, seen, err = eng.steps.Read(ctx, seen, time.Now())
	}
	if none := (*pipeline.NoImageError)(nil); errors.As(err, &none) {
		rep.State, rep.Refused = pipeline.StateRefused, none.Refused
		return rep, nil, nil, err
	}
	if err != nil {
		return failed(err)
	}
	var docs []pipeline.Document
	rep.State = pipeline.StateHeld
	if r.Held == "" {
		rep.State = pipeline.StateReported
		if docs, err = eng.steps.Write(st, r, nil); err != nil {
			rep.State = pipeline.StateFailed
			return failed(err)
		}
	}
	for _, d := range docs {
		rep.Documents = append(rep.Documents, writtenDocument{Kind: d.Kind, SOPInstanceUID: d.SOPInstanceUID})
	}
	rep.Reading, rep.Refused = r, r.Refused

	var faults []error
	png, err := eng.steps.Model.Preview(seen.Image)
	faults = append(faults, rep.notMade(ctx, extraPreview, err))
	if c.Plain {
		rep.Plain, err = eng.plain(ctx, seen.Image)
		faults = append(faults, rep.notMade(ctx, extraPlain, err))
	}
	if second != nil {
		rep.SecondOpinion, err = second.opinion(ctx, r)
		faults = append(faults, rep.notMade(ctx, extraOpinion, err))
	}
	if c.wanted() && png != nil {
		faults = append(faults, rep.notMade(ctx, extraHeat, c.warm(ctx, eng.model, seen.Image, r, png, &rep)))
	}
	return rep, png, docs, errors.Join(faults...)
}

// writeOut writes documents and picture of a study to dir and notes their paths in rep.
func writeOut(dir string, rep *studyReport, png []byte, docs []pipeline.Document) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for i, d := range docs {
		path := filepath.Join(dir, fmt.Sprintf("%s.%s.dcm", rep.StudyInstanceUID, d.Kind))
		if err := os.WriteFile(path, d.Bytes, 0o644); err != nil {
			return err
		}
		rep.Documents[i].Path = path
	}
	if png == nil {
		return nil
	}
	path := filepath.Join(dir, rep.StudyInstanceUID+".png")
	if err := os.WriteFile(path, png, 0o644); err != nil {
		return err
	}
	rep.Preview = path
	return nil
}

func printReport(s streams, asJSON bool, rep studyReport) error {
	if asJSON {
		return json.NewEncoder(s.out).Encode(rep)
	}
	p := page{w: s.out, color: s.color()}
	switch {
	case rep.Reading != nil:
		p.reading(rep.Reading)
		if rep.Reading.Structured != nil {
			p.structured(rep.Reading)
		}
		p.heat(&rep)
		if rep.Plain != nil {
			p.plain(rep.Plain)
		}
		if rep.SecondOpinion != nil {
			p.opinion(rep.SecondOpinion)
		}
		for _, e := range slices.Sorted(maps.Keys(rep.NotMade)) {
			fmt.Fprintf(s.out, "\n%s\n", p.style("33", strings.Join(wrap(fmt.Sprintf("NOT MADE: %s: %s", extraNames[e], rep.NotMade[e]), textWidth+10), "\n")))
		}
	case rep.Error != "":
		fmt.Fprintf(s.out, "study %s: %s\n", rep.StudyInstanceUID, rep.Error)
	default:
		fmt.Fprintf(s.out, "study %s: no frontal chest radiograph that can be read\n", rep.StudyInstanceUID)
		for _, r := range rep.Refused {
			fmt.Fprintf(s.out, "  not read: %s: %s (%s)\n", r.SOPInstanceUID, r.Detail, r.Reason)
		}
	}
	for _, d := range rep.Documents {
		if d.Path != "" {
			fmt.Fprintf(s.out, "%-10s %s\n", d.Kind, d.Path)
		}
	}
	if rep.Preview != "" {
		fmt.Fprintf(s.out, "%-10s %s\n", "seen", rep.Preview)
	}
	for _, path := range rep.HeatMaps {
		fmt.Fprintf(s.out, "%-10s %s\n", "heat map", path)
	}
	return nil
}
