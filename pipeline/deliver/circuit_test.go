package deliver_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"chatxray/pipeline"
	"chatxray/pipeline/deliver"
)

type destinationFunc func(context.Context) error

func (f destinationFunc) Deliver(ctx context.Context, _ pipeline.Record, _ []pipeline.Document) error {
	return f(ctx)
}

// A destination that is away for ten minutes costs one attempt in ten seconds, whoever waits; when it is back all of them go.
func TestACircuitProbesOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		running, most, tries, there := 0, 0, 0, false
		var told []bool
		c := deliver.NewCircuit(deliver.Config{Name: "pacs"}, destinationFunc(func(context.Context) error {
			mu.Lock()
			tries++
			running++
			most = max(most, running)
			is := there
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			defer mu.Unlock()
			running--
			if !is {
				return fmt.Errorf("nobody there: %w", pipeline.ErrUnavailable)
			}
			return nil
		}), func(s pipeline.DestinationState) { told = append(told, s.Away) })
		ctx, stop := context.WithCancel(t.Context())
		counted, delivered := 0, 0
		var work sync.WaitGroup
		for range 4 {
			work.Go(func() {
				for ctx.Err() == nil {
					leave, err := c.Ready(ctx)
					if err != nil {
						return
					}
					err = c.Deliver(ctx, pipeline.Record{}, nil)
					leave()
					mu.Lock()
					if err == nil {
						delivered++
					} else if !errors.Is(err, pipeline.ErrBusy) {
						counted++
					}
					mu.Unlock()
				}
			})
		}
		time.Sleep(20 * time.Second)
		mu.Lock()
		before := tries
		most = 0
		mu.Unlock()
		if s := c.State(); !s.Away || s.Reason != "nobody there: unavailable" || s.Since.IsZero() {
			t.Errorf("%+v", s)
		}
		time.Sleep(10 * time.Minute)
		mu.Lock()
		if n := tries - before; n < 40 || n > 61 || most != 1 {
			t.Errorf("%d tries in ten minutes, %d at the same time", n, most)
		}
		if counted > 8 {
			t.Errorf("%d failures count", counted)
		}
		there = true
		mu.Unlock()
		time.Sleep(20 * time.Second)
		stop()
		work.Wait()
		if delivered < 20 || c.State().Away || len(told) != 2 || !told[0] || told[1] {
			t.Errorf("%d delivered, told %v", delivered, told)
		}
	})
}

// Refusals and a stop do not say that a destination is away.
func TestACircuitKnowsWhatIsAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		err := fmt.Errorf("no: %w", deliver.Permanent)
		c := deliver.NewCircuit(deliver.Config{Name: "pacs"}, destinationFunc(func(ctx context.Context) error { return errors.Join(err, ctx.Err()) }), func(pipeline.DestinationState) { t.Error("away") })
		for range 20 {
			if e := c.Deliver(t.Context(), pipeline.Record{}, nil); !errors.Is(e, deliver.Permanent) {
				t.Error(e)
			}
		}
		err = errors.New("cut off")
		ctx, stop := context.WithCancel(t.Context())
		stop()
		for range 20 {
			_ = c.Deliver(ctx, pipeline.Record{}, nil)
		}
	})
}

// Where the URL leads nowhere for one study, and others are taken there, that study is refused for good in the end; where no other is taken, and for whom has no
// permission, nothing is given up.
func TestNowhereForOne(t *testing.T) {
	for status, final := range map[int]bool{404: true, 405: true, 401: false, 403: false, 429: false, 503: false} {
		for _, taken := range []bool{true, false} {
			receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				b, err := io.ReadAll(r.Body)
				switch {
				case err != nil || bytes.Contains(b, []byte(`"1.2.3"`)):
					w.WriteHeader(status)
					_, _ = io.WriteString(w, "what we say")
				case !taken:
					w.WriteHeader(http.StatusUnprocessableEntity)
				}
			}))
			cfg := deliver.Config{Name: "ris", Kind: "webhook", URL: receiver.URL, Secret: secret}
			to, err := deliver.Open(cfg)
			if err != nil {
				t.Fatal(err)
			}
			c := deliver.NewCircuit(cfg, to, func(pipeline.DestinationState) {})
			one, other := pipeline.Record{StudyInstanceUID: "1.2.3", Key: "k"}, pipeline.Record{StudyInstanceUID: "1.2.4", Key: "k"}
			for i := 1; i <= 12; i++ {
				err := c.Deliver(t.Context(), one, nil)
				if over := errors.Is(err, deliver.Permanent); err == nil || over != (final && taken && i == 10) {
					t.Errorf("%d, others taken: %v: attempt %d: %v", status, taken, i, err)
				} else if said := (interface{ Answer() string })(nil); over && (!errors.As(err, &said) || said.Answer() != "what we say") {
					t.Errorf("%v comes without the answer", err)
				}
				if err := c.Deliver(t.Context(), other, nil); (err == nil) != taken {
					t.Error(err)
				}
			}
			receiver.Close()
		}
	}
}

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := deliver.NewCircuit(deliver.Config{Name: "pacs", Rate: 0.5}, destinationFunc(func(context.Context) error { return nil }), nil)
		begun := time.Now()
		for range 6 {
			if err := c.Deliver(t.Context(), pipeline.Record{}, nil); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(begun); took != 10*time.Second {
			t.Errorf("six deliveries of one in two seconds took %v", took)
		}
	})
}
