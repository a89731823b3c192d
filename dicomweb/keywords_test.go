package dicomweb

import (
	"testing"

	"chatxray/pipeline"
	"chatxray/pipeline/archive"
	"chatxray/pipeline/dicom"
)

// TestKeywords: what is guessed for a name that means nothing is a key of the level.
func TestKeywords(t *testing.T) {
	a, err := archive.Open(t.TempDir(), dicom.OpenFile, archive.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	for level, names := range keywords {
		for _, name := range names {
			tag, _, ok := dicom.Lookup(name)
			if !ok || !a.Matchable(pipeline.Level(level), 0, tag) || level > 0 && a.Matchable(pipeline.Level(level-1), 0, tag) {
				t.Errorf("%s is no key at the level of the %s, or one above", name, pipeline.Level(level))
			}
		}
	}
}
