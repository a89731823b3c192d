package dicomweb

import (
	"image"
	"runtime"
	"strings"
	"testing"
	"time"

	"chatxray/pipeline"
)

// Values of a hostile header may be many, or long; what is made of them grows no faster than they do.
func TestManyValues(t *testing.T) {
	const n = 1 << 15
	for _, e := range []pipeline.Element{{VR: "US", Ints: make([]int64, n)}, {VR: "AT", Ints: make([]int64, n)}, {VR: "FD", Floats: make([]float64, n)}} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got := textValues(e)
		runtime.ReadMemStats(&after)
		if grown := (after.TotalAlloc - before.TotalAlloc) >> 20; len(got) != n || grown > 32 {
			t.Errorf("%s: %d texts, and %d MB were made for them", e.VR, len(got), grown)
		}
	}
	e := pipeline.Element{VR: "US", Text: append(make([]string, 0, 8), "a"), Ints: []int64{1}}
	textValues(e)
	if e.Text[:2][1] != "" {
		t.Error("the data set has been written to")
	}
}

func TestLongAnnotation(t *testing.T) {
	var h pipeline.Dataset
	h.SetText(pipeline.TagPatientName, "PN", strings.Repeat("Ä", 5_000_000))
	began := time.Now()
	m := image.NewGray(image.Rect(0, 0, 64, 64))
	annotate(m, h, picture{patient: true})
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	if strings.Count(string(m.Pix), "\x00") == len(m.Pix) {
		t.Error("nothing was written")
	}
}
