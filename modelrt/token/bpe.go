package token

import "unicode/utf8"

// bpe joins pairs of symbols, the pair of the lowest rank first, as Hugging Face tokenizers runs it. Its symbols are bytes where
// byteLevel is set, else characters.
type bpe struct {
	merges       map[uint64]merge // by pairKey
	byteLevel    bool
	byteID       [256]int32 // of the byte: its letter (byteLevel) or its <0x..> token; -1: none
	runeID       map[rune]int32
	fallback     bool  // characters without a token become their bytes, where each of them has one
	unknown      int32 // -1: left out
	fuseUnknown  bool
	whole        map[string]int32 // ignore_merges: a piece that is a token is not taken apart; nil: no
	virtual      int32            // ids from here on are characters without a token, which may still be joined; 0: none
	virtualRunes []rune           // of those ids
	frozen       *prefix          // user-defined pieces of SentencePiece, which are one symbol and are never joined; nil: none
}

type merge struct{ rank, id int32 }

func pairKey(left, right int32) uint64 { return uint64(uint32(left))<<32 | uint64(uint32(right)) }

func (b *bpe) encode(s *scratch, text string, out []int32) []int32 {
	if id, ok := b.whole[text]; ok {
		return append(out, id)
	}
	m := &s.merger
	m.reset(b)
	if b.byteLevel {
		for i := range len(text) {
			m.add(b.byteID[text[i]])
		}
	} else {
		m.characters(text)
	}
	m.flush()
	return m.join(out)
}

// merger holds the scratch memory of one Encode. A word of n symbols costs O(n log n).
type merger struct {
	b       *bpe
	unknown bool // an unknown token is due
	ids     []int32
	prev    []int32
	next    []int32 // len(ids): none
	frozen  []int32 // positions, ascending
	heap    []candidate
}

// candidate is a pair that may be merged. It is stale where one of its halves has changed since.
type candidate struct {
	order uint64 // rank, then position
	key   uint64
}

func (c candidate) position() int32 { return int32(uint32(c.order)) }

func (m *merger) reset(b *bpe) {
	m.b, m.unknown = b, false
	m.ids, m.prev, m.next, m.heap, m.frozen = m.ids[:0], m.prev[:0], m.next[:0], m.heap[:0], m.frozen[:0]
}

// characters adds the symbols of a text whose symbols are characters.
func (m *merger) characters(text string) {
	b := m.b
	for text != "" {
		if b.frozen != nil {
			if n, id := b.frozen.longest(text); n > 0 {
				m.frozen = append(m.frozen, int32(len(m.ids)))
				m.push(id)
				text = text[n:]
				continue
			}
		}
		r, n := utf8.DecodeRuneInString(text)
		if id, ok := b.runeID[r]; ok {
			m.add(id)
		} else if !b.fallback || !m.bytes(text[:n]) {
			m.add(-1)
		}
		text = text[n:]
	}
}

// bytes adds a character as its bytes. Like Hugging Face's it lets an unknown token that is due wait.
func (m *merger) bytes(s string) bool {
	for i := range len(s) {
		if m.b.byteID[s[i]] < 0 {
			return false
		}
	}
	for i := range len(s) {
		m.push(m.b.byteID[s[i]])
	}
	return true
}

// add adds a symbol; -1 is one that has no token.
func (m *merger) add(id int32) {
	switch {
	case id >= 0:
		m.flush()
		m.push(id)
	case m.b.unknown >= 0:
		if !m.b.fuseUnknown {
			m.flush()
		}
		m.unknown = true
	}
}

func (m *merger) flush() {
	if m.unknown {
		m.push(m.b.unknown)
		m.unknown = false
	}
}

func (m *merger) push(id int32) {
	n := int32(len(m.ids))
	m.ids, m.prev, m.next = append(m.ids, id), append(m.prev, n-1), append(m.next, n+1)
}

// join merges what was added, the pair of the lowest rank first (the leftmost of equals) until none is left, and appends the ids.
func (m *merger) join(out []int32) []int32 {
	end := int32(len(m.ids))
	for i := range end - 1 {
		m.consider(i, i+1)
	}
	for len(m.heap) > 0 {
		c := m.pop()
		left := c.position()
		right := m.next[left]
		if m.ids[left] < 0 || right == end || pairKey(m.ids[left], m.ids[right]) != c.key {
			continue
		}
		m.ids[left], m.ids[right] = m.b.merges[c.key].id, -1 // -1: joined into the one before
		after := m.next[right]
		m.next[left] = after
		if after < end {
			m.prev[after] = left
			m.consider(left, after)
		}
		if before := m.prev[left]; before >= 0 {
			m.consider(before, left)
		}
	}
	for i := int32(0); i < end; i = m.next[i] {
		switch id := m.ids[i]; {
		case m.b.virtual == 0:
			out = append(out, id)
		case id >= m.b.virtual:
			out = m.spell(m.b.virtualRunes[id-m.b.virtual], out)
		case id != m.b.unknown || len(out) == 0 || out[len(out)-1] != id:
			out = append(out, id)
		}
	}
	return out
}

// spell appends a character without a token: its bytes, or the unknown token, of which there are no two in a row.
func (m *merger) spell(r rune, out []int32) []int32 {
	if m.b.fallback {
		for _, c := range []byte(string(r)) {
			out = append(out, m.b.byteID[c])
		}
	} else if n := len(out); n == 0 || out[n-1] != m.b.unknown {
		out = append(out, m.b.unknown)
	}
	return out
}

func (m *merger) consider(left, right int32) {
	key := pairKey(m.ids[left], m.ids[right])
	found, ok := m.b.merges[key]
	if !ok || len(m.frozen) > 0 && (m.isFrozen(left) || m.isFrozen(right)) {
		return
	}
	m.queue(candidate{uint64(found.rank)<<32 | uint64(left), key})
}

func (m *merger) isFrozen(at int32) bool {
	lo, hi := 0, len(m.frozen)
	for lo < hi {
		if mid := (lo + hi) / 2; m.frozen[mid] < at {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo < len(m.frozen) && m.frozen[lo] == at
}

func (m *merger) queue(c candidate) {
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
