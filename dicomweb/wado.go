package dicomweb

import (
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/gin-gonic/gin"

	"chatxray/pipeline"
)

// retrieve is WADO-RS for a study, a series or an instance (PS3.18 section 10.4): the files as they were stored.
func (s *server) retrieve(c *gin.Context) {
	found, err := s.found(c)
	if err != nil {
		s.refuse(c, err)
		return
	}
	single, err := chooseDICOM(parseAccept(c.Request.Header["Accept"]), found, c.Param("instance") != "")
	if err != nil {
		s.refuse(c, err)
		return
	}
	if single {
		s.sendFile(c, found[0])
		return
	}
	s.sendFiles(c, found)
}

// found returns the instances that the path names.
func (s *server) found(c *gin.Context) ([]*pipeline.Instance, error) {
	study, series, sop, err := pathUIDs(c)
	if err != nil {
		return nil, err
	}
	return s.store.Instances(c.Request.Context(), study, series, sop)
}

// chooseDICOM chooses between application/dicom (single) and multipart/related of it, and checks that the stored transfer syntaxes are
// among those asked for. Without a transfer-syntax parameter the files come as they are stored.
func chooseDICOM(accept []mediaType, found []*pipeline.Instance, one bool) (single bool, err error) {
	var syntaxes []string
	for _, m := range accept {
		multi := m.name == "*/*" || m.name == "*" || m.name == "multipart/*" ||
			m.name == "multipart/related" && slices.Contains([]string{"", "application/dicom", "*/*", "application/*"}, m.params["type"])
		alone := m.name == "application/dicom" || m.name == "application/*"
		if m.q == 0 || !multi && !alone {
			continue
		}
		if ts := m.params["transfer-syntax"]; ts != "" && ts != "*" && slices.ContainsFunc(found, func(in *pipeline.Instance) bool { return in.TransferSyntaxUID != ts }) {
			syntaxes = append(syntaxes, printable(ts))
			continue
		}
		return alone && one, nil
	}
	if len(syntaxes) > 0 {
		return false, fmt.Errorf("%w: what is stored has the transfer syntax %s, and this service does not convert it to %s; ask for transfer-syntax=*",
			errNotAcceptable, strings.Join(storedSyntaxes(found), ", "), strings.Join(syntaxes, ", "))
	}
	return false, fmt.Errorf(`%w: instances come as multipart/related; type="application/dicom", one alone as application/dicom too`, errNotAcceptable)
}

func storedSyntaxes(found []*pipeline.Instance) []string {
	var out []string
	for _, in := range found {
		if !slices.Contains(out, in.TransferSyntaxUID) {
			out = append(out, in.TransferSyntaxUID)
		}
	}
	return out
}

func partType(in *pipeline.Instance) string {
	return "application/dicom; transfer-syntax=" + in.TransferSyntaxUID
}

func (s *server) sendFile(c *gin.Context, in *pipeline.Instance) {
	f, size, err := openStored(in)
	if err != nil {
		s.refuse(c, err)
		return
	}
	defer f.Close()
	c.Header("Content-Type", partType(in))
	c.Header("Content-Length", strconv.FormatInt(size, 10))
	c.Status(http.StatusOK)
	if _, err := io.Copy(c.Writer, f); err != nil {
		_ = c.Error(fmt.Errorf("%w: the client went away", errBroken))
		panic(http.ErrAbortHandler)
	}
}

// sendFiles streams several files. One that cannot be opened before the first byte is an error; later the connection is cut, because a
// closed multipart body would say that nothing is missing.
func (s *server) sendFiles(c *gin.Context, found []*pipeline.Instance) {
	first, _, err := openStored(found[0])
	if err != nil {
		s.refuse(c, err)
		return
	}
	w := multipart.NewWriter(c.Writer)
	c.Header("Content-Type", `multipart/related; type="application/dicom"; boundary=`+w.Boundary())
	c.Status(http.StatusOK)
	for i, in := range found {
		f := first
		if i > 0 {
			f, _, err = openStored(in)
		}
		if err == nil {
			err = sendPart(w, in, instanceURL(s.base(c.Request), in), f)
			f.Close()
		}
		if err != nil {
			_ = c.Error(err)
			panic(http.ErrAbortHandler)
		}
	}
	if err := w.Close(); err != nil {
		panic(http.ErrAbortHandler)
	}
}

func sendPart(w *multipart.Writer, in *pipeline.Instance, location string, r io.Reader) error {
	part, err := w.CreatePart(textproto.MIMEHeader{"Content-Type": {partType(in)}, "Content-Location": {location}})
	if err == nil {
		_, err = io.Copy(part, r)
	}
	return err
}

func openStored(in *pipeline.Instance) (*os.File, int64, error) {
	f, err := os.Open(in.Path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, 0, fmt.Errorf("%w: the file of instance %s is gone from the archive", pipeline.ErrNotFound, in.SOPInstanceUID)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("instance %s cannot be opened: %w", in.SOPInstanceUID, err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}
