package modelrt

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chatxray/modelrt/kernel"
	"chatxray/pipeline"
)

// chaos is a model that requests of every kind meet at once, and what each says alone.
type chaos struct {
	m        *Model
	adapters []string
	pictures []*pipeline.Image
	tokens   [][]int32                      // of texts of any tokens
	report   []int32                        // to be scored
	readings map[string][]*pipeline.Reading // by adapter and picture; nil where random weights wrote no sentence
	answers  map[string][]string            // by adapter and picture
}

const chaosForm = `{"type":"object","properties":{"side":{"enum":["left","right"]},"size":{"type":"integer","minimum":1,"maximum":9}},"required":["side","size"]}`

func openChaos(t testing.TB) *chaos {
	o := tinyOptions(t)
	o.Form, o.Texts, o.Structured, o.Adapters = "q4", 6, true, filepath.Join("testdata", "adapters", "tiny")
	m, err := Open(context.Background(), runtimeFor(t), filepath.Join("testdata", "tiny"), o)
	if err != nil {
		t.Fatal(err)
	}
	c := &chaos{m: m, adapters: []string{"", "narrow", "uneven", "wide"}, readings: map[string][]*pipeline.Reading{}, answers: map[string][]string{}}
	for i, p := range []*pipeline.Image{tinyValues(t).image(), picture(make([]uint8, 50*40), 50, 40), picture(make([]uint8, 32*32), 32, 32)} {
		p.Instance.Digest[0] = byte(i + 1)
		c.pictures = append(c.pictures, p)
	}
	ctx := context.Background()
	for i := range 6 {
		ids, _, err := answerOf(m, ctx, places(uint64(i), 2+7*i), 12)
		if err != nil {
			t.Fatal(err)
		}
		c.tokens = append(c.tokens, ids)
	}
	c.report = must(m.write(ctx, must(m.see(ctx, c.pictures[0], classRoutine)), classRoutine)).tokens
	for _, a := range c.adapters {
		with := must(m.With(a))
		for i, p := range c.pictures {
			r, err := with.Read(ctx, p)
			if err != nil && !errors.Is(err, pipeline.ErrModel) {
				t.Fatal(err)
			}
			c.readings[a] = append(c.readings[a], r)
			c.answers[a] = append(c.answers[a], must(with.Chat(ctx, c.question(i), nil)).Text)
		}
	}
	return c
}

// question is about a picture, in two turns for odd ones.
func (c *chaos) question(i int) pipeline.ChatRequest {
	q := question(user("Is it big?", askedAbout(c.pictures[i])))
	if i%2 == 1 {
		q.Messages = append(q.Messages, assistant("No."), user("Sure?"))
	}
	q.MaxTokens, q.Logprobs, q.Sampling.Temperature, q.Sampling.Seed = 12, i == 2, 0.8, uint64(i)
	return q
}

// request n ends as it likes to, or is cancelled anywhere.
func (c *chaos) request(t *testing.T, n int) {
	r := rand.New(rand.NewPCG(uint64(n), 7))
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	gone := errors.New("gone")
	switch moment := time.Duration(r.IntN(20_000)) * time.Microsecond; r.IntN(6) {
	case 0:
		short, stop := context.WithTimeout(ctx, moment)
		defer stop()
		ctx = short
	case 1:
		defer time.AfterFunc(moment, func() { cancel(gone) }).Stop()
	}
	adapter, i := c.adapters[r.IntN(len(c.adapters))], r.IntN(len(c.pictures))
	with := must(c.m.With(adapter))
	var err error
	switch kind := r.IntN(100); {
	case kind < 30:
		k := r.IntN(len(c.tokens))
		var ids []int32
		if ids, _, err = answerOf(c.m, ctx, places(uint64(k), 2+7*k), 12); err == nil && !slices.Equal(ids, c.tokens[k]) {
			t.Errorf("text %d: %v", n, ids)
		}
	case kind < 40:
		_, _, err = c.m.scoreOthers(ctx, c.report[:1+r.IntN(len(c.report)-1)])
	case kind < 60:
		var a *pipeline.ChatAnswer
		if a, err = with.Chat(ctx, c.question(i), func(pipeline.ChatPiece) error { return nil }); err == nil && a.Text != c.answers[adapter][i] {
			t.Errorf("answer %d: %q, want %q", n, a.Text, c.answers[adapter][i])
		}
	case kind < 65: // whose reader goes away
		_, err = with.Chat(ctx, c.question(i), func(pipeline.ChatPiece) error { return gone })
	case kind < 75:
		q := c.question(i)
		q.Schema, q.MaxTokens = json.RawMessage(chaosForm), 60
		var a *pipeline.ChatAnswer
		if a, err = with.Chat(ctx, q, nil); err == nil && !json.Valid([]byte(a.Text)) {
			t.Errorf("form %d: %q", n, a.Text)
		}
	case kind < 80: // a report with evidence as another chatxray asks for it
		q := question(user("Describe it.", askedAbout(c.pictures[i])))
		q.Evidence, q.MaxTokens = true, 20
		var a *pipeline.ChatAnswer
		if a, err = with.Chat(ctx, q, nil); err == nil && len(a.Evidence.Decoys) == 0 {
			t.Errorf("answer %d has no evidence", n)
		}
	case kind < 83: // what is refused
		if _, refused := with.Chat(ctx, question(user("No image")), nil); !errors.Is(refused, pipeline.ErrInvalid) {
			t.Errorf("request %d: %v", n, refused)
		}
	default:
		want := c.readings[adapter][i]
		var got *pipeline.Reading
		if got, err = with.Read(ctx, c.pictures[i]); err == nil && want != nil {
			got.RunSeconds = want.RunSeconds
			if diff := cmp.Diff(want, got, nearly); diff != "" {
				t.Errorf("reading %d: %s", n, diff)
			}
		} else if errors.Is(err, pipeline.ErrModel) && want == nil {
			err = nil
		}
	}
	if err != nil && !errors.Is(err, gone) && ctx.Err() == nil {
		t.Errorf("request %d: %v", n, err)
	}
}

// run has requests from..to-1, at most 40 at a time.
func (c *chaos) run(t *testing.T, from, to int) {
	var wait sync.WaitGroup
	turns := make(chan struct{}, 40)
	for n := from; n < to; n++ {
		turns <- struct{}{}
		wait.Go(func() {
			defer func() { <-turns }()
			c.request(t, n)
		})
	}
	wait.Wait()
	c.m.talks.settling.Wait()
}

// idle says what is still held: slots, places in the queue, the eyes; and the bytes that C code has, and that are in memory. The tensors of
// steps that the decoder keeps are given back before, since how many there are is chance.
func (c *chaos) idle(t *testing.T) (native int64, resident int) {
	t.Helper()
	if waiting, active := c.m.Load(); waiting != 0 || active != 0 {
		t.Errorf("%d wait, %d are written", waiting, active)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := c.m.eyes.enter(ctx, classRoutine); err != nil {
		t.Fatalf("the eyes are taken: %v", err)
	}
	c.m.eyes.leave()
	kept := c.m.engine.decoder.(*flat).feeds // the engine has nothing to do
	for key, feed := range kept {
		feed.free()
		delete(kept, key)
	}
	debug.FreeOSMemory()
	return kernel.Allocated(), residentBytes(t)
}

// Chats about images, forms, readings with evidence, adapters, scorings and bare texts, each left alone or cancelled anywhere: what is left alone is
// right, no slot stays taken, and no memory: what C code has from malloc is counted to the byte, so that one small object a request would tell.
func TestEngineChaos(t *testing.T) {
	settled, requests := 2_000, 10_000
	if testing.Short() {
		settled, requests = 500, 1_500
	}
	c := openChaos(t)
	began := time.Now()
	c.run(t, 0, settled)
	native, resident := c.idle(t)
	c.run(t, settled, requests)
	later, late := c.idle(t)
	more, grown := later-native, late-resident
	t.Logf("%d requests in %.0f s: after the first %d C code has %+d bytes more of %d, resident are %+d of %d", requests, time.Since(began).Seconds(), settled, more, native, grown, resident)
	if native < 0 {
		t.Log("the C library does not count what it gives")
	} else if most := 60_000 + 12*int64(requests-settled); more > most { // what threads keep of what was freed, and less than anything has that leaks
		t.Errorf("C code has %d bytes more than after %d requests", more, settled)
	}
	if grown > resident/20+2e6 {
		t.Errorf("resident memory grew from %d by %d bytes", resident, grown)
	}
	m, before := c.m, runtime.NumGoroutine()
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if _, _, err := answerOf(m, context.Background(), places(1, 3), 2); !errors.Is(err, pipeline.ErrNotFound) {
		t.Errorf("closed: %v", err)
	}
	for end := time.Now().Add(time.Minute); runtime.NumGoroutine() >= before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the engine's goroutine is still there: %d, then %d", before, runtime.NumGoroutine())
		}
	}
}
