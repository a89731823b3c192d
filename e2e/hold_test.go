package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// elsewhere is an endpoint of the chat interface that writes the same report about every image.
func elsewhere(t *testing.T, words ...string) *httptest.Server {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/chat/completions" {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"object": "list", "data": [{"id": "fixed", "object": "model", "created": 1, "owned_by": "tests"}]}`)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for i, word := range append(words, "") {
			choice := object{"index": 0, "delta": object{"content": word}, "finish_reason": nil}
			if i == len(words) {
				choice = object{"index": 0, "delta": object{}, "finish_reason": "stop"}
			}
			b, _ := json.Marshal(object{"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "fixed", "choices": []any{choice}})
			fmt.Fprintf(w, "data: %s\n\n", b)
		}
		fmt.Fprint(w, "data: [DONE]\n\n")
	}))
	t.Cleanup(s.Close)
	return s
}

// A study waits for its lateral view until a person has it read as it is; its report, which has a flagged sentence, is held, written nowhere, until a person
// releases it; then, and once, the archive and Orthanc have the documents.
func TestAPersonDecides(t *testing.T) {
	far := elsewhere(t, "The heart is normal in size. ", "Compared with the prior study, ", "the pleural effusion has increased.")
	bundle := remoteBundle(t, object{"url": far.URL + "/v1", "model": "fixed", "images": 1, "prompt": "Write a report of this chest radiograph.", "evidence": "none"})
	port := freePort(t)
	config := filepath.Join(t.TempDir(), "chatxray.yaml")
	page := strings.Replace(documented(t, "yaml"), "127.0.0.1:8042", fmt.Sprintf("127.0.0.1:%d", port), 1)
	page += "\nline:\n  quiet: 300ms\nmodel:\n  evidence:\n    policy: hold\ncomplete:\n  requires: frontal >= 1 && lateral >= 1\n  wait: 1h\n"
	if err := os.WriteFile(config, []byte(page), 0o644); err != nil {
		t.Fatal(err)
	}
	s := serve(t, t.TempDir(), "--config", config, "--bundle", bundle)
	pacs := orthanc(t, port, s.root)
	file, study := phantom(t, "--rows", "512", "--columns", "430")
	chatxray(t, 0, "send", s.dicomweb(), file)
	until := func(state, reason string) {
		t.Helper()
		eventually(t, 2*time.Minute, "the study to be "+state+": "+reason, func() error {
			out, _ := chatxray(t, 0, "studies", "list", "--json", s.dicomweb())
			if !strings.Contains(out, `"state":"`+state+`"`) || !strings.Contains(out, reason) {
				return fmt.Errorf("it says %s", out)
			}
			return nil
		})
	}
	documents := func() (ours, theirs int) {
		t.Helper()
		for root, n := range map[string]*int{s.dicomweb(): &ours, pacs + "/dicom-web": &theirs} {
			b, err := get(root + "/instances?Modality=SR&StudyInstanceUID=" + study)
			if err != nil {
				t.Fatal(err)
			}
			*n = bytes.Count(b, []byte(`"00080018"`))
		}
		return ours, theirs
	}
	until("receiving", "complete.requires is not met: frontal 1, lateral 0")
	chatxray(t, 0, "studies", "force", s.dicomweb(), study)
	until("held", "1 of its 2 sentences are flagged")
	if ours, theirs := documents(); ours != 0 || theirs != 0 {
		t.Errorf("of a held report we have %d documents, Orthanc %d", ours, theirs)
	}
	if out, _ := chatxray(t, 0, "jobs", "list", "--dead", s.dicomweb()); !strings.Contains(out, study) {
		t.Errorf("jobs list --dead prints\n%s", out)
	}
	chatxray(t, 0, "release", s.dicomweb(), study)
	until("delivered", study)
	if ours, theirs := documents(); ours != 2 || theirs != 2 {
		t.Errorf("of a released report we have %d documents, Orthanc %d", ours, theirs)
	}
	line := ""
	for _, step := range steps(t, s, study) {
		line += step.State + " "
	}
	if want := "receiving receiving complete queued reading held queued reading reported delivered "; line != want {
		t.Errorf("its life was %s\nwant %s", line, want)
	}
	if n := s.metric("chatxray_studies_read_total"); n != "1" {
		t.Errorf("read %s times", n)
	}
}
