package modelrt

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"

	"chatxray/pipeline"
)

// maxPoints bounds a curve.
const maxPoints = 256

// faults says what is wrong with a curve.
func (c *Curve) faults() (faults []string) {
	n := len(c.Drop)
	if strings.TrimSpace(c.Set) == "" || c.Sentences < 1 || c.Films < 1 {
		faults = append(faults, "set, sentences and films must say what it was measured on")
	}
	if n < 2 || n > maxPoints || len(c.True) != n {
		return append(faults, fmt.Sprintf("%d values of drop and %d of true_share: wanted are as many, 2 to %d", n, len(c.True), maxPoints))
	}
	for i := range n {
		if math.IsNaN(c.Drop[i]) || math.IsInf(c.Drop[i], 0) || i > 0 && c.Drop[i] <= c.Drop[i-1] {
			faults = append(faults, "drop must ascend")
		}
		if !(c.True[i] >= 0 && c.True[i] <= 1) || i > 0 && c.True[i] < c.True[i-1] {
			faults = append(faults, "true_share must not fall, from 0 to 1")
		}
	}
	for name, v := range map[string]float64{"auroc": c.AUROC, "brier": c.Brier, "ece": c.ECE} {
		if !(v >= 0 && v <= 1) {
			faults = append(faults, fmt.Sprintf("%s %v is not from 0 to 1", name, v))
		}
	}
	slices.Sort(faults)
	return slices.Compact(faults)
}

// at is the share at a drop.
func (c *Curve) at(drop float64) float64 {
	i := sort.SearchFloat64s(c.Drop, drop)
	switch {
	case i == 0:
		return c.True[0]
	case i == len(c.Drop):
		return c.True[i-1]
	}
	f := (drop - c.Drop[i-1]) / (c.Drop[i] - c.Drop[i-1])
	return c.True[i-1] + f*(c.True[i]-c.True[i-1])
}

// calibrate notes the shares of true ones, where the bundle has a curve, and returns what it was measured on: the bundle's own adapter in its
// first language.
func (m *Model) calibrate(sentences []pipeline.Sentence) *pipeline.Calibration {
	c := m.bundle.Manifest.Evidence.Calibration
	if c == nil || m.worn != 0 || m.task.language != m.bundle.Manifest.Languages[0] {
		return nil
	}
	for i := range sentences {
		share := c.at(sentences[i].Evidence.Drop)
		sentences[i].Evidence.True = &share
	}
	of := c.Calibration
	return &of
}

// likeness is how near the features of two images must be to be of one: the square of their distance over that of their length.
const likeness = 0.02

// same says whether two images' features are of one image, perhaps compressed differently.
func same(a, b []float32) bool {
	distance, length := 0.0, 0.0
	for i := range a {
		d := float64(a[i] - b[i])
		distance += d * d
		length += float64(b[i]) * float64(b[i])
	}
	return distance <= likeness*length
}

// twins says which decoys are the image with these features: no image is compared with itself.
func (m *Model) twins(features []float32) []bool {
	twins := make([]bool, len(m.decoys))
	for i, d := range m.decoys {
		twins[i] = same(features, d)
	}
	return twins
}
