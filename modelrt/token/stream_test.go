package token

import (
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestStream: what a stream gives is what Decode gives, to the first stop string, and each part of it is whole characters.
func TestStream(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, v := range small {
		k := parseSmall(t, v.file, v.kind)
		halves := 0
		for i, line := range makeLines(1500, 11) {
			ids := k.Encode(line)
			if i%3 == 0 { // any ids: bytes that are no text, special tokens, ids outside the vocabulary
				for range r.IntN(20) {
					ids = append(ids, int32(r.IntN(k.Size()+4)-2))
				}
			}
			whole := k.Decode(ids)
			stops := stopsFor(r, whole)
			want, stopped := cutAt(whole, stops)
			s := k.Stream(stops...)
			got, ended := "", false
			for _, id := range ids {
				part, stop := s.Push(id)
				if !utf8.ValidString(part) {
					t.Fatalf("%s: %q is half a character", v.file, part)
				}
				if b := k.TokenBytes(id); b != nil && !utf8.Valid(b) {
					halves++
				}
				got += part
				if !strings.HasPrefix(want, got) {
					t.Fatalf("%s: %q was given, which is more than %q; stops %q", v.file, got, want, stops)
				}
				if ended = stop; stop {
					break
				}
			}
			part, stop := s.End()
			got, ended = got+part, ended || stop
			if got != want || ended != stopped {
				t.Fatalf("%s: line %d: streamed %q (%v), want %q (%v), stops %q", v.file, i, got, ended, want, stopped, stops)
			}
			if more, stop := s.Push(5); stopped && (more != "" || !stop) {
				t.Fatalf("%s: %q after the stop", v.file, more)
			}
		}
		if halves == 0 && v.kind == "byte_level_bpe" {
			t.Errorf("%s: no token was half a character: this test shows nothing", v.file)
		}
	}
}

// stopsFor makes stop strings of every length: parts of the text, parts with something else behind, and others.
func stopsFor(r *rand.Rand, text string) (stops []string) {
	runes := []rune(text)
	for range r.IntN(4) {
		if len(runes) == 0 {
			break
		}
		from := r.IntN(len(runes))
		s := string(runes[from:min(len(runes), from+1+r.IntN(12))])
		stops = append(stops, s+[]string{"", "", "~no~", "e"}[r.IntN(4)])
	}
	return append(stops, "", "###", strings.Repeat("x", 40))
}

// cutAt ends a text at the stop string that is complete first: the one that ends first; of several that end there, the longest.
func cutAt(text string, stops []string) (string, bool) {
	for end := 1; end <= len(text); end++ {
		for from := 0; from < end; from++ {
			for _, s := range stops {
				if s != "" && text[from:end] == s {
					return text[:from], true
				}
			}
		}
	}
	return text, false
}

func TestStreamHoldsBack(t *testing.T) {
	k := parseSmall(t, "llama3.json", "byte_level_bpe")
	s := k.Stream("###", "#-stop")
	var parts []string
	for _, text := range []string{"a", "#", "#", "b", "#", "-", "s", "t", "o", "x", "#", "#", "#", "y"} {
		part, stopped := "", false
		for _, id := range k.Encode(text) {
			p, stop := s.Push(id)
			part, stopped = part+p, stop
		}
		if stopped {
			part += "|"
		}
		parts = append(parts, part)
	}
	if got, want := strings.Join(parts, ","), "a,,,##b,,,,,,#-stox,,,|,|"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
