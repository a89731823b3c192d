package dicomweb

import (
	"errors"
	"fmt"
	"math"
	"net/url"
	"strconv"
	"strings"

	"github.com/gin-gonic/gin"

	"chatxray/pipeline"
)

// wadoURI is WADO-URI (PS3.18 section 9), which viewers had before WADO-RS: one instance by the query's study, series and object UIDs.
func (s *server) wadoURI(c *gin.Context) error {
	q := lowered(c.Request.URL.Query())
	if v := q.Get("requesttype"); !strings.EqualFold(v, "WADO") {
		return fmt.Errorf("%w: requestType is not WADO", pipeline.ErrInvalid)
	}
	uids := [3]string{}
	for i, name := range []string{"studyUID", "seriesUID", "objectUID"} {
		uids[i] = q.Get(strings.ToLower(name))
		if !pipeline.ValidUID(uids[i]) {
			return fmt.Errorf("%w: %s is missing or no UID", pipeline.ErrInvalid, name)
		}
	}
	k, err := s.kept(c.Request.Context(), uids[0], uids[1], uids[2])
	if err != nil {
		return err
	}
	if q.Get("anonymize") != "" {
		return fmt.Errorf("%w: objects are not anonymised here", errNotAcceptable)
	}
	var accept []string
	if v := q.Get("contenttype"); v != "" {
		accept = []string{v}
	}
	for _, m := range parseAccept(accept) {
		if m.matches(mediaDICOM) && len(accept) > 0 {
			return s.wadoFile(c, k, q.Get("transfersyntax"))
		}
	}
	return s.wadoPicture(c, k, q, parseAccept(accept))
}

// wadoFile answers with the instance, as it is stored unless a transfer syntax is named.
func (s *server) wadoFile(c *gin.Context, k keeping, syntax string) error {
	d := delivery{single: true, syntax: syntax, strict: syntax != ""}
	if have := k.instances[0].TransferSyntaxUID; d.strict && syntax != have && !s.Transcodes(have, syntax) {
		return fmt.Errorf("%w: what is stored has the transfer syntax %s, which is not converted to %q", errNotAcceptable, have, printable(syntax))
	}
	return s.sendInstance(c, k, d)
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
func (s *server) wadoPicture(c *gin.Context, k keeping, q url.Values, accept []mediaType) error {
	o, err := s.open(k.instances[0])
	if err != nil {
		return err
	}
	defer o.Close()
	p, frame, err := wadoParameters(q, o.Header())
	if err != nil {
		return err
	}
	forms := shownForms(accept)
	all, err := framesOf(o, frame)
	switch {
	case errors.Is(err, pipeline.ErrNotImage):
		return s.showDocument(c, k, o, forms, err)
	case err != nil:
		return unable(k.instances[0], err)
	}
	form, ok := pictureForm(forms, false)
	if !ok {
		return errNoPicture
	}
	return s.showOne(c, k, o, frameOf(frame, o.Header(), len(all)), p, form.media)
}

// wadoParameters reads the parameters of a picture (PS3.18 section 9.1.2.2). frame is nil where none is named.
func wadoParameters(q url.Values, h pipeline.Dataset) (p picture, frame []int, err error) {
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
		return p, nil, err
	}
	rows, columns := number("rows", 1, maxViewport), number("columns", 1, maxViewport)
	p.view.FitHeight, p.view.FitWidth = max(rows, 0), max(columns, 0)
	if n := number("framenumber", 1, math.MaxInt32); n > 0 {
		frame = []int{n - 1}
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
