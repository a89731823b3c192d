package dicomweb

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/gin-gonic/gin"

	"chatxray/pipeline"
)

// Failures that only this package knows.
var (
	errOtherStudy     = errors.New("the instance is of another study than the URL")
	errTooLarge       = errors.New("too large")
	errLengthRequired = errors.New("length required")
	errNotAcceptable  = errors.New("not acceptable")
	errMediaType      = errors.New("media type not supported")
	errLongQuery      = errors.New("query too long")
	errBroken         = errors.New("the upload broke off")
	errUnauthorized   = errors.New("unauthorized")
	errForbidden      = errors.New("forbidden")
	errTooMany        = errors.New("too many requests")
	errModel          = errors.New("the metadata make no data set")
	errNoBulk         = errors.New("a BulkDataURI of the metadata has no part with its Content-Location in the request")
)

// wire is the one table from errors to the wire: the HTTP status of a whole request, and the Failure Reason (0008,1197) of one instance
// (PS3.18 table I.2-2, PS3.4 table B.2-1, PS3.7 annex C) with a comment that fits in an LO.
var wire = []struct {
	err     error
	status  int
	reason  int
	comment string
}{
	{errOtherStudy, http.StatusConflict, 0xA900, "instance is of another study than the URL"},
	{errTooLarge, http.StatusRequestEntityTooLarge, 0xA700, "larger than this service takes"},
	{errLengthRequired, http.StatusLengthRequired, 0x0110, "length required"},
	{errLongQuery, http.StatusRequestURITooLong, 0x0110, "query too long"},
	{errNotAcceptable, http.StatusNotAcceptable, 0x0110, "not acceptable"},
	{errMediaType, http.StatusUnsupportedMediaType, 0xC000, "not application/dicom"},
	{errUnauthorized, http.StatusUnauthorized, 0x0124, "not authorized"},
	{errForbidden, http.StatusForbidden, 0x0124, "not authorized"},
	{errTooMany, http.StatusTooManyRequests, 0xA700, "too many requests"},
	{errModel, http.StatusBadRequest, 0xC000, "metadata make no data set"},
	{errNoBulk, http.StatusBadRequest, 0xC000, "a BulkDataURI has no part in the request"},
	{pipeline.ErrFull, http.StatusInsufficientStorage, 0xA700, "disk full"},
	{pipeline.ErrBusy, http.StatusServiceUnavailable, 0xA700, "busy, try again"},
	{pipeline.ErrUnavailable, http.StatusServiceUnavailable, 0xA700, "what this needs elsewhere does not answer"},
	{pipeline.ErrConflict, http.StatusConflict, 0x0111, "SOP Instance UID is kept with other content; the first stays"},
	{pipeline.ErrNotFound, http.StatusNotFound, 0x0112, "not found"},
	{pipeline.ErrMissingPart, http.StatusServiceUnavailable, 0x0110, "a run-time part is missing"},
	{pipeline.ErrNotImage, http.StatusConflict, 0x0122, "not an object that this service keeps"},
	{pipeline.ErrUnsupported, http.StatusUnsupportedMediaType, 0x0122, "not supported"},
	{pipeline.ErrUnknown, http.StatusBadRequest, 0xC122, "transfer syntax is not of the standard"},
	{pipeline.ErrInvalid, http.StatusBadRequest, 0xC000, "not a valid DICOM file"},
	{errBroken, http.StatusBadRequest, 0xC000, "upload broke off"},
	{os.ErrDeadlineExceeded, http.StatusRequestTimeout, 0xC000, "upload stood still"},
	{context.Canceled, http.StatusBadRequest, 0x0110, "upload broke off"},
}

// statusOf is the HTTP status of an error.
func statusOf(err error) int {
	for _, w := range wire {
		if errors.Is(err, w.err) {
			return w.status
		}
	}
	return http.StatusInternalServerError
}

// reasonOf is the Failure Reason of an instance and a comment of at most 64 characters.
func reasonOf(err error) (reason int, comment string) {
	for _, w := range wire {
		if errors.Is(err, w.err) {
			return w.reason, w.comment
		}
	}
	return 0x0110, "processing failure"
}

// retryAfter is what a busy service asks for, in seconds.
const retryAfter = "5"

// refuse answers a whole request with an error: a JSON object with one sentence. The text of an error that has no entry in the table
// stays in the log. Where an answer has begun the connection is cut, so that half of it does not look whole.
func (s *server) refuse(c *gin.Context, err error) {
	_ = c.Error(err) // for the access log
	if c.Writer.Written() {
		panic(http.ErrAbortHandler)
	}
	for _, name := range []string{"Accept-Ranges", "Content-Disposition", "Content-Security-Policy", "Content-Type", "ETag", "Last-Modified"} { // of what would have come
		c.Writer.Header().Del(name)
	}
	c.Header("Cache-Control", "no-store")
	if ofOpenAI(c.Request) {
		s.refuseChat(c, err)
		return
	}
	status := statusOf(err)
	text := err.Error()
	if status == http.StatusInternalServerError {
		text = "the service failed; its log says why"
	}
	if status == http.StatusServiceUnavailable {
		c.Header("Retry-After", retryAfter)
	}
	s.deny(c, err)
	c.Abort()
	c.JSON(status, gin.H{"error": text})
}

// pathUIDs checks the UIDs of the path; those that it does not name are empty.
func pathUIDs(c *gin.Context) (study, series, sop string, err error) {
	uids := [3]string{}
	for i, name := range []string{"study", "series", "instance"} {
		v, given := c.Params.Get(name)
		if given && !pipeline.ValidUID(v) {
			return "", "", "", fmt.Errorf("%w: the %s of the path is no UID", pipeline.ErrInvalid, name)
		}
		uids[i] = v
	}
	return uids[0], uids[1], uids[2], nil
}
