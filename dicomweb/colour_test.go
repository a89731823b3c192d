package dicomweb_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"chatxray/pipeline"
	"chatxray/pipeline/dicom"
)

// TestColours: metadata tell the object as it is stored; the object that is decoded for a client says what its pixels are then, and frames
// that are decoded have the pixels of that object. DCMTK draws the same picture of both, so what the objects say of their colours is right.
func TestColours(t *testing.T) {
	codecs(t)
	if _, err := exec.LookPath("dcmj2pnm"); err != nil {
		t.Skip("dcmj2pnm (DCMTK) is not installed")
	}
	drawn, changed := 0, 0
	for _, name := range append(pack(t, "dicom/syntaxes/*.dcm"), pack(t, "dicom/wg04/*.dcm")...) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		in, err := dicom.Open(b)
		if err != nil || len(b) > 4<<20 {
			continue
		}
		if n, _ := in.Header.Int(pipeline.TagSamplesPerPixel); n != 3 {
			continue
		}
		t.Run(filepath.Base(name), func(t *testing.T) {
			s := start(t)
			if r := s.post("/studies", "application/dicom", bytes.NewReader(b)); r.StatusCode != http.StatusOK {
				t.Fatal(r.StatusCode, string(r.body))
			}
			path := instancePath(in)
			var model []map[string]struct{ Value []any }
			if err := json.Unmarshal(s.get(path+"/metadata").body, &model); err != nil {
				t.Fatal(err)
			}
			stored := in.Header.String(pipeline.TagPhotometricInterpretation)
			if got := fmt.Sprint(model[0]["00280004"].Value...); got != stored {
				t.Errorf("metadata say %s, the object is stored as %s", got, stored)
			}
			r := s.get(path, "Accept", "application/dicom")
			got, err := dicom.Open(r.body)
			if err != nil || got.TransferSyntaxUID != dicom.ExplicitVRLittleEndian {
				t.Fatalf("%d %v %s", r.StatusCode, err, r.Header.Get("Content-Type"))
			}
			says := got.Header.String(pipeline.TagPhotometricInterpretation)
			jpeg := strings.HasPrefix(in.TransferSyntaxUID, "1.2.840.10008.1.2.4.") // of any kind: decoders give red, green and blue
			if jpeg && says != "RGB" || !jpeg && says != stored {
				t.Errorf("%s becomes %s", stored, says)
			}
			if says != stored {
				changed++
			}
			frame := s.get(path+"/frames/1", "Accept", "application/octet-stream").body
			if len(frame) == 0 || !bytes.Contains(r.body, frame) {
				t.Errorf("frame 1, %d bytes, is not in the decoded object", len(frame))
			}
			if difference, ok := drawnAlike(t, name, r.body); ok {
				if drawn++; difference > 3 {
					t.Errorf("DCMTK draws another picture, by %.1f of 255 levels: %s becomes %s", difference, stored, says)
				}
			}
		})
	}
	if drawn < 15 || changed < 10 {
		t.Errorf("only %d were drawn, %d have changed", drawn, changed)
	}
	t.Logf("%d drawn by DCMTK, %d with another photometric interpretation", drawn, changed)
}

// drawnAlike has DCMTK draw a file and our copy of it, and returns by how much they differ on the mean. ok is false where it does not draw
// the file.
func drawnAlike(t *testing.T, name string, ours []byte) (difference float64, ok bool) {
	t.Helper()
	dir := t.TempDir()
	decoded := filepath.Join(dir, "ours.dcm")
	if err := os.WriteFile(decoded, ours, 0o600); err != nil {
		t.Fatal(err)
	}
	theirs, err := exec.Command("dcmj2pnm", "-q", "--write-raw-pnm", name).Output()
	if err != nil || !bytes.HasPrefix(theirs, []byte("P6")) {
		return 0, false
	}
	picture, err := exec.Command("dcmj2pnm", "-q", "--write-raw-pnm", decoded).Output()
	if err != nil || len(picture) != len(theirs) {
		t.Fatalf("DCMTK does not draw our copy: %v, %d bytes for %d", err, len(picture), len(theirs))
	}
	sum := 0.0
	for i := range picture {
		sum += math.Abs(float64(picture[i]) - float64(theirs[i]))
	}
	return sum / float64(len(picture)), true
}
