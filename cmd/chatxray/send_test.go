package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chatxray/pipeline"
	"chatxray/pipeline/dicom"
)

// TestSend: what a server keeps of others is not told as sent, and the rest is counted.
func TestSend(t *testing.T) {
	dir := t.TempDir()
	for i, sop := range []string{"1.2.1.1.1", "1.2.1.1.2", "1.2.1.1.2", "1.2.1.1.3"} { // one UID twice
		var d pipeline.Dataset
		d.SetText(pipeline.TagSOPClassUID, "UI", "1.2.840.10008.5.1.4.1.1.1.1")
		d.SetText(pipeline.TagSOPInstanceUID, "UI", sop)
		d.SetText(pipeline.TagStudyInstanceUID, "UI", "1.2.1")
		d.SetText(pipeline.TagSeriesInstanceUID, "UI", "1.2.1.1")
		d.SetInts(pipeline.TagInstanceNumber, "US", int64(i))
		b, err := dicom.Encode(d)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, fmt.Sprint(i, ".dcm")), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	status, answer := 202, `{"00081199":{"vr":"SQ","Value":[{},{},{}]},"00081198":{"vr":"SQ","Value":[{"00081155":{"vr":"UI","Value":["1.2.1.1.2"]},"00081197":{"vr":"US","Value":[273]}}]}}`
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if user != "ward" || password != "secret" {
			t.Errorf("asked as %q", user)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	}))
	defer srv.Close()
	t.Setenv("CHATXRAY_SEND_PASSWORD", "secret")
	code, out, errs := command(t, "", "send", srv.URL, dir, "--user", "ward")
	if code != exitServer || !strings.Contains(out, "sent 3 of 4\nstudy 1.2.1 (3 sent)") || !strings.Contains(errs, "1.2.1.1.2, failure reason 0111H") {
		t.Errorf("%d\n%s%s", code, out, errs)
	}
	status, answer = 403, `{"error":"forbidden: this needs the role store"}`
	if code, _, errs := command(t, "", "send", srv.URL, dir, "--user", "ward"); code != exitServer || !strings.Contains(errs, "the role store") {
		t.Errorf("%d %s", code, errs)
	}
	if code, _, errs := command(t, "", "show", srv.URL, "1.2.1", "--user", "ward"); code != exitServer || !strings.Contains(errs, "the role store") {
		t.Errorf("%d %s", code, errs)
	}
}
