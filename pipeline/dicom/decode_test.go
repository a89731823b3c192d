package dicom_test

import (
	"bytes"
	"context"
	"sync"
	"testing"

	"chatxray/pipeline"
	"chatxray/pipeline/dicom"
)

// TestCodestreamNarrower decodes codestreams of fewer bits than the header allocates, which some writers make: the words must have
// the header's size and the codestream's values.
func TestCodestreamNarrower(t *testing.T) {
	if !codecsThere {
		t.Skip(noCodecs)
	}
	set := func(b []byte, tag pipeline.Tag, v byte) {
		at := bytes.Index(b, short(tag, 0)[:8])
		b[at+8] = v
	}
	for _, uid := range []string{dicom.JPEGLossless, dicom.JPEGLSLossless, dicom.JPEG2000Lossless, dicom.HTJ2KLossless} {
		for _, p := range pictures[:2] {
			var file bytes.Buffer
			if err := dicom.Write(&file, p.dataset(), uid); err != nil {
				t.Fatal(err)
			}
			set(file.Bytes(), pipeline.TagBitsAllocated, 16)
			set(file.Bytes(), pipeline.TagBitsStored, 16)
			set(file.Bytes(), pipeline.TagHighBit, 15)
			in, err := dicom.Open(file.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			got, err := dicom.DecodeFrame(context.Background(), in, 0)
			if err != nil {
				t.Errorf("%s, %v: %v", uid, p, err)
				continue
			}
			want, _ := p.dataset().Get(pipeline.TagPixelData)
			if p.allocated == 8 {
				for i, v := range want.Bytes {
					if got.Data[2*i] != v || got.Data[2*i+1] != 0 {
						t.Fatalf("%s, %v: word %d is %02x%02x in place of %02x", uid, p, i, got.Data[2*i+1], got.Data[2*i], v)
					}
				}
				continue
			}
			compare(t, got, want.Bytes, 0)
		}
	}
}

// TestConcurrentDecoding decodes images in all syntaxes from many goroutines at once, hostile ones among them.
func TestConcurrentDecoding(t *testing.T) {
	var g sync.WaitGroup
	for _, s := range dicom.Syntaxes() {
		if !s.Encodes || s.UID == dicom.JPEGBaseline || s.Encapsulated && s.UID != dicom.RLELossless && !codecsThere {
			continue
		}
		ds := pictures[1].dataset()
		want, _ := ds.Get(pipeline.TagPixelData)
		var file bytes.Buffer
		if err := dicom.Write(&file, ds, s.UID); err != nil {
			t.Fatal(err)
		}
		broken := bytes.Clone(file.Bytes())
		for i := len(broken) * 3 / 4; i < len(broken)-16; i += 7 {
			broken[i] ^= 0x55
		}
		for i := range 6 {
			b, whole := file.Bytes(), true
			if i%3 == 2 {
				b, whole = broken, false
			}
			g.Go(func() {
				in, err := dicom.Open(b)
				if err != nil {
					if whole {
						t.Errorf("%s: %v", s.Name, err)
					}
					return
				}
				p, err := dicom.DecodeFrame(context.Background(), in, 0)
				if whole && (err != nil || !bytes.Equal(p.Data, want.Bytes)) {
					t.Errorf("%s: decoding beside others went wrong (%v)", s.Name, err)
				}
			})
		}
	}
	g.Wait()
}
