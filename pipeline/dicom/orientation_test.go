package dicom

import (
	"slices"
	"testing"

	"chatxray/pipeline"
)

// upRight brings stored pixels upright as pipeline.Orientation says.
func upRight(m *pipeline.Image) []uint16 {
	rows, columns := m.UprightSize()
	out := make([]uint16, 0, len(m.Pix16))
	for y := range rows {
		for x := range columns {
			u, v := x, y
			if m.Upright.FlipX {
				u = columns - 1 - u
			}
			if m.Upright.FlipY {
				v = rows - 1 - v
			}
			if m.Upright.Transpose {
				u, v = v, u
			}
			out = append(out, m.Pix16[v*m.Columns+u])
		}
	}
	return out
}

// TestUpright: a body with its right arm 1, its left arm 2 and its right foot 3, seen from the front. Upright is
//
//	1 2
//	3 0
func TestUpright(t *testing.T) {
	for _, c := range []struct {
		row, column string
		stored      []uint16
	}{
		{"L", "F", []uint16{1, 2, 3, 0}},
		{"R", "F", []uint16{2, 1, 0, 3}},
		{"L", "H", []uint16{3, 0, 1, 2}},
		{"R", "H", []uint16{0, 3, 2, 1}},
		{"F", "L", []uint16{1, 3, 2, 0}},
		{"F", "R", []uint16{2, 0, 1, 3}},
		{"H", "L", []uint16{3, 1, 0, 2}},
		{"H", "R", []uint16{0, 2, 3, 1}},
		{"LF", "FR", []uint16{1, 2, 3, 0}}, // tilted a little
	} {
		m := developed(t, frame(2, c.stored...), header(text(pipeline.TagPatientOrientation, c.row, c.column)))
		if got := upRight(m); !slices.Equal(got, []uint16{1, 2, 3, 0}) {
			t.Errorf("%s\\%s: %v after %+v", c.row, c.column, got, m.Upright)
		}
	}
}

func TestUprightOfOtherValues(t *testing.T) {
	for _, c := range []struct {
		values []string
		want   pipeline.Orientation
	}{
		{nil, pipeline.Orientation{}},
		{[]string{"R"}, pipeline.Orientation{}},
		{[]string{"", "H"}, pipeline.Orientation{}},
		{[]string{"R", "P"}, pipeline.Orientation{}}, // axial
		{[]string{"H", "F"}, pipeline.Orientation{}}, // contradicts itself
		{[]string{"X", "H"}, pipeline.Orientation{}},
		{[]string{"A", "F"}, pipeline.Orientation{}},
		{[]string{"P", "F"}, pipeline.Orientation{}},
		{[]string{"A", "H"}, pipeline.Orientation{FlipY: true}},
		{[]string{"F", "P"}, pipeline.Orientation{Transpose: true}},
		{[]string{"H", "A"}, pipeline.Orientation{Transpose: true, FlipY: true}},
	} {
		if got := upright(header(text(pipeline.TagPatientOrientation, c.values...))); got != c.want {
			t.Errorf("%q: %+v, want %+v", c.values, got, c.want)
		}
	}
	// the detector's rotation says nothing of the patient
	if got := upright(header(text(pipeline.TagFieldOfViewRotation, "180"), text(pipeline.TagFieldOfViewHorizontalFlip, "YES"))); got != (pipeline.Orientation{}) {
		t.Errorf("field of view: %+v", got)
	}
}
