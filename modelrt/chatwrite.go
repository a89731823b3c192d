package modelrt

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	"chatxray/modelrt/guard"
	"chatxray/pipeline"
)

// writer writes one answer: it chooses the tokens within the language and the form, and cuts the text into pieces that may leave. Its
// methods choose and take are the engine's; pieces are read by whoever asked.
type writer struct {
	tokenizer  Tokenizer
	ends       map[int32]bool // tokens that end an answer
	language   string
	scripts    guard.Scripts
	constraint guard.Constraint
	sampler    *sampler
	raw        []float32 // logits before the sampler's penalty; nil where it has none
	logprobs   bool
	tops       int
	top        []pipeline.ChatToken // of the token that was chosen last
	boxes      boxSkipper

	text    []byte
	stops   []stopString
	limit   int // tokens
	count   int
	ids     []int32
	sent    int     // bytes of text
	pending []begun // tokens that no piece has yet
	pieces  chan pipeline.ChatPiece
	end     pipeline.ChatEnd
	err     error
}

// begun is a token and where it begins in the text.
type begun struct {
	at    int
	token pipeline.ChatToken
}

// Limits of a request.
const (
	maxStops      = 16
	maxStopString = 4096 // bytes
	maxTop        = 20
)

// checkAsked checks what a request says about its answer.
func checkAsked(r pipeline.ChatRequest) error {
	wrong := func(param, format string, a ...any) error {
		return &pipeline.ChatError{Param: param, Err: fmt.Errorf("%w %s: %s", pipeline.ErrInvalid, param, fmt.Sprintf(format, a...))}
	}
	if err := r.Sampling.Check(); err != nil {
		return &pipeline.ChatError{Err: err}
	}
	switch {
	case r.MaxTokens < 0:
		return wrong("max_tokens", "%d is negative", r.MaxTokens)
	case r.Top < 0 || r.Top > maxTop:
		return wrong("top_logprobs", "%d is not from 0 to %d", r.Top, maxTop)
	case len(r.Stop) > maxStops:
		return wrong("stop", "%d strings; this service takes up to %d", len(r.Stop), maxStops)
	}
	for _, s := range r.Stop {
		if s == "" || len(s) > maxStopString || !utf8.ValidString(s) {
			return wrong("stop", "a string of %d bytes; each has 1 to %d bytes of UTF-8", len(s), maxStopString)
		}
	}
	return nil
}

// newWriter makes the writer of an answer; begin comes next.
func (m *Model) newWriter(r pipeline.ChatRequest) (*writer, error) {
	if err := checkAsked(r); err != nil {
		return nil, err
	}
	w := &writer{tokenizer: m.prompt.tokenizer, ends: m.prompt.stops, language: cmp.Or(r.Language, m.task.language),
		sampler: newSampler(r.Sampling, m.bundle.Manifest.Decoder.Vocab), logprobs: r.Logprobs || r.Evidence, tops: r.Top,
		limit: cmp.Or(r.MaxTokens, m.bundle.Manifest.Generation.MaxNewTokens)}
	for _, s := range r.Stop {
		w.stops = append(w.stops, newStopString(s))
	}
	if r.Schema == nil {
		w.boxes = m.bundle.Manifest.Boxes.skipper(w.tokenizer)
	}
	if r.Sampling.RepetitionPenalty != 1 {
		w.raw = make([]float32, m.bundle.Manifest.Decoder.Vocab)
	}
	return w, m.constrain(w, r)
}

// begin starts an answer behind a prompt in a context of so many tokens.
func (w *writer) begin(ids []int32, context int) {
	w.limit = min(w.limit, context-len(ids))
	w.sampler.saw(ids...)
	w.pieces = make(chan pipeline.ChatPiece, w.limit+1) // so that the engine never waits for who reads
}

// constrain sets what may be written.
func (m *Model) constrain(w *writer, r pipeline.ChatRequest) error {
	var err error
	if w.language, err = m.bundle.Manifest.Language(w.language); err != nil {
		return &pipeline.ChatError{Param: "language", Err: err}
	}
	g, err := m.guardFor(w.language)
	if err != nil {
		return err
	}
	w.scripts = g.Scripts()
	if r.Schema == nil {
		w.constraint = g.Follow()
		return nil
	}
	form, err := m.grammarOf(w.language, w.scripts, r.Schema)
	if err != nil {
		return &pipeline.ChatError{Param: "response_format", Err: err}
	}
	w.constraint = guard.All{g.Follow(), form.Follow()}
	return nil
}

// choose chooses the next token. The probability is the model's own, over all tokens.
func (w *writer) choose(logits []float32) (int32, float64, error) {
	best, p, err := greedy(logits)
	if err != nil {
		return 0, 0, err
	}
	all := float64(logits[best]) - p // log sum exp
	if err := w.constraint.Mask(logits); err != nil {
		return 0, 0, err
	}
	w.top = w.likeliest(logits, all)
	before := logits
	if w.raw != nil {
		copy(w.raw, logits)
		before = w.raw[:len(logits)]
	}
	id, err := w.sampler.next(logits)
	if err != nil {
		return 0, 0, err
	}
	if err := w.constraint.Accept(id); err != nil {
		return 0, 0, fmt.Errorf("%w: it chose a token that its language or form does not allow", pipeline.ErrModel)
	}
	w.sampler.saw(id)
	return id, float64(before[id]) - all, nil
}

// likeliest lists the tops likeliest tokens that may come.
func (w *writer) likeliest(logits []float32, all float64) []pipeline.ChatToken {
	if w.tops == 0 {
		return nil
	}
	floor := w.sampler.largest(logits, min(w.tops, len(logits)))
	var ids []int32
	for i, v := range logits {
		if v >= floor && !math.IsInf(float64(v), -1) {
			ids = append(ids, int32(i))
		}
	}
	slices.SortStableFunc(ids, func(a, b int32) int { return cmp.Compare(logits[b], logits[a]) })
	var list []pipeline.ChatToken
	for _, id := range ids[:min(len(ids), w.tops)] {
		list = append(list, pipeline.ChatToken{Text: w.tokenizer.TokenBytes(id), Logprob: float64(logits[id]) - all})
	}
	return list
}

// take adds a token to the answer and lets go what may leave of it.
func (w *writer) take(id int32, logprob float64) (more bool) {
	if w.ends[id] {
		return w.finish(pipeline.EndStop, len(w.text))
	}
	w.count++
	w.ids = append(w.ids, id)
	spelled := w.boxes.spell(id, w.tokenizer.TokenBytes(id))
	if w.logprobs {
		w.pending = append(w.pending, begun{len(w.text), pipeline.ChatToken{Text: spelled, Logprob: logprob, Top: w.top}})
	}
	for _, b := range spelled {
		w.text = append(w.text, b)
		stop := 0
		for i := range w.stops {
			if s := &w.stops[i]; s.read(b) {
				stop = max(stop, len(s.text))
			}
		}
		if stop > 0 {
			return w.finish(pipeline.EndStop, len(w.text)-stop)
		}
	}
	if w.count == w.limit {
		return w.finish(pipeline.EndLength, len(w.text))
	}
	free := len(w.text)
	for i := range w.stops {
		free = min(free, len(w.text)-w.stops[i].at)
	}
	return w.send(whole(w.text[:free]))
}

// finish ends the text at a byte, or before a character that is not whole.
func (w *writer) finish(end pipeline.ChatEnd, at int) bool {
	w.end = end
	w.send(whole(w.text[:at]))
	return false
}

// send lets go the text up to a byte, with the tokens that begin before it. White space that an answer begins with is no part of it: templates
// have their own there, and the next turn would have both.
func (w *writer) send(to int) bool {
	if w.sent == 0 {
		w.sent = to - len(bytes.TrimLeft(w.text[:to], " \t\r\n"))
	}
	if to <= w.sent {
		return true
	}
	piece := pipeline.ChatPiece{Text: string(w.text[w.sent:to])}
	for len(w.pending) > 0 && w.pending[0].at < to {
		piece.Tokens = append(piece.Tokens, w.pending[0].token)
		w.pending = w.pending[1:]
	}
	if w.err = w.scripts.Check(piece.Text); w.err != nil { // the guard makes it impossible; this is what would tell
		return false
	}
	w.sent = to
	w.pieces <- piece
	return true
}

// whole is the length of a text without a character at its end that is not whole.
func whole(text []byte) int {
	for back := 1; back < utf8.UTFMax && back <= len(text); back++ {
		if last := text[len(text)-back:]; utf8.RuneStart(last[0]) {
			if !utf8.FullRune(last) {
				return len(text) - back
			}
			break
		}
	}
	return len(text)
}

// stopString reads a text byte by byte and knows how much of its end is the beginning of a string (Knuth, Morris and Pratt).
type stopString struct {
	text string
	fall []int // by how much has been read of text: how much stays when the next byte is another one
	at   int   // how much of text the last bytes are
}

func newStopString(s string) stopString {
	fall := make([]int, len(s)+1)
	for i, k := 1, 0; i < len(s); i++ {
		for k > 0 && s[i] != s[k] {
			k = fall[k]
		}
		if s[i] == s[k] {
			k++
		}
		fall[i+1] = k
	}
	return stopString{text: s, fall: fall}
}

// read takes a byte and says whether it completes the string.
func (s *stopString) read(b byte) bool {
	for s.at > 0 && s.text[s.at] != b {
		s.at = s.fall[s.at]
	}
	if s.text[s.at] == b {
		s.at++
	}
	return s.at == len(s.text)
}
