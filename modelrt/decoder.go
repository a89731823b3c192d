package modelrt

import (
	"fmt"
	"slices"

	"chatxray/pipeline"
)

// decoder is a language model with a cache of slots, each the keys and values of one text. Going back in a text is feeding its
// positions again. A decoder is for one goroutine at a time.
type decoder interface {
	// lookup writes the embeddings of ids to dst, len(ids)×hidden.
	lookup(c *call, ids []int32, dst []float32) error
	// run feeds b. b.logits are valid until the next run.
	run(c *call, b *batch) error
	// share copies the first n places of a slot to another.
	share(from, to, n int) error
	// wear gives a slot one of the adapters that the decoder was made with. Its places were filled with the one that it had before: they are to be fed again.
	wear(slot, adapter int)
	close()
}

// batch is tokens to feed, of any slots; those of one slot stand together and ascend.
type batch struct {
	x      []float32 // tokens×hidden
	slot   []int32
	at     []int32   // a token's place in its slot
	upto   []int32   // the place behind the last that it sees
	wanted []int64   // the tokens after which logits are wanted, ascending
	logits []float32 // wanted×vocab, set by run

	position [][3]int32 // what rotary positions are made of, or learned ones looked up by; of plain text three times the place
}

func (b *batch) tokens() int { return len(b.slot) }

// clear empties b and keeps its memory.
func (b *batch) clear() {
	b.x, b.slot, b.at, b.wanted, b.logits = b.x[:0], b.slot[:0], b.at[:0], b.wanted[:0], nil
	b.upto, b.position = b.upto[:0], b.position[:0]
}

// add appends the text x, n×hidden, of a slot whose places before past are filled. l says how its places lie; without it they are plain text.
func (b *batch) add(slot, past int, x []float32, n int, l *placing) {
	b.x = append(b.x, x...)
	for i := range n {
		at := int32(past + i)
		position, upto := [3]int32{at, at, at}, at+1
		if l != nil {
			position, upto = l.at(past + i)
		}
		b.slot, b.at = append(b.slot, int32(slot)), append(b.at, at)
		b.position, b.upto = append(b.position, position), append(b.upto, upto)
	}
}

// want asks for the logits after the token added last.
func (b *batch) want() { b.wanted = append(b.wanted, int64(len(b.slot)-1)) }

// check refuses a batch that the caches cannot take.
func (b *batch) check(slots, capacity, hidden int) error {
	if len(b.x) != len(b.slot)*hidden || len(b.at) != len(b.slot) || len(b.slot) == 0 || len(b.wanted) == 0 {
		return fmt.Errorf("%w: a batch of %d tokens with %d values", pipeline.ErrModel, len(b.slot), len(b.x))
	}
	for i, s := range b.slot {
		if u := b.upto[i]; u <= b.at[i] || int(u) > capacity || slices.Min(b.position[i][:]) < 0 || int(slices.Max(b.position[i][:])) >= capacity {
			return fmt.Errorf("%w: place %d of slot %d sees up to %d and is at %v, in a cache of %d", pipeline.ErrModel, b.at[i], s, u, b.position[i], capacity)
		}
		if s < 0 || int(s) >= slots || b.at[i] < 0 || int(b.at[i]) >= capacity {
			return fmt.Errorf("%w: place %d of slot %d in a cache of %d slots of %d", pipeline.ErrModel, b.at[i], s, slots, capacity)
		}
	}
	return nil
}

// newDecoder loads a form whose graphs and weights are in dir, for slots texts of at most capacity tokens.
func (r *Runtime) newDecoder(dir string, b *Bundle, form *Form, loras []*lora, slots, capacity, threads int, spin, eightBits bool) (decoder, error) {
	if form.Kind == KindFlat {
		return r.newFlat(dir, b, form, loras, slots, capacity, threads, eightBits)
	}
	if eightBits {
		return nil, fmt.Errorf("%w: activations of 8 bits need a form of the kind %s; %s of bundle %s is of the kind %s", pipeline.ErrUnsupported, KindFlat, form.Name, b.Manifest.Name, form.Kind)
	}
	return r.newGQA(dir, b.Manifest, form, slots, capacity, threads, spin)
}
