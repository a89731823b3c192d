package dicom_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chatxray/pipeline"
	"chatxray/pipeline/dicom"
)

// transcode brings a file to another syntax; nil where that is not to be done.
func transcode(t *testing.T, data []byte, uid string) []byte {
	t.Helper()
	o, err := dicom.OpenObject(&pipeline.Instance{Data: data})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	file, actual, err := o.Transcode(context.Background(), uid)
	if err != nil {
		for _, known := range []error{pipeline.ErrUnsupported, pipeline.ErrInvalid, pipeline.ErrNotImage} {
			if errors.Is(err, known) {
				return nil
			}
		}
		t.Fatal(err)
	}
	var out bytes.Buffer
	if _, err := file.WriteTo(&out); err != nil {
		if errors.Is(err, pipeline.ErrInvalid) { // a later frame
			return nil
		}
		t.Fatal(err)
	}
	in, err := dicom.Open(out.Bytes())
	if err != nil || in.TransferSyntaxUID != actual {
		t.Fatalf("what was made of it does not open as %s: %v", actual, err)
	}
	return out.Bytes()
}

// changed are the attributes that a conversion may change.
var changed = []pipeline.Tag{pipeline.TagPhotometricInterpretation, pipeline.TagPlanarConfiguration, pipeline.TagLossyImageCompression,
	pipeline.TagLossyImageCompressionRatio, pipeline.TagLossyImageCompressionMethod}

func unchanged(d pipeline.Dataset) pipeline.Dataset {
	return slices.DeleteFunc(slices.Clone(d), func(e pipeline.Element) bool { return slices.Contains(changed, e.Tag) })
}

// TestTranscode brings every file of the data pack to every syntax that is written: pixels must be the same in every bit, and every
// other attribute must have its value.
func TestTranscode(t *testing.T) {
	if !codecsThere {
		t.Skip(noCodecs)
	}
	made := map[string]int{}
	for _, r := range manifest(t) {
		if r.frames*r.rows*r.columns > 600_000 {
			continue // minutes of encoders
		}
		data := packFile(t, r.file)
		in, err := dicom.Open(data)
		if err != nil {
			continue
		}
		want, decodeErr := decodeAll(data)
		for _, s := range dicom.Syntaxes() {
			if !dicom.Transcodes(in.TransferSyntaxUID, s.UID) || s.UID == in.TransferSyntaxUID || s.UID == dicom.JPEGBaseline {
				continue
			}
			if n := r.frames * r.rows * r.columns; s.Encapsulated && n > 70_000 && s.UID != dicom.RLELossless {
				continue
			}
			t.Run(r.file+"/"+s.Name, func(t *testing.T) {
				out := transcode(t, data, s.UID)
				if out == nil {
					if s.UID == dicom.ExplicitVRLittleEndian && decodeErr == nil {
						t.Error("its pixels can be decoded, but it is not brought to Explicit VR Little Endian")
					}
					return
				}
				made[s.UID]++
				again, err := dicom.Open(out)
				if err != nil {
					t.Fatal(err)
				}
				if before, after := unchanged(in.Header), unchanged(again.Header); !reflect.DeepEqual(before, after) { // cmp takes seconds for a large header
					t.Error(cmp.Diff(before, after))
				}
				if decodeErr != nil {
					return
				}
				got, err := decodeAll(out)
				if err != nil || len(got) != len(want) {
					t.Fatalf("%d frames in place of %d: %v", len(got), len(want), err)
				}
				for i := range got {
					if !bytes.Equal(pixelwise(got[i]), pixelwise(want[i])) {
						t.Errorf("frame %d has other pixels", i+1)
					}
				}
			})
		}
	}
	for uid, least := range map[string]int{dicom.ExplicitVRLittleEndian: 90, dicom.JPEGLSLossless: 60, dicom.RLELossless: 80, dicom.HTJ2KLossless: 50, dicom.JPEGLossless: 40, dicom.JPEG2000Lossless: 40} {
		if made[uid] < least {
			t.Errorf("only %d files were brought to %s", made[uid], uid)
		}
	}
	t.Log(made)
}

// pixelwise returns samples side by side, bits that mean nothing cleared.
func pixelwise(p *dicom.Pixels) []byte {
	n, plane := p.BitsAllocated/8, p.Rows*p.Columns
	out := make([]byte, len(p.Data))
	for i := range plane {
		for s := range p.SamplesPerPixel {
			from := (i*p.SamplesPerPixel + s) * n
			if p.PlanarConfiguration == 1 {
				from = (s*plane + i) * n
			}
			copy(out[(i*p.SamplesPerPixel+s)*n:], p.Data[from:from+n])
		}
	}
	if p.HighBit+1 < p.BitsAllocated && n == 2 {
		for i := 1; i < len(out); i += 2 {
			out[i] &= byte(1<<(p.HighBit+1-8) - 1)
		}
	}
	return out
}

const pydicomCompare = `
import sys, json, warnings
import pydicom, numpy
warnings.simplefilter("ignore")
skip = {0x00280004, 0x00280006, 0x00282110, 0x00282112, 0x00282114, 0x7FE00010, 0x7FE00001, 0x7FE00002}
def values(ds, top):
    out = {}
    for e in ds:
        if e.tag.elem == 0 or top and int(e.tag) in skip or e.tag.group == 0xFFFC:
            continue
        if e.VR == "SQ":
            out[str(e.tag)] = [values(i, False) for i in e.value]
        else:
            v = e.value
            if isinstance(v, bytes):
                v = v.rstrip(b"\0")
            out[str(e.tag)] = repr(v)
    return out
result = {}
for line in sys.stdin:
    a, b = line.rstrip("\n").split("\t")
    try:
        before, after = pydicom.dcmread(a), pydicom.dcmread(b)
        x, y = values(before, True), values(after, True)
    except Exception as e:
        result[a] = "pydicom: " + repr(e)[:200]
        continue
    bad = [k for k in sorted(set(x) | set(y)) if x.get(k) != y.get(k)]
    if bad:
        result[a] = "; ".join("%s %s -> %s" % (k, str(x.get(k))[:60], str(y.get(k))[:60]) for k in bad[:3])
        continue
    result[a] = "ok"
    if "PixelData" in after and before.file_meta.TransferSyntaxUID in ("1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"):
        try:
            p = before.pixel_array
        except Exception:
            continue
        result[a] = "ok with pixels" if numpy.array_equal(p, after.pixel_array) else "other pixels"
json.dump(result, sys.stdout)
`

// TestTranscodeWithPydicom lets pydicom compare what it reads before and after: implicit VR, big endian and deflated files are written
// anew by us, compressed ones lose their compression.
func TestTranscodeWithPydicom(t *testing.T) {
	const python = "/usr/bin/python3"
	if exec.Command(python, "-c", "import pydicom, numpy").Run() != nil {
		t.Skip("python3-pydicom or python3-numpy absent: conversions are compared with our own reading only")
	}
	dir := t.TempDir()
	var lines strings.Builder
	names := map[string]string{}
	for i, r := range manifest(t) {
		data := packFile(t, r.file)
		in, err := dicom.Open(data)
		if err != nil || in.TransferSyntaxUID == dicom.ExplicitVRLittleEndian || !dicom.Transcodes(in.TransferSyntaxUID, dicom.ExplicitVRLittleEndian) ||
			r.frames*r.rows*r.columns > 600_000 || !codecsThere && i%2 == 0 {
			continue
		}
		out := transcode(t, data, dicom.ExplicitVRLittleEndian)
		if out == nil {
			continue
		}
		a, b := filepath.Join(dir, "a"+strings.ReplaceAll(r.file, "/", "_")), filepath.Join(dir, "b"+strings.ReplaceAll(r.file, "/", "_"))
		for path, content := range map[string][]byte{a: data, b: out} {
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		names[a] = r.file
		io.WriteString(&lines, a+"\t"+b+"\n")
	}
	cmd := exec.Command(python, "-c", pydicomCompare)
	cmd.Stdin, cmd.Stderr = strings.NewReader(lines.String()), os.Stderr
	answer, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]string
	if err := json.Unmarshal(answer, &got); err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for a, said := range got {
		counts[said]++
		if !strings.HasPrefix(said, "ok") && pydicomDiffers[names[a]] == "" {
			t.Errorf("%s: %s", names[a], said)
		}
	}
	if counts["ok"]+counts["ok with pixels"] < 60 || counts["ok with pixels"] < 10 {
		t.Errorf("only %v", counts)
	}
	t.Log(counts["ok"], "files,", counts["ok with pixels"], "with pixels")
}

// pydicomDiffers lists files that pydicom reads otherwise before than after, and why that is right.
var pydicomDiffers = map[string]string{
	"syntaxes/pydicomdata_OT-PAL-8-face.dcm":                                      "older than PS3.10: pydicom does not read it without force",
	"syntaxes/pydicomdata_gdcm-US-ALOKA-16_big.dcm":                               "pydicom leaves the words of OW as they lie in big endian",
	"syntaxes/cs_CTImage_BigEndianExplicitTransferSyntax_1.2.840.10008.1.2.2.dcm": "private attributes written as UN: pydicom takes the file's byte order for them, we leave the bytes (PS3.5 section 6.2.2)",
	"edge/pydicom_SC_rgb_small_odd_big_endian.dcm":                                "8-bit samples in OW, which pydicom does not swap; ours are those of the manifest's decoder",
	"syntaxes/pydicom_rtdose_expb_1frame.dcm":                                     "32-bit samples in OW: the halves keep their order in PS3.5 annex D; ours are those of the manifest's decoder",
}
