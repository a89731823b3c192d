package label

import (
	"bufio"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chatxray/pipeline"
)

// reading makes a reading of sentences; those behind "I:" are the impression.
func reading(lines ...string) *pipeline.Reading {
	r := &pipeline.Reading{Language: "en"}
	section := pipeline.SectionFindings
	for _, l := range lines {
		if l == "I:" {
			section = pipeline.SectionImpression
			continue
		}
		r.Sentences = append(r.Sentences, pipeline.Sentence{Text: l, Section: section})
	}
	return r
}

// rules lists the rules of each sentence's flags: "comparison,side".
func rules(flags [][]pipeline.Flag) (out []string) {
	for _, list := range flags {
		var names []string
		for _, f := range list {
			names = append(names, string(f.Rule))
		}
		slices.Sort(names)
		out = append(out, strings.Join(slices.Compact(names), ","))
	}
	return out
}

func TestCheck(t *testing.T) {
	only := func(side string) pipeline.Dataset {
		return pipeline.Dataset{{Tag: pipeline.TagImageLaterality, VR: "CS", Text: []string{side}}}
	}
	for _, c := range []struct {
		lines  []string
		header pipeline.Dataset
		want   []string
	}{
		{lines: []string{"The lungs are clear.", "There is no pleural effusion.", "I:", "Normal chest radiograph."}, want: []string{"", "", ""}},
		{lines: []string{"Small left effusion, unchanged.", "The heart is stable in size.", "There is no new opacity."}, want: []string{"comparison", "comparison", "comparison"}},
		{lines: []string{"Compared to the prior study the effusion has decreased.", "Interval improvement of edema.", "Persistent atelectasis."}, want: []string{"comparison", "comparison", "comparison"}},
		{lines: []string{"No comparison is available.", "No prior radiographs for comparison.", "The lungs are clear without comparison films."}, want: []string{"", "", ""}},
		{lines: []string{"There is consolidation.", "There is no focal consolidation."}, want: []string{"contradiction", "contradiction"}},
		{lines: []string{"There is a pleural effusion.", "The costophrenic angles are sharp, without pleural effusion."}, want: []string{"contradiction", "contradiction"}},
		{lines: []string{"There is a left pleural effusion.", "There is no right pleural effusion."}, want: []string{"", ""}},
		{lines: []string{"There is a left pleural effusion.", "There is no left pleural effusion."}, want: []string{"contradiction", "contradiction"}},
		{lines: []string{"There is a small left pleural effusion.", "No large pleural effusion."}, want: []string{"", ""}},
		{lines: []string{"Opacity in the left lower lobe.", "No opacity in the upper lobes."}, want: []string{"", ""}},
		{lines: []string{"Mild diffuse interstitial opacities.", "No focal airspace opacity."}, want: []string{"", ""}},
		{lines: []string{"There is a pneumothorax.", "I:", "Normal chest radiograph."}, want: []string{"contradiction", "contradiction"}},
		{lines: []string{"There is a pneumothorax.", "I:", "No acute cardiopulmonary disease."}, want: []string{"contradiction", "contradiction"}},
		{lines: []string{"The heart is enlarged.", "I:", "No acute cardiopulmonary disease."}, want: []string{"", ""}},
		{lines: []string{"The heart is enlarged.", "The heart is normal in size."}, want: []string{"contradiction", "contradiction"}},
		{lines: []string{"There is a small left pleural effusion.", "I:", "Right pleural effusion."}, want: []string{"side", "side"}},
		{lines: []string{"There is a left pleural effusion.", "There is a right pleural effusion.", "I:", "Bilateral effusions."}, want: []string{"", "", ""}},
		{lines: []string{"There are bilateral effusions.", "I:", "Right pleural effusion."}, want: []string{"", ""}},
		{lines: []string{"There is a left pneumothorax.", "The pneumothorax is on the right only."}, want: []string{"side", "side"}},
		{lines: []string{"Opacity in the right upper lobe."}, header: only("L"), want: []string{"side"}},
		{lines: []string{"Opacity in the left upper lobe."}, header: only("L"), want: []string{""}},
		{lines: []string{"Opacity in the right upper lobe."}, header: only("B"), want: []string{""}},
		{lines: []string{"No opacity in the right upper lobe."}, header: only("L"), want: []string{""}},
	} {
		got := Check(reading(c.lines...), c.header)
		if diff := cmp.Diff(c.want, rules(got)); diff != "" {
			t.Errorf("%q %s\n%v", c.lines, diff, got)
		}
	}
}

// The head's conflicts become flags of the sentences that decided the label.
func TestCheckHead(t *testing.T) {
	r := reading("The lungs are clear.", "There is no pleural effusion.")
	r.Findings = []pipeline.Finding{{Label: effusion, Presence: pipeline.Absent, Sentences: []int{1}, Conflict: true}}
	if got := rules(Check(r, nil)); got[0] != "" || got[1] != "head" {
		t.Error(got)
	}
	r.Language = "de"
	if got := rules(Check(r, nil)); got[1] != "" {
		t.Error("a language that is not known:", got)
	}
}

// What radiologists wrote: they seldom contradict themselves, so that most of those flags would be false alarms. With one denial planted in
// each report that states a finding, the rule has to find it.
func TestCheckRadiologists(t *testing.T) {
	f, err := os.Open("../../../shared/data/text/iu_reports.jsonl")
	if err != nil {
		t.Skip("../shared absent: " + err.Error())
	}
	defer f.Close()
	in := bufio.NewScanner(f)
	in.Buffer(nil, 1<<20)
	reports, count := 0, map[pipeline.Rule]int{}
	planted, found := 0, 0
	for n := 0; in.Scan(); n++ {
		if n%3 > 0 { // time
			continue
		}
		var x struct{ Findings, Impression string }
		if err := json.Unmarshal(in.Bytes(), &x); err != nil {
			t.Fatal(err)
		}
		lines := sentencesOf(x.Findings)
		if len(lines) == 0 {
			continue
		}
		lines = append(append(lines, "I:"), sentencesOf(x.Impression)...)
		r := reading(lines...)
		reports++
		seen := map[pipeline.Rule]bool{}
		for _, flags := range Check(r, nil) {
			for _, f := range flags {
				seen[f.Rule] = true
			}
		}
		for rule := range seen {
			count[rule]++
		}
		if all := Sentence(strings.Join(lines, " ")); all[effusion] == pipeline.Present && !seen[pipeline.RuleContradiction] {
			planted++
			r.Sentences = append(r.Sentences, pipeline.Sentence{Text: "There is no pleural effusion.", Section: pipeline.SectionImpression})
			if got := Check(r, nil); slices.ContainsFunc(got[len(got)-1], func(f pipeline.Flag) bool { return f.Rule == pipeline.RuleContradiction }) {
				found++
			}
		}
	}
	t.Logf("%d reports: %v flagged; %d of %d planted denials found", reports, count, found, planted)
	if n := count[pipeline.RuleContradiction] + count[pipeline.RuleSide]; n > reports/25 {
		t.Errorf("%d of %d reports are flagged for contradiction or side", n, reports)
	}
	if found < planted*5/6 {
		t.Errorf("%d of %d planted contradictions are found", found, planted)
	}
}

func sentencesOf(text string) (out []string) {
	for _, s := range sentenceEnd.Split(text, -1) {
		if strings.TrimSpace(s) != "" {
			out = append(out, s)
		}
	}
	return out
}
