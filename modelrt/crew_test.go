package modelrt

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"
)

// Two devices, as far as a CPU can be two: texts go to the one with less to do and are the same there, a text that goes on goes where its
// beginning is, and what is asked of all is asked of all.
func TestCrew(t *testing.T) {
	for _, form := range []string{"standard", "q4"} {
		t.Run(form, func(t *testing.T) {
			one := openTinyForm(t, form)
			o := tinyOptions(t)
			o.Form, o.Devices, o.Texts = form, []int{0, 1}, 2
			m, err := Open(context.Background(), runtimeFor(t), "testdata/tiny", o)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			if len(m.engine.all) != 2 {
				t.Fatalf("%d engines", len(m.engine.all))
			}
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // who waits for the one that is held up waits for ever
			defer cancel()
			// The first engine is held up in the middle of a text; others are written meanwhile.
			hold, began := make(chan struct{}), make(chan struct{})
			sitting := tinyText(m, context.Background(), places(1, 5))
			first := true
			sitting.take = func(int32, float64) bool {
				if first {
					first = false
					close(began)
					<-hold
				}
				return false
			}
			var wait sync.WaitGroup
			wait.Go(func() { m.engine.write(sitting) })
			<-began
			if _, active := m.Load(); active != 1 {
				t.Errorf("%d are written", active)
			}
			var longer []uint64
			for i := range 4 {
				keys := places(uint64(10+i), 20)
				want, _, err := answerOf(one, context.Background(), keys, 8)
				if err != nil {
					t.Fatal(err)
				}
				got, _, err := answerOf(m, ctx, keys, 8)
				if err != nil || !slices.Equal(got, want) {
					t.Errorf("%v, %v, want %v", got, err, want)
				}
				longer = append(slices.Clone(keys), places(uint64(50+i), 4)...)
			}
			close(hold)
			wait.Wait()
			// The next turn goes to the second engine, though both have nothing to do and the first is asked first.
			if _, next, err := answerOf(m, context.Background(), longer, 2); err != nil || next.reused != 20 {
				t.Errorf("reused %d, %v", next.reused, err)
			}
			seen := must(m.see(context.Background(), tinyValues(t).image(), classRoutine))
			report := must(m.write(context.Background(), seen, classRoutine))
			want := rows(t, one, must(one.write(context.Background(), must(one.see(context.Background(), tinyValues(t).image(), classRoutine)), classRoutine)))
			var scored sync.WaitGroup
			for range 6 {
				scored.Go(func() {
					got, _, err := m.scoreOthers(context.Background(), report.tokens)
					if err != nil {
						t.Error(err)
						return
					}
					for i := range got {
						if d := far(t, got[i], want[i+1]); d > 1e-5 {
							t.Errorf("row %d differs by %g", i, d)
						}
					}
				})
			}
			scored.Wait()
		})
	}
}
