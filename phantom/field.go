package phantom

import (
	"math"
	"runtime"
	"sync"
)

// The field of view in mm. A matrix of other proportions shows more of one direction: air.
const (
	fieldWidth  = 344.0
	fieldHeight = 420.0
)

// field is the line integral of attenuation at points of the detector plane, without unit. x runs from the middle to the patient's left (of
// a lateral view: to the front), y from the top down, both in mm.
type field struct {
	rows, columns int
	step          float64 // mm between points
	left, top     float64 // of the first point
	v             []float32
	highest       bool // tubes do not add up: the thickest counts, so that the parts of one body join without a seam
}

// layer makes an empty field over the same points, for the parts of one body.
func (f *field) layer() *field {
	l := *f
	l.v, l.highest = make([]float32, len(f.v)), true
	return &l
}

// merge adds a layer and empties it.
func (f *field) merge(l *field) {
	for i, v := range l.v {
		if v != 0 {
			f.v[i] += v
			l.v[i] = 0
		}
	}
}

// newField makes a field for a matrix. Large matrices are drawn at half their resolution, about 0.34 mm, as sharp as a focal spot is.
func newField(rows, columns int) *field {
	spacing := max(fieldHeight/float64(rows), fieldWidth/float64(columns))
	f := &field{rows: rows, columns: columns, step: spacing}
	if spacing < 0.25 {
		f.rows, f.columns, f.step = rows/2+2, columns/2+2, 2*spacing
	}
	f.left, f.top = -spacing*float64(columns)/2, (fieldHeight-spacing*float64(rows))/2
	f.v = make([]float32, f.rows*f.columns)
	return f
}

func (f *field) x(column int) float64 { return f.left + f.step*float64(column) }
func (f *field) y(row int) float64    { return f.top + f.step*float64(row) }

// box returns the points within a rectangle of mm, half open, cut to the field.
func (f *field) box(left, top, right, bottom float64) (c0, r0, c1, r1 int) {
	at := func(v float64, most int) int { return int(min(max(v, 0), float64(most))) }
	return at(math.Ceil((left-f.left)/f.step), f.columns), at(math.Ceil((top-f.top)/f.step), f.rows),
		at(math.Floor((right-f.left)/f.step)+1, f.columns), at(math.Floor((bottom-f.top)/f.step)+1, f.rows)
}

// parallel runs f for each of n rows, in bands.
func parallel(n int, band func(from, to int)) {
	workers := runtime.GOMAXPROCS(0)
	const rows = 64
	var wg sync.WaitGroup
	next := make(chan int, n/rows+1)
	for from := 0; from < n; from += rows {
		next <- from
	}
	close(next)
	for range workers {
		wg.Go(func() {
			for from := range next {
				band(from, min(from+rows, n))
			}
		})
	}
	wg.Wait()
}

// point is a place in mm, with the half width of a tube there.
type point struct{ x, y, r float64 }

// profile turns the distance from the middle of a tube, as a part of its half width (0 to 1), and the half width into an integral.
type profile func(part, r float64) float64

// solid is a cylinder of a material with mu per mm.
func solid(mu float64) profile {
	return func(part, r float64) float64 { return 2 * mu * r * math.Sqrt(1-part*part) }
}

// hollow is a pipe: a wall of mm around something else.
func hollow(wall, muWall, muInside float64) profile {
	return func(part, r float64) float64 {
		outer := r * math.Sqrt(1-part*part)
		inner := 0.0
		if d, in := part*r, r-wall; in > d {
			inner = math.Sqrt(in*in - d*d)
		}
		return 2 * (muWall*(outer-inner) + muInside*inner)
	}
}

// tube adds a tube along a path. Where it crosses itself the nearer part counts. weight, where it is not nil, is asked at each point.
func (f *field) tube(path []point, p profile, weight func(x, y float64) float64) {
	if len(path) < 2 {
		return
	}
	left, top, right, bottom := math.Inf(1), math.Inf(1), math.Inf(-1), math.Inf(-1)
	for _, q := range path {
		left, right = min(left, q.x-q.r), max(right, q.x+q.r)
		top, bottom = min(top, q.y-q.r), max(bottom, q.y+q.r)
	}
	c0, r0, c1, r1 := f.box(left, top, right, bottom)
	if c0 >= c1 || r0 >= r1 {
		return
	}
	width := c1 - c0
	parts := make([]float32, width*(r1-r0)) // 1 minus the part of the half width; 0 outside
	radii := make([]float32, len(parts))
	for i := 1; i < len(path); i++ {
		a, b := path[i-1], path[i]
		r := max(a.r, b.r)
		sc0, sr0, sc1, sr1 := f.box(min(a.x, b.x)-r, min(a.y, b.y)-r, max(a.x, b.x)+r, max(a.y, b.y)+r)
		dx, dy := b.x-a.x, b.y-a.y
		length := dx*dx + dy*dy
		for row := sr0; row < sr1; row++ {
			y := f.y(row)
			for column := sc0; column < sc1; column++ {
				x := f.x(column)
				t := 0.0
				if length > 0 {
					t = min(max(((x-a.x)*dx+(y-a.y)*dy)/length, 0), 1)
				}
				ex, ey := x-a.x-t*dx, y-a.y-t*dy
				here := a.r + t*(b.r-a.r)
				d := ex*ex + ey*ey
				if d >= here*here {
					continue
				}
				k := (row-r0)*width + column - c0
				if near := float32(1 - math.Sqrt(d)/here); near > parts[k] {
					parts[k], radii[k] = near, float32(here)
				}
			}
		}
	}
	for row := r0; row < r1; row++ {
		for column := c0; column < c1; column++ {
			k := (row-r0)*width + column - c0
			if parts[k] == 0 {
				continue
			}
			w := 1.0
			if weight != nil {
				w = weight(f.x(column), f.y(row))
			}
			v := float32(w * p(1-float64(parts[k]), float64(radii[k])))
			at := &f.v[row*f.columns+column]
			if f.highest {
				*at = max(*at, v)
			} else {
				*at += v
			}
		}
	}
}

// curve returns a smooth path through points (Catmull-Rom), about a point a mm.
func curve(through ...point) []point {
	var out []point
	at := func(i int) point { return through[min(max(i, 0), len(through)-1)] }
	for i := range len(through) - 1 {
		a, b, c, d := at(i-1), at(i), at(i+1), at(i+2)
		n := max(int(math.Hypot(c.x-b.x, c.y-b.y)), 1)
		for k := range n {
			t := float64(k) / float64(n)
			mix := func(a, b, c, d float64) float64 {
				return b + 0.5*t*(c-a+t*(2*a-5*b+4*c-d+t*(3*(b-c)+d-a)))
			}
			out = append(out, point{mix(a.x, b.x, c.x, d.x), mix(a.y, b.y, c.y, d.y), max(mix(a.r, b.r, c.r, d.r), 0)})
		}
	}
	return append(out, through[len(through)-1])
}

// ellipse is a body of which only its projection and depth count.
type ellipse struct {
	x, y   float64
	a, b   float64 // half axes in mm
	angle  float64 // of the first axis, clockwise
	depth  float64 // mm, in the middle
	square bool    // a flat body: the same depth nearly everywhere
}

// thickness is the depth of an ellipse at a point.
func (e *ellipse) thickness(x, y float64) float64 {
	dx, dy := x-e.x, y-e.y
	if most := max(e.a, e.b); dx > most || dx < -most || dy > most || dy < -most {
		return 0
	}
	if e.angle != 0 {
		sin, cos := math.Sincos(e.angle)
		dx, dy = dx*cos+dy*sin, dy*cos-dx*sin
	}
	q := dx*dx/(e.a*e.a) + dy*dy/(e.b*e.b)
	if q >= 1 {
		return 0
	}
	if e.square {
		return e.depth * math.Sqrt(math.Sqrt(1-q*q))
	}
	return e.depth * math.Sqrt(1-q)
}

// cloud is the depth of an ellipse without an edge: its half axes are where it has fallen to a third.
func (e *ellipse) cloud(x, y float64) float64 {
	dx, dy := x-e.x, y-e.y
	if most := 2.4 * max(e.a, e.b); dx > most || dx < -most || dy > most || dy < -most {
		return 0
	}
	sin, cos := math.Sincos(e.angle)
	dx, dy = dx*cos+dy*sin, dy*cos-dx*sin
	q := dx*dx/(e.a*e.a) + dy*dy/(e.b*e.b)
	return e.depth * max(math.Exp(-q)-0.003, 0)
}

// add adds mu per mm of an ellipse.
func (f *field) add(e ellipse, mu float64) {
	r := max(e.a, e.b)
	c0, r0, c1, r1 := f.box(e.x-r, e.y-r, e.x+r, e.y+r)
	for row := r0; row < r1; row++ {
		for column := c0; column < c1; column++ {
			f.v[row*f.columns+column] += float32(mu * e.thickness(f.x(column), f.y(row)))
		}
	}
}

// smooth rises from 0 at a to 1 at b.
func smooth(a, b, v float64) float64 {
	t := min(max((v-a)/(b-a), 0), 1)
	return t * t * (3 - 2*t)
}

// root is the square root of what is above 0.
func root(v float64) float64 { return math.Sqrt(max(v, 0)) }
