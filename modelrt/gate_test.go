package modelrt

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
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
