package modelrt

import (
	"context"
	"time"
)

// crew is the engines of a model, one for each device. The first is embedded: on most machines it is all there is.
type crew struct {
	*engine
	all []*engine
}

func (c *crew) add(e *engine) {
	if c.all = append(c.all, e); len(c.all) == 1 {
		c.engine = e
	}
}

// write gives a text to the engine that has least to do, of those with as little to the one that knows most of its beginning. One that knows
// more than half of a text gets it as long as a slot is free there: the next turn of a conversation.
func (c *crew) write(t *text) error {
	if len(c.all) == 1 {
		return c.engine.write(t)
	}
	best, score := c.all[0], 0
	for i, e := range c.all {
		waiting, active := e.load()
		known := e.knows(t.keys)
		s := -(waiting+active)<<20 + known
		if known*2 > len(t.keys) && waiting == 0 && active < len(e.slots) {
			s += 1 << 40
		}
		if i == 0 || s > score {
			best, score = e, s
		}
	}
	return best.write(t)
}

// score goes to the engine that has least to do: all hold the same prompts.
func (c *crew) score(ctx context.Context, adapter int, l *placing, past int, last int32, ids []int32) ([][]float64, time.Duration, error) {
	best, least := c.all[0], 0
	for i, e := range c.all {
		waiting, active := e.load()
		if n := waiting + active + e.scorings(); i == 0 || n < least {
			best, least = e, n
		}
	}
	return best.score(ctx, adapter, l, past, last, ids)
}

func (c *crew) load() (waiting, active int) {
	for _, e := range c.all {
		w, a := e.load()
		waiting, active = waiting+w, active+a
	}
	return waiting, active
}

func (c *crew) close() {
	for _, e := range c.all {
		e.close()
	}
}

// knows is how many places of a text a slot of the engine holds.
func (e *engine) knows(keys []uint64) (most int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range e.slots {
		most = max(most, common(e.slots[i].known, keys))
	}
	return most
}

// scorings is how many texts wait to be scored or are.
func (e *engine) scorings() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.scored != nil {
		return len(e.scoring) + 1
	}
	return len(e.scoring)
}
