package dicomweb

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/textproto"
	"slices"
	"strconv"
	"strings"

	"github.com/gin-gonic/gin"

	"chatxray/pipeline"
)

// maxFrameList is how many frames one request may name.
const maxFrameList = 10_000

// frameList reads the frame numbers of the path, from 0; nil where it names none.
func frameList(c *gin.Context) ([]int, error) {
	text := c.Param("frames")
	if text == "" {
		return nil, nil
	}
	var out []int
	for f := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(f))
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%w: the frames of the path are no list of numbers from 1, with commas", pipeline.ErrInvalid)
		}
		if out = append(out, n-1); len(out) > maxFrameList {
			return nil, fmt.Errorf("%w: more than %d frames are asked for", pipeline.ErrInvalid, maxFrameList)
		}
	}
	return out, nil
}

// frames is WADO-RS of frames (PS3.18 section 10.4.1.1.6).
func (s *server) frames(c *gin.Context) error {
	k, err := s.asKept(c)
	if err != nil {
		return err
	}
	list, err := frameList(c)
	if err != nil {
		return err
	}
	o, err := s.open(k.instances[0])
	if err != nil {
		return err
	}
	defer o.Close()
	return s.sendFrames(c, k, o, list)
}

// framesOf lists the frames of an object that a request is about, from 0: those that it names, else all.
func framesOf(o Object, named []int) ([]int, error) {
	n, err := o.Frames()
	if err != nil {
		return nil, err
	}
	if named == nil {
		for i := range n {
			named = append(named, i)
		}
	}
	for _, f := range named {
		if f >= n {
			return nil, fmt.Errorf("%w: frame %d of %d", pipeline.ErrNotFound, f+1, n)
		}
	}
	return named, nil
}

// sendFrames answers with the named frames of an open object, nil for all, in the first of the client's forms that can be made.
func (s *server) sendFrames(c *gin.Context, k keeping, o Object, named []int) error {
	in := k.instances[0]
	list, err := framesOf(o, named)
	if err != nil {
		return unable(in, err)
	}
	var failed error
	for _, form := range frameForms(accepted(c.Request), in.TransferSyntaxUID) {
		if form.single && len(list) > 1 {
			continue
		}
		err := s.sendForm(c, k, o, list, form)
		if err == nil || !errors.Is(err, errNotAcceptable) {
			return err
		}
		failed = cmp.Or(failed, err)
	}
	if failed == nil {
		failed = fmt.Errorf(`%w: frames come as multipart/related of application/octet-stream, of the image type of their transfer syntax, %s, or of what they can be converted to`,
			errNotAcceptable, mediaOf(in.TransferSyntaxUID))
	}
	return failed
}

// sendForm answers with frames in one form. Where that cannot be made, nothing has been written, and the error wraps errNotAcceptable.
func (s *server) sendForm(c *gin.Context, k keeping, o Object, list []int, form frameForm) error {
	ctx, in := c.Request.Context(), k.instances[0]
	tag := s.entityTag(k.instances, "frames", fmt.Sprint(list, form), s.base(c.Request))
	native := slices.Contains(uncompressed, in.TransferSyntaxUID)
	if native && (form.syntax == asStored || form.syntax == explicitLE) {
		if p, ok := nativeFrames(o, list); ok {
			if s.fresh(c, tag, k.at) {
				return nil
			}
			return s.sendParts(c, k, list, form, explicitLE, p)
		}
	}
	if form.syntax != asStored && !s.Transcodes(in.TransferSyntaxUID, form.syntax) {
		return fmt.Errorf("%w: frames of transfer syntax %s are not converted to %q", errNotAcceptable, in.TransferSyntaxUID, printable(form.syntax))
	}
	leave, err := s.gate.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	first, actual, err := o.Frame(ctx, list[0], form.syntax)
	if err != nil {
		return unable(in, err)
	}
	if s.fresh(c, tag, k.at) {
		return nil
	}
	if int64(len(first))*int64(len(list)) > maxBuffered && !form.single {
		leave()
		return s.streamFrames(c, in, o, list, form, actual, boundaryOf(tag))
	}
	release, err := s.gate.hold(len(first) * len(list))
	if err != nil {
		return err
	}
	defer release()
	parts := []piece{bytesPiece(first)}
	for _, f := range list[1:] {
		b, _, err := o.Frame(ctx, f, form.syntax)
		if err != nil {
			return unable(in, err)
		}
		parts = append(parts, bytesPiece(b))
	}
	leave()
	return s.sendParts(c, k, list, form, actual, parts)
}

// uncompressed are the transfer syntaxes whose frames need no decoding.
var uncompressed = []string{"1.2.840.10008.1.2", explicitLE, "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"}

// nativeFrames finds uncompressed frames in their file, so that they need not be read before they are sent. It is false where frames
// share bytes.
func nativeFrames(o Object, list []int) (out []piece, ok bool) {
	size := int64(1)
	for _, t := range []pipeline.Tag{pipeline.TagRows, pipeline.TagColumns, pipeline.TagSamplesPerPixel, pipeline.TagBitsAllocated} {
		n, there := o.Header().Int(t)
		if !there || n < 1 || n > 1<<16 {
			return nil, false
		}
		size *= int64(n)
	}
	value, err := o.Value(pixelValue)
	if err != nil || size%8 != 0 || o.Header().String(pipeline.TagPhotometricInterpretation) == "YBR_FULL_422" {
		return nil, false
	}
	for _, f := range list {
		out = append(out, piece{value: value, from: int64(f) * (size / 8), size: size / 8})
	}
	return out, true
}

// sendParts answers with frames, one piece each.
func (s *server) sendParts(c *gin.Context, k keeping, list []int, form frameForm, actual string, parts []piece) error {
	media := labelled(mediaOf(actual), actual)
	if form.single {
		return s.content(c, media, k.at, &pieces{all: parts})
	}
	boundary := boundaryOf(c.Writer.Header().Get("ETag"))
	p := new(pieces)
	for i, f := range list {
		p.all = append(p.all, bytesPiece(partHead(boundary, i == 0, media, s.frameURL(c, k.instances[0], f))), parts[i])
	}
	p.all = append(p.all, partsEnd(boundary))
	return s.content(c, related(mediaOf(actual), boundary), k.at, p)
}

func (s *server) frameURL(c *gin.Context, in *pipeline.Instance, f int) string {
	return instanceURL(s.base(c.Request), in) + "/frames/" + strconv.Itoa(f+1)
}

// streamFrames answers with more frames than are held in memory.
func (s *server) streamFrames(c *gin.Context, in *pipeline.Instance, o Object, list []int, form frameForm, actual, boundary string) error {
	return s.convert(c, related(mediaOf(actual), boundary), func(w io.Writer) error {
		mw := partsTo(w, boundary)
		for _, f := range list {
			b, _, err := o.Frame(c.Request.Context(), f, form.syntax)
			if err != nil {
				return unable(in, err)
			}
			part, err := mw.CreatePart(textproto.MIMEHeader{"Content-Type": {labelled(mediaOf(actual), actual)}, "Content-Location": {s.frameURL(c, in, f)}})
			if err == nil {
				_, err = part.Write(b)
			}
			if err != nil {
				return err
			}
		}
		return mw.Close()
	})
}

// frameOf is the frame that stands for an object: the one of the path, Representative Frame Number, or the first.
func frameOf(list []int, h pipeline.Dataset, n int) int {
	if len(list) > 0 {
		return list[0]
	}
	if f, ok := h.Int(0x00286010); ok && f >= 1 && f <= n {
		return f - 1
	}
	return 0
}
