package main

import (
	"fmt"
	"io"
	"math"
	"strings"
	"unicode/utf8"

	textwidth "golang.org/x/text/width"

	"chatxray/pipeline"
	"chatxray/sr"
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
		for n, s := range r.Sentences {
			if s.Section != section {
				continue
			}
			if first {
				heading := strings.ToUpper(sr.Heading(r.Language, section))
				fmt.Fprintf(p.w, "\n%s%sevidence\n", p.style("1", heading), strings.Repeat(" ", textWidth-cells(heading)))
				first = false
			}
			for i, line := range wrap(s.Text, textWidth-6) {
				if i == 0 {
					column := p.style("33", "not available")
					if r.NoEvidence == "" {
						column = p.evidence(s.Evidence, len(r.Sentences))
					}
					fmt.Fprintf(p.w, "%2d  %s%s\n", n+1, pad(line, textWidth-4), column)
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
	if r.NoEvidence != "" {
		fmt.Fprintf(p.w, "\n%s\n", p.style("33", "No evidence available: "+r.NoEvidence+".\nWhether a sentence rests on this image was not measured."))
	} else {
		fmt.Fprintf(p.w, "\n%s\n", p.style("2", legend(r.Calibration)))
	}
	if r.Truncated {
		fmt.Fprintln(p.w, p.style("33", "The model did not end its report: it was cut off at the token limit."))
	}
	p.findings(r.Language, r.Findings)
	for _, f := range r.Refused {
		fmt.Fprintf(p.w, "not read: %s: %s\n", f.SOPInstanceUID, f.Detail)
	}
}

// legend says what the column of evidence is.
func legend(c *pipeline.Calibration) string {
	text := "evidence: how much likelier this image makes the sentence than other patients' images do (a mark a nat, a dot for less than\n" +
		"half of one), and its rank among the sentences. \"none\": it does not rest on this image. "
	if c == nil {
		return text + "Uncalibrated: no probability, only an order."
	}
	return text + fmt.Sprintf("The percentage is the share of true ones among\nplanted sentences of such evidence (%s: %d sentences, half of them true; Brier %.3f, calibration error %.3f out of fold).\n"+
		"It is not the probability of a finding.", c.Set, c.Sentences, c.Brier, c.ECE)
}

// evidence draws Drop as a bar of up to eight marks, one for each nat, and the sentence's rank; where it is calibrated the share of true ones.
func (p page) evidence(e pipeline.Evidence, of int) string {
	bar, code := strings.Repeat("#", int(math.Max(0, math.Min(8, math.Round(e.Drop))))), "32"
	switch {
	case e.Drop < 0.05:
		bar, code = "none", "31"
	case bar == "":
		bar = "."
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

func (p page) findings(language string, all []pipeline.Finding) {
	by := map[pipeline.Presence][]string{}
	for _, f := range all {
		name := sr.LabelName(language, f.Label)
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
				head = sr.PresenceName(language, presence)
			}
			fmt.Fprintf(p.w, "%s %s\n", pad(head, 14), line)
		}
	}
}

// wrap breaks text at spaces into lines of at most width cells; a longer word stays whole, but between wide characters a line may end
// anywhere.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	add := func(part, before string) {
		if line != "" && cells(line)+cells(before)+cells(part) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += before
		}
		line += part
	}
	for _, word := range strings.Fields(text) {
		before := " "
		for word != "" {
			n := unbroken(word)
			add(word[:n], before)
			word, before = word[n:], ""
		}
	}
	return append(lines, line)
}

// unbroken is how many bytes of a word stay in one line: all up to a wide character, or that one with the marks behind it.
func unbroken(word string) int {
	for at := 0; ; {
		r, n := utf8.DecodeRuneInString(word[at:])
		if n == 0 || at > 0 && wide(r) && !strings.ContainsRune(closing, r) {
			return at
		}
		at += n
		if next, _ := utf8.DecodeRuneInString(word[at:]); wide(r) && !strings.ContainsRune(closing, next) {
			return at
		}
	}
}

// closing are wide marks that begin no line.
const closing = "。，、；：！？）》」』】"

// wide tells whether a terminal shows a character in two cells (Unicode Standard Annex 11).
func wide(r rune) bool {
	k := textwidth.LookupRune(r).Kind()
	return k == textwidth.EastAsianWide || k == textwidth.EastAsianFullwidth
}

// cells is the width of a text in a terminal. Marks that stand on the letter before them are rare in what we write, and count.
func cells(s string) int {
	n := 0
	for _, r := range s {
		if n++; wide(r) {
			n++
		}
	}
	return n
}

// pad fills a text up with spaces to a width in cells.
func pad(s string, width int) string { return s + strings.Repeat(" ", max(0, width-cells(s))) }
