package modelrt

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"

	"chatxray/pipeline"
)

// Boxes says how a model writes boxes into its text.
type Boxes struct {
	Syntax string `json:"syntax"` // one of boxSyntaxes; empty for none
	Range  int    `json:"range"`  // the largest coordinate: a side of the tensor is Range+1 long
}

const maxBoxes = 64 // of a text

// boxSyntax is how one kind of model writes boxes: what is around a label, and around a box (x0,y0),(x1,y1). A tokenizer gives no text for
// these marks, because they are special tokens.
type boxSyntax struct {
	label, labelEnd, box, boxEnd string
	group, corners               *regexp.Regexp
}

var boxSyntaxes = map[string]*boxSyntax{
	"qwen":  newBoxSyntax("<ref>", "</ref>", "<box>", "</box>"),
	"qwen2": newBoxSyntax("<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>"),
}

func newBoxSyntax(label, labelEnd, box, boxEnd string) *boxSyntax {
	q, number := regexp.QuoteMeta, `\s*(\d{1,5})\s*`
	return &boxSyntax{label, labelEnd, box, boxEnd,
		regexp.MustCompile(`(?:` + q(label) + `([^<]*)` + q(labelEnd) + `)?\s*((?:` + q(box) + `[^<]*` + q(boxEnd) + `)+)`),
		regexp.MustCompile(q(box) + `\s*\(` + number + `,` + number + `\)\s*,\s*\(` + number + `,` + number + `\)\s*` + q(boxEnd))}
}

// boxes finds the boxes that the model wrote about its image number n, counted from 0. What is no box of the syntax, or lies outside its range or the image, is left out.
func (m *Model) boxes(tokens []int32, n int, at Placement) []pipeline.Box {
	b := m.bundle.Manifest.Boxes
	syntax := boxSyntaxes[b.Syntax]
	if syntax == nil {
		return nil
	}
	list := b.find(m.prompt.spelled(tokens, syntax.label, syntax.labelEnd, syntax.box, syntax.boxEnd), at)
	for i := range list {
		list[i].Image = n
	}
	return list
}

// boxSkipper leaves the coordinates of boxes out of a text: people read it, and they are those of a tensor. Labels stay. Its zero value leaves everything.
type boxSkipper struct {
	box, boxEnd int32
	known       bool // the tokenizer has both
	inside      bool
}

func (b Boxes) skipper(t Tokenizer) (s boxSkipper) {
	if syntax := boxSyntaxes[b.Syntax]; syntax != nil {
		var begins, ends bool
		s.box, begins = t.ID(syntax.box)
		s.boxEnd, ends = t.ID(syntax.boxEnd)
		s.known = begins && ends
	}
	return s
}

// spell returns what of a token's text is to be read. A box that does not end like one hides no word.
func (s *boxSkipper) spell(id int32, text []byte) []byte {
	switch {
	case !s.known:
	case id == s.box:
		s.inside = true
	case id == s.boxEnd:
		s.inside = false
	case s.inside:
		if len(bytes.Trim(text, "0123456789(), ")) == 0 {
			return nil
		}
		s.inside = false
	}
	return text
}

// spelled is the text of tokens, with the special tokens marks.
func (p *prompt) spelled(tokens []int32, marks ...string) string {
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

func (b Boxes) find(text string, at Placement) (list []pipeline.Box) {
	syntax := boxSyntaxes[b.Syntax]
	for _, group := range syntax.group.FindAllStringSubmatch(text, maxBoxes) {
		for _, corners := range syntax.corners.FindAllStringSubmatch(group[2], maxBoxes) {
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
func (b Boxes) box(v [4]int, at Placement) (pipeline.Box, bool) {
	side := float64(b.Range + 1)
	x := func(n int) float64 {
		return min(max(float64(n)/side*float64(at.Width), float64(at.X)), float64(at.X+at.W))
	}
	y := func(n int) float64 {
		return min(max(float64(n)/side*float64(at.Height), float64(at.Y)), float64(at.Y+at.H))
	}
	c1, r1 := at.ToSource(x(v[0]), y(v[1]))
	c2, r2 := at.ToSource(x(v[2]), y(v[3]))
	box := pipeline.Box{Left: min(c1, c2), Top: min(r1, r2), Right: max(c1, c2), Bottom: max(r1, r2)}
	return box, box.Left < box.Right && box.Top < box.Bottom
}
