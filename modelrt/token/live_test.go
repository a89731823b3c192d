package token

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// answer is what testdata/oracle.py says of a line.
type answer struct {
	Plain    []int32 `json:"plain"`
	Template []int32 `json:"template"`
	Text     string  `json:"text"`
}

// askOracle runs testdata/oracle.py.
func askOracle(t *testing.T, dir, kind, file string, lines []string) []answer {
	t.Helper()
	cmd := exec.Command(filepath.Join(dir, "bin", "python"), "testdata/oracle.py", kind, file)
	cmd.Stdin = strings.NewReader(encodeLines(lines))
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("oracle.py %s %s: %v\n%s", kind, file, err, errs.Bytes())
	}
	var list []answer
	s := bufio.NewScanner(bytes.NewReader(out))
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		var a answer
		if err := json.Unmarshal(s.Bytes(), &a); err != nil {
			t.Fatal(err)
		}
		list = append(list, a)
	}
	if len(list) != len(lines) {
		t.Fatalf("oracle.py answered %d of %d lines", len(list), len(lines))
	}
	return list
}

// TestLive: the ids of real vocabularies, which are fetched and not committed, beside the software that they come with.
func TestLive(t *testing.T) {
	cmd := exec.Command("bash", "scripts/clients.sh", "tokenizers")
	cmd.Dir = filepath.Join("..", "..")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("no tokenizers of others (scripts/clients.sh tokenizers): %v\n%s", err, errs.Bytes())
	}
	dir := strings.TrimSpace(string(out))
	lines := makeLines(lineCount, lineSeed)
	for _, c := range []struct{ name, kind, file, oracle string }{
		{"GPT-2", "byte_level_bpe", "gpt2.json", "json"},
		{"Llama 3", "byte_level_bpe", "llama3.json", "json"},
		{"Qwen 3", "byte_level_bpe", "qwen3.json", "json"},
		{"Qwen", "tiktoken_qwen_vl", "qwen.tiktoken", "qwen"},
		{"Llama 2", "sentencepiece_bpe", "llama2.json", "json"},
		{"Mistral", "sentencepiece_bpe", "mistral.json", "json"}, // its package calls it Llama 2
		{"Mistral tokenizer.model", "sentencepiece_bpe", "mistral.model", "sentencepiece"},
		{"Gemma 3", "sentencepiece_bpe", "gemma3.json", "json"},
		{"Jurassic 2 tokenizer.model", "sentencepiece_unigram", "j2.model", "sentencepiece"},
		{"Jurassic 2", "sentencepiece_unigram", "j2.json", "json"},
		{"BERT", "wordpiece", "bert.json", "json"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(dir, "vocab", c.file)
			k, err := Open(file, c.kind)
			if err != nil {
				t.Fatal(err)
			}
			want := askOracle(t, dir, c.oracle, file, lines)
			compare(t, k, lines, want)
		})
	}
}

func compare(t *testing.T, k *Tokenizer, lines []string, want []answer) {
	t.Helper()
	wrong := map[string]int{}
	say := func(what string, i int, got, want any) {
		if wrong[what]++; wrong[what] <= 3 {
			t.Errorf("line %d: %s(%.120q)\n got %v\nwant %v", i, what, lines[i], got, want)
		}
	}
	for i, line := range lines {
		w := want[i]
		if got := k.Encode(line); !slices.Equal(got, w.Plain) {
			say("Encode", i, got, w.Plain)
		}
		if got := k.EncodeTemplate(line); w.Template != nil && !slices.Equal(got, w.Template) {
			say("EncodeTemplate", i, got, w.Template)
		}
		if got := k.Decode(w.Plain); got != w.Text && !strings.ContainsRune(w.Text, utf8.RuneError) {
			say("Decode", i, got, w.Text)
		}
	}
	for what, n := range wrong {
		t.Errorf("%s: %d of %d lines differ", what, n, len(lines))
	}
}
