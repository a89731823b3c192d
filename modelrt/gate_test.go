package modelrt

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"chatxray/pipeline"
)

// The most urgent goes first, one that came long before is not overtaken, and who goes away holds up nobody.
func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g gate
		var mu sync.Mutex
		var order []string
		if err := g.enter(t.Context(), classRoutine); err != nil {
			t.Fatal(err)
		}
		come := func(ctx context.Context, name string, class int) {
			go func() {
				if err := g.enter(ctx, class); err != nil {
					name += ": " + err.Error()
				} else {
					defer g.leave()
				}
				mu.Lock()
				order = append(order, name)
				mu.Unlock()
			}()
			synctest.Wait()
		}
		gone := errors.New("gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		come(t.Context(), "old routine", classRoutine)
		time.Sleep(2*aging + time.Second)
		come(t.Context(), "routine", classRoutine)
		come(t.Context(), "chat", classChat)
		come(ctx, "left", classUrgent)
		come(t.Context(), "urgent", classUrgent)
		cancel(gone)
		synctest.Wait()
		g.leave()
		synctest.Wait()
		if want := []string{"left: gone", "old routine", "urgent", "chat", "routine"}; !slices.Equal(order, want) {
			t.Errorf("%v, want %v", order, want)
		}
		if g.held || len(g.waiting) > 0 {
			t.Errorf("held %v, %d wait", g.held, len(g.waiting))
		}
	})
}

// A report that was ordered as urgent is written before those that wait longer; a chat between them.
func TestUrgentReportFirst(t *testing.T) {
	o := tinyOptions(t)
	o.Texts = 1
	m, err := Open(t.Context(), runtimeFor(t), "testdata/tiny", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	ran := &ranFor{decoder: m.engine.decoder, e: m.engine.engine}
	m.engine.decoder = ran
	hold, sits := make(chan struct{}), make(chan struct{})
	sitting := tinyText(m, t.Context(), places(9, 4))
	sitting.take = func(int32, float64) bool {
		close(sits)
		<-hold // the engine stands still
		return false
	}
	var wait sync.WaitGroup
	wait.Go(func() { _ = m.engine.write(sitting) })
	<-sits
	waits := func(n int) {
		for waiting := 0; waiting < n; waiting, _ = m.Load() {
			time.Sleep(time.Millisecond)
		}
	}
	check := func(name string, err error) {
		if err != nil {
			t.Error(name, err)
		}
	}
	for i, c := range []struct{ name, priority string }{{"first routine", "ROUTINE"}, {"second routine", "MEDIUM"}, {"chat", ""}, {"urgent", "STAT"}} {
		wait.Go(func() {
			img := tinyValues(t).image()
			if c.name == "chat" {
				r := question(user("Q", askedAbout(img)))
				r.MaxTokens = 3
				_, err := m.Chat(t.Context(), r, nil)
				check(c.name, err)
				return
			}
			img.Instance.Header.SetText(pipeline.TagRequestedProcedurePriority, "SH", c.priority)
			_, err := m.write(t.Context(), must(m.see(t.Context(), img, classOf(img))), classOf(img))
			check(c.name, err)
		})
		waits(i + 1)
	}
	close(hold)
	wait.Wait()
	if want := []int{classUrgent, classUrgent, classChat, classRoutine, classRoutine}; !slices.Equal(ran.classes, want) { // first who sat there
		t.Errorf("classes %v, want %v", ran.classes, want)
	}
}

// ranFor is a decoder that notes the class of each text that it runs for, in the engine's first slot.
type ranFor struct {
	decoder
	e       *engine
	last    *text
	classes []int
}

func (r *ranFor) run(c *call, b *batch) error {
	if t := r.e.slots[0].text; t != nil && t != r.last && t.class != classIdle {
		r.last, r.classes = t, append(r.classes, t.class)
	}
	return r.decoder.run(c, b)
}
