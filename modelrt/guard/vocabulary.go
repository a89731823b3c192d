package guard

import (
	"bytes"
	"fmt"
	"math"
	"math/bits"
	"slices"

	"chatxray/pipeline"
)

// The limits of a vocabulary. They are far beyond any model's.
const (
	maxWidth = 1 << 20
	maxToken = 1 << 12 // bytes
)

// Vocabulary is what the tokens of a model spell. It never changes: safe for concurrent use.
type Vocabulary struct {
	text    [][]byte // by id; empty: no text
	width   int      // of the logits
	nodes   []node   // a trie of all texts, in preorder
	same    []int32  // by id: the next token that spells the same, -1 for none
	silent  Mask     // tokens without text
	stops   Mask     // tokens that end a text
	single  byteSet  // bytes that are a token by themselves
	longest int      // bytes of the longest token
}

// node is one byte of a trie. The nodes of its subtree follow it, up to end.
type node struct {
	end   int32
	id    int32 // the first token that ends here, -1 for none
	depth uint16
	b     byte
}

// NewVocabulary makes a vocabulary for logits of the given width. tokens gives by id what each token adds to a text, in bytes that
// may begin or end within a character; it is empty for special tokens. Ids from len(tokens) to width are padding of the model's matrix
// and never allowed. stops are the tokens that end a text; they add nothing to it, whatever tokens says. Nothing given is copied.
// Errors: ErrInvalid.
func NewVocabulary(tokens [][]byte, width int, stops []int32) (*Vocabulary, error) {
	if len(tokens) == 0 || width < len(tokens) || width > maxWidth {
		return nil, fmt.Errorf("%w vocabulary: %d tokens for logits of width %d", pipeline.ErrInvalid, len(tokens), width)
	}
	v := &Vocabulary{text: slices.Clone(tokens), width: width, silent: newMask(width), stops: newMask(width), same: make([]int32, len(tokens))}
	for _, id := range stops {
		if id < 0 || int(id) >= len(tokens) {
			return nil, fmt.Errorf("%w vocabulary: the stop token %d is none of %d tokens", pipeline.ErrInvalid, id, len(tokens))
		}
		v.stops.add(id)
		v.text[id] = nil
	}
	order := make([]int32, 0, len(tokens))
	for i, t := range v.text {
		id := int32(i)
		v.same[id] = -1
		if len(t) == 0 {
			v.silent.add(id)
			continue
		}
		if len(t) > maxToken {
			return nil, fmt.Errorf("%w vocabulary: token %d has %d bytes", pipeline.ErrInvalid, id, len(t))
		}
		if len(t) == 1 {
			v.single.add(t[0])
		}
		v.longest = max(v.longest, len(t))
		order = append(order, id)
	}
	slices.SortFunc(order, func(a, b int32) int {
		if c := bytes.Compare(v.text[a], v.text[b]); c != 0 {
			return c
		}
		return int(a - b)
	})
	v.grow(order)
	return v, nil
}

// grow makes the trie of tokens in the order of their texts.
func (v *Vocabulary) grow(order []int32) {
	var open []int32 // nodes from the root to the last token
	for i, id := range order {
		text := v.text[id]
		common := 0
		if i > 0 {
			before := v.text[order[i-1]]
			if bytes.Equal(before, text) {
				v.same[order[i-1]] = id
				continue
			}
			for common < len(before) && common < len(text) && before[common] == text[common] {
				common++
			}
		}
		for _, n := range open[common:] {
			v.nodes[n].end = int32(len(v.nodes))
		}
		open = open[:common]
		for d := common; d < len(text); d++ {
			open = append(open, int32(len(v.nodes)))
			v.nodes = append(v.nodes, node{id: -1, depth: uint16(d), b: text[d]})
		}
		v.nodes[len(v.nodes)-1].id = id
	}
	for _, n := range open {
		v.nodes[n].end = int32(len(v.nodes))
	}
}

// Width is the number of logits.
func (v *Vocabulary) Width() int { return v.width }

// token returns the text of id; ok is false where there is no such token.
func (v *Vocabulary) token(id int32) (text []byte, ok bool) {
	if id < 0 || int(id) >= len(v.text) {
		return nil, false
	}
	return v.text[id], true
}

// addAll adds id and every token that spells the same.
func (v *Vocabulary) addAll(m Mask, id int32) {
	for ; id >= 0; id = v.same[id] {
		m.add(id)
	}
}

// Mask is a set of allowed tokens: one bit for each id.
type Mask []uint64

func newMask(width int) Mask { return make(Mask, (width+63)/64) }

func (m Mask) add(id int32)      { m[id>>6] |= 1 << (id & 63) }
func (m Mask) has(id int32) bool { return id >= 0 && int(id>>6) < len(m) && m[id>>6]>>(id&63)&1 == 1 }

// or adds the tokens of another mask of the same width.
func (m Mask) or(other Mask) {
	for i, w := range other {
		m[i] |= w
	}
}

// count is the number of allowed tokens.
func (m Mask) count() (n int) {
	for _, w := range m {
		n += bits.OnesCount64(w)
	}
	return n
}

var never = float32(math.Inf(-1))

// apply sets the logits of all tokens that are not in the set to -Inf.
func (m Mask) apply(logits []float32) {
	for w, word := range m {
		if word == ^uint64(0) {
			continue
		}
		at := w << 6
		if at >= len(logits) {
			return
		}
		part := logits[at:min(at+64, len(logits))]
		if word == 0 {
			for i := range part {
				part[i] = never
			}
			continue
		}
		for zeros := ^word; zeros != 0; zeros &= zeros - 1 {
			if i := bits.TrailingZeros64(zeros); i < len(part) {
				part[i] = never
			}
		}
	}
	for i := len(m) << 6; i < len(logits); i++ {
		logits[i] = never
	}
}

// byteSet is a set of bytes.
type byteSet [4]uint64

func (s *byteSet) add(b byte)      { s[b>>6] |= 1 << (b & 63) }
func (s *byteSet) has(b byte) bool { return s[b>>6]>>(b&63)&1 == 1 }

func (s *byteSet) meets(o *byteSet) bool {
	return s[0]&o[0]|s[1]&o[1]|s[2]&o[2]|s[3]&o[3] != 0
}
