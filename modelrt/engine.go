package modelrt

import (
	"context"
	"fmt"
	"hash/maphash"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"chatxray/pipeline"
)

// engine shares a decoder among texts. One goroutine owns the decoder and runs it step after step; a step feeds one token of every text
// that is being written, and a piece of the prompts that wait or of a text that is scored. So a long prompt holds up nobody's next
// word for longer than its piece takes.
//
// Texts have slots of the decoder's cache. What a slot held stays known place by place, so that a text that begins like an earlier one
// (the next turn of a conversation, the same instructions) is fed only from where it differs. Behind the slots of texts are those of
// scoring: prompts that stay.
type engine struct {
	decoder  decoder
	hidden   int
	vocab    int
	capacity int // tokens of a slot
	slots    []slotState
	held     int // slots behind, for scoring, of each adapter
	most     int // texts that may wait
	pieces   pieces
	wide     int // up to how many tokens of texts being written a step is filled with guesses; 0: none are made

	mu      sync.Mutex
	waiting []*text
	scoring []*scoring
	closing bool
	wake    chan struct{}
	ended   chan struct{}

	// Of the goroutine:
	active  []*text
	batch   batch
	takers  []taker // who gets which logits
	call    *call
	scored  *scoring // the one at work
	long    bool     // a run is at work that is worth stopping; with stopped and the call's options under stop
	stopped bool     // it was told to
	stop    sync.Mutex
	ids     []int32
	rows    []float32
}

// slotState is what a slot's cache holds.
type slotState struct {
	keys  []uint64 // of each place that is filled
	known []uint64 // those of texts that have ended, for who may look under the engine's lock
	used  time.Time
	text  *text // nil when free
}

// pieces are how much of prompts and of scored texts is fed at once, in tokens. A piece beside texts that are being written is short.
type pieces struct {
	alone, beside int
	scored        int // each has logits of its own
}

// piecesOf suits a device. To a GPU hundreds of tokens are little more work than the reading of the weights.
func piecesOf(d Device) pieces {
	if d == CUDA {
		return pieces{alone: 1024, beside: 256, scored: 256}
	}
	return pieces{alone: 256, beside: 48, scored: 96}
}

// aging is how long a waiting text takes to be as urgent as the next class.
const aging = 20 * time.Second

func newEngine(d decoder, m *Manifest, texts, held, capacity, most int) *engine {
	e := &engine{
		decoder: d, hidden: m.Decoder.Hidden, vocab: m.Decoder.Vocab, capacity: capacity, slots: make([]slotState, texts), held: held, most: most,
		pieces: piecesOf(CPU), wide: wideOf(d), wake: make(chan struct{}, 1), ended: make(chan struct{}),
	}
	return e
}

// text is what one request wants written. The engine's goroutine has its lower part.
type text struct {
	ctx      context.Context
	class    int       // of urgency, classUrgent and so on
	adapter  int       // that it is written with
	keys     []uint64  // what stands at each place of the prompt; places with the same key and the same ones before have the same cache
	prompt   []float32 // len(keys)×hidden; nil where ids and pictures say what it is
	places   *placing  // how places lie; nil for plain text
	ids      []int32   // of each place of the prompt; negative for those of pictures
	pictures []placed
	choose   func(logits []float32) (int32, float64, error)
	take     func(id int32, logprob float64) (more bool) // must not wait
	form     bool                                        // it follows a form, so that what comes next is often like what was
	scored   []int32                                     // where set, nothing is written: the last places of the prompt say these, the last of them left out, and scores is filled
	scores   []float64

	since     time.Time
	slot      int
	past      int // places that are filled
	last      int32
	began     bool // the prompt is filled
	guess     guesser
	cancelled atomic.Bool
	fed       atomic.Bool // it has a slot
	forget    func() bool
	err       error
	reused    int
	spent     time.Duration // in runs that it took part in
	done      chan struct{}
}

// write runs a text to its end: until take wants no more, or ctx ends. The places of prompt and answer must fit a slot.
func (e *engine) write(t *text) error {
	if len(t.keys) == 0 || len(t.prompt) != len(t.keys)*e.hidden && len(t.ids) != len(t.keys) || len(t.keys) >= e.capacity {
		return fmt.Errorf("%w: a prompt of %d tokens; this model takes up to %d with the answer", pipeline.ErrInvalid, len(t.keys), e.capacity)
	}
	if t.ctx.Err() != nil {
		return context.Cause(t.ctx) // it takes nobody's place in the queue
	}
	if t.adapter != 0 { // no text of another adapter begins like it
		t.keys = slices.Clone(t.keys)
		t.keys[0] = mixed(t.keys[0], uint64(t.adapter))
	}
	t.done, t.since, t.slot = make(chan struct{}), time.Now(), -1
	t.forget = context.AfterFunc(t.ctx, func() {
		t.cancelled.Store(true)
		e.interrupt(&t.fed)
	})
	defer t.forget()
	if err := e.queue(t); err != nil {
		return err
	}
	e.poke()
	<-t.done
	return t.err
}

func (e *engine) queue(t *text) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closing:
		return errClosed
	case len(e.waiting) >= e.most:
		return fmt.Errorf("%w: %d requests wait for the model; try again later", pipeline.ErrBusy, len(e.waiting))
	}
	e.waiting = append(e.waiting, t)
	return nil
}

// interrupt stops the run at work where it is a long one and who was cancelled may be in it: it is done again without them.
func (e *engine) interrupt(within *atomic.Bool) {
	e.stop.Lock()
	if e.long && within.Load() {
		e.stopped = true
		e.call.options.Terminate()
	}
	e.stop.Unlock()
	e.poke()
}

func (e *engine) poke() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// load is what the engine has to do: texts that wait and texts that are being written.
func (e *engine) load() (waiting, active int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range e.slots { // not a copy: keys are the goroutine's
		if e.slots[i].text != nil {
			active++
		}
	}
	return len(e.waiting), active
}

// close lets texts and scorings that were begun end, refuses those that wait, and returns when the goroutine has ended.
func (e *engine) close() {
	e.mu.Lock()
	e.closing = true
	e.mu.Unlock()
	e.poke()
	<-e.ended
}

// work is the goroutine. c is the call that its runs are under.
func (e *engine) work(c *call) {
	// The C library keeps freed memory by thread: a goroutine that wandered would leave some with each.
	runtime.LockOSThread()
	e.call = c
	defer close(e.ended)
	for {
		if !e.admit() {
			return
		}
		if len(e.active) == 0 && e.scored == nil {
			<-e.wake
			continue
		}
		e.step()
	}
}

// admit drops who was cancelled and gives free slots to those who wait. It returns false when the engine is closing and has nothing left.
func (e *engine) admit() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := 0; i < len(e.active); {
		if t := e.active[i]; t.cancelled.Load() {
			e.leave(t, context.Cause(t.ctx))
		} else {
			i++
		}
	}
	e.waiting = slices.DeleteFunc(e.waiting, func(t *text) bool {
		switch {
		case t.cancelled.Load():
			t.err = context.Cause(t.ctx)
		case e.closing:
			t.err = errClosed
		default:
			return false
		}
		close(t.done)
		return true
	})
	if e.scored != nil {
		e.scoring, e.scored = slices.Insert(e.scoring, 0, e.scored), nil
	}
	e.scoring = slices.DeleteFunc(e.scoring, func(s *scoring) bool {
		gone := s.cancel.Load()
		if gone {
			s.err = context.Cause(s.ctx)
			close(s.done)
		}
		return gone
	})
	if len(e.scoring) > 0 { // one at a time: they share the held slots
		e.scored = e.scoring[0]
		e.scored.working.Store(true)
		e.scoring = slices.Delete(e.scoring, 0, 1)
	}
	for len(e.waiting) > 0 && len(e.active) < len(e.slots) {
		first := slices.MinFunc(e.waiting, func(a, b *text) int {
			return int(a.rank().Sub(b.rank()))
		})
		e.waiting = slices.DeleteFunc(e.waiting, func(t *text) bool { return t == first })
		e.seat(first)
	}
	return !e.closing || len(e.active) > 0 || e.scored != nil
}

func (t *text) rank() time.Time { return rankOf(t.since, t.class) }

// seat gives t the free slot that holds most of its beginning, else the one that was free longest, and copies a longer beginning from
// wherever one is.
func (e *engine) seat(t *text) {
	seat, have, donor, more := -1, -1, -1, -1
	for i := range e.slots {
		s := &e.slots[i]
		n := common(s.keys, t.keys)
		if s.text == nil && (n > have || n == have && s.used.Before(e.slots[seat].used)) {
			seat, have = i, n
		}
		if n > more {
			donor, more = i, n
		}
	}
	// The last place is fed in any case: its logits are wanted.
	have, more = min(have, t.told()), min(more, t.told())
	if more > have && donor != seat {
		if err := e.decoder.share(donor, seat, more); err == nil {
			have = more
		}
	}
	e.decoder.wear(seat, t.adapter)
	s := &e.slots[seat]
	s.text, s.keys = t, append(s.keys[:0], t.keys[:have]...)
	s.known = append(s.known[:0], s.keys...)
	t.slot, t.past, t.reused = seat, have, have
	t.fed.Store(true)
	e.active = append(e.active, t)
}

func common(a, b []uint64) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// leave ends a text. The caller holds mu.
func (e *engine) leave(t *text, err error) {
	s := &e.slots[t.slot]
	s.text, s.used, s.known = nil, time.Now(), append(s.known[:0], s.keys...)
	e.active = slices.DeleteFunc(e.active, func(o *text) bool { return o == t })
	t.err = err
	close(t.done)
}

// imageKeys are the keys of an image's places. Equal embeddings have equal keys, and none is that of a token.
func imageKeys(embeds []float32, places int) []uint64 {
	sum := maphash.Bytes(keySeed, unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(embeds))), 4*len(embeds)))
	keys := make([]uint64, places)
	for i := range keys {
		keys[i] = (sum + uint64(i)*0x9e3779b97f4a7c15) | 1<<63
	}
	return keys
}

var keySeed = maphash.MakeSeed()
