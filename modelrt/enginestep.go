package modelrt

import (
	"context"
	"errors"
	"slices"
	"time"

	ort "github.com/yalue/onnxruntime_go"
)

// A run of more than stoppable tokens is stopped when a text in it is cancelled; shorter ones end soon.
const stoppable = 8

// taker is who gets logits of a run.
type taker struct {
	text    *text
	scoring *scoring
	row, at int // of what is scored; at is also how many guessed tokens are before
}

// step makes a batch, runs it, and hands the logits out.
func (e *engine) step() {
	b := &e.batch
	b.clear()
	e.takers, e.ids = e.takers[:0], e.ids[:0]
	room := e.wide
	for _, t := range e.active {
		if t.began {
			room--
		}
	}
	for _, t := range e.active {
		if t.began {
			t.guess.guess(min(room, e.capacity-1-t.past))
			room -= len(t.guess.next)
			e.ids = append(append(e.ids, t.last), t.guess.next...)
		}
	}
	if n := len(e.ids) * e.hidden; cap(e.rows) < n {
		e.rows = make([]float32, n)
	}
	rows := e.rows[:len(e.ids)*e.hidden]
	if len(e.ids) > 0 {
		if err := e.decoder.lookup(e.call, e.ids, rows); err != nil {
			e.fail(err)
			return
		}
	}
	writing := 0
	for _, t := range e.active {
		if t.began {
			for i := range 1 + len(t.guess.next) {
				b.add(t.slot, t.past+i, rows[writing*e.hidden:][:e.hidden], 1, t.places)
				writing++
				b.want()
				e.takers = append(e.takers, taker{text: t, at: i})
			}
		}
	}
	piece := e.pieces.alone
	if writing > 0 {
		piece = e.pieces.beside
	}
	for _, t := range e.active {
		if t.prompt == nil {
			if err := e.embed(t); err != nil {
				e.fail(err)
				return
			}
		}
		if n := min(piece, len(t.keys)-t.past); !t.began && n > 0 {
			if t.places != nil {
				n = t.places.whole(t.past, n)
			}
			n = e.feed(t, n)
			piece -= n
		}
	}
	scored := 0
	if e.scored != nil && piece > 0 {
		if err := e.embedScored(e.scored); err != nil {
			e.fail(err)
			return
		}
		scored = e.addScoring(e.scored, min(piece, e.pieces.scored))
	}
	if len(b.wanted) == 0 { // the graph has logits in any case
		b.want()
		e.takers = append(e.takers, taker{})
	}
	began := time.Now()
	stopped, err := e.run(b)
	switch {
	case err == nil:
		e.hand(time.Since(began), scored)
	case !stopped:
		e.fail(err)
	}
}

// run runs the batch. A long run can be stopped: then it has to be done again, without those who stopped it.
func (e *engine) run(b *batch) (stopped bool, err error) {
	e.stop.Lock()
	e.long = b.tokens() > stoppable
	e.stop.Unlock()
	if !e.left() { // whoever leaves from now on stops the run
		err = e.decoder.run(e.call, b)
	} else {
		err = context.Canceled
	}
	e.stop.Lock()
	defer e.stop.Unlock()
	stopped = e.stopped || err == context.Canceled
	e.long = false
	if e.stopped { // options that were told to stop, perhaps just after the run, stop every run under them
		o, newErr := ort.NewRunOptions()
		if newErr != nil {
			return false, newErr
		}
		e.stopped = false
		e.call.options.Destroy()
		e.call.options = o
	}
	return stopped, err
}

// left says whether somebody of the batch has gone.
func (e *engine) left() bool {
	return e.scored != nil && e.scored.cancel.Load() || slices.ContainsFunc(e.active, func(t *text) bool { return t.cancelled.Load() })
}

// hand gives the logits of a run to those who wanted them.
func (e *engine) hand(spent time.Duration, scored int) {
	// Places that were fed count from now on; those of guesses when they have come.
	for i := 0; i < len(e.batch.slot); i++ {
		if s := int(e.batch.slot[i]); s < len(e.slots) {
			if t := e.slots[s].text; !t.began {
				e.slots[s].keys = append(e.slots[s].keys, t.keys[t.past])
				t.past++
			}
		}
	}
	for _, t := range e.active {
		if t.began {
			e.follow(t)
		}
	}
	for _, t := range e.active {
		t.spent += spent
	}
	type ending struct {
		t   *text
		err error
	}
	var ended []ending
	for i, k := range e.takers {
		logits := e.batch.logits[i*e.vocab:][:e.vocab]
		switch {
		case k.text != nil && k.text.scored != nil:
			if more, err := k.text.score(k.at, logits); !more || err != nil {
				ended = append(ended, ending{k.text, err})
			}
		case k.text != nil:
			if k.at > 0 {
				if !k.text.guess.right(k.at-1, k.text.last) {
					continue
				}
				e.follow(k.text)
			}
			if more, err := e.advance(k.text, logits); !more || err != nil {
				k.text.guess.wrong = true
				ended = append(ended, ending{k.text, err})
			}
		case k.scoring != nil:
			v, err := logProbability(logits, k.scoring.ids[k.at])
			if err != nil {
				k.scoring.err = err
			}
			k.scoring.rows[k.row][k.at] = v
		}
	}
	if len(ended) == 0 && scored == 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, x := range ended {
		e.leave(x.t, x.err)
	}
	if scored > 0 {
		s := e.scored
		s.next += scored
		s.spent += spent
		if s.err != nil || s.next == len(s.ids)*e.held {
			e.scored = nil
			close(s.done)
		}
	}
}

// follow counts the place that holds the last token of a text.
func (e *engine) follow(t *text) {
	keys := &e.slots[t.slot].keys
	*keys = append(*keys, t.places.key(t.past, uint64(t.last)))
	t.past++
}

// advance chooses the next token of a text and offers it.
func (e *engine) advance(t *text, logits []float32) (more bool, err error) {
	id, logprob, err := t.choose(logits)
	if err != nil {
		return false, err
	}
	if !t.began && t.form && e.wide > 0 {
		t.guess.begin(t, e.capacity)
	}
	t.began, t.last = true, id
	t.guess.say(id)
	return t.take(id, logprob), nil
}

// fail ends everything that the failed run was for; where only memory was short, who asked for most of it, and the others go on.
func (e *engine) fail(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if short := (*memoryError)(nil); errors.As(err, &short) {
		e.relieve(err)
		return
	}
	for len(e.active) > 0 {
		t := e.active[0]
		e.slots[t.slot].keys = e.slots[t.slot].keys[:0]
		e.leave(t, err)
	}
	if e.scored != nil {
		e.scored.err = err
		close(e.scored.done)
		e.scored = nil
	}
}

// relieve ends who has the most tokens in the batch, of those with as many who came last. The others' places are fed again. The caller
// holds mu.
func (e *engine) relieve(err error) {
	tokens := map[*text]int{}
	scored := 0
	for _, s := range e.batch.slot {
		if int(s) < len(e.slots) {
			tokens[e.slots[s].text]++
		} else {
			scored++
		}
	}
	var most *text
	for _, t := range e.active {
		if most == nil || tokens[t] > tokens[most] || tokens[t] == tokens[most] && t.since.After(most.since) {
			most = t
		}
	}
	switch {
	case e.scored != nil && (most == nil || scored >= tokens[most]):
		e.scored.err = err
		close(e.scored.done)
		e.scored = nil
	case most != nil:
		s := &e.slots[most.slot] // the places of a batch count only after it
		s.keys = s.keys[:min(len(s.keys), most.past)]
		e.leave(most, err)
	}
}
