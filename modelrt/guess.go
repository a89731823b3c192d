package modelrt

// Prompt look-up: where the last tokens of a text stand earlier in it, or in its prompt, what follows there is fed along as a guess, and as much
// of it counts as the text then chooses itself. Tokens, their log-probabilities and what a sampler draws are those of a text without guesses, because each
// token is chosen as ever, from logits that do not depend on what is fed beside it. It pays in texts that follow a form: it quotes the report,
// and one entry looks like another. In reports and free answers guesses are wrong too often to pay (bench/RESULTS.md), and none are made.
// (Saxena, "Prompt Lookup Decoding", 2023; Yang and others, "Inference with Reference", arXiv 2304.04487.)

const (
	// maxWide is how many tokens a step has with guesses: the weights are read once for all of them, and up to eight are not yet bound by arithmetic.
	maxWide = 8
	// guessAfter is how many tokens must be known to guess the next.
	guessAfter = 3
	// maxRest is for how many tokens a text at most is left without guesses that was guessed wrong.
	maxRest = 64
)

// wideOf is engine.wide for a decoder: none is guessed for one whose logits depend on what is fed beside a token.
func wideOf(d decoder) int {
	if _, ok := d.(*flat); ok {
		return maxWide
	}
	return 0
}

// guesser is what a text knows of itself to guess from. The zero value has not begun.
type guesser struct {
	said  []int32 // prompt and answer
	next  []int32 // guessed to come behind the last token, fed beside it
	came  int     // how many of them did
	wrong bool    // the text went another way, or ended
	reach int     // how many tokens are guessed at once; 0: never any
	rest  int     // steps until the next guess
	miss  int     // what rest was after the last wrong one
	saved int     // tokens that cost no step of their own
}

// begin takes up the prompt of a text.
func (g *guesser) begin(t *text, capacity int) {
	g.said, g.next, g.reach = make([]int32, len(t.keys), capacity+1), make([]int32, 0, maxWide), 1
	for i, k := range t.keys {
		g.said[i] = int32(k)
		if t.places != nil {
			g.said[i] = t.places.ids[i]
		}
	}
}

// say notes a token that was chosen.
func (g *guesser) say(id int32) {
	if g.reach > 0 {
		g.said = append(g.said, id)
	}
}

// right hears that last was chosen where the guess i, of which those before have come, was fed; it tells whether that came.
func (g *guesser) right(i int, last int32) bool {
	if g.wrong = g.wrong || last != g.next[i]; g.wrong {
		return false
	}
	g.came++
	g.saved++
	return true
}

// guess looks for what comes behind the last token, at most most tokens of it.
func (g *guesser) guess(most int) {
	g.learn()
	g.next, g.came, g.wrong = g.next[:0], 0, false
	if g.rest > 0 {
		g.rest--
		return
	}
	n := len(g.said)
	most = min(most, g.reach)
	if n <= guessAfter || most < 1 {
		return
	}
	last := g.said[n-guessAfter:]
	for i := n - 1; i >= guessAfter; i-- { // from the end: what was said just now is nearer
		if g.said[i-1] == last[2] && g.said[i-2] == last[1] && g.said[i-3] == last[0] {
			g.next = append(g.next, g.said[i:min(i+most, n)]...)
			return
		}
	}
}

// learn makes the next guess longer or shorter by what came of the last one.
func (g *guesser) learn() {
	switch {
	case len(g.next) == 0:
	case g.came == 0:
		g.miss = min(max(1, 2*g.miss), maxRest)
		g.reach, g.rest = max(1, g.reach/2), g.miss
	case g.came == len(g.next):
		g.reach, g.miss = min(2*g.reach, maxWide-1), 0
	default:
		g.reach, g.miss = max(1, g.came), 0
	}
}
