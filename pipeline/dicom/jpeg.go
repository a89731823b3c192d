package dicom

import (
	"context"
	"fmt"

	"chatxray/pipeline"
)

// The JPEG transfer syntaxes that libjpeg-turbo decodes (PS3.5 annex A.4.1).
const (
	JPEGBaseline = "1.2.840.10008.1.2.4.50"
	JPEGExtended = "1.2.840.10008.1.2.4.51"
	JPEGLossless = "1.2.840.10008.1.2.4.70" // first-order prediction, the usual one
)

func init() {
	baseline := syntax{encode: encodeBaseline, lossy: "ISO_10918_1"}
	lossless := syntax{encode: codecEncode("EncodeJpeg", nil)}
	for _, s := range []struct {
		uid, name string
		encoder   syntax
	}{
		{JPEGBaseline, "JPEG Baseline (Process 1)", baseline},
		{JPEGExtended, "JPEG Extended (Processes 2 and 4)", syntax{}},
		{"1.2.840.10008.1.2.4.53", "JPEG Spectral Selection, Non-Hierarchical (Processes 6 and 8) (retired)", syntax{}},
		{"1.2.840.10008.1.2.4.55", "JPEG Full Progression, Non-Hierarchical (Processes 10 and 12) (retired)", syntax{}},
		{"1.2.840.10008.1.2.4.57", "JPEG Lossless, Non-Hierarchical (Process 14)", syntax{}},
		{JPEGLossless, "JPEG Lossless, Non-Hierarchical, First-Order Prediction (Process 14, Selection Value 1)", lossless},
	} {
		s.encoder.Syntax = Syntax{UID: s.uid, Name: s.name, NeedsCodecs: true}
		s.encoder.decode = codecDecode("DecodeJpeg", jpegStream)
		register(s.encoder)
	}
}

var libjpegBaseline = codecEncode("EncodeJpeg", map[string]uint64{"Lossy": 1, "Quality": 95})

// encodeBaseline compresses gray images of 8 bits; colour would change its photometric interpretation.
func encodeBaseline(ctx context.Context, p *Pixels) ([]byte, error) {
	if p.BitsAllocated != 8 || p.SamplesPerPixel != 1 {
		return nil, fmt.Errorf("%w image: JPEG Baseline is written for gray images of 8 bits only", pipeline.ErrUnsupported)
	}
	return libjpegBaseline(ctx, p)
}
