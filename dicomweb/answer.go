package dicomweb

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/gin-gonic/gin"

	"chatxray/pipeline"
)

// Warning Reasons (0008,1196). The standard lets others stand beside its three (PS3.18 table I.2-1); a duplicate has the code that
// PS3.7 annex C gives it.
const warnDuplicate = 0x0111

const (
	mediaJSON = "application/dicom+json"
	mediaXML  = "application/dicom+xml"
)

// answerFormat chooses between the two forms of a data set in an answer; JSON where both are welcome. Clients that copy the Content-Type
// name multipart/related or application/dicom.
func answerFormat(accept []mediaType) (string, error) {
	for _, m := range accept {
		kind, multi := m.inner()
		named := kind.wide() < everything && kind.q > 0 // by another name
		switch {
		case kind.matches(mediaJSON), named && kind.covers("application/json"):
			return mediaJSON, nil
		case kind.matches(mediaXML), named && (kind.covers("application/xml") || kind.covers("text/xml")):
			return mediaXML, nil
		case named && kind.covers(mediaDICOM), multi && kind.q > 0:
			return mediaJSON, nil
		}
	}
	return "", fmt.Errorf("%w: this service answers with %s or %s", errNotAcceptable, mediaJSON, mediaXML)
}

// answer tells what became of every part (PS3.18 section 10.5.3, annex I): 200 all, 202 some, 409 none.
func (s *server) answer(c *gin.Context, format, study string, parts []stored) {
	var d pipeline.Dataset
	var kept, failed, others []pipeline.Dataset
	base := s.base(c.Request)
	same := study
	var first error
	for _, p := range parts {
		switch {
		case p.err == nil:
			kept = append(kept, referenced(base, p))
			if same == "" {
				same = p.instance.StudyInstanceUID
			}
			if same != p.instance.StudyInstanceUID {
				same = "-"
			}
			continue
		case p.instance != nil:
			failed = append(failed, failure(p))
		default:
			others = append(others, failure(p))
		}
		if first == nil {
			first = p.err
		}
	}
	if pipeline.ValidUID(same) && len(kept) > 0 {
		d.SetText(pipeline.TagRetrieveURL, "UR", base+"/studies/"+same)
	}
	for _, seq := range []struct {
		tag   pipeline.Tag
		items []pipeline.Dataset
	}{{pipeline.TagReferencedSOPSequence, kept}, {pipeline.TagFailedSOPSequence, failed}, {pipeline.TagOtherFailuresSequence, others}} {
		if len(seq.items) > 0 {
			d.SetItems(seq.tag, seq.items...)
		}
	}
	if first != nil {
		_ = c.Error(first)
		c.Header("Warning", `299 chatxray "`+quotable(first)+`"`)
	}
	status := storeStatus(parts, len(kept))
	if status == http.StatusServiceUnavailable {
		c.Header("Retry-After", retryAfter)
	}
	s.send(c, status, format, d)
}

// storeStatus is 200 where all is kept, 202 where some is. Where nothing is, a cause outside the instances is told as such, so that
// clients try again.
func storeStatus(parts []stored, kept int) int {
	switch kept {
	case len(parts):
		return http.StatusOK
	case 0:
	default:
		return http.StatusAccepted
	}
	for _, p := range parts {
		for _, temporary := range []error{pipeline.ErrFull, pipeline.ErrBusy, pipeline.ErrUnavailable} {
			if errors.Is(p.err, temporary) {
				return statusOf(temporary)
			}
		}
	}
	return http.StatusConflict
}

// reference names an instance.
func reference(in *pipeline.Instance) pipeline.Dataset {
	var d pipeline.Dataset
	d.SetText(pipeline.TagReferencedSOPClassUID, "UI", in.SOPClassUID)
	d.SetText(pipeline.TagReferencedSOPInstanceUID, "UI", in.SOPInstanceUID)
	return d
}

func referenced(base string, p stored) pipeline.Dataset {
	d := reference(p.instance)
	d.SetText(pipeline.TagRetrieveURL, "UR", instanceURL(base, p.instance))
	if p.duplicate {
		d.SetInts(pipeline.TagWarningReason, "US", warnDuplicate)
	}
	if p.replaced {
		d.SetInts(pipeline.TagWarningReason, "US", warnDuplicate)
		d.SetText(pipeline.TagErrorComment, "LO", "replaced other content of this SOP Instance UID")
	}
	return d
}

func failure(p stored) pipeline.Dataset {
	var d pipeline.Dataset
	if p.instance != nil {
		d = reference(p.instance)
	}
	reason, comment := reasonOf(p.err)
	d.SetInts(pipeline.TagFailureReason, "US", int64(reason))
	d.SetText(pipeline.TagErrorComment, "LO", comment)
	if items := failedAttributes(p.err); len(items) > 0 {
		d.SetItems(pipeline.TagFailedAttributesSequence, items...)
	}
	return d
}

// failedAttributes names the attributes that an error is about (PS3.3 section 10.31, Selector Attribute Macro).
func failedAttributes(err error) (items []pipeline.Dataset) {
	var about *faulty
	if !errors.As(err, &about) {
		return nil
	}
	for _, e := range about.attributes {
		var d pipeline.Dataset
		d.SetInts(pipeline.TagSelectorAttribute, "AT", int64(e.Tag))
		if vr := vrOf(e); e.VR != "" {
			d.SetText(pipeline.TagSelectorAttributeVR, "CS", vr)
		}
		items = append(items, d)
	}
	return items
}

func instanceURL(base string, in *pipeline.Instance) string {
	return base + "/studies/" + in.StudyInstanceUID + "/series/" + in.SeriesInstanceUID + "/instances/" + in.SOPInstanceUID
}

// quotable makes an error fit into a quoted string of a header.
func quotable(err error) string {
	if statusOf(err) == http.StatusInternalServerError {
		return "the service failed; its log says why"
	}
	b := []byte(err.Error())
	for i, c := range b {
		switch {
		case c == '"' || c == '\\':
			b[i] = '\''
		case c < ' ' || c > '~':
			b[i] = ' '
		}
	}
	return string(b[:min(len(b), 400)])
}

// send answers with one data set.
func (s *server) send(c *gin.Context, status int, format string, d pipeline.Dataset) {
	if format == mediaXML {
		c.Data(status, mediaXML, s.appendXML(nil, d))
		return
	}
	c.Data(status, mediaJSON, appendJSON(nil, d, nil))
}
