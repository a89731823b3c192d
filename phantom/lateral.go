package phantom

import "math"

// A left lateral view: the patient looks to the left edge of the image, arms raised. x is 0 in the middle of the trunk, front negative.

// lateralBody is the thickness from side to side, and the edges of the trunk at y.
func (s *scene) lateralBody(x, y float64) float64 {
	front := -52 - 62*smooth(30, 150, y) - 8*math.Sin((y-150)/80)*smooth(150, 200, y)
	back := 84 + 26*smooth(20, 110, y) - 14*smooth(230, 360, y)
	middle, half := (front+back)/2, (back-front)/2
	q := (x - middle) / half
	arm := 110 * root(1-(x+30)*(x+30)/(75*75)) * (1 - smooth(10, 80, y)) // raised, at the upper edge
	wide := 116 + 134*smooth(30, 140, y)
	return s.build * max(wide*root(1-q*q*q*q), arm)
}

// lateralDepth is the room for air of both lungs together.
func (s *scene) lateralDepth(x, y float64) float64 {
	if y < s.left.apex {
		return 0
	}
	up := max(250-y, 0) / (250 - s.left.apex)
	front := -22 - 70*root(1-up*up*1.02)
	back := 44 + 48*root(1-math.Pow(up, 2.4)) - 6*smooth(250, 340, y)
	if x <= front || x >= back {
		return 0
	}
	u := (2*x - front - back) / (back - front)
	room := 196 * root(1-u*u*u*u) * root(1-up*up)
	right := s.right.dome + 16 - 12*math.Cos((x+18)/58) + 58*smooth(10, 92, x) - 3
	left := right + 9
	half := room / 2
	return half*(1-smooth(right-0.8, right+0.8, y)) + half*(1-smooth(left-0.8, left+0.8, y))
}

// drawLateral draws a left lateral view, without findings.
func (s *scene) drawLateral(f *field) {
	heart := []ellipse{
		{x: -38, y: s.left.dome - 42, a: 62, b: 44, angle: 0.75, depth: 92, square: true},
		{x: 42, y: 240, a: 11, b: 95, depth: 16}, // descending aorta
	}
	clouds := []ellipse{
		{x: 0, y: 196, a: 15, b: 17, depth: 58}, // hila
		{x: 4, y: 160, a: 26, b: 16, depth: 34}, // aortic arch
		{x: -30, y: 112, a: 22, b: 48, depth: 52},
		{x: -22, y: 190, a: 24, b: 40, depth: 30}, // ascending aorta
	}
	parallel(f.rows, func(from, to int) {
		for row := from; row < to; row++ {
			y := f.y(row)
			for column := range f.columns {
				x := f.x(column)
				thick := s.lateralBody(x, y)
				if thick <= 0 {
					continue
				}
				room := s.lateralDepth(x, y)
				if room > 0 {
					var organ float64
					for i := range heart {
						organ = max(organ, heart[i].thickness(x, y))
					}
					for i := range clouds {
						organ += clouds[i].cloud(x, y)
					}
					room = max(room-organ, 0) * (1 + 0.05*lattice(s.text, x/5, y/5) + 0.04*lattice(s.text+2, x/25, y/25))
				}
				windpipe := 13 * root(1-(x-6-0.06*y)*(x-6-0.06*y)/60) * (1 - smooth(168, 186, y))
				f.v[row*f.columns+column] = float32(max(muSoft*(thick-room-windpipe)+muLung*room, 0))
			}
		}
	})
	s.drawLateralBones(f)
	s.drawMarkers(f)
}

func (s *scene) drawLateralBones(f *field) {
	y, height := 20.0, 15.0
	for range 17 {
		x := 58 + 22*math.Sin((y-20)/115) // kyphosis
		f.add(ellipse{x: x, y: y + height/2, a: 10 + height*0.2, b: height / 2, depth: 26, square: true}, muBone*0.55)
		f.add(ellipse{x: x + 24, y: y + height*0.8, a: 14, b: 5, angle: 0.5, depth: 10}, muBone*0.6)
		y += height + 4
		height += 0.8
	}
	f.tube(curve(point{-58, 96, 5}, point{-84, 150, 5.5}, point{-98, 215, 5}, point{-100, 245, 3.5}), hollow(1, muBone*2, muBone*0.6), nil) // sternum
	for k := range 10 {
		top := 66 + 22*float64(k)
		x := 62 + 22*math.Sin((top-20)/115)
		for _, shift := range []float64{0, 5} { // the far side's are larger
			f.tube(curve(point{x + 6, top + shift, 3.5}, point{x + 24, top + 14 + shift, 4}, point{x + 8, top + 34 + shift, 4.2}, point{x - 45, top + 62 + shift*2, 4.4},
				point{x - 95, top + 92 + shift*2, 4.6}, point{-70 - 2*float64(k), top + 104 + shift*2, 4.8}), hollow(0.6, muBone*1.6, muBone*0.4),
				func(px, py float64) float64 { return smooth(-104, -70, px) })
		}
	}
	f.tube(curve(point{88, 40, 2.5}, point{96, 100, 2.5}, point{84, 168, 3}), hollow(0.8, muBone*1.5, muBone*0.3), nil) // scapula
}
