package modelrt

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"chatxray/pipeline"
)

// sampler chooses the tokens of one text. It is for one goroutine at a time. After the first token it allocates nothing.
type sampler struct {
	how    pipeline.Sampling
	random *rand.PCG
	seen   []uint64 // by id, a bit each
	before []int32  // the ids of seen
	left   []candidateToken
	heap   []float32
	bins   [bins]float64
}

// candidateToken is a token that may be drawn, with its logit and its weight: its probability times a factor that all share.
type candidateToken struct {
	id     int32
	logit  float32
	weight float64
}

// newSampler makes a sampler for logits of a vocabulary. The sampling was checked.
func newSampler(how pipeline.Sampling, vocabulary int) *sampler {
	return &sampler{how: how, random: rand.NewPCG(how.Seed, 0), seen: make([]uint64, (vocabulary+63)/64), before: make([]int32, 0, 512)}
}

// saw tells of tokens that were there before: those of the prompt (as generate does), and each that was chosen. Only the repetition
// penalty asks.
func (s *sampler) saw(ids ...int32) {
	for _, id := range ids {
		if w, b := id>>6, uint64(1)<<(id&63); id >= 0 && int(w) < len(s.seen) && s.seen[w]&b == 0 {
			s.seen[w] |= b
			s.before = append(s.before, id)
		}
	}
}

// next chooses a token. Logits of -Inf are masked and never chosen; the penalty is worked into the logits. What is chosen is not seen
// until saw is told. Errors: ErrModel where a logit is NaN or +Inf, or all are -Inf.
func (s *sampler) next(logits []float32) (int32, error) {
	s.penalise(logits)
	best := 0
	for i, v := range logits {
		if v > logits[best] {
			best = i
		}
		if v != v {
			best = i
			break
		}
	}
	if v := float64(logits[best]); math.IsNaN(v) || math.IsInf(v, 1) {
		return 0, fmt.Errorf("%w: the decoder's logits are not finite", pipeline.ErrModel)
	} else if math.IsInf(v, -1) {
		return 0, fmt.Errorf("%w: no token may come next", pipeline.ErrModel)
	}
	if s.how.Temperature == 0 {
		return int32(best), nil
	}
	s.weigh(logits, logits[best])
	total := 0.0
	for _, c := range s.left {
		total += c.weight
	}
	at := float64(s.random.Uint64()>>11) / (1 << 53) * total
	for _, c := range s.left {
		if at -= c.weight; at < 0 {
			return c.id, nil
		}
	}
	return s.left[len(s.left)-1].id, nil // what rounding left over
}

func (s *sampler) penalise(logits []float32) {
	if s.how.RepetitionPenalty == 1 {
		return
	}
	penalty := float32(s.how.RepetitionPenalty)
	for _, id := range s.before {
		if v := logits[id]; v < 0 {
			logits[id] = v * penalty
		} else {
			logits[id] = v / penalty
		}
	}
}

// negligible is how far below the largest, in natural logarithms, a logit has no part in a draw: all tokens of a vocabulary that are
// so far below have less than one part in 10¹¹ together.
const negligible = 40

// weigh fills left with the tokens that may be drawn.
func (s *sampler) weigh(logits []float32, largest float32) {
	temperature := s.how.Temperature
	floor := float64(largest) - negligible*temperature
	if s.how.MinP > 0 && s.how.TopP == 1 { // where top-p does not need the weights of the others
		floor = max(floor, float64(largest)+temperature*math.Log(s.how.MinP)-1e-4)
	}
	if k := s.how.TopK; k > 0 && k < len(logits) {
		floor = max(floor, float64(s.largest(logits, k)))
	}
	s.left = s.left[:0]
	total, scale := 0.0, 1/temperature
	for i, v := range logits {
		if float64(v) >= floor {
			w := power(min((float64(largest)-float64(v))*scale, negligible))
			s.left = append(s.left, candidateToken{int32(i), v, w})
			total += w
		}
	}
	if s.how.TopP < 1 {
		s.nucleus(total)
	}
	if s.how.MinP > 0 {
		s.left = slices.DeleteFunc(s.left, func(c candidateToken) bool { return c.weight < s.how.MinP })
	}
}

// nucleus keeps the likeliest tokens whose predecessors have less than TopP of the total weight. Only the tokens about the edge are
// sorted: the others are put into bins by their logits, and the edge is in one of these.
func (s *sampler) nucleus(total float64) {
	clear(s.bins[:])
	for _, c := range s.left {
		s.bins[bin(c.weight)] += c.weight
	}
	edge, sum := 0, 0.0
	for edge < len(s.bins)-1 && sum+s.bins[edge] < s.how.TopP*total {
		sum += s.bins[edge]
		edge++
	}
	// In front those that are kept anyway, then those of the edge's bin.
	sure := 0
	for i, c := range s.left {
		if bin(c.weight) < edge {
			s.left[i], s.left[sure] = s.left[sure], c
			sure++
		}
	}
	about := sure
	for i := sure; i < len(s.left); i++ {
		if c := s.left[i]; bin(c.weight) == edge {
			s.left[i], s.left[about] = s.left[about], c
			about++
		}
	}
	slices.SortFunc(s.left[sure:about], func(a, b candidateToken) int {
		return cmp.Or(cmp.Compare(b.logit, a.logit), cmp.Compare(a.id, b.id))
	})
	n := sure
	for n < about && (n == 0 || sum < s.how.TopP*total) {
		sum += s.left[n].weight
		n++
	}
	s.left = s.left[:n]
}

// bin numbers weights by their exponent and the first bits of their fraction, the largest weight, 1, first.
func bin(weight float64) int {
	return min(int((math.Float64bits(1)-math.Float64bits(weight))>>46), bins-1)
}

const bins = 1 << 12

// powers holds e to the power of -k/64.
var powers = func() (p [negligible*64 + 2]float64) {
	for k := range p {
		p[k] = math.Exp(-float64(k) / 64)
	}
	return p
}()

// power is e to the power of -x, x from 0 to negligible, to eleven digits: several times quicker than math.Exp, since a step asks for it
// as often as the vocabulary has tokens.
func power(x float64) float64 {
	k := int(x * 64)
	r := float64(k)/64 - x
	return powers[k] * (1 + r*(1+r*(1.0/2+r*(1.0/6+r*(1.0/24)))))
}

// largest returns the k-th largest logit.
func (s *sampler) largest(logits []float32, k int) float32 {
	h := append(s.heap[:0], logits[:k]...) // the smallest of the k largest is at the top
	for i := k/2 - 1; i >= 0; i-- {
		sink(h, i)
	}
	for _, v := range logits[k:] {
		if v > h[0] {
			h[0] = v
			sink(h, 0)
		}
	}
	s.heap = h
	return h[0]
}

func sink(h []float32, i int) {
	for {
		child := 2*i + 1
		if child >= len(h) {
			return
		}
		if child+1 < len(h) && h[child+1] < h[child] {
			child++
		}
		if h[child] >= h[i] {
			return
		}
		h[i], h[child] = h[child], h[i]
		i = child
	}
}
