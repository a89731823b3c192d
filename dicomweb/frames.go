package dicomweb

import (
	"errors"
	"fmt"
	"io"
	"math"
	"mime/multipart"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"chatxray/pipeline"
)

// Media types of answers of WADO-RS.
var (
	asFiles    = []string{mediaMulti + `; type="application/dicom"`, mediaDICOM, mediaZip}
	asMetadata = []string{mediaJSON, mediaMulti + `; type="application/dicom+xml"`}
	pictures   = []string{"image/jpeg", "image/png", "image/gif"}
	asRendered = append([]string{mediaMulti + `; type="image/jpeg"`, "text/html", "application/pdf"}, pictures...)
	asFrames   = []string{mediaMulti + `; type="application/octet-stream"`, mediaOctets, mediaMulti + `; type="image/jls"`}
)

// renderQuery are the parameters of pictures (PS3.18 section 8.3.5).
var renderQuery = []parameter{
	{name: "window", in: "query", about: "center,width[,function]", schema: map[string]any{"type": "string",
		"pattern": "^(-?[0-9]{1,5}(\\.[0-9]{1,3})?,[1-9][0-9]{0,4}(,(linear|linear-exact|sigmoid))?)?$"}},
	{name: "viewport", in: "query", about: "width,height[,sx,sy,sw,sh]: as large as fits, of the region only; a negative sw or sh turns it round.",
		schema: map[string]any{"type": "string", "pattern": "^([1-9][0-9]{0,2},[1-9][0-9]{0,2})?$"}},
	{name: "quality", in: "query", about: "Of JPEG.", schema: map[string]any{"type": "integer", "minimum": 1, "maximum": 100}},
	{name: "annotation", in: "query", about: "Is written into the picture.", schema: map[string]any{"type": "string",
		"enum": []string{"", "patient", "technique", "patient,technique"}}},
}

// uriQuery are the parameters of WADO-URI (PS3.18 section 9.1).
var uriQuery = []parameter{
	{name: "requestType", in: "query", about: "WADO", schema: map[string]any{"type": "string", "const": "WADO"}, required: true},
	{name: "studyUID", in: "query", schema: uidSchema("Study Instance UID"), required: true},
	{name: "seriesUID", in: "query", schema: uidSchema("Series Instance UID"), required: true},
	{name: "objectUID", in: "query", schema: uidSchema("SOP Instance UID"), required: true},
	{name: "contentType", in: "query", about: "application/dicom or a picture.", schema: map[string]any{"type": "string",
		"enum": []string{mediaDICOM, "image/jpeg", "image/png"}}},
	{name: "transferSyntax", in: "query", about: "Of application/dicom: a UID. As stored where there is none.", schema: map[string]any{"type": "string", "enum": []string{explicitLE}}},
	{name: "rows", in: "query", about: "The height that a picture has at most.", schema: map[string]any{"type": "integer", "minimum": 1, "maximum": maxViewport}},
	{name: "columns", in: "query", about: "The width that a picture has at most.", schema: map[string]any{"type": "integer", "minimum": 1, "maximum": maxViewport}},
	{name: "region", in: "query", about: "xmin,ymin,xmax,ymax in parts of the image.", schema: map[string]any{"type": "string",
		"pattern": "^(0|0\\.[1-4]),(0|0\\.[1-4]),(1|0\\.[5-9]),(1|0\\.[5-9])$"}},
	{name: "imageQuality", in: "query", about: "Of JPEG.", schema: map[string]any{"type": "integer", "minimum": 1, "maximum": 100}},
	{name: "annotation", in: "query", about: "Is written into the picture.", schema: map[string]any{"type": "string",
		"enum": []string{"", "patient", "technique", "patient,technique"}}},
	{name: "frameNumber", in: "query", schema: map[string]any{"type": "integer", "minimum": 1, "maximum": math.MaxInt32}},
}

// acceptQuery is the parameter that a link has in place of the header Accept.
func acceptQuery(media []string) []parameter {
	return []parameter{{name: "accept", in: "query", about: "Counts before the header Accept.", schema: map[string]any{"type": "string", "enum": slices.Concat([]string{""}, media)}}}
}

// retrieveRoutes lists the resources of WADO-RS.
func (s *server) retrieveRoutes() (t []route) {
	get := func(path, what string, query []parameter, out []string, handle gin.HandlerFunc) {
		t = append(t, route{"GET", path, RoleRead, what + " (WADO-RS)", query, nil, out, nil, handle})
	}
	for _, l := range []struct{ path, what string }{{studyPath, "a study"}, {seriesPath, "a series"}, {instancePath, "an instance"}} {
		get(l.path, "Retrieve "+l.what, acceptQuery(asFiles), asFiles, s.retrieve)
		get(l.path+"/metadata", "Retrieve the metadata of "+l.what, acceptQuery(asMetadata), asMetadata, s.metadata)
		get(l.path+"/rendered", "Render "+l.what, renderQuery, asRendered, s.rendered)
		get(l.path+"/thumbnail", "Render "+l.what+" as a small picture", renderQuery, pictures, s.thumbnail)
	}
	get(instancePath+"/frames/:frames", "Retrieve frames", nil, asFrames, s.frames)
	get(instancePath+"/frames/:frames/rendered", "Render frames", renderQuery, asRendered, s.rendered)
	get(instancePath+"/frames/:frames/thumbnail", "Render a frame as a small picture", renderQuery, pictures, s.thumbnail)
	get(instancePath+"/bulkdata/*path", "Retrieve a binary value that metadata name", nil, asFrames, s.bulkdata)
	return t
}

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
func (s *server) frames(c *gin.Context) {
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
	o, err := s.open(found[0])
	if err != nil {
		s.refuse(c, err)
		return
	}
	defer o.Close()
	s.sendFrames(c, found[0], o, list)
}

// sendFrames answers with frames (from 0) of an open object in the first of the client's forms that can be made.
func (s *server) sendFrames(c *gin.Context, in *pipeline.Instance, o Object, list []int) {
	n, err := o.Frames()
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
	var failed error
	for _, form := range frameForms(accepted(c.Request), in.TransferSyntaxUID) {
		if form.single && len(list) > 1 {
			continue
		}
		done, err := s.sendForm(c, in, o, list, form)
		if done {
			return
		}
		if failed == nil {
			failed = err
		}
	}
	if failed == nil {
		failed = fmt.Errorf(`%w: frames come as multipart/related of application/octet-stream, of the image type of their transfer syntax, %s, or of what they can be converted to`,
			errNotAcceptable, mediaOf(in.TransferSyntaxUID))
	}
	s.refuse(c, failed)
}

// sendForm answers with frames in one form, or says why it cannot be made.
func (s *server) sendForm(c *gin.Context, in *pipeline.Instance, o Object, list []int, form frameForm) (done bool, err error) {
	ctx := c.Request.Context()
	one := []*pipeline.Instance{in}
	at, _, err := modified(one)
	if err != nil {
		return false, err
	}
	tag := entityTag(one, "frames", fmt.Sprint(list, form), s.base(c.Request))
	native := slices.Contains(uncompressed, in.TransferSyntaxUID)
	if native && (form.syntax == asStored || form.syntax == explicitLE) {
		if p, ok := nativeFrames(o, list); ok {
			if !s.fresh(c, tag, at) {
				s.sendParts(c, in, list, form, explicitLE, at, p)
			}
			return true, nil
		}
	}
	leave, err := s.gate.enter(ctx)
	if err != nil {
		return false, err
	}
	defer leave()
	if form.syntax != asStored && !s.Transcodes(in.TransferSyntaxUID, form.syntax) {
		return false, fmt.Errorf("%w: frames of transfer syntax %s are not converted to %s", errNotAcceptable, in.TransferSyntaxUID, printable(form.syntax))
	}
	first, actual, err := o.Frame(ctx, list[0], form.syntax)
	if err != nil {
		return false, unable(in, err)
	}
	if s.fresh(c, tag, at) {
		return true, nil
	}
	if int64(len(first))*int64(len(list)) <= maxBuffered || form.single {
		release, err := s.gate.hold(len(first) * len(list))
		if err != nil {
			return false, err
		}
		defer release()
		parts := []piece{bytesPiece(first)}
		for _, f := range list[1:] {
			b, _, err := o.Frame(ctx, f, form.syntax)
			if err != nil {
				return false, unable(in, err)
			}
			parts = append(parts, bytesPiece(b))
		}
		leave()
		s.sendParts(c, in, list, form, actual, at, parts)
		return true, nil
	}
	leave()
	s.streamFrames(c, in, o, list, form, actual, boundaryOf(tag))
	return true, nil
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
	value, err := o.Value("7FE00010")
	if err != nil || size%8 != 0 || o.Header().String(pipeline.TagPhotometricInterpretation) == "YBR_FULL_422" {
		return nil, false
	}
	for _, f := range list {
		out = append(out, piece{value: value, from: int64(f) * (size / 8), size: size / 8})
	}
	return out, true
}

// sendParts answers with frames, one piece each.
func (s *server) sendParts(c *gin.Context, in *pipeline.Instance, list []int, form frameForm, actual string, at time.Time, parts []piece) {
	media := labelled(mediaOf(actual), actual)
	if form.single {
		s.content(c, media, at, &pieces{all: parts})
		return
	}
	boundary := boundaryOf(c.Writer.Header().Get("ETag"))
	p := new(pieces)
	for i, f := range list {
		p.all = append(p.all, bytesPiece(partHead(boundary, i == 0, media, s.frameURL(c, in, f))), parts[i])
	}
	p.all = append(p.all, bytesPiece([]byte("\r\n--"+boundary+"--\r\n")))
	s.content(c, related(mediaOf(actual), boundary), at, p)
}

func (s *server) frameURL(c *gin.Context, in *pipeline.Instance, f int) string {
	return instanceURL(s.base(c.Request), in) + "/frames/" + strconv.Itoa(f+1)
}

// streamFrames answers with more frames than are held in memory.
func (s *server) streamFrames(c *gin.Context, in *pipeline.Instance, o Object, list []int, form frameForm, actual, boundary string) {
	s.stream(c, related(mediaOf(actual), boundary), func(w io.Writer) error {
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

// bulkdata returns a value that metadata has named by its BulkDataURI (PS3.18 section 10.4.1.1.5); that of compressed pixels is every
// frame, as they are stored unless another form is asked for.
func (s *server) bulkdata(c *gin.Context) {
	found, err := s.found(c)
	if err != nil {
		s.refuse(c, err)
		return
	}
	in := found[0]
	o, err := s.open(in)
	if err != nil {
		s.refuse(c, err)
		return
	}
	defer o.Close()
	path := strings.ToUpper(strings.Trim(c.Param("path"), "/"))
	value, err := o.Value(path)
	switch {
	case errors.Is(err, pipeline.ErrUnsupported) && path == "7FE00010":
		s.sendAllFrames(c, in, o)
		return
	case err != nil:
		s.refuse(c, unable(in, err))
		return
	}
	s.sendValue(c, in, o, path, value)
}

func (s *server) sendAllFrames(c *gin.Context, in *pipeline.Instance, o Object) {
	n, err := o.Frames()
	if err != nil {
		s.refuse(c, unable(in, err))
		return
	}
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	s.sendFrames(c, in, o, list)
}

// sendValue answers with an uncompressed value.
func (s *server) sendValue(c *gin.Context, in *pipeline.Instance, o Object, path string, value io.ReadSeeker) {
	size, err := value.Seek(0, io.SeekEnd)
	if err != nil {
		s.refuse(c, err)
		return
	}
	at, _, err := modified([]*pipeline.Instance{in})
	if err != nil {
		s.refuse(c, err)
		return
	}
	offered := []string{mediaOctets}
	if mime := strings.ToLower(o.Header().String(tagMIMEType)); path == "00420011" && mime != "" && plainMedia(mime) {
		offered = append(offered, mime)
	}
	for _, m := range accepted(c.Request) {
		for _, media := range offered {
			single := m.matches(media)
			if multi := m.q > 0 && m.name == mediaMulti && (m.params["type"] == "" || m.params["type"] == media || m.params["type"] == "*/*"); !single && !multi {
				continue
			}
			tag := entityTag([]*pipeline.Instance{in}, "value", path, media, fmt.Sprint(single))
			if s.fresh(c, tag, at) {
				return
			}
			p := &pieces{all: []piece{{value: value, size: size}}}
			if !single {
				boundary := boundaryOf(tag)
				p.all = []piece{bytesPiece(partHead(boundary, true, media, "")), p.all[0], bytesPiece([]byte("\r\n--" + boundary + "--\r\n"))}
				media = related(media, boundary)
			}
			s.content(c, media, at, p)
			return
		}
	}
	s.refuse(c, fmt.Errorf("%w: this value comes as %s", errNotAcceptable, strings.Join(offered, " or ")))
}

const tagMIMEType pipeline.Tag = 0x00420012 // MIME Type of Encapsulated Document

// plainMedia tells whether a string from a file may stand in a header.
func plainMedia(s string) bool {
	return len(s) < 64 && strings.Count(s, "/") == 1 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789/+-.") == ""
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
