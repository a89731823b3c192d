package modelrt

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chatxray/pipeline"
)

func TestSplit(t *testing.T) {
	for text, want := range map[string][]string{
		"":                                 nil,
		" \n . \n":                         nil,
		"One. Two":                         {"One.", "Two"},
		"One.Two. Three!  Four?":           {"One.Two.", "Three!", "Four?"},
		"A 1.5 cm nodule. No effusion.":    {"A 1.5 cm nodule.", "No effusion."},
		"Approx. two nodules. Clear.":      {"Approx. two nodules.", "Clear."},
		"1. Effusion. 2. Edema.":           {"1. Effusion.", "2. Edema."},
		"Lungs clear\nHeart normal\n\nEnd": {"Lungs clear", "Heart normal", "End"},
		"Ödem. Überblähung.":               {"Ödem.", "Überblähung."},
		"心影不大。未见胸腔积液！ 正常？":      {"心影不大。", "未见胸腔积液！", "正常？"},
		"القلب طبيعي؟ نعم۔ لا.": {"القلب طبيعي؟", "نعم۔", "لا."},
		"हृदय सामान्य है। ठीक":  {"हृदय सामान्य है।", "ठीक"},
		"Wait... What":             {"Wait...", "What"},
		"  Leading. \tTrailing.  ": {"Leading.", "Trailing."},
	} {
		var got []string
		for _, s := range split(text) {
			got = append(got, text[s.from:s.to])
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	}
}

// written makes an answer of the given pieces, one a token.
func written(stops []string, pieces ...string) *answer {
	a := &answer{}
	for i, p := range pieces {
		if a.add(int32(i), -1, []byte(p), stops) {
			break
		}
	}
	return a
}

func TestSentences(t *testing.T) {
	type sentence struct {
		text          string
		section       pipeline.Section
		first, tokens int
	}
	const f, i = pipeline.SectionFindings, pipeline.SectionImpression
	tests := []struct {
		name      string
		pieces    []string
		stops     []string
		truncated bool
		want      []sentence
	}{
		{"two sections", []string{"The", " lungs", " are clear", ".", " Heart", " big.", "\n", "Impression", ":", " Cardio", "megaly", "."}, nil, false,
			[]sentence{{"The lungs are clear.", f, 0, 4}, {"Heart big.", f, 4, 2}, {"Cardiomegaly.", i, 9, 3}}},
		{"a special token without text", []string{"", "One.", "", " Two."}, nil, false, []sentence{{"One.", f, 1, 1}, {"Two.", f, 3, 1}}},
		{"a token over a border", []string{"One", ". T", "wo."}, nil, false, []sentence{{"One.", f, 0, 2}, {"Two.", f, 1, 2}}},
		{"truncated within a sentence", []string{"One.", " There is", " no"}, nil, true, []sentence{{"One.", f, 0, 1}}},
		{"truncated after a sentence", []string{"One.", " Two", "."}, nil, true, []sentence{{"One.", f, 0, 1}, {"Two.", f, 1, 2}}},
		{"truncated within the impression", []string{"One.", "Impression:", " Two. ", "Thr"}, nil, true, []sentence{{"One.", f, 0, 1}, {"Two.", i, 2, 1}}},
		{"a stop string over tokens", []string{"One.", " Two. ", "##", "# more", " Three."}, []string{"###"}, false, []sentence{{"One.", f, 0, 1}, {"Two.", f, 1, 1}}},
		{"a stop string within a token", []string{"One.", " Two.###x"}, []string{"@@", "###"}, false, []sentence{{"One.", f, 0, 1}, {"Two.", f, 1, 1}}},
		{"truncated within a Chinese sentence", []string{"正常", "。", "未见"}, nil, true, []sentence{{"正常。", f, 0, 2}}},
		{"letters of two bytes over tokens", []string{"\xc3", "\x96dem."}, nil, false, []sentence{{"Ödem.", f, 0, 2}}},
		{"the prefix alone", []string{"One.", "Impression:"}, nil, false, []sentence{{"One.", f, 0, 1}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := written(tt.stops, tt.pieces...)
			a.truncated = tt.truncated
			list, err := a.sentences("Impression:")
			if err != nil {
				t.Fatal(err)
			}
			var got []sentence
			for _, s := range list {
				got = append(got, sentence{s.Text, s.Section, s.FirstToken, s.Tokens})
				if s.FirstToken+s.Tokens > len(a.tokens) {
					t.Errorf("%q has tokens %d to %d of %d", s.Text, s.FirstToken, s.FirstToken+s.Tokens, len(a.tokens))
				}
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(sentence{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What may not leave does not leave.
func TestDegenerateAnswers(t *testing.T) {
	for name, tt := range map[string]struct {
		pieces    []string
		truncated bool
		want      string
	}{
		"nothing":              {nil, false, "no sentence in 0 tokens"},
		"white space":          {[]string{" ", "\n"}, false, "no sentence in 2 tokens"},
		"no letter":            {[]string{"...", " 1. 2."}, false, "no sentence"},
		"one endless sentence": {[]string{"and", " and", " and"}, true, "no sentence in 3 tokens"},
		"broken UTF-8":         {[]string{"One. \xc3", "One."}, false, "no UTF-8"},
	} {
		a := written(nil, tt.pieces...)
		a.truncated = tt.truncated
		if _, err := a.sentences("Impression:"); !errors.Is(err, pipeline.ErrModel) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzSentences(f *testing.F) {
	f.Add("One. Two.\nImpression: Three.", 3, true)
	f.Fuzz(func(t *testing.T, text string, size int, truncated bool) {
		a := &answer{truncated: truncated}
		size = max(1, size%8)
		for i := 0; i < len(text); i += size {
			a.add(int32(i), -1, []byte(text[i:min(i+size, len(text))]), nil)
		}
		list, err := a.sentences("Impression:")
		if err != nil {
			return
		}
		for _, s := range list {
			var all string
			for i := s.FirstToken; i < s.FirstToken+s.Tokens; i++ {
				end := len(text)
				if i+1 < len(a.starts) {
					end = a.starts[i+1]
				}
				all += text[a.starts[i]:end]
			}
			if !strings.Contains(all, s.Text) {
				t.Errorf("%q is not in its tokens %q", s.Text, all)
			}
		}
	})
}
