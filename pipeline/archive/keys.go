package archive

import (
	"fmt"
	"slices"
	"strings"

	"chatxray/pipeline"
)

// kind says how the values of a key are matched.
type kind int

const (
	kindUID    kind = iota // list of UIDs
	kindUIDs               // the same, of a column that holds several
	kindText               // wildcards, case counts
	kindList               // list of texts
	kindName               // wildcards, folded, each component group
	kindDate               // single value or range
	kindTime               // single value or range, any precision
	kindNumber             // single value
)

// key is an attribute that a query can match.
type key struct {
	level   pipeline.Level
	columns []string
	kind    kind
	indexed bool
}

// attribute names a key: an attribute of the data set, or of the items of a sequence.
type attribute struct{ in, tag pipeline.Tag }

func plainKey(t pipeline.Tag) attribute { return attribute{tag: t} }

const (
	ofStudy    = pipeline.StudyLevel
	ofSeries   = pipeline.SeriesLevel
	ofInstance = pipeline.InstanceLevel
)

var keys = map[attribute]key{
	plainKey(pipeline.TagStudyInstanceUID):                {ofStudy, []string{"s.uid"}, kindUID, true},
	plainKey(pipeline.TagPatientName):                     {ofStudy, []string{"s.name_alphabetic", "s.name_ideographic", "s.name_phonetic"}, kindName, true},
	plainKey(pipeline.TagPatientID):                       {ofStudy, []string{"s.patient_id"}, kindText, true},
	plainKey(pipeline.TagIssuerOfPatientID):               {ofStudy, []string{"s.issuer"}, kindText, false},
	plainKey(pipeline.TagPatientBirthDate):                {ofStudy, []string{"s.birth_date"}, kindDate, false},
	plainKey(pipeline.TagPatientSex):                      {ofStudy, []string{"s.sex"}, kindText, false},
	plainKey(pipeline.TagStudyDate):                       {ofStudy, []string{"s.study_date"}, kindDate, true},
	plainKey(pipeline.TagStudyTime):                       {ofStudy, []string{"s.study_time"}, kindTime, false},
	plainKey(pipeline.TagAccessionNumber):                 {ofStudy, []string{"s.accession"}, kindText, true},
	plainKey(pipeline.TagStudyID):                         {ofStudy, []string{"s.study_id"}, kindText, false},
	plainKey(pipeline.TagReferringPhysicianName):          {ofStudy, []string{"s.referring", "s.referring_ideographic", "s.referring_phonetic"}, kindName, false},
	plainKey(pipeline.TagStudyDescription):                {ofStudy, []string{"s.description"}, kindText, false},
	plainKey(pipeline.TagModalitiesInStudy):               {ofStudy, []string{"m.modality"}, kindList, false},
	plainKey(pipeline.TagSOPClassesInStudy):               {ofStudy, []string{"s.classes"}, kindUIDs, false},
	plainKey(pipeline.TagSeriesInstanceUID):               {ofSeries, []string{"e.uid"}, kindUID, true},
	plainKey(pipeline.TagModality):                        {ofSeries, []string{"e.modality"}, kindList, false},
	plainKey(pipeline.TagSeriesNumber):                    {ofSeries, []string{"e.number"}, kindNumber, false},
	plainKey(pipeline.TagSeriesDescription):               {ofSeries, []string{"e.description"}, kindText, false},
	plainKey(pipeline.TagSeriesDate):                      {ofSeries, []string{"e.series_date"}, kindDate, false},
	plainKey(pipeline.TagSeriesTime):                      {ofSeries, []string{"e.series_time"}, kindTime, false},
	plainKey(pipeline.TagBodyPartExamined):                {ofSeries, []string{"e.body_part"}, kindText, false},
	plainKey(pipeline.TagLaterality):                      {ofSeries, []string{"e.laterality"}, kindText, false},
	plainKey(pipeline.TagPerformedProcedureStepStartDate): {ofSeries, []string{"e.step_date"}, kindDate, false},
	plainKey(pipeline.TagPerformedProcedureStepStartTime): {ofSeries, []string{"e.step_time"}, kindTime, false},
	plainKey(pipeline.TagSOPInstanceUID):                  {ofInstance, []string{"i.uid"}, kindUID, true},
	plainKey(pipeline.TagSOPClassUID):                     {ofInstance, []string{"i.class"}, kindUID, false},
	plainKey(pipeline.TagInstanceNumber):                  {ofInstance, []string{"i.number"}, kindNumber, false},

	{pipeline.TagIssuerOfAccessionNumberSequence, pipeline.TagLocalNamespaceEntityID}: {ofStudy, []string{"s.accession_issuer"}, kindText, false},
	{pipeline.TagIssuerOfAccessionNumberSequence, pipeline.TagUniversalEntityID}:      {ofStudy, []string{"s.accession_issuer_uid"}, kindText, false},
	{pipeline.TagRequestAttributesSequence, pipeline.TagScheduledProcedureStepID}:     {ofSeries, []string{"r.step"}, kindText, true},
	{pipeline.TagRequestAttributesSequence, pipeline.TagRequestedProcedureID}:         {ofSeries, []string{"r.procedure"}, kindText, true},
	{pipeline.TagRequestAttributesSequence, pipeline.TagAccessionNumber}:              {ofSeries, []string{"r.accession"}, kindText, true},
}

// pairs are dates and times that are matched together.
var pairs = [][2]pipeline.Tag{
	{pipeline.TagStudyDate, pipeline.TagStudyTime},
	{pipeline.TagSeriesDate, pipeline.TagSeriesTime},
	{pipeline.TagPerformedProcedureStepStartDate, pipeline.TagPerformedProcedureStepStartTime},
}

// Matchable tells whether a search at a level can match an attribute; in is the sequence whose items have it, or 0.
func (a *Archive) Matchable(level pipeline.Level, in, tag pipeline.Tag) bool {
	k, ok := keys[attribute{in, tag}]
	return ok && k.level <= level
}

// matching is a key of a query with its value, checked.
type matching struct {
	attribute
	key
	value string
}

func (m matching) String() string {
	if m.in != 0 {
		return m.in.String() + "." + m.tag.String()
	}
	return m.tag.String()
}

// matchings looks the keys of a query up; those without a value match everything and are left out.
func matchings(q pipeline.Query) ([]matching, error) {
	if len(q.Match) > maxKeys {
		return nil, fmt.Errorf("%w: the query has more than %d keys", pipeline.ErrInvalid, maxKeys)
	}
	var out []matching
	for _, m := range q.Match {
		one := matching{attribute: attribute{m.In, m.Tag}, value: strings.TrimRight(strings.TrimSpace(m.Value), "\x00")}
		var ok bool
		if one.key, ok = keys[one.attribute]; !ok || one.level > q.Level {
			return nil, fmt.Errorf("%w: the attribute %s is no key that can be matched at the level of the %s", pipeline.ErrInvalid, one, q.Level)
		}
		if one.value != "" && strings.Trim(one.value, "*") != "" {
			out = append(out, one)
		}
	}
	return out, nil
}

// clauses turns keys into conditions, all of which must hold.
func clauses(all []matching, fuzzy bool) ([]clause, error) {
	var out []clause
	var request []clause // on one item of Request Attributes Sequence
	done := map[pipeline.Tag]bool{}
	for _, p := range pairs {
		d := slices.IndexFunc(all, func(m matching) bool { return m.attribute == plainKey(p[0]) })
		t := slices.IndexFunc(all, func(m matching) bool { return m.attribute == plainKey(p[1]) })
		if d < 0 || t < 0 {
			continue
		}
		if c, ok := moments(all[d].columns[0], all[t].columns[0], all[d].value, all[t].value); ok {
			out = append(out, c)
			done[p[0]], done[p[1]] = true, true
		}
	}
	for _, m := range all {
		if m.in == 0 && done[m.tag] {
			continue
		}
		c, err := m.clause(fuzzy)
		if err != nil {
			return nil, fmt.Errorf("%w: the key %s: %v", pipeline.ErrInvalid, m, err)
		}
		switch {
		case m.in == pipeline.TagRequestAttributesSequence:
			request = append(request, c)
			continue
		case m.attribute == plainKey(pipeline.TagModalitiesInStudy):
			c.sql = "EXISTS (SELECT 1 FROM series m WHERE m.study = s.id AND (" + c.sql + "))"
		}
		out = append(out, c)
	}
	if len(request) > 0 {
		c := and(request)
		c.sql = "e.id IN (SELECT r.series FROM request r WHERE " + c.sql + ")"
		out = append(out, c)
	}
	return out, nil
}

func (m matching) clause(fuzzy bool) (clause, error) {
	if field := slices.Index(fuzzyFields[:], m.tag); fuzzy && m.in == 0 && field >= 0 {
		if c, ok, err := fuzzyCondition(field, m.value); ok || err != nil {
			return c, err
		}
	}
	return m.condition(m.value)
}

// and joins conditions that must all hold.
func and(all []clause) (out clause) {
	for i, c := range all {
		if i > 0 {
			out.sql += " AND "
		}
		out.sql, out.args, out.narrow = out.sql+"("+c.sql+")", append(out.args, c.args...), out.narrow || c.narrow
	}
	return out
}
