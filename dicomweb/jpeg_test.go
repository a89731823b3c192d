package dicomweb

import (
	"bytes"
	"image"
	"image/jpeg"
	"math"
	"math/rand/v2"
	"testing"
)

func noisy(w, h int, noise float64) *image.Gray {
	m := image.NewGray(image.Rect(0, 0, w, h))
	r := rand.New(rand.NewPCG(1, 2))
	for y := range h {
		for x := range w {
			v := 128 + 80*math.Sin(float64(x)/97)*math.Cos(float64(y)/131) + noise*r.NormFloat64()
			if x < w/8 {
				v = 0
			}
			m.Pix[y*m.Stride+x] = uint8(min(max(v, 0), 255))
		}
	}
	return m
}

func difference(t *testing.T, m *image.Gray, file []byte) (mean float64) {
	t.Helper()
	got, err := jpeg.Decode(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	g, ok := got.(*image.Gray)
	if !ok || g.Bounds() != m.Bounds() {
		t.Fatalf("%T %v in place of %v", got, got.Bounds(), m.Bounds())
	}
	for y := range m.Bounds().Dy() {
		for x := range m.Bounds().Dx() {
			mean += math.Abs(float64(m.Pix[y*m.Stride+x]) - float64(g.Pix[y*g.Stride+x]))
		}
	}
	return mean / float64(len(m.Pix))
}

// TestEncodeGray decodes what we compress with image/jpeg: it must be as near to the picture as what image/jpeg compresses itself, and as
// short.
func TestEncodeGray(t *testing.T) {
	for _, size := range [][2]int{{1, 1}, {7, 3}, {8, 8}, {9, 8}, {16, 16}, {17, 33}, {250, 129}, {512, 300}} {
		for _, noise := range []float64{0, 5, 90} {
			for _, quality := range []int{1, 25, 50, 75, 90, 100} {
				m := noisy(size[0], size[1], noise)
				ours := encodeGray(grayRows{m}, quality)
				var theirs bytes.Buffer
				if err := jpeg.Encode(&theirs, m, &jpeg.Options{Quality: quality}); err != nil {
					t.Fatal(err)
				}
				a, b := difference(t, m, ours), difference(t, m, theirs.Bytes())
				margin := 1.05
				if len(m.Pix) < 200 { // chance
					margin = 1.25
				}
				if a > margin*b+0.2 {
					t.Errorf("%v noise %g quality %d: our mean difference is %.2f, that of image/jpeg %.2f", size, noise, quality, a, b)
				}
				if len(ours) > len(theirs.Bytes())*102/100+20 {
					t.Errorf("%v noise %g quality %d: %d bytes, image/jpeg needs %d", size, noise, quality, len(ours), theirs.Len())
				}
			}
		}
	}
}

func BenchmarkEncodeGray(b *testing.B) {
	m := noisy(2048, 2048, 3)
	b.Run("ours", func(b *testing.B) {
		for b.Loop() {
			encodeGray(grayRows{m}, 90)
		}
	})
	b.Run("image/jpeg", func(b *testing.B) {
		var out bytes.Buffer
		for b.Loop() {
			out.Reset()
			_ = jpeg.Encode(&out, m, &jpeg.Options{Quality: 90})
		}
	})
}
