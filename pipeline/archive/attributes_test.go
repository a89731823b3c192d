package archive

import (
	"testing"

	"chatxray/pipeline"
)

// BenchmarkIndexed picks and writes what the index keeps of an instance.
func BenchmarkIndexed(b *testing.B) {
	var h pipeline.Dataset
	for _, tags := range [][]pipeline.Tag{studyAttributes, seriesAttributes, instanceAttributes} {
		for _, t := range tags {
			h.SetText(t, "LO", "some text of one")
		}
	}
	in := &pipeline.Instance{StudyInstanceUID: "2.25.1", SeriesInstanceUID: "2.25.2", SOPInstanceUID: "2.25.3", SOPClassUID: "2.25.4", Header: h}
	b.ReportAllocs()
	for b.Loop() {
		kept := indexed(in)
		for _, tags := range [][]pipeline.Tag{studyAttributes, seriesAttributes, instanceAttributes} {
			encode(pick(kept, tags))
		}
	}
}
