package label

import (
	"regexp"
	"strings"

	"chatxray/pipeline"
)

const seen = `(?:seen|identified|visualized|visible|present|evident|appreciated|demonstrated|noted|detected|apparent|observed|found|suspected|definitely|convincingly)`

// Cues that reach to the right, to the end of their proposition.
var (
	denies = regexp.MustCompile(`\b(?:no|not|without|nor|neither|none|never|negative for|free of|free from|clear of|absence of|lack of|lacks?|denies|nothing|` +
		`(?:complete |interval )*(?:resolution|clearing|removal) of|(?:interval |completely )*(?:resolved|removed)|unlikely(?: to represent)?)\b`)
	partly = regexp.MustCompile(`\b(?:partial|near|nearly|partially|almost|incomplete|incompletely|largely|mostly|not|without|no|un)(?: complete(?:ly)?)?(?: been)? $`)
	doubts = regexp.MustCompile(`\b(?:possibl[ey]|possibility|probabl[ey]|likely|may|might|could|suspicious|suspicion|suspect(?:ed)?|suggest(?:s|ed|ive|ing|ion)?|` +
		`concern(?:s|ing)?|worrisome|question(?:able|ed|s)?|versus|vs|equivocal|indeterminate|differential|considerations?|considered|consider|presumed|presumably|perhaps|potential(?:ly)?|` +
		`borderline|evaluate for|assess for|correlat(?:e|ion)|in the (?:appropriate|proper|right) clinical|exclude|rule out|either)\b`)
	noExclusion = regexp.MustCompile(`\b(?:cannot|not|difficult to|unable to|could not|hard to)(?: \w+){0,2} (?:exclude|rule out)d?\b`)
)

// Cues that reach to the left, over mentions that no verb parts from them.
var (
	deniesAfter = regexp.MustCompile(`\b(?:(?:not|no longer)(?: \w+){0,2} ` + seen + `|absent|(?:has|have)(?: \w+){0,2} (?:resolved|cleared|disappeared)|resolved|removed|ruled out|` +
		`excluded|no longer|unlikely|negative(?: ,|$)|none|is not|are not)\b`)
	doubtsAfter = regexp.MustCompile(`\b(?:(?:not|cannot)(?: \w+){0,3} (?:excluded?|ruled out)|(?:difficult|hard) to(?: \w+)? exclude|not (?:well|fully|clearly|completely|optimally|adequately) \w+|(?:is|are|remains?|be|felt|thought)(?: \w+)? (?:possible|probable|likely|suspected|questioned|questionable|equivocal|considered)|` +
		`(?:may|might|could)(?: \w+)? be ` + seen + `|less likely|(?:consideration|possibility|concern)|in the differential|in the (?:appropriate|proper|right) clinical|suspected|versus|vs|possible|questioned)\b`)
	likelyAfter = regexp.MustCompile(`^ (?:is |are )?(?:likely|probable|possible)(?: ,|$)`)
	barrier     = regexp.MustCompile(`\b(?:is|are|was|were|there|shows?|demonstrates?|reveals?)\b`)
)

// presence says how a mention at m stands in its proposition: denied, doubted or stated.
func (p *proposition) presence(m span) pipeline.Presence {
	before, after := p.plain[:m.from], p.plain[m.to:]
	if loc := first(doubtsAfter, after); loc != nil && reachesBack(after[:loc[0]]) && !doubts.MatchString(after[:loc[0]]) {
		return pipeline.Undetermined
	}
	if noExclusion.MatchString(before) || likelyAfter.MatchString(after) {
		return pipeline.Undetermined
	}
	deny, doubt := last(denies, before, notPartly), last(doubts, before, nil)
	switch {
	case deny != nil && (doubt == nil || doubt[0] < deny[0] || !strings.Contains(before[deny[1]:doubt[0]], ",")):
		return pipeline.Absent
	case doubt != nil:
		return pipeline.Undetermined
	}
	if loc := first(deniesAfter, after); loc != nil && reachesBack(after[:loc[0]]) && notPartly(after, loc) {
		return pipeline.Absent
	}
	return pipeline.Present
}

// reachesBack: the words between a mention and a cue after it hold no statement of their own; one verb is the cue's.
func reachesBack(between string) bool { return len(barrier.FindAllStringIndex(between, 2)) < 2 }

// notPartly: a resolution or removal is not said to be partial, or denied.
func notPartly(text string, cue []int) bool {
	word := text[cue[0]:cue[1]]
	if !strings.Contains(word, "reso") && !strings.Contains(word, "clear") && !strings.Contains(word, "remov") {
		return true
	}
	return !partly.MatchString(text[:cue[0]]) && !partly.MatchString(word[:strings.LastIndexByte(word, ' ')+1])
}

func first(cue *regexp.Regexp, text string) []int { return cue.FindStringIndex(text) }

func last(cue *regexp.Regexp, text string, fits func(string, []int) bool) []int {
	all := cue.FindAllStringIndex(text, -1)
	for i := len(all) - 1; i >= 0; i-- {
		if fits == nil || fits(text, all[i]) {
			return all[i]
		}
	}
	return nil
}
