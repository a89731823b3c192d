package dicomweb

import (
	"image"
	"image/color"
	"image/draw"
	"strings"
	"sync"

	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"

	"chatxray/pipeline"
)

// goFont is the Go typeface, which has Latin, Greek and Cyrillic letters.
var goFont = sync.OnceValues(func() (*opentype.Font, error) { return opentype.Parse(goregular.TTF) })

// annotate writes what the client asked for into a picture: the patient above, the technique below, white on a dark ground.
func annotate(m image.Image, h pipeline.Dataset, p picture) {
	canvas, ok := m.(draw.Image)
	if !ok || !p.patient && !p.technique {
		return
	}
	parsed, err := goFont()
	if err != nil {
		return
	}
	size := min(max(float64(m.Bounds().Dy())/45, 9), 48)
	face, err := opentype.NewFace(parsed, &opentype.FaceOptions{Size: size, DPI: 72, Hinting: font.HintingFull})
	if err != nil {
		return
	}
	defer face.Close()
	line := int(size * 1.3)
	if p.patient {
		writeLines(canvas, face, line, line, patientLines(h))
	}
	if p.technique {
		lines := techniqueLines(h)
		writeLines(canvas, face, m.Bounds().Dy()-line*(len(lines)-1)-line/2, line, lines)
	}
}

func writeLines(m draw.Image, face font.Face, y, line int, lines []string) {
	for _, text := range lines {
		text = shortened(text)
		width := font.MeasureString(face, text).Ceil()
		ground := image.Rect(line/4, y-line*8/10, line*3/4+width, y+line*2/10)
		draw.Draw(m, ground, image.NewUniform(color.RGBA{A: 160}), image.Point{}, draw.Over)
		d := font.Drawer{Dst: m, Src: image.White, Face: face, Dot: fixed.P(line/2, y)}
		d.DrawString(text)
		y += line
	}
}

// maxLine is how many characters of a text are written: no picture is wide enough for more, and a file may have megabytes of them.
const maxLine = 512

func shortened(text string) string {
	n := 0
	for i := range text {
		if n++; n > maxLine {
			return text[:i]
		}
	}
	return text
}

// patientLines say whose picture it is. Of a name, the first component group that the typeface can write.
func patientLines(h pipeline.Dataset) []string {
	name, _, _ := strings.Cut(h.String(pipeline.TagPatientName), "=")
	name = strings.Join(strings.FieldsFunc(name, func(r rune) bool { return r == '^' }), " ")
	return filled(name, h.String(pipeline.TagPatientID),
		joined(date(h.String(pipeline.TagPatientBirthDate)), h.String(pipeline.TagPatientSex)))
}

// techniqueLines say how and when it was made.
func techniqueLines(h pipeline.Dataset) []string {
	unit := func(t pipeline.Tag, unit string) string {
		if v := h.String(t); v != "" {
			return v + " " + unit
		}
		return ""
	}
	return filled(
		joined(h.String(pipeline.TagModality), h.String(pipeline.TagBodyPartExamined), h.String(pipeline.TagViewPosition), h.String(0x00200062)),
		joined(unit(0x00180060, "kV"), unit(0x00181152, "mAs")),
		joined(date(h.String(pipeline.TagStudyDate)), h.String(pipeline.TagStationName)))
}

func joined(words ...string) string { return strings.Join(filled(words...), "  ") }

func filled(words ...string) []string {
	var out []string
	for _, w := range words {
		if w != "" {
			out = append(out, w)
		}
	}
	return out
}

// date writes a DA as people do (ISO 8601).
func date(s string) string {
	if len(s) != 8 {
		return s
	}
	return s[:4] + "-" + s[4:6] + "-" + s[6:]
}
