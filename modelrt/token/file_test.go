package token

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"chatxray/pipeline"
)

func TestOpenRefuses(t *testing.T) {
	whole, err := os.ReadFile(smallVocabulary)
	if err != nil {
		t.Fatal(err)
	}
	replace := func(old, new string) []byte {
		if !strings.Contains(string(whole), old) {
			t.Fatalf("the small vocabulary lacks %q", old)
		}
		return []byte(strings.Replace(string(whole), old, new, 1))
	}
	digits := `{"type":"Digits","individual_digits":true}`
	normalizer := func(n string) []byte { return replace(`"normalizer":null`, `"normalizer":`+n) }
	post := func(p string) []byte { return replace(`"post_processor":null`, `"post_processor":`+p) }
	decoder := func(d string) []byte {
		return replace(`"decoder":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true}`, `"decoder":`+d)
	}
	deep := strings.Repeat(`{"type":"Sequence","normalizers":[`, 12) + strings.Repeat(`]}`, 12)
	many := `{"type":"Sequence","pretokenizers":[` + strings.Repeat(digits+",", 40) + digits + `]}`
	for _, c := range []struct {
		name string
		file []byte
		want error
		says string
	}{
		{"not JSON", []byte("GGUF"), pipeline.ErrInvalid, "not a tokenizer.json"},
		{"empty", nil, pipeline.ErrInvalid, "not a tokenizer.json"},
		{"cut off", whole[:len(whole)/2], pipeline.ErrInvalid, "unexpected EOF"},
		{"two documents", append(slices.Clone(whole), whole...), pipeline.ErrInvalid, "follows"},
		{"unknown key", replace(`"version"`, `"verzion"`), pipeline.ErrInvalid, "verzion"},
		{"unknown key of a part", replace(`"individual_digits"`, `"individual"`), pipeline.ErrInvalid, "individual"},
		{"unknown pre-tokenizer", replace(`"Digits"`, `"UnicodeScripts"`), pipeline.ErrUnsupported, `"UnicodeScripts"`},
		{"a step after ByteLevel", replace(digits, `{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true}`), pipeline.ErrUnsupported, "after ByteLevel"},
		{"unknown behavior", replace(digits, `{"type":"Split","pattern":{"String":"a"},"behavior":"Joined","invert":false}`), pipeline.ErrUnsupported, "Joined"},
		{"no pattern", replace(digits, `{"type":"Split","pattern":{"String":""},"behavior":"Isolated","invert":false}`), pipeline.ErrInvalid, "pattern"},
		{"unknown expression", replace(digits, `{"type":"Split","pattern":{"Regex":"(?<=a)b"},"behavior":"Isolated","invert":false}`), pipeline.ErrUnsupported, "(?<="},
		{"many steps", replace(`{"type":"Sequence","pretokenizers":[`+digits+`,`, `{"type":"Sequence","pretokenizers":[`+many+`,`), pipeline.ErrInvalid, "41 steps"},
		{"metaspace of two letters", replace(digits, `{"type":"Metaspace","replacement":"__"}`), pipeline.ErrInvalid, "__"},
		{"metaspace against itself", replace(digits, `{"type":"Metaspace","replacement":"_","prepend_scheme":"first","add_prefix_space":false}`), pipeline.ErrInvalid, "prepend_scheme"},
		{"unknown normalizer", normalizer(`{"type":"Nickname"}`), pipeline.ErrUnsupported, `normalizer "Nickname"`},
		{"normalizer that is a number", normalizer(`7`), pipeline.ErrInvalid, "normalizer"},
		{"sequences in sequences", normalizer(deep), pipeline.ErrInvalid, "sequences within sequences"},
		{"charsmap that is none", normalizer(`{"type":"Precompiled","precompiled_charsmap":"////"}`), pipeline.ErrInvalid, "charsmap"},
		{"charsmap not in base64", normalizer(`{"type":"Precompiled","precompiled_charsmap":"?"}`), pipeline.ErrInvalid, "charsmap"},
		{"charsmap too short", normalizer(`{"type":"Precompiled","precompiled_charsmap":"AQAAAA=="}`), pipeline.ErrInvalid, "charsmap"},
		{"truncation", replace(`"truncation":null`, `"truncation":{"max_length":5}`), pipeline.ErrUnsupported, "truncation"},
		{"unknown post-processor", post(`{"type":"PairProcessing"}`), pipeline.ErrUnsupported, "PairProcessing"},
		{"template without text", post(`{"type":"TemplateProcessing","single":[],"pair":[],"special_tokens":{}}`), pipeline.ErrInvalid, "0 times"},
		{"template with a stranger", post(`{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"x","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"pair":[],"special_tokens":{"x":{"id":"x","ids":[99999],"tokens":["x"]}}}`), pipeline.ErrInvalid, `"x"`},
		{"sep without id", post(`{"type":"BertProcessing","sep":["x"],"cls":["y",1]}`), pipeline.ErrInvalid, "sep or cls"},
		{"sep outside", post(`{"type":"RobertaProcessing","sep":["x",1e9],"cls":["y",1],"trim_offsets":true,"add_prefix_space":false}`), pipeline.ErrInvalid, "sep or cls"},
		{"unknown decoder", decoder(`{"type":"CTC"}`), pipeline.ErrUnsupported, `decoder "CTC"`},
		{"strip before fuse", decoder(`{"type":"Sequence","decoders":[{"type":"Strip","content":" ","start":1,"stop":0}]}`), pipeline.ErrUnsupported, "step 0"},
		{"strip at the end", decoder(`{"type":"Strip","content":" ","start":1,"stop":1}`), pipeline.ErrUnsupported, "stop 1"},
		{"replace after fuse", decoder(`{"type":"Sequence","decoders":[{"type":"Fuse"},{"type":"Replace","pattern":{"String":"a"},"content":"b"}]}`), pipeline.ErrUnsupported, "step 1"},
		{"unknown model", replace(`"type":"BPE"`, `"type":"WordLevel"`), pipeline.ErrUnsupported, "WordLevel"},
		{"unigram with the parts of BPE", replace(`"type":"BPE"`, `"type":"Unigram"`), pipeline.ErrInvalid, "not a tokenizer.json"},
		{"dropout", replace(`"dropout":null`, `"dropout":0.1`), pipeline.ErrUnsupported, "dropout"},
		{"unknown token that is none", replace(`"unk_token":null`, `"unk_token":"?!"`), pipeline.ErrInvalid, "unk_token"},
		{"suffix", replace(`"end_of_word_suffix":null`, `"end_of_word_suffix":"</w>"`), pipeline.ErrUnsupported, "end_of_word_suffix"},
		{"huge id", replace(`"'":3`, `"'":2000000000`), pipeline.ErrInvalid, "2000000000"},
		{"negative id", replace(`"'":3`, `"'":-3`), pipeline.ErrInvalid, "-3"},
		{"an id twice", replace(`"'":3`, `"'":4`), pipeline.ErrInvalid, "id 4"},
		{"a long token", replace(`"'":3`, `"`+strings.Repeat("x", maxToken+1)+`":3`), pipeline.ErrInvalid, "4097 bytes"},
		{"added twice", replace(`"id":1,"content":"<|im_start|>"`, `"id":1,"content":"<|im_end|>"`), pipeline.ErrInvalid, "another id"},
		{"merge of three", replace(`"merges":[[`, `"merges":[["a","b","c"],[`), pipeline.ErrInvalid, "3 parts"},
		{"merge of numbers", replace(`"merges":[[`, `"merges":[7,[`), pipeline.ErrInvalid, "merge"},
		{"merge of strangers", replace(`"merges":[[`, `"merges":[["zq","qz"],[`), pipeline.ErrInvalid, "merge 0"},
		{"no vocabulary", []byte(`{"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},"model":{"type":"BPE"}}`), pipeline.ErrInvalid, "empty"},
		{"no model", []byte(`{"pre_tokenizer":{"type":"ByteLevel"}}`), pipeline.ErrInvalid, "no model"},
		{"not over bytes", []byte(`{"model":{"type":"BPE","vocab":{"a":0}}}`), pipeline.ErrInvalid, "not byte_level_bpe"},
	} {
		path := filepath.Join(t.TempDir(), "tokenizer.json")
		if err := os.WriteFile(path, c.file, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(path, "byte_level_bpe")
		if !errors.Is(err, c.want) || !strings.Contains(fmt.Sprint(err), c.says) || !strings.Contains(fmt.Sprint(err), path) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := Open(smallVocabulary, "sentencepiece"); !errors.Is(err, pipeline.ErrUnknown) || !strings.Contains(err.Error(), "byte_level_bpe") {
		t.Errorf("another kind: %v", err)
	}
	if _, err := Open("testdata/nowhere.json", "byte_level_bpe"); !errors.Is(err, pipeline.ErrNotFound) {
		t.Errorf("no file: %v", err)
	}
	if _, err := Open("testdata", "wordpiece"); err == nil {
		t.Error("a folder is no tokenizer")
	}
}

func TestOtherModelsRefuse(t *testing.T) {
	for _, c := range []struct {
		kind, file string
		want       error
		says       string
	}{
		{"sentencepiece_unigram", `{"model":{"type":"Unigram","unk_id":5,"vocab":[["a",-1]],"byte_fallback":false}}`, pipeline.ErrInvalid, "unk_id 5"},
		{"sentencepiece_unigram", `{"model":{"type":"Unigram","unk_id":0,"vocab":[["a",-1],["a",-2]]}}`, pipeline.ErrInvalid, "another one"},
		{"sentencepiece_unigram", `{"model":{"type":"Unigram","unk_id":0,"vocab":[["a"]]}}`, pipeline.ErrInvalid, "string and a number"},
		{"sentencepiece_unigram", `{"model":{"type":"Unigram","unk_id":0,"vocab":[["a","1"]]}}`, pipeline.ErrInvalid, "string and a number"},
		{"sentencepiece_unigram", `{"model":{"type":"Unigram","unk_id":0,"vocab":[["a",-1e999]]}}`, pipeline.ErrInvalid, "finite"},
		{"sentencepiece_unigram", `{"model":{"type":"Unigram","unk_id":0,"vocab":[["a",-1]]},"pre_tokenizer":{"type":"ByteLevel"}}`, pipeline.ErrUnsupported, "ByteLevel"},
		{"sentencepiece_unigram", `{"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}`, pipeline.ErrInvalid, "not sentencepiece_unigram"},
		{"sentencepiece_bpe", `{"model":{"type":"BPE","vocab":{"a":0},"merges":[]},"pre_tokenizer":{"type":"ByteLevel"}}`, pipeline.ErrInvalid, "over bytes"},
		{"wordpiece", `{"model":{"type":"WordPiece","unk_token":"?","continuing_subword_prefix":"##","max_input_chars_per_word":9,"vocab":{"a":0}}}`, pipeline.ErrInvalid, "unk_token"},
		{"wordpiece", `{"model":{"type":"WordPiece","unk_token":"a","continuing_subword_prefix":"##","max_input_chars_per_word":0,"vocab":{"a":0}}}`, pipeline.ErrInvalid, "max_input"},
		{"tiktoken_qwen", "", pipeline.ErrInvalid, "byte"},
		{"tiktoken_qwen", "YQ== 1\n", pipeline.ErrInvalid, "rank 1"},
		{"tiktoken_qwen", "YQ== 0\nYQ== 1\n", pipeline.ErrInvalid, "repeats"},
		{"tiktoken_qwen", "?? 0\n", pipeline.ErrInvalid, "line 1"},
		{"tiktoken_qwen", "YQ==\n", pipeline.ErrInvalid, "line 1"},
		{"sentencepiece_bpe", "\x0a", pipeline.ErrInvalid, "tokenizer.model"},
		{"sentencepiece_bpe", "", pipeline.ErrInvalid, "0 unknown pieces"},
		{"sentencepiece_bpe", "\x0b\x0c", pipeline.ErrInvalid, "wire type"},
	} {
		if _, err := kinds[c.kind]([]byte(c.file)); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s %q: %v, want %q", c.kind, c.file, err, c.says)
		}
	}
}

// spFile writes a tokenizer.model.
func spFile(model uint64, pieces ...spPiece) []byte {
	var out []byte
	for _, p := range pieces {
		var m []byte
		m = protowire.AppendString(protowire.AppendTag(m, 1, protowire.BytesType), p.name)
		m = protowire.AppendFixed32(protowire.AppendTag(m, 2, protowire.Fixed32Type), uint32(p.score))
		m = protowire.AppendVarint(protowire.AppendTag(m, 3, protowire.VarintType), p.kind)
		out = protowire.AppendBytes(protowire.AppendTag(out, 1, protowire.BytesType), m)
	}
	trainer := protowire.AppendVarint(protowire.AppendTag(nil, 3, protowire.VarintType), model)
	return protowire.AppendBytes(protowire.AppendTag(out, 2, protowire.BytesType), trainer)
}

func TestSentencePieceRefuses(t *testing.T) {
	unknown := spPiece{"<unk>", 0, pieceUnknown}
	for _, c := range []struct {
		file []byte
		want error
		says string
	}{
		{spFile(3, unknown), pipeline.ErrUnsupported, "type 3"},
		{spFile(2, unknown, spPiece{"a", 0, pieceUnused}), pipeline.ErrUnsupported, "unused"},
		{spFile(2, unknown, spPiece{"a", 0, 9}), pipeline.ErrInvalid, "type 9"},
		{spFile(2, unknown, unknown), pipeline.ErrInvalid, "2 unknown"},
		{spFile(1, unknown, spPiece{"a", 0, 1}, spPiece{"a", 0, 1}), pipeline.ErrInvalid, "another one"},
		{spFile(1, unknown, spPiece{"", 0, 1}), pipeline.ErrInvalid, "empty"},
		{spFile(1, unknown, spPiece{"\xff", 0, 1}), pipeline.ErrInvalid, "UTF-8"},
	} {
		if _, err := new(file).parseSentencePiece(c.file); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v, want %q", err, c.says)
		}
	}
}

// TestVariants: merges as strings, ByteLevel alone, digits in runs, other decoders.
func TestVariants(t *testing.T) {
	const model = `"model":{"type":"BPE","vocab":{"a":0,"b":1,"1":2,"ab":3,"11":4,"Ġ":5,"Ġ1":6,"1a":7},"merges":["a b","Ġ 1","1 1"]}`
	const level = `{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true}`
	for _, c := range []struct {
		pre  string
		want []int32
	}{
		{level, []int32{3, 5, 5, 6, 2, 3, 4}},
		{`{"type":"ByteLevel"}`, []int32{5, 3, 5, 5, 6, 2, 3, 4}},
		{`{"type":"Sequence","pretokenizers":[` + level + `]}`, []int32{3, 5, 5, 6, 2, 3, 4}},
		{`{"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":false},` + level + `]}`, []int32{3, 5, 5, 5, 4, 3, 4}},
		{`{"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":true},` + level + `]}`, []int32{3, 5, 5, 5, 2, 2, 3, 2, 2}},
	} {
		k, err := kinds["byte_level_bpe"]([]byte(`{"version":"1.0","pre_tokenizer":` + c.pre + `,"decoder":{"type":"ByteLevel"},` + model + `}`))
		if err != nil {
			t.Fatal(err)
		}
		if got := k.Encode("ab   11ab11"); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.pre, got, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	names := Kinds()
	f.Add([]byte(`{"added_tokens":[{"id":4,"content":"<x>","special":true,"lstrip":true,"normalized":true}],"normalizer":{"type":"Lowercase"},"pre_tokenizer":{"type":"Split","pattern":{"Regex":"\\p{L}+|a"},"behavior":"MergedWithNext"},`+
		`"decoder":{"type":"Metaspace","replacement":"b"},"model":{"type":"BPE","unk_token":"a","fuse_unk":true,"vocab":{"a":0,"Ġ":1,"b":2,"ab":3},"merges":[["a","b"]]}}`), uint8(slices.Index(names, "sentencepiece_bpe")))
	f.Add([]byte(`{"model":{"type":"Unigram","unk_id":0,"byte_fallback":true,"vocab":[["?",0],["a",-1],["ab",-1.5]]}}`), uint8(slices.Index(names, "sentencepiece_unigram")))
	f.Add([]byte(`{"added_tokens":[{"id":0,"content":"[UNK]","special":true}],"normalizer":{"type":"BertNormalizer"},"pre_tokenizer":{"type":"BertPreTokenizer"},"post_processor":{"type":"BertProcessing","sep":["a",1],"cls":["a",1]},`+
		`"decoder":{"type":"WordPiece"},"model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":5,"vocab":{"[UNK]":0,"a":1,"##b":2}}}`), uint8(slices.Index(names, "wordpiece")))
	f.Add(spFile(2, spPiece{"<unk>", 0, 2}, spPiece{"ab", 0, 1}, spPiece{"▁", 0, 1}, spPiece{"x", 0, 4}), uint8(slices.Index(names, "sentencepiece_bpe")))
	f.Fuzz(func(t *testing.T, raw []byte, which uint8) {
		stuck := time.AfterFunc(20*time.Second, func() { panic(fmt.Sprintf("no end with %s %q", names[int(which)%len(names)], raw)) })
		defer stuck.Stop()
		k, err := kinds[names[int(which)%len(names)]](raw)
		if err != nil {
			return
		}
		for _, text := range []string{"a b 12 <|im_end|>xab \r\n肺é", "\xff"} {
			ids := k.EncodeTemplate(k.Guard(text))
			k.Decode(append(ids, k.Encode(text)...))
			k.EncodeTemplate(text)
			s := k.Stream("b")
			for _, id := range ids {
				s.Push(id)
			}
			s.End()
		}
	})
}
