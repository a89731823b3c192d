package dicom

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"sync"

	"chatxray/pipeline"
)

const maxPicturePixels = 1 << 25 // of a JPEG or PNG file, before anything of that size is allocated

var (
	identity8  = sync.OnceValue(func() []float32 { return colourLookup(wordFormat{words: 1 << 8, stored: 8, high: 7}) })
	identity16 = sync.OnceValue(func() []float32 { return colourLookup(wordFormat{words: 1 << 16, stored: 16, high: 15}) })
)

// OpenPicture makes an Image of a JPEG or PNG file, as data sets for training hold them: gray or the luminance of colour,
// transparent = black, as stored (no EXIF orientation), gray value / largest = 0..1. Its Instance has nothing but the digest and an
// empty header. Errors wrap pipeline.ErrUnknown (neither JPEG nor PNG), ErrUnsupported or ErrInvalid.
func OpenPicture(data []byte) (*pipeline.Image, error) {
	var config func() (image.Config, error)
	var decode func() (image.Image, error)
	var kind string
	switch {
	case bytes.HasPrefix(data, []byte("\xFF\xD8\xFF")):
		kind = "JPEG"
		config = func() (image.Config, error) { return jpeg.DecodeConfig(bytes.NewReader(data)) }
		decode = func() (image.Image, error) { return jpeg.Decode(bytes.NewReader(data)) }
	case bytes.HasPrefix(data, []byte("\x89PNG\r\n\x1A\n")):
		kind = "PNG"
		config = func() (image.Config, error) { return png.DecodeConfig(bytes.NewReader(data)) }
		decode = func() (image.Image, error) { return png.Decode(bytes.NewReader(data)) }
	default:
		return nil, fmt.Errorf("%w picture: neither JPEG nor PNG", pipeline.ErrUnknown)
	}
	c, err := config()
	if err != nil {
		return nil, pictureError(kind, err)
	}
	if c.Width < 1 || c.Height < 1 || c.Width > maxPicturePixels/c.Height {
		return nil, fmt.Errorf("%w %s picture: %d×%d pixels; at most %d in all can be read", pipeline.ErrUnsupported, kind, c.Width, c.Height, maxPicturePixels)
	}
	pic, err := decode()
	if err != nil {
		return nil, pictureError(kind, err)
	}
	m := &pipeline.Image{
		Instance: &pipeline.Instance{Digest: sha256.Sum256(data)},
		Rows:     c.Height, Columns: c.Width, Bottom: c.Height, Right: c.Width,
	}
	m.Pix8, m.Pix16 = pictureWords(pic)
	m.LUT = identity8()
	if m.Pix16 != nil {
		m.LUT = identity16()
	}
	return m, nil
}

func pictureError(kind string, err error) error {
	sentinel := pipeline.ErrInvalid
	var ofJPEG jpeg.UnsupportedError
	var ofPNG png.UnsupportedError
	if errors.As(err, &ofJPEG) || errors.As(err, &ofPNG) {
		sentinel = pipeline.ErrUnsupported
	}
	return fmt.Errorf("%w %s picture: %w", sentinel, kind, err)
}

// pictureWords returns the gray words of a picture: 8 bits a pixel, or 16 where the picture has them.
func pictureWords(pic image.Image) ([]uint8, []uint16) {
	bounds := pic.Bounds()
	width, height := bounds.Dx(), bounds.Dy()
	n := width * height
	plane := func(pix []uint8, stride int) []uint8 {
		if stride == width {
			return pix[:n]
		}
		out := make([]uint8, 0, n)
		for y := range height {
			out = append(out, pix[y*stride:][:width]...)
		}
		return out
	}
	switch p := pic.(type) {
	case *image.Gray:
		return plane(p.Pix, p.Stride), nil
	case *image.YCbCr:
		return plane(p.Y, p.YStride), nil
	case *image.Gray16:
		out := make([]uint16, n)
		for i := range out {
			at := p.Pix[i/width*p.Stride+i%width*2:]
			out[i] = uint16(at[0])<<8 | uint16(at[1])
		}
		return nil, out
	}
	wide := pic.ColorModel() == color.RGBA64Model || pic.ColorModel() == color.NRGBA64Model
	out8, out16 := []uint8(nil), []uint16(nil)
	if wide {
		out16 = make([]uint16, n)
	} else {
		out8 = make([]uint8, n)
	}
	for i := range n {
		r, g, b, _ := pic.At(bounds.Min.X+i%width, bounds.Min.Y+i/width).RGBA()
		if wide {
			out16[i] = uint16((redWeight*r + greenWeight*g + blueWeight*b + 1<<15) >> 16)
		} else {
			out8[i] = uint8((redWeight*(r>>8) + greenWeight*(g>>8) + blueWeight*(b>>8) + 1<<15) >> 16)
		}
	}
	return out8, out16
}
