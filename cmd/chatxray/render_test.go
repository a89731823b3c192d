package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWrap(t *testing.T) {
	for _, tt := range []struct {
		text  string
		width int
		want  []string
	}{
		{"", 5, []string{""}},
		{"a bb  ccc dddd", 6, []string{"a bb", "ccc", "dddd"}},
		{"unbreakable word", 4, []string{"unbreakable", "word"}},
		{"Größe über", 5, []string{"Größe", "über"}},
		{"心影大小正常。", 8, []string{"心影大小", "正常。"}},
		{"未见胸腔积液，", 12, []string{"未见胸腔积", "液，"}},
		{"约5 mm 结节", 6, []string{"约5 mm", "结节"}},
		{"ab\xff中\xe4", 3, []string{"ab\xff", "中\xe4"}},
	} {
		got := wrap(tt.text, tt.width)
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%q: %s", tt.text, diff)
		}
		if strings.ReplaceAll(strings.Join(got, ""), " ", "") != strings.ReplaceAll(tt.text, " ", "") {
			t.Errorf("%q: %q", tt.text, got)
		}
	}
	if cells("a中ä") != 4 || pad("中", 4) != "中  " {
		t.Error(cells("a中ä"), pad("中", 4))
	}
}
