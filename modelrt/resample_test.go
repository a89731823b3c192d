package modelrt

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"testing"

	"chatxray/pipeline"
)

// golden is one resize by Pillow of the picture that formula makes (testdata/resample/golden.py).
type golden struct {
	Columns int        `json:"columns"`
	Rows    int        `json:"rows"`
	Kernel  string     `json:"kernel"`
	Width   int        `json:"width"`
	Height  int        `json:"height"`
	Box     [4]float64 `json:"box"` // left, top, right, bottom
	Values  []float32  `json:"values,omitempty"`
}

func (g golden) fit() string {
	if g.Box == [4]float64{0, 0, float64(g.Columns), float64(g.Rows)} {
		return "squash"
	}
	return "crop"
}

func (g golden) spec() Preprocess {
	p := spec(g.Width, g.Height)
	p.Fit, p.Interpolation = g.fit(), g.Kernel
	return p
}

func everyOrientation() []pipeline.Orientation {
	var all []pipeline.Orientation
	for i := range 8 {
		all = append(all, pipeline.Orientation{Transpose: i&4 != 0, FlipX: i&2 != 0, FlipY: i&1 != 0})
	}
	return all
}

// laid returns an image that is stored as o says and reads upright as m does.
func laid(m *pipeline.Image, o pipeline.Orientation) *pipeline.Image {
	out := *m
	out.Upright = o
	if o.Transpose {
		out.Rows, out.Columns = m.Columns, m.Rows
	}
	out.Bottom, out.Right = out.Rows, out.Columns
	out.Pix16 = make([]uint16, len(m.Pix16))
	for v := range m.Rows {
		for u := range m.Columns {
			x, y := u, v
			if o.FlipX {
				x = m.Columns - 1 - x
			}
			if o.FlipY {
				y = m.Rows - 1 - y
			}
			if o.Transpose {
				x, y = y, x
			}
			out.Pix16[y*out.Columns+x] = m.Pix16[v*m.Columns+u]
		}
	}
	return &out
}

func TestEqualsPillow(t *testing.T) {
	raw, err := os.ReadFile("testdata/resample/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []golden
	if err := json.Unmarshal(raw, &cases); err != nil {
		t.Fatal(err)
	}
	var worst float64
	for _, g := range cases {
		m := formula(g.Columns, g.Rows)
		for _, o := range everyOrientation() {
			far := farthest(t, tensor(t, g.spec(), laid(m, o)), g.Values)
			worst = max(worst, far)
			if far > 1e-5 {
				t.Errorf("%s %s %d×%d to %d×%d, stored %+v: off by %v", g.Kernel, g.fit(), g.Columns, g.Rows, g.Width, g.Height, o, far)
			}
		}
	}
	t.Logf("%d cases in 8 orientations, worst difference %.2g", len(cases), worst)
}

func TestEqualsPillowLive(t *testing.T) {
	const python = "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import numpy, PIL").Run(); err != nil {
		t.Skip("python3-pil or python3-numpy absent: Pillow is not asked, only its stored values are compared")
	}
	for _, g := range []golden{
		{Columns: 2048, Rows: 2500, Kernel: "bicubic", Width: 448, Height: 448, Box: [4]float64{0, 0, 2048, 2500}},
		{Columns: 1841, Rows: 1955, Kernel: "bicubic", Width: 320, Height: 320, Box: [4]float64{0, 0, 1841, 1955}},
		{Columns: 1000, Rows: 700, Kernel: "lanczos", Width: 96, Height: 64, Box: [4]float64{0, 0, 1000, 700}},
	} {
		ask, err := json.Marshal(g)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(python, "testdata/resample/golden.py", "live")
		cmd.Stdin, cmd.Stderr = bytes.NewReader(ask), os.Stderr
		raw, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		want := make([]float32, len(raw)/4)
		for i := range want {
			want[i] = math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:]))
		}
		far := farthest(t, tensor(t, g.spec(), formula(g.Columns, g.Rows)), want)
		t.Logf("%s %d×%d to %d×%d: worst difference %.2g", g.Kernel, g.Columns, g.Rows, g.Width, g.Height, far)
		if far > 1e-5 {
			t.Errorf("%s: off by %v", g.Kernel, far)
		}
	}
}

func TestWeightsSumToOne(t *testing.T) {
	for name, k := range kernels {
		for _, c := range [][2]int{{1, 1}, {1, 9}, {9, 1}, {2500, 448}, {7, 4096}, {3, 2}} {
			var axis taps
			axis.build(k, c[0], 0, float64(c[0]), c[1], false)
			for o := range c[1] {
				first, w := axis.of(o)
				var sum float64
				for _, v := range w {
					sum += float64(v)
				}
				if math.Abs(sum-1) > 1e-5 || first < 0 || first+len(w) > c[0] {
					t.Fatalf("%s %d to %d, output %d: weights from %d sum to %v", name, c[0], c[1], o, first, sum)
				}
			}
		}
	}
}

// slowly resamples m by the definition: the upright picture in float64, each output pixel a double sum over all of it.
func slowly(p Preprocess, m *pipeline.Image) []float32 {
	at := p.Place(m)
	rows, columns := m.UprightSize()
	gray := func(x, y int) float64 {
		if m.Upright.FlipX {
			x = columns - 1 - x
		}
		if m.Upright.FlipY {
			y = rows - 1 - y
		}
		if m.Upright.Transpose {
			x, y = y, x
		}
		if x < m.Left || x >= m.Right || y < m.Top || y >= m.Bottom {
			return 0
		}
		return float64(m.LUT[wordAt(m, y*m.Columns+x)])
	}
	weights := func(o int, from, span float64, out, in int) []float64 {
		scale := span / float64(out)
		centre, stretch := from+(float64(o)+0.5)*scale, max(scale, 1)
		w, sum := make([]float64, in), 0.0
		for i := max(int(centre-kernels[p.Interpolation].support*stretch+0.5), 0); i < min(int(centre+kernels[p.Interpolation].support*stretch+0.5), in); i++ {
			w[i] = kernels[p.Interpolation].weight((float64(i) - centre + 0.5) / stretch)
			sum += w[i]
		}
		for i := range w {
			w[i] /= sum
		}
		return w
	}
	out := make([]float32, at.Width*at.Height)
	for v := range at.H {
		down := weights(v, at.Top, at.SourceHeight, at.H, rows)
		for u := range at.W {
			across := weights(u, at.Left, at.SourceWidth, at.W, columns)
			var sum float64
			for y, wy := range down {
				for x, wx := range across {
					if wx*wy != 0 {
						sum += wx * wy * gray(x, y)
					}
				}
			}
			out[(at.Y+v)*at.Width+at.X+u] = float32(sum)
		}
	}
	return out
}

// TestEqualsTheDefinition tries shapes that no other test has, one Preprocessor for images of changing sizes.
func TestEqualsTheDefinition(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	names := slices.Sorted(maps.Keys(kernels))
	for range 60 {
		p := fitted(spec(1+r.IntN(12), 1+r.IntN(12)), fits[r.IntN(len(fits))])
		p.Interpolation = names[r.IntN(len(names))]
		pp, err := NewPreprocessor(p)
		if err != nil {
			t.Fatal(err)
		}
		for range 4 {
			m := formula(1+r.IntN(40), 1+r.IntN(40))
			if r.IntN(2) == 0 {
				m.Pix8, m.LUT = make([]uint8, len(m.Pix16)), m.LUT[:1<<8]
				for i, w := range m.Pix16 {
					m.Pix8[i] = uint8(w)
				}
				m.Pix16 = nil
			}
			m.Top, m.Left = r.IntN(m.Rows+1)/2, r.IntN(m.Columns+1)/2
			m.Bottom, m.Right = m.Top+r.IntN(m.Rows-m.Top+1), m.Left+r.IntN(m.Columns-m.Left+1)
			m.Upright = everyOrientation()[r.IntN(8)]
			at := pp.Place(m)
			got := make([]float32, at.Width*at.Height)
			if err := pp.Into(got, m); err != nil {
				t.Fatal(err)
			}
			if far := farthest(t, got, slowly(p, m)); far > 1e-5 {
				t.Fatalf("%+v of %d×%d, shutter %d %d %d %d, %+v: off by %v", p, m.Columns, m.Rows, m.Top, m.Left, m.Bottom, m.Right, m.Upright, far)
			}
		}
	}
}
