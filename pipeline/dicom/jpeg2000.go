package dicom

import (
	"context"
	"encoding/binary"
	"fmt"

	"chatxray/pipeline"
)

// The JPEG 2000 transfer syntaxes, part 1 (PS3.5 annex A.4.4), decoded by OpenJPEG.
const (
	JPEG2000Lossless = "1.2.840.10008.1.2.4.90"
	JPEG2000         = "1.2.840.10008.1.2.4.91"
)

func init() {
	register(syntax{
		Syntax: Syntax{UID: JPEG2000Lossless, Name: "JPEG 2000 Image Compression (Lossless Only)", NeedsCodecs: true},
		decode: decodeJPEG2000, encode: colour8(codecEncode("EncodeJpeg2000", nil)),
	})
	register(syntax{
		Syntax: Syntax{UID: JPEG2000, Name: "JPEG 2000 Image Compression", NeedsCodecs: true},
		decode: decodeJPEG2000,
	})
}

// colour8 keeps an encoder of the module from colour of more than 8 bits: what it makes of that does not decode to the same samples.
func colour8(encode func(context.Context, *Pixels) ([]byte, error)) func(context.Context, *Pixels) ([]byte, error) {
	return func(ctx context.Context, p *Pixels) ([]byte, error) {
		if p.SamplesPerPixel > 1 && p.BitsAllocated > 8 {
			return nil, fmt.Errorf("%w image: colour of %d bits is not compressed with JPEG 2000", pipeline.ErrUnsupported, p.BitsAllocated)
		}
		return encode(ctx, p)
	}
}

var openJPEG = codecDecode("DecodeJpeg2000", jpeg2000Stream)

func decodeJPEG2000(ctx context.Context, f encoded) (*Pixels, error) {
	f.data = mendSIZ(f.data, f.layout)
	return openJPEG(ctx, f)
}

// mendSIZ corrects the size of the image in a codestream whose one tile has the size that the object's header gives, while the
// image's own size is nonsense: two of three agree. Other codestreams are returned as they are.
func mendSIZ(b []byte, l layout) []byte {
	if len(b) < 51 || binary.BigEndian.Uint32(b) != 0xFF4FFF51 {
		return b
	}
	at := func(i int) uint32 { return binary.BigEndian.Uint32(b[8+4*i:]) }
	w, h := uint32(l.columns), uint32(l.rows)
	if at(0) == w && at(1) == h || at(2) != 0 || at(3) != 0 || at(4) != w || at(5) != h || at(6) != 0 || at(7) != 0 || at(0) < 1<<16 {
		return b
	}
	out := append([]byte(nil), b...)
	binary.BigEndian.PutUint16(out[6:], 0) // capabilities: none
	binary.BigEndian.PutUint32(out[8:], w)
	binary.BigEndian.PutUint32(out[12:], h)
	return out
}
