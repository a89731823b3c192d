package modelrt

import (
	"math"
	"testing"

	"chatxray/modelrt/guard"
)

// The probability of a token that stands in for a masked one is that of all tokens together.
func TestGreedyWithinProbability(t *testing.T) {
	v := must(guard.NewVocabulary([][]byte{[]byte("я"), []byte("a"), []byte("b"), {}}, 4, []int32{3}))
	choose := greedyWithin(must(guard.New(v, must(guard.ScriptsFor("en")))))
	logits := []float32{3, 1, 2, -1}
	sum := 0.0
	for _, x := range logits {
		sum += math.Exp(float64(x))
	}
	id, p, err := choose(logits)
	if want := 2 - math.Log(sum); err != nil || id != 2 || math.Abs(p-want) > 1e-6 {
		t.Errorf("token %d with %g, %v; want 2 with %g", id, p, err, want)
	}
}
