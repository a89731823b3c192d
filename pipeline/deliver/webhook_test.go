package deliver_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"chatxray/pipeline"
	"chatxray/pipeline/deliver"
)

// verify lets the library of the Standard Webhooks project look at a request.
func verify(h http.Header, body []byte) error {
	w, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		return err
	}
	return w.Verify(body, h)
}

// The signature is what others verify, and fails where a byte of body, id, time or secret is another; the event names things and tells nothing of the patient;
// a repeat has the id and the body of the first.
func TestWebhookIsSigned(t *testing.T) {
	var heads []http.Header
	var bodies [][]byte
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		heads, bodies = append(heads, r.Header.Clone()), append(bodies, b)
		w.WriteHeader(http.StatusNoContent)
	}))
	defer srv.Close()
	hook, err := deliver.Open(deliver.Config{Name: "ris", Kind: "webhook", URL: srv.URL, Secret: secret})
	if err != nil {
		t.Fatal(err)
	}
	rec := pipeline.Record{Key: "k", StudyInstanceUID: "1.2", State: pipeline.StateReported, Reported: time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC),
		Reading: &pipeline.Reading{Revision: 2, Model: pipeline.ModelRef{Name: "m", Version: "1"}, Inputs: []pipeline.InputRef{{SOPInstanceUID: "1.2.1"}},
			Sentences: []pipeline.Sentence{{Text: "Large effusion."}}}}
	doc := pipeline.Document{Kind: pipeline.FindingsSR, StudyInstanceUID: "1.2", SeriesInstanceUID: "1.2.9", SOPInstanceUID: "1.2.9.1", SOPClassUID: "1.2.3", Bytes: []byte("Probe^Ada")}
	for range 2 {
		if err := hook.Deliver(t.Context(), rec, []pipeline.Document{doc}); err != nil {
			t.Fatal(err)
		}
	}
	rec.Key = "other"
	if err := hook.Deliver(t.Context(), rec, []pipeline.Document{doc}); err != nil {
		t.Fatal(err)
	}
	for i, h := range heads {
		if err := verify(h, bodies[i]); err != nil {
			t.Error(err)
		}
	}
	if heads[0].Get("webhook-id") != heads[1].Get("webhook-id") || !bytes.Equal(bodies[0], bodies[1]) || heads[0].Get("webhook-id") == heads[2].Get("webhook-id") {
		t.Errorf("ids %s, %s, %s", heads[0].Get("webhook-id"), heads[1].Get("webhook-id"), heads[2].Get("webhook-id"))
	}
	for _, change := range []func(http.Header, *[]byte){
		func(_ http.Header, b *[]byte) { *b = append(bytes.Clone(*b), ' ') },
		func(h http.Header, _ *[]byte) { h.Set("webhook-id", "msg_other") },
		func(h http.Header, _ *[]byte) { h.Set("webhook-timestamp", h.Get("webhook-timestamp")[:9]+"x") },
		func(h http.Header, _ *[]byte) {
			h.Set("webhook-timestamp", "1700000000")
		},
	} {
		h, b := heads[0].Clone(), bodies[0]
		if change(h, &b); verify(h, b) == nil {
			t.Errorf("a changed request is verified: %v", h)
		}
	}
	var e deliver.Event
	if err := json.Unmarshal(bodies[0], &e); err != nil || e.Type != "study.reported" || e.Data.StudyInstanceUID != "1.2" || e.Data.Revision != 2 || e.Data.Model.Name != "m" ||
		len(e.Data.Documents) != 1 || e.Data.Documents[0].SOPInstanceUID != "1.2.9.1" || e.Data.Images[0] != "1.2.1" {
		t.Errorf("%v %s", err, bodies[0])
	}
	if strings.Contains(string(bodies[0]), "effusion") || strings.Contains(string(bodies[0]), "Probe") {
		t.Errorf("the event tells too much: %s", bodies[0])
	}
}
