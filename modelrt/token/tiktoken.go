package token

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strconv"

	"chatxray/pipeline"
)

// qwen is the expression of Qwen's tokenization_qwen.py.
const qwen = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`

// A *.tiktoken file holds neither its expression nor its special tokens: each model that has one is a kind.
func init() {
	qwenTokens := []string{"<|endoftext|>", "<|im_start|>", "<|im_end|>"}
	for i := range 205 {
		qwenTokens = append(qwenTokens, fmt.Sprintf("<|extra_%d|>", i))
	}
	register("tiktoken_qwen", func(raw []byte) (*Tokenizer, error) { return parseTiktoken(raw, qwen, qwenTokens) })
	register("tiktoken_qwen_vl", func(raw []byte) (*Tokenizer, error) {
		return parseTiktoken(raw, qwen, append(qwenTokens[:len(qwenTokens):len(qwenTokens)],
			"<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>", "<img>", "</img>", "<imgpad>"))
	})
}

// parseTiktoken reads lines of a token in base64 and its rank, which is its id. The special tokens follow the last of them. Any two
// neighbours whose bytes together are a token are joined, the lowest rank first; a piece that is a token is not taken apart.
func parseTiktoken(raw []byte, pattern string, special []string) (*Tokenizer, error) {
	var tokens [][]byte
	ranks := map[string]int32{}
	for number, line := range bytes.Split(raw, []byte("\n")) {
		line = bytes.TrimRight(line, "\r")
		if len(line) == 0 {
			continue
		}
		coded, rank, _ := bytes.Cut(line, []byte(" "))
		token, err := base64.StdEncoding.DecodeString(string(coded))
		n, err2 := strconv.Atoi(string(rank))
		switch {
		case err != nil || err2 != nil || len(token) == 0 || len(token) > maxToken:
			return nil, fmt.Errorf("%w: line %d is not a token in base64 and its rank", pipeline.ErrInvalid, number+1)
		case n != len(tokens):
			return nil, fmt.Errorf("%w: line %d has the rank %d; the ranks must be 0, 1, 2 and so on", pipeline.ErrInvalid, number+1, n)
		case n >= maxID:
			return nil, fmt.Errorf("%w: more than %d tokens", pipeline.ErrInvalid, maxID)
		}
		if _, twice := ranks[string(token)]; twice {
			return nil, fmt.Errorf("%w: line %d repeats a token", pipeline.ErrInvalid, number+1)
		}
		ranks[string(token)] = int32(n)
		tokens = append(tokens, token)
	}
	b := &bpe{byteLevel: true, unknown: -1, whole: ranks, merges: map[uint64]merge{}}
	for i := range b.byteID {
		id, ok := ranks[string([]byte{byte(i)})]
		if !ok {
			return nil, fmt.Errorf("%w: no token for the byte %#02x", pipeline.ErrInvalid, i)
		}
		b.byteID[i] = id
	}
	names := make(map[string]int32, len(tokens))
	for id, token := range tokens {
		names[letters(token)] = int32(id)
		for cut := 1; cut < len(token); cut++ {
			left, ok1 := ranks[string(token[:cut])]
			right, ok2 := ranks[string(token[cut:])]
			if ok1 && ok2 {
				b.merges[pairKey(left, right)] = merge{int32(id), int32(id)}
			}
		}
		if len(b.merges) > maxMerges {
			return nil, fmt.Errorf("%w: the tokens can be joined in more than %d ways", pipeline.ErrInvalid, maxMerges)
		}
	}
	e, err := compile(pattern)
	if err != nil {
		return nil, err
	}
	t := &Tokenizer{split: []preTokenizer{splitBy(e.each, isolated)}, model: b, decode: decoding{byteLevel: true, steps: []func(string) []byte{byteLevelBytes}}}
	added := make([]addedToken, len(special))
	for i, s := range special {
		added[i] = addedToken{ID: int32(len(tokens) + i), Content: s, Special: true}
	}
	if err := t.index(names, added); err != nil {
		return nil, err
	}
	t.spell(added)
	return t, nil
}

// letters spells bytes in GPT-2's letters, as ID and tokenizer.json do.
func letters(token []byte) string {
	out := make([]rune, len(token))
	for i, b := range token {
		out[i] = byteRunes[b]
	}
	return string(out)
}
