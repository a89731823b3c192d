package token

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"chatxray/pipeline"
)

// decoding is what the decoder of a file comes to: what each token adds to a text, and what is done to the beginning.
type decoding struct {
	rewrite   []func(token string) string
	steps     []func(token string) []byte // after rewrite; the first result that is not nil counts
	first     func(token string) string   // the first token of a text, instead of all this; nil: as any other
	untilText bool                        // a token counts as first until one has added text
	byteLevel bool
	fused     bool
	lead      int    // so many of leadText are taken off the beginning
	leadText  string // one character
}

// token is the text of a token that does not stand at the beginning.
func (d *decoding) token(name string) []byte {
	for _, r := range d.rewrite {
		name = r(name)
	}
	for _, s := range d.steps {
		if b := s(name); b != nil {
			return b
		}
	}
	return []byte(name)
}

// Decode joins the TokenBytes of ids, but for what the file's decoder does at the beginning of a text: it takes off the space that
// encoding put there. Bytes that are not UTF-8 in the end become U+FFFD, one for each.
func (t *Tokenizer) Decode(ids []int32) string {
	var out strings.Builder
	first := true
	for _, id := range ids {
		b := t.TokenBytes(id)
		if b == nil {
			continue
		}
		b = t.at(id, first)
		out.Write(b)
		first = first && t.decode.untilText && len(b) == 0
	}
	return wellFormed(t.decode.begin(out.String()))
}

// at is the text of a token that adds any, at the beginning of a text or further on.
func (t *Tokenizer) at(id int32, first bool) []byte {
	if first && t.decode.first != nil {
		return []byte(t.decode.first(t.names[id]))
	}
	return t.bytes[id]
}

// begin takes off what stands at the beginning of a text by rule.
func (d *decoding) begin(text string) string {
	for range d.lead {
		text = strings.TrimPrefix(text, d.leadText)
	}
	return text
}

// cleanUp is WordPiece's, which the reference does to each token by itself.
func cleanUp(s string) string {
	for _, c := range [...][2]string{
		{" .", "."}, {" ?", "?"}, {" !", "!"}, {" ,", ","}, {" ' ", "'"}, {" n't", "n't"}, {" 'm", "'m"}, {" do not", " don't"},
		{" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
	} {
		s = strings.ReplaceAll(s, c[0], c[1])
	}
	return s
}

// buildDecoder makes the decoder of tokenizer.json. Without one, tokens are joined by spaces.
func buildDecoder(raw json.RawMessage, depth int) (decoding, error) {
	if isNull(raw) {
		return decoding{rewrite: []func(string) string{func(s string) string { return " " + s }}, first: strings.Clone}, nil
	}
	return component("decoder", raw, depth, decoders)
}

var decoders map[string]func(raw []byte, depth int) (decoding, error)

func init() {
	decoders = map[string]func(raw []byte, depth int) (decoding, error){
		"ByteLevel": func(raw []byte, _ int) (decoding, error) {
			var c byteLevelPart
			return decoding{byteLevel: true, fused: true, steps: []func(string) []byte{byteLevelBytes}}, strict(raw, &c)
		},
		"ByteFallback": func(raw []byte, _ int) (decoding, error) {
			return decoding{steps: []func(string) []byte{fallbackByte}}, onlyType(raw)
		},
		"Fuse":      func(raw []byte, _ int) (decoding, error) { return decoding{fused: true}, onlyType(raw) },
		"Metaspace": metaspaceDecoder, "Replace": replaceDecoder, "Strip": stripDecoder, "Sequence": decoderSequence,
		"WordPiece": wordPieceDecoder,
	}
}

func onlyType(raw []byte) error {
	var c struct {
		Type string `json:"type"`
	}
	return strict(raw, &c)
}

func wordPieceDecoder(raw []byte, _ int) (decoding, error) {
	c := struct {
		Type    string `json:"type"`
		Prefix  string `json:"prefix"`
		Cleanup bool   `json:"cleanup"`
	}{Prefix: "##", Cleanup: true}
	if err := strict(raw, &c); err != nil {
		return decoding{}, err
	}
	clean := strings.Clone
	if c.Cleanup {
		clean = cleanUp
	}
	rest := func(s string) string {
		if r, ok := strings.CutPrefix(s, c.Prefix); ok {
			return clean(r)
		}
		return clean(" " + s)
	}
	return decoding{rewrite: []func(string) string{rest}, first: clean}, nil
}

func metaspaceDecoder(raw []byte, _ int) (decoding, error) {
	var c metaspace
	if err := strict(raw, &c); err != nil {
		return decoding{}, err
	}
	scheme, err := c.scheme()
	if err != nil {
		return decoding{}, err
	}
	d := decoding{rewrite: []func(string) string{func(s string) string { return strings.ReplaceAll(s, c.Replacement, " ") }}}
	if scheme != "never" {
		d.first = func(s string) string { return strings.ReplaceAll(s, c.Replacement, "") }
	}
	return d, nil
}

func replaceDecoder(raw []byte, _ int) (decoding, error) {
	replace, err := newReplace(raw, 0)
	return decoding{rewrite: []func(string) string{replace}}, err
}

// strip is kept as lead of a part that decoderSequence places.
func stripDecoder(raw []byte, _ int) (decoding, error) {
	var c struct {
		Type    string `json:"type"`
		Content string `json:"content"`
		Start   int    `json:"start"`
		Stop    int    `json:"stop"`
	}
	if err := strict(raw, &c); err != nil {
		return decoding{}, err
	}
	if c.Stop != 0 || c.Start < 0 || c.Start > 16 || utf8.RuneCountInString(c.Content) != 1 {
		return decoding{}, fmt.Errorf("%w: content %.20q, start %d, stop %d", pipeline.ErrUnsupported, c.Content, c.Start, c.Stop)
	}
	return decoding{lead: c.Start, leadText: c.Content}, nil
}

func decoderSequence(raw []byte, depth int) (decoding, error) {
	var c struct {
		Type     string            `json:"type"`
		Decoders []json.RawMessage `json:"decoders"`
	}
	if err := strict(raw, &c); err != nil {
		return decoding{}, err
	}
	if len(c.Decoders) > maxComponents {
		return decoding{}, fmt.Errorf("%w: %d steps; the limit is %d", pipeline.ErrInvalid, len(c.Decoders), maxComponents)
	}
	var d decoding
	for i, r := range c.Decoders {
		if isNull(r) {
			return d, fmt.Errorf("%w: a step that is null", pipeline.ErrInvalid)
		}
		next, err := buildDecoder(r, depth+1)
		if err != nil {
			return d, err
		}
		switch {
		case d.fused && len(next.steps)+len(next.rewrite) > 0, len(d.steps) > 0 && len(next.rewrite) > 0,
			next.first != nil && len(d.steps)+len(d.rewrite) > 0, d.first != nil && len(next.steps)+len(next.rewrite) > 0,
			next.lead > 0 && (d.lead > 0 || !d.fused):
			return d, fmt.Errorf("%w: step %d does not fit those before it", pipeline.ErrUnsupported, i)
		}
		d.steps, d.rewrite = append(d.steps, next.steps...), append(d.rewrite, next.rewrite...)
		d.fused, d.byteLevel = d.fused || next.fused, d.byteLevel || next.byteLevel
		if next.lead > 0 {
			d.lead, d.leadText = next.lead, next.leadText
		}
		if next.first != nil {
			d.first = next.first
		}
	}
	return d, nil
}

// fallbackByte reads <0x41>; nil: it is none.
func fallbackByte(token string) []byte {
	if len(token) != 6 || token[:3] != "<0x" || token[5] != '>' {
		return nil
	}
	n, err := strconv.ParseUint(token[3:5], 16, 8)
	if err != nil {
		return nil
	}
	return []byte{byte(n)}
}

// byteRunes are GPT-2's letters for the bytes: printable Latin-1 stands for itself, the other bytes are U+0100 onwards.
// runeBytes is the way back, plus one; 0: no byte.
var byteRunes, runeBytes = func() (runes [256]rune, back [256 + 256]uint16) {
	next := rune(256)
	for b := range runes {
		r := rune(b)
		if !(b >= '!' && b <= '~' || b >= 0xA1 && b <= 0xAC || b >= 0xAE) {
			r = next
			next++
		}
		runes[b], back[r] = r, uint16(b)+1
	}
	return runes, back
}()

// letterBytes reads a token in GPT-2's letters; ok is false where it has others.
func letterBytes(token string) (raw []byte, ok bool) {
	raw = make([]byte, 0, len(token))
	for _, r := range token {
		if int(r) >= len(runeBytes) || runeBytes[r] == 0 {
			return nil, false
		}
		raw = append(raw, byte(runeBytes[r]-1))
	}
	return raw, true
}

// byteLevelBytes is the text of a token: one with other letters stands for its own UTF-8, as in Hugging Face's decoder.
func byteLevelBytes(token string) []byte {
	if raw, ok := letterBytes(token); ok {
		return raw
	}
	return []byte(token)
}
