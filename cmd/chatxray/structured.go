package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"chatxray/pipeline"
	"chatxray/sr"
)

// untaughtNotice stands with forms that a bundle was never taught to fill in.
const untaughtNotice = "The bundle was not taught to fill in forms: it was only held to one, after its report. Nothing is made of it."

// structured shows what the form says, label by label.
func (p page) structured(r *pipeline.Reading) {
	var form struct{ Findings []pipeline.StructuredFinding }
	if err := json.Unmarshal(r.Structured.Report, &form); err != nil { // modelrt has read it
		return
	}
	fmt.Fprintf(p.w, "\n%s\n", p.style("1", "FORM"))
	if !r.Structured.Taught {
		fmt.Fprintln(p.w, p.style("33", strings.Join(wrap(untaughtNotice, textWidth+10), "\n")))
	}
	silent := 0
	for _, f := range form.Findings {
		if f.Status == pipeline.NotSaid {
			silent++
			continue
		}
		fmt.Fprintf(p.w, "%s %s %-6s %s\n", pad(sr.LabelName(r.Language, f.Label), 28), pad(sr.PresenceName(r.Language, f.Status), 14), f.Side, f.Sentence)
		if slices.Contains(r.Structured.Unsupported, f.Label) {
			fmt.Fprintf(p.w, "%28s %s\n", "", p.style("33", "the report does not say so"))
		}
	}
	fmt.Fprintf(p.w, "%s: %d\n", sr.PresenceName(r.Language, pipeline.NotSaid), silent)
}
