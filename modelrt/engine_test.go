package modelrt

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"chatxray/pipeline"
)

// prompts of any tokens for the tiny bundle; equal ones have equal embeddings.
func tinyText(m *Model, ctx context.Context, keys []uint64) *text {
	hidden := m.bundle.Manifest.Decoder.Hidden
	t := &text{ctx: ctx, keys: keys, prompt: make([]float32, len(keys)*hidden), choose: greedy}
	for i, k := range keys {
		r := rand.New(rand.NewPCG(k, 1))
		for j := range hidden {
			t.prompt[i*hidden+j] = float32(r.NormFloat64()) * 0.3
		}
	}
	return t
}

// places are n keys from seed on.
func places(seed uint64, n int) []uint64 {
	keys := make([]uint64, n)
	for i := range keys {
		keys[i] = 1<<40 + seed*1000 + uint64(i)
	}
	return keys
}

// answerOf writes n tokens after keys.
func answerOf(m *Model, ctx context.Context, keys []uint64, n int) (ids []int32, t *text, err error) {
	t = tinyText(m, ctx, keys)
	t.take = func(id int32, _ float64) bool {
		ids = append(ids, id)
		return len(ids) < n
	}
	return ids, t, m.engine.write(t)
}

// Texts beside each other say what they say alone, also with more of them than slots and with a scoring among them.
func TestTextsTogether(t *testing.T) {
	eachForm(t, func(t *testing.T, m *Model) {
		const texts, long = 9, 20
		var want [texts][]int32
		for i := range texts {
			ids, _, err := answerOf(m, context.Background(), places(uint64(i), 3+5*i), long)
			if err != nil {
				t.Fatal(err)
			}
			want[i] = ids
		}
		seen := must(m.see(context.Background(), tinyValues(t).image(), classRoutine))
		report := must(m.write(context.Background(), seen, classRoutine))
		alone := rows(t, m, report)
		var wait sync.WaitGroup
		for round := range 3 {
			for i := range texts {
				wait.Go(func() {
					ids, _, err := answerOf(m, context.Background(), places(uint64(i), 3+5*i), long)
					if err != nil || !slices.Equal(ids, want[i]) {
						t.Errorf("round %d, text %d: %v, %v, want %v", round, i, ids, err, want[i])
					}
				})
			}
			wait.Go(func() {
				got, _, err := m.scoreOthers(context.Background(), report.tokens)
				if err != nil {
					t.Error(err)
					return
				}
				for r := range got {
					if d := far(t, got[r], alone[r+1]); d > 1e-5 {
						t.Errorf("scores of row %d differ by %g", r, d)
					}
				}
			})
			wait.Wait()
		}
	})
}

// What a slot holds is not fed again, wherever the slot is.
func TestPrefixReuse(t *testing.T) {
	eachForm(t, func(t *testing.T, m *Model) {
		first := places(1, 30)
		want, t1, err := answerOf(m, context.Background(), first, 10)
		if err != nil || t1.reused != 0 {
			t.Fatalf("reused %d, %v", t1.reused, err)
		}
		// The same prompt: all but the last place, whose logits are wanted.
		got, t2, err := answerOf(m, context.Background(), first, 10)
		if err != nil || !slices.Equal(got, want) || t2.reused != 29 {
			t.Errorf("%v (reused %d), %v; want %v", got, t2.reused, err, want)
		}
		// A longer one, while another text sits in the slot that holds its beginning.
		longer := append(slices.Clone(first), places(2, 10)...)
		clean, _, err := answerOf(openTinyForm(t, m.Form()), context.Background(), longer, 10)
		if err != nil {
			t.Fatal(err)
		}
		hold, began := make(chan struct{}), make(chan struct{})
		sitting := tinyText(m, context.Background(), append(slices.Clone(first), places(3, 1)...))
		n := 0
		sitting.take = func(int32, float64) bool {
			if n++; n == 1 {
				close(began)
			}
			select {
			case <-hold:
				return false
			default:
				return n < 80
			}
		}
		var wait sync.WaitGroup
		wait.Go(func() { m.engine.write(sitting) })
		<-began
		got, t3, err := answerOf(m, context.Background(), longer, 10)
		close(hold)
		wait.Wait()
		if err != nil || !slices.Equal(got, clean) || t3.reused != 30 {
			t.Errorf("%v (reused %d), %v; want %v", got, t3.reused, err, clean)
		}
		// What differs in the middle is fed from there.
		other := slices.Clone(first)
		other[12]++
		if _, t4, err := answerOf(m, context.Background(), other, 2); err != nil || t4.reused != 12 {
			t.Errorf("reused %d, %v", t4.reused, err)
		}
	})
}

// Urgent texts come first, yet an old one is not overtaken for ever; a full queue says so at once.
func TestQueue(t *testing.T) {
	m := openTiny(t)
	e := m.engine
	now := time.Now()
	texts := []*text{{class: 2, since: now.Add(-time.Hour)}, {class: 0, since: now}, {class: 2, since: now.Add(-time.Second)}, {class: 1, since: now}}
	slices.SortFunc(texts, func(a, b *text) int { return int(a.rank().Sub(b.rank())) })
	if texts[0].since != now.Add(-time.Hour) || texts[1].class != 0 || texts[2].class != 1 || texts[3].class != 2 {
		t.Errorf("%+v", texts)
	}
	e.most = 2
	hold := make(chan struct{})
	var wait sync.WaitGroup
	started := make(chan struct{}, len(e.slots))
	for i := range len(e.slots) {
		sitting := tinyText(m, context.Background(), places(uint64(i), 4))
		first := true
		sitting.take = func(int32, float64) bool {
			if first {
				first = false
				started <- struct{}{}
				<-hold // the engine stands still
			}
			return false
		}
		wait.Go(func() { e.write(sitting) })
	}
	<-started
	ctx, cancel := context.WithCancel(context.Background())
	for i := range 2 + len(e.slots) {
		wait.Go(func() { answerOf(m, ctx, places(uint64(100+i), 4), 2) })
	}
	for waiting := 0; waiting < 2; waiting, _ = m.Load() {
		time.Sleep(time.Millisecond)
	}
	busy := 0
	for i := range 40 {
		short, stop := context.WithTimeout(context.Background(), 20*time.Millisecond)
		if _, _, err := answerOf(m, short, places(uint64(200+i), 4), 2); errors.Is(err, pipeline.ErrBusy) {
			busy++
		}
		stop()
		if busy > 0 {
			break
		}
	}
	if busy == 0 {
		t.Error("a full queue takes more")
	}
	cancel()
	close(hold)
	wait.Wait()
	if waiting, active := m.Load(); waiting != 0 || active != 0 {
		t.Errorf("%d wait, %d are written", waiting, active)
	}
}

// A step allocates nothing on Go's heap.
func TestNoGarbageByToken(t *testing.T) {
	m := openTiny(t)
	const long = 60
	run := func(n int) uint64 {
		txt, count := tinyText(m, context.Background(), places(5, 4)), 0
		var from, to runtime.MemStats
		txt.take = func(int32, float64) bool {
			switch count++; count {
			case 20: // the tensors of this size are there
				runtime.ReadMemStats(&from)
			case 20 + n:
				runtime.ReadMemStats(&to)
				return false
			}
			return true
		}
		if err := m.engine.write(txt); err != nil {
			t.Fatal(err)
		}
		return to.TotalAlloc - from.TotalAlloc
	}
	run(long)
	if bytes := run(long); bytes > 0 {
		t.Errorf("%d bytes for %d tokens", bytes, long)
	}
}
