package pipeline_test

import (
	"strings"
	"testing"

	"chatxray/pipeline"
)

// TestValidUID: what may stand for a UID in a path, a file name or a query, and what may not.
func TestValidUID(t *testing.T) {
	for _, uid := range []string{"1", "1.2.840.10008.1.2", "0.1", "1.02", strings.Repeat("1", 64), strings.Repeat("1.", 31) + "12"} {
		if !pipeline.ValidUID(uid) {
			t.Errorf("%q is none", uid)
		}
	}
	for _, uid := range []string{"", ".", "..", ".1", "1.", "1..2", "1.2 ", " 1.2", "1.2\x00", "1/2", "../1", "1.2.a", "1,2", "1-2", "\u0661.2", strings.Repeat("1", 65), "*"} {
		if pipeline.ValidUID(uid) {
			t.Errorf("%q is one", uid)
		}
	}
}
