package label

import (
	"regexp"
	"strings"
)

// span is a part of a text: bytes from, to.
type span struct{ from, to int }

// proposition is a part of a sentence within which negation and doubt reach: at most one statement with a verb, or a list.
// The text is lower case, its words one space apart, commas set off by a space.
type proposition struct {
	text string
	// plain is text with the phrases blanked that look like negation and are none ("no change in"); as long as text.
	plain string
}

type rewrite struct {
	find *regexp.Regexp
	with string
}

// wholeRewrites go before a text is cut into sentences, rewrites after.
var wholeRewrites = []rewrite{
	{regexp.MustCompile(`(^|\s)\?\s*([a-z])`), "${1}possible $2"},
	{regexp.MustCompile(`\bvs\.`), "versus"},
}

var rewrites = []rewrite{
	{regexp.MustCompile(`[\x{2010}-\x{2015}]`), "-"},
	{regexp.MustCompile(`[\x{2018}\x{2019}]`), "'"},
	{regexp.MustCompile(`\bw/o\b`), "without"},
	{regexp.MustCompile(`\bc/w\b`), "consistent with"},
	{regexp.MustCompile(`\br/o\b`), "rule out"},
	{regexp.MustCompile(`\bh/o\b`), "history of"},
	{regexp.MustCompile(`\bs/p\b`), "status post"},
	{regexp.MustCompile(`\band ?/ ?or\b`), "or"},
	{regexp.MustCompile(`\bcan ?not\b|\bcan't\b`), "cannot"},
	{regexp.MustCompile(`n't\b`), " not"},
	{regexp.MustCompile(`\bair ?-?space\b`), "airspace"},
	{regexp.MustCompile(`\bcardio[ -]mediastin`), "cardiomediastin"},
	{regexp.MustCompile(`\b(cost|cardi)ophrenic\b`), "${1}ophrenic"},
	{regexp.MustCompile(`\bcp angle`), "costophrenic angle"},
	{regexp.MustCompile(`\bptx\b`), "pneumothorax"},
	{regexp.MustCompile(`\bchf\b`), "heart failure"},
	{regexp.MustCompile(`\b(consistent|compatible|associated|along|together|in keeping|concordant) with\b`), "${1}_with"},
	{regexp.MustCompile(`:(\s|$)`), " is "},
	{regexp.MustCompile(`[()\[\]"]`), " , "},
	{regexp.MustCompile(`^\s*\d+[.)]\s`), ""},
	{regexp.MustCompile(`,`), " , "},
	{regexp.MustCompile(`\s+`), " "},
}

var (
	sentenceEnd = regexp.MustCompile(`[.!?;]+(?:\s+|$)`)
	contrast    = regexp.MustCompile(`\b(?:but|however|although|though|whereas|while|except(?: for)?|aside from|apart from|other than|with the exception of|nevertheless|despite|yet|with)\b`)
	joint       = regexp.MustCompile(` , and | , | and `)
	verb        = regexp.MustCompile(`\b(?:is|are|was|were|has|have|had|appears?|remains?|demonstrates?|shows?|reveals?|persists?|contains?|may|might|could|cannot|should|represents?|reflects?|suggests?|terminates?|projects?|overl(?:ies|y)|obscures?|there)\b`)
	participle  = regexp.MustCompile(`\b(?:seen|noted|identified|visualized|present)\b`)
	anatomy     = regexp.MustCompile(`\b(?:heart|cardiac|mediastin|cardiomediastin|hil(?:a|um|ar)|lungs?|vascula|vessels|silhouette|contours?|bones?|bony|osseous|soft tissues?|trachea|aorta|diaphragms?|hemidiaphragms?)`)
	affirmative = regexp.MustCompile(`^(?:a |the )?(?:small|mild|minimal|trace|moderate|stable|unchanged|persistent|improved|improving|increased|increasing|decreased|again|interval|status post|new|probable|possible|likely|suspected)\b`)
	list        = regexp.MustCompile(`\b(?:or|nor)\b`)
	goesOn      = regexp.MustCompile(`^ ?(?:or|nor)\b`)
	misleading  = regexp.MustCompile(`\b(?:no|not|without)(?: (?:any|significant|significantly|interval|definite|appreciable|substantial|substantially|major|overall|relevant|great|obvious))*` +
		` (?:change[sd]?|increased?|decreased?|improve(?:d|ment)|worsen(?:ed|ing)|difference|progression)\b(?: (?:in|of|from))?|` +
		`\bnot only\b|\bno (?:comparison|prior|previous)\b|` +
		`\b(?:to|until|for|confirm|ensure|document|demonstrate|assess for|verify) (?:ensure |document |confirm |demonstrate |complete )*(?:complete )?(?:resolution|clearing)\b(?: of)?`)
)

// propositions cuts a text into its propositions.
func propositions(text string) []proposition {
	text = strings.ToLower(text)
	for _, r := range wholeRewrites {
		text = r.find.ReplaceAllString(text, r.with)
	}
	var out []proposition
	for _, sentence := range sentenceEnd.Split(text, -1) {
		for _, r := range rewrites {
			sentence = r.find.ReplaceAllString(sentence, r.with)
		}
		for _, clause := range contrast.Split(sentence, -1) {
			for _, p := range statements(clause) {
				out = append(out, proposition{p, misleading.ReplaceAllStringFunc(p, func(s string) string { return strings.Repeat(" ", len(s)) })})
			}
		}
	}
	return out
}

// statements cuts a clause at commas and "and" where both sides are statements of their own. A part without a verb belongs to the part before it if
// that has one, else to the part after it.
func statements(clause string) []string {
	var out []string
	open, hasVerb, start := "", false, 0
	cut := func() {
		if s := strings.TrimSpace(open); s != "" {
			out = append(out, s)
		}
		open, hasVerb = "", false
	}
	joints := append(joint.FindAllStringIndex(clause, -1), []int{len(clause), len(clause)})
	for i, j := range joints {
		part := clause[start:j[0]]
		before := ""
		if i > 0 {
			before = clause[joints[i-1][0]:start]
		}
		verbHere := verb.MatchString(part) || participle.MatchString(part) && !list.MatchString(part) // "no A, B or C seen" is one list
		after := ""
		if i+1 < len(joints) {
			after = clause[j[1]:joints[i+1][0]]
		}
		switch {
		case goesOn.MatchString(part):
		case verbHere && hasVerb:
			cut()
		case !verbHere && hasVerb && strings.Contains(before, ",") && verb.MatchString(after) && anatomy.MatchString(part):
			cut() // "..., mediastinum and hila are normal"
		case affirmative.MatchString(strings.TrimSpace(part)) && !list.MatchString(clause[start:]) && denies.MatchString(open) && !doubts.MatchString(open):
			cut() // "no pneumothorax, small effusion"
		}
		open += before + part
		hasVerb = hasVerb || verbHere
		start = j[1]
	}
	cut()
	return out
}
