package modelrt

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"chatxray/pipeline"
)

// sampleCase is a case of testdata/sampling.json.gz, made by testdata/sampling.py with transformers' processors.
type sampleCase struct {
	Temperature   float64      `json:"temperature"`
	TopK          int          `json:"top_k"`
	TopP          float64      `json:"top_p"`
	MinP          float64      `json:"min_p"`
	Penalty       float64      `json:"repetition_penalty"`
	Seen          []int32      `json:"seen"`
	Logits        []*float32   `json:"logits"`
	Probabilities [][2]float64 `json:"probabilities"`
}

func sampleCases(t *testing.T) []sampleCase {
	t.Helper()
	f, err := os.Open("testdata/sampling.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var cases []sampleCase
	if err := json.NewDecoder(z).Decode(&cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) < 200 {
		t.Fatalf("only %d cases", len(cases))
	}
	return cases
}

func (c sampleCase) logits() []float32 {
	out := make([]float32, len(c.Logits))
	for i, v := range c.Logits {
		out[i] = float32(math.Inf(-1))
		if v != nil {
			out[i] = *v
		}
	}
	return out
}

func (c sampleCase) sampling(seed uint64) pipeline.Sampling {
	return pipeline.Sampling{Temperature: c.Temperature, TopK: c.TopK, TopP: c.TopP, MinP: c.MinP, RepetitionPenalty: c.Penalty, Seed: seed}
}

// What may be drawn, and with which probability, is what transformers' processors leave.
func TestSamplingEqualsTransformers(t *testing.T) {
	kept := 0
	for n, c := range sampleCases(t) {
		how := c.sampling(1)
		if err := how.Check(); err != nil {
			t.Fatal(err)
		}
		s := newSampler(how, len(c.Logits))
		s.saw(c.Seen...)
		if _, err := s.next(c.logits()); err != nil {
			t.Fatalf("case %d: %v", n, err)
		}
		slices.SortFunc(s.left, func(a, b candidateToken) int { return int(a.id - b.id) })
		total := 0.0
		for _, w := range s.left {
			total += w.weight
		}
		got := map[int32]float64{}
		for _, w := range s.left {
			got[w.id] = w.weight / total
		}
		for _, p := range c.Probabilities {
			g, there := got[int32(p[0])]
			if !there && p[1] > 1e-9 || math.Abs(g-p[1]) > 2e-6 {
				t.Errorf("case %d, %+v: token %v has the probability %v, want %v", n, how, p[0], g, p[1])
			}
			delete(got, int32(p[0]))
		}
		if len(got) > 0 {
			t.Errorf("case %d, %+v: %v may be drawn and may not", n, how, got)
		}
		kept += len(c.Probabilities)
	}
	if kept < 2000 {
		t.Errorf("only %d tokens were compared", kept)
	}
}

func TestPower(t *testing.T) {
	for x := 0.0; x <= negligible; x += 0.00137 {
		if got, want := power(x), math.Exp(-x); math.Abs(got-want) > 1e-11*want {
			t.Fatalf("e to the -%v: %v, want %v", x, got, want)
		}
		if a, b := bin(math.Exp(-x)), bin(math.Exp(-x-0.001)); a > b || a < 0 || b >= bins {
			t.Fatalf("bins %d and %d at %v", a, b, x)
		}
	}
}

// Draws come as often as their probability says, the same with the same seed, and others with another.
func TestSamplingDraws(t *testing.T) {
	logits := []float32{2, 1, 0, float32(math.Inf(-1)), -1, 1.5}
	sum := 0.0
	for _, l := range logits {
		sum += math.Exp(float64(l))
	}
	draw := func(seed uint64, n int) []int32 {
		s := newSampler(pipeline.Sampling{Temperature: 1, TopP: 1, RepetitionPenalty: 1, Seed: seed}, len(logits))
		out := make([]int32, n)
		for i := range out {
			id, err := s.next(logits)
			if err != nil {
				t.Fatal(err)
			}
			out[i] = id
		}
		return out
	}
	const n = 200_000
	counts := make([]int, len(logits))
	for _, id := range draw(3, n) {
		counts[id]++
	}
	for i, l := range logits {
		p := math.Exp(float64(l)) / sum
		if d := math.Abs(float64(counts[i]) - n*p); d > 5*math.Sqrt(n*p*(1-p)) {
			t.Errorf("token %d came %d times of %d, expected are %.0f", i, counts[i], n, n*p)
		}
	}
	if !slices.Equal(draw(7, 50), draw(7, 50)) || slices.Equal(draw(7, 50), draw(8, 50)) {
		t.Error("a seed gives not the same draws, or another one does")
	}
}

func TestSamplingGreedy(t *testing.T) {
	s := newSampler(pipeline.DefaultSampling(), 4)
	if id, err := s.next([]float32{1, 3, 3, 2}); id != 1 || err != nil {
		t.Errorf("%d, %v", id, err)
	}
	how := pipeline.DefaultSampling()
	how.RepetitionPenalty = 2
	s = newSampler(how, 4)
	s.saw(1, 1, 3, -1, 99)
	if id, err := s.next([]float32{1, 3, -4, 1.9}); id != 1 || err != nil { // 1, 1.5, -4, 0.95
		t.Errorf("%d, %v", id, err)
	}
	if id, err := s.next([]float32{-3, -2, -4, -9}); id != 0 || err != nil { // -3, -4, -4, -18
		t.Errorf("%d, %v", id, err)
	}
}

func TestSamplingRefuses(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, how := range []pipeline.Sampling{pipeline.DefaultSampling(), {Temperature: 1, TopK: 2, TopP: 0.9, MinP: 0.1, RepetitionPenalty: 1.1}, {Temperature: 1, TopP: 1, RepetitionPenalty: 1}} {
		for _, logits := range [][]float32{{nan, 1, 2}, {1, nan, 2}, {2, 1, nan}, {1, inf, 2}, {-inf, -inf, -inf}} {
			if _, err := newSampler(how, 3).next(logits); !errors.Is(err, pipeline.ErrModel) {
				t.Errorf("%v: %v", logits, err)
			}
		}
		if id, err := newSampler(how, 3).next([]float32{-inf, -7, -inf}); id != 1 || err != nil {
			t.Errorf("one token is left: %d, %v", id, err)
		}
	}
	good := pipeline.Sampling{Temperature: 0.7, TopK: 50, TopP: 0.9, MinP: 0.05, RepetitionPenalty: 1.1}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(s *pipeline.Sampling){
		"temperature": func(s *pipeline.Sampling) { s.Temperature = -1 }, "temperature nan": func(s *pipeline.Sampling) { s.Temperature = math.NaN() }, "top_k": func(s *pipeline.Sampling) { s.TopK = -1 },
		"top_p": func(s *pipeline.Sampling) { s.TopP = 1.1 }, "min_p": func(s *pipeline.Sampling) { s.MinP = -0.1 }, "penalty": func(s *pipeline.Sampling) { s.RepetitionPenalty = 0 },
	} {
		s := good
		spoil(&s)
		if err := s.Check(); !errors.Is(err, pipeline.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// likeLogits are logits as a language model gives them: a few likely tokens over a broad rest.
func likeLogits(size int) []float32 {
	rnd := rand.New(rand.NewPCG(1, 2))
	logits := make([]float32, size)
	for i := range logits {
		logits[i] = float32(rnd.NormFloat64() * 3)
	}
	for range 20 {
		logits[rnd.IntN(size)] = 10 + 5*rnd.Float32()
	}
	return logits
}

func TestSamplingAllocatesNothing(t *testing.T) {
	logits := likeLogits(49152)
	work := make([]float32, len(logits))
	for _, how := range []pipeline.Sampling{pipeline.DefaultSampling(), {Temperature: 0.7, TopK: 50, TopP: 0.9, MinP: 0.05, RepetitionPenalty: 1.1}, {Temperature: 1, TopP: 0.95, RepetitionPenalty: 1}, {Temperature: 1, TopP: 1, RepetitionPenalty: 1}} {
		s := newSampler(how, len(logits))
		step := func() {
			copy(work, logits)
			id, err := s.next(work)
			if err != nil {
				t.Fatal(err)
			}
			s.saw(id)
		}
		step()
		if n := testing.AllocsPerRun(50, step); n != 0 {
			t.Errorf("%+v: %v allocations a token", how, n)
		}
	}
}

func BenchmarkSampling(b *testing.B) {
	logits := likeLogits(49152)
	for name, how := range map[string]pipeline.Sampling{
		"greedy": pipeline.DefaultSampling(), "temperature": {Temperature: 1, TopP: 1, RepetitionPenalty: 1}, "top-p": {Temperature: 1, TopP: 0.95, RepetitionPenalty: 1},
		"min-p": {Temperature: 1, TopP: 1, MinP: 0.05, RepetitionPenalty: 1}, "top-k and top-p": {Temperature: 0.7, TopK: 50, TopP: 0.9, RepetitionPenalty: 1},
	} {
		b.Run(name, func(b *testing.B) {
			s := newSampler(how, len(logits))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.next(logits); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
