package dicom_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"chatxray/phantom"
	"chatxray/pipeline"
	"chatxray/pipeline/dicom"
)

// radiograph is a picture of the size of a chest radiograph.
var radiograph = picture{2500, 2048, 1, 16, 12, 1, false, "MONOCHROME2"}

// BenchmarkOpen opens a radiograph of 10 MB in memory and on disk; most of it is the digest.
func BenchmarkOpen(b *testing.B) {
	var file bytes.Buffer
	if err := dicom.Write(&file, radiograph.dataset(), dicom.ExplicitVRLittleEndian); err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(b.TempDir(), "a.dcm")
	if err := os.WriteFile(path, file.Bytes(), 0o600); err != nil {
		b.Fatal(err)
	}
	for name, open := range map[string]func() (*pipeline.Instance, error){
		"memory": func() (*pipeline.Instance, error) { return dicom.Open(file.Bytes()) },
		"file":   func() (*pipeline.Instance, error) { return dicom.OpenFile(path) },
		"header": func() (*pipeline.Instance, error) { return dicom.OpenHeader(path) },
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(file.Len()))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := open(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkLook does what a study of one small radiograph on disk takes before it is read: opened twice, its header parsed, chosen, decoded, its exposure
// checked.
func BenchmarkLook(b *testing.B) {
	p, err := phantom.Draw(phantom.Options{Seed: 1, Rows: phantom.LeastSide, Columns: phantom.LeastSide})
	if err != nil {
		b.Fatal(err)
	}
	var file bytes.Buffer
	if err := dicom.Write(&file, p.Dataset(), dicom.ExplicitVRLittleEndian); err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(b.TempDir(), "a.dcm")
	if err := os.WriteFile(path, file.Bytes(), 0o600); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		in, err := dicom.OpenFile(path)
		if err != nil {
			b.Fatal(err)
		}
		chosen, _ := dicom.Select(&pipeline.Study{StudyInstanceUID: in.StudyInstanceUID, Instances: []*pipeline.Instance{in}}, 0)
		m, err := dicom.Decode(context.Background(), chosen[0].Instance, chosen[0].Frame)
		if err != nil {
			b.Fatal(err)
		}
		if err := dicom.CheckExposure(m); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDecode decodes a noisy radiograph in every syntax that is written.
func BenchmarkDecode(b *testing.B) {
	p := radiograph.dataset()
	for _, s := range dicom.Syntaxes() {
		var file bytes.Buffer
		if !s.Encodes || s.UID == dicom.JPEGBaseline || s.Encapsulated && s.UID != dicom.RLELossless && !codecsThere {
			continue
		}
		if err := dicom.Write(&file, p, s.UID); err != nil {
			b.Fatal(err)
		}
		in, err := dicom.Open(file.Bytes())
		if err != nil {
			b.Fatal(err)
		}
		b.Run(s.Name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := dicom.DecodeFrame(context.Background(), in, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
