package label

import (
	"regexp"
	"strings"

	"chatxray/pipeline"
)

// structure is a part of the body that sentences call normal or not, by name ("the heart is not enlarged", "normal heart size").
type structure struct {
	subject pattern
	but     pattern
	normal  pattern
	bad     pattern // none: said by mentions
	border  pattern
	absent  []string // the labels that a normal structure denies
	present string   // the label that an abnormal one states
}

const within = `within (?:the )?(?:upper )?(?:limits? of normal|normal (?:size )?limits?|normal range)`

var (
	normalSize = phrases(`normal`, `unremarkable`, within, `not(?: \w+)? (?:enlarged|widened|prominent)`, `non-?enlarged`, `nonenlarged`)
	enlarged   = phrases(`enlarged`, `enlargement`, `widened`, `widening`, `wide`, `prominent`, `prominence`, `increased in size`, `large`, `big`)
	borderline = phrases(`borderline`, `upper limits? of normal`, `upper normal`, `top[ -]?normal`, `upper limits? normal`, `at the upper limits?`, `mild(?:ly)? prominent`)
	clear      = phrases(`clear`, `normal`, `unremarkable`, `clear bilaterally`, `free of disease`)
)

var structures = []structure{
	{
		subject: phrases(`hearts?(?: size| shadow| silhouette| contours?| borders?)?`, `cardiac(?: and mediastinal| mediastinal)?(?: silhouettes?| size| contours?| shadow| borders?| outline| diameter| structures)`, `cardiopericardial silhouette`, `cardiac and mediastinal`, `cardiac`),
		but:     phrases(`heart (?:failure|disease|valves?|rate|border is obscured)`, `(?:behind|overlying|over) the heart`, `cardiac (?:failure|disease|valves?|leads?|device|decompensation|enlargement|surgery|apex|monitor\w*|pacemaker)`, `left heart border`, `right heart border`),
		normal:  normalSize, bad: enlarged, border: borderline, absent: []string{cardiomegaly}, present: cardiomegaly,
	},
	{
		subject: phrases(`mediastinum`, `mediastinal(?:,? (?:and|hilar|or) ?(?:hilar)?)? ?(?:silhouettes?|contours?|structures?|size|width|borders?|shadow|margins?|outlines?)`, `cardiac and mediastinal`),
		but:     phrases(`mediastinal (?:lymph\w*|shift|mass\w*|clips|drains?)`),
		normal:  normalSize, bad: enlarged, absent: []string{cardiomediastinum}, present: cardiomediastinum,
	},
	{
		subject: phrases(`cardiomediastin(?:al|um)(?: silhouettes?| contours?| size| structures| shadow| borders?| margins?| outlines?)?`),
		normal:  normalSize, bad: enlarged, absent: []string{cardiomegaly, cardiomediastinum}, present: cardiomediastinum,
	},
	{
		subject: phrases(`lungs`, `lung fields?`, `lung parenchyma`, `lung zones?`, `pulmonary parenchyma`),
		but:     phrases(`(?:right|left) lung fields?`, `lungs? (?:volumes?|bases?|apices|apex)`),
		normal:  clear, absent: []string{opacity, consolidation, noFinding},
	},
	{
		subject: phrases(`costophrenic (?:angles|sulci|recesses)`, `sulci`, `costophrenic angles are`),
		but:     phrases(`(?:right|left) costophrenic (?:angles|sulci)`),
		normal:  phrases(`sharp`, `clear`, `normal`, `intact`, `not blunted`, `preserved`, `unremarkable`, `well[ -]defined`, `maintained`),
		absent:  []string{effusion},
	},
	{
		subject: phrases(`pleural spaces`, `pleura`, `pleural surfaces`),
		but:     phrases(`(?:right|left) pleural space`),
		normal:  phrases(`clear`, `normal`, `unremarkable`, within),
		absent:  []string{effusion, pneumothorax},
	},
	{
		subject: phrases(`bones?`, `bony (?:structures|thorax|elements|skeleton)`, `osseous(?: \w+)? structures`, `skeletal structures`, `skeleton`, `ribs`, `bony thorax`, `clavicles`),
		normal:  phrases(`intact`),
		absent:  []string{fracture},
	},
	{
		subject: phrases(`chest`),
		but:     phrases(`chest (?:wall|tube|port|pain|x-?ray|radiographs?|film|ct)`),
		normal:  clear,
		absent:  []string{noFinding},
	},
}

var (
	nothingAcute = phrases(`(?:no|without|negative for)(?: \w+){0,3}? (?:acute|active|significant)(?:,| or| and)?(?: \w+){0,4}? (?:abnormalit(?:y|ies)|diseases?|process(?:es)?|findings?|patholog(?:y|ies|ic)|disorder|airspace disease)`,
		`no (?:acute |active )?(?:cardiopulmonary|chest|cardiac or pulmonary|intrathoracic|thoracic|pulmonary) (?:\w+ )?(?:abnormalit(?:y|ies)|diseases?|process(?:es)?|findings?)`, `no (?:acute|active) \w+`, `no (?:radiographic |visible )?abnormalit(?:y|ies)`, `nothing acute`)
	bone       = regexp.MustCompile(`\b(?:bon[ey]|bones|osseous|skeletal|ribs?|fractures?)\b`)
	noBoneHurt = phrases(`(?:no|without|negative for)(?: \w+){0,4} (?:bony?|osseous|skeletal|rib) (?:\w+ )?(?:abnormalit(?:y|ies)|findings?|injur(?:y|ies)|lesions?|patholog(?:y|ies)|process)`)
	notAtAll   = regexp.MustCompile(`\b(?:not|no longer)\b`)
	nonSize    = regexp.MustCompile(`\b(?:lungs?|vascula\w*|aort\w*|hil(?:a|um|ar)|effusions?|bon[ey]s?|osseous|trachea|opacit\w+|pneumothora\w+|vessels|arter\w+|hemidiaphragms?)\b`)
	oneSided   = regexp.MustCompile(`\b(?:right|left|upper|lower|mid|one)(?: \w+)? $`)
)

// structures adds what the proposition says about structures by name.
func (p *proposition) structures(out said) {
	for i := range structures {
		s := &structures[i]
		for _, loc := range s.subject.all(p.text) {
			if touches(s.but, p.text, loc) || oneSided.MatchString(p.text[:loc[0]]) && s.bad.Regexp == nil {
				continue
			}
			s.judge(p, span{loc[0], loc[1]}, out)
		}
	}
	if noBoneHurt.all(p.text) != nil {
		out.add(fracture, pipeline.Absent)
	} else if loc := nothingAcute.FindStringIndex(p.text); loc != nil && !bone.MatchString(p.text[loc[0]:loc[1]]) {
		out.add(noFinding, pipeline.Present)
	}
}

func touches(but pattern, text string, loc []int) bool {
	for _, b := range but.all(text) {
		if b[0] < loc[1] && loc[0] < b[1] {
			return true
		}
	}
	return false
}

// judge finds the nearest word of judgement: one before the subject in the same phrase ("normal heart size"), else the first after it.
func (s *structure) judge(p *proposition, at span, out said) {
	const words = 4
	before := p.text[:at.from]
	if i := strings.LastIndexAny(before, ","); i >= 0 {
		before = before[i+1:]
	}
	fields := strings.Fields(before)
	near := strings.Join(fields[max(0, len(fields)-words):], " ")
	if v := last(verb, near, nil); v != nil {
		near = near[v[1]:]
	}
	if s.say(p, near, at, true, out) {
		return
	}
	after := p.text[at.to:]
	s.say(p, after, at, false, out)
}

// say judges by the words of part, which lies before or after the subject; false: they hold no judgement.
func (s *structure) say(p *proposition, part string, at span, before bool, out said) bool {
	pick := func(r pattern) []int {
		places := r.all(part)
		switch {
		case len(places) == 0:
			return nil
		case before:
			return places[len(places)-1]
		}
		return places[0]
	}
	normal, bad, border := pick(s.normal), pick(s.bad), pick(s.border)
	nearer := func(a, b []int) bool {
		switch {
		case a == nil || b == nil:
			return a != nil
		case before:
			return a[1] >= b[1]
		}
		return a[0] <= b[0]
	}
	switch {
	case border != nil && (nearer(border, bad) || bad == nil) && (normal == nil || border[0] <= normal[0]+len("within the upper limits of")):
		out.add(s.present, pipeline.Undetermined)
	case normal == nil && bad == nil:
		return false
	case nearer(normal, bad):
		s.sayNormal(p, part, normal, at, before, out)
	default:
		s.sayBad(p, part, bad, at, before, out)
	}
	return true
}

func (s *structure) sayNormal(p *proposition, part string, word []int, at span, before bool, out said) {
	if before {
		if last(denies, p.plain[:at.from], nil) != nil {
			return
		}
	} else if notAtAll.MatchString(part[:word[0]]) || strings.HasPrefix(part[word[1]:], " of ") && strings.HasSuffix(part[:word[1]], "clear") {
		return
	}
	for _, l := range s.absent {
		if l == noFinding {
			out.add(l, pipeline.Present)
		} else {
			out.add(l, pipeline.Absent)
		}
	}
}

func (s *structure) sayBad(p *proposition, part string, word []int, at span, before bool, out said) {
	if !before && nonSize.MatchString(part[:word[0]]) {
		return // another structure's: "heart size stable, prominent hila"
	}
	m := at
	if before {
		m.from = max(0, strings.LastIndex(p.text[:at.from], part[word[0]:word[1]]))
	} else {
		m.to = at.to + word[1]
		m.from = at.to + word[0]
	}
	out.add(s.present, p.presence(m))
}
