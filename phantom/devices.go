package phantom

// drawPleura adds the line of the visceral pleura around a lung that has fallen from the chest wall.
func (s *scene) drawPleura(f *field) {
	for _, l := range []*lung{&s.right, &s.left} {
		if l.gap == 0 {
			continue
		}
		var line []point
		for y := l.apex + l.gap; y < l.dome+20; y += 2 {
			out := l.chestWall(y-l.gap*0.8) - l.gap*(1-0.8*smooth(90, 260, y))
			if out > lungRoot+2 && l.depth(out, y) > 0 {
				line = append(line, point{l.sign*out + s.spine(y), y, 0.55})
			}
		}
		f.tube(line, solid(0.11), nil)
	}
}

const (
	muPlastic = 0.05
	muMetal   = 0.9
)

// drawDevice adds what Options.Device asks for.
func (s *scene) drawDevice(f *field) {
	sign := -1.0
	if s.o.DeviceSide == Left {
		sign = 1
	}
	line := hollow(0.45, muPlastic*4, muPlastic*1.5)
	switch s.o.Device {
	case CentralLine:
		f.tube(curve(point{sign * 34, 2, 1.1}, point{sign * 30, 40, 1.1}, point{sign * 25, 85, 1.1}, point{-20 + 4*sign, 125, 1.1},
			point{-24, 165, 1.1}, point{-25, 208, 1.1}), line, nil)
	case Pacemaker:
		f.add(ellipse{x: sign * 104, y: 122, a: 24, b: 21, angle: 0.2 * sign, depth: 9, square: true}, muMetal*0.35)
		f.add(ellipse{x: sign * 104, y: 128, a: 15, b: 9, angle: 0.2 * sign, depth: 5, square: true}, muMetal*0.4)
		f.add(ellipse{x: sign * 97, y: 103, a: 13, b: 5, depth: 5, square: true}, muMetal*0.2)
		f.tube(curve(point{sign * 88, 103, 1}, point{sign * 62, 92, 1}, point{sign * 32, 104, 1}, point{-16 + 4*sign, 128, 1}, point{-25, 180, 1},
			point{-27, 232, 1}, point{-6, 276, 1}, point{30, 290, 1}, point{46, 290, 1}), solid(muMetal*0.6), nil)
		f.tube([]point{{42, 290, 1.5}, {49, 290, 1.5}}, solid(muMetal), nil)
	case ChestTube:
		path := curve(point{sign * 172, 262, 3.6}, point{sign * 140, 246, 3.6}, point{sign * 112, 200, 3.6}, point{sign * 88, 140, 3.6}, point{sign * 66, 96, 3.6}, point{sign * 56, 84, 3.4})
		f.tube(path, hollow(0.8, muPlastic*1.6, 0), nil)
		stripe := make([]point, len(path))
		for i, p := range path {
			stripe[i] = point{p.x + 1.6*sign, p.y, 0.6}
		}
		f.tube(stripe, solid(muMetal*0.5), nil)
	case TrachealTube:
		f.tube(curve(point{1, -8, 5.2}, point{-1, 60, 5.2}, point{-3, 128, 5.2}), hollow(0.9, muPlastic, 0), nil)
		f.tube(curve(point{3.6, -8, 0.6}, point{1.8, 60, 0.6}, point{-0.5, 127, 0.6}), solid(muMetal*0.5), nil)
	}
}

// letters are strokes in a box one wide and one high, from the upper left.
var letters = map[rune][][]point{
	'A': {{{x: 0, y: 1}, {x: 0.5, y: 0}, {x: 1, y: 1}}, {{x: 0.2, y: 0.62}, {x: 0.8, y: 0.62}}},
	'H': {{{x: 0, y: 0}, {x: 0, y: 1}}, {{x: 1, y: 0}, {x: 1, y: 1}}, {{x: 0, y: 0.5}, {x: 1, y: 0.5}}},
	'L': {{{x: 0, y: 0}, {x: 0, y: 1}, {x: 0.9, y: 1}}},
	'M': {{{x: 0, y: 1}, {x: 0, y: 0}, {x: 0.5, y: 0.6}, {x: 1, y: 0}, {x: 1, y: 1}}},
	'N': {{{x: 0, y: 1}, {x: 0, y: 0}, {x: 1, y: 1}, {x: 1, y: 0}}},
	'O': {{{x: 0.3, y: 0}, {x: 0.7, y: 0}, {x: 1, y: 0.3}, {x: 1, y: 0.7}, {x: 0.7, y: 1}, {x: 0.3, y: 1}, {x: 0, y: 0.7}, {x: 0, y: 0.3}, {x: 0.3, y: 0}}},
	'P': {{{x: 0, y: 1}, {x: 0, y: 0}, {x: 0.7, y: 0}, {x: 1, y: 0.25}, {x: 0.7, y: 0.5}, {x: 0, y: 0.5}}},
	'T': {{{x: 0, y: 0}, {x: 1, y: 0}}, {{x: 0.5, y: 0}, {x: 0.5, y: 1}}},
}

// drawMarkers adds lead letters above the shoulders: the patient's left side, and what the picture is.
func (s *scene) drawMarkers(f *field) {
	f.letter('L', 128, 22, 8, 12)
	x := -158.0
	for _, r := range "PHANTOM" {
		f.letter(r, x, 22, 5, 7)
		x += 8
	}
}

func (f *field) letter(r rune, x, y, width, height float64) {
	const stroke = 0.8
	for _, line := range letters[r] {
		path := make([]point, len(line))
		for i, p := range line {
			path[i] = point{x + p.x*width, y + p.y*height, stroke}
		}
		f.tube(path, func(float64, float64) float64 { return 1.6 }, nil)
	}
}
