package dicom

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"chatxray/pipeline"
)

// frame is a whole frame of gray 16-bit words for a test to change.
func frame(columns int, words ...uint16) *Pixels {
	px := &Pixels{
		Rows: len(words) / columns, Columns: columns, SamplesPerPixel: 1, Frames: 1,
		BitsAllocated: 16, BitsStored: 16, HighBit: 15, Photometric: "MONOCHROME2",
	}
	for _, w := range words {
		px.Data = binary.LittleEndian.AppendUint16(px.Data, w)
	}
	return px
}

func developed(t *testing.T, px *Pixels, h pipeline.Dataset) *pipeline.Image {
	t.Helper()
	m, err := develop(&pipeline.Instance{SOPInstanceUID: "1.2.3", Header: h}, 0, px, nil)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// seen returns the gray of every pixel as stored, the shutter applied.
func seen(m *pipeline.Image) []float32 {
	out := make([]float32, m.Rows*m.Columns)
	for i := range out {
		if x, y := i%m.Columns, i/m.Columns; x < m.Left || x >= m.Right || y < m.Top || y >= m.Bottom {
			continue
		}
		if m.Pix16 != nil {
			out[i] = m.LUT[m.Pix16[i]]
		} else {
			out[i] = m.LUT[m.Pix8[i]]
		}
	}
	return out
}

func near(t *testing.T, name string, got []float32, want []float64, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d pixels, want %d", name, len(got), len(want))
	}
	for i := range got {
		if math.Abs(float64(got[i])-want[i]) > tolerance {
			t.Errorf("%s: pixel %d is %v, want %v", name, i, got[i], want[i])
		}
	}
}

func TestNative16BitIsNotCopied(t *testing.T) {
	px := frame(2, 1, 2, 3, 40000)
	m := developed(t, px, header(windowed("20000", "40001")...))
	if unsafe.Pointer(&m.Pix16[0]) != unsafe.Pointer(&px.Data[0]) {
		t.Error("the words were copied")
	}
	if !slices.Equal(m.Pix16, []uint16{1, 2, 3, 40000}) {
		t.Errorf("words are %v", m.Pix16)
	}
	odd := slices.Concat([]byte{0}, px.Data)[1:]
	if uintptr(unsafe.Pointer(&odd[0]))%2 == 0 {
		t.Skip("the allocator moved the odd bytes; nothing was tried")
	}
	px.Data = odd
	if m := developed(t, px, header(windowed("20000", "40001")...)); !slices.Equal(m.Pix16, []uint16{1, 2, 3, 40000}) {
		t.Errorf("words at an odd address are %v", m.Pix16)
	}
}

func TestColourBecomesLuminance(t *testing.T) {
	want := []float64{0.299, 0.587, 0.114, 1}
	interleaved := []byte{255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255}
	planar := []byte{255, 0, 0, 255, 0, 255, 0, 255, 0, 0, 255, 255}
	rgb := Pixels{Rows: 2, Columns: 2, SamplesPerPixel: 3, BitsAllocated: 8, BitsStored: 8, HighBit: 7, Photometric: "RGB", Data: interleaved}
	near(t, "RGB", seen(developed(t, &rgb, nil)), want, 0.003)
	planes := rgb
	planes.PlanarConfiguration, planes.Data = 1, planar
	near(t, "RGB in planes", seen(developed(t, &planes, nil)), want, 0.003)
	ybr := rgb
	ybr.Photometric, ybr.Data = "YBR_FULL", []byte{76, 85, 255, 150, 44, 21, 29, 255, 107, 255, 128, 128}
	near(t, "YBR_FULL", seen(developed(t, &ybr, nil)), want, 0.003)
	widened := func(bits int) *Pixels {
		px := rgb
		px.BitsAllocated, px.BitsStored, px.HighBit, px.Data = bits, bits, bits-1, nil
		for _, b := range interleaved {
			for range bits / 8 {
				px.Data = append(px.Data, b)
			}
		}
		return &px
	}
	near(t, "RGB of 16 bits", seen(developed(t, widened(16), nil)), want, 1e-4)
	near(t, "RGB of 32 bits", seen(developed(t, widened(32), nil)), want, 1e-4)
	// window, padding and shape are for monochrome only
	near(t, "RGB with a window", seen(developed(t, &rgb, header(append(windowed("5", "3"), ints(pipeline.TagPixelPaddingValue, 255))...))), want, 0.003)
}

func TestThirtyTwoBits(t *testing.T) {
	make32 := func(signed bool, stored int, values ...uint32) *Pixels {
		px := &Pixels{Rows: 1, Columns: len(values), SamplesPerPixel: 1, BitsAllocated: 32, BitsStored: stored, HighBit: stored - 1, Signed: signed, Photometric: "MONOCHROME2"}
		for _, v := range values {
			px.Data = binary.LittleEndian.AppendUint32(px.Data, v)
		}
		return px
	}
	near(t, "small range", seen(developed(t, make32(false, 32, 1_000_000, 1_000_050, 1_000_100), header(windowed("1000050", "100", "LINEAR_EXACT")...))), []float64{0, 0.5, 1}, 1e-6)
	near(t, "large range", seen(developed(t, make32(false, 32, 0, 1<<31, math.MaxUint32), header(windowed("2147483648", "4294967296", "LINEAR_EXACT")...))), []float64{0, 0.5, 1}, 1e-4)
	minus := func(v int32) uint32 { return uint32(-v) }
	near(t, "signed", seen(developed(t, make32(true, 32, minus(100_000), 0, 100_000), header(windowed("0", "200000", "LINEAR_EXACT")...))), []float64{0, 0.5, 1}, 1e-4)
	near(t, "signed in 20 bits", seen(developed(t, make32(true, 20, minus(100)&0xFFFFF, 0, 100), header(windowed("0", "200", "LINEAR_EXACT")...))), []float64{0, 0.5, 1}, 1e-6)
	near(t, "rescaled", seen(developed(t, make32(false, 32, 0, 500, 1000), header(append(windowed("1", "2", "LINEAR_EXACT"), text(pipeline.TagRescaleSlope, "0.002"))...))), []float64{0, 0.5, 1}, 1e-6)
	near(t, "constant", seen(developed(t, make32(false, 32, 7, 7, 7), header(windowed("7", "2", "LINEAR_EXACT")...))), []float64{0.5, 0.5, 0.5}, 1e-6)
}

func TestDevelopRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*Pixels)
		want  error
	}{
		"no rows":        {func(p *Pixels) { p.Rows = 0 }, pipeline.ErrInvalid},
		"short data":     {func(p *Pixels) { p.Data = p.Data[:7] }, pipeline.ErrInvalid},
		"24 bits":        {func(p *Pixels) { p.BitsAllocated = 24 }, pipeline.ErrUnsupported},
		"no bits stored": {func(p *Pixels) { p.BitsStored = 0 }, pipeline.ErrInvalid},
		"high bit 16":    {func(p *Pixels) { p.HighBit = 16 }, pipeline.ErrInvalid},
		"high bit 3":     {func(p *Pixels) { p.HighBit = 3 }, pipeline.ErrInvalid},
		"four samples":   {func(p *Pixels) { p.SamplesPerPixel = 4 }, pipeline.ErrUnsupported},
		"HSV":            {func(p *Pixels) { p.Photometric = "HSV" }, pipeline.ErrUnsupported},
		"CMY":            {func(p *Pixels) { p.SamplesPerPixel, p.Photometric, p.Columns, p.Rows = 3, "CMY", 1, 1 }, pipeline.ErrUnsupported},
		"signed colour":  {func(p *Pixels) { p.SamplesPerPixel, p.Photometric, p.Columns, p.Rows, p.Signed = 3, "RGB", 1, 1, true }, pipeline.ErrUnsupported},
		"no palette":     {func(p *Pixels) { p.Photometric = "PALETTE COLOR" }, pipeline.ErrUnsupported},
	} {
		px := frame(2, 1, 2, 3, 4)
		c.spoil(px)
		if _, err := develop(&pipeline.Instance{}, 0, px, nil); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestAutomaticWindowIgnoresTheShutter(t *testing.T) {
	var words []uint16
	for i := range 1000 {
		words = append(words, 60000, uint16(1000+i)) // the left column lies outside
	}
	m := developed(t, frame(2, words...), header(text(pipeline.TagShutterShape, "RECTANGULAR"),
		text(pipeline.TagShutterLeftVerticalEdge, "2"), text(pipeline.TagShutterRightVerticalEdge, "2"),
		text(pipeline.TagShutterUpperHorizontalEdge, "1"), text(pipeline.TagShutterLowerHorizontalEdge, "1000")))
	if v := m.LUT[1500]; math.Abs(float64(v)-0.5) > 0.01 {
		t.Errorf("the middle of what is seen is %v", v)
	}
}

// FuzzLUT develops frames under headers of any content: no panic, and every gray value between 0 and 1.
func FuzzLUT(f *testing.F) {
	f.Add(uint8(1), uint8(12), uint8(11), false, uint8(0), "2048\\5", "4096\\1", "SIGMOID", "1", "-1000", []byte{4, 0, 254, 255, 16, 0}, []byte{1, 2, 3, 4, 5, 6, 7, 8}, "CIRCULAR\\POLYGONAL", "1\\1\\5\\1\\5\\5", "3", int64(-5))
	f.Add(uint8(2), uint8(32), uint8(31), true, uint8(1), "NaN", "1e400", "", "1e308", "", []byte{0, 0, 0, 128, 8, 0}, []byte{255}, "RECTANGULAR", "", "-9", int64(70000))
	f.Add(uint8(0), uint8(8), uint8(7), false, uint8(2), "", "", "", "", "", []byte{2, 0, 0, 0, 16, 0}, []byte{0, 0, 255, 255}, "", "", "", int64(0))
	f.Add(uint8(0), uint8(5), uint8(6), false, uint8(3), "", "", "", "", "", []byte{}, []byte{}, "CIRCULAR", "1e300\\-1e300", "1e308", int64(0))
	f.Fuzz(func(t *testing.T, size, stored, high uint8, signed bool, kind uint8, center, width, function, slope, intercept string,
		descriptor, data []byte, shape, points, edge string, pad int64) {
		split := func(s string) []string { return strings.Split(s, "\\") }
		px := &Pixels{
			Rows: 6, Columns: 7, SamplesPerPixel: 1, BitsAllocated: 8 << (size % 3), BitsStored: int(stored), HighBit: int(high), Signed: signed,
			Photometric: []string{"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL"}[kind%5],
		}
		if kind%5 > 2 {
			px.SamplesPerPixel, px.PlanarConfiguration = 3, int(kind/5%2)
		}
		for i := range px.Rows * px.Columns * px.SamplesPerPixel * px.BitsAllocated / 8 {
			px.Data = append(px.Data, byte(i*37))
		}
		table := header(raw(pipeline.TagLUTDescriptor, descriptor...), raw(pipeline.TagLUTData, data...))
		h := header(
			text(pipeline.TagWindowCenter, split(center)...), text(pipeline.TagWindowWidth, split(width)...), text(pipeline.TagVOILUTFunction, function),
			text(pipeline.TagRescaleSlope, slope), text(pipeline.TagRescaleIntercept, intercept), ints(pipeline.TagPixelPaddingValue, pad),
			text(pipeline.TagShutterShape, split(shape)...), text(pipeline.TagVerticesOfThePolygonalShutter, split(points)...),
			text(pipeline.TagCenterOfCircularShutter, split(points)...), text(pipeline.TagRadiusOfCircularShutter, edge),
			text(pipeline.TagShutterLeftVerticalEdge, edge), text(pipeline.TagShutterRightVerticalEdge, "5"),
			text(pipeline.TagShutterUpperHorizontalEdge, "2"), text(pipeline.TagShutterLowerHorizontalEdge, edge),
		)
		for i, tag := range []pipeline.Tag{
			pipeline.TagRedPaletteColorLookupTableDescriptor, pipeline.TagGreenPaletteColorLookupTableDescriptor, pipeline.TagBluePaletteColorLookupTableDescriptor,
		} {
			h.Set(raw(tag, descriptor...))
			h.Set(raw(pipeline.TagRedPaletteColorLookupTableData+pipeline.Tag(i), data...))
		}
		if kind&0x10 != 0 {
			h.SetItems(pipeline.TagModalityLUTSequence, table)
		}
		if kind&0x20 != 0 {
			h.SetItems(pipeline.TagVOILUTSequence, table)
		}
		m, err := develop(&pipeline.Instance{Header: h}, 0, px, nil)
		if err != nil {
			return
		}
		if m.Top < 0 || m.Top >= m.Bottom || m.Bottom > m.Rows || m.Left < 0 || m.Left >= m.Right || m.Right > m.Columns {
			t.Fatalf("shutter %d %d %d %d of %d×%d", m.Top, m.Left, m.Bottom, m.Right, m.Rows, m.Columns)
		}
		if words := 1 << 8; m.Pix16 == nil && len(m.LUT) != words || m.Pix16 != nil && len(m.LUT) != words*words {
			t.Fatalf("a lookup of %d", len(m.LUT))
		}
		for i, v := range m.LUT {
			if !(v >= 0 && v <= 1) {
				t.Fatalf("word %d is %v", i, v)
			}
		}
	})
}
