package phantom_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"chatxray/phantom"
	"chatxray/pipeline"
	"chatxray/pipeline/dicom"
)

var update = flag.Bool("update", false, "write the golden pictures anew")

func draw(t testing.TB, o phantom.Options) *phantom.Phantom {
	t.Helper()
	p, err := phantom.Draw(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// small is a matrix that is quick to draw.
func small(o phantom.Options) phantom.Options {
	o.Rows, o.Columns = 300, 246
	return o
}

// The grid of a thumbnail.
const high, wide = 25, 20

// thumbnail is the mean density of each cell, from 0 (air) to 255, whatever bits and photometric interpretation.
func thumbnail(p *phantom.Phantom) (cells [high][wide]float64) {
	o := p.Options
	most := float64(int(1)<<o.BitsStored - 1)
	for r := range high {
		for c := range wide {
			sum, n := 0.0, 0
			for y := o.Rows * r / high; y < o.Rows*(r+1)/high; y++ {
				for x := o.Columns * c / wide; x < o.Columns*(c+1)/wide; x++ {
					sum += float64(p.Words[y*o.Columns+x])
					n++
				}
			}
			v := sum / float64(n) / most * 255
			if o.Photometric == phantom.Monochrome1 {
				v = 255 - v
			}
			cells[r][c] = v
		}
	}
	return cells
}

var scenes = map[string]phantom.Options{
	"plain":         {Seed: 1},
	"effusion":      {Seed: 2, Effusion: phantom.Left},
	"heart":         {Seed: 3, EnlargedHeart: true, Device: phantom.Pacemaker},
	"pneumothorax":  {Seed: 4, Pneumothorax: phantom.Right, Device: phantom.ChestTube},
	"opacity":       {Seed: 5, Opacity: phantom.Right, View: phantom.AP, Device: phantom.TrachealTube},
	"lateral":       {Seed: 6, View: phantom.LL},
	"other numbers": {Seed: 1<<64 - 1, BitsStored: 8, Photometric: phantom.Monochrome1, Device: phantom.CentralLine},
}

// TestGolden compares the means of cells with those of an earlier version: mathematical functions may differ in the last bit between
// processors, so single pixels may too.
func TestGolden(t *testing.T) {
	for name, o := range scenes {
		got := thumbnail(draw(t, small(o)))
		path := filepath.Join("testdata", strings.ReplaceAll(name, " ", "_")+".txt")
		if *update {
			var b strings.Builder
			for _, row := range got {
				for _, v := range row {
					fmt.Fprintf(&b, "%4.0f", v)
				}
				b.WriteByte('\n')
			}
			if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		numbers := strings.Fields(string(want))
		if len(numbers) != high*wide {
			t.Fatalf("%s: %d numbers", path, len(numbers))
		}
		for i, s := range numbers {
			var v float64
			if _, err := fmt.Sscan(s, &v); err != nil {
				t.Fatal(err)
			}
			if d := got[i/wide][i%wide] - v; d > 0.6 || d < -0.6 {
				t.Errorf("%s: cell %d,%d is %.2f, not %s", name, i/wide, i%wide, got[i/wide][i%wide], s)
			}
		}
	}
}

// TestSameOptionsSamePixels: nothing depends on the number of cores or on the time.
func TestSameOptionsSamePixels(t *testing.T) {
	o := small(phantom.Options{Seed: 9, Effusion: phantom.Right, Opacity: phantom.Left})
	first := draw(t, o)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	second := draw(t, o)
	if !slices.Equal(first.Words, second.Words) {
		t.Error("the pixels depend on the number of cores")
	}
	a, err1 := dicom.Encode(first.Dataset())
	b, err2 := dicom.Encode(second.Dataset())
	if err1 != nil || err2 != nil || !slices.Equal(a, b) {
		t.Error("the files differ", err1, err2)
	}
	o.Seed++
	if slices.Equal(first.Words, draw(t, o).Words) {
		t.Error("another seed draws the same")
	}
}

// TestFindings: what is planted changes its own part of the picture, to the right side of gray, and nothing else.
func TestFindings(t *testing.T) {
	const none = 0
	for _, c := range []struct {
		name             string
		plant            func(o *phantom.Options, side phantom.Side)
		sign             float64 // of the change of density
		top, bottom      int     // rows of cells that may change
		reach, past      int     // columns that may change, from the patient's side on: to the midline 10
		least            int     // cells that must change
		strongest, weird float64 // least of the largest change; largest that is allowed elsewhere
	}{
		{"effusion", func(o *phantom.Options, s phantom.Side) { o.Effusion = s }, 1, 12, 23, 0, 10, 12, 25, 0.6},
		{"opacity", func(o *phantom.Options, s phantom.Side) { o.Opacity = s }, 1, 8, 19, 0, 10, 6, 15, 0.6},
		{"pneumothorax", func(o *phantom.Options, s phantom.Side) { o.Pneumothorax = s }, -1, 2, 21, 0, 10, 12, 8, 1.2},
		{"chest tube", func(o *phantom.Options, s phantom.Side) { o.Device, o.DeviceSide = phantom.ChestTube, s }, 1, 4, 17, 0, 8, 8, 1, 0.6},
		{"pacemaker", func(o *phantom.Options, s phantom.Side) { o.Device, o.DeviceSide = phantom.Pacemaker, s }, 1, 4, 18, 1, 14, 10, 20, 0.6},
	} {
		for _, side := range []phantom.Side{phantom.Right, phantom.Left} {
			o := small(phantom.Options{Seed: 21})
			before := thumbnail(draw(t, o))
			c.plant(&o, side)
			after := thumbnail(draw(t, o))
			changed, most := none, 0.0
			for r := range high {
				for k := range wide {
					d := (after[r][k] - before[r][k]) * c.sign
					from := k // cells from the edge of the finding's side
					if side == phantom.Left {
						from = wide - 1 - k
					}
					if r < c.top || r >= c.bottom || from < c.reach || from >= c.past {
						if d > 0.6 || d < -0.6 {
							t.Errorf("%s %s: cell %d,%d changes by %.1f", c.name, side, r, k, d)
						}
						continue
					}
					if d < -c.weird {
						t.Errorf("%s %s: cell %d,%d changes the wrong way, by %.1f", c.name, side, r, k, d)
					}
					if d > 1 {
						changed++
					}
					most = max(most, d)
				}
			}
			if changed < c.least || most < c.strongest {
				t.Errorf("%s %s: %d cells change, at most by %.1f", c.name, side, changed, most)
			}
		}
	}
}

// TestEnlargedHeart measures the width of the heart against that of the chest, as a reader would.
func TestEnlargedHeart(t *testing.T) {
	for seed := range uint64(4) {
		normal := cardiothoracic(draw(t, small(phantom.Options{Seed: seed})))
		large := cardiothoracic(draw(t, small(phantom.Options{Seed: seed, EnlargedHeart: true})))
		if normal < 0.36 || normal > 0.50 || large < 0.53 || large > 0.70 {
			t.Errorf("seed %d: cardiothoracic ratio %.2f, enlarged %.2f", seed, normal, large)
		}
	}
}

// cardiothoracic finds, in the rows of the heart, the widest dense part around the midline and the widest lungs.
func cardiothoracic(p *phantom.Phantom) float64 {
	o := p.Options
	heart, chest := 0, 0
	for y := o.Rows * 54 / 100; y < o.Rows*68/100; y++ {
		line := p.Words[y*o.Columns:][:o.Columns]
		const dense = 0.53 // of the range
		most := float64(int(1)<<o.BitsStored - 1)
		isDense := func(x int) bool {
			sum := 0.0
			for dx := -3; dx <= 3; dx++ {
				sum += float64(line[min(max(x+dx, 0), o.Columns-1)])
			}
			return sum/7/most > dense
		}
		left, right := o.Columns/2, o.Columns/2
		for left > 0 && isDense(left) {
			left--
		}
		for right < o.Columns-1 && isDense(right) {
			right++
		}
		heart = max(heart, right-left)
		chest = max(chest, int(2*137/p.Spacing))
	}
	return float64(heart) / float64(chest)
}

func TestRefusals(t *testing.T) {
	for name, o := range map[string]phantom.Options{
		"rows":              {Rows: 100},
		"columns":           {Columns: 100000},
		"bits":              {BitsStored: 7},
		"17 bits":           {BitsStored: 17},
		"colour":            {Photometric: "RGB"},
		"view":              {View: "XX"},
		"side":              {Effusion: "up"},
		"device":            {Device: "spoon"},
		"device side":       {Device: phantom.CentralLine, DeviceSide: "middle"},
		"lateral, effusion": {View: phantom.LL, Effusion: phantom.Left},
		"year":              {Date: time.Date(12024, 1, 1, 0, 0, 0, 0, time.UTC)},
	} {
		if _, err := phantom.Draw(o); !errors.Is(err, pipeline.ErrInvalid) || len(err.Error()) < 20 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUIDs(t *testing.T) {
	base := phantom.Options{Seed: 3, Rows: phantom.LeastSide, Columns: phantom.LeastSide}
	study, seen := draw(t, base).StudyInstanceUID(), map[string]string{}
	for name, change := range map[string]func(*phantom.Options){
		"nothing": func(*phantom.Options) {}, "seed": func(o *phantom.Options) { o.Seed = 4 }, "rows": func(o *phantom.Options) { o.Rows = 200 },
		"bits": func(o *phantom.Options) { o.BitsStored = 10 }, "photometric": func(o *phantom.Options) { o.Photometric = phantom.Monochrome1 },
		"view": func(o *phantom.Options) { o.View = phantom.AP }, "effusion": func(o *phantom.Options) { o.Effusion = phantom.Right },
		"other side": func(o *phantom.Options) { o.Effusion = phantom.Left }, "heart": func(o *phantom.Options) { o.EnlargedHeart = true },
		"device": func(o *phantom.Options) { o.Device = phantom.Pacemaker }, "date": func(o *phantom.Options) { o.Date = time.Date(2025, 2, 3, 4, 5, 6, 0, time.UTC) },
	} {
		o := base
		change(&o)
		p := draw(t, o)
		d := p.Dataset()
		uid := d.String(pipeline.TagSOPInstanceUID)
		if !pipeline.ValidUID(uid) || !strings.HasPrefix(uid, "2.25.") || uid != p.SOPInstanceUID() || d.String(pipeline.TagStudyInstanceUID) != p.StudyInstanceUID() {
			t.Errorf("%s: %s", name, uid)
		}
		if other, twice := seen[uid]; twice {
			t.Errorf("%s has the SOP Instance UID of %s", name, other)
		}
		seen[uid] = name
		if same := p.StudyInstanceUID() == study; same != slices.Contains([]string{"nothing", "rows", "bits", "photometric", "view"}, name) {
			t.Errorf("%s: same study %v", name, same)
		}
	}
}

// objects are phantoms in every form of an object.
func objects() map[string]phantom.Options {
	out := map[string]phantom.Options{}
	for name, o := range scenes {
		out[name] = small(o)
	}
	for bits := 8; bits <= 16; bits++ {
		for _, photometric := range []string{phantom.Monochrome1, phantom.Monochrome2} {
			out[fmt.Sprintf("%d bits %s", bits, photometric)] = phantom.Options{Seed: 2, Rows: 257, Columns: 211, BitsStored: bits, Photometric: photometric}
		}
	}
	return out
}

// TestValid: David Clunie's validator finds nothing to say about any form.
func TestValid(t *testing.T) {
	validator, err := exec.LookPath("dciodvfy")
	if err != nil {
		t.Skip("dciodvfy absent: install dicom3tools")
	}
	for name, o := range objects() {
		file, err := dicom.Encode(draw(t, o).Dataset())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		path := filepath.Join(t.TempDir(), "phantom.dcm")
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(validator, "-new", path).CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != "DXImageForPresentation" {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// TestReadAsRadiograph: our own reader takes a frontal phantom for a chest radiograph, a lateral one for a lateral, and all of them
// for phantoms; bits and photometric interpretation do not change the picture.
func TestReadAsRadiograph(t *testing.T) {
	var reference []float64
	for name, o := range objects() {
		file, err := dicom.Encode(draw(t, o).Dataset())
		if err != nil {
			t.Fatal(err)
		}
		in, err := dicom.Open(file)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !in.Header.IsPhantom() {
			t.Errorf("%s: not marked as a phantom", name)
		}
		chosen, refused := dicom.Select(&pipeline.Study{StudyInstanceUID: in.StudyInstanceUID, Instances: []*pipeline.Instance{in}}, 0)
		if o.View == phantom.LL {
			if len(chosen) != 0 || len(refused) != 1 || refused[0].Reason != dicom.Lateral {
				t.Errorf("%s: %v %v", name, chosen, refused)
			}
			continue
		}
		if len(chosen) != 1 {
			t.Errorf("%s: refused %v", name, refused)
		}
		m, err := dicom.Decode(context.Background(), in, 0)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := dicom.CheckExposure(m); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		air, lung, heart := gray(m, 0.06, 0.12), gray(m, 0.25, 0.45), gray(m, 0.5, 0.66)
		if strings.Contains(name, "bits") && (air > 0.05 || lung < 0.08 || lung > 0.5 || heart < 0.6 || heart > 1) {
			t.Errorf("%s: air %.2f, lung %.2f, heart %.2f", name, air, lung, heart)
		}
		if strings.Contains(name, "bits") {
			now := []float64{air, lung, heart}
			if reference == nil {
				reference = now
			}
			for i := range now {
				if d := now[i] - reference[i]; d > 0.02 || d < -0.02 {
					t.Errorf("%s: gray %d is %.3f, in another form %.3f", name, i, now[i], reference[i])
				}
			}
		}
	}
}

// gray is the mean of a small square, after the lookup, at parts of width and height.
func gray(m *pipeline.Image, x, y float64) float64 {
	sum, n := 0.0, 0
	for dy := -4; dy <= 4; dy++ {
		for dx := -4; dx <= 4; dx++ {
			i := (int(y*float64(m.Rows))+dy)*m.Columns + int(x*float64(m.Columns)) + dx
			var word int
			if m.Pix8 != nil {
				word = int(m.Pix8[i])
			} else {
				word = int(m.Pix16[i])
			}
			sum += float64(m.LUT[word])
			n++
		}
	}
	return sum / float64(n)
}

func BenchmarkDraw(b *testing.B) {
	for b.Loop() {
		draw(b, phantom.Options{Seed: 1})
	}
}
