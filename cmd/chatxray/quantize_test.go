package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chatxray/modelrt"
	"chatxray/pipeline"
)

// A bundle goes in, a smaller one comes out that verifies, with its cost in a file, in its card and on standard output.
func TestQuantizeCommand(t *testing.T) {
	out := filepath.Join(t.TempDir(), "small")
	var stdout, stderr bytes.Buffer
	if code := run(context.Background(), []string{"bundles", "quantize", "../../modelrt/testdata/families/llava", out, "--to", "q8", "--threads", "1"}, nil, &stdout, &stderr); code != 0 {
		t.Fatalf("exit %d: %s", code, &stderr)
	}
	var cost quantizeCost
	b, err := os.ReadFile(filepath.Join(out, "quantize.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &cost); err != nil {
		t.Fatal(err)
	}
	if cost.Schema != quantizeSchema || cost.Texts < 4 || cost.Tokens < 20 || cost.Top1 < 0.5 || cost.Top1 > 1 || cost.Bytes >= cost.FromBytes || cost.TokenMS <= 0 || cost.FromTokenMS <= 0 ||
		!strings.Contains(cost.Against, "phantoms") {
		t.Errorf("%s", b)
	}
	if !strings.Contains(stdout.String(), "top-1 agreement") {
		t.Errorf("%s", &stdout)
	}
	card, err := os.ReadFile(filepath.Join(out, "README.md"))
	if err != nil || !strings.Contains(string(card), "top-1 agreement") {
		t.Errorf("%v: %s", err, card)
	}
	if _, err := modelrt.Verify(out); err != nil {
		t.Error(err)
	}
	if code := run(context.Background(), []string{"bundles", "quantize", "../../modelrt/testdata/families/llava", out, "--to", "q8"}, nil, &stdout, &stderr); code != exitInvalid {
		t.Errorf("a folder that is there: exit %d", code)
	}
	stderr.Reset()
	if code := run(context.Background(), []string{"bundles", "quantize", "../../modelrt/testdata/families/llava", out + "2", "--to", "bf16"}, nil, &stdout, &stderr); code != exitInvalid ||
		!strings.Contains(stderr.String(), "q4, q8") {
		t.Errorf("exit %d: %s", code, &stderr)
	}
}

func TestLabelCount(t *testing.T) {
	find := func(present ...int) []pipeline.Finding {
		f := make([]pipeline.Finding, 4)
		for _, i := range present {
			f[i].Presence = pipeline.Present
		}
		return f
	}
	var n labelCount
	if n.f1() != nil {
		t.Error("nothing counted has an F1")
	}
	n.add(find(0, 1), find(1, 2))
	n.add(find(3), find(3))
	if f := n.f1(); *f != 2*2.0/6 {
		t.Errorf("%v", *f)
	}
}
