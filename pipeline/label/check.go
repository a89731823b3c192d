package label

import (
	"fmt"
	"regexp"
	"slices"

	"chatxray/pipeline"
)

// Check returns the flags of each sentence of a report in English, by rules over its words; of another language it knows nothing. The rules:
//
//   - comparison: it compares with an earlier image. No model here is shown one, so whatever it says of change is made up.
//   - contradiction: another sentence denies in the same place what it states, or states what it denies, or calls a chest normal in which it
//     finds something. "No large effusion" does not contradict a small one, nor "no other" anything.
//   - head: the findings head says the opposite of a label that the sentence decides.
//   - side: findings and impression give a finding different sides, or another sentence says "only" of the other side, or the header says
//     that the image shows the other side alone.
//
// Findings are those of the report, with the conflicts of the head; header is that of the image.
func Check(r *pipeline.Reading, header pipeline.Dataset) [][]pipeline.Flag {
	flags := make([][]pipeline.Flag, len(r.Sentences))
	if !Knows(r.Language) {
		return flags
	}
	all := make([][]statement, len(r.Sentences))
	for i, s := range r.Sentences {
		all[i] = statementsOf(s.Text)
	}
	flag := func(i int, rule pipeline.Rule, format string, a ...any) {
		f := pipeline.Flag{Rule: rule, Reason: fmt.Sprintf(format, a...)}
		if !slices.Contains(flags[i], f) {
			flags[i] = append(flags[i], f)
		}
	}
	only := shownSide(header)
	for i, s := range r.Sentences {
		if word := compares(s.Text); word != "" {
			flag(i, pipeline.RuleComparison, "It speaks of change (%q), and the model was shown no earlier image.", word)
		}
		for _, x := range all[i] {
			if only != 0 && x.is == pipeline.Present && x.where.sides != 0 && x.where.sides&only == 0 {
				flag(i, pipeline.RuleSide, "It places %s on the %s, and the image's header says that it shows the %s side only.", x.label, x.where.sides, only)
			}
		}
	}
	for i := range all {
		for j := range all {
			if i == j {
				continue
			}
			for _, x := range all[i] {
				for _, y := range all[j] {
					if contradicts(x, y) || contradicts(y, x) {
						flag(i, pipeline.RuleContradiction, "It contradicts %q about %s.", r.Sentences[j].Text, subject(x, y))
					}
					if y.only && x.label == y.label && x.is == pipeline.Present && y.is == pipeline.Present && apart(x.where.sides, y.where.sides) {
						flag(i, pipeline.RuleSide, "It places %s on the %s, and %q says %s only.", x.label, x.where.sides, r.Sentences[j].Text, y.where.sides)
						flag(j, pipeline.RuleSide, "It places %s on the %s only, and %q says %s.", x.label, y.where.sides, r.Sentences[i].Text, x.where.sides)
					}
				}
			}
		}
	}
	acrossSections(r, all, flag)
	for _, f := range r.Findings {
		for _, i := range f.Sentences {
			if f.Conflict {
				flag(i, pipeline.RuleHead, "The model's findings head points the other way for %s.", f.Label)
			}
		}
	}
	return flags
}

// acrossSections flags a finding that the findings place on one side and the impression on the other.
func acrossSections(r *pipeline.Reading, all [][]statement, flag func(int, pipeline.Rule, string, ...any)) {
	for _, label := range pipeline.Labels {
		sides := map[pipeline.Section]side{}
		var who []int
		for i, s := range r.Sentences {
			for _, x := range all[i] {
				if x.label == label && x.is == pipeline.Present && x.where.sides != 0 {
					sides[s.Section] |= x.where.sides
					who = append(who, i)
				}
			}
		}
		a, b := sides[pipeline.SectionFindings], sides[pipeline.SectionImpression]
		if !apart(a, b) {
			continue
		}
		for _, i := range slices.Compact(who) {
			flag(i, pipeline.RuleSide, "The findings place %s on the %s, the impression on the %s.", label, a, b)
		}
	}
}

// statement is what one proposition of a sentence says about a label.
type statement struct {
	label string // or healthy, quiet
	is    pipeline.Presence
	where place
	part  bool // a denial of some kinds of it only: large ones, new ones, others
	kind  bool // a denial of acute or focal ones; as a statement, of ones that are neither
	only  bool // of this side only
}

// Not labels: what a sentence says of the whole.
const (
	healthy = "a normal chest"
	quiet   = "no acute disease"
)

// acute is what "no acute disease" denies.
var acute = []string{edema, consolidation, pneumonia, pneumothorax, effusion}

type side int

const (
	right side = 1 << iota
	left
)

func (s side) String() string { return [...]string{"no side", "right", "left", "both sides"}[s] }

// apart: both are said, and they share no side.
func apart(a, b side) bool { return a != 0 && b != 0 && a&b == 0 }

// place is where a proposition is about: sides and zones, none where it does not say.
type place struct {
	sides side
	zones string
}

var (
	sideWords  = regexp.MustCompile(`\b(?:(right|r)|(left|l)|(bilateral(?:ly)?|both|biapical|bibasilar|bibasal))\b`)
	zoneWords  = regexp.MustCompile(`\b(?:(upper|apical|apex|apices|biapical)|(mid|middle|perihilar|lingula|lingular)|(lower|basilar|basal|base|bases|bibasilar|bibasal|retrocardiac))\b`)
	notZone    = regexp.MustCompile(`\b(?:upper limits?|upper normal|mid(?:-| )?line)\b`)
	partial    = regexp.MustCompile(`\b(?:otherwise|remainder|remaining|rest of|elsewhere|large|significant|sizable|sizeable|definite|other|additional|further|new|suspicious|displaced|overt|frank|tension|interval|progressive|superimposed|associated|evidence of (?:large|new))\b|\belse\b`)
	acuteWords = regexp.MustCompile(`\b(?:acute|focal|lobar|airspace)\b`)
	oldWords   = regexp.MustCompile(`\b(?:diffuse|chronic|old|remote|healed|scar\w*|fibro\w*|interstitial|linear|streaky|calcified|bandlike|band-like|minimal|mild)\b`)
	onlyWords  = regexp.MustCompile(`\b(?:only|isolated|unilateral|solely|alone)\b`)
	normalAll  = terms[slices.IndexFunc(terms, func(t term) bool { return t.label == noFinding })].words
)

func placeOf(text string) (p place) {
	for _, m := range sideWords.FindAllStringSubmatch(text, -1) {
		switch {
		case m[1] != "":
			p.sides |= right
		case m[2] != "":
			p.sides |= left
		default:
			p.sides |= left | right
		}
	}
	for _, m := range zoneWords.FindAllStringSubmatch(notZone.ReplaceAllString(text, ""), -1) {
		for i, name := range []string{"u", "m", "l"} {
			if m[i+1] != "" {
				p.zones += name
			}
		}
	}
	return p
}

// statementsOf reads the propositions of a sentence one by one.
func statementsOf(text string) (out []statement) {
	for _, p := range propositions(text) {
		found := said{}
		p.mentions(found)
		p.structures(found)
		at := placeOf(p.text)
		for _, label := range pipeline.Labels {
			is, ok := found[label]
			switch {
			case !ok || label == devices:
			case label != noFinding:
				x := statement{label: label, is: is, only: onlyWords.MatchString(p.text)}
				if label != cardiomegaly && label != cardiomediastinum {
					x.where = at
				}
				x.part, x.kind = is == pipeline.Absent && partial.MatchString(p.text), is == pipeline.Absent && acuteWords.MatchString(p.text) ||
					is == pipeline.Present && oldWords.MatchString(p.text)
				out = append(out, x)
			case normalAll.all(p.text) != nil:
				out = append(out, statement{label: healthy, is: pipeline.Present})
			case nothingAcute.MatchString(p.text):
				out = append(out, statement{label: quiet, is: pipeline.Present})
			}
		}
	}
	return out
}

// contradicts: y denies what x states.
func contradicts(x, y statement) bool {
	if x.is != pipeline.Present || x.label == healthy || x.label == quiet {
		return false
	}
	switch {
	case y.label == healthy:
		return true
	case y.label == quiet:
		return slices.Contains(acute, x.label)
	case x.label != y.label || y.is != pipeline.Absent || y.part || x.kind && y.kind:
		return false
	}
	if y.where.sides != 0 && x.where.sides&y.where.sides == 0 {
		return false
	}
	if y.where.zones != "" && !slices.ContainsFunc([]rune(y.where.zones), func(z rune) bool { return slices.Contains([]rune(x.where.zones), z) }) {
		return false
	}
	return true
}

func subject(x, y statement) string {
	if x.label == healthy || x.label == quiet {
		return y.label
	}
	return x.label
}

var (
	change = regexp.MustCompile(`\b(?:unchanged|stable|interval(?:ly)?|compar(?:ed|ison)|(?:no|any|significant|without) (?:\w+ )?change|since (?:the )?(?:prior|previous|last|earlier)|` +
		`(?:prior|previous|earlier|last) (?:study|exam|examination|radiographs?|films?|images?|x-?rays?|chest)|previously|again (?:seen|noted|demonstrated|identified)|once again|` +
		`persist(?:s|ent|ently|ing)?|(?:has|have)(?: \w+)? (?:increased|decreased|improved|worsened|resolved|progressed|cleared|enlarged|developed)|` +
		`(?:slightly |markedly |mildly )?(?:improved|worsened|worsening|improving|resolving|resolved|progressed|progression|regressed)|(?:increased|decreased) (?:from|since|in size)|` +
		`newly|new (?:\w+ )?(?:` + newThings + `)|no longer (?:seen|visible|present|identified)|remains?|followup|follow-up of)\b`)
	noPrior = regexp.MustCompile(`\b(?:no|without|lack of|absence of) (?:\w+ ){0,2}(?:comparison|prior|previous|earlier)\b[^.,;]*|\bcompar(?:ison)? (?:is )?(?:none|not available|unavailable)\b|\bcompared (?:to|with) (?:normal|the (?:right|left|other|contralateral)\b)[^.,;]*`)
)

const newThings = `opacit\w*|infiltrat\w*|consolidation\w*|effusions?|pneumothora\w+|nodules?|mass\w*|atelectas\w+|edema|airspace|findings?|abnormalit\w+|focal|area|fractures?|lesions?|lines?|tubes?`

// compares returns the words by which a sentence compares with an earlier image; empty where it does not.
func compares(text string) string {
	for _, p := range propositions(text) {
		if word := change.FindString(noPrior.ReplaceAllString(p.text, "")); word != "" {
			return word
		}
	}
	return ""
}

// shownSide is the only side that the header says the image shows; 0 where it says both or nothing.
func shownSide(header pipeline.Dataset) side {
	for _, tag := range []pipeline.Tag{pipeline.TagImageLaterality, pipeline.TagLaterality} {
		switch header.String(tag) {
		case "R":
			return right
		case "L":
			return left
		case "":
			continue
		}
		return 0
	}
	return 0
}
