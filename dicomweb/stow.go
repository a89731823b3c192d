package dicomweb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/gin-gonic/gin"

	"chatxray/pipeline"
)

// stored is what became of one part of a STOW-RS request.
type stored struct {
	instance  *pipeline.Instance // nil where the part is not an instance
	duplicate bool
	replaced  bool // it took the place of other content
	err       error
}

// stow is STOW-RS (PS3.18 section 10.5).
func (s *server) stow(c *gin.Context) error {
	study, _, _, err := pathUIDs(c)
	if err != nil {
		return err
	}
	format, err := answerFormat(accepted(c.Request))
	if err != nil {
		return err
	}
	release, err := s.admit(c.Request)
	if err != nil {
		return err
	}
	defer release()
	up := &upload{s: s, ctx: c.Request.Context(), study: study}
	if err := up.receive(c); err != nil {
		s.store.Discard(up.staged...)
		return err
	}
	up.commit()
	s.answer(c, format, study, up.parts)
	return nil
}

// admit refuses what can be refused before a byte of the body is read, and counts the upload.
func (s *server) admit(r *http.Request) (release func(), err error) {
	switch {
	case r.ContentLength == 0 && r.Header.Get("Content-Length") == "" && r.ProtoMajor == 1:
		return nil, fmt.Errorf("%w: the request has neither a Content-Length nor a chunked body", errLengthRequired)
	case r.ContentLength == 0:
		return nil, fmt.Errorf("%w: the body is empty", pipeline.ErrInvalid)
	case r.ContentLength > s.MaxBody:
		return nil, fmt.Errorf("%w: the request has more than %d bytes; send fewer instances at once", errTooLarge, s.MaxBody)
	}
	if err := s.store.Room(max(r.ContentLength, 0)); err != nil {
		return nil, err
	}
	if s.Full != nil {
		if err := s.Full(r.Context()); err != nil {
			return nil, err
		}
	}
	select {
	case s.uploads <- struct{}{}:
		return func() { <-s.uploads }, nil
	default:
		return nil, fmt.Errorf("%w: %d uploads are running", pipeline.ErrBusy, s.MaxUploads)
	}
}

// upload is one STOW-RS request under way.
type upload struct {
	s      *server
	ctx    context.Context
	study  string // of the URL, or empty
	parts  []stored
	staged []*pipeline.Staged
	which  []int // index into parts for each of staged
}

// receive stages every part of the body. An error means that the body as a whole cannot be taken.
func (u *upload) receive(c *gin.Context) error {
	body, err := u.s.body(c)
	if err != nil {
		return err
	}
	m := parseMediaType(c.GetHeader("Content-Type"))
	switch {
	case m.name == "application/dicom":
		err = u.single(body)
	case m.name == "multipart/related" && (m.params["type"] == "application/dicom" || m.params["type"] == ""):
		err = u.multipart(body, m)
	case isModel(m):
		err = u.models(body, m)
	default:
		return fmt.Errorf(`%w: this service stores application/dicom, %s and %s, each alone or in multipart/related with its type`, errMediaType, mediaJSON, mediaXML)
	}
	if body.err != nil { // whatever it led to
		return body.err
	}
	return err
}

func (u *upload) single(body io.Reader) error {
	n := &counted{r: io.LimitReader(body, u.s.MaxInstance+1)}
	if err := u.part(n); err != nil {
		return err
	}
	if n.n == 0 {
		return fmt.Errorf("%w: the body is empty", pipeline.ErrInvalid)
	}
	return nil
}

func (u *upload) multipart(body io.Reader, m mediaType) error {
	boundary, err := m.boundary()
	if err != nil {
		return fmt.Errorf("%w: %v", pipeline.ErrInvalid, err)
	}
	mr, err := newMultipart(body, boundary)
	if err != nil {
		return err
	}
	for {
		p, err := mr.next()
		if err == io.EOF && len(u.parts) == 0 {
			return fmt.Errorf("%w: the multipart body has no part", pipeline.ErrInvalid)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if len(u.parts) == u.s.MaxParts {
			return fmt.Errorf("%w: the request has more than %d parts; send fewer instances at once", errTooLarge, u.s.MaxParts)
		}
		if err := checkPart(p); err != nil {
			u.parts = append(u.parts, stored{err: err})
			continue
		}
		n := &counted{r: io.LimitReader(p, u.s.MaxInstance+1)}
		if err := u.part(n); err != nil {
			return err
		}
		if last := &u.parts[len(u.parts)-1]; last.err == nil {
			last.err = checkLength(p, n.n)
		}
	}
}

// part stages one instance. Its own failure is noted in parts; an error is the whole request's.
func (u *upload) part(r *counted) error {
	st, err := u.s.store.Stage(u.ctx, r)
	switch {
	case r.err != nil:
		if st != nil {
			u.s.store.Discard(st)
		}
		if errors.Is(r.err, io.ErrUnexpectedEOF) {
			return errUnclosed
		}
		return r.err
	case errors.Is(err, pipeline.ErrFull), u.ctx.Err() != nil:
		if st != nil {
			u.s.store.Discard(st)
		}
		return errors.Join(err, u.ctx.Err())
	case r.n > u.s.MaxInstance:
		if st != nil {
			u.s.store.Discard(st)
		}
		u.parts = append(u.parts, stored{err: fmt.Errorf("%w: a part has more than %d bytes", errTooLarge, u.s.MaxInstance)})
		return nil
	case err != nil:
		u.parts = append(u.parts, stored{err: err})
		return nil
	}
	done := stored{instance: st.Instance}
	if u.study != "" && st.Instance.StudyInstanceUID != u.study {
		done.err = &faulty{[]pipeline.Element{{Tag: pipeline.TagStudyInstanceUID, VR: "UI"}}, errOtherStudy}
	}
	u.staged, u.which = append(u.staged, st), append(u.which, len(u.parts))
	u.parts = append(u.parts, done)
	return nil
}

// commit keeps the staged parts that have no failure.
func (u *upload) commit() {
	var keep []*pipeline.Staged
	var which []int
	for i, st := range u.staged {
		if u.parts[u.which[i]].err != nil {
			u.s.store.Discard(st)
			continue
		}
		keep, which = append(keep, st), append(which, u.which[i])
	}
	var size int64
	if len(keep) > 0 {
		for i, o := range u.s.store.Commit(u.ctx, keep) {
			u.parts[which[i]] = stored{instance: o.Instance, duplicate: o.Duplicate, replaced: o.Replaced, err: o.Err}
			if o.Err == nil {
				size += keep[i].Size
			}
		}
	}
	u.s.metrics.stored(u.parts, size)
}
