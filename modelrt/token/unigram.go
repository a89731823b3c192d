package token

import (
	"slices"
	"unicode/utf8"
)

// unigram takes the likeliest path through the lattice of its pieces. Scores are float64 for tokenizer.json, as in Hugging
// Face tokenizers, and float32 for tokenizer.model, as in SentencePiece.
type unigram struct {
	pieces       *prefix
	scores       []float64
	ids          map[string]int32 // of the pieces
	single       bool             // float32
	unknown      int32            // -1: none
	unknownScore float64
	fuseUnknown  bool
	bytes        *[256]int32 // byte fallback; nil: none
	userDefined  map[int32]float64
}

// arc is the best way to a place in a text.
type arc struct {
	score float64
	from  int32 // -1: no way yet
	id    int32
}

func (u *unigram) encode(s *scratch, text string, out []int32) []int32 {
	s.lattice = slices.Grow(s.lattice[:0], len(text)+1)[:len(text)+1]
	best := s.lattice
	for i := range best {
		best[i] = arc{from: -1}
	}
	for at := 0; at < len(text); {
		_, size := utf8.DecodeRuneInString(text[at:])
		here, covered := best[at].score, false
		u.pieces.each(text[at:], func(n int, id int32) {
			u.offer(best, at, at+n, here, u.score(id, n), id)
			covered = covered || n == size
		})
		if !covered {
			u.offer(best, at, at+size, here, u.unknownScore, u.unknown)
		}
		at += size
	}
	first := len(out)
	for end := int32(len(text)); end > 0; {
		a := best[end]
		from := a.from
		for u.fuseUnknown && a.id == u.unknown && from > 0 && best[from].id == u.unknown {
			from = best[from].from
		}
		out = u.write(text[from:end], a.id, out)
		end = from
	}
	slices.Reverse(out[first:])
	return out
}

func (u *unigram) score(id int32, length int) float64 {
	if most, ok := u.userDefined[id]; ok {
		return float64(float32(length)*float32(most)) - 0.1
	}
	return u.scores[id]
}

// offer is a way to a place. SentencePiece (to 0.2.1) compares the sum as double and keeps it as float, but for the unknown score: it
// matters where two ways are equally likely, and 0.2.3 does otherwise there.
func (u *unigram) offer(best []arc, from, to int, here, score float64, id int32) {
	total := here + score
	if u.single && id == u.unknown {
		total = float64(float32(total))
	}
	if a := &best[to]; a.from < 0 || total > a.score {
		if u.single {
			total = float64(float32(total))
		}
		*a = arc{total, int32(from), id}
	}
}

// write appends the ids of one piece, the last first.
func (u *unigram) write(piece string, id int32, out []int32) []int32 {
	if id != u.unknown {
		return append(out, id)
	}
	if known, ok := u.ids[piece]; ok && !u.single {
		return append(out, known)
	}
	if u.bytes != nil {
		if i := slices.IndexFunc([]byte(piece), func(b byte) bool { return u.bytes[b] < 0 }); i < 0 {
			for i := len(piece) - 1; i >= 0; i-- {
				out = append(out, u.bytes[piece[i]])
			}
			return out
		}
	}
	if u.unknown >= 0 {
		out = append(out, u.unknown)
	}
	return out
}
