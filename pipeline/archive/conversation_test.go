package archive_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chatxray/pipeline"
	"chatxray/pipeline/archive"
)

func TestConversations(t *testing.T) { onEach(t, testConversations) }

func testConversations(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	a := open(t, dir, archive.Options{})
	mustStore(t, a, object(t, "1.2", "1.2.3", "1.2.3.4"))
	clock := time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	turn := func(texts ...string) (said []pipeline.Said) {
		for i, s := range texts {
			clock = clock.Add(time.Second)
			at := clock
			said = append(said, pipeline.Said{Role: []pipeline.ChatRole{pipeline.RoleUser, pipeline.RoleAssistant}[i%2], Text: s, Time: &at})
		}
		return said
	}
	converse := func(author string, said []pipeline.Said) pipeline.Conversation {
		t.Helper()
		k, err := a.Converse(ctx, "1.2", author, said, len(said)-2)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	texts := func() (out []string) {
		t.Helper()
		list, err := a.Conversations(ctx, "1.2")
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range list {
			line := k.Author + ":"
			for _, m := range k.Messages {
				line += " " + m.Text
			}
			out = append(out, line)
		}
		return out
	}
	same := func(want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, texts()); diff != "" {
			t.Error(diff)
		}
	}
	first := converse("ada", turn("q1", "a1"))
	second := converse("ada", turn("q1", "a1", "q2", "a2"))
	if first.ID != second.ID || !second.Started.Equal(first.Started) || second.Messages[1].Time.After(*second.Messages[2].Time) {
		t.Errorf("%+v %+v", first, second)
	}
	converse("bob", turn("q1", "a1"))               // another author
	converse("ada", turn("q1", "a1", "other", ""))  // again from the middle: another conversation, with all of it
	converse("ada", turn("q9", "a9", "q10", "a10")) // begun elsewhere
	converse("bob", turn("q1", "a1"))               // the same again
	same("ada: q1 a1 q2 a2", "bob: q1 a1", "ada: q1 a1 other ", "ada: q9 a9 q10 a10", "bob: q1 a1")
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a = open(t, dir, archive.Options{})
	third := converse("ada", turn("q1", "a1", "q2", "a2", "q3", "a3"))
	if third.ID != first.ID || len(third.Messages) != 6 {
		t.Errorf("%+v", third)
	}

	// After a crash between the new file and the end of the old one the longer counts.
	folder := filepath.Join(dir, "records", "1.2", "conversations")
	for _, f := range under(t, folder) {
		if b, err := os.ReadFile(f); err != nil {
			t.Fatal(err)
		} else if strings.Contains(string(b), `"q3"`) {
			k := strings.Replace(string(b), `"q3"`, `"q4"`, 1)
			k = k[:strings.LastIndex(k, ",\n  {")] + "\n ]\n}" // without the last message
			if err := os.WriteFile(filepath.Join(folder, "00.json"), []byte(k), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := texts(); len(got) != 5 || got[0] != "ada: q1 a1 q2 a2 q3 a3" {
		t.Error(got)
	}
	if r, err := a.Records(ctx, "1.2"); err != nil || len(r) != 0 {
		t.Errorf("conversations are taken for records: %v %v", r, err)
	}
	for _, bad := range []struct {
		study string
		said  []pipeline.Said
		n     int
		want  error
	}{
		{"../x", turn("q", "a"), 0, pipeline.ErrInvalid}, {"1.2", turn("q"), 1, pipeline.ErrInvalid}, {"1.2", []pipeline.Said{{}}, 0, pipeline.ErrInvalid},
		{"1.7", turn("q", "a"), 0, pipeline.ErrNotFound},
	} {
		if _, err := a.Converse(ctx, bad.study, "ada", bad.said, bad.n); !errors.Is(err, bad.want) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if _, err := a.Conversations(ctx, "../x"); !errors.Is(err, pipeline.ErrInvalid) {
		t.Error(err)
	}

	// They go with their study and do not come back.
	if _, _, err := a.Delete(ctx, "1.2", "", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Converse(ctx, "1.2", "ada", turn("q", "a"), 0); !errors.Is(err, pipeline.ErrNotFound) {
		t.Error(err)
	}
	if left := under(t, filepath.Join(dir, "records")); len(left) > 0 {
		t.Error(left)
	}
}
