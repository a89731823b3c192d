package dicomweb

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"chatxray/pipeline"
)

// What Config.UnknownKeys may be.
const (
	unknownRefuse = "refuse"
	unknownWarn   = "warn"
)

// Parameters that ask for more than exact values, ranges, lists and wildcards (PS3.18 section 8.3.4).
const (
	emptyMatching = "emptyvaluematching"
	listMatching  = "multiplevaluematching"
)

const (
	maxOffset   = 1 << 40  // keeps a page number from overflowing
	maxQuery    = 64 << 10 // bytes of a query
	maxNames    = 200      // parameters; looking up a keyword that there is not takes a while
	maxIncluded = 200      // attributes in includefield
	maxNested   = 8        // sequences around an attribute
)

// query reads the parameters of a search (PS3.18 section 8.3.4 and table 10.6.1-2). Names that mean nothing, or that cannot be matched at
// the level, are in unknown where the configuration lets them pass, else in the error.
func (s *server) query(level pipeline.Level, raw string) (q pipeline.Query, unknown []string, err error) {
	q = pipeline.Query{Level: level, Limit: s.MaxResults}
	if len(raw) > maxQuery {
		return q, nil, fmt.Errorf("%w: it has more than %d bytes", errLongQuery, maxQuery)
	}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return q, nil, fmt.Errorf("%w: the query cannot be read; its values must be percent-encoded", pipeline.ErrInvalid)
	}
	if len(values) > maxNames {
		return q, nil, fmt.Errorf("%w: the query has %d parameters, more than %d", pipeline.ErrInvalid, len(values), maxNames)
	}
	if n := strings.Count(strings.Join(values["includefield"], ","), ","); n >= maxIncluded {
		return q, nil, fmt.Errorf("%w: includefield has more than %d attributes", pipeline.ErrInvalid, maxIncluded)
	}
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		known, err := s.parameter(&q, name, values[name])
		if err != nil {
			return q, nil, fmt.Errorf("%w: %w", pipeline.ErrInvalid, err)
		}
		if !known {
			unknown = append(unknown, keyName(name))
		}
	}
	unknown = append(unknown, s.included(&q, values["includefield"])...)
	if len(unknown) > 0 && s.UnknownKeys != unknownWarn {
		more := ""
		if len(unknown) > 20 {
			unknown, more = unknown[:20], " and more"
		}
		for i, name := range unknown {
			if meant := meant(name, level); meant != "" {
				unknown[i] = name + " (" + meant + "?)"
			}
		}
		return q, nil, fmt.Errorf("%w: no attribute that can be asked for at the level of the %s has the keyword or tag %s%s",
			pipeline.ErrInvalid, level, strings.Join(unknown, ", "), more)
	}
	return q, unknown, nil
}

// parameter reads one parameter; known is false for an attribute that cannot be matched.
func (s *server) parameter(q *pipeline.Query, name string, values []string) (known bool, err error) {
	value := strings.Join(values, ",")
	switch strings.ToLower(name) {
	case "limit":
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 {
			return true, errors.New("limit is not a number above 0")
		}
		q.Limit = min(n, s.MaxResults)
		return true, nil
	case "offset":
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 || n > maxOffset {
			return true, errors.New("offset is not a number from 0")
		}
		q.Offset = n
		return true, nil
	case "fuzzymatching":
		if q.Fuzzy = strings.EqualFold(value, "true"); !q.Fuzzy && value != "" && !strings.EqualFold(value, "false") {
			return true, errors.New("fuzzymatching is neither true nor false")
		}
		return true, nil
	case "orderby":
		return true, s.ordered(q, value)
	case "includefield", "accept", emptyMatching, listMatching: // read elsewhere
		return true, nil
	}
	path, ok := s.path(name)
	if !ok {
		return false, nil
	}
	m := pipeline.Match{Tag: path[len(path)-1], Value: value}
	if len(path) == 2 {
		m.In = path[0]
	}
	if len(path) > 2 || !s.store.Matchable(q.Level, m.In, m.Tag) {
		if any := strings.Trim(value, "*") == ""; any { // matches everything, and asks for the attribute (PS3.4 section C.2.2.2.3)
			q.Include = append(q.Include, path)
			return true, nil
		}
		return false, nil
	}
	again := slices.ContainsFunc(q.Match, func(o pipeline.Match) bool { return o.In == m.In && o.Tag == m.Tag })
	if again || len(values) > 1 && !listable(m.Tag) {
		return true, fmt.Errorf("the key %s comes more than once", m.Tag)
	}
	q.Match = append(q.Match, m)
	return true, nil
}

// keyName writes a key that a client has sent into an answer, or the beginning of it.
func keyName(s string) string {
	var parts []string
	for _, p := range strings.SplitN(s, ".", maxNested+1) {
		parts = append(parts, printable(p))
	}
	return strings.Join(parts, ".")
}

// listable are the keys that may have several values.
func listable(t pipeline.Tag) bool {
	return slices.Contains([]pipeline.Tag{pipeline.TagStudyInstanceUID, pipeline.TagSeriesInstanceUID, pipeline.TagSOPInstanceUID,
		pipeline.TagSOPClassUID, pipeline.TagSOPClassesInStudy, pipeline.TagModality, pipeline.TagModalitiesInStudy}, t)
}

// ordered reads attributes with commas between, each with a minus before it for the other direction.
func (s *server) ordered(q *pipeline.Query, value string) error {
	if strings.Count(value, ",") >= maxNames {
		return fmt.Errorf("orderby has more than %d attributes", maxNames)
	}
	if value == "" {
		return nil
	}
	for _, name := range strings.Split(value, ",") {
		name, descending := strings.CutPrefix(strings.TrimSpace(name), "-")
		t, ok := s.tag(strings.TrimPrefix(name, "+"))
		if !ok {
			return fmt.Errorf("orderby names %q, which is no keyword or tag", printable(name))
		}
		q.Order = append(q.Order, pipeline.Order{Tag: t, Descending: descending})
	}
	return nil
}

// included reads includefield and returns the names in it that mean nothing.
func (s *server) included(q *pipeline.Query, values []string) (unknown []string) {
	for _, name := range strings.Split(strings.Join(values, ","), ",") {
		name = strings.TrimSpace(name)
		switch path, ok := s.path(name); {
		case name == "":
		case strings.EqualFold(name, "all"):
			q.All = true
		case ok:
			q.Include = append(q.Include, path)
		default:
			unknown = append(unknown, keyName(name))
		}
	}
	return unknown
}

// path reads keywords or tags with points between: the sequences around an attribute, and the attribute.
func (s *server) path(name string) ([]pipeline.Tag, bool) {
	if len(name) > maxNested*64 {
		return nil, false
	}
	var out []pipeline.Tag
	for _, n := range strings.Split(name, ".") {
		t, ok := s.tag(n)
		if !ok || len(out) == maxNested {
			return nil, false
		}
		out = append(out, t)
	}
	return out, true
}

// tag reads a keyword or eight hexadecimal digits.
func (s *server) tag(name string) (pipeline.Tag, bool) {
	if len(name) == 8 {
		if n, err := strconv.ParseUint(name, 16, 32); err == nil {
			return pipeline.Tag(n), true
		}
	}
	if name == "" || len(name) > 64 {
		return 0, false
	}
	t, _, ok := s.Lookup(name)
	return t, ok
}
