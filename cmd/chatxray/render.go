package main

import (
	"fmt"
	"io"
	"math"
	"strings"

	"chatxray/pipeline"
)

// page writes readings for people: the drafted report with the evidence of each sentence beside it.
type page struct {
	w     io.Writer
	color bool
}

const textWidth = 74

func (p page) style(code, s string) string {
	if !p.color {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p page) reading(r *pipeline.Reading) {
	title := "DRAFT by software, not reviewed by a radiologist"
	if r.Phantom {
		title += " - about a PHANTOM, no patient"
	}
	fmt.Fprintf(p.w, "\n%s\n", p.style("1;33", title))
	fmt.Fprintf(p.w, "model  %s %s\n", r.Model.Name, r.Model.Version)
	if r.Model.Served != "" {
		fmt.Fprintf(p.w, "       elsewhere; its endpoint calls it: %s\n", r.Model.Served)
	}
	fmt.Fprintf(p.w, "study  %s\n", r.StudyInstanceUID)
	for _, in := range r.Inputs {
		view := strings.TrimSpace(in.Modality + " " + in.ViewPosition)
		if in.ViewByModel {
			view += ", view not in the header, taken as frontal by the model"
		}
		fmt.Fprintf(p.w, "image  %s (%s)\n", in.SOPInstanceUID, view)
	}
	for _, section := range []pipeline.Section{pipeline.SectionFindings, pipeline.SectionImpression} {
		first := true
		for _, s := range r.Sentences {
			if s.Section != section {
				continue
			}
			if first {
				fmt.Fprintf(p.w, "\n%s%sevidence\n", p.style("1", strings.ToUpper(string(section))), strings.Repeat(" ", textWidth-len(section)))
				first = false
			}
			lines := wrap(s.Text, textWidth-2)
			for i, line := range lines {
				if i == 0 && r.NoEvidence != "" {
					fmt.Fprintf(p.w, "%-*s%s\n", textWidth, line, p.style("33", "not available"))
				} else if i == 0 {
					fmt.Fprintf(p.w, "%-*s%s\n", textWidth, line, p.evidence(s.Evidence))
					continue
				}
				fmt.Fprintln(p.w, line)
			}
		}
	}
	if r.NoEvidence != "" {
		fmt.Fprintf(p.w, "\n%s\n", p.style("33", "No evidence available: "+r.NoEvidence+".\nWhether a sentence rests on this image was not measured."))
	} else {
		fmt.Fprintf(p.w, "\n%s\n", p.style("2", "evidence: how much likelier (in nats) this image makes the sentence than other patients' images do; the second\n"+
			"number compares with a blank image. Near or below 0 the sentence does not rest on this image."))
	}
	if r.Truncated {
		fmt.Fprintln(p.w, p.style("33", "The model did not end its report: it was cut off at the token limit."))
	}
	p.findings(r.Findings)
	for _, f := range r.Refused {
		fmt.Fprintf(p.w, "not read: %s: %s\n", f.SOPInstanceUID, f.Detail)
	}
}

// evidence draws Drop as a bar of up to eight blocks, one for each nat, and both numbers.
func (p page) evidence(e pipeline.Evidence) string {
	bar := strings.Repeat("#", int(math.Max(0, math.Min(8, math.Round(e.Drop)))))
	code := "32"
	if e.Drop <= 0.1 {
		code = "31"
	}
	return fmt.Sprintf("%s %+6.2f  %+6.2f", p.style(code, fmt.Sprintf("%-8s", bar)), e.Drop, e.LogLikelihood-e.Blank)
}

func (p page) findings(all []pipeline.Finding) {
	by := map[pipeline.Presence][]string{}
	for _, f := range all {
		name := f.Label
		if f.Conflict {
			name += " (the findings head disagrees)"
		}
		by[f.Presence] = append(by[f.Presence], name)
	}
	fmt.Fprintln(p.w)
	for _, presence := range []pipeline.Presence{pipeline.Present, pipeline.Undetermined, pipeline.Absent, pipeline.NotSaid} {
		if len(by[presence]) == 0 {
			continue
		}
		for i, line := range wrap(strings.Join(by[presence], ", "), textWidth+10) {
			head := ""
			if i == 0 {
				head = string(presence)
			}
			fmt.Fprintf(p.w, "%-13s %s\n", head, line)
		}
	}
}

// wrap breaks text at spaces into lines of at most width bytes; a longer word stays whole.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
