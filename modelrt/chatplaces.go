package modelrt

import "chatxray/pipeline"

// placed is embeddings at a place of a prompt.
type placed struct {
	at   int
	rows []float32
}

// The classes of urgency: who is encoded and seated first, of those who wait.
const (
	classUrgent  = iota // reports of studies that were ordered as urgent
	classChat           // somebody waits for it
	classRoutine        // other reports
	classIdle           // what nobody waits for
)

// classOf is that of an image's report.
func classOf(img *pipeline.Image) int {
	if img.Instance != nil && img.Instance.Header.Urgent() {
		return classUrgent
	}
	return classRoutine
}

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
