package dicomweb

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/gin-gonic/gin"

	"chatxray/pipeline"
)

// search is QIDO-RS at one level (PS3.18 section 10.6).
func (s *server) search(level pipeline.Level) gin.HandlerFunc {
	return func(c *gin.Context) {
		study, series, _, err := pathUIDs(c)
		if err != nil {
			s.refuse(c, err)
			return
		}
		if !acceptsJSON(c.Request.Header["Accept"]) {
			s.refuse(c, fmt.Errorf("%w: a search is answered with %s", errNotAcceptable, mediaJSON))
			return
		}
		q, fuzzy, err := s.query(level, c.Request.URL.RawQuery)
		if err != nil {
			s.refuse(c, err)
			return
		}
		if study != "" {
			q.Match = append(q.Match, pipeline.Match{Tag: pipeline.TagStudyInstanceUID, Value: study})
		}
		if series != "" {
			q.Match = append(q.Match, pipeline.Match{Tag: pipeline.TagSeriesInstanceUID, Value: series})
		}
		results, more, err := s.store.Search(c.Request.Context(), q)
		if err != nil {
			s.refuse(c, err)
			return
		}
		if fuzzy {
			c.Writer.Header().Add("Warning", `299 chatxray "The fuzzymatching parameter is not supported. Only literal matching has been performed."`)
		}
		if more {
			c.Writer.Header().Add("Warning", `299 chatxray "There are additional results that can be requested"`)
		}
		base := s.base(c.Request)
		out := []byte{'['}
		for i, d := range results {
			if i > 0 {
				out = append(out, ',')
			}
			d.SetText(pipeline.TagRetrieveURL, "UR", retrieveURL(base, level, d))
			out = appendJSON(out, d, nil)
		}
		c.Data(http.StatusOK, mediaJSON, append(out, ']'))
	}
}

func acceptsJSON(accept []string) bool {
	return slices.ContainsFunc(parseAccept(accept), func(m mediaType) bool { return m.matches(mediaJSON) || m.matches("application/json") })
}

func retrieveURL(base string, level pipeline.Level, d pipeline.Dataset) string {
	u := base + "/studies/" + d.String(pipeline.TagStudyInstanceUID)
	if level >= pipeline.SeriesLevel {
		u += "/series/" + d.String(pipeline.TagSeriesInstanceUID)
	}
	if level == pipeline.InstanceLevel {
		u += "/instances/" + d.String(pipeline.TagSOPInstanceUID)
	}
	return u
}

// maxOffset keeps a page number from overflowing.
const maxOffset = 1 << 40

// query reads the parameters of a search. Names that mean nothing are named in the error.
func (s *server) query(level pipeline.Level, raw string) (q pipeline.Query, fuzzy bool, err error) {
	q = pipeline.Query{Level: level, Limit: s.MaxResults}
	values, err := url.ParseQuery(raw)
	if err != nil {
		return q, false, fmt.Errorf("%w: the query cannot be read; its values must be percent-encoded", pipeline.ErrInvalid)
	}
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	slices.Sort(names)
	var unknown []string
	for _, name := range names {
		value := strings.Join(values[name], ",")
		switch strings.ToLower(name) {
		case "limit":
			n, err := strconv.Atoi(value)
			if err != nil || n < 1 {
				return q, false, fmt.Errorf("%w: limit is not a number above 0", pipeline.ErrInvalid)
			}
			q.Limit = min(n, s.MaxResults)
		case "offset":
			n, err := strconv.Atoi(value)
			if err != nil || n < 0 || n > maxOffset {
				return q, false, fmt.Errorf("%w: offset is not a number from 0", pipeline.ErrInvalid)
			}
			q.Offset = n
		case "fuzzymatching":
			fuzzy = strings.EqualFold(value, "true")
		case "includefield": // every attribute that the index has comes back anyway
		default:
			tag, ok := s.tag(name)
			if !ok {
				unknown = append(unknown, printable(name))
				continue
			}
			q.Match = append(q.Match, pipeline.Match{Tag: tag, Value: value})
		}
	}
	if len(unknown) > 0 {
		return q, false, fmt.Errorf("%w: no attribute has the keyword or tag %s", pipeline.ErrInvalid, strings.Join(unknown, ", "))
	}
	return q, fuzzy, nil
}

// tag reads a keyword or eight hexadecimal digits.
func (s *server) tag(name string) (pipeline.Tag, bool) {
	if len(name) == 8 {
		if n, err := strconv.ParseUint(name, 16, 32); err == nil {
			return pipeline.Tag(n), true
		}
	}
	t, _, ok := s.Lookup(name)
	return t, ok
}
