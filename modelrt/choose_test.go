package modelrt

import (
	"context"
	"math"
	"testing"
	"unicode"

	"chatxray/modelrt/guard"
)

// A model that wants Latin letters gets none out where its language is written in others; what is left is likely by its own measure.
func TestReportKeepsToItsScripts(t *testing.T) {
	m := openTiny(t)
	seen := must(m.see(context.Background(), tinyValues(t).image()))
	if a := must(m.write(context.Background(), seen)); !hasLetter(string(a.text), unicode.Latin) {
		t.Fatalf("unguarded it wrote %q", a.text)
	}
	var err error
	if m.guard, err = m.guardFor("ru"); err != nil {
		t.Fatal(err)
	}
	a := must(m.write(context.Background(), seen))
	t.Logf("%q", a.text)
	if hasLetter(string(a.text), unicode.Latin) || len(a.tokens) == 0 {
		t.Errorf("%q", a.text)
	}
}

func hasLetter(s string, of *unicode.RangeTable) bool {
	for _, c := range s {
		if unicode.Is(of, c) {
			return true
		}
	}
	return false
}

// The probability of a token that stands in for a masked one is that of all tokens together.
func TestGreedyWithinProbability(t *testing.T) {
	v := must(guard.NewVocabulary([][]byte{[]byte("a"), []byte("я"), []byte("б"), {}}, 4, []int32{3}))
	choose := greedyWithin(must(guard.New(v, must(guard.ScriptsFor("ru")))))
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
