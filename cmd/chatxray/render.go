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
	if r.Held != "" {
		title += " - HELD: " + r.Held
	}
	fmt.Fprintf(p.w, "\n%s\n", p.style("1;33", title))
	fmt.Fprintf(p.w, "model  %s %s\nstudy  %s\n", r.Model.Name, r.Model.Version, r.StudyInstanceUID)
	for _, in := range r.Inputs {
		view := strings.TrimSpace(in.Modality + " " + in.ViewPosition)
		if in.ViewByModel {
			view += ", view not in the header, taken as frontal by the model"
		}
		fmt.Fprintf(p.w, "image  %s (%s)\n", in.SOPInstanceUID, view)
	}
	for _, section := range []pipeline.Section{pipeline.SectionFindings, pipeline.SectionImpression} {
		first := true
		for n, s := range r.Sentences {
			if s.Section != section {
				continue
			}
			if first {
				fmt.Fprintf(p.w, "\n%s%sevidence\n", p.style("1", strings.ToUpper(string(section))), strings.Repeat(" ", textWidth-len(section)))
				first = false
			}
			for i, line := range wrap(s.Text, textWidth-6) {
				if i == 0 {
					fmt.Fprintf(p.w, "%2d  %-*s%s\n", n+1, textWidth-4, line, p.evidence(s.Evidence, len(r.Sentences)))
					continue
				}
				fmt.Fprintln(p.w, "    "+line)
			}
			p.flags(s)
		}
	}
	for i, s := range r.Dropped {
		if i == 0 {
			fmt.Fprintf(p.w, "\n%s\n", p.style("1", "TAKEN OUT, not part of the report"))
		}
		fmt.Fprintln(p.w, p.style("2", s.Text))
		p.flags(s)
	}
	fmt.Fprintf(p.w, "\n%s\n", p.style("2", legend(r.Calibration)))
	if r.Truncated {
		fmt.Fprintln(p.w, p.style("33", "The model did not end its report: it was cut off at the token limit."))
	}
	p.findings(r.Findings)
	for _, f := range r.Refused {
		fmt.Fprintf(p.w, "not read: %s: %s\n", f.SOPInstanceUID, f.Detail)
	}
}

// legend says what the column of evidence is.
func legend(c *pipeline.Calibration) string {
	text := "evidence: how much likelier this image makes the sentence than other patients' images do (a mark a nat), and its rank among the\n" +
		"sentences. \"none\": it does not rest on this image. "
	if c == nil {
		return text + "Uncalibrated: no probability, only an order."
	}
	return text + fmt.Sprintf("The percentage is the share of true ones among\nplanted sentences of such evidence (%s: %d sentences, half of them true; Brier %.3f, calibration error %.3f out of fold).\n"+
		"It is not the probability of a finding.", c.Set, c.Sentences, c.Brier, c.ECE)
}

// evidence draws Drop as a bar of up to eight marks, one for each nat, and the sentence's rank; where it is calibrated the share of true ones.
func (p page) evidence(e pipeline.Evidence, of int) string {
	bar, code := strings.Repeat("#", int(math.Max(0, math.Min(8, math.Round(e.Drop))))), "32"
	if e.Drop < 0.05 {
		bar, code = "none", "31"
	}
	s := fmt.Sprintf("%s %d/%d", p.style(code, fmt.Sprintf("%-8s", bar)), e.Rank, of)
	if e.True != nil {
		s += fmt.Sprintf("  %2.0f %%", 100**e.True)
	}
	return s
}

// flags tells what rules have found wrong with a sentence.
func (p page) flags(s pipeline.Sentence) {
	for _, f := range s.Flags {
		for i, line := range wrap(f.Reason, textWidth-6) {
			mark := "  "
			if i == 0 {
				mark = "! "
			}
			fmt.Fprintln(p.w, p.style("33", "    "+mark+line))
		}
	}
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
