package dicomweb

import (
	"bytes"
	"fmt"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"strings"

	"github.com/gin-gonic/gin"

	"chatxray/pipeline"
)

// search is QIDO-RS at one level (PS3.18 section 10.6).
func (s *server) search(level pipeline.Level) handler {
	return func(c *gin.Context) error {
		format, _, err := chooseModel(accepted(c.Request), false)
		if err != nil {
			return err
		}
		q, err := s.asked(c, level)
		if err != nil {
			return err
		}
		found, err := s.store.Search(c.Request.Context(), q)
		if err != nil {
			return err
		}
		if found.Left > 0 {
			atLeast := ""
			if found.AtLeast {
				atLeast = "at least "
			}
			warn(c, fmt.Sprintf("There are %s%d additional results that can be requested", atLeast, found.Left))
		}
		base := s.base(c.Request)
		for i := range found.Results {
			d := &found.Results[i]
			d.SetText(pipeline.TagRetrieveURL, "UR", retrieveURL(base, level, *d))
			d.SetText(pipeline.TagSpecificCharacterSet, "CS", "ISO_IR 192")
		}
		if format == mediaXML {
			s.sendXML(c, found.Results)
			return nil
		}
		out := make([]byte, 0, 2+1024*len(found.Results))
		out = append(out, '[')
		for i, d := range found.Results {
			if i > 0 {
				out = append(out, ',')
			}
			out = appendJSON(out, d, nil)
		}
		c.Data(http.StatusOK, mediaJSON, append(out, ']'))
		return nil
	}
}

// count answers how many results a search has, as dcm4chee does.
func (s *server) count(level pipeline.Level) handler {
	return func(c *gin.Context) error {
		q, err := s.asked(c, level)
		if err != nil {
			return err
		}
		n, err := s.store.Count(c.Request.Context(), q)
		if err != nil {
			return err
		}
		c.JSON(http.StatusOK, gin.H{"count": n})
		return nil
	}
}

// countsAreRead answers for the other methods of .../count, which gin would take for a study, series or instance of that name.
func countsAreRead(c *gin.Context) {
	m := c.Request.Method
	if !strings.HasSuffix(c.Request.URL.Path, "/count") || m == http.MethodGet || m == http.MethodHead {
		return
	}
	c.Header("Allow", "GET, HEAD")
	if m == http.MethodOptions {
		c.AbortWithStatus(http.StatusNoContent)
		return
	}
	c.AbortWithStatusJSON(http.StatusMethodNotAllowed, gin.H{"error": "a count can only be asked for"})
}

// asked reads a search from path and query, and warns of keys that are left out.
func (s *server) asked(c *gin.Context, level pipeline.Level) (pipeline.Query, error) {
	study, series, _, err := pathUIDs(c)
	if err != nil {
		return pipeline.Query{}, err
	}
	q, unknown, err := s.query(level, c.Request.URL.RawQuery)
	if err != nil {
		return q, err
	}
	if len(unknown) > 0 {
		warn(c, "These keys cannot be matched or returned and were left out: "+strings.Join(unknown, ", "))
	}
	for name, what := range map[string]string{emptyMatching: "Empty Value Matching", listMatching: "Multiple Value Matching"} {
		if strings.EqualFold(c.Query(name), "true") {
			warn(c, "The "+name+" parameter is not supported. "+what+" has not been performed.")
		}
	}
	if study != "" {
		q.Match = append(q.Match, pipeline.Match{Tag: pipeline.TagStudyInstanceUID, Value: study})
	}
	if series != "" {
		q.Match = append(q.Match, pipeline.Match{Tag: pipeline.TagSeriesInstanceUID, Value: series})
	}
	return q, nil
}

// warn adds a Warning header (PS3.18 section 8.4.2); the text must be of printable characters without quotes.
func warn(c *gin.Context, text string) {
	text = strings.Map(func(r rune) rune {
		if r == '"' || r == '\\' {
			return '\''
		}
		return r
	}, text)
	c.Writer.Header().Add("Warning", `299 chatxray "`+text[:min(len(text), 1000)]+`"`)
}

// sendXML answers with one part for each result. A multipart body without parts does not exist, so no result is a 204.
func (s *server) sendXML(c *gin.Context, results []pipeline.Dataset) {
	if len(results) == 0 {
		c.Status(http.StatusNoContent)
		return
	}
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for _, d := range results {
		part, _ := w.CreatePart(textproto.MIMEHeader{"Content-Type": {mediaXML}}) // a buffer does not fail
		_, _ = part.Write(s.appendXML(nil, d))
	}
	_ = w.Close()
	c.Data(http.StatusOK, related(mediaXML, w.Boundary()), b.Bytes())
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
