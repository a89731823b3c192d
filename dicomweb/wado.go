package dicomweb

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/textproto"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"chatxray/pipeline"
)

// retrieve is WADO-RS for a study, a series or an instance (PS3.18 section 10.4).
func (s *server) retrieve(c *gin.Context) error {
	k, err := s.asKept(c)
	if err != nil {
		return err
	}
	d, err := s.chooseDICOM(accepted(c.Request), k.instances, c.Param("instance") != "")
	if err != nil {
		return err
	}
	if d.single {
		return s.sendInstance(c, k, d)
	}
	base := s.base(c.Request)
	tag := s.entityTag(k.instances, "dicom", fmt.Sprint(d), base)
	switch {
	case s.fresh(c, tag, k.at):
		return nil
	case d.zip:
		return s.sendZip(c, k.instances, d)
	case slices.ContainsFunc(k.instances, func(in *pipeline.Instance) bool { return s.target(d, in) != asStored }):
		return s.sendConverted(c, k.instances, d, base, tag)
	}
	return s.content(c, related(mediaDICOM, boundaryOf(tag)), k.at, filePieces(k, base, boundaryOf(tag)))
}

// keeping is what a request wants of the archive, as it is kept.
type keeping struct {
	instances []*pipeline.Instance // at least one
	sizes     []int64              // of their files
	at        time.Time            // when it changed last
}

// asKept finds what the path names.
func (s *server) asKept(c *gin.Context) (keeping, error) {
	study, series, sop, err := pathUIDs(c)
	if err != nil {
		return keeping{}, err
	}
	return s.kept(c.Request.Context(), study, series, sop)
}

func (s *server) kept(ctx context.Context, study, series, sop string) (k keeping, err error) {
	if k.instances, err = s.store.Instances(ctx, study, series, sop); err == nil {
		k.at, k.sizes, err = modified(k.instances, sop == "")
	}
	return k, err
}

// filePieces is a multipart body of files as they are stored.
func filePieces(k keeping, base, boundary string) *pieces {
	p := new(pieces)
	for i, in := range k.instances {
		p.all = append(p.all, bytesPiece(partHead(boundary, i == 0, labelled(mediaDICOM, in.TransferSyntaxUID), instanceURL(base, in))),
			piece{path: in.Path, size: k.sizes[i]})
	}
	p.all = append(p.all, partsEnd(boundary))
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

// partsEnd is the closing delimiter.
func partsEnd(boundary string) piece { return bytesPiece([]byte("\r\n--" + boundary + "--\r\n")) }

// maxBuffered is the largest converted instance that is made in memory, which gives it a length and ranges.
const maxBuffered = 64 << 20

// sendInstance answers with one instance as application/dicom.
func (s *server) sendInstance(c *gin.Context, k keeping, d delivery) error {
	in := k.instances[0]
	target := s.target(d, in)
	if s.fresh(c, s.entityTag(k.instances, "instance", target), k.at) {
		return nil
	}
	stored := &pieces{all: []piece{{path: in.Path, size: k.sizes[0]}}}
	if target == asStored {
		return s.content(c, labelled(mediaDICOM, in.TransferSyntaxUID), k.at, stored)
	}
	leave, err := s.gate.enter(c.Request.Context())
	if err != nil {
		return err
	}
	defer leave()
	o, file, actual, err := s.converted(c.Request.Context(), in, target, d.strict)
	if err != nil {
		return err
	}
	defer o.Close()
	if actual == asStored {
		leave()
		c.Header("ETag", s.entityTag(k.instances, "instance", asStored)) // another time it may be possible
		return s.content(c, labelled(mediaDICOM, in.TransferSyntaxUID), k.at, stored)
	}
	b := &buffer{limit: maxBuffered}
	switch _, err := file.WriteTo(b); {
	case errors.Is(err, errLong):
		leave()
		return s.convert(c, labelled(mediaDICOM, actual), func(w io.Writer) error {
			_, err := file.WriteTo(w)
			return err
		})
	case err != nil:
		return unable(in, err)
	}
	leave()
	release, err := s.gate.hold(b.Len())
	if err != nil {
		return err
	}
	defer release()
	return s.content(c, labelled(mediaDICOM, actual), k.at, &pieces{all: []piece{bytesPiece(b.Bytes())}})
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
func (s *server) sendConverted(c *gin.Context, found []*pipeline.Instance, d delivery, base, tag string) error {
	return s.stream(c, related(mediaDICOM, boundaryOf(tag)), func(w io.Writer) error {
		mw := partsTo(w, boundaryOf(tag))
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
func (s *server) sendZip(c *gin.Context, found []*pipeline.Instance, d delivery) error {
	c.Header("Content-Disposition", `attachment; filename="`+found[0].StudyInstanceUID+`.zip"`)
	return s.stream(c, mediaZip, func(w io.Writer) error {
		z := zip.NewWriter(w)
		series := map[string]int{}
		for _, in := range found {
			n, known := series[in.SeriesInstanceUID]
			if !known {
				n = len(series) + 1
				series[in.SeriesInstanceUID] = n
			}
			at, _, err := modified([]*pipeline.Instance{in}, false)
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
