package dicom_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"testing"
	"time"

	"chatxray/pipeline"
	"chatxray/pipeline/dicom"
)

// TestManifest takes every file of the data pack through Open and DecodeFrame.
func TestManifest(t *testing.T) {
	for _, r := range manifest(t) {
		t.Run(r.file, func(t *testing.T) {
			data := packFile(t, r.file)
			start := time.Now()
			frames, err := decodeAll(data)
			if d := time.Since(start); d > time.Second && r.expect != "ok" {
				t.Errorf("the refusal took %v", d)
			}
			switch r.expect {
			case "ok":
				if err != nil {
					t.Fatal(err)
				}
				golden(t, r, frames)
			default:
				if err == nil {
					t.Fatal("decoded; a refusal is expected")
				}
				clean(t, err)
				t.Log(err)
			}
		})
	}
}

// clean demands an error that is one of the house's.
func clean(t *testing.T, err error) {
	t.Helper()
	for _, s := range []error{pipeline.ErrInvalid, pipeline.ErrUnsupported, pipeline.ErrUnknown, pipeline.ErrNotImage, pipeline.ErrMissingPart} {
		if errors.Is(err, s) {
			return
		}
	}
	t.Errorf("the error is none of the house's: %v", err)
}

func decodeAll(data []byte) ([]*dicom.Pixels, error) {
	in, err := dicom.OpenAnonymous(data) // the data pack has images without UIDs
	if err != nil {
		return nil, err
	}
	f, err := dicom.OpenFrames(in)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []*dicom.Pixels
	for i := range f.Len() {
		p, err := f.Frame(context.Background(), i)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

func golden(t *testing.T, r row, frames []*dicom.Pixels) {
	t.Helper()
	if len(frames) != r.frames {
		t.Errorf("%d frames, the manifest says %d", len(frames), r.frames)
	}
	var all []byte
	for _, p := range frames {
		if p.Rows != r.rows || p.Columns != r.columns || p.SamplesPerPixel != r.samples || p.BitsAllocated != max(8, r.allocated) || p.Signed != r.signed {
			t.Errorf("frame is %d x %d x %d, %d bits, signed %v", p.Rows, p.Columns, p.SamplesPerPixel, p.BitsAllocated, p.Signed)
		}
		all = append(all, p.Data...)
	}
	switch {
	case r.allocated == 1 && hash(all) != r.hash: // the manifest has one of them unpacked
		all = packBits(all)
	case r.photometric == "YBR_FULL_422":
		all = shareChroma(all)
	}
	if got := hash(all); got != r.hash {
		t.Errorf("decoded pixels have sha256 %s, the manifest's decoder %s", got, r.hash)
	}
}

// packBits undoes the unpacking of 1-bit samples: frames follow one another without a gap.
func packBits(samples []byte) []byte {
	out := make([]byte, (len(samples)+7)/8)
	for i, s := range samples {
		out[i/8] |= s << (i % 8)
	}
	return out
}

// shareChroma undoes the repeating of chroma in 8-bit frames with an even number of columns.
func shareChroma(b []byte) []byte {
	var out []byte
	for i := 0; i+6 <= len(b); i += 6 {
		out = append(out, b[i], b[i+3], b[i+1], b[i+2])
	}
	return out
}

func hash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
