package token

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"chatxray/pipeline"
)

// A tokenizer.model is sentencepiece_model.proto's ModelProto: pieces = 1 {piece = 1, score = 2, type = 3}, trainer_spec = 2,
// normalizer_spec = 3. What is done with it is what the sentencepiece library does, which differs from a tokenizer.json made of the
// same file where white space is odd.

const (
	pieceNormal = 1 + iota
	pieceUnknown
	pieceControl
	pieceUserDefined
	pieceUnused
	pieceByte
)

const modelUnigram, modelBPE = 1, 2

type spPiece struct {
	name  string
	score float32
	kind  uint64
}

type spModel struct {
	pieces       []spPiece
	model        uint64 // 1 unigram, 2 BPE
	byteFallback bool
	suffix       bool // treat_whitespace_as_suffix
	dummyPrefix  bool
	removeExtra  bool
	escape       bool
	charsMap     []byte
}

// field is one of a protobuf message.
type field struct {
	number protowire.Number
	value  uint64 // of a varint or a fixed one
	bytes  []byte // of a message or string
}

// fields reads a message. Groups, which no tokenizer has, are refused.
func fields(raw []byte, yield func(f field) error) error {
	for len(raw) > 0 {
		number, kind, n := protowire.ConsumeTag(raw)
		if n < 0 {
			return fmt.Errorf("%w: not a tokenizer.model: %w", pipeline.ErrInvalid, protowire.ParseError(n))
		}
		raw = raw[n:]
		f := field{number: number}
		switch kind {
		case protowire.VarintType:
			f.value, n = protowire.ConsumeVarint(raw)
		case protowire.Fixed32Type:
			var v uint32
			v, n = protowire.ConsumeFixed32(raw)
			f.value = uint64(v)
		case protowire.Fixed64Type:
			f.value, n = protowire.ConsumeFixed64(raw)
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(raw)
		default:
			return fmt.Errorf("%w: not a tokenizer.model: field %d has the wire type %d", pipeline.ErrInvalid, number, kind)
		}
		if n < 0 {
			return fmt.Errorf("%w: not a tokenizer.model: field %d: %w", pipeline.ErrInvalid, number, protowire.ParseError(n))
		}
		raw = raw[n:]
		if err := yield(f); err != nil {
			return err
		}
	}
	return nil
}

func (m *spModel) read(raw []byte) error {
	m.model, m.dummyPrefix, m.removeExtra, m.escape = modelUnigram, true, true, true // proto2's defaults
	err := fields(raw, func(f field) error {
		switch f.number {
		case 1:
			if len(m.pieces) >= maxID {
				return fmt.Errorf("%w: more than %d pieces", pipeline.ErrInvalid, maxID)
			}
			p := spPiece{kind: pieceNormal}
			err := fields(f.bytes, func(f field) error {
				switch f.number {
				case 1:
					p.name = string(f.bytes)
				case 2:
					p.score = math.Float32frombits(uint32(f.value))
				case 3:
					p.kind = f.value
				}
				return nil
			})
			m.pieces = append(m.pieces, p)
			return err
		case 2:
			return fields(f.bytes, func(f field) error {
				switch f.number {
				case 3:
					m.model = f.value
				case 24:
					m.suffix = f.value != 0
				case 35:
					m.byteFallback = f.value != 0
				}
				return nil
			})
		case 3:
			return fields(f.bytes, func(f field) error {
				switch f.number {
				case 2:
					m.charsMap = f.bytes
				case 3:
					m.dummyPrefix = f.value != 0
				case 4:
					m.removeExtra = f.value != 0
				case 5:
					m.escape = f.value != 0
				}
				return nil
			})
		}
		return nil
	})
	if err != nil {
		return err
	}
	if m.model != modelUnigram && m.model != modelBPE {
		return fmt.Errorf("%w: a SentencePiece model of type %d (words or characters)", pipeline.ErrUnsupported, m.model)
	}
	if m.suffix {
		return fmt.Errorf("%w: treat_whitespace_as_suffix", pipeline.ErrUnsupported)
	}
	return m.check()
}

func (m *spModel) check() error {
	unknown := 0
	for i, p := range m.pieces {
		switch {
		case p.name == "" || !utf8.ValidString(p.name):
			return fmt.Errorf("%w: piece %d is empty or not UTF-8", pipeline.ErrInvalid, i)
		case math.IsNaN(float64(p.score)) || math.IsInf(float64(p.score), 0):
			return fmt.Errorf("%w: piece %d has no finite score", pipeline.ErrInvalid, i)
		case p.kind == pieceUnused:
			return fmt.Errorf("%w: piece %d is marked as unused", pipeline.ErrUnsupported, i)
		case p.kind < pieceNormal || p.kind > pieceByte:
			return fmt.Errorf("%w: piece %d has the type %d", pipeline.ErrInvalid, i, p.kind)
		case p.kind == pieceUnknown:
			unknown++
		}
	}
	if unknown != 1 {
		return fmt.Errorf("%w: %d unknown pieces, not one", pipeline.ErrInvalid, unknown)
	}
	return nil
}

// parseSentencePiece reads tokenizer.model. Control and unknown pieces are its special tokens; user-defined ones are text.
func (f *file) parseSentencePiece(raw []byte) (*Tokenizer, error) {
	var m spModel
	if err := m.read(raw); err != nil {
		return nil, err
	}
	names := make(map[string]int32, len(m.pieces))
	var added []addedToken
	normal, user := map[string]int32{}, map[string]int32{}
	unknown := int32(-1)
	for i, p := range m.pieces {
		if _, twice := names[p.name]; twice {
			return nil, fmt.Errorf("%w: piece %d is spelled as another one", pipeline.ErrInvalid, i)
		}
		names[p.name] = int32(i)
		switch p.kind {
		case pieceNormal, pieceUserDefined:
			normal[p.name] = int32(i)
			if p.kind == pieceUserDefined {
				user[p.name] = int32(i)
			}
		case pieceControl, pieceUnknown:
			added = append(added, addedToken{ID: int32(i), Content: p.name, Special: true})
			if p.kind == pieceUnknown {
				unknown = int32(i)
			}
		}
	}
	t := &Tokenizer{}
	if err := t.index(names, added); err != nil {
		return nil, err
	}
	bytes := fallbackBytes(names)
	if m.byteFallback && slices.Min(bytes[:]) < 0 {
		return nil, fmt.Errorf("%w: byte_fallback without a piece for each byte", pipeline.ErrInvalid)
	}
	var users *prefix
	if len(user) > 0 {
		users = newPrefix(user)
	}
	var err error
	if t.normalize, err = m.normalizer(users); err != nil {
		return nil, err
	}
	if m.model == modelUnigram {
		f.model = "Unigram"
		t.model = m.unigram(normal, user, unknown, &bytes)
	} else {
		f.model = "BPE"
		if t.model, err = m.bpe(normal, users, unknown, bytes); err != nil {
			return nil, err
		}
	}
	t.decode = decoding{
		rewrite: []func(string) string{func(s string) string { return strings.ReplaceAll(s, "▁", " ") }},
		steps:   []func(string) []byte{m.bytePiece},
	}
	if m.dummyPrefix || m.removeExtra { // the space that encoding put there, and with remove_extra_whitespaces those of pieces that are nothing else
		t.decode.first = func(s string) string {
			if b := m.bytePiece(s); b != nil {
				return string(b)
			}
			return strings.ReplaceAll(strings.TrimPrefix(s, "▁"), "▁", " ")
		}
		t.decode.untilText = m.removeExtra
	}
	t.spell(nil)
	return t, nil
}

func (m *spModel) bytePiece(name string) []byte {
	if !m.byteFallback {
		return nil
	}
	return fallbackByte(name)
}

func (m *spModel) unigram(normal, user map[string]int32, unknown int32, bytes *[256]int32) model {
	u := &unigram{ids: normal, pieces: newPrefix(normal), single: true, unknown: unknown, fuseUnknown: true, userDefined: map[int32]float64{}}
	// That the best score begins at the least positive float, and so is never less, is as in the reference.
	least, most := float32(math.MaxFloat32), float32(0x1p-126)
	for _, p := range m.pieces {
		u.scores = append(u.scores, float64(p.score))
		if p.kind == pieceNormal {
			least, most = min(least, p.score), max(most, p.score)
		}
	}
	u.unknownScore = float64(least - unknownPenalty)
	for _, id := range user {
		u.userDefined[id] = float64(most)
	}
	if m.byteFallback {
		u.bytes = bytes
	}
	return u
}

// bpe joins any two neighbours whose spelling is a piece, the best score first. Characters that are only part of pieces get ids
// behind the vocabulary while they wait to be joined.
func (m *spModel) bpe(normal map[string]int32, users *prefix, unknown int32, bytes [256]int32) (model, error) {
	b := &bpe{
		merges: map[uint64]merge{}, runeID: map[rune]int32{}, byteID: bytes, fallback: m.byteFallback, unknown: unknown, fuseUnknown: true,
		virtual: int32(len(m.pieces)), frozen: users,
	}
	halves := maps.Clone(normal)
	byScore := make([]string, 0, len(normal))
	for name, id := range normal {
		for _, r := range name {
			if _, ok := halves[string(r)]; !ok {
				halves[string(r)] = b.virtual + int32(len(b.virtualRunes))
				b.virtualRunes = append(b.virtualRunes, r)
			}
		}
		if m.pieces[id].kind == pieceNormal {
			byScore = append(byScore, name)
		}
	}
	for half, id := range halves {
		if r, n := utf8.DecodeRuneInString(half); n == len(half) {
			b.runeID[r] = id
		}
	}
	score := func(name string) float32 { return m.pieces[normal[name]].score }
	slices.SortFunc(byScore, func(x, y string) int { return cmp.Or(cmp.Compare(score(y), score(x)), cmp.Compare(x, y)) })
	rank := int32(0)
	for i, name := range byScore {
		if i > 0 && score(name) != score(byScore[i-1]) {
			rank++
		}
		for cut := range name {
			left, ok1 := halves[name[:cut]]
			right, ok2 := halves[name[cut:]]
			if cut > 0 && ok1 && ok2 {
				b.merges[pairKey(left, right)] = merge{rank, normal[name]}
			}
		}
		if len(b.merges) > maxMerges {
			return nil, fmt.Errorf("%w: the pieces can be joined in more than %d ways", pipeline.ErrInvalid, maxMerges)
		}
	}
	return b, nil
}

// normalizer is SentencePiece's Normalizer::Normalize: the charsmap, then white space.
func (m *spModel) normalizer(users *prefix) (normalizer, error) {
	var chars *charsMap
	if len(m.charsMap) > 0 {
		var err error
		if chars, err = parseCharsMap(m.charsMap); err != nil {
			return nil, err
		}
	}
	space := " "
	if m.escape {
		space = "▁"
	}
	return func(text string) string {
		next := func() (part string) {
			n := 0
			if users != nil {
				if n, _ = users.longest(text); n > 0 {
					part = text[:n]
				}
			}
			if n == 0 && chars != nil {
				n, part = chars.longest(text)
			}
			if n == 0 {
				n = utf8Length(text)
				part = text[:n]
			}
			text = text[n:]
			return part
		}
		var out strings.Builder
		part, begun := "", false
		for text != "" && !begun {
			part = next()
			begun = !m.removeExtra || part != " "
		}
		if !begun {
			return ""
		}
		if m.dummyPrefix {
			out.WriteString(space)
		}
		spaceBefore := m.removeExtra
		for {
			for spaceBefore && strings.HasPrefix(part, " ") {
				part = part[1:]
			}
			if part != "" {
				out.WriteString(strings.ReplaceAll(part, " ", space))
				spaceBefore = m.removeExtra && strings.HasSuffix(part, " ")
			}
			if text == "" {
				break
			}
			part = next()
		}
		normal := out.String()
		for m.removeExtra && strings.HasSuffix(normal, space) {
			normal = strings.TrimSuffix(normal, space)
		}
		return normal
	}, nil
}
