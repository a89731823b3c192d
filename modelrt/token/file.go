package token

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"chatxray/pipeline"
)

// Limits of a tokenizer file. The largest vocabularies in use have about 260,000 tokens and files of 35 MB.
const (
	maxFile   = 128 << 20
	maxID     = 1 << 20
	maxToken  = 1 << 12 // bytes of one token
	maxMerges = 1 << 22
)

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: the bundle's manifest names this file; fetch the bundle again", pipeline.ErrNotFound)
	case err != nil:
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(raw) > maxFile {
		err = fmt.Errorf("%w: it has more than %d bytes", pipeline.ErrInvalid, maxFile)
	}
	return raw, err
}

func init() {
	for kind, what := range map[string]func(f *file, t *Tokenizer) bool{
		"byte_level_bpe": func(f *file, t *Tokenizer) bool { return f.model == "BPE" && t.model.(*bpe).byteLevel },
		"sentencepiece_bpe": func(f *file, t *Tokenizer) bool {
			return f.model == "BPE" && !t.model.(*bpe).byteLevel
		},
		"sentencepiece_unigram": func(f *file, _ *Tokenizer) bool { return f.model == "Unigram" },
		"wordpiece":             func(f *file, _ *Tokenizer) bool { return f.model == "WordPiece" },
	} {
		register(kind, func(raw []byte) (*Tokenizer, error) {
			var f file
			parse := f.parse
			if kind[:4] == "sent" && !startsObject(raw) {
				parse = f.parseSentencePiece
			}
			t, err := parse(raw)
			if err == nil && !what(&f, t) {
				err = fmt.Errorf("%w: it holds %s, which is not %s", pipeline.ErrInvalid, f.describe(t), kind)
			}
			if err != nil {
				return nil, err
			}
			return t, nil
		})
	}
}

func startsObject(raw []byte) bool {
	raw = bytes.TrimLeft(raw, " \t\r\n")
	return len(raw) > 0 && raw[0] == '{'
}

// file is what was read of a file.
type file struct{ model string } // the type of the model in Hugging Face's words

func (f *file) describe(t *Tokenizer) string {
	if b, ok := t.model.(*bpe); ok && b.byteLevel {
		return "a BPE model over bytes"
	}
	return "a model of type " + f.model
}

// tokenizerFile is tokenizer.json of Hugging Face tokenizers. Keys that are not here are errors: they may change ids.
type tokenizerFile struct {
	Version       string          `json:"version"`
	Truncation    json.RawMessage `json:"truncation"`
	Padding       json.RawMessage `json:"padding"`
	AddedTokens   []addedToken    `json:"added_tokens"`
	Normalizer    json.RawMessage `json:"normalizer"`
	PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
	PostProcessor json.RawMessage `json:"post_processor"`
	Decoder       json.RawMessage `json:"decoder"`
	Model         json.RawMessage `json:"model"`
}

// strict reads one JSON object whose keys are all known.
func strict(raw []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("%w: not a tokenizer.json as this version knows it: %w", pipeline.ErrInvalid, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("%w: something follows the JSON object", pipeline.ErrInvalid)
	}
	return nil
}

// parse reads tokenizer.json.
func (f *file) parse(raw []byte) (*Tokenizer, error) {
	var j tokenizerFile
	if err := strict(raw, &j); err != nil {
		return nil, err
	}
	if !isNull(j.Truncation) || !isNull(j.Padding) {
		return nil, fmt.Errorf("%w: truncation or padding is set", pipeline.ErrUnsupported)
	}
	t := &Tokenizer{}
	var err error
	if t.normalize, err = buildNormalizer(j.Normalizer, 0); err != nil {
		return nil, err
	}
	cut, err := buildCutter(j.PreTokenizer, 0)
	if err != nil {
		return nil, err
	}
	t.split = cut.steps
	var m modelFile
	if err := m.read(j.Model); err != nil {
		return nil, err
	}
	f.model = m.Type
	if err := t.index(m.names, j.AddedTokens); err != nil {
		return nil, err
	}
	if t.model, err = m.build(t, cut.byteLevel); err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	if t.before, t.after, err = t.postProcessor(j.PostProcessor, 0); err != nil {
		return nil, err
	}
	if t.decode, err = buildDecoder(j.Decoder, 0); err != nil {
		return nil, err
	}
	t.spell(j.AddedTokens)
	return t, nil
}

// index fills the maps between ids and spellings.
func (t *Tokenizer) index(names map[string]int32, added []addedToken) error {
	if len(names) == 0 {
		return fmt.Errorf("%w: the vocabulary is empty", pipeline.ErrInvalid)
	}
	t.ids = names
	for i := range added {
		a := &added[i]
		if id, known := t.ids[a.Content]; a.Content == "" || known && id != a.ID {
			return fmt.Errorf("%w: added token %d is empty or has another id in the vocabulary", pipeline.ErrInvalid, a.ID)
		}
		t.ids[a.Content] = a.ID
	}
	largest := int32(0)
	for name, id := range t.ids {
		if id < 0 || id >= maxID {
			return fmt.Errorf("%w: token id %d is outside 0 to %d", pipeline.ErrInvalid, id, maxID-1)
		}
		if name == "" || len(name) > maxToken {
			return fmt.Errorf("%w: the spelling of token %d has %d bytes, not 1 to %d", pipeline.ErrInvalid, id, len(name), maxToken)
		}
		largest = max(largest, id)
	}
	t.names = make([]string, largest+1)
	t.special = make([]bool, largest+1)
	for name, id := range t.ids {
		if t.names[id] != "" {
			return fmt.Errorf("%w: two tokens have the id %d", pipeline.ErrInvalid, id)
		}
		t.names[id] = name
	}
	var sets [2][]*addedToken
	var guarded []*addedToken
	for i := range added {
		a := &added[i]
		a.normal = a.Content
		set := 0
		if a.Normalized {
			set, a.normal = 1, t.normal(a.Content)
		}
		t.special[a.ID] = t.special[a.ID] || a.Special
		sets[set] = append(sets[set], a)
		for _, spelling := range []string{a.Content, a.normal} {
			if !blank(spelling) {
				guarded = append(guarded, &addedToken{normal: spelling})
			}
		}
	}
	t.added = [2]addedTokens{newAddedTokens(sets[0]), newAddedTokens(sets[1])}
	t.guarded = newAddedTokens(guarded)
	return nil
}

// spell fills what each token adds to a text.
func (t *Tokenizer) spell(added []addedToken) {
	t.bytes = make([][]byte, len(t.names))
	for id, name := range t.names {
		if name != "" && !t.special[id] {
			t.bytes[id] = t.decode.token(name)
		}
	}
	for _, a := range added {
		if !a.Special && t.decode.byteLevel {
			t.bytes[a.ID] = []byte(a.Content)
		}
	}
}

// withoutSpecial are the spellings that a model may give: special tokens only come out where a template spells them.
func (t *Tokenizer) withoutSpecial(names map[string]int32, but int32) map[string]int32 {
	kept := make(map[string]int32, len(names))
	for name, id := range names {
		if !t.special[id] || id == but {
			kept[name] = id
		}
	}
	return kept
}

// postProcessor returns the ids that come before and after those of a text.
func (t *Tokenizer) postProcessor(raw json.RawMessage, depth int) (before, after []int32, err error) {
	type around struct{ before, after []int32 }
	pair := func(raw []byte, c any, sep, cls *[]any) (around, error) {
		if err := strict(raw, c); err != nil {
			return around{}, err
		}
		var a around
		for _, x := range []struct {
			from *[]any
			to   *[]int32
		}{{cls, &a.before}, {sep, &a.after}} {
			if len(*x.from) != 2 {
				return a, fmt.Errorf("%w: sep or cls is not a token and its id", pipeline.ErrInvalid)
			}
			id, ok := (*x.from)[1].(float64)
			if !ok || id < 0 || id >= float64(len(t.names)) || id != float64(int32(id)) {
				return a, fmt.Errorf("%w: the id of sep or cls is not in the vocabulary", pipeline.ErrInvalid)
			}
			*x.to = []int32{int32(id)}
		}
		return a, nil
	}
	kinds := map[string]func([]byte, int) (around, error){
		"ByteLevel": func(raw []byte, _ int) (around, error) {
			var c byteLevelPart
			return around{}, strict(raw, &c)
		},
		"TemplateProcessing": func(raw []byte, _ int) (a around, err error) {
			a.before, a.after, err = t.template(raw)
			return a, err
		},
		"BertProcessing": func(raw []byte, _ int) (around, error) {
			var c struct {
				Type string `json:"type"`
				Sep  []any  `json:"sep"`
				Cls  []any  `json:"cls"`
			}
			return pair(raw, &c, &c.Sep, &c.Cls)
		},
		"RobertaProcessing": func(raw []byte, _ int) (around, error) {
			var c struct {
				Type           string `json:"type"`
				Sep            []any  `json:"sep"`
				Cls            []any  `json:"cls"`
				TrimOffsets    bool   `json:"trim_offsets"`
				AddPrefixSpace bool   `json:"add_prefix_space"`
			}
			return pair(raw, &c, &c.Sep, &c.Cls)
		},
		"Sequence": func(raw []byte, depth int) (a around, err error) {
			var c struct {
				Type       string            `json:"type"`
				Processors []json.RawMessage `json:"processors"`
			}
			if err := strict(raw, &c); err != nil {
				return a, err
			}
			if len(c.Processors) > maxComponents {
				return a, fmt.Errorf("%w: %d steps; the limit is %d", pipeline.ErrInvalid, len(c.Processors), maxComponents)
			}
			for _, r := range c.Processors {
				before, after, err := t.postProcessor(r, depth+1)
				if err != nil {
					return a, err
				}
				a.before, a.after = slices.Concat(before, a.before), slices.Concat(a.after, after)
			}
			return a, nil
		},
	}
	a, err := component("post_processor", raw, depth, kinds)
	return a.before, a.after, err
}

type templatePart struct {
	Special *struct {
		ID   string `json:"id"`
		Type int    `json:"type_id"`
	} `json:"SpecialToken"`
	Sequence *struct {
		ID   string `json:"id"`
		Type int    `json:"type_id"`
	} `json:"Sequence"`
}

func (t *Tokenizer) template(raw []byte) (before, after []int32, err error) {
	var c struct {
		Type    string         `json:"type"`
		Single  []templatePart `json:"single"`
		Pair    []templatePart `json:"pair"`
		Special map[string]struct {
			ID     string   `json:"id"`
			IDs    []int32  `json:"ids"`
			Tokens []string `json:"tokens"`
		} `json:"special_tokens"`
	}
	if err := strict(raw, &c); err != nil {
		return nil, nil, err
	}
	texts := 0
	into := &before
	for _, part := range c.Single {
		switch {
		case part.Sequence != nil && part.Special == nil:
			texts++
			into = &after
		case part.Special != nil && part.Sequence == nil && len(*into) < maxComponents:
			for _, id := range c.Special[part.Special.ID].IDs {
				if id < 0 || int(id) >= len(t.names) {
					return nil, nil, fmt.Errorf("%w: the id of %.40q is not in the vocabulary", pipeline.ErrInvalid, part.Special.ID)
				}
				*into = append(*into, id)
			}
		default:
			return nil, nil, fmt.Errorf("%w: a part of single", pipeline.ErrInvalid)
		}
	}
	if texts != 1 {
		return nil, nil, fmt.Errorf("%w: single holds the text %d times, not once", pipeline.ErrInvalid, texts)
	}
	return before, after, nil
}
