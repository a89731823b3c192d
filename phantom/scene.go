package phantom

import "math"

// Attenuation per mm at about 65 keV, a beam of 120 kV behind a patient.
const (
	muSoft = 0.0195
	muLung = 0.0036
	muBone = 0.0300 // what bone adds to soft tissue
)

// scene is one patient, in the coordinates of field.
type scene struct {
	o     Options
	right lung
	left  lung
	heart []ellipse // the heart and the great vessels: they take the lung's place
	hila  []ellipse // right and left, two each; without sharp edges
	belly []ellipse // gas below the diaphragm
	lean  float64   // of the spine, mm over the whole height
	build float64   // thickness of the body, 1 on average
	patch []ellipse // of an opacity
	fluid float64   // y of the level of an effusion, in the middle of the lung
	text  uint64    // seed of all texture
}

// lung is one lung and its pleural space. Places within are told by out, the distance from the midline towards the patient's side.
type lung struct {
	side   Side
	sign   float64 // of x
	wall   float64 // out of the chest wall where it is widest
	apex   float64 // y
	widest float64 // y
	dome   float64 // y of the top of the diaphragm
	fluid  bool
	patch  bool
	gap    float64 // mm of air between lung and apex; 0 without a pneumothorax
}

func newScene(o Options) *scene {
	r := random(o.Seed*2 + 1)
	s := &scene{o: o, lean: r.around(4), build: 1 + r.around(0.06), text: r.next()}
	size := 1 + r.around(0.03)
	breath := r.around(8)
	if o.View == AP {
		breath -= 14 // supine, or sitting: less breath
	}
	s.right = lung{side: Right, sign: -1, wall: 137 * size, apex: 58 + r.around(3), widest: 300, dome: 296 + breath}
	s.left = lung{side: Left, sign: 1, wall: 136 * size, apex: 57 + r.around(3), widest: 300, dome: 309 + breath + r.around(3)}
	s.placeHeart(&r, breath)
	s.belly = []ellipse{
		{x: 62 + r.around(8), y: s.left.dome + 34 + r.around(4), a: 30 + r.around(5), b: 20 + r.around(3), angle: 0.15, depth: 48, square: true},
		{x: 106 + r.around(6), y: s.left.dome + 52 + r.around(6), a: 14, b: 8, angle: 0.5, depth: 18},
	}
	// The random numbers of a finding are drawn whether it is planted or not, so that the patient stays the same with and without it.
	s.fluid = s.right.dome - 34 + r.around(12)
	for range 11 {
		s.patch = append(s.patch, ellipse{x: 78 + r.around(30), y: 228 + r.around(34), a: 15 + r.unit()*13, b: 13 + r.unit()*12, angle: r.around(1.5), depth: 0.35 + r.unit()*0.35})
	}
	gap := 30 + r.around(6)
	for _, l := range []*lung{&s.right, &s.left} {
		l.fluid, l.patch = o.Effusion == l.side, o.Opacity == l.side
		if o.Pneumothorax == l.side {
			l.gap = gap
		}
	}
	return s
}

func (s *scene) placeHeart(r *random, breath float64) {
	wide, high := 1.0, 1.0
	if s.o.EnlargedHeart {
		wide, high = 1.40, 1.22
	}
	if s.o.View == AP {
		wide *= 1.08 // farther from the detector
	}
	x, y := r.around(4), 258+breath*0.6+r.around(4)
	base := y + 44
	down := func(y, height float64) float64 { return base - (base-y)*height } // grows upwards from the diaphragm
	s.heart = []ellipse{
		{x: x + 30*wide, y: down(y+8, high), a: 54 * wide, b: 42 * high, angle: 0.50, depth: 128, square: true}, // left ventricle
		{x: x - 10*wide, y: down(y+3, high), a: 28 * wide, b: 46 * high, angle: 0.06, depth: 118, square: true}, // right atrium
		{x: x + 13, y: down(y-36, high), a: 31 * wide, b: 38, angle: -0.25, depth: 118, square: true},           // outflow tract
		{x: x + 16*wide, y: down(y+44, high), a: 52 * wide, b: 24, depth: 118, square: true},                    // on the diaphragm
		{x: x + 25, y: 196 + r.around(3), a: 17, b: 30, angle: -0.42, depth: 85, square: true},                  // pulmonary trunk
		{x: 20 + r.around(3), y: 153 + r.around(4), a: 18 + r.around(2), b: 17, depth: 85, square: true},        // aortic knob
		{x: 14, y: 230, a: 15, b: 95, angle: 0.03, depth: 45},                                                   // descending aorta
		{x: -12, y: 172, a: 17, b: 74, angle: -0.04, depth: 70, square: true},                                   // superior vena cava
		{x: 1, y: 104, a: 25, b: 66, depth: 90, square: true},                                                   // vessels of the neck
		{x: 3, y: 158, a: 23, b: 70, depth: 120, square: true},
	}
	s.hila = []ellipse{
		{x: -38 + r.around(3), y: 196 + r.around(4), a: 10, b: 22, angle: -0.30, depth: 40},
		{x: -36, y: 178, a: 13, b: 9, angle: 0.5, depth: 26},
		{x: 43 + r.around(3), y: 186 + r.around(4), a: 12, b: 17, angle: 0.4, depth: 36},
		{x: 47, y: 204, a: 8, b: 17, angle: -0.25, depth: 24},
	}
}

// spine is the x of the midline at y.
func (s *scene) spine(y float64) float64 { return s.lean * math.Sin(y/130) }

// body is the thickness of the trunk, neck and shoulders.
func (s *scene) body(x, y float64) float64 {
	ax := math.Abs(x)
	wide := 52 + 60*smooth(-20, 110, y)
	neck := 112 * root(1-x*x/(wide*wide)) * (1 - smooth(40, 130, y))
	shoulder := 14 + 66*math.Pow(max(ax-40, 0)/132, 1.2) // y of the skin
	half := 152 + 75*(1-smooth(105, 225, y)) - 4*smooth(250, 420, y)
	depth := 132 + 82*smooth(50, 180, y)
	q := ax / half
	trunk := depth * root(1-q*q*q*q) * root(smooth(shoulder-4, shoulder+55, y))
	return s.build * max(neck, trunk)
}

// chestWall is how far out the chest wall of a lung is at y; 0 above the apex.
func (l *lung) chestWall(y float64) float64 {
	if y >= l.widest {
		return l.wall
	}
	up := (l.widest - y) / (l.widest - l.apex)
	if up >= 1 {
		return 0
	}
	return l.wall * math.Sqrt(1-math.Pow(up, 2.35))
}

// diaphragm is the y of its dome at out.
func (l *lung) diaphragm(out float64) float64 {
	d := (out - 56) / 80
	if d > 0 {
		return l.dome + 54*d*d
	}
	return l.dome + 22*d*d
}

const lungRoot = 13.0 // out of the lungs' edge beside the spine

// depth is the room for air at a place: front to back of the pleural cavity.
func (l *lung) depth(out, y float64) float64 {
	wall := l.chestWall(y)
	if out <= lungRoot-4 || out >= wall {
		return 0
	}
	u := (out - lungRoot) / (wall - lungRoot)
	across := root(1-math.Pow(max(u, 0), 2.6)) * (0.78 + 0.22*smooth(0, 0.4, u)) * smooth(lungRoot-4, lungRoot+4, out)
	up := max(l.widest-y, 0) / (l.widest - l.apex)
	d := 168 * across * root(1-up*up*0.97)
	if floor := l.diaphragm(out); y > floor-1 {
		behind := 24 * max(1-(y-floor)/38, 0) * across * smooth(45, 90, out) // the recess behind the dome
		d = d + (behind-d)*smooth(floor-0.8, floor+1.6, y)
	}
	return d
}

// split parts the room of a lung into tissue and free air, and takes away what a finding fills. filled is the part of the room, 0 to 1, that
// is fluid or consolidated lung.
func (s *scene) split(l *lung, out, x, y float64) (tissue, free, filled float64) {
	room := l.depth(out, y)
	if room == 0 {
		return 0, 0, 0
	}
	tissue = room
	if l.gap > 0 {
		in := s.collapsed(l, out, y)
		tissue, free = room*in, room*(1-in)
	}
	if l.fluid {
		wall := l.chestWall(y)
		level := s.fluid - 52*math.Exp(-(wall-out)/17) - 9*math.Exp(-(out-lungRoot)/15)
		filled = smooth(level-5, level+34, y)
	}
	if l.patch {
		filled = max(filled, s.patched(out, x, y))
	}
	return tissue * (1 - filled), free * (1 - filled), filled
}

// collapsed is 1 within a lung that has fallen from the chest wall, 0 in the air around it.
func (s *scene) collapsed(l *lung, out, y float64) float64 {
	edge := l.chestWall(y-l.gap*0.8) - l.gap*(1-0.8*smooth(90, 260, y))
	return 1 - smooth(edge-0.4, edge+0.4, out)
}

// patched is how much of the lung an opacity fills.
func (s *scene) patched(out, x, y float64) float64 {
	var sum float64
	for i := range s.patch {
		p := &s.patch[i]
		if dx, dy := out-p.x, y-p.y; dx*dx+dy*dy < 60*60 {
			sum += p.depth * math.Exp(-dx*dx/(p.a*p.a)-dy*dy/(p.b*p.b))
		}
	}
	if sum < 0.02 {
		return 0
	}
	return min(sum, 0.8) * (0.85 + 0.3*lattice(s.text+9, x/11, y/11))
}

// lungAt is the lung on whose side x is.
func (s *scene) lungAt(x float64) (l *lung, out float64) {
	if x < 0 {
		return &s.right, -x
	}
	return &s.left, x
}

// drawFrontal draws a PA or AP view.
func (s *scene) drawFrontal(f *field) {
	parallel(f.rows, func(from, to int) {
		for row := from; row < to; row++ {
			y := f.y(row)
			for column := range f.columns {
				f.v[row*f.columns+column] = float32(s.soft(f.x(column), y))
			}
		}
	})
	s.drawVessels(f)
	s.drawBones(f)
	s.drawPleura(f)
	s.drawDevice(f)
	s.drawMarkers(f)
}

// air is split at a place, less what the heart, the vessels and the hila take.
func (s *scene) air(x, y float64) (tissue, free, filled float64) {
	l, out := s.lungAt(x - s.spine(y))
	tissue, free, filled = s.split(l, out, x, y)
	if tissue+free == 0 {
		return 0, 0, filled
	}
	var organ float64
	for i := range s.heart {
		organ = max(organ, s.heart[i].thickness(x, y))
	}
	if organ > 0 {
		keep := max(1-organ/l.depth(out, y), 0)
		tissue, free = tissue*keep, free*keep
	}
	for i := range s.hila {
		tissue = max(tissue-s.hila[i].cloud(x, y), 0)
	}
	return tissue, free, filled
}

// soft is the attenuation of all that is not bone, vessel or device.
func (s *scene) soft(x, y float64) float64 {
	thick := s.body(x, y)
	if thick <= 0 {
		return 0
	}
	tissue, free, _ := s.air(x, y)
	if tissue > 0 { // small structure of the lung, and air that is not spread evenly
		tissue *= 1 + 0.030*lattice(s.text, x/2.4, y/2.4) + 0.035*lattice(s.text+1, x/6, y/6) + 0.05*lattice(s.text+2, x/30, y/30)
	}
	gas := s.trachea(x, y)
	if y > s.left.dome {
		gas += s.bellyGas(x, y)
	}
	thick *= 1 + 0.012*lattice(s.text+3, x/22, y/22)
	return max(muSoft*(thick-tissue-free-gas)+muLung*tissue, 0)
}

// bellyGas is the gas in stomach and bowel. Who stands has fluid below it.
func (s *scene) bellyGas(x, y float64) float64 {
	var gas float64
	for i := range s.belly {
		gas += s.belly[i].thickness(x, y)
	}
	if gas > 0 && s.o.View == PA {
		gas *= 1 - smooth(s.belly[0].y+6, s.belly[0].y+7, y)
	}
	return gas
}

// trachea is the air in it and in the two main bronchi.
func (s *scene) trachea(x, y float64) float64 {
	const carina, half = 172.0, 8.5
	x -= s.spine(y)
	x += 3 * smooth(100, 160, y) // the aorta pushes it to the right
	if y < carina {
		return 15 * root(1-x*x/(half*half)) * smooth(-30, 10, y)
	}
	below := y - carina
	fade := 1 - smooth(14, 34, below)
	if fade == 0 {
		return 0
	}
	right, left := x+2+0.75*below, x-2-1.1*below
	return 11 * fade * max(root(1-right*right/49), root(1-left*left/42))
}
