package token

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
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
	dir := os.Getenv("CHATXRAY_TEST_TOKENIZERS")
	if dir == "" {
		t.Skip("x")
	}
	lines := makeLines(lineCount, lineSeed)
	for _, c := range []struct{ name, kind, file, oracle string }{
		{"qwen3", "byte_level_bpe", "qwen3.json", "json"},
		{"llama3", "byte_level_bpe", "llama3.json", "json"},
		{"mistral", "sentencepiece_bpe", "mistral.json", "json"},
		{"gemma3", "sentencepiece_bpe", "gemma3.json", "json"},
		{"llama2", "sentencepiece_bpe", "llama2.json", "json"},
		{"gpt2", "byte_level_bpe", "gpt2.json", "json"},
		{"smollm2", "byte_level_bpe", "smollm2.json", "json"},
		{"mistral model", "sentencepiece_bpe", "mistral.model", "sentencepiece"},
		{"j2", "sentencepiece_unigram", "j2.model", "sentencepiece"},
		{"qwen", "tiktoken_qwen_vl", "qwen.tiktoken", "qwen"},
		{"bert", "wordpiece", "bert.json", "json"},
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
	plain, template, text, odd := 0, 0, 0, 0
	say := func(n *int, format string, args ...any) {
		if *n++; *n <= 5 {
			t.Errorf(format, args...)
		}
	}
	for i, line := range lines {
		w := want[i]
		got := k.Encode(line)
		if slices.ContainsFunc(w.Plain, func(id int32) bool { return k.Special(id) }) {
			odd++
		}
		if !slices.Equal(got, w.Plain) {
			say(&plain, "line %d: Encode(%.120q)\n got %v\nwant %v", i, line, got, w.Plain)
		}
		if w.Template != nil {
			if got := k.EncodeTemplate(line); !slices.Equal(got, w.Template) {
				say(&template, "line %d: EncodeTemplate(%.120q)\n got %v\nwant %v", i, line, got, w.Template)
			}
		}
		if d := k.Decode(w.Plain); d != w.Text && utf8.ValidString(line) {
			say(&text, "line %d: Decode(%.120q) = %q, want %q", i, line, d, w.Text)
		}
	}
	fmt.Printf("%s: %d lines, %d plain, %d template, %d text differ; %d with special ids\n", t.Name(), len(lines), plain, template, text, odd)
}
