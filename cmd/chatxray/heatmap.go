package main

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"

	"chatxray/modelrt"
	"chatxray/pipeline"
)

// heatFlags ask for pictures of where each sentence rests on the image.
type heatFlags struct {
	HeatMap string `name:"heatmap" help:"Folder for a heat map of each sentence (PNG): which parts of the image make it likelier. For bundles whose image features are a square grid (docs/report-json.md). Takes seconds, on a slow machine half a minute, a study." placeholder:"DIR"`
	Heat    bool   `help:"Draw the heat maps in the terminal; those on which nothing counts are a line."`
}

func (f heatFlags) wanted() bool { return f.HeatMap != "" || f.Heat }

// warm makes the heat maps of a reading.
func (f heatFlags) warm(ctx context.Context, model model, img *pipeline.Image, r *pipeline.Reading, seen []byte, rep *studyReport) error {
	h, err := heat(ctx, model, img, r)
	if err != nil {
		return err
	}
	if f.Heat {
		rep.heat, rep.seen = h, seen
	}
	if f.HeatMap == "" {
		return nil
	}
	if err := os.MkdirAll(f.HeatMap, 0o755); err != nil {
		return err
	}
	for i := range r.Sentences {
		b, err := heatPicture(seen, h, i, fmt.Sprintf("Sentence %d: %s", i+1, r.Sentences[i].Text))
		if err != nil {
			return err
		}
		path := filepath.Join(f.HeatMap, fmt.Sprintf("%s.%d.png", rep.StudyInstanceUID, i+1))
		if err := os.WriteFile(path, b, 0o644); err != nil {
			return err
		}
		rep.HeatMaps = append(rep.HeatMaps, path)
	}
	return nil
}

// heat asks a model that runs here.
func heat(ctx context.Context, model model, img *pipeline.Image, r *pipeline.Reading) (*pipeline.Heat, error) {
	here, ok := model.(*modelrt.Model)
	if !ok {
		return nil, model.Bundle().Manifest.CanHeat()
	}
	return here.Heat(ctx, img, r)
}

// heatRange is the largest value of all sentences: one scale for the pictures of a report, at least half a nat, so that what hardly counts stays pale.
func heatRange(h *pipeline.Heat) float64 {
	most := 0.5
	for _, s := range h.Sentences {
		most = max(most, -slices.Min(s), slices.Max(s))
	}
	return most
}

// heatColor is red where the place makes the sentence likelier, blue where it makes it less likely; v is -1 to 1.
func heatColor(v float64) color.RGBA {
	c := color.RGBA{R: 230, G: 60, B: 20}
	if v < 0 {
		c = color.RGBA{R: 30, G: 90, B: 230}
	}
	c.A = uint8(math.Round(170 * math.Min(1, math.Abs(v))))
	return c
}

const heatSide = 640 // pixels that a heat map's longer side has at least

// heatPicture lays the heat of a sentence over the picture that the model saw, with a title and a legend below.
func heatPicture(seen []byte, h *pipeline.Heat, sentence int, title string) ([]byte, error) {
	under, err := png.Decode(bytes.NewReader(seen))
	if err != nil {
		return nil, fmt.Errorf("the picture that the model saw: %w: %w", pipeline.ErrInvalid, err)
	}
	zoom := max(1, heatSide/max(under.Bounds().Dx(), under.Bounds().Dy()))
	width, height := under.Bounds().Dx()*zoom, under.Bounds().Dy()*zoom
	const foot = 64
	m := image.NewRGBA(image.Rect(0, 0, width, height+foot))
	draw.Draw(m, m.Bounds(), image.Black, image.Point{}, draw.Src)
	most := heatRange(h)
	for y := range height {
		for x := range width {
			base := color.GrayModel.Convert(under.At(under.Bounds().Min.X+x/zoom, under.Bounds().Min.Y+y/zoom)).(color.Gray)
			v := between(h, sentence, (float64(x)+0.5)/float64(width)*float64(h.Columns)-0.5, (float64(y)+0.5)/float64(height)*float64(h.Rows)-0.5)
			m.SetRGBA(x, y, over(base.Y, heatColor(v/most)))
		}
	}
	legend := image.Rect(12, height+36, 12+width/3, height+50)
	for x := legend.Min.X; x < legend.Max.X; x++ {
		c := over(128, heatColor(2*float64(x-legend.Min.X)/float64(legend.Dx())-1))
		for y := legend.Min.Y; y < legend.Max.Y; y++ {
			m.SetRGBA(x, y, c)
		}
	}
	if err := write(m, 12, height+24, width-24, title); err != nil {
		return nil, err
	}
	if err := write(m, legend.Max.X+8, legend.Max.Y-1, width-legend.Max.X-20, fmt.Sprintf("-%.2g to +%.2g nats, here up to %+.2g; DRAFT", most, most,
		slices.Max(h.Sentences[sentence]))); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = png.Encode(&b, m)
	return b.Bytes(), err
}

// between is the heat at a point of the grid, bilinear; the middles of places are whole numbers.
func between(h *pipeline.Heat, sentence int, x, y float64) float64 {
	x, y = min(max(x, 0), float64(h.Columns-1)), min(max(y, 0), float64(h.Rows-1))
	x0, y0 := int(x), int(y)
	x1, y1 := min(x0+1, h.Columns-1), min(y0+1, h.Rows-1)
	fx, fy := x-float64(x0), y-float64(y0)
	at := func(x, y int) float64 { return h.Sentences[sentence][y*h.Columns+x] }
	return (at(x0, y0)*(1-fx)+at(x1, y0)*fx)*(1-fy) + (at(x0, y1)*(1-fx)+at(x1, y1)*fx)*fy
}

// over lays a colour with its opacity (not multiplied in) over a gray value.
func over(gray uint8, c color.RGBA) color.RGBA {
	mix := func(v uint8) uint8 { return uint8((int(v)*int(c.A) + int(gray)*(255-int(c.A))) / 255) }
	return color.RGBA{mix(c.R), mix(c.G), mix(c.B), 255}
}

// write sets a line of text of at most width pixels at a baseline; what is longer ends in dots.
func write(m *image.RGBA, x, y, width int, text string) error {
	f, err := opentype.Parse(goregular.TTF)
	if err != nil {
		return err
	}
	face, err := opentype.NewFace(f, &opentype.FaceOptions{Size: 15, DPI: 72})
	if err != nil {
		return err
	}
	defer face.Close()
	for r := []rune(text); font.MeasureString(face, text).Ceil() > width && len(r) > 1; {
		r = r[:len(r)-1]
		text = string(r) + "..."
	}
	d := font.Drawer{Dst: m, Src: image.White, Face: face, Dot: fixed.P(x, y)}
	d.DrawString(text)
	return nil
}

// leastHeat is the largest value, in nats, that a map must have to be drawn in the terminal.
const leastHeat = 0.05

// heat draws the heat maps in the terminal: two places a character, the upper and the lower half of it.
func (p page) heat(rep *studyReport) {
	if rep.heat == nil {
		return
	}
	under, err := png.Decode(bytes.NewReader(rep.seen))
	if err != nil {
		return
	}
	const columns, rows = 40, 40
	most := heatRange(rep.heat)
	for i, s := range rep.Reading.Sentences {
		fmt.Fprintf(p.w, "\n%d  %s\n", i+1, s.Text)
		if v := rep.heat.Sentences[i]; max(-slices.Min(v), slices.Max(v)) < leastHeat {
			fmt.Fprintf(p.w, "   no part of the image counts for more than %.2g nats\n", leastHeat)
			continue
		}
		pixel := func(x, y int) (color.RGBA, float64) {
			b := under.Bounds()
			gray := color.GrayModel.Convert(under.At(b.Min.X+(2*x+1)*b.Dx()/(2*columns), b.Min.Y+(2*y+1)*b.Dy()/(2*rows))).(color.Gray)
			v := between(rep.heat, i, (float64(x)+0.5)/columns*float64(rep.heat.Columns)-0.5, (float64(y)+0.5)/rows*float64(rep.heat.Rows)-0.5) / most
			return over(gray.Y, heatColor(v)), v
		}
		for y := 0; y < rows; y += 2 {
			for x := range columns {
				a, v := pixel(x, y)
				b, w := pixel(x, y+1)
				if p.color {
					fmt.Fprintf(p.w, "\x1b[38;2;%d;%d;%d;48;2;%d;%d;%dm\u2580", a.R, a.G, a.B, b.R, b.G, b.B)
				} else {
					fmt.Fprint(p.w, string(heatSign((v+w)/2)))
				}
			}
			if p.color {
				fmt.Fprint(p.w, "\x1b[0m")
			}
			fmt.Fprintln(p.w)
		}
	}
	fmt.Fprintf(p.w, "\n%s\n", p.style("2", fmt.Sprintf("heat, up to %.2g nats: red (without colour # and +) makes the sentence likelier than other patients' images do there, blue (= and -) less\n"+
		"likely. It tells what the model weighs, not where a finding is.", most)))
}

// heatSign is a character for a value of -1 to 1.
func heatSign(v float64) rune {
	switch {
	case v > 0.6:
		return '#'
	case v > 0.25:
		return '+'
	case v < -0.6:
		return '='
	case v < -0.25:
		return '-'
	}
	return '.'
}
