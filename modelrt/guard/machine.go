package guard

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"chatxray/pipeline"
)

// The limits of following a program. What goes beyond is made anew when it is needed again, or refused.
const (
	maxPlaces  = 1 << 12  // kept, with their transitions
	maxKept    = 1 << 19  // threads of all kept places
	maxMasks   = 16 << 20 // bytes of kept masks
	maxThreads = 1 << 10  // of a place
	maxWork    = 1 << 20  // steps for one mask: some 0.1 s
)

// Grammar keeps texts within a form. It is safe for concurrent use: texts share what was found about the places that they came to.
//
// It is a push-down automaton that is made deterministic while it runs: a place is the set of all ways to have read the text so far.
// Masks are made at the first visit of a place, by a walk over the vocabulary, and kept.
type Grammar struct {
	vocabulary *Vocabulary
	program    *program

	mu         sync.Mutex
	generation int
	class      [256]uint8 // bytes that no step tells apart have one number
	classes    int
	places     map[string]*place
	frames     map[frame]*frame
	masks      map[string]Mask
	lastID     uint32
	kept       int // threads of all places
	begin      *place
	nowhere    *place
	key        []byte
	path       []*place // by the depth of a token's byte
	todo       []thread
	seen       map[thread]bool
	work       int
}

// frame is a rule or a repetition that a text is within. Equal frames of one generation are one.
type frame struct {
	up    *frame
	step  int32 // the call or the loop
	count int32 // finished repetitions, as far as they matter
	depth int32
	id    uint32
}

// thread is one way to have read a text: a step that reads, the state of its automaton, and what is around it.
type thread struct {
	at    int32
	state int16
	frame *frame
}

// place is all threads of a text.
type place struct {
	threads    []thread
	done       bool // the text may end here
	live       bool // it may end here, or single-byte tokens lead on
	generation int
	next       []*place // by class of bytes; nil where nobody went yet
	mask       Mask
}

func newGrammar(v *Vocabulary, p *program) (*Grammar, error) {
	g := &Grammar{vocabulary: v, program: p, nowhere: &place{}, path: make([]*place, v.longest+1), seen: map[thread]bool{}}
	g.classify()
	g.forget()
	threads, done, err := g.settle([]thread{{at: p.start}})
	if err != nil {
		return nil, err
	}
	g.begin = g.place(threads, done)
	return g, nil
}

// classify numbers the bytes so that two have one number exactly where every step treats them alike.
func (g *Grammar) classify() {
	g.classes = 1
	split := func(key func(b byte) int16) {
		known := map[[2]int16]uint8{}
		for b := range 256 {
			k := [2]int16{int16(g.class[b]), key(byte(b))}
			n, ok := known[k]
			if !ok {
				n = uint8(len(known))
				known[k] = n
			}
			g.class[b] = n
		}
		g.classes = len(known)
	}
	sets, chars := map[byteSet]bool{}, map[*characters]bool{}
	for i := range g.program.steps {
		switch s := &g.program.steps[i]; {
		case s.op == opByte && !sets[s.set]:
			sets[s.set] = true
			split(func(b byte) int16 {
				if s.set.has(b) {
					return 1
				}
				return 0
			})
		case s.op == opRune && !chars[s.chars]:
			chars[s.chars] = true
			for row := range s.chars.next {
				split(func(b byte) int16 { return s.chars.next[row][b] })
			}
		}
	}
}

// forget drops what is kept. Texts keep the place that they are at.
func (g *Grammar) forget() {
	g.generation++
	g.kept = 0
	g.places, g.frames, g.masks = map[string]*place{}, map[frame]*frame{}, map[string]Mask{}
}

// settle follows all that reads nothing from the given threads on, and returns those that read, sorted.
func (g *Grammar) settle(from []thread) (threads []thread, done bool, err error) {
	clear(g.seen)
	g.todo = g.todo[:0]
	push := func(at int32, f *frame) {
		depth := int32(0)
		if f != nil {
			depth = f.depth
		}
		t := thread{at: at, frame: f}
		if need := g.program.steps[at].need; need == impossible || depth+need > maxFrames || g.seen[t] {
			return
		}
		g.seen[t] = true
		g.todo = append(g.todo, t)
	}
	loop := func(f *frame) { // at the beginning, or after a repetition
		s := &g.program.steps[f.step]
		if f.count < s.max {
			push(s.entry, f)
		}
		if f.count >= s.min {
			push(s.next, f.up)
		}
	}
	for _, t := range from {
		if t.state != border {
			threads = append(threads, t)
		} else {
			push(t.at, t.frame)
		}
	}
	for len(g.todo) > 0 {
		t := g.todo[len(g.todo)-1]
		g.todo = g.todo[:len(g.todo)-1]
		if g.work++; g.work > maxWork || len(threads) > maxThreads {
			return nil, false, fmt.Errorf("%w grammar: it can be read in too many ways at once", pipeline.ErrUnsupported)
		}
		switch s := &g.program.steps[t.at]; s.op {
		case opByte, opRune:
			threads = append(threads, t)
		case opSplit:
			for _, b := range s.branches {
				push(b, t.frame)
			}
		case opCall:
			push(s.entry, g.frame(t.frame, t.at, 0))
		case opReturn:
			if t.frame == nil {
				done = true
			} else {
				push(g.program.steps[t.frame.step].next, t.frame.up)
			}
		case opLoop:
			loop(g.frame(t.frame, t.at, 0))
		case opAgain:
			n, l := t.frame.count+1, &g.program.steps[t.frame.step]
			if l.max == impossible {
				n = min(n, l.min) // all that matters of it
			}
			loop(g.frame(t.frame.up, t.frame.step, n))
		}
	}
	slices.SortFunc(threads, func(a, b thread) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.state, b.state), cmp.Compare(a.frame.number(), b.frame.number()))
	})
	return slices.Compact(threads), done, nil
}

func (f *frame) number() uint32 {
	if f == nil {
		return 0
	}
	return f.id
}

// frame returns the one frame that is so.
func (g *Grammar) frame(up *frame, step, count int32) *frame {
	f := frame{up: up, step: step, count: count, depth: 1}
	if up != nil {
		f.depth = up.depth + 1
	}
	if known, ok := g.frames[f]; ok {
		return known
	}
	g.lastID++
	made := f
	made.id = g.lastID
	g.frames[f] = &made
	return &made
}

// place returns the one place that has the threads.
func (g *Grammar) place(threads []thread, done bool) *place {
	if len(threads) == 0 && !done {
		return g.nowhere
	}
	g.key = g.key[:0]
	if done {
		g.key = append(g.key, 1)
	}
	for _, t := range threads {
		g.key = binary.LittleEndian.AppendUint32(g.key, uint32(t.at))
		g.key = binary.LittleEndian.AppendUint16(g.key, uint16(t.state))
		g.key = binary.LittleEndian.AppendUint32(g.key, t.frame.number())
	}
	if p, ok := g.places[string(g.key)]; ok {
		return p
	}
	p := &place{threads: threads, done: done, live: done, generation: g.generation, next: make([]*place, g.classes)}
	if g.kept += len(threads); len(g.places) >= maxPlaces || len(g.frames) >= 4*maxPlaces || g.kept > maxKept {
		g.forget() // p's frames are of the generation before
	}
	for _, t := range threads {
		if s := &g.program.steps[t.at]; s.op == opByte || t.state == border || s.chars.live[t.state] {
			p.live = true
		}
	}
	g.places[string(g.key)] = p
	return p
}

// step reads a byte.
func (g *Grammar) step(p *place, b byte) (*place, error) {
	if p == g.nowhere {
		return p, nil
	}
	class := g.class[b]
	if to := p.next[class]; to != nil {
		return to, nil
	}
	var after []thread
	for _, t := range p.threads {
		g.work++
		switch s := &g.program.steps[t.at]; {
		case s.op == opByte:
			if s.set.has(b) {
				after = append(after, thread{at: s.next, frame: t.frame})
			}
		default:
			switch to := s.chars.next[t.state][b]; to {
			case dead:
			case border:
				after = append(after, thread{at: s.next, frame: t.frame})
			default:
				after = append(after, thread{at: t.at, state: to, frame: t.frame})
			}
		}
	}
	threads, done, err := g.settle(after)
	if err != nil {
		return nil, err
	}
	to := g.place(threads, done)
	p.next[class] = to
	return to, nil
}

// current returns a place of this generation for one of an earlier one, so that texts do not hold on to what was forgotten.
func (g *Grammar) current(p *place) *place {
	if p.generation == g.generation || p == g.nowhere {
		return p
	}
	var again func(f *frame) *frame
	again = func(f *frame) *frame {
		if f == nil {
			return nil
		}
		return g.frame(again(f.up), f.step, f.count)
	}
	threads := make([]thread, len(p.threads))
	for i, t := range p.threads {
		threads[i] = thread{t.at, t.state, again(t.frame)}
	}
	slices.SortFunc(threads, func(a, b thread) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.state, b.state), cmp.Compare(a.frame.number(), b.frame.number()))
	})
	return g.place(threads, p.done)
}

// mask returns the tokens that may come at a place.
func (g *Grammar) mask(p *place) (Mask, error) {
	if p.mask != nil {
		return p.mask, nil
	}
	if m, ok := g.masks[string(g.outlook(p))]; ok {
		p.mask = m
		return m, nil
	}
	v := g.vocabulary
	m := newMask(v.width)
	g.work = 0
	g.path[0] = p
	for i := int32(0); i < int32(len(v.nodes)); {
		n := &v.nodes[i]
		to, err := g.step(g.path[n.depth], n.b)
		if err != nil {
			return nil, err
		}
		if to == g.nowhere {
			i = n.end
			continue
		}
		g.path[n.depth+1] = to
		if n.id >= 0 && to.live {
			v.addAll(m, n.id)
		}
		i++
	}
	clear(g.path)
	if p.done {
		m.or(v.stops)
	}
	if len(g.masks)*len(m)*8 >= maxMasks {
		g.forget() // the places too, since they hold masks
	}
	g.masks[string(g.outlook(p))] = m
	p.mask = m
	return m, nil
}

// outlook is a key that two places share where no token can tell them apart: counts matter only as far as a token can count.
func (g *Grammar) outlook(p *place) []byte {
	far := int32(g.vocabulary.longest) + 1
	k := g.key[:0]
	if p.done {
		k = append(k, 1)
	}
	for _, t := range p.threads {
		k = binary.LittleEndian.AppendUint32(k, uint32(t.at))
		k = binary.LittleEndian.AppendUint16(k, uint16(t.state))
		if t.frame != nil {
			k = binary.LittleEndian.AppendUint16(k, uint16(t.frame.depth))
		} else {
			k = append(k, 0, 0)
		}
		for f := t.frame; f != nil; f = f.up {
			s := &g.program.steps[f.step]
			k = binary.LittleEndian.AppendUint32(k, uint32(f.step))
			k = binary.LittleEndian.AppendUint16(k, uint16(max(0, min(s.min-f.count, far))))
			k = binary.LittleEndian.AppendUint16(k, uint16(min(s.max-f.count, far)))
		}
	}
	g.key = k
	return k
}

// Follow begins a text.
func (g *Grammar) Follow() *Sequence { return &Sequence{grammar: g, at: g.begin} }

// Sequence is the Constraint of a grammar. It may be copied.
type Sequence struct {
	grammar *Grammar
	at      *place
}

// Mask implements Constraint.
func (s *Sequence) Mask(logits []float32) error {
	g := s.grammar
	g.mu.Lock()
	s.at = g.current(s.at)
	m, err := g.mask(s.at)
	g.mu.Unlock()
	if err != nil {
		return err
	}
	m.apply(logits)
	return nil
}

// Accept implements Constraint.
func (s *Sequence) Accept(id int32) error {
	g := s.grammar
	text, ok := g.vocabulary.token(id)
	if ok && len(text) == 0 && g.vocabulary.stops.has(id) && s.at.done {
		return nil
	}
	if !ok || len(text) == 0 {
		return refused(id)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.work = 0
	at := g.current(s.at)
	for _, b := range text {
		to, err := g.step(at, b)
		if err != nil {
			return err
		}
		at = to
	}
	if !at.live {
		return refused(id)
	}
	s.at = at
	return nil
}

// Done implements Constraint.
func (s *Sequence) Done() bool { return s.at.done }
