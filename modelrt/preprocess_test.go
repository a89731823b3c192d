package modelrt

import (
	"errors"
	"math"
	"strings"
	"testing"

	"chatxray/pipeline"
)

// formula is the picture of testdata/resample/golden.py as 12-bit words.
func formula(columns, rows int) *pipeline.Image {
	m := &pipeline.Image{Rows: rows, Columns: columns, Bottom: rows, Right: columns, Pix16: make([]uint16, rows*columns), LUT: make([]float32, 1<<16)}
	for y := range rows {
		for x := range columns {
			m.Pix16[y*columns+x] = uint16((37*x + 101*y + 3*x*y) % 4096)
		}
	}
	for i := range m.LUT {
		m.LUT[i] = min(float32(i)/4095, 1)
	}
	return m
}

func spec(width, height int) Preprocess {
	return Preprocess{Width: width, Height: height, Channels: 1, Fit: "squash", Interpolation: "bicubic", Mean: []float64{0}, Std: []float64{1}, VOI: "default"}
}

func tensor(t *testing.T, p Preprocess, m *pipeline.Image) []float32 {
	t.Helper()
	pp, err := NewPreprocessor(p)
	if err != nil {
		t.Fatal(err)
	}
	at := pp.Place(m)
	out := make([]float32, p.Channels*at.Width*at.Height)
	if err := pp.Into(out, m); err != nil {
		t.Fatal(err)
	}
	return out
}

// farthest is the largest absolute difference of two slices.
func farthest(t *testing.T, got, want []float32) float64 {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d values, want %d", len(got), len(want))
	}
	var far float64
	for i := range got {
		far = max(far, math.Abs(float64(got[i]-want[i])))
	}
	return far
}

func TestValidateNamesEveryFault(t *testing.T) {
	if err := spec(320, 320).Validate(); err != nil {
		t.Fatal(err)
	}
	bad := Preprocess{Width: 0, Height: 1 << 20, Channels: 2, Fit: "stretch", Interpolation: "cubic", Mean: []float64{math.NaN()}, Std: []float64{0, 1}, VOI: "auto"}
	err := bad.Validate()
	if !errors.Is(err, pipeline.ErrInvalid) {
		t.Fatalf("%v does not wrap ErrInvalid", err)
	}
	for _, key := range []string{"width", "height", "channels", "fit", "interpolation", "mean", "std", "voi"} {
		if !strings.Contains(err.Error(), "preprocess."+key) {
			t.Errorf("nothing about %s in:\n%v", key, err)
		}
	}
	if _, err := NewPreprocessor(bad); err == nil {
		t.Error("NewPreprocessor took it")
	}
}

func TestPlace(t *testing.T) {
	for _, c := range []struct {
		fit           string
		columns, rows int
		stored        string
		want          Placement
	}{
		{"squash", 200, 100, "", Placement{Width: 50, Height: 50, W: 50, H: 50, SourceWidth: 200, SourceHeight: 100}},
		{"pad", 200, 100, "", Placement{Width: 50, Height: 50, Y: 12, W: 50, H: 25, SourceWidth: 200, SourceHeight: 100}},
		{"pad", 200, 100, "transposed", Placement{Width: 50, Height: 50, X: 12, W: 25, H: 50, SourceWidth: 100, SourceHeight: 200}},
		{"crop", 200, 100, "", Placement{Width: 50, Height: 50, W: 50, H: 50, Left: 50, SourceWidth: 100, SourceHeight: 100}},
		{"keep", 200, 100, "", Placement{Width: 50, Height: 25, W: 50, H: 25, SourceWidth: 200, SourceHeight: 100}},
		{"keep", 20, 10, "", Placement{Width: 20, Height: 10, W: 20, H: 10, SourceWidth: 20, SourceHeight: 10}},
		{"pad", 1000, 1, "", Placement{Width: 50, Height: 50, Y: 24, W: 50, H: 1, SourceWidth: 1000, SourceHeight: 1}},
	} {
		m := formula(c.columns, c.rows)
		m.Upright.Transpose = c.stored != ""
		p := spec(50, 50)
		p.Fit = c.fit
		got := p.Place(m)
		got.rows, got.columns, got.upright = 0, 0, pipeline.Orientation{}
		if got != c.want {
			t.Errorf("%s of %d×%d %s: %+v, want %+v", c.fit, c.columns, c.rows, c.stored, got, c.want)
		}
	}
}

// fitted sets a fit, and what the fit area needs besides.
func fitted(p Preprocess, fit string) Preprocess {
	if p.Fit = fit; fit == "area" {
		p.Patch, p.MinPixels, p.MaxPixels = 2, 16, 3600
		p.Width, p.Height = max(p.Width, 4)/2*2, max(p.Height, 4)/2*2
	}
	return p
}

func TestToSourceFindsThePixel(t *testing.T) {
	for _, o := range everyOrientation() {
		for _, fit := range fits {
			m := formula(120, 80)
			m.Upright = o
			clear(m.Pix16)
			const column, row = 70, 33
			for y := row - 2; y <= row+2; y++ {
				for x := column - 2; x <= column+2; x++ {
					m.Pix16[y*m.Columns+x] = 4095
				}
			}
			p := fitted(spec(60, 60), fit)
			at := p.Place(m)
			out := tensor(t, p, m)
			var sx, sy, sum float64
			for i, v := range out {
				sx += float64(v) * (float64(i%at.Width) + 0.5)
				sy += float64(v) * (float64(i/at.Width) + 0.5)
				sum += float64(v)
			}
			c, r := at.ToSource(sx/sum, sy/sum)
			if math.Abs(c-column-0.5) > 0.05 || math.Abs(r-row-0.5) > 0.05 {
				t.Errorf("%s %+v: the spot at %v, %v comes back as %v, %v", fit, o, column+0.5, row+0.5, c, r)
			}
			x, y := at.FromSource(c, r)
			if math.Abs(x-sx/sum) > 1e-9 || math.Abs(y-sy/sum) > 1e-9 {
				t.Errorf("%s %+v: FromSource does not invert ToSource", fit, o)
			}
		}
	}
}

func TestPadIsBlack(t *testing.T) {
	m := formula(40, 20)
	for i := range m.Pix16 {
		m.Pix16[i] = 4095
	}
	p := Preprocess{Width: 8, Height: 8, Channels: 3, Fit: "pad", Interpolation: "bilinear", Mean: []float64{0.5, 0.25, 0}, Std: []float64{0.5, 0.25, 2}, VOI: "default"}
	out := tensor(t, p, m)
	for c, want := range [][2]float32{{-1, 1}, {-1, 3}, {0, 0.5}} {
		for y := range 8 {
			for x := range 8 {
				w := want[0]
				if y >= 2 && y < 6 {
					w = want[1]
				}
				if got := out[c*64+y*8+x]; math.Abs(float64(got-w)) > 1e-5 {
					t.Fatalf("channel %d at %d, %d: %v, want %v", c, x, y, got, w)
				}
			}
		}
	}
	pp, _ := NewPreprocessor(p)
	gray := make([]uint8, 64)
	if err := pp.Gray(gray, m); err != nil {
		t.Fatal(err)
	}
	if gray[0] != 0 || gray[3*8+3] != 255 {
		t.Errorf("gray picture has %d in the pad and %d inside", gray[0], gray[3*8+3])
	}
}

func TestGrayIsTheTensor(t *testing.T) {
	m := formula(90, 70)
	p := spec(24, 24)
	out := tensor(t, p, m)
	pp, _ := NewPreprocessor(p)
	gray := make([]uint8, 24*24)
	if err := pp.Gray(gray, m); err != nil {
		t.Fatal(err)
	}
	for i, g := range gray {
		if want := math.Round(min(max(float64(out[i]), 0), 1) * 255); math.Abs(float64(g)-want) > 0.01 {
			t.Fatalf("pixel %d is %d, the tensor says %v", i, g, out[i])
		}
	}
}

func TestShutterReadsAsZero(t *testing.T) {
	for _, o := range everyOrientation() {
		inside, masked := formula(60, 50), formula(60, 50)
		inside.Top, inside.Bottom, inside.Left, inside.Right = 7, 41, 12, 55
		for i := range masked.Pix16 {
			if x, y := i%60, i/60; x < 12 || x >= 55 || y < 7 || y >= 41 {
				masked.Pix16[i] = 0
			}
		}
		inside.Upright, masked.Upright = o, o
		if far := farthest(t, tensor(t, spec(13, 17), inside), tensor(t, spec(13, 17), masked)); far > 1e-6 {
			t.Errorf("%+v: shutter and zeroed pixels differ by %v", o, far)
		}
	}
	shut := formula(60, 50)
	shut.Top, shut.Bottom, shut.Left, shut.Right = 20, 20, 60, 60
	for _, v := range tensor(t, spec(13, 17), shut) {
		if v != 0 {
			t.Fatalf("a closed shutter lets %v through", v)
		}
	}
}

func TestStretch(t *testing.T) {
	m := formula(200, 200)
	for i := range m.Pix16 {
		m.Pix16[i] = uint16(1000 + i*1000/len(m.Pix16))
	}
	p := spec(50, 50)
	p.VOI = "stretch"
	out := tensor(t, p, m)
	low, high := out[0], out[len(out)-1]
	if low > 0.02 || high < 0.98 {
		t.Errorf("stretched range is %v to %v", low, high)
	}
	if middle := out[25*50]; math.Abs(float64(middle)-0.5) > 0.02 {
		t.Errorf("the middle became %v", middle)
	}
	for i := range m.Pix16 {
		m.Pix16[i] = 2000
	}
	if far := farthest(t, tensor(t, p, m), tensor(t, spec(50, 50), m)); far != 0 {
		t.Errorf("a flat image was stretched: %v", far)
	}
}

func TestEightBitEqualsSixteen(t *testing.T) {
	wide := formula(70, 40)
	narrow := &pipeline.Image{Rows: 40, Columns: 70, Bottom: 40, Right: 70, Pix8: make([]uint8, 70*40), LUT: make([]float32, 1<<8)}
	for i, v := range wide.Pix16 {
		wide.Pix16[i] = v & 255
		narrow.Pix8[i] = uint8(v)
	}
	copy(narrow.LUT, wide.LUT)
	if far := farthest(t, tensor(t, spec(16, 16), narrow), tensor(t, spec(16, 16), wide)); far != 0 {
		t.Errorf("they differ by %v", far)
	}
}

func TestBrokenImageIsRefused(t *testing.T) {
	for name, spoil := range map[string]func(*pipeline.Image){
		"short pixels": func(m *pipeline.Image) { m.Pix16 = m.Pix16[:5] },
		"no pixels":    func(m *pipeline.Image) { m.Pix16 = nil },
		"short lookup": func(m *pipeline.Image) { m.LUT = m.LUT[:256] },
		"no size":      func(m *pipeline.Image) { m.Rows = 0 },
		"wide shutter": func(m *pipeline.Image) { m.Right = 61 },
		"odd shutter":  func(m *pipeline.Image) { m.Left, m.Right = 61, 60 },
	} {
		m := formula(60, 50)
		spoil(m)
		pp, _ := NewPreprocessor(spec(8, 8))
		if err := pp.Into(make([]float32, 64), m); !errors.Is(err, pipeline.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	pp, _ := NewPreprocessor(spec(8, 8))
	if err := pp.Into(make([]float32, 63), formula(60, 50)); !errors.Is(err, pipeline.ErrInvalid) {
		t.Errorf("short tensor: %v", err)
	}
	if err := pp.Gray(make([]uint8, 65), formula(60, 50)); !errors.Is(err, pipeline.ErrInvalid) {
		t.Errorf("long picture: %v", err)
	}
}

func TestNoAllocationForTheSameSize(t *testing.T) {
	p := spec(32, 32)
	p.Channels, p.Mean, p.Std, p.VOI = 3, []float64{1, 1, 1}, []float64{1, 1, 1}, "stretch"
	pp, err := NewPreprocessor(p)
	if err != nil {
		t.Fatal(err)
	}
	m, dst, gray := formula(300, 200), make([]float32, 3*32*32), make([]uint8, 32*32)
	if n := testing.AllocsPerRun(5, func() {
		if pp.Into(dst, m) != nil || pp.Gray(gray, m) != nil {
			t.Error("failed")
		}
	}); n != 0 {
		t.Errorf("%v allocations an image", n)
	}
}

func BenchmarkInto(b *testing.B) {
	m := formula(2048, 2500)
	for _, c := range []struct {
		name     string
		side, ch int
		upright  pipeline.Orientation
		kernel   string
	}{
		{"448x3", 448, 3, pipeline.Orientation{}, "bicubic"},
		{"448x3turned", 448, 3, pipeline.Orientation{Transpose: true, FlipX: true}, "bicubic"},
		{"448x3bilinear", 448, 3, pipeline.Orientation{}, "bilinear"},
		{"320x1", 320, 1, pipeline.Orientation{}, "bicubic"},
	} {
		b.Run(c.name, func(b *testing.B) {
			p := spec(c.side, c.side)
			p.Channels, p.Interpolation = c.ch, c.kernel
			p.Mean, p.Std = make([]float64, c.ch), []float64{1, 1, 1}[:c.ch]
			m.Upright = c.upright
			pp, err := NewPreprocessor(p)
			if err != nil {
				b.Fatal(err)
			}
			dst := make([]float32, c.ch*c.side*c.side)
			b.ReportAllocs()
			for b.Loop() {
				if err := pp.Into(dst, m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
