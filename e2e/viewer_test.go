package e2e

import (
	"fmt"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// reported starts a service that serves OHIF where a viewer is given, has it read a phantom, and returns the study.
func reported(t *testing.T, args ...string) (s *service, study string) {
	t.Helper()
	s = serve(t, t.TempDir(), append([]string{"--config", configured(t, "line:\n  quiet: 200ms\n")}, args...)...)
	file, study := phantom(t, "--seed", "4")
	chatxray(t, 0, "send", s.dicomweb(), file)
	eventually(t, 2*time.Minute, "both reports", func() error {
		var found []any
		getJSON(t, s.dicomweb()+"/studies/"+study+"/instances", &found)
		if len(found) != 3 {
			return fmt.Errorf("%d instances in the study", len(found))
		}
		return nil
	})
	return s, study
}

// OHIF, served by the service, lists the study, draws the radiograph and shows what both reports say.
func TestOHIF(t *testing.T) {
	cmd := script(t, "viewer.mjs")
	s, study := reported(t, "--viewer", software(t, "ohif"))
	pictures := os.Getenv("CHATXRAY_PICTURES") // where somebody wants to keep them
	if pictures == "" {
		pictures = t.TempDir()
	}
	cmd.Args = append(cmd.Args, s.root+"/", study, pictures)
	other := said(t, cmd, []string{
		"list studies",
		"open a radiograph",
		"see its pixels",
		"open the findings (TID 1500)",
		"open the draft report (TID 2000)",
		"open the radiograph beside the findings",
		"no request failed, no script threw",
	})

	// What OHIF shows is what the reading says.
	shown := map[string]string{}
	for _, line := range other {
		for k, v := range line {
			shown[k] = v
		}
	}
	var told struct {
		Record struct {
			Reading struct {
				Sentences []struct{ Text string }
				Findings  []struct{ Label, Presence string }
			}
		}
	}
	getJSON(t, s.dicomweb()+"/studies/"+study+"/reading", &told)
	reading := told.Record.Reading
	if len(reading.Sentences) == 0 {
		t.Fatal("the reading has no sentence")
	}
	for _, sentence := range reading.Sentences {
		if !strings.Contains(shown["report"], sentence.Text) {
			t.Errorf("OHIF does not show %q in the report:\n%s", sentence.Text, shown["report"])
		}
	}
	findings := 0
	for _, f := range reading.Findings {
		if f.Label == "No Finding" || f.Presence == "" || f.Presence == "not said" {
			continue
		}
		findings++
		_, group, _ := strings.Cut(shown["findings"], "Tracking Identifier: "+f.Label+"\n")
		group, _, _ = strings.Cut(group, "Measurement Group")
		if !strings.Contains(strings.ToLower(group), "presence: "+f.Presence+"\n") {
			t.Errorf("OHIF does not show %s as %s:\n%s", f.Label, f.Presence, shown["findings"])
		}
	}
	if findings == 0 {
		t.Errorf("the reading has no finding: %+v", reading.Findings)
	}
	if f, err := os.Open(filepath.Join(pictures, "ohif.png")); err == nil {
		defer f.Close()
		if p, err := png.DecodeConfig(f); err != nil || p.Width < 1000 {
			t.Errorf("the picture: %+v %v", p, err)
		}
	}
}

// highdicom and pydicom read the service's reports and its JSON, and find in them what the reading says.
func TestHighdicomReadsTheReports(t *testing.T) {
	cmd := script(t, "sr.py")
	s, study := reported(t)
	cmd.Args = append(cmd.Args, s.dicomweb(), study)
	said(t, cmd, []string{
		"the study has the radiograph and both reports",
		"highdicom reads the findings: presence, images, sentences, evidence",
		"highdicom reads the findings from the JSON of /metadata",
		"highdicom reads the qualitative evaluations: the assessment, and a code for each finding",
		"highdicom finds the images of the evidence sequence by series",
		"pydicom reads the draft report: every sentence, and the images",
		"pydicom reads the JSON of every instance, and it says what the file says",
	})
}
