package modelrt

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"chatxray/pipeline"
)

// The tiny bundle calls a picture lateral whose mean gray is above three quarters.
func TestViewIsAskedOfTheModel(t *testing.T) {
	m := openTiny(t)
	shade := func(gray byte, unknown bool) error {
		img := picture(bytes.Repeat([]byte{gray}, 32*32), 32, 32)
		img.ViewUnknown = unknown
		_, err := m.Read(context.Background(), img)
		return err
	}
	for _, c := range []struct {
		gray    byte
		unknown bool
		refused bool
	}{{100, true, false}, {250, true, true}, {250, false, false}} {
		err := shade(c.gray, c.unknown)
		var r pipeline.Refusal
		switch refused := errors.As(err, &r); {
		case refused != c.refused, !refused && err != nil && !errors.Is(err, pipeline.ErrModel):
			t.Errorf("gray %d, view unknown %v: %v", c.gray, c.unknown, err)
		case refused && (r.Reason != pipeline.NotFrontal || r.SOPInstanceUID != "2.25.3" || r.Detail == ""):
			t.Errorf("refused as %+v", r)
		}
	}

	m.views = nil // as a bundle without the output
	var r pipeline.Refusal
	img := picture(make([]byte, 32*32), 32, 32)
	img.ViewUnknown = true
	if err := m.checkView(img); !errors.As(err, &r) || r.Reason != pipeline.UnknownView {
		t.Errorf("a model that cannot tell says %v", err)
	}
}
