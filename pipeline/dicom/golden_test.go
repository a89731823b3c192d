package dicom_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
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
			if errors.Is(err, pipeline.ErrMissingPart) && !codecsThere {
				t.Skip(noCodecs)
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

// TestEveryKindIsGolden demands images of another writer for each syntax that is decoded. For HTJ2K with RPCL there are none in the data
// pack: only what we write ourselves.
func TestEveryKindIsGolden(t *testing.T) {
	there := map[string]bool{}
	for _, r := range manifest(t) {
		there[r.syntax] = there[r.syntax] || r.expect == "ok"
	}
	for _, s := range dicom.Syntaxes() {
		if s.Decodes && !there[s.UID] && s.UID != dicom.HTJ2KLosslessRPCL {
			t.Errorf("%s (%s) is decoded and no image shows that it is decoded rightly", s.UID, s.Name)
		}
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

// tolerance is what a lossy image is compared with where there is no hash, or where decoders may round differently.
type tolerance struct {
	file string // of the data pack: the same picture without loss
	most int    // levels
	mean float64
}

// tolerances are for the two lossy images whose pixels are not, bit for bit, those of the manifest's decoder. The pictures that
// they are compared with come from other files and, for the first, another decoder (DCMTK's, as an uncompressed file).
var tolerances = map[string]tolerance{
	"edge/pydicom_JPEG2000-embedded-sequence-delimiter.dcm": {"syntaxes/pydicomdata_JPEG2000_UNC.dcm", 0, 0},
	"syntaxes/pydicomdata_HTJ2K_08_RGB.dcm":                 {"syntaxes/pydicomdata_HTJ2KLossless_08_RGB.dcm", 4, 0.5},
}

// golden compares decoded frames with the manifest: the hash of another decoder's pixels. All lossless images and all but two of the
// lossy ones are equal to it in every bit.
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
		if want := strings.TrimSuffix(r.photometric, "_422"); want != "" && p.Photometric != want {
			t.Errorf("frame is %s in place of %s", p.Photometric, want)
		}
		if want := strconv.Itoa(p.PlanarConfiguration); r.planar != "" && p.SamplesPerPixel > 1 && want != r.planar {
			t.Errorf("frame has planar configuration %s in place of %s", want, r.planar)
		}
		all = append(all, p.Data...)
	}
	if tol, ok := tolerances[r.file]; ok {
		near(t, all, tol)
		return
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

// near compares bytes with those of another file within a tolerance.
func near(t *testing.T, got []byte, tol tolerance) {
	t.Helper()
	frames, err := decodeAll(packFile(t, tol.file))
	if err != nil {
		t.Fatal(err)
	}
	want := frames[0].Data
	if len(got) != len(want) {
		t.Fatalf("%d bytes in place of %d", len(got), len(want))
	}
	most, sum := 0, 0
	for i := range want {
		d := max(int(got[i])-int(want[i]), int(want[i])-int(got[i]))
		most, sum = max(most, d), sum+d
	}
	if mean := float64(sum) / float64(len(want)); most > tol.most || mean > tol.mean {
		t.Errorf("differs from %s by %d at most and %.3f in the mean", tol.file, most, mean)
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
