package modelrt

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"chatxray/phantom"
	"chatxray/pipeline"
	"chatxray/pipeline/dicom"
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

	benchmarkTurns(b, m)

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

// benchmarkTurns measures how soon the first piece of an answer comes, in the first turn of a conversation and in the second, and what a run of so
// many tokens takes: the least that a turn can.
func benchmarkTurns(b *testing.B, m *Model) {
	ctx := context.Background()
	const rounds = 5
	var files []string
	for i := range rounds {
		files = append(files, drawnFile(b, uint64(i)))
	}
	for _, c := range []struct {
		of   string
		load func(i int) (*pipeline.Image, error)
	}{
		{"of an image in memory", func(i int) (*pipeline.Image, error) { return shades(700 + i), nil }},
		{"of a DICOM file of 2,048×2,500 pixels", func(i int) (*pipeline.Image, error) {
			in, err := dicom.OpenFile(files[i])
			if err != nil {
				return nil, err
			}
			return dicom.Decode(ctx, in, 0)
		}},
	} {
		var first, second, ratio, worked, workFirst, workSecond []float64
		var fed, prompt int
		for i := range rounds {
			a := &pipeline.ChatImage{Name: "it", Content: pipeline.Digest{7, byte(i), byte(len(c.of))}, Load: func(context.Context) (*pipeline.Image, error) { return c.load(i) }}
			ask := pipeline.ChatMessage{Role: pipeline.RoleUser, Parts: []pipeline.ChatPart{{Image: a}, {Text: "Is there fluid in the pleural space, and on which side?"}}}
			turn := func(messages ...pipeline.ChatMessage) (answer *pipeline.ChatAnswer, took, work float64) {
				r, began, worked := question(messages...), time.Now(), processorSeconds(b)
				r.MaxTokens = 30
				answer = must(m.Chat(ctx, r, func(pipeline.ChatPiece) error {
					if took == 0 {
						took, work = time.Since(began).Seconds(), processorSeconds(b)-worked
					}
					return nil
				}))
				if took == 0 { // the first token was the last
					took, work = time.Since(began).Seconds(), processorSeconds(b)-worked
				}
				return answer, took, work
			}
			one, before, workBefore := turn(ask)
			m.talks.settling.Wait() // somebody reads the answer
			two, after, workAfter := turn(ask, assistant(one.Text), user("And the heart: is it larger than it should be?"))
			first, second, ratio, worked = append(first, before), append(second, after), append(ratio, after/before), append(worked, workAfter/workBefore)
			workFirst, workSecond = append(workFirst, workBefore), append(workSecond, workAfter)
			prompt, fed = one.Prompt-one.Reused, two.Prompt-two.Reused
		}
		fmt.Printf("conversation %s: first piece after %.0f ms (%d places), in the second turn after %.1f ms (%d places): %.2f; processor time %.0f and %.1f ms: %.2f (medians of %d)\n",
			c.of, 1e3*middle(first), prompt, 1e3*middle(second), fed, middle(ratio), 1e3*middle(workFirst), 1e3*middle(workSecond), middle(worked), rounds)
	}
	call := must(begin(ctx))
	defer call.end()
	fmt.Print("a run of")
	for _, n := range []int{1, 4, 8, 16, 24, 32, 48, 64} {
		var took []float64
		rows := make([]float32, n*m.bundle.Manifest.Decoder.Hidden)
		for range 15 {
			var batch batch
			batch.add(0, 64, rows, n, nil)
			batch.want()
			began := time.Now()
			if err := m.decoder.run(call, &batch); err != nil {
				b.Fatal(err)
			}
			took = append(took, time.Since(began).Seconds())
		}
		fmt.Printf(" %d tokens %.1f ms,", n, 1e3*middle(took))
	}
	fmt.Println(" behind 64 others (medians of 15)")
}

// processorSeconds is what this process has had of the processors.
func processorSeconds(b *testing.B) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// drawnFile is a radiograph's file.
func drawnFile(b *testing.B, seed uint64) string {
	drawn, err := phantom.Draw(phantom.Options{Seed: seed, Rows: 2500, Columns: 2048})
	if err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(b.TempDir(), "drawn.dcm")
	if err := os.WriteFile(path, must(dicom.Encode(drawn.Dataset())), 0o600); err != nil {
		b.Fatal(err)
	}
	return path
}

// BenchmarkTurns is the part of BenchmarkEngine about conversations.
func BenchmarkTurns(b *testing.B) {
	benchmarkTurns(b, openBaseForm(b, cmp.Or(os.Getenv("CHATXRAY_FORM"), "q4"), false))
}
