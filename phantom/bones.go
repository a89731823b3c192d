package phantom

import "math"

// drawBones adds the skeleton, from back to front.
func (s *scene) drawBones(f *field) {
	s.drawSpine(f)
	bone := f.layer()
	for _, l := range []*lung{&s.right, &s.left} {
		for k := range 11 {
			s.drawRib(bone, l, k)
			f.merge(bone)
		}
		s.drawShoulder(bone, l)
		f.merge(bone)
		s.drawFlatBones(f, l)
	}
}

// drawSpine adds twelve thoracic vertebrae and two below.
func (s *scene) drawSpine(f *field) {
	y, height := -14.0, 13.6
	for range 19 {
		half := 12 + height*0.28
		x := s.spine(y + height/2)
		s.drawVertebra(f, x, y, half, height)
		y += height + 4.2
		height += 0.75
	}
}

func (s *scene) drawVertebra(f *field, x, y, half, height float64) {
	c0, r0, c1, r1 := f.box(x-half-3, y-3, x+half+3, y+height+3)
	for row := r0; row < r1; row++ {
		py := f.y(row)
		end := min(py-y, y+height-py) // from the nearer end plate
		for column := c0; column < c1; column++ {
			side := half - math.Abs(f.x(column)-x) - 1.6*math.Sin(math.Pi*min(max((py-y)/height, 0), 1)) // waisted
			in := smooth(-0.8, 0.8, side) * smooth(-0.8, 0.8, end)
			if in == 0 {
				continue
			}
			rim := 0.05*math.Exp(-end*end/2.5) + 0.03*math.Exp(-side*side/2)
			f.v[row*f.columns+column] += float32(in * (0.23 + rim))
		}
	}
	mid := y + height*0.45
	for _, sign := range []float64{-1, 1} {
		f.add(ellipse{x: x + sign*half*0.62, y: mid - 1, a: 3.2, b: 4.6, depth: 5}, muBone)                      // pedicle
		f.add(ellipse{x: x + sign*(half+7), y: mid + 1, a: 10, b: 4, angle: sign * -0.35, depth: 6}, muBone*0.7) // transverse process
	}
	f.add(ellipse{x: x, y: y + height*0.95, a: 3, b: 7, depth: 6}, muBone)
}

// drawRib adds a rib, k from 0: its posterior arc, and its anterior arc as far as the cartilage.
func (s *scene) drawRib(f *field, l *lung, k int) {
	start := 62 + 25.2*float64(k) - 0.25*float64(k*k)
	from := func(out, y, r float64) point { return point{l.sign*out + s.spine(y), y, r} }
	posterior, anterior := hollow(0.75, muBone*2.2, muBone*0.62), hollow(0.55, muBone*1.7, muBone*0.42)
	if k == 0 {
		f.tube(curve(from(14, 70, 4), from(32, 61, 4.5), from(54, 65, 5), from(66, 80, 5.5), from(56, 99, 6), from(34, 113, 7)), anterior, nil)
		return
	}
	drop := 26 + 2.6*float64(k)
	turn := start + drop
	wall := l.chestWall(min(turn, l.widest)) + 2.5
	if k == 1 {
		wall = max(wall, 86)
	}
	back := curve(from(15, start+2, 3.6), from(30, start-3, 4.2), from(wall*0.45, start-1, 4.7), from(wall*0.72, start+drop*0.22, 4.9),
		from(wall*0.92, start+drop*0.6, 4.2), from(wall, turn, 2.6))
	f.tube(back, posterior, nil)
	if k > 8 {
		return
	}
	// The anterior end lies farther out and lower with each rib.
	end, reach := 50+5.5*float64(k), 54+1.5*float64(k)
	front := curve(from(wall, turn, 2.6), from(wall*0.985, turn+12, 3.6), from(wall*0.90, turn+reach*0.48, 5), from((wall*0.90+end)/2, turn+reach*0.80, 5.6), from(end, turn+reach, 6.4))
	f.tube(front, anterior, func(x, y float64) float64 {
		return 0.9 * smooth(end-1, end+26, l.sign*(x-s.spine(y))) // fades into cartilage
	})
}

// drawShoulder adds the clavicle and the edges of the scapula.
func (s *scene) drawShoulder(f *field, l *lung) {
	in, lift := s.scapula(l)
	at := func(out, y, r float64) point { return point{l.sign * out, y + lift*0.5, r} }
	hard := hollow(1.1, muBone*1.9, muBone*0.5)
	f.tube(curve(at(13, 103, 6.2), at(30, 98, 6.2), at(62, 83, 5.6), at(100, 70, 5.2), at(135, 62, 6), at(166, 58, 7.5)), hard, nil)
	f.tube(curve(at(112-in, 104, 3), at(134-in, 92, 5), at(162-in*0.5, 74, 6)), hollow(0.8, muBone*1.3, muBone*0.3), nil)                           // spine of the scapula
	f.tube(curve(at(160-in, 112, 5), at(150-in, 150, 4.2), at(140-in, 192, 3.8), at(133-in, 212, 4)), hollow(0.9, muBone*1.3, muBone*0.3), nil)     // lateral border
	f.tube(curve(at(112-in, 104, 1.6), at(113-in, 140, 1.8), at(122-in, 185, 1.8), at(133-in, 212, 2.5)), hollow(0.6, muBone*1.2, muBone*0.3), nil) // medial border
}

// drawFlatBones adds the blade of the scapula, the head of the humerus and half of the manubrium.
func (s *scene) drawFlatBones(f *field, l *lung) {
	in, lift := s.scapula(l)
	f.add(ellipse{x: l.sign * (134 - in), y: 150 + lift, a: 25, b: 56, angle: l.sign * 0.08, depth: 2.2, square: true}, muBone)
	f.add(ellipse{x: l.sign * (180 - in*0.4), y: 96 + lift, a: 25, b: 26, depth: 34, square: true}, muBone*0.55)
	f.add(ellipse{x: 0, y: 128, a: 15, b: 34, depth: 7, square: true}, muBone*0.35)
}

// scapula is how far the shoulder blades lie over the lungs, and how much higher this one is.
func (s *scene) scapula(l *lung) (in, lift float64) {
	if s.o.View == AP {
		in = 22 // the arms hang
	}
	return in, 3 * l.sign
}
