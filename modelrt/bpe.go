package modelrt

import (
	"strings"
	"unicode/utf8"
)

// bpe is byte-level byte-pair encoding as GPT-2 defined it and Hugging Face tokenizers runs it.
type bpe struct {
	ids     map[string]int32 // every spelling, added tokens included
	bytes   [][]byte         // by id; nil for special tokens and unused ids
	byteID  [256]int32       // -1: the vocabulary lacks this byte
	merges  map[uint64]merge // by pairKey
	split   splitter
	added   [2]addedTokens // recognised in this order: those outside and those inside normalisation
	largest int32
}

type merge struct{ rank, id int32 }

func pairKey(left, right int32) uint64 { return uint64(uint32(left))<<32 | uint64(uint32(right)) }

func (t *bpe) Size() int { return int(t.largest) + 1 }

func (t *bpe) ID(token string) (int32, bool) {
	id, ok := t.ids[token]
	return id, ok
}

func (t *bpe) TokenBytes(id int32) []byte {
	if id < 0 || int(id) >= len(t.bytes) {
		return nil
	}
	return t.bytes[id]
}

func (t *bpe) Decode(ids []int32) string {
	var out strings.Builder
	for _, id := range ids {
		out.Write(t.TokenBytes(id))
	}
	return wellFormed(out.String())
}

func (t *bpe) Encode(text string) []int32 {
	var m merger
	return t.encode(&m, wellFormed(text), nil)
}

func (t *bpe) EncodeTemplate(text string) []int32 {
	var m merger
	return t.encodeAround(&m, wellFormed(text), t.added[:], nil)
}

// encodeAround cuts text at the tokens of the first set, and what lies between them at those of the next.
func (t *bpe) encodeAround(m *merger, text string, sets []addedTokens, out []int32) []int32 {
	if len(sets) == 0 {
		return t.encode(m, text, out)
	}
	for text != "" {
		at, token := sets[0].first(text)
		out = t.encodeAround(m, text[:at], sets[1:], out)
		if token == "" {
			break
		}
		out = append(out, t.ids[token])
		text = text[at+len(token):]
	}
	return out
}

func (t *bpe) encode(m *merger, text string, out []int32) []int32 {
	for text != "" {
		n := t.split.next(text)
		out = m.word(t, text[:n], out)
		text = text[n:]
	}
	return out
}

// wellFormed replaces each byte that belongs to no UTF-8 sequence by U+FFFD.
func wellFormed(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return string([]rune(s))
}

// addedTokens are spellings by their first byte, the longest first.
type addedTokens [256][]string

// first finds the leftmost token in text, the longest at its place; at is len(text) where there is none.
func (a *addedTokens) first(text string) (at int, token string) {
	for i := range len(text) {
		for _, s := range a[text[i]] {
			if strings.HasPrefix(text[i:], s) {
				return i, s
			}
		}
	}
	return len(text), ""
}

// merger holds the scratch memory of one Encode. A word of n bytes costs O(n log n).
type merger struct {
	ids  []int32 // -1: joined into the one before
	prev []int32
	next []int32 // len(ids): none
	heap []candidate
}

// candidate is a pair that may be merged. It is stale where one of its halves has changed since.
type candidate struct {
	order uint64 // rank, then position
	key   uint64
}

func (c candidate) position() int32 { return int32(uint32(c.order)) }

// word appends the ids of one piece of text: its bytes, with the pair of the lowest rank joined (the leftmost of equals) until none is left.
func (m *merger) word(t *bpe, s string, out []int32) []int32 {
	m.ids, m.prev, m.next, m.heap = m.ids[:0], m.prev[:0], m.next[:0], m.heap[:0]
	for i := range len(s) {
		if id := t.byteID[s[i]]; id >= 0 {
			n := int32(len(m.ids))
			m.ids, m.prev, m.next = append(m.ids, id), append(m.prev, n-1), append(m.next, n+1)
		}
	}
	end := int32(len(m.ids))
	for i := range end - 1 {
		m.consider(t, i, i+1)
	}
	for len(m.heap) > 0 {
		c := m.pop()
		left := c.position()
		right := m.next[left]
		if m.ids[left] < 0 || right == end || pairKey(m.ids[left], m.ids[right]) != c.key {
			continue
		}
		m.ids[left], m.ids[right] = t.merges[c.key].id, -1
		after := m.next[right]
		m.next[left] = after
		if after < end {
			m.prev[after] = left
			m.consider(t, left, after)
		}
		if before := m.prev[left]; before >= 0 {
			m.consider(t, before, left)
		}
	}
	for i := int32(0); i < end; i = m.next[i] {
		out = append(out, m.ids[i])
	}
	return out
}

func (m *merger) consider(t *bpe, left, right int32) {
	key := pairKey(m.ids[left], m.ids[right])
	if found, ok := t.merges[key]; ok {
		m.push(candidate{uint64(found.rank)<<32 | uint64(left), key})
	}
}

func (m *merger) push(c candidate) {
	m.heap = append(m.heap, c)
	i := len(m.heap) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if m.heap[parent].order <= c.order {
			break
		}
		m.heap[i] = m.heap[parent]
		i = parent
	}
	m.heap[i] = c
}

func (m *merger) pop() candidate {
	top, last := m.heap[0], m.heap[len(m.heap)-1]
	m.heap = m.heap[:len(m.heap)-1]
	if len(m.heap) == 0 {
		return top
	}
	i := 0
	for {
		child := 2*i + 1
		if child >= len(m.heap) {
			break
		}
		if child+1 < len(m.heap) && m.heap[child+1].order < m.heap[child].order {
			child++
		}
		if m.heap[child].order >= last.order {
			break
		}
		m.heap[i] = m.heap[child]
		i = child
	}
	m.heap[i] = last
	return top
}
