package dicom

import (
	"context"
	"fmt"

	"chatxray/pipeline"
)

// Pixels is one frame in native form: what the standard calls the stored pixel values, before any lookup.
//
// Data holds Rows×Columns×SamplesPerPixel words of BitsAllocated (8, 16 or 32) bits, little endian, row by row; samples are
// interleaved where PlanarConfiguration is 0 and plane after plane where it is 1. Bits above HighBit or below
// HighBit+1-BitsStored are as stored and mean nothing. Objects with 1 bit allocated arrive here unpacked to one byte a sample
// (BitsAllocated 8, BitsStored 1, HighBit 0). A native YBR_FULL_422 frame arrives with its chroma repeated, as YBR_FULL.
//
// Data may be a part of Instance.Data (native little-endian syntaxes): read only.
type Pixels struct {
	Rows, Columns, SamplesPerPixel     int
	Frames                             int // of the whole object
	BitsAllocated, BitsStored, HighBit int
	Signed                             bool   // two's complement in BitsStored bits
	Photometric                        string // of Data: decompressing colour JPEG and JPEG 2000 makes RGB of YBR
	PlanarConfiguration                int
	Data                               []byte
}

// DecodeFrame returns one frame, counted from 0. Errors wrap pipeline.ErrNotImage (no pixel data, or floating point),
// ErrInvalid (truncated, contradicting header), ErrUnsupported (a syntax or layout we cannot read), ErrMissingPart (the codec
// module is not there) or ErrNotFound (no such frame).
func DecodeFrame(ctx context.Context, in *pipeline.Instance, frame int) (*Pixels, error) {
	return nil, fmt.Errorf("frame %d of %s: %w", frame, in.SOPInstanceUID, pipeline.ErrUnsupported)
}
