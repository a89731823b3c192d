package sr_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"chatxray/pipeline"
	"chatxray/sr"
)

// python finds an interpreter that has pydicom: the first of the path, or Debian's own.
func python(t *testing.T) string {
	t.Helper()
	for _, p := range []string{"python3", "/usr/bin/python3"} {
		if exec.CommandContext(t.Context(), p, "-c", "import pydicom").Run() == nil {
			return p
		}
	}
	t.Skip("no python3 has pydicom: it is in the Debian package python3-pydicom")
	return ""
}

// attribute is one line of testdata/parse.py.
func attribute(number int, path, vr string, values []string) string {
	b, err := json.Marshal([]any{number, path, vr, values})
	if err != nil {
		panic(err)
	}
	return string(b)
}

// flat lists every attribute of a data set as testdata/parse.py does.
func flat(number int, d pipeline.Dataset, path string) []string {
	var out []string
	for _, e := range d {
		here := fmt.Sprintf("%s%04X%04X", path, e.Tag.Group(), e.Tag.Element())
		if e.VR == "SQ" {
			out = append(out, attribute(number, here, "SQ", []string{fmt.Sprint(len(e.Items))}))
			for i, item := range e.Items {
				out = append(out, flat(number, item, fmt.Sprintf("%s[%d].", here, i))...)
			}
			continue
		}
		out = append(out, attribute(number, here, e.VR, append([]string{}, e.Text...)))
	}
	return out
}

// TestPydicom: an outside parser reads every attribute of every document as it was meant, names and texts in all scripts included.
func TestPydicom(t *testing.T) {
	args := []string{filepath.Join("testdata", "parse.py")}
	var want []string
	dir := t.TempDir()
	for _, in := range variants() {
		for _, kind := range sr.Kinds() {
			d, err := sr.Dataset(in, kind)
			if err != nil {
				t.Fatal(err)
			}
			number := len(args) - 1
			args = append(args, filepath.Join(dir, fmt.Sprintf("%d.dcm", number)))
			store(t, args[number+1], d)
			want = append(want, flat(number, d, "")...)
		}
	}
	cmd := exec.CommandContext(t.Context(), python(t), args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(out)) {
		var a [4]any
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			t.Fatal(err)
		}
		values := []string{}
		for _, v := range a[3].([]any) {
			values = append(values, v.(string))
		}
		got = append(got, attribute(int(a[0].(float64)), a[1].(string), a[2].(string), values))
	}
	if len(want) < 1000 {
		t.Fatalf("only %d attributes were written", len(want))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
