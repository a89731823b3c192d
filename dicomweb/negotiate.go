package dicomweb

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"chatxray/pipeline"
)

const (
	mediaDICOM  = "application/dicom"
	mediaOctets = "application/octet-stream"
	mediaMulti  = "multipart/related"
	mediaZip    = "application/zip"
	explicitLE  = "1.2.840.10008.1.2.1"
	asStored    = "" // in place of a transfer syntax
)

// frameMedia are the media types of compressed frames (PS3.18 tables 8.7.3-4 and -5) with their transfer syntaxes, the default first.
var frameMedia = []struct {
	media    string
	syntaxes []string
}{
	{"image/jpeg", []string{"1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57",
		"1.2.840.10008.1.2.4.53", "1.2.840.10008.1.2.4.55"}},
	{"image/dicom-rle", []string{"1.2.840.10008.1.2.5"}},
	{"image/jls", []string{"1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"}},
	{"image/jp2", []string{"1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"}},
	{"image/jpx", []string{"1.2.840.10008.1.2.4.92", "1.2.840.10008.1.2.4.93"}},
	{"image/jphc", []string{"1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203"}},
	{"image/jxl", []string{"1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.4.111", "1.2.840.10008.1.2.4.112"}},
	{"video/mpeg2", []string{"1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.100.1", "1.2.840.10008.1.2.4.101", "1.2.840.10008.1.2.4.101.1"}},
	{"video/mp4", []string{"1.2.840.10008.1.2.4.102", "1.2.840.10008.1.2.4.103", "1.2.840.10008.1.2.4.104", "1.2.840.10008.1.2.4.105", "1.2.840.10008.1.2.4.106",
		"1.2.840.10008.1.2.4.102.1", "1.2.840.10008.1.2.4.103.1", "1.2.840.10008.1.2.4.104.1", "1.2.840.10008.1.2.4.105.1", "1.2.840.10008.1.2.4.106.1"}},
	{"video/h265", []string{"1.2.840.10008.1.2.4.107", "1.2.840.10008.1.2.4.108"}},
}

// mediaOf is the media type of a frame in a transfer syntax.
func mediaOf(syntax string) string {
	for _, m := range frameMedia {
		if slices.Contains(m.syntaxes, syntax) {
			return m.media
		}
	}
	return mediaOctets
}

// labelled is a media type with the transfer syntax that the bytes have.
func labelled(media, syntax string) string { return media + "; transfer-syntax=" + syntax }

// related is the media type of a multipart body.
func related(media, boundary string) string {
	return mediaMulti + `; type="` + media + `"; boundary=` + boundary
}

// delivery is how instances are to be sent.
type delivery struct {
	zip    bool
	single bool // as application/dicom
	syntax string
	strict bool // the client asked for this syntax
}

// chooseDICOM chooses the form of a study, a series or an instance (PS3.18 section 8.7.3.5). What a client does not say is Explicit VR
// Little Endian, the default of the standard, where the stored syntax can be decoded, else the stored one; `transfer-syntax=*` is the
// stored one.
func (s *server) chooseDICOM(accept []mediaType, found []*pipeline.Instance, one bool) (delivery, error) {
	var refused []string
	for _, m := range accept {
		if m.q == 0 {
			continue
		}
		multi := (m.wide() == everything || m.multi()) && m.inside().matches(mediaDICOM)
		alone := m.matches(mediaDICOM) && (one || m.wide() < everything)
		zip := m.name == mediaZip
		if !multi && !alone && !zip {
			continue
		}
		d := delivery{zip: zip, single: alone && one && !multi, syntax: explicitLE}
		switch ts := m.params["transfer-syntax"]; {
		case ts == "*" || zip && ts == "":
			d.syntax = asStored
		case ts != "":
			d.syntax, d.strict = ts, true
			if slices.ContainsFunc(found, func(in *pipeline.Instance) bool {
				return in.TransferSyntaxUID != ts && !s.Transcodes(in.TransferSyntaxUID, ts)
			}) {
				refused = append(refused, strconv.Quote(printable(ts)))
				continue
			}
		}
		return d, nil
	}
	if len(refused) > 0 {
		return delivery{}, fmt.Errorf("%w: what is stored has the transfer syntax %s, which this service does not convert to %s; ask for transfer-syntax=*",
			errNotAcceptable, strings.Join(storedSyntaxes(found), ", "), strings.Join(refused, ", "))
	}
	return delivery{}, fmt.Errorf(`%w: instances come as multipart/related; type="application/dicom", one alone as application/dicom too, and all as application/zip`, errNotAcceptable)
}

// target is the transfer syntax that an instance must be brought to; asStored where it needs nothing.
func (s *server) target(d delivery, in *pipeline.Instance) string {
	if d.syntax == asStored || d.syntax == in.TransferSyntaxUID || !s.Transcodes(in.TransferSyntaxUID, d.syntax) {
		return asStored
	}
	return d.syntax
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

// frameForm is one way in which a client takes frames.
type frameForm struct {
	syntax string // asStored, or the one to bring frames to
	single bool   // not in a multipart body
}

// frameForms lists the ways in which a client takes frames of an object in the given transfer syntax, most wanted first (PS3.18 tables
// 8.7.3-4 and -5). Without a type it is uncompressed application/octet-stream; with `transfer-syntax=*` it is the stored syntax,
// whatever the type: so viewers ask for what the archive has. A label of a part always names what it has.
func frameForms(accept []mediaType, stored string) []frameForm {
	var out []frameForm
	for _, m := range accept {
		kind, single, in := m.params["type"], false, m.inside()
		switch {
		case m.wide() == everything || m.name == "multipart/*":
			kind = ""
		case m.name != mediaMulti:
			kind, single, in = m.name, true, m
		}
		if in.q == 0 {
			continue
		}
		ts := m.params["transfer-syntax"]
		own := mediaOf(stored)
		if ts == "*" && (kind == "" || kind == "*/*" || kind == mediaOctets || kind == own || kind == "image/*" && own != mediaOctets) && !in.refuses(own) {
			out = append(out, frameForm{asStored, single})
			continue
		}
		switch kind {
		case "", "*/*", "application/*", mediaOctets:
			if ts == "" || ts == "*" {
				ts = explicitLE
			}
			if !in.refuses(mediaOctets) {
				out = append(out, frameForm{ts, single})
			}
			if kind != mediaOctets && m.params["transfer-syntax"] == "" && !in.refuses(own) { // anything rather than nothing
				out = append(out, frameForm{asStored, single})
			}
		case "image/*", "video/*":
			if strings.HasPrefix(own, kind[:6]) {
				out = append(out, frameForm{asStored, single})
			}
		default:
			out = append(out, namedForms(kind, ts, own, single)...)
		}
	}
	return out
}

// namedForms are the forms of a named media type.
func namedForms(kind, ts, own string, single bool) []frameForm {
	for _, f := range frameMedia {
		switch {
		case f.media != kind:
			continue
		case ts == "" && own == kind:
			return []frameForm{{asStored, single}}
		case ts == "" || ts == "*":
			return []frameForm{{f.syntaxes[0], single}}
		case slices.Contains(f.syntaxes, ts):
			return []frameForm{{ts, single}}
		}
	}
	return nil
}
