package token

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/rivo/uniseg"

	"chatxray/pipeline"
)

// charsMap is SentencePiece's precompiled_charsmap: a double-array trie (Darts-clone) from byte strings to places in a list of texts,
// each ended by a zero byte.
type charsMap struct {
	units []uint32
	texts string
}

const maxCharsMap = 8 << 20

func parseCharsMap(raw []byte) (*charsMap, error) {
	if len(raw) < 4 || len(raw) > maxCharsMap {
		return nil, fmt.Errorf("%w: a charsmap of %d bytes", pipeline.ErrInvalid, len(raw))
	}
	size := binary.LittleEndian.Uint32(raw)
	if uint64(size) > uint64(len(raw)-4) || size%4 != 0 || size == 0 {
		return nil, fmt.Errorf("%w: a charsmap whose trie has %d bytes of %d", pipeline.ErrInvalid, size, len(raw)-4)
	}
	c := &charsMap{units: make([]uint32, size/4), texts: string(raw[4+size:])}
	for i := range c.units {
		c.units[i] = binary.LittleEndian.Uint32(raw[4+4*i:])
	}
	if !utf8.ValidString(c.texts) {
		return nil, fmt.Errorf("%w: a charsmap whose texts are not UTF-8", pipeline.ErrInvalid)
	}
	return c, nil
}

// each calls yield for the keys with which s begins, the shortest first, until it returns false.
func (c *charsMap) each(s string, yield func(length int, value uint32) bool) {
	at, ok := c.child(0, 0)
	for i := 0; ok && i < len(s) && s[i] != 0; i++ {
		at ^= uint32(s[i])
		if at >= uint32(len(c.units)) {
			return
		}
		unit := c.units[at]
		if unit&(1<<31|0xFF) != uint32(s[i]) {
			return
		}
		if at, ok = c.child(at, unit); !ok {
			return
		}
		if unit>>8&1 != 0 && !yield(i+1, c.units[at]&^(1<<31)) {
			return
		}
	}
}

// child is where the children of a unit are.
func (c *charsMap) child(at, unit uint32) (uint32, bool) {
	if at == 0 && unit == 0 {
		unit = c.units[0]
	}
	at ^= unit >> 10 << (unit & (1 << 9) >> 6)
	return at, at < uint32(len(c.units))
}

func (c *charsMap) text(value uint32) (string, bool) {
	if value >= uint32(len(c.texts)) {
		return "", false
	}
	s, _, _ := strings.Cut(c.texts[value:], "\x00")
	return s, true
}

// shortest returns what replaces s: that of the shortest key with which it begins, however long s is.
func (c *charsMap) shortest(s string) (text string, ok bool) {
	c.each(s, func(_ int, value uint32) bool {
		text, ok = c.text(value)
		return false
	})
	return text, ok
}

// longest returns the longest key with which s begins, and what replaces it; a length of 0 is none.
func (c *charsMap) longest(s string) (length int, text string) {
	c.each(s, func(n int, value uint32) bool {
		if t, ok := c.text(value); ok {
			length, text = n, t
		}
		return true
	})
	return length, text
}

// newPrecompiled is Hugging Face's reading of a charsmap, which is not quite SentencePiece's: a cluster of characters of under six bytes
// is replaced as one, by what its shortest key gives; of a longer one, each character by itself.
func newPrecompiled(raw []byte, _ int) (normalizer, error) {
	var c struct {
		Type string  `json:"type"`
		Map  *string `json:"precompiled_charsmap"`
	}
	if err := strict(raw, &c); err != nil {
		return nil, err
	}
	if c.Map == nil {
		return nil, fmt.Errorf("%w: no precompiled_charsmap", pipeline.ErrInvalid)
	}
	packed, err := base64.StdEncoding.DecodeString(*c.Map)
	if err != nil {
		return nil, fmt.Errorf("%w: precompiled_charsmap: %w", pipeline.ErrInvalid, err)
	}
	m, err := parseCharsMap(packed)
	if err != nil {
		return nil, err
	}
	return m.clusters, nil
}

// knownMark gives marks that uniseg's edition of Unicode does not know the place of one that it knows, of the same length.
func knownMark(r rune) rune {
	if r < 0x897 || !unicode.Is(onigurumaMore["M"], r) {
		return r
	}
	if r < 0x10000 {
		return 0x20D0
	}
	return 0x1E8D0
}

func (c *charsMap) clusters(s string) string {
	var out strings.Builder
	known := strings.Map(knownMark, s)
	for state := -1; s != ""; {
		var cluster string
		cluster, known, _, state = uniseg.FirstGraphemeClusterInString(known, state)
		cluster, s = s[:len(cluster)], s[len(cluster):]
		if len(cluster) < 6 {
			if text, ok := c.shortest(cluster); ok {
				out.WriteString(text)
				continue
			}
		}
		for i, r := range cluster {
			one := cluster[i : i+utf8.RuneLen(r)]
			if text, ok := c.shortest(one); ok {
				one = text
			}
			out.WriteString(one)
		}
	}
	return out.String()
}
