package deliver

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"

	"chatxray/pipeline"
)

func init() { register("stow", openSTOW) }

// stow delivers by STOW-RS (PS3.18 section 10.5).
type stow struct {
	Config
	client http.Client
}

func openSTOW(c Config) (Destination, error) {
	u, err := url.Parse(c.URL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, errors.New("url: not an http(s) URL of a DICOMweb service, like http://orthanc:8042/dicom-web")
	}
	if c.Token != "" && c.User != "" {
		return nil, errors.New("token and user exclude each other")
	}
	return &stow{Config: c, client: http.Client{Timeout: c.Timeout,
		// A redirected POST would become a GET, whose 200 says nothing about storing.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}, nil
}

// Deliver sends the documents in one request and reads the answer: what the receiver did not store is an error.
func (s *stow) Deliver(ctx context.Context, docs []pipeline.Document) error {
	var files [][]byte
	for _, d := range docs {
		files = append(files, d.Bytes)
	}
	body, contentType := Multipart(files)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimRight(s.URL, "/")+"/studies", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Accept", "application/dicom+json")
	switch {
	case s.Token != "":
		req.Header.Set("Authorization", "Bearer "+s.Token.Reveal())
	case s.User != "":
		req.SetBasicAuth(s.User, s.Password.Reveal())
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return fmt.Errorf("destination %s does not answer: %w", s.Name, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return fmt.Errorf("destination %s broke off its answer: %w", s.Name, err)
	}
	if to := resp.Header.Get("Location"); resp.StatusCode/100 == 3 {
		return fmt.Errorf("destination %s redirects to %.200s: put that address into the configuration", s.Name, to)
	}
	return s.judge(resp.StatusCode, answer, len(docs))
}

// judge turns status and body of a STOW-RS answer into an error. What an operator or time can change (busy, full, a token that has
// ended, a service that is being set up) is worth another attempt.
func (s *stow) judge(status int, answer []byte, sent int) error {
	said := s.said(status, answer)
	switch {
	case status >= 500, slices.Contains([]int{401, 403, 404, 405, 407, 408, 425, 429}, status):
		return fmt.Errorf("destination %s answers %d%s", s.Name, status, said)
	case status != http.StatusOK && status != http.StatusAccepted && status != http.StatusConflict:
		return fmt.Errorf("destination %s answers %d%s: %w", s.Name, status, said, Permanent)
	}
	var r storeAnswer
	if err := json.Unmarshal(answer, &r); err != nil {
		if status == http.StatusOK && (len(answer) == 0 || answer[0] == '<' && !bytes.Contains(bytes.ToLower(answer[:min(512, len(answer))]), []byte("<html"))) {
			return nil // XML, or nothing: the status has said it
		}
		return fmt.Errorf("destination %s answers %d without saying what failed: %w", s.Name, status, Permanent)
	}
	if err := s.failures(r); err != nil {
		return err
	}
	if n := len(r.Stored.Value) + len(r.Failed.Value); n < sent {
		return fmt.Errorf("destination %s answers for %d of %d instances%s", s.Name, n, sent, said)
	}
	return nil
}

// storeAnswer is what an answer says of each instance (PS3.18 annex I).
type storeAnswer struct {
	Stored struct{ Value []json.RawMessage } `json:"00081199"`
	Failed struct {
		Value []struct {
			UID    struct{ Value []string } `json:"00081155"`
			Reason struct{ Value []int }    `json:"00081197"`
		}
	} `json:"00081198"`
}

// failures is a Refusal of the instances that were not stored; nil where there is none. It is permanent unless one of them may be stored
// later.
func (s *stow) failures(a storeAnswer) error {
	refused := &Refusal{}
	var errs []error
	later := false
	for _, f := range a.Failed.Value {
		uid, reason := strings.Join(f.UID.Value, ""), 0
		if len(f.Reason.Value) > 0 {
			reason = f.Reason.Value[0]
		}
		err := fmt.Errorf("destination %s refuses instance %s, failure reason %s", s.Name, uid, hexReasons(f.Reason.Value))
		switch {
		case reason == 0x0111 && !s.ByHand: // duplicate SOP instance: it is there
			continue
		case reason == 0x0111:
			err = fmt.Errorf("%w: it has the instance, perhaps with other content, and keeps its own", err)
		case reason>>8 == 0xA7, reason == 0x0110: // out of resources, processing failure
			later = true
		}
		refused.Instances = append(refused.Instances, uid)
		if len(errs) < 20 {
			errs = append(errs, err)
		}
	}
	if len(errs) == 0 {
		return nil
	}
	if refused.err = errors.Join(errs...); !later {
		refused.err = fmt.Errorf("%w: %w", refused.err, Permanent)
	}
	return refused
}

// said is what a server says in words, for somebody who sends by hand, and what its status hints at. Into logs and records comes nothing
// that others have worded.
func (s *stow) said(status int, answer []byte) string {
	var a struct{ Error, Message, Details string } // of this product, and of Orthanc
	words := ""
	if s.ByHand && json.Unmarshal(answer, &a) == nil {
		if w := strings.TrimSpace(cmp.Or(a.Error, a.Details, a.Message)); w != "" {
			words = fmt.Sprintf(", %.300q", w)
		}
	}
	if status == http.StatusNotFound || status == http.StatusMethodNotAllowed {
		words += "; the URL must be the root of a DICOMweb service, which often ends in /dicom-web"
	}
	return words
}

func hexReasons(codes []int) string {
	if len(codes) == 0 {
		return "not given"
	}
	return fmt.Sprintf("%04XH", codes[0])
}

// Multipart builds the body of a STOW-RS request (multipart/related; application/dicom, PS3.18 section 8.6.1.2) and its Content-Type.
func Multipart(files [][]byte) (body []byte, contentType string) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for _, f := range files {
		part, _ := w.CreatePart(textproto.MIMEHeader{"Content-Type": {"application/dicom"}}) // a bytes.Buffer does not fail
		_, _ = part.Write(f)
	}
	_ = w.Close()
	return b.Bytes(), `multipart/related; type="application/dicom"; boundary=` + w.Boundary()
}
