package sr

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/language"

	"chatxray/pipeline"
)

// maxVersion leaves room for the digest in one Long String; see modelVersion.
const maxVersion = 40

// check refuses an Input that no honest document can be made from.
func check(in Input) error {
	r := in.Reading
	if r == nil {
		return fmt.Errorf("there is no reading to write a document about: %w", pipeline.ErrInvalid)
	}
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("study %s: %s: %w", r.StudyInstanceUID, fmt.Sprintf(format, args...), pipeline.ErrInvalid)
	}
	switch {
	case !isUID(r.StudyInstanceUID):
		return refuse("the reading has no valid Study Instance UID")
	case in.Header.String(pipeline.TagStudyInstanceUID) != r.StudyInstanceUID:
		return refuse("the header is of study %s: give that of an image of the reading", in.Header.String(pipeline.TagStudyInstanceUID))
	case len(r.Inputs) == 0:
		return refuse("the reading names no image")
	case !isName(r.Model.Name):
		return refuse("the reading's model has no name of 1 to 64 plain characters")
	case !isName(r.Model.Version) || utf8.RuneCountInString(r.Model.Version) > maxVersion:
		return refuse("model %s has no version of 1 to %d plain characters", r.Model.Name, maxVersion)
	case r.Model.Digest == pipeline.Digest{}:
		return refuse("model %s has no digest", r.Model.Name)
	case !isName(in.Software):
		return refuse("the software has no version of 1 to 64 plain characters")
	case in.Station != "" && (!isName(in.Station) || utf8.RuneCountInString(in.Station) > 16):
		return refuse("a station name has 1 to 16 plain characters")
	case in.Zone == nil:
		return refuse("no time zone is given")
	case r.Created.IsZero() || r.Created.Year() < 1 || r.Created.Year() > 9999:
		return refuse("the reading has no time of creation")
	case r.Revision < 0:
		return refuse("revision %d is negative", r.Revision)
	case len(r.Sentences) == 0:
		return refuse("the reading has no sentence: the model wrote nothing, and an empty report would look like a normal one")
	}
	if _, err := language.Parse(r.Language); err != nil || r.Language == "" {
		return refuse("%q is no language tag of RFC 5646, like \"en\"", r.Language)
	}
	for i, ref := range r.Inputs {
		switch {
		case !isUID(ref.SeriesInstanceUID) || !isUID(ref.SOPInstanceUID) || !isUID(ref.SOPClassUID):
			return refuse("image %d of the reading lacks a valid series, instance or class UID", i+1)
		case ref.Digest == pipeline.Digest{}:
			return refuse("image %s has no digest", ref.SOPInstanceUID)
		case ref.Frame < 0:
			return refuse("image %s: frame %d is negative", ref.SOPInstanceUID, ref.Frame)
		}
	}
	for i, s := range r.Sentences {
		if err := checkSentence(s, r.NoEvidence != ""); err != nil {
			return refuse("sentence %d %s", i+1, err)
		}
	}
	if err := checkFindings(r); err != nil {
		return refuse("%s", err)
	}
	for _, p := range in.Predecessors {
		switch {
		case !isUID(p.SeriesInstanceUID) || !isUID(p.SOPInstanceUID) || !isUID(p.SOPClassUID):
			return refuse("a predecessor lacks a valid series, instance or class UID")
		case p.SOPInstanceUID == InstanceUID(r, p.Kind):
			return refuse("document %s would be its own predecessor: a deliberate re-read needs a new revision", p.SOPInstanceUID)
		}
	}
	return nil
}

// checkSentence looks at a sentence; without says that the reading tells why it has no evidence.
func checkSentence(s pipeline.Sentence, without bool) error {
	e := s.Evidence
	numbers := append([]float64{e.LogLikelihood, e.Blank, e.Drop}, e.Decoys...)
	switch {
	case plain(s.Text) == "":
		return fmt.Errorf("is empty")
	case s.Section != pipeline.SectionFindings && s.Section != pipeline.SectionImpression:
		return fmt.Errorf("stands in the unknown section %q", s.Section)
	case without && (len(e.Decoys) > 0 || e.LogLikelihood != 0 || e.Blank != 0 || e.Drop != 0):
		return fmt.Errorf("has an evidence, and the reading says that there is none")
	case without:
		return nil
	case len(e.Decoys) == 0:
		return fmt.Errorf("has no evidence: it was never scored with another patient's image")
	case slices.ContainsFunc(numbers, func(f float64) bool { return math.IsNaN(f) || math.IsInf(f, 0) }):
		return fmt.Errorf("has an evidence that is not a number")
	case e.True != nil && !(*e.True >= 0 && *e.True <= 1):
		return fmt.Errorf("has an evidence that is no share: %v", *e.True)
	case slices.ContainsFunc(s.Flags, func(f pipeline.Flag) bool { return plain(f.Reason) == "" }):
		return fmt.Errorf("has a flag without a reason")
	}
	mean := 0.0
	for _, d := range e.Decoys {
		mean += d / float64(len(e.Decoys))
	}
	if want := e.LogLikelihood - mean; math.Abs(e.Drop-want) > 1e-3*(1+math.Abs(e.LogLikelihood)) {
		return fmt.Errorf("has an evidence that contradicts itself: the drop is %.3f nats, and the log-likelihoods give %.3f", e.Drop, want)
	}
	return nil
}

func checkFindings(r *pipeline.Reading) error {
	seen := map[string]bool{}
	for _, f := range r.Findings {
		switch _, known := labelCode(f.Label); {
		case !known && f.Label != noFinding:
			return fmt.Errorf("finding %q is not on the closed list", f.Label)
		case seen[f.Label]:
			return fmt.Errorf("finding %q is given twice", f.Label)
		case f.Presence == pipeline.NotSaid:
		case f.Presence != pipeline.Present && f.Presence != pipeline.Absent && f.Presence != pipeline.Undetermined:
			return fmt.Errorf("finding %q has the unknown presence %q", f.Label, f.Presence)
		case len(f.Sentences) == 0 && f.Label != noFinding:
			return fmt.Errorf("finding %q is %s, but no sentence says so", f.Label, f.Presence)
		}
		seen[f.Label] = true
		for _, i := range f.Sentences {
			if i < 0 || i >= len(r.Sentences) {
				return fmt.Errorf("finding %q points to sentence %d, and there are %d", f.Label, i, len(r.Sentences))
			}
		}
	}
	return nil
}

// isUID reports whether s is a UID (PS3.5 section 9.1).
func isUID(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for _, part := range strings.Split(s, ".") {
		if part == "" || (len(part) > 1 && part[0] == '0') || strings.Trim(part, "0123456789") != "" {
			return false
		}
	}
	return true
}

// isName reports whether s can be one value of a Long String (PS3.5 section 6.2) as it is.
func isName(s string) bool {
	return s != "" && utf8.RuneCountInString(s) <= 64 && s == plain(s) && !strings.ContainsAny(s, "\\\n")
}
