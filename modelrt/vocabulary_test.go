package modelrt

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"chatxray/modelrt/guard"
)

// The report that transformers writes greedily for the base bundle's picture (testdata/base.json) passes an English guard, token by
// token, and the guard leaves the logits of each of them alone.
func TestGuardLeavesTheReportAlone(t *testing.T) {
	k := must(OpenTokenizer(filepath.Join("..", "bundles", "chatxray-base", "tokenizer.json"), "byte_level_bpe"))
	b, err := os.ReadFile("testdata/base.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Greedy []int32 `json:"greedy"`
	}
	if err := json.Unmarshal(b, &golden); err != nil {
		t.Fatal(err)
	}
	stop, _ := k.ID("<|im_end|>")
	v, err := vocabularyOf(k, k.Size(), []int32{stop})
	if err != nil {
		t.Fatal(err)
	}
	english, err := guard.ScriptsFor("en")
	if err != nil {
		t.Fatal(err)
	}
	g, err := guard.New(v, english)
	if err != nil {
		t.Fatal(err)
	}
	if len(golden.Greedy) < 10 {
		t.Fatalf("only %d tokens", len(golden.Greedy))
	}
	f := g.Follow()
	logits := make([]float32, v.Width())
	for i, id := range append(golden.Greedy, stop) {
		clear(logits)
		logits[id] = 1
		if err := f.Mask(logits); err != nil {
			t.Fatal(err)
		}
		if logits[id] != 1 {
			t.Fatalf("token %d, %q, is masked", i, k.TokenBytes(id))
		}
		if err := f.Accept(id); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := vocabularyOf(k, 10, nil); err == nil {
		t.Error("logits of width 10 are enough")
	}
}
