package house

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

const dataPack = "../shared/data"

// sentenceWords is how long a sentence must be to be told from another with the same words by chance: radiologists, and a
// grammar written after their manner, share the short ones.
const sentenceWords = 12

// Nothing of the data pack is in git: no file of it, whole or renamed, and no long sentence of its reports and notes.
func TestNothingOfTheDataPack(t *testing.T) {
	if _, err := os.Stat(dataPack); err != nil {
		t.Skip("../shared absent: the repository was not compared with the data pack")
	}
	files := fileSums(t, dataPack)
	sentences := map[[32]byte]bool{}
	for _, name := range []string{"text/iu_reports.jsonl", "cxr/notes.jsonl"} {
		addSentences(t, sentences, filepath.Join(dataPack, name))
	}
	if len(files) < 1000 || len(sentences) < 1000 {
		t.Fatalf("the data pack has %d files and %d long sentences: this test looks in the wrong place", len(files), len(sentences))
	}
	for _, name := range tracked(t) {
		b, err := os.ReadFile(name)
		if err != nil || len(b) == 0 {
			continue // removed, or a link
		}
		if like, ok := files[sha256.Sum256(b)]; ok {
			t.Errorf("%s is %s of the data pack: remove it, from the history too", name, like)
		}
		if !utf8.Valid(b) {
			continue
		}
		for line, s := range sentencesOf(b) {
			if sentences[s.sum] {
				t.Errorf("%s, sentence %d (%q...) is one of the data pack: write another", name, line+1, s.begin)
			}
		}
	}
}

func fileSums(t *testing.T, dir string) map[[32]byte]string {
	t.Helper()
	sums := map[[32]byte]string{}
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(name)
		if len(b) > 0 {
			sums[sha256.Sum256(b)] = name
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sums
}

// addSentences takes the long sentences out of every string of a JSON-lines file.
func addSentences(t *testing.T, to map[[32]byte]bool, name string) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		for _, part := range bytes.Split(lines.Bytes(), []byte(`"`)) { // keys and values alike: a value is between quotes
			for _, s := range sentencesOf(bytes.ReplaceAll(part, []byte(`\n`), []byte(" "))) {
				to[s.sum] = true
			}
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// sentence is the digest of a long sentence's words, and its first words.
type sentence struct {
	sum   [32]byte
	begin string
}

// sentencesOf cuts text at full stops, quotes and blank lines, and keeps what has enough words: letters and digits only, lower case.
func sentencesOf(text []byte) []sentence {
	var out []sentence
	var words []string
	var word []rune
	endWord := func() {
		if len(word) > 0 {
			words = append(words, string(word))
			word = word[:0]
		}
	}
	end := func() {
		endWord()
		if len(words) >= sentenceWords {
			out = append(out, sentence{sha256.Sum256([]byte(strings.Join(words, " "))), strings.Join(words[:4], " ")})
		}
		words = words[:0]
	}
	newlines := 0
	for _, r := range string(text) {
		if r == '\n' {
			newlines++
		} else if !unicode.IsSpace(r) {
			newlines = 0
		}
		switch {
		case unicode.IsLetter(r) || unicode.IsDigit(r):
			word = append(word, unicode.ToLower(r))
		case strings.ContainsRune(".!?;\"`{}", r) || newlines == 2:
			end()
		default:
			endWord()
		}
	}
	end()
	return out
}

func TestSentencesAreTheSame(t *testing.T) {
	one := sentencesOf([]byte("Here a first. The quick brown fox, at noon, jumps over 12 lazy dogs and then walks home alone!"))
	two := sentencesOf([]byte("x: \"The quick brown fox at noon\n// jumps over 12 LAZY dogs and then walks home alone.\" Short one."))
	other := sentencesOf([]byte("The quick brown fox at noon jumps over 12 lazy cats and then walks home alone."))
	if len(one) != 1 || len(two) != 1 || len(other) != 1 || one[0].sum != two[0].sum || one[0].sum == other[0].sum {
		t.Errorf("%v %v %v", one, two, other)
	}
}
