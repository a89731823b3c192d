package dicomweb

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"image"
	"image/draw"
	"image/jpeg"
	"image/png"
	"strings"

	"chatxray/pipeline"
)

// The limits of a picture that comes with a request. The decoder's memory is a few times that of its pixels.
const (
	leastSide  = 32
	mostSide   = 16_384
	mostPixels = 32 << 20
)

// imageOf makes an image of its URL: a data URL of a PNG or JPEG file, or dicom:STUDY, dicom:STUDY/SERIES, dicom:STUDY/SERIES/INSTANCE of what is
// kept here. Nothing is fetched from elsewhere. name is how a conversation that is kept calls the image; study is empty for a data URL.
func (s *server) imageOf(ctx context.Context, at, url string) (i *pipeline.ChatImage, name, study string, err error) {
	scheme, rest, _ := strings.Cut(url, ":")
	switch strings.ToLower(scheme) {
	case "data":
		b, err := dataURL(rest)
		if err != nil {
			return nil, "", "", err
		}
		i, err := s.picture(at, b)
		if err != nil {
			return nil, "", "", err
		}
		return i, "sha256:" + i.Content.String(), "", nil
	case "dicom":
		uids := strings.Split(rest, "/")
		for _, u := range uids {
			if !pipeline.ValidUID(u) || len(uids) > 3 {
				return nil, "", "", fmt.Errorf("%w: a reference is dicom:STUDY, dicom:STUDY/SERIES or dicom:STUDY/SERIES/INSTANCE, of UIDs", pipeline.ErrInvalid)
			}
		}
		full := append(uids, "", "")
		if s.Reference == nil {
			return nil, "", "", fmt.Errorf("%w: this service keeps no images", pipeline.ErrUnsupported)
		}
		i, err = s.Reference(ctx, full[0], full[1], full[2])
		return i, "dicom:" + rest, uids[0], err
	}
	return nil, "", "", fmt.Errorf("%w: an image is a data URL (data:image/png;base64,...) or a reference (dicom:STUDY/SERIES/INSTANCE); this service fetches nothing from elsewhere", pipeline.ErrInvalid)
}

// dataURL returns the bytes of a data URL (RFC 2397) without its scheme.
func dataURL(rest string) ([]byte, error) {
	kind, data, ok := strings.Cut(rest, ",")
	media, coding, _ := strings.Cut(strings.ToLower(kind), ";")
	if !ok || coding != "base64" || media != "image/png" && media != "image/jpeg" && media != "image/jpg" {
		return nil, fmt.Errorf("%w: a data URL must begin with data:image/png;base64, or data:image/jpeg;base64,", pipeline.ErrUnsupported)
	}
	b, err := base64.StdEncoding.DecodeString(data)
	if err != nil {
		return nil, fmt.Errorf("%w: the data URL is not base64", pipeline.ErrInvalid)
	}
	return b, nil
}

// picture looks at the header of a PNG or JPEG file; its pixels are decoded when they are needed, one picture after another.
func (s *server) picture(at string, b []byte) (*pipeline.ChatImage, error) {
	head, decode, kind := png.DecodeConfig, png.Decode, "PNG"
	if bytes.HasPrefix(b, []byte{0xff, 0xd8}) {
		head, decode, kind = jpeg.DecodeConfig, jpeg.Decode, "JPEG"
	}
	c, err := head(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("%w: the data are neither a PNG nor a JPEG file", pipeline.ErrInvalid)
	}
	if min(c.Width, c.Height) < leastSide || max(c.Width, c.Height) > mostSide || c.Width*c.Height > mostPixels {
		return nil, fmt.Errorf("%w: the picture has %d×%d pixels; this service takes sides of %d to %d pixels and %d million pixels in all",
			pipeline.ErrInvalid, c.Width, c.Height, leastSide, mostSide, mostPixels>>20)
	}
	return &pipeline.ChatImage{Name: at, Content: sha256.Sum256(b), Load: func(ctx context.Context) (*pipeline.Image, error) {
		select {
		case s.talking.drawing <- struct{}{}:
			defer func() { <-s.talking.drawing }()
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		p, err := decode(bytes.NewReader(b))
		if err != nil {
			return nil, &pipeline.ChatError{Param: at, Code: "invalid_image", Err: fmt.Errorf("%w: the %s file is damaged", pipeline.ErrInvalid, kind)}
		}
		return grayImage(p), nil
	}}, nil
}

// grayImage is a picture as the pipeline has images: bright is dense, as on a radiograph's display. Colours become their luma, what is transparent
// black.
func grayImage(p image.Image) *pipeline.Image {
	r := p.Bounds()
	m := &pipeline.Image{Rows: r.Dy(), Columns: r.Dx(), Bottom: r.Dy(), Right: r.Dx()}
	levels := 1 << 8
	switch p := p.(type) {
	case *image.Gray:
		m.Pix8 = rowsOf(p.Pix, p.Stride, m.Columns, m.Rows)
	case *image.YCbCr:
		m.Pix8 = rowsOf(p.Y, p.YStride, m.Columns, m.Rows)
	case *image.Gray16:
		levels = 1 << 16
		m.Pix16 = make([]uint16, m.Rows*m.Columns)
		for i := range m.Pix16 {
			at := p.Pix[i/m.Columns*p.Stride+i%m.Columns*2:]
			m.Pix16[i] = uint16(at[0])<<8 | uint16(at[1])
		}
	default:
		g := image.NewGray(image.Rect(0, 0, m.Columns, m.Rows))
		draw.Draw(g, g.Rect, p, r.Min, draw.Src)
		m.Pix8 = g.Pix
	}
	m.LUT = make([]float32, levels)
	for i := range m.LUT {
		m.LUT[i] = float32(i) / float32(levels-1)
	}
	return m
}

// rowsOf is the pixels of a plane without what stands behind its rows.
func rowsOf(pix []uint8, stride, columns, rows int) []uint8 {
	if stride == columns {
		return pix[:rows*columns]
	}
	out := make([]uint8, 0, rows*columns)
	for y := range rows {
		out = append(out, pix[y*stride:][:columns]...)
	}
	return out
}
