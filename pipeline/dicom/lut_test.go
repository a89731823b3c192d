package dicom

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"

	"chatxray/pipeline"
)

// format16 is that of unsigned 16-bit words of which stored bits are used.
func format16(stored int, signed bool) wordFormat {
	return wordFormat{words: 1 << 16, stored: stored, high: stored - 1, signed: signed}
}

var format8 = wordFormat{words: 1 << 8, stored: 8, high: 7}

// header makes a data set of elements in any order.
func header(elements ...pipeline.Element) pipeline.Dataset {
	var h pipeline.Dataset
	for _, e := range elements {
		h.Set(e)
	}
	return h
}

func text(tag pipeline.Tag, values ...string) pipeline.Element {
	return pipeline.Element{Tag: tag, VR: "LO", Text: values}
}

func ints(tag pipeline.Tag, values ...int64) pipeline.Element {
	return pipeline.Element{Tag: tag, VR: "US", Ints: values}
}

func raw(tag pipeline.Tag, b ...byte) pipeline.Element {
	return pipeline.Element{Tag: tag, VR: "OW", Bytes: b}
}

func items(tag pipeline.Tag, sets ...pipeline.Dataset) pipeline.Element {
	return pipeline.Element{Tag: tag, VR: "SQ", Items: sets}
}

func windowed(center, width string, function ...string) []pipeline.Element {
	return []pipeline.Element{text(pipeline.TagWindowCenter, center), text(pipeline.TagWindowWidth, width), text(pipeline.TagVOILUTFunction, function...)}
}

func noCensus() []uint32 { panic("an object with a VOI transformation was counted") }

func TestGrayLookup(t *testing.T) {
	const mono1, mono2 = "MONOCHROME1", "MONOCHROME2"
	wide := func() []pipeline.Element { return windowed("2048", "4096") }
	modalityLUT := items(pipeline.TagModalityLUTSequence, header(ints(pipeline.TagLUTDescriptor, 4, 0xFFFE, 16), ints(pipeline.TagLUTData, 10, 20, 30, 40)))
	voiLUT := items(pipeline.TagVOILUTSequence,
		header(ints(pipeline.TagLUTDescriptor, 4, 0, 16)), // without data: passed over
		header(ints(pipeline.TagLUTDescriptor, 3, 100, 8), raw(pipeline.TagLUTData, 0, 51, 255, 0)))
	sigmoid := func(x float64) float64 { return 1 / (1 + math.Exp(-4*x)) }
	for _, c := range []struct {
		name        string
		photometric string
		format      wordFormat
		frame       int
		header      pipeline.Dataset
		want        map[int]float64 // raw word to gray
	}{
		{"8 bits without VOI", mono2, format8, 0, nil, map[int]float64{0: 0, 51: 0.2, 255: 1}},
		{"MONOCHROME1", mono1, format8, 0, nil, map[int]float64{0: 1, 51: 0.8, 255: 0}},
		{"1 bit", mono2, wordFormat{words: 256, stored: 1}, 0, nil, map[int]float64{0: 0, 1: 1}},
		{"8 bits signed", mono2, wordFormat{words: 256, stored: 8, high: 7, signed: true}, 0, nil, map[int]float64{0x80: 0, 0xFF: 127.0 / 255, 0: 128.0 / 255, 0x7F: 1}},
		{"inverse shape", mono2, format8, 0, header(text(pipeline.TagPresentationLUTShape, "INVERSE")), map[int]float64{0: 1, 255: 0}},
		{"inverse shape of MONOCHROME1", mono1, format8, 0, header(text(pipeline.TagPresentationLUTShape, "INVERSE")), map[int]float64{0: 1, 255: 0}},
		{"identity shape", mono2, format8, 0, header(text(pipeline.TagPresentationLUTShape, "IDENTITY")), map[int]float64{0: 0, 255: 1}},
		{"for processing, dense is low", mono2, format8, 0,
			header(text(pipeline.TagPresentationIntentType, "FOR PROCESSING"), ints(pipeline.TagPixelIntensityRelationshipSign, 1)), map[int]float64{0: 1, 255: 0}},
		{"for processing, dense is high", mono1, format8, 0,
			header(text(pipeline.TagPresentationIntentType, "FOR PROCESSING"), ints(pipeline.TagPixelIntensityRelationshipSign, -1)), map[int]float64{0: 0, 255: 1}},

		{"LINEAR", mono2, format16(12, false), 0, header(wide()...), map[int]float64{0: 0, 2047: 0.5 - 0.5/4095, 2048: 0.5 + 0.5/4095, 4095: 1}},
		{"LINEAR, bits above Bits Stored", mono2, format16(12, false), 0, header(wide()...), map[int]float64{0xF000: 0, 0xA000 | 2048: 0.5 + 0.5/4095}},
		{"LINEAR, high bit 15", mono2, wordFormat{words: 1 << 16, stored: 12, high: 15}, 0, header(wide()...), map[int]float64{0xF: 0, 2048 << 4: 0.5 + 0.5/4095, 0xFFFF: 1}},
		{"LINEAR, width 1", mono2, format16(12, false), 0, header(windowed("100", "1")...), map[int]float64{99: 0, 100: 1}},
		{"LINEAR, width 2", mono2, format16(12, false), 0, header(windowed("100", "2")...), map[int]float64{99: 0, 100: 1}},
		{"LINEAR, width 3", mono2, format16(12, false), 0, header(windowed("100", "3")...), map[int]float64{98: 0, 99: 0.25, 100: 0.75, 101: 1}},
		{"LINEAR_EXACT", mono2, format16(12, false), 0, header(windowed("100", "50", "LINEAR_EXACT")...), map[int]float64{75: 0, 90: 0.3, 100: 0.5, 125: 1, 126: 1}},
		{"LINEAR_EXACT, narrow", mono2, format16(12, false), 0, header(windowed("100", "0.5", "LINEAR_EXACT")...), map[int]float64{99: 0, 100: 0.5, 101: 1}},
		{"SIGMOID", mono2, format16(12, false), 0, header(windowed("100", "50", "SIGMOID")...), map[int]float64{100: 0.5, 150: sigmoid(1), 75: sigmoid(-0.5)}},
		{"SIGMOID inverted", mono1, format16(12, false), 0, header(windowed("100", "50", "SIGMOID")...), map[int]float64{150: 1 - sigmoid(1)}},
		{"an unknown function is LINEAR", mono2, format16(12, false), 0, header(windowed("100", "3", "CUBIC")...), map[int]float64{99: 0.25}},
		{"the first of two windows", mono2, format16(12, false), 0,
			header(text(pipeline.TagWindowCenter, "100", "900"), text(pipeline.TagWindowWidth, "3", "5")), map[int]float64{99: 0.25}},
		{"a window of no width is passed over", mono2, format16(12, false), 0,
			header(text(pipeline.TagWindowCenter, "100", "900"), text(pipeline.TagWindowWidth, "0", "3")), map[int]float64{100: 0, 899: 0.25}},

		{"signed with rescale", mono2, format16(16, true), 0,
			header(append(windowed("0", "2001"), text(pipeline.TagRescaleSlope, "2"), text(pipeline.TagRescaleIntercept, "-1000"))...),
			map[int]float64{500: 0.50025, 0: 0.00025, 0xFFFF: 0, 1000: 1}},
		{"signed in 12 bits", mono2, format16(12, true), 0, header(windowed("0", "2001")...), map[int]float64{0x0FFF: 0.49975, 0xFFFF: 0.49975, 0x0800: 0, 0x07FF: 1}},
		{"negative slope", mono2, format8, 0, header(text(pipeline.TagRescaleSlope, "-1"), text(pipeline.TagRescaleIntercept, "255")), map[int]float64{0: 1, 255: 0}},
		{"slope 0 counts as 1", mono2, format8, 0, header(text(pipeline.TagRescaleSlope, "0")), map[int]float64{51: 0.2}},
		{"slope that is no number", mono2, format8, 0, header(text(pipeline.TagRescaleSlope, "NaN")), map[int]float64{51: 0.2}},
		{"slope beyond all range", mono2, format8, 0, header(text(pipeline.TagRescaleSlope, "1e308")), map[int]float64{0: 0}},
		{"Modality LUT before rescale", mono2, format16(12, true), 0,
			header(append(windowed("25", "31"), modalityLUT, text(pipeline.TagRescaleSlope, "100"))...),
			map[int]float64{0x0FFD: 0.5 - 14.5/30, 0x0FFE: 0.5 - 14.5/30, 0x0FFF: 0.5 - 4.5/30, 0: 0.5 + 5.5/30, 1: 1, 7: 1}},
		{"VOI LUT before window", mono2, format16(12, false), 0, header(append(wide(), voiLUT)...), map[int]float64{0: 0, 100: 0, 101: 0.2, 102: 1, 4095: 1}},
		{"VOI LUT of 16-bit words with a wrong descriptor", mono2, format16(12, false), 0,
			header(items(pipeline.TagVOILUTSequence, header(ints(pipeline.TagLUTDescriptor, 3, 0, 16), ints(pipeline.TagLUTData, 0, 205, 1023)))),
			map[int]float64{0: 0, 1: 205.0 / 1023, 2: 1}},
		{"VOI LUT of zeros is passed over", mono2, format16(12, false), 0,
			header(append(wide(), items(pipeline.TagVOILUTSequence, header(ints(pipeline.TagLUTDescriptor, 2, 0, 16), ints(pipeline.TagLUTData, 0, 0))))...), map[int]float64{4095: 1}},

		{"padding", mono1, format16(12, false), 0, header(append(wide(), ints(pipeline.TagPixelPaddingValue, 7))...), map[int]float64{7: 0, 8: 0.5 + 2039.5/4095}},
		{"padding range, either way round", mono1, format16(12, false), 0,
			header(append(wide(), ints(pipeline.TagPixelPaddingValue, 7), ints(pipeline.TagPixelPaddingRangeLimit, 0))...),
			map[int]float64{0: 0, 7: 0, 8: 0.5 + 2039.5/4095}},
		{"signed padding read as unsigned", mono1, format16(16, true), 0,
			header(append(wide(), ints(pipeline.TagPixelPaddingValue, 63536))...), map[int]float64{0xF830: 0, 0xF831: 1}},

		{"frame's own window, shared rescale", mono2, format16(12, false), 1, header(append(wide(),
			items(pipeline.TagSharedFunctionalGroupsSequence, header(items(pipeline.TagPixelValueTransformationSequence, header(text(pipeline.TagRescaleSlope, "10"))))),
			items(pipeline.TagPerFrameFunctionalGroupsSequence, nil, header(items(pipeline.TagFrameVOILUTSequence, header(windowed("100", "3")...)))))...),
			map[int]float64{9: 0, 10: 0.75, 11: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			lut := grayLookup(c.header, c.frame, c.format, c.photometric, nil, noCensus)
			if len(lut) != c.format.words {
				t.Fatalf("%d entries for %d words", len(lut), c.format.words)
			}
			for word, want := range c.want {
				if got := float64(lut[word]); math.Abs(got-want) > 1e-6 {
					t.Errorf("word %#x is %v, want %v", word, got, want)
				}
			}
		})
	}
}

func TestAutomaticWindow(t *testing.T) {
	counts := func(pairs ...int) func() []uint32 {
		return func() []uint32 {
			out := make([]uint32, 1<<16)
			for i := 0; i < len(pairs); i += 2 {
				out[pairs[i]] = uint32(pairs[i+1])
			}
			return out
		}
	}
	for _, c := range []struct {
		name   string
		header pipeline.Dataset
		census func() []uint32
		want   map[int]float64
	}{
		{"tails are cut", nil, counts(0, 4, 1000, 500, 2000, 495, 4000, 1), map[int]float64{0: 0, 1000: 0, 1500: 0.5, 2000: 1, 4000: 1}},
		{"padding is left out", header(ints(pipeline.TagPixelPaddingValue, 0)), counts(0, 5000, 1000, 500, 2000, 500), map[int]float64{1000: 0, 2000: 1}},
		{"in output units", header(text(pipeline.TagRescaleSlope, "-2")), counts(1000, 500, 2000, 500), map[int]float64{1000: 1, 1500: 0.5, 2000: 0}},
		{"one value and a few others", nil, counts(100, 1, 1000, 9998, 3000, 1), map[int]float64{100: 0, 3000: 1}},
		{"one value", nil, counts(1000, 500), map[int]float64{0: 0, 4095: 1}},
		{"nothing", nil, counts(), map[int]float64{0: 0, 4095: 1}},
	} {
		lut := grayLookup(c.header, 0, format16(12, false), "MONOCHROME2", nil, c.census)
		for word, want := range c.want {
			if got := float64(lut[word]); math.Abs(got-want) > 1e-6 {
				t.Errorf("%s: word %d is %v, want %v", c.name, word, got, want)
			}
		}
	}
}

func TestPaletteLookup(t *testing.T) {
	palette := func(descriptor, data pipeline.Tag, values ...uint16) []pipeline.Element {
		var b []byte
		for _, v := range values {
			b = binary.LittleEndian.AppendUint16(b, v)
		}
		return []pipeline.Element{ints(descriptor, int64(len(values)), 0, 16), raw(data, b...)}
	}
	red := palette(pipeline.TagRedPaletteColorLookupTableDescriptor, pipeline.TagRedPaletteColorLookupTableData, 0, 65535, 0)
	green := palette(pipeline.TagGreenPaletteColorLookupTableDescriptor, pipeline.TagGreenPaletteColorLookupTableData, 0, 0, 65535)
	blue := palette(pipeline.TagBluePaletteColorLookupTableDescriptor, pipeline.TagBluePaletteColorLookupTableData, 65535, 0, 0)
	lut, err := paletteLookup(header(append(append(red, green...), blue...)...), format8)
	if err != nil {
		t.Fatal(err)
	}
	for word, want := range map[int]float64{0: 0.114, 1: 0.299, 2: 0.587, 200: 0.587} {
		if math.Abs(float64(lut[word])-want) > 1e-4 {
			t.Errorf("word %d is %v, want %v", word, lut[word], want)
		}
	}
	if _, err := paletteLookup(header(append(red, green...)...), format8); err == nil {
		t.Error("a palette without blue was taken")
	}
}

// asked is a case for testdata/lut/oracle.py.
type asked struct {
	Header map[string]any `json:"header"`
	Values []int          `json:"values"`
	Signed bool           `json:"signed"`

	format wordFormat
	ours   pipeline.Dataset
}

// random makes a case whose meaning is beyond doubt, so that pydicom and we must agree.
func random(r *rand.Rand) asked {
	stored := 9 + r.IntN(8)
	a := asked{Signed: r.IntN(2) == 0, Header: map[string]any{}}
	a.format = format16(stored, a.Signed)
	photometric := []string{"MONOCHROME1", "MONOCHROME2"}[r.IntN(2)]
	representation := 0
	if a.Signed {
		representation = 1
	}
	a.Header["PhotometricInterpretation"], a.Header["BitsStored"], a.Header["BitsAllocated"], a.Header["PixelRepresentation"] = photometric, stored, 16, representation
	for range 64 {
		a.Values = append(a.Values, int(a.format.value(r.IntN(1<<stored))))
	}
	lut := func(first, bits int) ([]any, pipeline.Dataset) {
		n := 2 + r.IntN(500)
		values := make([]int, n)
		entries := make([]int64, n)
		for i := range values {
			values[i] = r.IntN(1 << bits)
			if i == 0 {
				values[i] = 1<<bits - 1
			}
			entries[i] = int64(values[i])
		}
		return []any{map[string]any{"LUTDescriptor": []int{n, first, bits}, "LUTData": values}},
			header(ints(pipeline.TagLUTDescriptor, int64(n), int64(uint16(first)), int64(bits)), ints(pipeline.TagLUTData, entries...))
	}
	number := func(v float64) string { return fmt.Sprintf("%.4g", v) }
	var set pipeline.Element
	lowest := 0
	switch r.IntN(3) {
	case 0:
		slope, intercept := number(0.5+3*r.Float64()), number(200*r.Float64()-100)
		a.Header["RescaleSlope"], a.Header["RescaleIntercept"] = slope, intercept
		a.ours.Set(text(pipeline.TagRescaleSlope, slope))
		a.ours.Set(text(pipeline.TagRescaleIntercept, intercept))
	case 1:
		theirs, ours := lut(int(a.format.value(r.IntN(1<<stored))), 8+8*r.IntN(2)) // pydicom knows no other depth
		a.Header["ModalityLUTSequence"], set = theirs, items(pipeline.TagModalityLUTSequence, ours)
		a.ours.Set(set)
		lowest = 1
	}
	if _, rescaled := a.Header["RescaleSlope"]; r.IntN(3) == 0 && !rescaled {
		first := r.IntN(200)
		if a.Signed && lowest == 0 {
			first -= 100
		}
		theirs, ours := lut(first, 10+r.IntN(7)) // with 8 bits pydicom's indices overflow
		a.Header["VOILUTSequence"], set = theirs, items(pipeline.TagVOILUTSequence, ours)
		a.ours.Set(set)
	} else {
		center, width := number(float64(r.IntN(1<<stored))), number(2+float64(r.IntN(1<<stored)))
		function := []string{"LINEAR", "LINEAR_EXACT", "SIGMOID"}[r.IntN(3)]
		a.Header["WindowCenter"], a.Header["WindowWidth"], a.Header["VOILUTFunction"] = center, width, function
		for _, e := range windowed(center, width, function) {
			a.ours.Set(e)
		}
	}
	return a
}

func TestLookupEqualsPydicom(t *testing.T) {
	const python = "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import numpy, pydicom").Run(); err != nil {
		t.Skip("python3-pydicom or python3-numpy absent: the lookups are compared with hand-made tables only")
	}
	r := rand.New(rand.NewPCG(1, 2))
	var cases []asked
	for range 300 {
		cases = append(cases, random(r))
	}
	ask, err := json.Marshal(cases)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, "testdata/lut/oracle.py")
	cmd.Stdin, cmd.Stderr = bytes.NewReader(ask), os.Stderr
	answer, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var want [][]float64
	if err := json.Unmarshal(answer, &want); err != nil {
		t.Fatal(err)
	}
	var worst float64
	for i, c := range cases {
		lut := grayLookup(c.ours, 0, c.format, c.Header["PhotometricInterpretation"].(string), nil, noCensus)
		for j, v := range c.Values {
			off := math.Abs(float64(lut[uint16(v)]) - want[i][j])
			if worst = max(worst, off); off > 2e-6 {
				t.Errorf("case %d, value %d: %v, pydicom says %v\n%v", i, v, lut[uint16(v)], want[i][j], c.Header)
				break
			}
		}
	}
	t.Logf("%d headers, 64 values each, worst difference %.2g", len(cases), worst)
}
