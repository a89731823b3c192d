package dicom

import (
	"math"
	"slices"

	"chatxray/pipeline"
)

const maxVertices = 1024 // of a polygon: every row is compared with every edge

// shutter is the Display Shutter of an object (PS3.3 section C.7.6.11): what lies outside any of its shapes is not shown. Shapes
// whose attributes are missing or contradict themselves are ignored. Positions are those of the standard: the first row and column are 1.
type shutter struct {
	rectangle                *[4]int // upper, lower, left and right edge, themselves inside
	centreRow, centreColumn  float64
	radius                   float64 // 0: no circle
	verticesRow, verticesCol []float64
}

func shutterOf(h pipeline.Dataset) shutter {
	var s shutter
	shapes := h.Strings(pipeline.TagShutterShape)
	if slices.Contains(shapes, "RECTANGULAR") {
		var edges [4]int
		whole := true
		for i, tag := range []pipeline.Tag{
			pipeline.TagShutterUpperHorizontalEdge, pipeline.TagShutterLowerHorizontalEdge,
			pipeline.TagShutterLeftVerticalEdge, pipeline.TagShutterRightVerticalEdge,
		} {
			n, ok := h.Int(tag)
			whole, edges[i] = whole && ok, n
		}
		if whole && edges[0] <= edges[1] && edges[2] <= edges[3] {
			s.rectangle = &edges
		}
	}
	if slices.Contains(shapes, "CIRCULAR") {
		c, r := h.Floats(pipeline.TagCenterOfCircularShutter), h.Floats(pipeline.TagRadiusOfCircularShutter)
		if len(c) == 2 && len(r) == 1 && finite(c[0]) && finite(c[1]) && finite(r[0]) && r[0] > 0 {
			s.centreRow, s.centreColumn, s.radius = c[0], c[1], r[0]
		}
	}
	if slices.Contains(shapes, "POLYGONAL") {
		v := h.Floats(pipeline.TagVerticesOfThePolygonalShutter)
		if len(v) >= 6 && len(v) <= 2*maxVertices && len(v)%2 == 0 && !slices.ContainsFunc(v, func(f float64) bool { return !finite(f) }) {
			for i := 0; i < len(v); i += 2 {
				s.verticesRow, s.verticesCol = append(s.verticesRow, v[i]), append(s.verticesCol, v[i+1])
			}
		}
	}
	return s
}

// crop sets the part of m inside the shapes' bounding boxes. A shutter that leaves nothing of the image is ignored.
func (s *shutter) crop(m *pipeline.Image) {
	top, bottom, left, right := 1.0, float64(m.Rows), 1.0, float64(m.Columns)
	within := func(t, b, l, r float64) {
		top, bottom, left, right = max(top, t), min(bottom, b), max(left, l), min(right, r)
	}
	if e := s.rectangle; e != nil {
		within(float64(e[0]), float64(e[1]), float64(e[2]), float64(e[3]))
	}
	if s.radius > 0 {
		within(s.centreRow-s.radius, s.centreRow+s.radius, s.centreColumn-s.radius, s.centreColumn+s.radius)
	}
	if len(s.verticesRow) > 0 {
		within(slices.Min(s.verticesRow), slices.Max(s.verticesRow), slices.Min(s.verticesCol), slices.Max(s.verticesCol))
	}
	top, left = math.Ceil(top), math.Ceil(left)
	bottom, right = math.Floor(bottom), math.Floor(right)
	if top > bottom || left > right {
		*s = shutter{}
		return
	}
	m.Top, m.Bottom, m.Left, m.Right = int(top)-1, int(bottom), int(left)-1, int(right)
}

// mask blackens, in a copy, the pixels outside a circle or polygon.
func (s *shutter) mask(m *pipeline.Image) {
	if s.radius == 0 && len(s.verticesRow) == 0 {
		return
	}
	if m.Pix16 != nil {
		m.Pix16 = masked(s, m, m.Pix16)
	} else {
		m.Pix8 = masked(s, m, m.Pix8)
	}
}

func masked[T uint8 | uint16](s *shutter, m *pipeline.Image, pixels []T) []T {
	black := blackWord(m.LUT, pixels)
	out := slices.Clone(pixels)
	for y := m.Top; y < m.Bottom; y++ {
		row := out[y*m.Columns:][:m.Columns]
		x := m.Left
		for _, span := range s.spans(y, m.Left, m.Right) {
			for ; x < span[0]; x++ {
				row[x] = black
			}
			x = max(x, span[1])
		}
		for ; x < m.Right; x++ {
			row[x] = black
		}
	}
	return out
}

// blackWord returns a word that the lookup takes to 0. Where there is none, one that no pixel uses is made one; where every word
// is used, the darkest has to do.
func blackWord[T uint8 | uint16](lut []float32, pixels []T) T {
	if i := slices.Index(lut, 0); i >= 0 {
		return T(i)
	}
	used := make([]bool, len(lut))
	for _, v := range pixels {
		used[v] = true
	}
	if i := slices.Index(used, false); i >= 0 {
		lut[i] = 0
		return T(i)
	}
	return T(slices.Index(lut, slices.Min(lut)))
}

// spans returns the runs of columns, counted from 0 and half open, of row y that lie inside the circle and the polygon, in order.
func (s *shutter) spans(y, left, right int) [][2]int {
	row := float64(y + 1)
	from, to := float64(left+1), float64(right)
	if s.radius > 0 {
		half := s.radius*s.radius - (row-s.centreRow)*(row-s.centreRow)
		if half < 0 {
			return nil
		}
		half = math.Sqrt(half)
		from, to = max(from, s.centreColumn-half), min(to, s.centreColumn+half)
	}
	run := func(a, b float64) (r [2]int, ok bool) {
		a, b = math.Ceil(max(a, from)), math.Floor(min(b, to))
		return [2]int{int(a) - 1, int(b)}, a <= b
	}
	if len(s.verticesRow) == 0 {
		if r, ok := run(from, to); ok {
			return [][2]int{r}
		}
		return nil
	}
	var crossings []float64
	j := len(s.verticesRow) - 1
	for i := range s.verticesRow {
		r0, c0, r1, c1 := s.verticesRow[j], s.verticesCol[j], s.verticesRow[i], s.verticesCol[i]
		if (r0 <= row) != (r1 <= row) {
			crossings = append(crossings, c0+(row-r0)/(r1-r0)*(c1-c0))
		}
		j = i
	}
	slices.Sort(crossings)
	var out [][2]int
	for i := 0; i+1 < len(crossings); i += 2 {
		if r, ok := run(crossings[i], crossings[i+1]); ok {
			out = append(out, r)
		}
	}
	return out
}
