package dicomweb

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/gin-gonic/gin"

	"chatxray/pipeline"
)

// pixelValue is where the pixels are.
const pixelValue = "7FE00010"

// bulkdata returns a value that metadata has named by its BulkDataURI (PS3.18 section 10.4.1.1.5). That of compressed pixels is every
// frame, that of video the stream.
func (s *server) bulkdata(c *gin.Context) error {
	k, err := s.asKept(c)
	if err != nil {
		return err
	}
	o, err := s.open(k.instances[0])
	if err != nil {
		return err
	}
	defer o.Close()
	path := strings.ToUpper(strings.Trim(c.Param("path"), "/"))
	value, err := o.Value(path)
	switch {
	case errors.Is(err, pipeline.ErrUnsupported) && path == pixelValue:
		return s.sendFrames(c, k, o, nil)
	case err != nil:
		return unable(k.instances[0], err)
	}
	return s.sendValue(c, k, o, path, value)
}

// sendValue answers with an uncompressed value.
func (s *server) sendValue(c *gin.Context, k keeping, o Object, path string, value io.ReadSeeker) error {
	size, err := value.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	offered := []string{mediaOctets}
	if media := mediaOf(k.instances[0].TransferSyntaxUID); path == pixelValue && strings.HasPrefix(media, "video/") {
		offered = []string{media, mediaOctets}
	}
	if mime := strings.ToLower(o.Header().String(tagMIMEType)); path == documentValue && mime != "" && plainMedia(mime) {
		offered = append(offered, mime)
	}
	for _, m := range accepted(c.Request) {
		kind, multi := m.inner()
		for _, media := range offered {
			if !kind.matches(media) {
				continue
			}
			tag := s.entityTag(k.instances, "value", path, media, fmt.Sprint(multi))
			if s.fresh(c, tag, k.at) {
				return nil
			}
			if media != mediaOctets && media != "application/pdf" { // a page that somebody has stored must not act for who looks at it
				c.Header("Content-Security-Policy", "default-src 'none'; sandbox")
			}
			p := &pieces{all: []piece{{value: value, size: size}}}
			if multi {
				boundary := boundaryOf(tag)
				p.all = []piece{bytesPiece(partHead(boundary, true, media, "")), p.all[0], partsEnd(boundary)}
				media = related(media, boundary)
			}
			return s.content(c, media, k.at, p)
		}
	}
	return fmt.Errorf("%w: this value comes as %s", errNotAcceptable, strings.Join(offered, " or "))
}

const tagMIMEType pipeline.Tag = 0x00420012 // MIME Type of Encapsulated Document

// plainMedia tells whether a string from a file may stand in a header.
func plainMedia(s string) bool {
	return len(s) < 64 && strings.Count(s, "/") == 1 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789/+-.") == ""
}
