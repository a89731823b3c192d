package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"chatxray/config"
	"chatxray/phantom"
	"chatxray/pipeline"
	"chatxray/pipeline/dicom"
)

// The stub's reports are documents as any other, say that no model looked, claim no finding, and differ at every call.
func TestStubReader(t *testing.T) {
	p, err := phantom.Draw(phantom.Options{Seed: 1, Rows: phantom.LeastSide, Columns: phantom.LeastSide})
	if err != nil {
		t.Fatal(err)
	}
	var file, log bytes.Buffer
	if err := dicom.Write(&file, p.Dataset(), phantomSyntaxes["explicit"]); err != nil {
		t.Fatal(err)
	}
	in, err := dicom.Open(file.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	st := &pipeline.Study{StudyInstanceUID: in.StudyInstanceUID, Instances: []*pipeline.Instance{in}}
	steps := startStub(streams{log: zerolog.New(&log)}, config.Default(), time.Millisecond).steps
	var narratives [][]byte
	for range 2 {
		seen, err := steps.Look(t.Context(), st)
		if err != nil {
			t.Fatal(err)
		}
		r, _, err := steps.Read(t.Context(), seen, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range r.Findings {
			if f.Presence != pipeline.NotSaid {
				t.Errorf("it says of %s that it is %s", f.Label, f.Presence)
			}
		}
		docs, err := steps.Write(st, r, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range docs {
			if d.Kind == pipeline.NarrativeSR {
				narratives = append(narratives, d.Bytes)
			}
		}
	}
	if len(narratives) != 2 || bytes.Equal(narratives[0], narratives[1]) {
		t.Error("two calls write the same report")
	}
	for _, n := range narratives {
		if !bytes.Contains(n, []byte(stubSays)) || !bytes.Contains(n, []byte("with model stub 1")) {
			t.Error("a report does not say that no model looked")
		}
	}
	if n := strings.Count(log.String(), `"call"`); n != 2 {
		t.Errorf("the log has %d calls, want 2: %s", n, log.String())
	}
	if b, err := json.Marshal(steps.Model.Ref()); err != nil || !bytes.Contains(b, []byte(`"stub"`)) {
		t.Errorf("its model is %s", b)
	}
}
