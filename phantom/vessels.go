package phantom

import "math"

// drawVessels adds the arteries and veins of both lungs: they leave the hila, fork and end before the pleura.
func (s *scene) drawVessels(f *field) {
	r := random(s.text + 77)
	vessels := f.layer()
	defer f.merge(vessels)
	for _, l := range []*lung{&s.right, &s.left} {
		hilum := s.hila[0]
		if l.side == Left {
			hilum = s.hila[2]
		}
		inLung := func(x, y float64) float64 {
			tissue, _, filled := s.air(x, y)
			return smooth(4, 50, tissue) * (1 - filled)
		}
		t := tree{f: vessels, r: &r, weight: inLung, wall: solid(2.0 * (muSoft - muLung))}
		// Angles from straight down, towards the side: 0 down, 90 out, 180 up.
		for _, b := range []struct{ angle, width float64 }{
			{8, 4.6}, {24, 3.8}, {42, 3.0}, {62, 2.7}, {84, 2.3}, {108, 2.4}, {130, 2.8}, {150, 3.1}, {168, 2.6},
		} {
			a := (b.angle + r.around(8)) * math.Pi / 180
			t.grow(hilum.x, hilum.y+12*math.Cos(a), a, b.width*(0.9+0.2*r.unit()), l.sign, 0)
		}
	}
}

// tree draws a branching vessel.
type tree struct {
	f      *field
	r      *random
	weight func(x, y float64) float64
	wall   profile
}

func (t *tree) grow(x, y, angle, width, sign float64, forks int) {
	if width < 0.38 || forks > 8 {
		return
	}
	length := 15 + width*6 + t.r.around(5)
	bend := t.r.around(0.35)
	path := []point{{x, y, width}}
	const pieces = 8
	for i := 1; i <= pieces; i++ {
		angle += bend / pieces
		x += sign * math.Sin(angle) * length / pieces
		y += math.Cos(angle) * length / pieces
		path = append(path, point{x, y, width * (1 - 0.20*float64(i)/pieces)})
	}
	t.f.tube(path, t.wall, t.weight)
	open := 0.20 + 0.35*t.r.unit()
	t.grow(x, y, angle+open*0.7, width*(0.72+t.r.around(0.06)), sign, forks+1)
	t.grow(x, y, angle-open, width*(0.66+t.r.around(0.08)), sign, forks+1)
}
