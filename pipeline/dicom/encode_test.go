package dicom_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/suyashkumar/dicom/pkg/tag"

	"chatxray/pipeline"
	"chatxray/pipeline/dicom"
)

// picture is a data set of a synthetic image: a ramp with noise, the full range of stored values in its corners.
type picture struct {
	rows, columns, samples, allocated, stored, frames int
	signed                                            bool
	photometric                                       string
}

func (p picture) String() string {
	return fmt.Sprintf("%dx%dx%d-%d-of-%d-signed-%v", p.rows, p.columns, p.samples, p.stored, p.allocated, p.signed)
}

func (p picture) dataset() pipeline.Dataset {
	rng := rand.New(rand.NewPCG(1, 2))
	n := p.rows * p.columns * p.samples * p.frames
	b := make([]byte, 0, n*p.allocated/8)
	mask := uint64(1)<<p.stored - 1
	for i := range n {
		v := uint64(i)*mask/uint64(n) + rng.Uint64()%(1+mask/16)
		switch i % 97 {
		case 0:
			v = 0
		case 1:
			v = mask
		}
		v &= mask
		if p.signed && v>>(p.stored-1) == 1 { // sign-extended, as writers do
			v |= ^mask
		}
		switch p.allocated {
		case 8:
			b = append(b, byte(v))
		case 16:
			b = binary.LittleEndian.AppendUint16(b, uint16(v))
		default:
			b = binary.LittleEndian.AppendUint32(b, uint32(v))
		}
	}
	var ds pipeline.Dataset
	ds.SetText(pipeline.TagSpecificCharacterSet, "CS", "ISO_IR 192")
	ds.SetText(pipeline.TagSOPClassUID, "UI", "1.2.840.10008.5.1.4.1.1.7")
	ds.SetText(pipeline.TagSOPInstanceUID, "UI", "2.25.3")
	ds.SetText(pipeline.TagStudyInstanceUID, "UI", "2.25.1")
	ds.SetText(pipeline.TagSeriesInstanceUID, "UI", "2.25.2")
	ds.SetText(0x00100010, "PN", "Größe^Ünal=山田^太郎")
	set := func(t pipeline.Tag, n int) { ds.SetInts(t, "US", int64(n)) }
	set(pipeline.TagRows, p.rows)
	set(pipeline.TagColumns, p.columns)
	set(pipeline.TagSamplesPerPixel, p.samples)
	set(pipeline.TagBitsAllocated, p.allocated)
	set(pipeline.TagBitsStored, p.stored)
	set(pipeline.TagHighBit, p.stored-1)
	set(pipeline.TagPixelRepresentation, 0)
	if p.signed {
		set(pipeline.TagPixelRepresentation, 1)
	}
	if p.samples > 1 {
		set(pipeline.TagPlanarConfiguration, 0)
	}
	ds.SetText(pipeline.TagPhotometricInterpretation, "CS", p.photometric)
	if p.frames > 1 {
		ds.SetText(pipeline.TagNumberOfFrames, "IS", fmt.Sprint(p.frames))
	}
	ds.SetBytes(pipeline.TagPixelData, "OW", b)
	return ds
}

var pictures = []picture{
	{64, 48, 1, 8, 8, 1, false, "MONOCHROME2"},
	{63, 51, 1, 16, 12, 1, false, "MONOCHROME1"},
	{64, 48, 1, 16, 10, 3, false, "MONOCHROME2"},
	{64, 48, 1, 16, 16, 1, false, "MONOCHROME2"},
	{64, 48, 1, 16, 16, 1, true, "MONOCHROME2"},
	{64, 48, 1, 16, 12, 1, true, "MONOCHROME2"},
	{40, 48, 3, 8, 8, 2, false, "RGB"},
	{7, 5, 1, 32, 32, 1, false, "MONOCHROME2"},
}

// unwritable are pictures that a syntax does not write; everything else must come back bit for bit.
func unwritable(uid string, p picture) bool {
	switch uid {
	case dicom.RLELossless:
		return false
	case dicom.JPEGBaseline:
		return p.allocated != 8 || p.samples != 1
	}
	return p.allocated == 32
}

// TestWriteEverySyntax writes synthetic images in every syntax that is written and decodes them again.
func TestWriteEverySyntax(t *testing.T) {
	for _, s := range dicom.Syntaxes() {
		if !s.Encodes {
			continue
		}
		t.Run(s.Name, func(t *testing.T) {
			if s.Encapsulated && s.UID != dicom.RLELossless && !codecsThere {
				t.Skip(noCodecs)
			}
			for _, p := range pictures {
				t.Run(p.String(), func(t *testing.T) {
					ds := p.dataset()
					var file, again bytes.Buffer
					err := dicom.Write(&file, ds, s.UID)
					if s.Encapsulated && unwritable(s.UID, p) {
						if !errors.Is(err, pipeline.ErrUnsupported) && !errors.Is(err, pipeline.ErrInvalid) {
							t.Fatalf("writing is not refused: %v", err)
						}
						return
					}
					if err != nil {
						t.Fatal(err)
					}
					if err := dicom.Write(&again, ds, s.UID); err != nil || !bytes.Equal(file.Bytes(), again.Bytes()) {
						t.Errorf("written twice, the bytes differ (%v)", err)
					}
					in, err := dicom.Open(file.Bytes())
					if err != nil {
						t.Fatal(err)
					}
					if in.TransferSyntaxUID != s.UID || in.Header.String(0x00100010) != "Größe^Ünal=山田^太郎" {
						t.Errorf("the header came back as %s, %q", in.TransferSyntaxUID, in.Header.String(0x00100010))
					}
					want, _ := ds.Get(pipeline.TagPixelData)
					size := len(want.Bytes) / p.frames
					for f := range p.frames {
						got, err := dicom.DecodeFrame(context.Background(), in, f)
						if err != nil {
							t.Fatal(err)
						}
						most := 0
						if s.UID == dicom.JPEGBaseline {
							most = 24
						}
						compare(t, got, want.Bytes[f*size:(f+1)*size], most)
					}
				})
			}
		})
	}
}

// compare demands words that differ by most at the most.
func compare(t *testing.T, got *dicom.Pixels, want []byte, most int) {
	t.Helper()
	if len(got.Data) != len(want) {
		t.Fatalf("%d bytes in place of %d", len(got.Data), len(want))
	}
	if most == 0 {
		if !bytes.Equal(got.Data, want) {
			for i := range want {
				if want[i] != got.Data[i] {
					t.Fatalf("byte %d is %02x in place of %02x", i, got.Data[i], want[i])
				}
			}
		}
		return
	}
	sum := 0
	for i := range want {
		sum += max(int(want[i])-int(got.Data[i]), int(got.Data[i])-int(want[i]))
	}
	if mean := float64(sum) / float64(len(want)); mean > float64(most) {
		t.Errorf("samples differ by %.1f in the mean", mean)
	}
}

// TestHeaderRoundTrip writes the header of every file of the data pack and parses it again: nothing may change.
func TestHeaderRoundTrip(t *testing.T) {
	n := 0
	for _, r := range manifest(t) {
		in, err := dicom.OpenAnonymous(packFile(t, r.file))
		if err != nil || in.SOPInstanceUID == "" || in.SOPClassUID == "" {
			continue
		}
		ds := unicode(in.Header)
		for _, syntax := range []string{dicom.ExplicitVRLittleEndian, dicom.ImplicitVRLittleEndian, dicom.ExplicitVRBigEndian, dicom.DeflatedExplicitVRLittleEndian} {
			var file bytes.Buffer
			if err := dicom.Write(&file, ds, syntax); err != nil {
				t.Errorf("%s in %s: %v", r.file, syntax, err)
				continue
			}
			back, err := dicom.OpenAnonymous(file.Bytes())
			if err != nil {
				t.Errorf("%s in %s: %v", r.file, syntax, err)
				continue
			}
			want, got := ds, back.Header
			if syntax == dicom.ImplicitVRLittleEndian { // VRs of private and ambiguous attributes do not survive
				want, got = plain(ds, ds), plain(back.Header, ds)
			}
			if !reflect.DeepEqual(want, got) { // cmp alone takes a minute
				d := cmp.Diff(want, got)
				t.Errorf("%s in %s changed:\n%s", r.file, syntax, d[:min(len(d), 1500)])
			}
			n++
		}
	}
	t.Logf("%d files written", n)
}

// unicode is a header with its Specific Character Set replaced, as its text has been decoded.
func unicode(ds pipeline.Dataset) pipeline.Dataset { return convert(ds, true) }

func convert(ds pipeline.Dataset, top bool) pipeline.Dataset {
	var out pipeline.Dataset
	for _, e := range ds {
		if e.Tag == pipeline.TagSpecificCharacterSet {
			continue
		}
		for i, item := range e.Items {
			if i == 0 {
				e.Items = append([]pipeline.Dataset(nil), e.Items...)
			}
			e.Items[i] = convert(item, false)
		}
		out = append(out, e)
	}
	if top {
		out.SetText(pipeline.TagSpecificCharacterSet, "CS", "ISO_IR 192")
	}
	return out
}

// plain leaves out what implicit VR cannot say: private attributes, those with a choice of VRs, and those to which the model gives
// another VR than the standard.
func plain(ds, model pipeline.Dataset) pipeline.Dataset {
	var out pipeline.Dataset
	for _, e := range ds {
		i, err := tag.Find(tag.Tag{Group: e.Tag.Group(), Element: e.Tag.Element()})
		m, _ := model.Get(e.Tag)
		if err != nil || len(i.VRs) > 1 || m.VR != i.VRs[0] {
			continue
		}
		items := e.Items
		e.Items = nil
		for n, item := range items {
			e.Items = append(e.Items, plain(item, m.Items[n]))
		}
		out = append(out, e)
	}
	return out
}

// TestWriteRefuses lists data sets that are not written.
func TestWriteRefuses(t *testing.T) {
	base := pictures[0].dataset()
	with := func(e pipeline.Element) pipeline.Dataset {
		ds := append(pipeline.Dataset(nil), base...)
		ds.Set(e)
		return ds
	}
	for _, c := range []struct {
		name, syntax string
		ds           pipeline.Dataset
		kind         error
	}{
		{"no identity", dicom.ExplicitVRLittleEndian, base[:1], pipeline.ErrInvalid},
		{"unknown syntax", "1.2.3.4", base, pipeline.ErrUnknown},
		{"stub syntax", "1.2.840.10008.1.2.4.100", base, pipeline.ErrUnsupported},
		{"descending", dicom.ExplicitVRLittleEndian, append(append(pipeline.Dataset(nil), base...), base[0]), pipeline.ErrInvalid},
		{"no VR", dicom.ExplicitVRLittleEndian, with(pipeline.Element{Tag: 0x00081030, VR: "XX"}), pipeline.ErrInvalid},
		{"long text", dicom.ExplicitVRLittleEndian, with(pipeline.Element{Tag: 0x00081030, VR: "LO", Text: []string{strings.Repeat("a", 70000)}}), pipeline.ErrInvalid},
		{"number out of range", dicom.ExplicitVRLittleEndian, with(pipeline.Element{Tag: pipeline.TagRows, VR: "US", Ints: []int64{70000}}), pipeline.ErrInvalid},
		{"odd words", dicom.ExplicitVRLittleEndian, with(pipeline.Element{Tag: 0x00281201, VR: "OW", Bytes: []byte{1, 2, 3}}), pipeline.ErrInvalid},
		{"file meta", dicom.ExplicitVRLittleEndian, with(pipeline.Element{Tag: 0x00020010, VR: "UI", Text: []string{"1.2"}}), pipeline.ErrInvalid},
		{"other character set", dicom.ExplicitVRLittleEndian, with(pipeline.Element{Tag: pipeline.TagSpecificCharacterSet, VR: "CS", Text: []string{"ISO_IR 100"}}), pipeline.ErrInvalid},
		{"not UTF-8", dicom.ExplicitVRLittleEndian, with(pipeline.Element{Tag: 0x00100010, VR: "PN", Text: []string{"\xff"}}), pipeline.ErrInvalid},
		{"too few pixels", dicom.RLELossless, with(pipeline.Element{Tag: pipeline.TagPixelData, VR: "OW", Bytes: []byte{1, 2}}), pipeline.ErrInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			if err := dicom.Write(&out, c.ds, c.syntax); !errors.Is(err, c.kind) {
				t.Errorf("got %v, want %v", err, c.kind)
			}
			if out.Len() > 0 {
				t.Errorf("%d bytes were written", out.Len())
			}
		})
	}
}

// TestOtherReaders has dcmdump of DCMTK read what we write, warnings being errors.
func TestOtherReaders(t *testing.T) {
	if _, err := exec.LookPath("dcmdump"); err != nil {
		t.Skip("dcmdump (DCMTK) is not installed")
	}
	ds := pictures[1].dataset()
	ds.SetBytes(0x00091001, "OB", []byte{1, 2, 3})
	ds.SetText(0x00090010, "LO", "CHATXRAY TEST")
	ds.SetInts(0x00280009, "AT", 0x00181063)
	ds.Set(pipeline.Element{Tag: 0x00181063, VR: "DS", Text: []string{"33.3"}})
	ds.SetItems(0x00082112, pipeline.Dataset{{Tag: 0x00081155, VR: "UI", Text: []string{"1.2.3"}}}, pipeline.Dataset{})
	ds.SetItems(0x0040A730)
	for _, s := range dicom.Syntaxes() {
		if !s.Encodes || s.NeedsCodecs && !codecsThere || s.UID == dicom.JPEGBaseline || s.UID == dicom.JPEGLSLossless && !codecsThere {
			continue
		}
		path := filepath.Join(t.TempDir(), "file.dcm")
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := dicom.Write(f, ds, s.UID); err != nil {
			t.Fatal(err)
		}
		f.Close()
		out, err := exec.Command("dcmdump", "-v", path).CombinedOutput()
		if err != nil || strings.Contains(string(out), "W:") || strings.Contains(string(out), "E:") {
			t.Errorf("%s: dcmdump says %v\n%s", s.Name, err, out)
		}
		for _, want := range []string{"(0008,2112) SQ", "[1.2.3]", "(0018,1063)", "(0040,a730) SQ"} {
			if !strings.Contains(string(out), want) {
				t.Errorf("%s: dcmdump does not show %s", s.Name, want)
			}
		}
	}
}
