package dicomweb

import (
	"bytes"
	"fmt"
	"html"
	"io"
	"slices"
	"strings"

	"github.com/gin-gonic/gin"

	"chatxray/pipeline"
)

const (
	tagContentSequence  pipeline.Tag = 0x0040A730
	encapsulatedPDF                  = "1.2.840.10008.5.1.4.1.1.104.1"
	tagConceptName      pipeline.Tag = 0x0040A043
	tagValueType        pipeline.Tag = 0x0040A040
	documentValue                    = "00420011"
	tagTextValue        pipeline.Tag = 0x0040A160
	tagConceptCode      pipeline.Tag = 0x0040A168
	tagMeasuredValue    pipeline.Tag = 0x0040A300
	tagNumericValue     pipeline.Tag = 0x0040A30A
	tagMeasurementUnits pipeline.Tag = 0x004008EA
)

// showDocument answers with an object that is no image: a structured report as text/html, an encapsulated PDF as it is. Where the object
// is neither, or the client takes neither, the error is noImage.
func (s *server) showDocument(c *gin.Context, k keeping, o Object, forms []shown, noImage error) error {
	takes := func(media string) bool { return slices.Contains(forms, shown{media, false}) }
	switch _, report := o.Header().Get(tagContentSequence); {
	case k.instances[0].SOPClassUID == encapsulatedPDF && takes("application/pdf"):
		value, err := o.Value(documentValue)
		if err != nil {
			return unable(k.instances[0], err)
		}
		size, err := value.Seek(0, io.SeekEnd)
		if err != nil || s.fresh(c, s.entityTag(k.instances, "pdf"), k.at) {
			return err
		}
		return s.content(c, "application/pdf", k.at, &pieces{all: []piece{{value: value, size: size}}})
	case report && takes("text/html"):
		if s.fresh(c, s.entityTag(k.instances, "html"), k.at) {
			return nil
		}
		c.Header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox")
		return s.content(c, "text/html; charset=utf-8", k.at, &pieces{all: []piece{bytesPiece(reportPage(o.Header()))}})
	}
	return unable(k.instances[0], noImage)
}

// reportPage writes a structured report for people: the tree of its content items as nested lists.
func reportPage(h pipeline.Dataset) []byte {
	var b bytes.Buffer
	title := html.EscapeString(meaning(h.Items(tagConceptName)))
	fmt.Fprintf(&b, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>%s</title><style>body{font-family:sans-serif;max-width:60em;margin:2em auto}"+
		"ul{list-style:none;padding-left:1.2em;border-left:1px solid #ccc}b{font-weight:600}</style></head><body>\n<h1>%s</h1>\n<p>%s</p>\n", title, title,
		html.EscapeString(strings.Join(append(patientLines(h), date(h.String(pipeline.TagContentDate)), h.String(0x0040A491), h.String(0x0040A493)), " · ")))
	reportItems(&b, h.Items(tagContentSequence))
	b.WriteString("</body></html>\n")
	return b.Bytes()
}

func reportItems(b *bytes.Buffer, items []pipeline.Dataset) {
	if len(items) == 0 {
		return
	}
	b.WriteString("<ul>\n")
	for _, item := range items {
		b.WriteString("<li>")
		if name := meaning(item.Items(tagConceptName)); name != "" {
			b.WriteString("<b>" + html.EscapeString(name) + "</b> ")
		}
		b.WriteString(html.EscapeString(reportValue(item)))
		reportItems(b, item.Items(tagContentSequence))
		b.WriteString("</li>\n")
	}
	b.WriteString("</ul>\n")
}

// reportValue is the value of a content item as text (PS3.3 section C.17.3.2).
func reportValue(d pipeline.Dataset) string {
	switch kind := d.String(tagValueType); kind {
	case "TEXT":
		return strings.Join(d.Strings(tagTextValue), "\\")
	case "CODE":
		return meaning(d.Items(tagConceptCode))
	case "NUM":
		var out []string
		for _, m := range d.Items(tagMeasuredValue) {
			out = append(out, m.String(tagNumericValue)+" "+meaning(m.Items(tagMeasurementUnits)))
		}
		return strings.Join(out, ", ")
	case "DATE", "TIME", "DATETIME", "UIDREF", "PNAME":
		return d.String(map[string]pipeline.Tag{"DATE": 0x0040A121, "TIME": 0x0040A122, "DATETIME": 0x0040A120, "UIDREF": 0x0040A124, "PNAME": 0x0040A123}[kind])
	case "IMAGE", "COMPOSITE", "WAVEFORM":
		var out []string
		for _, r := range d.Items(pipeline.TagReferencedSOPSequence) {
			out = append(out, r.String(pipeline.TagReferencedSOPInstanceUID))
		}
		return strings.ToLower(kind) + " " + strings.Join(out, ", ")
	case "SCOORD", "SCOORD3D":
		return d.String(0x00700023)
	}
	return ""
}

func meaning(codes []pipeline.Dataset) string {
	if len(codes) == 0 {
		return ""
	}
	return codes[0].String(pipeline.TagCodeMeaning)
}
