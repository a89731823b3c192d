package modelrt

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// BenchmarkEngine measures the engine over the default bundle in one form: reports side by side, waiting under load, the second turn of
// a conversation, what evidence costs, how soon a cancelled request is gone. bench/engine/run.sh calls it.
func BenchmarkEngine(b *testing.B) {
	form := cmp.Or(os.Getenv("CHATXRAY_FORM"), "q4")
	m := openBaseForm(b, form, false)
	ctx := context.Background()
	load, _ := os.ReadFile("/proc/loadavg")
	fmt.Printf("\n%s %s, form %s, load %s\n", m.bundle.Manifest.Name, m.bundle.Manifest.Revision, m.Form(), strings.Fields(string(load))[0])

	// Evidence, as a share of the time that the report took to write (encoding, prompt, decoding).
	var share []float64
	var tokens int
	for i := range 7 {
		seen := must(m.see(ctx, shades(400+i), classRoutine))
		a := must(m.write(ctx, seen, classRoutine))
		_, scoring, err := m.scoreOthers(ctx, a.tokens)
		if err != nil {
			b.Fatal(err)
		}
		share = append(share, scoring.Seconds()/(seen.spent+a.spent).Seconds())
		tokens += len(a.tokens)
	}
	fmt.Printf("evidence of a report of %d tokens: %.0f %% of the time to write it (median of 7)\n", tokens/7, 100*middle(share))

	// Reports side by side.
	reports := func(beside, n int) float64 {
		began := time.Now()
		turn := make(chan struct{}, beside)
		var wait sync.WaitGroup
		for i := range n {
			turn <- struct{}{}
			wait.Go(func() {
				if _, err := m.Read(ctx, shades(300+i)); err != nil {
					b.Error(err)
				}
				<-turn
			})
		}
		wait.Wait()
		return float64(n) / time.Since(began).Minutes()
	}
	var alone, beside, ratio []float64
	for range 3 { // in turn, because the machine's load changes
		one, eight := reports(1, 6), reports(8, 16)
		alone, beside, ratio = append(alone, one), append(beside, eight), append(ratio, eight/one)
	}
	fmt.Printf("reports a minute: %.0f one at a time, %.0f eight side by side: %.1f times (medians of 3)\n", middle(alone), middle(beside), middle(ratio))

	// The first token, alone and among reports that come as a Poisson process at 70 % of what eight side by side can do.
	first := func(seed int) float64 {
		began := time.Now()
		var at time.Duration
		seen := must(m.see(ctx, shades(500+seed), classRoutine))
		said := must(m.composeFor(ctx, m.prompt.report, []*sight{seen}))
		t := &text{ctx: ctx, prompt: said.embeds, keys: said.keys, places: said.places, choose: greedy, take: func(int32, float64) bool {
			at = time.Since(began)
			return false
		}}
		if err := m.engine.write(t); err != nil {
			b.Fatal(err)
		}
		return at.Seconds()
	}
	var idle, busy []float64
	for i := range 15 {
		idle = append(idle, first(i))
	}
	stop, random := make(chan struct{}), rand.New(rand.NewPCG(1, 1))
	var wait sync.WaitGroup
	wait.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(random.ExpFloat64() / (0.7 * middle(beside)) * float64(time.Minute))):
			}
			wait.Go(func() { m.Read(ctx, shades(600+i%50)) })
		}
	})
	time.Sleep(2 * time.Second)
	for i := range 40 {
		busy = append(busy, first(100+i))
		time.Sleep(time.Duration(random.ExpFloat64() * float64(200*time.Millisecond)))
	}
	close(stop)
	wait.Wait()
	fmt.Printf("time to the first token, image included: %.0f ms alone, %.0f ms at 70 %% load: %.1f times (medians of 15 and 40)\n",
		1e3*middle(idle), 1e3*middle(busy), middle(busy)/middle(idle))

	// A conversation: the second turn brings the first one's prompt and answer again.
	question := m.prompt.tokenizer.Encode(" Is there fluid in the pleural space, and on which side?")
	hidden := m.bundle.Manifest.Decoder.Hidden
	turn := func(keys []uint64, prompt []float32) (float64, []int32) {
		began, at, answer := time.Now(), time.Duration(0), []int32(nil)
		t := &text{ctx: ctx, keys: keys, prompt: prompt, choose: greedy, take: func(id int32, _ float64) bool {
			if at == 0 {
				at = time.Since(began)
			}
			answer = append(answer, id)
			return len(answer) < 30
		}}
		if err := m.engine.write(t); err != nil {
			b.Fatal(err)
		}
		return at.Seconds(), answer
	}
	more := func(keys []uint64, prompt []float32, ids []int32) ([]uint64, []float32) {
		rows := make([]float32, len(ids)*hidden)
		c := must(begin(ctx))
		defer c.end()
		if err := m.decoder.lookup(c, ids, rows); err != nil {
			b.Fatal(err)
		}
		for _, id := range ids {
			keys = append(keys, uint64(id))
		}
		return keys, append(prompt, rows...)
	}
	var turns []float64
	for i := range 9 {
		began := time.Now()
		seen := must(m.see(ctx, shades(700+i), classRoutine))
		encoding := time.Since(began).Seconds()
		said := must(m.composeFor(ctx, m.prompt.report, []*sight{seen}))
		keys, prompt := more(said.keys, said.embeds, question)
		one, answer := turn(keys, prompt)
		keys, prompt = more(keys, prompt, append(answer, question...))
		two, _ := turn(keys, prompt)
		turns = append(turns, two/(one+encoding))
	}
	fmt.Printf("conversation: the second turn's first token takes %.2f of the first turn's (median of 9)\n", middle(turns))

	// From cancelling to the slot being free.
	var late []float64
	for i := range 300 {
		cancelled, cancel := context.WithCancel(ctx)
		began := make(chan struct{})
		t := tinyText(m, cancelled, places(uint64(i), 40+i%300))
		once := sync.OnceFunc(func() { close(began) })
		t.take = func(int32, float64) bool { once(); return true }
		done := make(chan struct{})
		go func() { m.engine.write(t); close(done) }()
		if i%2 == 0 {
			<-began
		}
		time.Sleep(time.Duration(random.IntN(30)) * time.Millisecond)
		at := time.Now()
		cancel()
		<-done
		late = append(late, time.Since(at).Seconds())
	}
	slices.Sort(late)
	fmt.Printf("cancel to slot free: median %.1f ms, p99 %.1f ms (300 requests, half of them in the prompt)\n", 1e3*middle(late), 1e3*late[len(late)*99/100])
}

func middle(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
