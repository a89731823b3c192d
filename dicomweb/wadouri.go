package dicomweb

import (
	"fmt"
	"math"
	"net/url"
	"strconv"
	"strings"

	"github.com/gin-gonic/gin"

	"chatxray/pipeline"
)

// wadoURI is WADO-URI (PS3.18 section 9), which viewers had before WADO-RS: one instance by the query's study, series and object UIDs.
func (s *server) wadoURI(c *gin.Context) {
	q := lowered(c.Request.URL.Query())
	if v := q.Get("requesttype"); !strings.EqualFold(v, "WADO") {
		s.refuse(c, fmt.Errorf("%w: requestType is not WADO", pipeline.ErrInvalid))
		return
	}
	uids := [3]string{}
	for i, name := range []string{"studyUID", "seriesUID", "objectUID"} {
		uids[i] = q.Get(strings.ToLower(name))
		if !pipeline.ValidUID(uids[i]) {
			s.refuse(c, fmt.Errorf("%w: %s is missing or no UID", pipeline.ErrInvalid, name))
			return
		}
	}
	found, err := s.store.Instances(c.Request.Context(), uids[0], uids[1], uids[2])
	if err != nil {
		s.refuse(c, err)
		return
	}
	in := found[0]
	at, sizes, err := modified(found)
	if err != nil {
		s.refuse(c, err)
		return
	}
	if q.Get("anonymize") != "" {
		s.refuse(c, fmt.Errorf("%w: objects are not anonymised here", errNotAcceptable))
		return
	}
	var accept []string
	if v := q.Get("contenttype"); v != "" {
		accept = []string{v}
	}
	for _, m := range parseAccept(accept) {
		if m.matches(mediaDICOM) && len(accept) > 0 {
			d := delivery{single: true, syntax: asStored}
			if ts := q.Get("transfersyntax"); ts != "" {
				if d.syntax, d.strict = ts, true; ts != in.TransferSyntaxUID && !s.Transcodes(in.TransferSyntaxUID, ts) {
					s.refuse(c, fmt.Errorf("%w: what is stored has the transfer syntax %s, which is not converted to %q", errNotAcceptable, in.TransferSyntaxUID, printable(ts)))
					return
				}
			}
			s.sendInstance(c, in, d, at, sizes[0])
			return
		}
	}
	s.wadoPicture(c, in, q, accept)
}

// lowered makes the names of parameters small: clients write windowCenter and WindowCenter.
func lowered(q url.Values) url.Values {
	out := url.Values{}
	for name, values := range q {
		out[strings.ToLower(name)] = values
	}
	return out
}

// wadoPicture answers with a rendered frame.
func (s *server) wadoPicture(c *gin.Context, in *pipeline.Instance, q url.Values, accept []string) {
	at, _, err := modified([]*pipeline.Instance{in})
	if err != nil {
		s.refuse(c, err)
		return
	}
	o, err := s.open(in)
	if err != nil {
		s.refuse(c, err)
		return
	}
	defer o.Close()
	p, frame, err := wadoParameters(q, o.Header())
	if err != nil {
		s.refuse(c, err)
		return
	}
	var forms []shown
	for _, m := range parseAccept(accept) {
		for _, media := range append(pictureMedia, "text/html", "application/pdf") {
			if m.matches(media) {
				forms = append(forms, shown{media: media})
			}
		}
	}
	n, err := o.Frames()
	switch {
	case err != nil && s.showDocument(c, in, o, forms, at):
		return
	case err != nil:
		s.refuse(c, unable(in, err))
		return
	case frame >= n:
		s.refuse(c, fmt.Errorf("%w: frame %d of %d", pipeline.ErrNotFound, frame+1, n))
		return
	}
	if frame < 0 {
		frame = frameOf(nil, o.Header(), n)
	}
	form, ok := pictureForm(forms, false)
	if !ok {
		s.refuse(c, errNoPicture)
		return
	}
	s.showOne(c, in, o, frame, p, form.media, at)
}

// wadoParameters reads the parameters of a picture (PS3.18 section 9.1.2.2). frame is -1 where none is named.
func wadoParameters(q url.Values, h pipeline.Dataset) (p picture, frame int, err error) {
	number := func(name string, least, most int) int {
		v := q.Get(name)
		if v == "" || err != nil {
			return -1
		}
		n, perr := strconv.Atoi(v)
		if perr != nil || n < least || n > most {
			err = fmt.Errorf("%w: %s is not a number from %d to %d", pipeline.ErrInvalid, name, least, most)
		}
		return n
	}
	plain := url.Values{"annotation": q["annotation"], "quality": q["imagequality"]}
	if c, w := q.Get("windowcenter"), q.Get("windowwidth"); c != "" || w != "" {
		plain.Set("window", c+","+w)
	}
	if p, err = parsePicture(plain); err != nil {
		return p, 0, err
	}
	rows, columns := number("rows", 1, maxViewport), number("columns", 1, maxViewport)
	p.view.FitHeight, p.view.FitWidth = max(rows, 0), max(columns, 0)
	if frame = number("framenumber", 1, math.MaxInt32); frame > 0 {
		frame--
	}
	if v := q.Get("region"); v != "" && err == nil {
		err = p.region(v, h)
	}
	return p, frame, err
}

// region reads xmin,ymin,xmax,ymax in parts of the image.
func (p *picture) region(v string, h pipeline.Dataset) error {
	rows, _ := h.Int(pipeline.TagRows)
	columns, _ := h.Int(pipeline.TagColumns)
	fields := strings.Split(v, ",")
	var n [4]float64
	for i, f := range fields {
		var err error
		if i < 4 {
			n[i], err = strconv.ParseFloat(strings.TrimSpace(f), 64)
		}
		if err != nil || len(fields) != 4 || !(n[i] >= 0 && n[i] <= 1) {
			return fmt.Errorf("%w: region is xmin,ymin,xmax,ymax, each from 0 to 1", pipeline.ErrInvalid)
		}
	}
	if n[0] >= n[2] || n[1] >= n[3] {
		return fmt.Errorf("%w: the region is empty", pipeline.ErrInvalid)
	}
	p.view.Left, p.view.Top = int(n[0]*float64(columns)), int(n[1]*float64(rows))
	p.view.Width = max(1, int(math.Round(n[2]*float64(columns)))-p.view.Left)
	p.view.Height = max(1, int(math.Round(n[3]*float64(rows)))-p.view.Top)
	return nil
}
