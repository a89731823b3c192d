package modelrt

// placed is embeddings at a place of a prompt.
type placed struct {
	at   int
	rows []float32
}

// The classes of urgency: who is seated first, of those who wait.
const (
	classChat    = 1 // somebody waits for it
	classRoutine = 2 // reports that nobody called urgent
	classHeat    = 3 // pictures of what was written
)

// embed makes the prompt of a text that gave its tokens, from the place on that is fed first.
func (e *engine) embed(t *text) error {
	t.prompt = make([]float32, len(t.keys)*e.hidden)
	for from := t.past; from < len(t.ids); {
		to := from
		for to < len(t.ids) && (t.ids[to] < 0) == (t.ids[from] < 0) {
			to++
		}
		if t.ids[from] >= 0 {
			if err := e.decoder.lookup(e.call, t.ids[from:to], t.prompt[from*e.hidden:to*e.hidden]); err != nil {
				return err
			}
		}
		from = to
	}
	for _, p := range t.pictures {
		copy(t.prompt[p.at*e.hidden:], p.rows)
	}
	return nil
}
