package dicomweb

import (
	"bytes"
	"fmt"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"github.com/gin-gonic/gin"

	"chatxray/pipeline"
)

// metadata is WADO-RS metadata of a study, a series or an instance (PS3.18 section 10.4.1.1.2): the headers in the JSON model.
func (s *server) metadata(c *gin.Context) {
	if !acceptsJSON(c.Request.Header["Accept"]) {
		s.refuse(c, fmt.Errorf("%w: metadata come as %s", errNotAcceptable, mediaJSON))
		return
	}
	found, err := s.found(c)
	if err != nil {
		s.refuse(c, err)
		return
	}
	base := s.base(c.Request)
	for i, in := range found {
		header, err := s.header(in)
		if err != nil && i == 0 {
			s.refuse(c, err)
			return
		}
		if err != nil { // half a list must not look whole
			_ = c.Error(err)
			panic(http.ErrAbortHandler)
		}
		out := []byte{','}
		if i == 0 {
			c.Header("Content-Type", mediaJSON)
			out[0] = '['
		}
		url := instanceURL(base, in)
		out = appendJSON(out, header, func(path string) string { return url + "/bulkdata/" + path })
		if i == len(found)-1 {
			out = append(out, ']')
		}
		if _, err := c.Writer.Write(out); err != nil {
			panic(http.ErrAbortHandler)
		}
	}
}

// header parses the file of an instance again.
func (s *server) header(in *pipeline.Instance) (pipeline.Dataset, error) {
	opened, err := s.Open(in.Path)
	if err != nil {
		return nil, fmt.Errorf("instance %s: %w", in.SOPInstanceUID, err)
	}
	return opened.Header, nil
}

// bulkdata returns a value that metadata has named by its BulkDataURI.
func (s *server) bulkdata(c *gin.Context) {
	found, err := s.found(c)
	if err != nil {
		s.refuse(c, err)
		return
	}
	header, err := s.header(found[0])
	if err != nil {
		s.refuse(c, err)
		return
	}
	value, ok := valueAt(header, strings.Split(strings.Trim(c.Param("path"), "/"), "/"))
	if !ok {
		s.refuse(c, fmt.Errorf("%w: the instance has no binary value at this path", pipeline.ErrNotFound))
		return
	}
	const octets = "application/octet-stream"
	for _, m := range parseAccept(c.Request.Header["Accept"]) {
		switch {
		case m.matches(octets):
			c.Data(http.StatusOK, octets, value)
			return
		case m.matches("multipart/related"):
			var b bytes.Buffer
			w := multipart.NewWriter(&b)
			part, _ := w.CreatePart(textproto.MIMEHeader{"Content-Type": {octets}}) // a buffer does not fail
			_, _ = part.Write(value)
			_ = w.Close()
			c.Data(http.StatusOK, `multipart/related; type="`+octets+`"; boundary=`+w.Boundary(), b.Bytes())
			return
		}
	}
	s.refuse(c, fmt.Errorf("%w: bulk data come as %s", errNotAcceptable, octets))
}

// valueAt finds a binary value by the path that appendJSON gives it.
func valueAt(d pipeline.Dataset, path []string) ([]byte, bool) {
	for {
		n, err := strconv.ParseUint(path[0], 16, 32)
		if err != nil {
			return nil, false
		}
		e, ok := d.Get(pipeline.Tag(n))
		if !ok || len(path) == 2 {
			return nil, false
		}
		if len(path) == 1 {
			return e.Bytes, len(e.Bytes) > 0
		}
		item, err := strconv.Atoi(path[1])
		if err != nil || item < 1 || item > len(e.Items) {
			return nil, false
		}
		d, path = e.Items[item-1], path[2:]
	}
}
