package dicomweb

import (
	"fmt"
	"math"
	"net/url"
	"strconv"
	"strings"

	"chatxray/pipeline"
)

// picture is how a frame is to be shown.
type picture struct {
	view      pipeline.View
	quality   int
	patient   bool // texts that are written into the picture
	technique bool
	fit       bool // view has a viewport
}

// The bounds of what may be asked for.
const (
	maxViewport    = 8192 // pixels each way
	defaultQuality = 90
	thumbnailSide  = 128
)

// parsePicture reads the parameters of a rendered resource (PS3.18 section 8.3.5.1).
func parsePicture(q url.Values) (picture, error) {
	p := picture{quality: defaultQuality}
	if v := q.Get("quality"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > 100 {
			return p, fmt.Errorf("%w: quality is not a number from 1 to 100", pipeline.ErrInvalid)
		}
		p.quality = n
	}
	for word := range strings.SplitSeq(q.Get("annotation"), ",") {
		switch strings.TrimSpace(word) {
		case "":
		case "patient":
			p.patient = true
		case "technique":
			p.technique = true
		default:
			return p, fmt.Errorf("%w: annotation is a list of patient and technique", pipeline.ErrInvalid)
		}
	}
	var err error
	if v := q.Get("window"); v != "" {
		if p.view.Window, err = parseWindow(v); err != nil {
			return p, err
		}
	}
	if v := q.Get("viewport"); v != "" {
		p.fit = true
		if err := p.viewport(v); err != nil {
			return p, err
		}
	}
	return p, nil
}

// windowFunctions are the names of the functions in a query (PS3.18 section 8.3.5.1.4).
var windowFunctions = map[string]string{"": "LINEAR", "linear": "LINEAR", "linear-exact": "LINEAR_EXACT", "sigmoid": "SIGMOID"}

func parseWindow(v string) (*pipeline.Window, error) {
	fields := strings.Split(v, ",")
	if len(fields) < 2 || len(fields) > 3 {
		return nil, fmt.Errorf("%w: window is center,width or center,width,function", pipeline.ErrInvalid)
	}
	w := new(pipeline.Window)
	for i, into := range []*float64{&w.Center, &w.Width} {
		n, err := strconv.ParseFloat(strings.TrimSpace(fields[i]), 64)
		if err != nil || math.IsNaN(n) || math.Abs(n) > 1e9 {
			return nil, fmt.Errorf("%w: the center and the width of window are numbers", pipeline.ErrInvalid)
		}
		*into = n
	}
	name := ""
	if len(fields) == 3 {
		name = strings.ReplaceAll(strings.ToLower(strings.TrimSpace(fields[2])), "_", "-")
	}
	function, ok := windowFunctions[name]
	if !ok {
		return nil, fmt.Errorf("%w: the function of window is linear, linear-exact or sigmoid", pipeline.ErrInvalid)
	}
	if w.Function = function; w.Width <= 0 || function == "LINEAR" && w.Width < 1 {
		return nil, fmt.Errorf("%w: the width of window is too small", pipeline.ErrInvalid)
	}
	return w, nil
}

// viewport reads vw,vh[,sx,sy,sw,sh]: the size that the picture fits in, and the region that it shows. A negative sw or sh turns the
// picture round (PS3.18 section 8.3.5.1.3). One number alone is both vw and vh.
func (p *picture) viewport(v string) error {
	fields := strings.Split(v, ",")
	if len(fields) == 1 {
		fields = append(fields, fields[0])
	}
	if len(fields) != 2 && len(fields) != 6 {
		return fmt.Errorf("%w: viewport is vw,vh or vw,vh,sx,sy,sw,sh", pipeline.ErrInvalid)
	}
	var n [6]float64
	for i, f := range fields {
		if f = strings.TrimSpace(f); f == "" && i > 1 {
			continue
		}
		var err error
		if n[i], err = strconv.ParseFloat(f, 64); err != nil || math.IsNaN(n[i]) || math.Abs(n[i]) > 1e6 {
			return fmt.Errorf("%w: viewport has something that is no number", pipeline.ErrInvalid)
		}
	}
	if n[0] < 1 || n[1] < 1 || n[0] > maxViewport || n[1] > maxViewport {
		return fmt.Errorf("%w: the viewport has at least 1 and at most %d pixels each way", pipeline.ErrInvalid, maxViewport)
	}
	if n[2] < 0 || n[3] < 0 {
		return fmt.Errorf("%w: the region of viewport begins outside the image", pipeline.ErrInvalid)
	}
	p.view.FitWidth, p.view.FitHeight = int(n[0]), int(n[1])
	p.view.Left, p.view.Top = int(n[2]), int(n[3])
	p.view.FlipX, p.view.FlipY = n[4] < 0, n[5] < 0
	p.view.Width, p.view.Height = int(math.Ceil(math.Abs(n[4]))), int(math.Ceil(math.Abs(n[5])))
	return nil
}

// inside refuses a region that the frame does not have.
func (p *picture) inside(h pipeline.Dataset) error {
	rows, _ := h.Int(pipeline.TagRows)
	columns, _ := h.Int(pipeline.TagColumns)
	if v := p.view; v.Left > 0 && v.Left >= columns || v.Top > 0 && v.Top >= rows {
		return fmt.Errorf("%w: the region of viewport lies outside the image, which has %d columns and %d rows", pipeline.ErrInvalid, columns, rows)
	}
	return nil
}

// key names what the picture is.
func (p *picture) key() string {
	w := ""
	if p.view.Window != nil {
		w = fmt.Sprint(*p.view.Window)
	}
	v := p.view
	v.Window = nil
	return fmt.Sprint(v, w, p.quality, p.patient, p.technique)
}
