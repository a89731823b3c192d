package dicom

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chatxray/pipeline"
)

// TestDoubleRegistration: two files that claim one UID must not both be in a build.
func TestDoubleRegistration(t *testing.T) {
	defer func() {
		if p := recover(); p == nil || !strings.Contains(p.(string), RLELossless) {
			t.Errorf("registering RLE again gave %v", p)
		}
	}()
	register(syntax{Syntax: Syntax{UID: RLELossless}})
}

// TestSyntaxes compares the registry with the list of the standard (PS3.6 table A-1) that the product promises.
func TestSyntaxes(t *testing.T) {
	decodes := strings.Fields("1.2.840.10008.1.2 .1 .1.99 .2 .5 .4.50 .4.51 .4.53 .4.55 .4.57 .4.70 .4.80 .4.81 .4.90 .4.91 .4.201 .4.202 .4.203")
	for i, d := range decodes {
		if i > 0 {
			decodes[i] = decodes[0] + d
		}
	}
	all := Syntaxes()
	n := 0
	for i, s := range all {
		if !pipeline.ValidUID(s.UID) || s.Name == "" {
			t.Errorf("%+v is not whole", s)
		}
		if i > 0 && s.UID == all[i-1].UID {
			t.Errorf("%s is listed twice", s.UID)
		}
		if s.Decodes {
			n++
		} else if s.NeedsCodecs || s.Encodes {
			t.Errorf("%s is not decoded and yet %+v", s.UID, s)
		}
	}
	for _, uid := range decodes {
		if s, err := lookupSyntax(uid); err != nil || !s.Decodes {
			t.Errorf("%s is not decoded: %v", uid, err)
		}
	}
	if n != len(decodes) || len(all) < 60 {
		t.Errorf("%d of %d syntaxes are decoded, %d are promised", n, len(all), len(decodes))
	}
}

// TestMissingModule: without the module only the syntaxes that need it are refused, with what to do.
func TestMissingModule(t *testing.T) {
	c := &codecs{running: make(chan struct{}, 1)}
	for _, path := range []string{"", t.TempDir() + "/none.wasm", "syntax_test.go"} {
		c.path, c.loaded = path, nil
		_, err := c.run(context.Background(), codecCall{function: "DecodeJpeg"})
		if !errors.Is(err, pipeline.ErrMissingPart) || !strings.Contains(err.Error(), "chatxray parts fetch") {
			t.Errorf("module %q: %v", path, err)
		}
	}
	c.path, c.loaded = filepath.Join(t.TempDir(), "late.wasm"), nil
	for _, w := range []string{"cannot be read", "does not compile"} { // a failure is not kept: the file may come later
		if _, err := c.module(); !errors.Is(err, pipeline.ErrMissingPart) || !strings.Contains(err.Error(), w) {
			t.Errorf("want %q, got %v", w, err)
		}
		if err := os.WriteFile(c.path, []byte("no module"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// jpegOf and j2kOf are codestreams of nothing but markers.
func jpegOf(segments ...string) []byte { return []byte("\xFF\xD8" + strings.Join(segments, "")) }

const (
	sof     = "\xFF\xC0\x00\x0B\x08\x00\x02\x00\x02\x01\x01\x11\x00"
	sos     = "\xFF\xDA\x00\x08\x01\x01\x00\x00\x3F\x00"
	eoi     = "\xFF\xD9"
	siz     = "\xFF\x4F\xFF\x51\x00\x29\x00\x00\x00\x00\x00\x40\x00\x00\x00\x40\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x40\x00\x00\x00\x40\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x0F\x01\x01"
	cod     = "\xFF\x52\x00\x0C\x00\x00\x00\x01\x00\x05\x04\x04\x00\x01"
	sot     = "\xFF\x90\x00\x0A\x00\x00\x00\x00\x00\x12\x00\x01\xFF\x93data"
	sotOpen = "\xFF\x90\x00\x0A\x00\x00\x00\x00\x00\x00\x00\x01\xFF\x93data"
)

// TestCodestreams checks what is let through to the decoders.
func TestCodestreams(t *testing.T) {
	swap := strings.Replace
	for _, c := range []struct {
		name string
		read func([]byte) (stream, error)
		in   []byte
		says string // "" is well
	}{
		{"JPEG", jpegStream, jpegOf(sof, sos, "abc\xFF\x00d\xFF\xD0e", eoi), ""},
		{"JPEG with fill and padding", jpegStream, jpegOf("\xFF", sof, sos, "abc", eoi, "\x00"), ""},
		{"not JPEG", jpegStream, []byte("GIF89a..."), "SOI"},
		{"JPEG cut in its data", jpegStream, jpegOf(sof, sos, "abc"), "cut off"},
		{"JPEG cut in a segment", jpegStream, jpegOf(sof[:9]), "longer than what is left"},
		{"JPEG without a frame", jpegStream, jpegOf(sos, "abc", eoi), "before the frame"},
		{"JPEG without a scan", jpegStream, jpegOf(sof, eoi), "without an image"},
		{"JPEG of two frames", jpegStream, jpegOf(sof, sof, sos, "abc", eoi), "twice"},
		{"JPEG without rows", jpegStream, jpegOf(swap(sof, "\x00\x02", "\x00\x00", 1), sos, "abc", eoi), "no rows"},
		{"JPEG of many scans", jpegStream, jpegOf(sof, strings.Repeat(sos+"a", 65), eoi), "scans"},
		{"JPEG 2000", jpeg2000Stream, []byte(siz + cod + sot + eoi), ""},
		{"JPEG 2000 without EOC", jpeg2000Stream, []byte(siz + cod + sot), ""},
		{"JPEG 2000 with an open tile", jpeg2000Stream, []byte(siz + cod + sotOpen + eoi), ""},
		{"JPEG 2000 of two parts", jpeg2000Stream, []byte(siz + cod + sot + sot + eoi + "\x00"), ""},
		{"not JPEG 2000", jpeg2000Stream, []byte(strings.Repeat("x", 80)), "SOC"},
		{"JPEG 2000 cut in a tile", jpeg2000Stream, []byte(siz + cod + sot[:15]), "cut off"},
		{"JPEG 2000 cut between tiles", jpeg2000Stream, []byte(siz + cod + sot + "\xFF\x90\x00"), "cut off"},
		{"JPEG 2000 of many tiles", jpeg2000Stream, []byte(siz[:24] + "\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00" + siz[36:] + cod + sot + eoi), "tile"},
		{"JPEG 2000 of many layers", jpeg2000Stream, []byte(siz + swap(cod, "\x00\x01\x00", "\xFF\xFF\x00", 1) + sot + eoi), "packets"},
		{"JPEG 2000 of many precincts", jpeg2000Stream, []byte(siz + "\xFF\x52\x00\x0D\x01\x00\xFF\xFF\x00\x00\x04\x04\x00\x01\x00" + sot + eoi), "packets"},
		{"JPEG 2000 of many levels", jpeg2000Stream, []byte(siz + swap(cod, "\x05", "\x40", 1) + sot + eoi), "levels"},
		{"JPEG 2000 subsampled", jpeg2000Stream, []byte(siz[:len(siz)-1] + "\x02" + cod + sot + eoi), "subsampled"},
		{"JPEG 2000 of 5 components", jpeg2000Stream, []byte(siz[:len(siz)-5] + "\x00\x05" + siz[len(siz)-3:] + cod + sot + eoi), "components"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := c.read(c.in)
			switch {
			case c.says == "" && (err != nil || s.rows == 0):
				t.Errorf("got %+v, %v", s, err)
			case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
				t.Errorf("got %v, want an error that says %q", err, c.says)
			}
		})
	}
}

// TestMendSIZ leaves codestreams alone unless all but the image's size speaks for the header's.
func TestMendSIZ(t *testing.T) {
	l := layout{rows: 64, columns: 64}
	good := []byte(siz + cod + sot + eoi)
	broken := append([]byte(nil), good...)
	copy(broken[6:], "\xFE\xFF\xDD\xE0\x00\x00")
	if got := mendSIZ(broken, l); string(got) != string(good) {
		t.Errorf("mended to %x", got[:20])
	}
	for _, b := range [][]byte{good, broken[:40], nil} {
		if got := mendSIZ(b, l); string(got) != string(b) {
			t.Errorf("changed %x", b)
		}
	}
	if got := mendSIZ(broken, layout{rows: 64, columns: 32}); string(got) != string(broken) {
		t.Error("mended against the header")
	}
}
