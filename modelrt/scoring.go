package modelrt

import (
	"context"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"chatxray/modelrt/kernel"
	"chatxray/pipeline"
)

// scoring asks how likely ids are after each held prompt.
type scoring struct {
	ctx     context.Context
	adapter int
	places  *placing // how the held prompts lie, all alike; nil for plain text
	past    int      // length of the held prompts
	last    int32    // their last token
	ids     []int32
	fed     []float32 // embeddings of last and of all ids but the last
	next    int       // how many positions of all rows are done
	rows    [][]float64
	spent   time.Duration
	err     error
	done    chan struct{}
	cancel  atomic.Bool
	working atomic.Bool // it is the one at work
	forget  func() bool
}

// score returns the log-probability (natural logarithm) of each of ids after each held prompt of an adapter. The prompts have the same length past and the
// same last token.
func (e *engine) score(ctx context.Context, adapter int, l *placing, past int, last int32, ids []int32) ([][]float64, time.Duration, error) {
	if e.held == 0 {
		return nil, 0, fmt.Errorf("%w: this model takes no images, nothing compares them", pipeline.ErrUnsupported)
	}
	if len(ids) == 0 || past < 1 || past+len(ids) > e.capacity+1 {
		return nil, 0, fmt.Errorf("%w: a text of %d tokens to score", pipeline.ErrInvalid, len(ids))
	}
	s := &scoring{ctx: ctx, adapter: adapter, places: l, past: past, last: last, ids: ids, rows: make([][]float64, e.held), done: make(chan struct{})}
	for i := range s.rows {
		s.rows[i] = make([]float64, len(ids))
	}
	s.forget = context.AfterFunc(ctx, func() {
		s.cancel.Store(true)
		e.interrupt(&s.working)
	})
	defer s.forget()
	e.mu.Lock()
	if e.closing {
		e.mu.Unlock()
		return nil, 0, errClosed
	}
	e.scoring = append(e.scoring, s)
	e.mu.Unlock()
	e.poke()
	<-s.done
	return s.rows, s.spent, s.err
}

// embedScored looks up what a scoring feeds, once.
func (e *engine) embedScored(s *scoring) error {
	if s.fed != nil {
		return nil
	}
	s.fed = make([]float32, len(s.ids)*e.hidden)
	return e.decoder.lookup(e.call, append([]int32{s.last}, s.ids[:len(s.ids)-1]...), s.fed)
}

// addScoring adds up to n positions: the same places of all rows side by side.
func (e *engine) addScoring(s *scoring, n int) int {
	total := len(s.ids) * e.held
	n = min(n, total-s.next)
	each := max(1, n/e.held) // places
	from := s.next / e.held
	each = min(each, len(s.ids)-from)
	for row := range e.held {
		for i := range each {
			e.batch.add(len(e.slots)+s.adapter*e.held+row, s.past-1+from+i, s.fed[(from+i)*e.hidden:][:e.hidden], 1, s.places)
			e.batch.want()
			e.takers = append(e.takers, taker{scoring: s, row: row, at: from + i})
		}
	}
	return each * e.held
}

// told is the first place of a prompt after which logits are wanted.
func (t *text) told() int {
	if n := len(t.scored); n > 0 {
		return len(t.keys) - n
	}
	return len(t.keys) - 1
}

// feed adds up to n places of a text's prompt, and says how many. Of what is scored each place has logits of its own.
func (e *engine) feed(t *text, n int) int {
	add := func(n int) {
		b, from := &e.batch, t.past*e.hidden
		b.add(t.slot, t.past, t.prompt[from:from+n*e.hidden], n, t.places)
	}
	told := t.told()
	if t.scored == nil || t.past+n <= told {
		add(n)
		if t.past+n == len(t.keys) {
			e.batch.want()
			e.takers = append(e.takers, taker{text: t})
		}
		return n
	}
	n = min(n, max(1, told-t.past)+e.pieces.scored)
	first := e.batch.tokens()
	add(n)
	for i := max(told, t.past); i < t.past+n; i++ {
		e.batch.wanted = append(e.batch.wanted, int64(first+i-t.past))
		e.takers = append(e.takers, taker{text: t, at: i - told})
	}
	return n
}

// score notes how likely a token of a scored text is; more says whether others follow.
func (t *text) score(at int, logits []float32) (more bool, err error) {
	t.scores[at], err = logProbability(logits, t.scored[at])
	return at+1 < len(t.scored), err
}

// scoreAfter returns the log-probability (natural logarithm) of each of ids after a prompt of its own. It takes a slot, as a text does
// that is written.
func (m *Model) scoreAfter(ctx context.Context, class int, said *composed, ids []int32) ([]float64, time.Duration, error) {
	if len(ids) == 0 {
		return nil, 0, fmt.Errorf("%w: a text without tokens", pipeline.ErrInvalid)
	}
	fed := ids[:len(ids)-1]
	c, err := begin(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer c.end()
	hidden := m.bundle.Manifest.Decoder.Hidden
	prompt := make([]float32, len(said.embeds)+len(fed)*hidden)
	copy(prompt, said.embeds)
	if err := m.decoder.lookup(c, fed, prompt[len(said.embeds):]); err != nil {
		return nil, 0, err
	}
	keys := make([]uint64, 0, len(said.keys)+len(fed))
	keys = append(keys, said.keys...)
	for _, id := range fed {
		keys = append(keys, said.places.key(len(keys), uint64(id)))
	}
	t := &text{ctx: ctx, class: class, adapter: m.worn, keys: keys, prompt: prompt, places: said.places, scored: ids, scores: make([]float64, len(ids))}
	err = m.engine.write(t)
	return t.scores, t.spent, err
}

func logProbability(logits []float32, id int32) (float64, error) {
	v := kernel.LogProbability(logits, id)
	if math.IsNaN(v) || math.IsInf(v, 0) || v > 1e-3 {
		return v, fmt.Errorf("%w: a log-probability is %v", pipeline.ErrModel, v)
	}
	return v, nil
}
