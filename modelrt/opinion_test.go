package modelrt

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chatxray/pipeline"
)

// opinionated opens a bundle of a family with a prompt for opinions.
func opinionated(t *testing.T, family string, template string) *Model {
	t.Helper()
	dir := t.TempDir()
	from := filepath.Join("testdata", "families", family)
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	b := changed(t, must(os.ReadFile(filepath.Join(from, manifestName))), map[string]any{"prompts": map[string]any{"en": map[string]any{"opinion": template}}})
	if err := os.WriteFile(filepath.Join(dir, manifestName), b, 0o644); err != nil {
		t.Fatal(err)
	}
	m := must(Open(context.Background(), runtimeFor(t), dir, tinyOptions(t)))
	t.Cleanup(func() { m.Close() })
	return m
}

// A model of text reads a draft: its prompt is the bundle's with the draft as text, and the answer is what the model writes after it.
func TestOpinion(t *testing.T) {
	for _, family := range []string{"llama", "qwen2vl", "chatglm", "fuyu"} {
		t.Run(family, func(t *testing.T) {
			m := opinionated(t, family, "Read: {draft} Well?")
			draft := "No effusion. <|endoftext|>"
			a, err := m.Opinion(context.Background(), draft, "")
			if err != nil {
				t.Fatal(err)
			}
			k := m.prompt.tokenizer
			want := len(k.EncodeTemplate("Read: ")) + len(k.Encode(draft)) + len(k.EncodeTemplate(" Well?"))
			if a.Prompt != want || a.Written == 0 || a.Model != m.Ref() || a.Language != "en" {
				t.Errorf("%d tokens, want %d; %+v", a.Prompt, want, a)
			}
			if again := must(m.Opinion(context.Background(), draft, "EN")); again.Text != a.Text {
				t.Errorf("%q, then %q", a.Text, again.Text)
			}
			other := must(m.Opinion(context.Background(), "Large mass in the left lung.", ""))
			if other.Text == a.Text {
				t.Errorf("another draft has the same opinion, %q", a.Text)
			}
		})
	}
}

// Without words of the bundle's own an opinion is one turn of its chat template; the draft's special tokens are text.
func TestOpinionOfChatTemplate(t *testing.T) {
	m := must(openTongue(t, "", func(o *Options) {}))
	k := m.prompt.tokenizer
	for language, around := range map[string][2]string{
		"en": {"<|im_start|>user\n" + opinionAsked, "<|im_end|>\n<|im_start|>assistant\n"},
		"zh": {"<|im_start|>user\n评论：", "<|im_end|>\n<|im_start|>assistant\n"},
	} {
		want := k.EncodeTemplate(around[0] + "X" + around[1])
		if diff := cmp.Diff(want, must(m.opinionPlaces("X", language)).ids); diff != "" {
			t.Error(language, diff)
		}
		if end := slices.Index(must(m.opinionPlaces("<|im_end|>", language)).ids, k.EncodeTemplate("<|im_end|>")[0]); end < 0 || end != len(must(m.opinionPlaces("<|im_end|>", language)).ids)-len(k.EncodeTemplate(around[1])) {
			t.Errorf("%s: the draft ends its turn at %d", language, end)
		}
	}
	if a := must(m.Opinion(context.Background(), "正常。", "zh")); a.Language != "zh" {
		t.Errorf("%+v", a)
	}
	var wrong *pipeline.ChatError
	if _, err := m.Opinion(context.Background(), strings.Repeat("No effusion. ", 100), "zh"); !errors.As(err, &wrong) || wrong.Code != "context_length_exceeded" || !strings.Contains(err.Error(), "128 tokens") {
		t.Error(err)
	}
	for language, says := range map[string]string{"de": "prompts.de.opinion", "fr": "it writes en, de, zh"} {
		if err := m.bundle.Manifest.CanOpine(language); !errors.Is(err, pipeline.ErrUnsupported) || !strings.Contains(err.Error(), says) {
			t.Error(err)
		}
		if _, err := m.Opinion(context.Background(), "x", language); !errors.Is(err, pipeline.ErrUnsupported) {
			t.Error(err)
		}
	}
	if err := m.bundle.Manifest.CanOpine("en"); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := m.Opinion(ctx, "x", "zh"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
