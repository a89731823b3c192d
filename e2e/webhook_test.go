package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestWebhookInPython: what docs/destinations.md writes in Python takes the event that the service sends, with the PyPI library of the Standard Webhooks project, and
// refuses it when anything of it is changed.
func TestWebhookInPython(t *testing.T) {
	built(t)
	cmd := script(t, "webhook.py")
	type event struct {
		header http.Header
		body   []byte
	}
	came := make(chan event, 1)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if b, err := io.ReadAll(r.Body); err == nil {
			select {
			case came <- event{r.Header, b}:
			default: // sent again
			}
		}
	}))
	t.Cleanup(receiver.Close)
	config := filepath.Join(t.TempDir(), "chatxray.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, "line: {quiet: 0s}\ndestinations: [{name: ris, kind: webhook, url: %q, secret: %s}]\n", receiver.URL, hookSecret), 0o644); err != nil {
		t.Fatal(err)
	}
	s := serve(t, t.TempDir(), "--config", config, "--reader", "stub")
	file, _ := phantom(t, "--rows", "256", "--columns", "256")
	chatxray(t, 0, "send", s.dicomweb(), file)
	var e event
	select {
	case e = <-came:
	case <-time.After(5 * time.Minute):
		t.Fatal("no event came")
	}
	headers := map[string]string{}
	for name := range e.header {
		headers[name] = e.header.Get(name)
	}
	given, err := json.Marshal(map[string]any{"example": block(t, "destinations.md", "python"), "secret": hookSecret, "headers": headers, "body": e.body})
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = bytes.NewReader(given)
	said(t, cmd, []string{"verify", "refuse another byte", "refuse another id", "refuse another time", "refuse another signature", "refuse another secret"})
}
