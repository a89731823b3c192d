package dicomweb

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/textproto"
	"os"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"chatxray/pipeline"
)

// retrieve is WADO-RS for a study, a series or an instance (PS3.18 section 10.4).
func (s *server) retrieve(c *gin.Context) {
	found, err := s.found(c)
	if err != nil {
		s.refuse(c, err)
		return
	}
	d, err := s.chooseDICOM(accepted(c.Request), found, c.Param("instance") != "")
	if err != nil {
		s.refuse(c, err)
		return
	}
	at, sizes, err := modified(found)
	if err != nil {
		s.refuse(c, err)
		return
	}
	base := s.base(c.Request)
	tag := entityTag(found, "dicom", fmt.Sprint(d), base)
	convert := false
	for _, in := range found {
		convert = convert || s.target(d, in) != asStored
	}
	switch {
	case d.single:
		s.sendInstance(c, found[0], d, at, sizes[0])
	case s.fresh(c, tag, at):
	case d.zip:
		s.sendZip(c, found, d)
	case !convert:
		s.content(c, related(mediaDICOM, boundaryOf(tag)), at, filePieces(found, sizes, base, boundaryOf(tag)))
	default:
		s.sendConverted(c, found, d, base, tag)
	}
}

// found returns the instances that the path names.
func (s *server) found(c *gin.Context) ([]*pipeline.Instance, error) {
	study, series, sop, err := pathUIDs(c)
	if err != nil {
		return nil, err
	}
	return s.store.Instances(c.Request.Context(), study, series, sop)
}

// filePieces is a multipart body of files as they are stored.
func filePieces(found []*pipeline.Instance, sizes []int64, base, boundary string) *pieces {
	p := new(pieces)
	for i, in := range found {
		p.all = append(p.all, bytesPiece(partHead(boundary, i == 0, labelled(mediaDICOM, in.TransferSyntaxUID), instanceURL(base, in))),
			piece{path: in.Path, size: sizes[i]})
	}
	p.all = append(p.all, bytesPiece([]byte("\r\n--"+boundary+"--\r\n")))
	return p
}

// partHead is what stands before the content of a part.
func partHead(boundary string, first bool, media, location string) []byte {
	b := []byte("\r\n--" + boundary + "\r\n")
	if first {
		b = b[2:]
	}
	b = append(b, "Content-Type: "+media+"\r\n"...)
	if location != "" {
		b = append(b, "Content-Location: "+location+"\r\n"...)
	}
	return append(b, "\r\n"...)
}

// maxBuffered is the largest converted instance that is made in memory, which gives it a length and ranges.
const maxBuffered = 64 << 20

// sendInstance answers with one instance as application/dicom.
func (s *server) sendInstance(c *gin.Context, in *pipeline.Instance, d delivery, at time.Time, size int64) {
	target := s.target(d, in)
	tag := entityTag([]*pipeline.Instance{in}, "instance", target)
	if s.fresh(c, tag, at) {
		return
	}
	if target == asStored {
		s.content(c, labelled(mediaDICOM, in.TransferSyntaxUID), at, &pieces{all: []piece{{path: in.Path, size: size}}})
		return
	}
	leave, err := s.gate.enter(c.Request.Context())
	if err != nil {
		s.refuse(c, err)
		return
	}
	defer leave()
	o, file, actual, err := s.converted(c.Request.Context(), in, target, d.strict)
	if err != nil {
		s.refuse(c, err)
		return
	}
	defer o.Close()
	if actual == asStored {
		s.content(c, labelled(mediaDICOM, in.TransferSyntaxUID), at, &pieces{all: []piece{{path: in.Path, size: size}}})
		return
	}
	b := &buffer{limit: maxBuffered}
	switch _, err := file.WriteTo(b); {
	case errors.Is(err, errLong):
		leave()
		s.stream(c, labelled(mediaDICOM, actual), func(w io.Writer) error {
			y, err := s.gate.yield(c.Request.Context())
			if err != nil {
				return err
			}
			defer y.close()
			y.w = w
			_, err = file.WriteTo(y)
			return err
		})
	case err != nil:
		s.refuse(c, unable(in, err))
	default:
		leave()
		release, err := s.gate.hold(b.Len())
		if err != nil {
			s.refuse(c, err)
			return
		}
		defer release()
		s.content(c, labelled(mediaDICOM, actual), at, &pieces{all: []piece{bytesPiece(b.Bytes())}})
	}
}

// buffer is memory up to a bound.
type buffer struct {
	bytes.Buffer
	limit int
}

var errLong = errors.New("longer than is held in memory")

// Write implements io.Writer.
func (b *buffer) Write(p []byte) (int, error) {
	if b.Len()+len(p) > b.limit {
		return 0, errLong
	}
	return b.Buffer.Write(p)
}

// converted prepares an instance for another syntax. Where the client did not ask for it and it cannot be done, actual is asStored.
func (s *server) converted(ctx context.Context, in *pipeline.Instance, target string, strict bool) (o Object, file io.WriterTo, actual string, err error) {
	if o, err = s.open(in); err != nil {
		return nil, nil, "", err
	}
	if file, actual, err = o.Transcode(ctx, target); err == nil {
		return o, file, actual, nil
	}
	if ctx.Err() == nil && !strict {
		s.Log.Warn().Str("instance", in.SOPInstanceUID).Str("to", target).Err(err).Msg("not converted; it is sent as it is stored")
		return o, nil, asStored, nil
	}
	o.Close()
	return nil, nil, "", unable(in, err)
}

// sendConverted streams several instances, converting where that is asked. What fails before the first byte is an error; later the
// connection is cut, because a closed multipart body would say that nothing is missing.
func (s *server) sendConverted(c *gin.Context, found []*pipeline.Instance, d delivery, base, tag string) {
	s.stream(c, related(mediaDICOM, boundaryOf(tag)), func(w io.Writer) error {
		mw := multipart.NewWriter(w)
		if err := mw.SetBoundary(boundaryOf(tag)); err != nil {
			return err
		}
		for _, in := range found {
			err := s.sendAs(c.Request.Context(), in, d, func(syntax string) (io.Writer, error) {
				return mw.CreatePart(textproto.MIMEHeader{"Content-Type": {labelled(mediaDICOM, syntax)}, "Content-Location": {instanceURL(base, in)}})
			})
			if err != nil {
				return err
			}
		}
		return mw.Close()
	})
}

// sendAs writes one instance, converted where that is asked, to where part says.
func (s *server) sendAs(ctx context.Context, in *pipeline.Instance, d delivery, part func(syntax string) (io.Writer, error)) error {
	if target := s.target(d, in); target != asStored {
		y, err := s.gate.yield(ctx)
		if err != nil {
			return err
		}
		defer y.close()
		o, file, actual, err := s.converted(ctx, in, target, d.strict)
		if err != nil {
			return err
		}
		defer o.Close()
		if actual != asStored {
			if y.w, err = part(actual); err == nil {
				_, err = file.WriteTo(y)
			}
			return err
		}
		y.leave()
	}
	f, err := os.Open(in.Path)
	if errors.Is(err, os.ErrNotExist) {
		return errGone(in)
	}
	if err != nil {
		return fmt.Errorf("instance %s cannot be read: %w", in.SOPInstanceUID, err)
	}
	defer f.Close()
	w, err := part(in.TransferSyntaxUID)
	if err == nil {
		_, err = io.Copy(w, f)
	}
	return err
}

// sendZip streams files as one archive: number of the series and of the instance in the order of arrival, and the instance's UID.
func (s *server) sendZip(c *gin.Context, found []*pipeline.Instance, d delivery) {
	c.Header("Content-Disposition", `attachment; filename="`+found[0].StudyInstanceUID+`.zip"`)
	s.stream(c, mediaZip, func(w io.Writer) error {
		z := zip.NewWriter(w)
		series := map[string]int{}
		for _, in := range found {
			n, known := series[in.SeriesInstanceUID]
			if !known {
				n = len(series) + 1
				series[in.SeriesInstanceUID] = n
			}
			at, _, err := modified([]*pipeline.Instance{in})
			if err != nil {
				return err
			}
			err = s.sendAs(c.Request.Context(), in, d, func(string) (io.Writer, error) {
				return z.CreateHeader(&zip.FileHeader{Name: "series" + strconv.Itoa(n) + "/" + in.SOPInstanceUID + ".dcm", Method: zip.Store, Modified: at})
			})
			if err != nil {
				return err
			}
		}
		return z.Close()
	})
}
