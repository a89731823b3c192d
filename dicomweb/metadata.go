package dicomweb

import (
	"errors"
	"fmt"
	"io"
	"net/textproto"
	"slices"

	"github.com/gin-gonic/gin"

	"chatxray/pipeline"
)

// maxListed is how many instances' metadata are made in memory, which gives them a length and ranges.
const maxListed = 256

// metadata is WADO-RS metadata of a study, a series or an instance (PS3.18 section 10.4.1.1.2): the headers in the JSON model, or in
// XML, one part each.
func (s *server) metadata(c *gin.Context) error {
	media, single, err := chooseModel(accepted(c.Request), c.Param("instance") != "")
	if err != nil {
		return err
	}
	k, err := s.asKept(c)
	if err != nil {
		return err
	}
	base, found := s.base(c.Request), k.instances
	tag := s.entityTag(found, "metadata", media, fmt.Sprint(single), base)
	if s.fresh(c, tag, k.at) {
		return nil
	}
	write := func(w io.Writer) error { return s.writeJSON(w, found, base) }
	switch {
	case media == mediaXML && single:
		write = func(w io.Writer) error { return s.writeModel(w, found[0], base, mediaXML) }
	case media == mediaXML:
		media = related(mediaXML, boundaryOf(tag))
		write = func(w io.Writer) error { return s.writeXMLParts(w, found, base, boundaryOf(tag)) }
	}
	if len(found) > maxListed {
		return s.stream(c, media, write)
	}
	b := &buffer{limit: maxBuffered}
	switch err := write(b); {
	case errors.Is(err, errLong):
		return s.stream(c, media, write)
	case err != nil:
		return err
	}
	release, err := s.gate.hold(b.Len())
	if err != nil {
		return err
	}
	defer release()
	return s.content(c, media, k.at, &pieces{all: []piece{bytesPiece(b.Bytes())}})
}

// chooseModel chooses between JSON and XML for data sets. XML has a part for each; single: of one data set the client takes it alone.
func chooseModel(accept []mediaType, one bool) (media string, single bool, err error) {
	for _, m := range accept {
		multi := m.name == "multipart/*" || m.name == mediaMulti && slices.Contains([]string{"", mediaXML, "application/xml"}, m.params["type"])
		switch {
		case m.matches(mediaJSON), m.name == "application/json" && m.q > 0:
			return mediaJSON, true, nil
		case multi && m.q > 0:
			return mediaXML, false, nil
		case m.matches(mediaXML):
			return mediaXML, one, nil
		}
	}
	return "", false, fmt.Errorf(`%w: data sets come as %s, or as multipart/related; type="%s"`, errNotAcceptable, mediaJSON, mediaXML)
}

func (s *server) writeJSON(w io.Writer, found []*pipeline.Instance, base string) error {
	between := "["
	for _, in := range found {
		if _, err := io.WriteString(w, between); err != nil {
			return err
		}
		if err := s.writeModel(w, in, base, mediaJSON); err != nil {
			return err
		}
		between = ","
	}
	_, err := io.WriteString(w, "]")
	return err
}

func (s *server) writeXMLParts(w io.Writer, found []*pipeline.Instance, base, boundary string) error {
	mw := partsTo(w, boundary)
	for _, in := range found {
		part, err := mw.CreatePart(textproto.MIMEHeader{"Content-Type": {mediaXML}, "Content-Location": {instanceURL(base, in) + "/metadata"}})
		if err != nil {
			return err
		}
		if err := s.writeModel(part, in, base, mediaXML); err != nil {
			return err
		}
	}
	return mw.Close()
}

// writeModel writes the header of one instance. It is there in full before the first byte goes out.
func (s *server) writeModel(w io.Writer, in *pipeline.Instance, base, media string) error {
	o, err := s.open(in)
	if err != nil {
		return err
	}
	defer o.Close()
	m := newModel(o.Left(), func(path string) string { return instanceURL(base, in) + "/bulkdata/" + path })
	var out []byte
	if media == mediaXML {
		m.keyword = s.Keyword
		out = m.appendXML(nil, o.Header())
	} else {
		out = m.appendItem(nil, o.Header(), "")
	}
	release, err := s.gate.hold(len(out))
	if err != nil {
		return err
	}
	defer release()
	_, err = w.Write(out)
	return err
}
