package modelrt

import (
	"context"
	"errors"
	"testing"

	"chatxray/pipeline"
)

// Activations of 8 bits are refused where no matrix has blocks; where they are used the version tells it, and the report is the model's all the same.
func TestEightBits(t *testing.T) {
	for _, f := range must(OpenBundle("testdata/tiny")).Manifest.Base.Forms {
		o := tinyOptions(t)
		o.Form, o.EightBits = f.Name, true
		m, err := Open(context.Background(), runtimeFor(t), "testdata/tiny", o)
		if err == nil {
			m.Close()
		}
		if f.Kind != KindFlat && !errors.Is(err, pipeline.ErrUnsupported) {
			t.Errorf("form %s, of the kind %s: %v", f.Name, f.Kind, err)
		}
	}
	exact, eight := openBaseForm(t, "q4", false), openBaseWith(t, func(o *Options) { o.Form, o.EightBits = "q4", true })
	if v := eight.Ref().Version; v != exact.Ref().Version+"+int8" {
		t.Errorf("the version is %s", v)
	}
	one, two := must(exact.write(context.Background(), must(exact.see(context.Background(), shades(400), classRoutine)), classRoutine)), must(eight.write(context.Background(), must(eight.see(context.Background(), shades(400), classRoutine)), classRoutine))
	same := 0
	for same < min(len(one.tokens), len(two.tokens)) && one.tokens[same] == two.tokens[same] {
		same++
	}
	t.Logf("%d of %d tokens are the exact form's before the first other one", same, len(one.tokens))
	if same == 0 {
		t.Error("the first token is another already")
	}
}
