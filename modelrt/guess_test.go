package modelrt

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
)

// Texts with guesses have the tokens and log-probabilities of texts without, alone and beside others, greedy and sampled; and there are right guesses and wrong
// ones.
func TestGuessesChangeNothing(t *testing.T) {
	m, plain := openTiny(t), openTiny(t)
	for _, e := range plain.engine.all {
		e.wide = 0
	}
	type said struct {
		ids      []int32
		logprobs []float64
		saved    int
	}
	// A prompt that repeats three tokens makes guesses; what the model says of it decides whether they are right.
	write := func(m *Model, seed uint64, sampled bool) (out said) {
		keys := make([]uint64, 40)
		for i := range keys {
			keys[i] = 5 + (seed+uint64(i%7)*uint64(i%5))%50
		}
		x := tinyText(m, context.Background(), keys)
		x.form = true
		if sampled {
			r := rand.New(rand.NewPCG(seed, 7))
			x.choose = func(logits []float32) (int32, float64, error) { // among the two likeliest
				best, logprob, err := greedy(logits)
				if err == nil && r.IntN(4) == 0 {
					logits = slices.Clone(logits)
					logits[best] = logits[(int(best)+1)%len(logits)] - 1
					best, logprob, err = greedy(logits)
				}
				return best, logprob, err
			}
		}
		x.take = func(id int32, logprob float64) bool {
			out.ids, out.logprobs = append(out.ids, id), append(out.logprobs, logprob)
			return len(out.ids) < 80
		}
		if err := m.engine.write(x); err != nil {
			t.Error(err)
		}
		out.saved = x.guess.saved
		return out
	}
	saved, tokens := 0, 0
	check := func(seed uint64, sampled bool) {
		got, want := write(m, seed, sampled), write(plain, seed, sampled)
		if !slices.Equal(got.ids, want.ids) || !slices.Equal(got.logprobs, want.logprobs) {
			t.Errorf("seed %d, sampled %t: %v, want %v", seed, sampled, got.ids, want.ids)
		}
		if want.saved != 0 {
			t.Errorf("%d guesses without guesses", want.saved)
		}
		saved, tokens = saved+got.saved, tokens+len(got.ids)
	}
	for seed := range uint64(12) {
		check(seed, false)
		check(seed, true)
	}
	if saved < tokens/10 || saved > tokens*9/10 {
		t.Errorf("of %d tokens %d were guessed: that tries too little", tokens, saved)
	}
	t.Logf("of %d tokens %d were guessed", tokens, saved)
	var mu sync.Mutex
	var wait sync.WaitGroup
	for seed := range uint64(6) {
		wait.Go(func() {
			got, want := write(m, seed, false), write(plain, seed, false)
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(got.ids, want.ids) || !slices.Equal(got.logprobs, want.logprobs) {
				t.Errorf("beside others, seed %d: %v, want %v", seed, got.ids, want.ids)
			}
		})
	}
	wait.Wait()
}

// A text's guesses grow while they come, rest longer with each that does not, and begin again.
func TestGuesser(t *testing.T) {
	g := guesser{reach: guessAfter, said: []int32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1, 2, 3}}
	g.guess(7)
	if !slices.Equal(g.next, []int32{4, 5, 6}) {
		t.Fatalf("guessed %v", g.next)
	}
	for i, id := range []int32{4, 5, 6} {
		if !g.right(i, id) {
			t.Fatal("a right guess is wrong")
		}
		g.say(id)
	}
	g.say(7)
	g.guess(2)
	if g.reach != 6 || !slices.Equal(g.next, []int32{8, 9}) {
		t.Fatalf("reach %d, guessed %v", g.reach, g.next)
	}
	if g.right(0, 99) || g.right(1, 9) {
		t.Error("a wrong guess is right")
	}
	g.say(99)
	g.guess(7)
	if len(g.next) != 0 || g.reach != 3 || g.miss != 1 {
		t.Errorf("%+v", g)
	}
	for id := range int32(3) {
		g.say(1 + id)
	}
	g.guess(7)
	if !slices.Equal(g.next, []int32{4, 5, 6}) {
		t.Errorf("guessed %v", g.next)
	}
	off := guesser{}
	off.say(1)
	if off.guess(7); off.said != nil || off.next != nil {
		t.Errorf("%+v", off)
	}
}
