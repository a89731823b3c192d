package rules

import (
	"strings"
	"testing"
	"time"

	"chatxray/pipeline"
)

// choose takes what begins with f for frontal, with l for lateral, with u for an image of an unknown view; the rest has no pixels.
func choose(st *pipeline.Study) (chosen []pipeline.Chosen, refused []pipeline.Refusal) {
	for _, in := range st.Instances {
		switch in.SOPInstanceUID[0] {
		case 'f', 'u':
			chosen = append(chosen, pipeline.Chosen{Instance: in, ViewUnknown: in.SOPInstanceUID[0] == 'u'})
		case 'l':
			refused = append(refused, pipeline.Refusal{SOPInstanceUID: in.SOPInstanceUID, Reason: "lateral"})
		default:
			refused = append(refused, pipeline.Refusal{SOPInstanceUID: in.SOPInstanceUID, Reason: "not-an-image"})
		}
	}
	return chosen, refused
}

func study(instances ...string) *pipeline.Study {
	st := &pipeline.Study{}
	for _, uid := range instances {
		in := &pipeline.Instance{SOPInstanceUID: uid, SeriesInstanceUID: "1." + uid[1:]}
		if uid[0] != 'x' {
			view := []string{}
			if uid[0] == 'f' {
				view = []string{"PA"}
			}
			in.Header = pipeline.Dataset{{Tag: pipeline.TagModality, VR: "CS", Text: []string{"DX"}}, {Tag: pipeline.TagViewPosition, VR: "CS", Text: view},
				{Tag: pipeline.TagRows, VR: "US", Ints: []int64{128}}}
		}
		st.Instances = append(st.Instances, in)
	}
	return st
}

func TestRequires(t *testing.T) {
	for _, c := range []struct {
		requires string
		has      []string
		missing  string
	}{
		{"frontal >= 1 && lateral >= 1", []string{"f1", "l1"}, ""},
		{"frontal >= 1 && lateral >= 1", []string{"f1", "f2", "x1"}, "frontal 2, lateral 0, unknown 0, images 2, instances 3"},
		{"frontal + unknown >= 2", []string{"f1", "u1"}, ""},
		{`count(images, .view == "PA" && .modality == "DX") == 1`, []string{"f1", "u1"}, ""},
		{`count(images, .view == "AP") > 0`, []string{"f1"}, "is not met"},
		{"len(series) == 2", []string{"f1", "l1", "l2"}, ""},
		{"instances > 3", []string{"f1"}, "is not met"},
		{`images[1].view == "PA"`, []string{"f1"}, "cannot be told"},
		{`all(images, .modality in ["CR", "DX"])`, nil, ""},
	} {
		rule, err := Config{Requires: c.requires, Wait: time.Minute, Then: pipeline.ThenHold}.Open(choose)
		if err != nil {
			t.Fatal(err)
		}
		if got := rule.Missing(study(c.has...)); (got == "") != (c.missing == "") || !strings.Contains(got, c.missing) {
			t.Errorf("%s of %v: %q, want %q", c.requires, c.has, got, c.missing)
		}
	}
}

func TestNothingIsRequired(t *testing.T) {
	rule, err := Default().Open(choose)
	if err != nil || rule.Missing != nil {
		t.Errorf("%v, %v", rule, err)
	}
}

// What is wrong with an expression is said where the service starts.
func TestCheck(t *testing.T) {
	for requires, want := range map[string]string{
		"frontal >":               "unexpected token",
		"frontal":                 "expected bool",
		"front >= 1":              "unknown name front",
		`images[0].patient == ""`: "has no field patient",
		`frontal >= "one"`:        "mismatched types",
	} {
		c := Default()
		c.Requires = requires
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), "complete.requires: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", requires, err, want)
		}
	}
	err := Config{Wait: 0, Then: "sleep"}.Check()
	if err == nil || !strings.Contains(err.Error(), "complete.wait") || !strings.Contains(err.Error(), "complete.then") {
		t.Error(err)
	}
}
