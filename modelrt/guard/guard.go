package guard

import (
	"fmt"

	"chatxray/pipeline"
)

// State is the place in a text: 0 between two characters, else a place within one, together with what may still follow.
type State int32

// Guard keeps texts within scripts. It never changes: safe for concurrent use.
//
// Masks are made once, one for each state that tokens can reach, so that a step costs a walk over a bit set.
type Guard struct {
	vocabulary *Vocabulary
	scripts    Scripts
	automaton  *automaton
	masks      []Mask // by state; nil for a state that no allowed token leads to
}

// New makes the guard of a vocabulary. Errors: ErrInvalid where the vocabulary can write nothing in the scripts.
func New(v *Vocabulary, allowed Scripts) (*Guard, error) {
	g := &Guard{vocabulary: v, scripts: allowed, automaton: newAutomaton(allowed.set)}
	leads := g.reach()
	live := finish(leads)
	g.masks = make([]Mask, len(leads))
	for s, ends := range leads {
		if ends == nil || !live[s] {
			continue
		}
		m := newMask(v.width)
		for _, e := range ends {
			if live[e.state] {
				v.addAll(m, e.id)
			}
		}
		g.masks[s] = m
	}
	if g.masks[border] == nil || g.masks[border].count() == 0 {
		return nil, fmt.Errorf("%w guard: no token of the vocabulary can be written in the scripts %s", pipeline.ErrInvalid, allowed)
	}
	g.masks[border].or(v.silent)
	return g, nil
}

// ending is a token that may come in a state, and the state that it leads to.
type ending struct {
	id    int32
	state int16
}

// reach lists by state the tokens that stay within the scripts, for all states that tokens lead to.
func (g *Guard) reach() [][]ending {
	leads := make([][]ending, len(g.automaton.next))
	todo := []int16{border}
	leads[border] = []ending{}
	for len(todo) > 0 {
		s := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		ends := g.endings(s)
		leads[s] = ends
		for _, e := range ends {
			if leads[e.state] == nil {
				leads[e.state] = []ending{}
				todo = append(todo, e.state)
			}
		}
	}
	return leads
}

// endings walks the vocabulary from a state.
func (g *Guard) endings(from int16) []ending {
	v := g.vocabulary
	at := make([]int16, v.longest+1) // the state before the byte at each depth
	at[0] = from
	ends := []ending{}
	for i := int32(0); i < int32(len(v.nodes)); {
		n := &v.nodes[i]
		to := g.automaton.next[at[n.depth]][n.b]
		if to == dead {
			i = n.end
			continue
		}
		at[n.depth+1] = to
		if n.id >= 0 {
			ends = append(ends, ending{n.id, to})
		}
		i++
	}
	return ends
}

// finish tells for each state whether tokens lead from it to a border. A byte that a vocabulary lacks can make a character that is
// allowed one that cannot be finished.
func finish(leads [][]ending) []bool {
	live := make([]bool, len(leads))
	live[border] = true
	for changed := true; changed; {
		changed = false
		for s, ends := range leads {
			if live[s] {
				continue
			}
			for _, e := range ends {
				if live[e.state] {
					live[s], changed = true, true
					break
				}
			}
		}
	}
	return live
}

// Start is the state at the beginning of a text.
func (g *Guard) Start() State { return State(border) }

// Mask sets the logits of every token that may not come in a state to -Inf: those whose bytes leave the scripts, those that begin a
// character that cannot be finished, and within a character all tokens without text. At least one token stays.
// The state is one that Start or Next returned.
func (g *Guard) Mask(s State, logits []float32) { g.masks[s].apply(logits) }

// Allows tells whether a token may come in a state.
func (g *Guard) Allows(s State, id int32) bool { return g.masks[s].has(id) }

// Next returns the state after a token that Mask leaves. ok is false for another one.
func (g *Guard) Next(s State, id int32) (next State, ok bool) {
	if !g.Allows(s, id) {
		return s, false
	}
	at := int16(s)
	for _, b := range g.vocabulary.text[id] {
		at = g.automaton.next[at][b]
	}
	return State(at), true
}

// Scripts is what the guard allows.
func (g *Guard) Scripts() Scripts { return g.scripts }

// Follow begins a text.
func (g *Guard) Follow() *Follower { return &Follower{g, g.Start()} }

// Follower is the Constraint of a guard. It may be copied.
type Follower struct {
	guard *Guard
	state State
}

// Mask implements Constraint. It never fails.
func (f *Follower) Mask(logits []float32) error {
	f.guard.Mask(f.state, logits)
	return nil
}

// Accept implements Constraint.
func (f *Follower) Accept(id int32) error {
	next, ok := f.guard.Next(f.state, id)
	if !ok {
		return refused(id)
	}
	f.state = next
	return nil
}

// Done implements Constraint: a text may end between characters.
func (f *Follower) Done() bool { return f.state == State(border) }

func refused(id int32) error {
	return fmt.Errorf("%w: token %d may not come here", pipeline.ErrInvalid, id)
}
