package sr

import (
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"chatxray/pipeline"
)

// TestDocumentedCodes: the table of docs/results.md is the table that documents are written with.
func TestDocumentedCodes(t *testing.T) {
	page, err := os.ReadFile("../docs/results.md")
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, l := range labels {
		standard, meaning, own, from := "–", "–", l.Private, string(l.Source)
		if l.Source != ownCode {
			standard, meaning = l.Value+", "+l.Scheme, l.Meaning
		}
		switch l.Source {
		case secondary:
			from += ": to be signed off"
		case contextGroup:
			own = "–"
		}
		want = append(want, "| "+strings.Join([]string{l.Label, standard, meaning, own, from}, " | ")+" |")
	}
	_, table, ok := strings.Cut(string(page), "## Codes (table version "+codesVersion+")\n")
	if !ok {
		t.Fatalf("docs/results.md has no table of version %s", codesVersion)
	}
	for line := range strings.Lines(table) {
		if strings.HasPrefix(line, "#") {
			break
		}
		if strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "| label") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestLabels: every label but one has a code, in the order of the closed list; values and meanings fit their VR.
func TestLabels(t *testing.T) {
	want := []string{noFinding}
	for _, l := range labels {
		want = append(want, l.Label)
		c, ok := labelCode(l.Label)
		if !ok {
			t.Errorf("%s has no code", l.Label)
			continue
		}
		if (l.Source == secondary) != (c.Same != nil) {
			t.Errorf("%s: a code from a secondary source, and no other, carries the private one", l.Label)
		}
		for c := &c; c != nil; c = c.Same {
			if c.Value == "" || len(c.Value) > 16 || c.Scheme == "" || c.Meaning == "" || utf8.RuneCountInString(c.Meaning) > 64 {
				t.Errorf("%s: %+v does not fit a code sequence", l.Label, *c)
			}
		}
	}
	if diff := cmp.Diff(pipeline.Labels, want); diff != "" {
		t.Error(diff)
	}
	if _, ok := labelCode("Hernia"); ok {
		t.Error("a label that is not on the list has a code")
	}
}

// TestTwice: two formats of one name stop the program.
func TestTwice(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a second format of the same kind was taken")
		}
	}()
	register(&format{kind: pipeline.FindingsSR})
}

// FuzzRepeated: whatever a header holds, what is repeated fits its VR.
func FuzzRepeated(f *testing.F) {
	for _, s := range []string{"", "Doe^Jane", "a=b=c=d", "a=b  ==", "\x00\x1b\\", "\xff\xfe", strings.Repeat("é̂", 200), strings.Repeat("^", 99), "  x  ", "00.00.0000"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, a := range repeated {
			v := a.fit(s)
			if !utf8.ValidString(v) || strings.ContainsAny(v, "\\\x00\x1b\r\n") || v != strings.TrimSpace(v) {
				t.Errorf("%s %s: %q became %q", a.tag, a.vr, s, v)
			}
			groups := []string{v}
			if a.vr == "PN" {
				groups = strings.Split(v, "=")
			}
			for _, g := range groups {
				if utf8.RuneCountInString(g) > 64 || len(groups) > 3 {
					t.Errorf("%s %s: %q became the too long %q", a.tag, a.vr, s, v)
				}
			}
			if again := a.fit(v); again != v {
				t.Errorf("%s %s: %q became %q, and that %q", a.tag, a.vr, s, v, again)
			}
		}
	})
}
