package dicomweb

import (
	"bytes"
	"cmp"
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
func shownForms(accept []mediaType) []shown {
	var out []shown
	for _, m := range accept {
		kind, multi := m.inner()
		for _, media := range append(pictureMedia, "text/html", "application/pdf") {
			if kind.matches(media) {
				out = append(out, shown{media, multi})
			}
		}
	}
	return out
}

// rendered is WADO-RS of rendered resources (PS3.18 section 10.4.1.1.3): pictures of one frame, of several, of every image of a series
// or a study; text/html of a structured report, application/pdf of an encapsulated one.
func (s *server) rendered(c *gin.Context) error {
	p, err := parsePicture(c.Request.URL.Query())
	if err != nil {
		return err
	}
	return s.show(c, p, false)
}

// thumbnail is WADO-RS of thumbnails: one small picture of whatever is named.
func (s *server) thumbnail(c *gin.Context) error {
	p, err := parsePicture(c.Request.URL.Query())
	if err != nil {
		return err
	}
	if !p.fit {
		p.view.FitWidth, p.view.FitHeight = thumbnailSide, thumbnailSide
	}
	return s.show(c, p, true)
}

// show answers with pictures of what the path names; alone with the first of them only.
func (s *server) show(c *gin.Context, p picture, alone bool) error {
	k, err := s.asKept(c)
	if err != nil {
		return err
	}
	list, err := frameList(c)
	if err != nil {
		return err
	}
	forms := shownForms(accepted(c.Request))
	if c.Param("instance") != "" {
		return s.showInstance(c, k, list, p, forms, alone)
	}
	form, ok := pictureForm(forms, !alone)
	switch {
	case !ok:
		return errNoPicture
	case alone:
		return s.showFirst(c, k, p, form.media)
	}
	return s.streamPictures(c, k, nil, p, form.media)
}

// showFirst answers with one picture of the first instance that one can be made of.
func (s *server) showFirst(c *gin.Context, k keeping, p picture, media string) error {
	var failed error
	for _, in := range k.instances {
		err := s.showAny(c, keeping{instances: []*pipeline.Instance{in}, at: k.at}, p, media)
		if err == nil || !errors.Is(err, errNotAcceptable) && !errors.Is(err, pipeline.ErrNotFound) {
			return err
		}
		failed = cmp.Or(failed, err)
	}
	return failed
}

// showAny answers with the picture that stands for an instance.
func (s *server) showAny(c *gin.Context, k keeping, p picture, media string) error {
	o, err := s.open(k.instances[0])
	if err != nil {
		return err
	}
	defer o.Close()
	n, err := o.Frames()
	if err != nil {
		return unable(k.instances[0], err)
	}
	return s.showOne(c, k, o, frameOf(nil, o.Header(), n), p, media)
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
func (s *server) showInstance(c *gin.Context, k keeping, list []int, p picture, forms []shown, alone bool) error {
	o, err := s.open(k.instances[0])
	if err != nil {
		return err
	}
	defer o.Close()
	all, err := framesOf(o, list)
	if errors.Is(err, pipeline.ErrNotImage) && !alone && list == nil {
		return s.showDocument(c, k, o, forms, err)
	}
	if err != nil {
		return unable(k.instances[0], err)
	}
	form, ok := pictureForm(forms, !alone)
	if !ok {
		return errNoPicture
	}
	if err := p.inside(o.Header()); err != nil {
		return err
	}
	if !form.multi && (alone || len(list) < 2) {
		return s.showOne(c, k, o, frameOf(list, o.Header(), len(all)), p, form.media)
	}
	return s.streamPictures(c, k, list, p, form.media)
}

// showOne answers with one picture.
func (s *server) showOne(c *gin.Context, k keeping, o Object, frame int, p picture, media string) error {
	if s.fresh(c, s.entityTag(k.instances, "picture", media, p.key(), fmt.Sprint(frame)), k.at) {
		return nil
	}
	leave, err := s.gate.enter(c.Request.Context())
	if err != nil {
		return err
	}
	defer leave()
	b, err := pictureFile(c.Request.Context(), o, frame, p, media)
	if err != nil {
		return unable(k.instances[0], err)
	}
	leave()
	release, err := s.gate.hold(len(b))
	if err != nil {
		return err
	}
	defer release()
	return s.content(c, media, k.at, &pieces{all: []piece{bytesPiece(b)}})
}

// streamPictures answers with every frame of instances, or those of list, as a multipart body. Instances without pixels are left out.
func (s *server) streamPictures(c *gin.Context, k keeping, list []int, p picture, media string) error {
	base := s.base(c.Request)
	tag := s.entityTag(k.instances, "rendered", media, p.key(), fmt.Sprint(list), base)
	if s.fresh(c, tag, k.at) {
		return nil
	}
	return s.convert(c, related(media, boundaryOf(tag)), func(w io.Writer) error {
		mw := partsTo(w, boundaryOf(tag))
		some := false
		for _, in := range k.instances {
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
	list, err = framesOf(o, list)
	if errors.Is(err, pipeline.ErrNotImage) {
		return 0, nil
	}
	if err != nil {
		return 0, unable(in, err)
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
