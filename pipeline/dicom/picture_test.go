package dicom_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math"
	"testing"

	"chatxray/pipeline"
	"chatxray/pipeline/dicom"
)

func pngOf(t *testing.T, pic image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, pic); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// grays returns what an Image's lookup makes of its words.
func grays(m *pipeline.Image) []float32 {
	out := make([]float32, m.Rows*m.Columns)
	for i := range out {
		if m.Pix16 != nil {
			out[i] = m.LUT[m.Pix16[i]]
		} else {
			out[i] = m.LUT[m.Pix8[i]]
		}
	}
	return out
}

func TestOpenPicture(t *testing.T) {
	box := image.Rect(0, 0, 5, 3) // an odd width, so that a JPEG's rows are longer than the picture's
	gray, gray16, rgb, deep, mixed := image.NewGray(box), image.NewGray16(box), image.NewRGBA(box), image.NewNRGBA64(box), image.NewPaletted(box, color.Palette{color.Black, color.Gray{100}, color.White})
	for y := range 3 {
		for x := range 5 {
			gray.SetGray(x, y, color.Gray{uint8(50*x + y)})
			gray16.SetGray16(x, y, color.Gray16{uint16(13000*x + y)})
			rgb.SetRGBA(x, y, color.RGBA{uint8(50 * x), uint8(40 * y), 200, 255})
			deep.SetNRGBA64(x, y, color.NRGBA64{uint16(13000 * x), 500, uint16(20000 * y), 65535})
			mixed.SetColorIndex(x, y, uint8((x+y)%3))
		}
	}
	luma := func(r, g, b float64) float64 { return 0.299*r + 0.587*g + 0.114*b }
	var jpg bytes.Buffer
	if err := jpeg.Encode(&jpg, gray, &jpeg.Options{Quality: 100}); err != nil {
		t.Fatal(err)
	}
	var colour bytes.Buffer
	if err := jpeg.Encode(&colour, rgb, &jpeg.Options{Quality: 100}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		data  []byte
		words int
		near  float64
		want  func(x, y int) float64
	}{
		{"gray PNG", pngOf(t, gray), 256, 1e-6, func(x, y int) float64 { return float64(50*x+y) / 255 }},
		{"gray PNG of 16 bits", pngOf(t, gray16), 65536, 1e-6, func(x, y int) float64 { return float64(13000*x+y) / 65535 }},
		{"colour PNG", pngOf(t, rgb), 256, 0.003, func(x, y int) float64 { return luma(float64(50*x), float64(40*y), 200) / 255 }},
		{"colour PNG of 16 bits", pngOf(t, deep), 65536, 1e-4, func(x, y int) float64 { return luma(float64(13000*x), 500, float64(20000*y)) / 65535 }},
		{"palette PNG", pngOf(t, mixed), 256, 0.003, func(x, y int) float64 { return []float64{0, 100, 255}[(x+y)%3] / 255 }},
		{"gray JPEG", jpg.Bytes(), 256, 0.015, func(x, y int) float64 { return float64(50*x+y) / 255 }},
		{"colour JPEG", colour.Bytes(), 256, 0.02, func(x, y int) float64 { return luma(float64(50*x), float64(40*y), 200) / 255 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := dicom.OpenPicture(c.data)
			if err != nil {
				t.Fatal(err)
			}
			if m.Rows != 3 || m.Columns != 5 || m.Bottom != 3 || m.Right != 5 || len(m.LUT) != c.words || m.Instance.Digest != sha256.Sum256(c.data) {
				t.Fatalf("%+v", m)
			}
			for i, v := range grays(m) {
				if want := c.want(i%5, i/5); math.Abs(float64(v)-want) > c.near {
					t.Errorf("pixel %d, %d is %v, want %v", i%5, i/5, v, want)
				}
			}
		})
	}
}

func TestOpenPictureRefuses(t *testing.T) {
	whole := pngOf(t, image.NewGray(image.Rect(0, 0, 4, 4)))
	huge := bytes.Clone(whole)
	binary.BigEndian.PutUint32(huge[16:], 60000)
	binary.BigEndian.PutUint32(huge[20:], 60000)
	binary.BigEndian.PutUint32(huge[29:], crc32.ChecksumIEEE(huge[12:29]))
	for _, c := range []struct {
		name string
		data []byte
		want error
	}{
		{"nothing", nil, pipeline.ErrUnknown},
		{"text", []byte("hello, this is no picture"), pipeline.ErrUnknown},
		{"truncated PNG", whole[:40], pipeline.ErrInvalid},
		{"60,000 × 60,000 pixels", huge, pipeline.ErrUnsupported},
		{"JPEG of three bytes", []byte("\xFF\xD8\xFF"), pipeline.ErrInvalid},
	} {
		if m, err := dicom.OpenPicture(c.data); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, %v; want %v", c.name, m, err, c.want)
		}
	}
}
