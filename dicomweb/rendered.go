package dicomweb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"mime/multipart"
	"net/textproto"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"chatxray/pipeline"
)

// pictureMedia are the media types of rendered frames, the default first.
var pictureMedia = []string{"image/jpeg", "image/png", "image/gif"}

// shown is how a client takes what is rendered.
type shown struct {
	media string // of one picture; or text/html, application/pdf
	multi bool   // in a multipart body
}

// shownForms lists the ways in which a client takes what is rendered, most wanted first.
func shownForms(c *gin.Context) []shown {
	var out []shown
	for _, m := range accepted(c.Request) {
		multi := m.name == mediaMulti || m.name == "multipart/*"
		if multi && m.q > 0 {
			kind := m.params["type"]
			if kind == "" {
				kind = "*/*"
			}
			m.name = kind
		}
		for _, media := range append(pictureMedia, "text/html", "application/pdf") {
			if m.matches(media) {
				out = append(out, shown{media, multi})
			}
		}
	}
	return out
}

// rendered is WADO-RS of rendered resources (PS3.18 section 10.4.1.1.3): pictures of one frame, of several, of every image of a series
// or a study; text/html of a structured report, application/pdf of an encapsulated one.
func (s *server) rendered(c *gin.Context) {
	p, err := parsePicture(c.Request.URL.Query())
	if err != nil {
		s.refuse(c, err)
		return
	}
	s.show(c, p, shownForms(c), false)
}

// thumbnail is WADO-RS of thumbnails: one small picture of whatever is named.
func (s *server) thumbnail(c *gin.Context) {
	p, err := parsePicture(c.Request.URL.Query())
	if err != nil {
		s.refuse(c, err)
		return
	}
	if !p.fit {
		p.view.FitWidth, p.view.FitHeight = thumbnailSide, thumbnailSide
	}
	s.show(c, p, shownForms(c), true)
}

// show answers with pictures of what the path names; alone with the first of them only.
func (s *server) show(c *gin.Context, p picture, forms []shown, alone bool) {
	found, err := s.found(c)
	if err != nil {
		s.refuse(c, err)
		return
	}
	list, err := frameList(c)
	if err != nil {
		s.refuse(c, err)
		return
	}
	at, _, err := modified(found)
	if err != nil {
		s.refuse(c, err)
		return
	}
	if len(found) == 1 && c.Param("instance") != "" {
		s.showInstance(c, found[0], list, p, forms, alone, at)
		return
	}
	form, ok := pictureForm(forms, !alone)
	if !ok {
		s.refuse(c, errNoPicture)
		return
	}
	if alone {
		for _, in := range found {
			o, err := s.open(in)
			if err != nil {
				continue
			}
			n, err := o.Frames()
			if err == nil {
				s.showOne(c, in, o, frameOf(nil, o.Header(), n), p, form.media, at)
			}
			o.Close()
			if err == nil {
				return
			}
		}
		s.refuse(c, fmt.Errorf("%w: nothing here is an image", errNotAcceptable))
		return
	}
	tag := entityTag(found, "rendered", form.media, p.key(), s.base(c.Request))
	if s.fresh(c, tag, at) {
		return
	}
	s.streamPictures(c, found, nil, p, form.media, boundaryOf(tag))
}

var errNoPicture = fmt.Errorf("%w: images are rendered as %s, several as multipart/related of them", errNotAcceptable, strings.Join(pictureMedia, ", "))

// pictureForm is the first form that is of a picture.
func pictureForm(forms []shown, several bool) (shown, bool) {
	for _, f := range forms {
		if strings.HasPrefix(f.media, "image/") && (several || !f.multi) {
			return f, true
		}
	}
	return shown{}, false
}

// showInstance answers with pictures of one instance, or with a document.
func (s *server) showInstance(c *gin.Context, in *pipeline.Instance, list []int, p picture, forms []shown, alone bool, at time.Time) {
	o, err := s.open(in)
	if err != nil {
		s.refuse(c, err)
		return
	}
	defer o.Close()
	n, err := o.Frames()
	if errors.Is(err, pipeline.ErrNotImage) && !alone && len(list) == 0 && s.showDocument(c, in, o, forms, at) {
		return
	}
	if err != nil {
		s.refuse(c, unable(in, err))
		return
	}
	for _, f := range list {
		if f >= n {
			s.refuse(c, fmt.Errorf("%w: frame %d of %d", pipeline.ErrNotFound, f+1, n))
			return
		}
	}
	form, ok := pictureForm(forms, !alone)
	if !ok {
		s.refuse(c, errNoPicture)
		return
	}
	if err := p.inside(o.Header()); err != nil {
		s.refuse(c, err)
		return
	}
	if !form.multi && (alone || len(list) < 2) {
		s.showOne(c, in, o, frameOf(list, o.Header(), n), p, form.media, at)
		return
	}
	tag := entityTag([]*pipeline.Instance{in}, "rendered", form.media, p.key(), fmt.Sprint(list), s.base(c.Request))
	if s.fresh(c, tag, at) {
		return
	}
	s.streamPictures(c, []*pipeline.Instance{in}, list, p, form.media, boundaryOf(tag))
}

// showOne answers with one picture.
func (s *server) showOne(c *gin.Context, in *pipeline.Instance, o Object, frame int, p picture, media string, at time.Time) {
	if s.fresh(c, entityTag([]*pipeline.Instance{in}, "picture", media, p.key(), fmt.Sprint(frame)), at) {
		return
	}
	leave, err := s.gate.enter(c.Request.Context())
	if err != nil {
		s.refuse(c, err)
		return
	}
	defer leave()
	b, err := pictureFile(c.Request.Context(), o, frame, p, media)
	if err != nil {
		s.refuse(c, unable(in, err))
		return
	}
	leave()
	release, err := s.gate.hold(len(b))
	if err != nil {
		s.refuse(c, err)
		return
	}
	defer release()
	s.content(c, media, at, &pieces{all: []piece{bytesPiece(b)}})
}

// streamPictures answers with every frame of instances, or those of list, as a multipart body. Instances without pixels are left out.
func (s *server) streamPictures(c *gin.Context, found []*pipeline.Instance, list []int, p picture, media, boundary string) {
	base := s.base(c.Request)
	s.stream(c, related(media, boundary), func(w io.Writer) error {
		y, err := s.gate.yield(c.Request.Context())
		if err != nil {
			return err
		}
		defer y.close()
		y.w = w
		mw := multipart.NewWriter(y)
		if err := mw.SetBoundary(boundary); err != nil {
			return err
		}
		some := false
		for _, in := range found {
			n, err := s.drawInstance(c.Request.Context(), mw, in, list, p, media, base)
			if err != nil {
				return err
			}
			some = some || n > 0
		}
		if !some {
			return fmt.Errorf("%w: nothing here is an image", errNotAcceptable)
		}
		return mw.Close()
	})
}

// drawInstance writes a part for each frame and tells how many there were.
func (s *server) drawInstance(ctx context.Context, mw *multipart.Writer, in *pipeline.Instance, list []int, p picture, media, base string) (int, error) {
	o, err := s.open(in)
	if err != nil {
		return 0, err
	}
	defer o.Close()
	n, err := o.Frames()
	if errors.Is(err, pipeline.ErrNotImage) {
		return 0, nil
	}
	if err != nil {
		return 0, unable(in, err)
	}
	if list == nil {
		list = make([]int, n)
		for i := range list {
			list[i] = i
		}
	}
	for _, f := range list {
		b, err := pictureFile(ctx, o, f, p, media)
		if err != nil {
			return 0, unable(in, err)
		}
		location := fmt.Sprintf("%s/frames/%d/rendered", instanceURL(base, in), f+1)
		part, err := mw.CreatePart(textproto.MIMEHeader{"Content-Type": {media}, "Content-Location": {location}})
		if err == nil {
			_, err = part.Write(b)
		}
		if err != nil {
			return 0, err
		}
	}
	return len(list), nil
}

// pictureFile makes the file of one picture.
func pictureFile(ctx context.Context, o Object, frame int, p picture, media string) ([]byte, error) {
	m, err := o.Render(ctx, frame, p.view)
	if err != nil {
		return nil, err
	}
	if c, ok := m.(io.Closer); ok {
		defer c.Close()
	}
	if rows, ok := m.(rowed); ok && (media != "image/jpeg" || p.patient || p.technique) {
		m = whole(rows)
	}
	annotate(m, o.Header(), p)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	switch gray, isGray := m.(*image.Gray); {
	case media == "image/png":
		err = (&png.Encoder{CompressionLevel: png.BestSpeed}).Encode(&b, m)
	case media == "image/gif":
		err = gif.Encode(&b, paletted(m), nil)
	case isGray:
		return encodeGray(grayRows{gray}, p.quality), nil
	default:
		if rows, ok := m.(rowed); ok {
			return encodeGray(rows, p.quality), nil
		}
		err = jpeg.Encode(&b, m, &jpeg.Options{Quality: p.quality})
	}
	return b.Bytes(), err
}

// whole makes all rows of a picture.
func whole(m rowed) *image.Gray {
	out := image.NewGray(m.Bounds())
	for y := range m.Bounds().Dy() {
		m.Row(y, out.Pix[y*out.Stride:][:out.Stride])
	}
	return out
}

// paletted makes a gray picture one of 256 grays, which GIF has without loss.
func paletted(m image.Image) image.Image {
	g, ok := m.(*image.Gray)
	if !ok {
		return m
	}
	grays := make(color.Palette, 256)
	for i := range grays {
		grays[i] = color.Gray{Y: uint8(i)}
	}
	return &image.Paletted{Pix: g.Pix, Stride: g.Stride, Rect: g.Rect, Palette: grays}
}
