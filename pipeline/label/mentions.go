package label

import (
	"regexp"
	"slices"
	"strings"

	"chatxray/pipeline"
)

// term is one way to speak of a label. A mention that touches a match of but is none.
type term struct {
	label string
	words pattern
	but   pattern
	weak  bool // where it is stated, the label is only undetermined
}

var terms = []term{
	{label: cardiomegaly, words: phrases(`cardiomegaly`, `cardiac enlargement`, `(?:left|right) (?:ventricular|atrial) enlargement`, `enlarged cardiac`, `megacardia`)},
	{label: cardiomediastinum, words: phrases(`mediastinal (?:widening|enlargement|prominence)`, `widening of the (?:superior )?mediastinum`, `(?:widened|enlarged|wide) (?:superior |upper )?(?:cardio)?mediastin(?:um|al)`)},
	{
		label: lesion, words: phrases(`nodules?`, `nodularity`, `nodular (?:\w+ )?(?:opacit(?:y|ies)|densit(?:y|ies)|shadows?|lesions?|foc(?:us|i))`, `mass(?:es)?`, `mass-?like`, `(?:cavitary|lung|pulmonary|parenchymal|focal|suspicious|coin) lesions?`,
			`lesions?`, `cavit(?:y|ies|ation|ary)`, `neoplasms?`, `tumou?rs?`, `carcinoma`, `malignan(?:cy|t)`, `metastas[ei]s`, `metastatic(?: disease)?`),
		but: phrases(`(?:breast|mediastinal|paraspinal|soft tissue|abdominal|thyroid|bone|bony|osseous|lytic|blastic|sclerotic|rib|pleural|skin|destructive|body|adrenal|cardiac|pericardial) (?:\w+ )?(?:mass(?:es)?|nodules?|lesions?|metastas[ei]s)`,
			`chest wall (?:mass(?:es)?|nodules?|lesions?)`, `(?:lesions?|mass(?:es)?) (?:of|in|within|involving) the (?:\w+ ){0,3}(?:ribs?|vertebra\w*|bones?|clavicles?|humer\w+|scapulae?|sternum)`, `mass effect`, `nipple \w+`, `(?:pleural|thoracic|chest|abdominal|nasal|oral|glenoid) cavit(?:y|ies)`),
	},
	{
		label: opacity, words: phrases(`opacit(?:y|ies)`, `opacifications?`, `opacified`, `infiltrates?`, `infiltrations?`, `infiltrative \w+`, `airspace (?:disease|process|abnormalit(?:y|ies)|changes?|densit(?:y|ies))`, `(?:alveolar|lung|parenchymal|airspace|interstitial|basilar|patchy|hazy|streaky|linear|focal|vague|ill-defined|increased|lower lobe|upper lobe|perihilar|retrocardiac) densit(?:y|ies)`,
			`(?:area|region|focus|areas) of (?:\w+ )?density`, `ground[ -]glass`, `haziness`, `hazy`, `(?:interstitial|reticular|reticulonodular|bronchovascular|peribronchial|bronchial|perihilar) (?:lung )?(?:\w+ )?(?:markings?|prominence|thickening|pattern|changes|disease|abnormalit(?:y|ies)|process|cuffing)`,
			`(?:increased|prominent|coarse|coarsened|prominence of(?: the)?) (?:\w+ )?(?:interstitial|lung|bronchovascular|pulmonary) (?:markings|interstitium)`,
			`reticulations?`, `reticul(?:ar|o-?nodular)`, `scar(?:s|ring)?`, `fibrotic changes?`, `parenchymal (?:abnormalit(?:y|ies)|disease|process|bands?)`),
		but: phrases(`pleural(?:[- ]parenchymal)?(?: \w+)?(?: or | and |/| )(?:scar(?:s|ring)?|thickening|opacit(?:y|ies)|densit(?:y|ies))`, `(?:skin|surgical|soft tissue) scar(?:s|ring)?`, `interstitial (?:pulmonary )?edema`, `(?:apical|biapical) (?:pleural )?scar(?:s|ring)?`),
	},
	{label: opacity, words: phrases(`(?:apical|biapical) scar(?:s|ring)?`)},
	{
		label: edema, words: phrases(`edema`, `oedema`, `heart failure`, `cardiac failure`, `volume overload`, `fluid overload`, `cardiac decompensation`, `kerley b? ?lines?`),
		but: phrases(`(?:soft tissue|subcutaneous|peripheral|leg|bone|marrow|chest wall) o?edema`),
	},
	{label: edema, weak: true, words: phrases(`(?:pulmonary )?(?:vascular|venous|pulmonary|interstitial|central) (?:vascular |venous )?congestion`, `congestion`, `congested`, `congestive (?:changes?|pattern)`, `cephalization`, `vascular (?:engorgement|redistribution)`, `pulmonary venous hypertension`)},
	{label: consolidation, words: phrases(`consolidat(?:ions?|ive|ed)`)},
	{label: pneumonia, but: phrases(`(?:granulomatous|prior|old|remote|previous|fungal|chronic) (?:\w+ )?infections?`), words: phrases(`(?:broncho)?pneumonias?`, `pneumonic`, `infections?`, `infectious (?:\w+ )?(?:process(?:es)?|etiolog(?:y|ies)|infiltrates?|disease|focus|consolidation)`, `infectious`)},
	{
		label: atelectasis, words: phrases(`atelecta(?:s[ei]s|tic)`, `(?:lobar|lobe|lung|segmental) collapse`, `collapse of (?:the )?(?:\w+ ){0,3}(?:lung|lobe)`, `collapsed (?:\w+ )?(?:lung|lobe)`),
	},
	{label: pneumothorax, words: phrases(`(?:hydro|hemo)?pneumothora(?:x|ces|xes)`, `pleural air(?: collections?)?`)},
	{
		label: effusion, words: phrases(`effusions?`, `pleural fluid`, `fluid in the pleural space`, `(?:hydro|hemo)(?:pneumo)?thorax`, `empyema`, `pleural collections?`),
		but: phrases(`(?:pericardial|joint|knee|subdural) effusions?`),
	},
	{label: effusion, weak: true, words: phrases(`(?:blunting|blunted|obscur(?:ed|ation)|obliterat(?:ed|ion)|indistinct)(?: \w+){0,6} (?:costophrenic|costodiaphragmatic|sulc(?:us|i))`, `(?:costophrenic|costodiaphragmatic)(?: \w+){0,6} (?:blunting|blunted|obscured|obliterated)`, `costophrenic blunting`)},
	{label: pleuralOther, words: phrases(`pleural(?:[- ](?:parenchymal|peripheral))?(?: \w+)?[ /](?:thickening|plaques?|scar(?:s|ring)?|calcifications?|mass(?:es)?|nodul(?:es?|arity)|lesions?|disease|abnormalit(?:y|ies)|reaction|cap|tumou?r)`, `(?:thickening|calcification|scarring) of the (?:\w+ )?(?:pleura|fissures?)`, `fissural thickening`, `fibrothorax`, `(?:(?:bi)?apical|pleural) capp?(?:ing)?`, `calcified pleural \w+`, `pleuroparenchymal \w+`, `mesothelioma`)},
	{label: pleuralOther, weak: true, words: phrases(`(?:effusions?|fluid) (?:or|and|versus) (?:pleural )?(?:thickening|scarring)`)},
	{
		label: fracture, words: phrases(`fractures?`, `fractured`, `fx`),
		but: phrases(`fractured? (?:\w+ ){0,3}(?:wires?|leads?|catheters?|hardware|screws?)`, `(?:wires?|leads?|catheters?|hardware|screws?) (?:is |are )?fractur(?:ed?|es)`),
	},
	{label: fracture, weak: true, words: phrases(`(?:compression|wedge|wedging|vertebral body|vertebral|rib) (?:\w+ )?deformit(?:y|ies)`, `compression of (?:\w+ ){0,4}vertebra\w*`)},
	{
		label: devices, words: phrases(`pacemakers?`, `pacer`, `pacing (?:wires?|leads?|device)`, `(?:ventricular|atrial|pacemaker|pacer|icd|aicd|cardiac) leads?`, `leads`, `a?icds?`, `defibrillators?`, `(?:\w+ )?catheters?`, `picc`, `mediport`, `portacath`, `port-a-cath`, `infusa-?port`, `chest port`, `(?:central|venous|arterial|picc|subclavian|jugular|ij|dialysis|central venous) lines?`, `lines and tubes`, `tubes and lines`,
			`(?:endotracheal|tracheostomy|nasogastric|orogastric|enteric|feeding|chest|thoracostomy|ng|og|et|drainage|dobbhoff|gastric|pleural|support) tubes?`, `tubes?`, `ett`, `ngt`, `tracheostomy`, `swan-?ganz`, `drains?`, `pigtail`, `dobbhoff`, `balloon pump`, `iabp`, `(?:valve|valvular|valves?) (?:\w+ )?(?:prosthes[ei]s|replacement)`, `(?:prosthetic|artificial|mechanical|bioprosthetic) (?:\w+ )?valves?`, `stents?`, `prosthes[ei]s`, `arthroplast(?:y|ies)`,
			`(?:spinal|orthopedic|fixation|surgical|fusion|metallic|cervical|posterior) (?:\w+ )?(?:hardware|rods?|screws?|plates?)`, `hardware`, `implanted (?:\w+ )?device`, `(?:support|monitoring|medical|assist|stimulator|loop|electronic) (?:\w+ )?devices?`, `support apparatus`, `stimulator`, `loop recorder`, `lvad`, `monitor(?:ing)? leads?`, `ekg leads?`, `ecg leads?`, `electrodes?`, `vascular port`, `port`, `port[- ]?a[- ]?catheter`, `neurostimulator`, `(?:septal|closure) \w*devices?`, `closure device`, `anchors?`, `tubing`, `shunt`, `generators?`, `occluder`),
		but: phrases(`breast (?:implants?|prosthes[ei]s)`, `lead to`, `tube current`, `bronchial tubes?`),
	},
	{label: noFinding, words: phrases(`normal (?:\w+ ){0,2}(?:chest|radiographs?|x-?rays?|examination|exam|study|film)`, `(?:chest|examination|exam|study|radiograph|x-?ray)(?: \w+){0,3} (?:is|are|appears?) (?:\w+ )?(?:normal|unremarkable|negative|clear)`, `(?:negative|unremarkable) (?:\w+ ){0,2}(?:chest|radiographs?|examination|exam|study)`)},
	{label: otherAbnormal, words: phrases(`emphysema(?:tous)?`, `copd`, `chronic obstructive`, `hyper(?:inflat|expan)\w*`, `hyper-?(?:inflat|expan)\w*`, `hyperlucen\w+`, `fibrosis`, `interstitial lung disease`, `bronchiectas[ie]s`, `bronchiectatic`, `(?:hiatal|hiatus|diaphragmatic|esophageal) hernia`, `hernia`, `granulomas?`, `granulomatous`, `calcif(?:ied|ications?|ic)`, `atheroscleros[ie]s`, `atherosclerotic`, `tortuous`, `tortuosity`, `ectasia`, `ectatic`, `aneurysm\w*`, `uncoiled`, `unfolded`,
		`scoliosis`, `(?:levo|dextro)(?:scoliosis|curvature)`, `kyphosis`, `kyphotic`, `degenerative`, `spondylosis`, `osteophytes?`, `spurring`, `arthri(?:tis|tic)`, `arthrosis`, `osteopenia`, `osteopenic`, `osteoporosis`, `demineralization`, `deformit(?:y|ies)`, `sclero(?:sis|tic)`, `eventration`, `elevat(?:ed|ion)`, `flatten(?:ed|ing)`, `pneumoperitoneum`, `free air`, `(?:subcutaneous|mediastinal) (?:air|gas)`, `pneumomediastinum`, `(?:lymph)?adenopathy`, `volume loss`, `mediastinal mass(?:es)?`, `pericardial effusions?`,
		`low lung volumes?`, `low volumes?`, `hypoinflat\w+`, `hypoventilat\w+`, `bull(?:a|ae|ous)`, `blebs?`, `lucenc(?:y|ies)`, `sternotomy`, `cabg`, `clips?`, `sutures?`, `staples?`, `surgical changes`, `postoperative`, `post-?surgical`, `mastectomy`, `lobectomy`, `pneumonectomy`, `foreign bod(?:y|ies)`, `dislocation`, `prominen(?:t|ce)`, `shift(?:ed)?`, `deviat(?:ed|ion)`, `cysts?`, `cystic`, `pectus`, `sarcoidosis`, `densit(?:y|ies)`, `thicken(?:ed|ing)`, `azygos`, `situs inversus`, `implants?`, `crowding`, `fusion`, `curvature`, `post-?traumatic`)},
}

var (
	alternative = regexp.MustCompile(` (?:or|versus|vs\.?) |/`)
	historical  = regexp.MustCompile(`\b(?:history of|indication is|evaluate for|evaluation (?:of|for)|rule out)(?: \w+){0,3} $`)
)

type mention struct {
	span
	term *term
	is   pipeline.Presence
}

// mentions adds what the words for findings say.
func (p *proposition) mentions(out said) {
	var found []mention
	for i := range terms {
		t := &terms[i]
		places := t.words.all(p.text)
		if places == nil {
			continue
		}
		but := t.but.all(p.text)
		for _, loc := range places {
			if slices.ContainsFunc(but, func(b []int) bool { return b[0] < loc[1] && loc[0] < b[1] }) || historical.MatchString(p.text[:loc[0]]) {
				continue
			}
			at := span{loc[0], loc[1]}
			found = append(found, mention{at, t, p.presence(at)})
		}
	}
	p.alternatives(found)
	for _, m := range found {
		if m.is == pipeline.Present && m.term.weak {
			m.is = pipeline.Undetermined
		}
		if m.term.label == noFinding && m.is != pipeline.Present {
			continue
		}
		out.add(m.term.label, m.is)
	}
}

// alternatives turns "A or B", both stated, into two doubts.
func (p *proposition) alternatives(found []mention) {
	const reach = 40 // bytes between the mention and the conjunction
	for _, or := range alternative.FindAllStringIndex(p.text, -1) {
		for i := range found {
			for j := range found {
				a, b := &found[i], &found[j]
				if a.to <= or[0] && or[1] <= b.from && a.term.label != b.term.label && a.is == pipeline.Present && b.is == pipeline.Present &&
					or[0]-a.to < reach && b.from-or[1] < reach && !strings.Contains(p.text[a.to:b.from], ",") {
					a.is, b.is = pipeline.Undetermined, pipeline.Undetermined
				}
			}
		}
	}
}
