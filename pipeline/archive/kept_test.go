package archive

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chatxray/pipeline"
)

// TestKept reads back what is written, by the fast way where it is the way to go.
func TestKept(t *testing.T) {
	var item pipeline.Dataset
	item.SetText(pipeline.TagScheduledProcedureStepID, "SH", "S1")
	var d pipeline.Dataset
	d.SetText(pipeline.TagPatientName, "PN", "Müller^Jörg=山田^太郎", "<b>&\"\\quoted\"\u2028", "")
	d.SetText(pipeline.TagPatientID, "LO")
	d.SetText(pipeline.TagStudyDescription, "LO", "a \\ b ] } , \x07")
	d.SetInts(pipeline.TagRows, "US", 2500, -1)
	d.SetItems(pipeline.TagRequestAttributesSequence, item, nil)
	floats := pipeline.Dataset{{Tag: pipeline.TagPixelSpacing, VR: "FD", Floats: []float64{0.5, 1e-9}}}
	for _, c := range []struct {
		name string
		d    pipeline.Dataset
		fast bool
	}{{"text and integers", d, true}, {"nothing", pipeline.Dataset{}, true}, {"floats", floats, false}} {
		s := encode(c.d)
		r := keptReader{s: s}
		var by pipeline.Dataset
		if ok := r.dataset(&by) && r.s == ""; ok != c.fast {
			t.Errorf("%s: the fast way takes %s: %v", c.name, s, ok)
		}
		got, err := decode(pipeline.Dataset{}, s)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.d, got, cmp.Comparer(func(a, b []pipeline.Dataset) bool {
			return cmp.Equal(toKept(pipeline.Dataset{{Items: a}}), toKept(pipeline.Dataset{{Items: b}}))
		})); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
	for _, bad := range []string{"", "[", "[}", `[{"t":1,"v":"LO","s":["x"]`, `[{"t":1,"v":"LO","s":["\uZZZZ"]}]`, "nonsense"} {
		if got, err := decode(nil, bad); err == nil {
			t.Errorf("%s: %v", bad, got)
		}
	}
}

// TestMostJSON: the bound of an attribute's JSON text holds for what JSON makes longest.
func TestMostJSON(t *testing.T) {
	long := pipeline.Element{Tag: math.MaxUint32, VR: "UT", Text: []string{"", strings.Repeat("\x00<\xff", 1000), "\u2028"}}
	numbers := pipeline.Element{Tag: math.MaxUint32, VR: "SV", Ints: slices.Repeat([]int64{math.MinInt64}, 1000)}
	floats := pipeline.Element{Tag: math.MaxUint32, VR: "FD", Floats: slices.Repeat([]float64{-math.MaxFloat64, -math.SmallestNonzeroFloat64}, 1000)}
	item := pipeline.Dataset{long, numbers, {Tag: math.MaxUint32, VR: "SQ", Items: slices.Repeat([]pipeline.Dataset{nil, {{VR: "LO"}}}, 1000)}}
	for _, e := range []pipeline.Element{{VR: "LO"}, long, numbers, floats, {VR: "SQ", Items: []pipeline.Dataset{item, item}}} {
		if most, n := mostJSON(e), len(encode(pipeline.Dataset{e})); n > most {
			t.Errorf("the JSON text of %v %s has %d bytes, more than %d", e.Tag, e.VR, n, most)
		}
	}
}
