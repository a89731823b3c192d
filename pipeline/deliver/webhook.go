package deliver

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"chatxray/pipeline"
)

func init() { register("webhook", openWebhook) }

// webhook tells an HTTP endpoint that a study has been reported, signed as the Standard Webhooks specification says (github.com/standard-webhooks).
type webhook struct {
	*peer
	key []byte
	now func() time.Time
}

func openWebhook(c Config) (Destination, error) {
	p, err := newPeer(c)
	key, kerr := signingKey(c.Secret)
	if err := errors.Join(err, kerr); err != nil {
		return nil, err
	}
	return &webhook{p, key, time.Now}, nil
}

// signingKey reads whsec_ and the base64 of 24 to 64 bytes.
func signingKey(s pipeline.Secret) ([]byte, error) {
	if s == "" {
		return nil, errors.New("secret: is missing; a webhook is signed with it (whsec_ and 24 to 64 bytes in base64, made by: printf whsec_; openssl rand -base64 32)")
	}
	text, marked := strings.CutPrefix(s.Reveal(), "whsec_")
	key, err := base64.StdEncoding.DecodeString(text)
	if !marked || err != nil || len(key) < 24 || len(key) > 64 {
		return nil, errors.New("secret: is not whsec_ and 24 to 64 bytes in base64")
	}
	return key, nil
}

// Event is the body of a webhook. It names things and says nothing of what is in them.
type Event struct {
	Type      string    `json:"type"`      // study.reported
	Timestamp time.Time `json:"timestamp"` // when the documents were on disk
	Data      EventData `json:"data"`
}

// EventData names a reading and its documents.
type EventData struct {
	StudyInstanceUID string         `json:"study_instance_uid"`
	State            pipeline.State `json:"state"`
	Revision         int            `json:"revision"`
	Model            EventModel     `json:"model"`
	Images           []string       `json:"images"` // SOP Instance UIDs of what was read
	Documents        []EventRef     `json:"documents"`
}

// EventModel names a model.
type EventModel struct {
	Name    string          `json:"name"`
	Version string          `json:"version"`
	Digest  pipeline.Digest `json:"digest"`
}

// EventRef names a document.
type EventRef struct {
	Kind              pipeline.DocumentKind `json:"kind"`
	SeriesInstanceUID string                `json:"series_instance_uid"`
	SOPInstanceUID    string                `json:"sop_instance_uid"`
	SOPClassUID       string                `json:"sop_class_uid"`
}

// event is that of a record, with an id that a repeat has again.
func event(rec pipeline.Record, docs []pipeline.Document) (e Event, id string) {
	e = Event{Type: "study.reported", Timestamp: rec.Reported.UTC(), Data: EventData{StudyInstanceUID: rec.StudyInstanceUID, State: rec.State, Images: []string{}, Documents: []EventRef{}}}
	if r := rec.Reading; r != nil {
		e.Data.Revision, e.Data.Model = r.Revision, EventModel{r.Model.Name, r.Model.Version, r.Model.Digest}
		for _, in := range r.Inputs {
			e.Data.Images = append(e.Data.Images, in.SOPInstanceUID)
		}
	}
	h := sha256.New()
	fmt.Fprintln(h, e.Type, rec.StudyInstanceUID, rec.Key)
	for _, d := range docs {
		e.Data.Documents = append(e.Data.Documents, EventRef{d.Kind, d.SeriesInstanceUID, d.SOPInstanceUID, d.SOPClassUID})
		fmt.Fprintln(h, d.SOPInstanceUID)
	}
	return e, "msg_" + hex.EncodeToString(h.Sum(nil)[:16])
}

// Deliver posts the event of a record. Any 2xx is a receipt, whatever its body.
func (w *webhook) Deliver(ctx context.Context, rec pipeline.Record, docs []pipeline.Document) error {
	ctx, cancel := w.limited(ctx)
	defer cancel()
	e, id := event(rec, docs)
	body, err := json.Marshal(e)
	if err != nil {
		return err
	}
	at := strconv.FormatInt(w.now().Unix(), 10)
	a, err := w.ask(ctx, http.MethodPost, w.URL, body, map[string]string{"Content-Type": "application/json",
		"webhook-id": id, "webhook-timestamp": at, "webhook-signature": "v1," + w.sign(id, at, body)})
	if err != nil {
		return err
	}
	if a.status/100 != 2 {
		return w.refused(a)
	}
	return nil
}

func (w *webhook) sign(id, at string, body []byte) string {
	mac := hmac.New(sha256.New, w.key)
	fmt.Fprintf(mac, "%s.%s.%s", id, at, body)
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}
