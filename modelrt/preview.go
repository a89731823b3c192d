package modelrt

import (
	"bytes"
	"image"
	"image/png"

	"chatxray/pipeline"
)

// Preview returns the picture that the model sees of m, 8 bits a pixel, as a PNG file. It is safe for concurrent use.
func (m *Model) Preview(img *pipeline.Image) ([]byte, error) {
	return preview(m.bundle.Manifest.Preprocess, img)
}

// preview is an image as spec makes it, as a PNG file.
func preview(spec Preprocess, img *pipeline.Image) ([]byte, error) {
	p, err := NewPreprocessor(spec)
	if err != nil {
		return nil, err
	}
	at, err := p.prepare(img)
	if err != nil {
		return nil, err
	}
	g := image.NewGray(image.Rect(0, 0, at.Width, at.Height))
	if err := p.Gray(g.Pix, img); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	encoder := png.Encoder{CompressionLevel: png.BestSpeed} // a tenth larger than the default, in a fifth of its time
	if err := encoder.Encode(&b, g); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
