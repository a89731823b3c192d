package modelrt

import (
	"regexp"
	"strconv"
	"strings"

	"chatxray/pipeline"
)

// Boxes says how a model writes boxes into its text.
type Boxes struct {
	Syntax string `json:"syntax"` // "qwen": <ref>what</ref><box>(x1,y1),(x2,y2)</box>; empty for none
	Range  int    `json:"range"`  // the largest coordinate: a side of the tensor is Range+1 long
}

// Box is a box that a model wrote.
type Box struct {
	Label string // what it is around; may be empty
	// Corners in pixels of the image as it is stored, continuous: the top left corner of the top left pixel is 0, 0.
	Left, Top, Right, Bottom float64
}

const (
	syntaxQwen = "qwen"
	maxBoxes   = 64 // of a text
)

// boxMarks are the tokens of a syntax. A tokenizer gives no text for them, because they are special.
var boxMarks = map[string][]string{syntaxQwen: {"<ref>", "</ref>", "<box>", "</box>"}}

var qwenBox = regexp.MustCompile(`(?:<ref>([^<]*)</ref>)?\s*((?:<box>[^<]*</box>)+)`)
var qwenCorners = regexp.MustCompile(`<box>\s*\(\s*(\d{1,5})\s*,\s*(\d{1,5})\s*\)\s*,\s*\(\s*(\d{1,5})\s*,\s*(\d{1,5})\s*\)\s*</box>`)

// Boxes finds the boxes that the model wrote about an image. What is no box of the syntax, or lies outside its range or the image, is left out.
func (m *Model) Boxes(tokens []int32, img *pipeline.Image) []Box {
	b := m.bundle.Manifest.Boxes
	if b.Syntax == "" {
		return nil
	}
	return b.find(m.prompt.spelled(tokens, boxMarks[b.Syntax]), m.pre.Place(img))
}

// spelled is the text of tokens, with the special tokens marks.
func (p *prompt) spelled(tokens []int32, marks []string) string {
	special := map[int32]string{}
	for _, mark := range marks {
		if id, ok := p.tokenizer.ID(mark); ok {
			special[id] = mark
		}
	}
	var text strings.Builder
	for _, id := range tokens {
		if mark, ok := special[id]; ok {
			text.WriteString(mark)
		} else {
			text.Write(p.tokenizer.TokenBytes(id))
		}
	}
	return text.String()
}

func (b Boxes) find(text string, at Placement) (list []Box) {
	for _, group := range qwenBox.FindAllStringSubmatch(text, maxBoxes) {
		for _, corners := range qwenCorners.FindAllStringSubmatch(group[2], maxBoxes) {
			var v [4]int
			inside := true
			for i, digits := range corners[1:] {
				v[i], _ = strconv.Atoi(digits) // five digits at most
				inside = inside && v[i] <= b.Range
			}
			if !inside || v[0] >= v[2] || v[1] >= v[3] || len(list) == maxBoxes {
				continue
			}
			if box, ok := b.box(v, at); ok {
				box.Label = strings.TrimSpace(group[1])
				list = append(list, box)
			}
		}
	}
	return list
}

// box takes corners in the tensor to the stored image, which may be turned, and cuts what lies in the black beside the picture.
func (b Boxes) box(v [4]int, at Placement) (Box, bool) {
	side := float64(b.Range + 1)
	x := func(n int) float64 {
		return min(max(float64(n)/side*float64(at.Width), float64(at.X)), float64(at.X+at.W))
	}
	y := func(n int) float64 {
		return min(max(float64(n)/side*float64(at.Height), float64(at.Y)), float64(at.Y+at.H))
	}
	c1, r1 := at.ToSource(x(v[0]), y(v[1]))
	c2, r2 := at.ToSource(x(v[2]), y(v[3]))
	box := Box{Left: min(c1, c2), Top: min(r1, r2), Right: max(c1, c2), Bottom: max(r1, r2)}
	return box, box.Left < box.Right && box.Top < box.Bottom
}
