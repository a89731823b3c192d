package deliver

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"time"

	"chatxray/pipeline"
)

func init() { register("stow", openSTOW) }

// stow delivers by STOW-RS (PS3.18 section 10.5).
type stow struct {
	*peer
	asking []time.Duration // pauses before each question whether something is there
}

func openSTOW(c Config) (Destination, error) {
	p, err := newPeer(c)
	if err != nil {
		return nil, err
	}
	return &stow{p, []time.Duration{0, time.Second, 3 * time.Second}}, nil
}

// Deliver sends the documents in one request. Only what the receiver names as stored (PS3.18 section 10.5.3.3), or has when it is asked, is delivered.
func (s *stow) Deliver(ctx context.Context, _ pipeline.Record, docs []pipeline.Document) error {
	ctx, cancel := s.limited(ctx)
	defer cancel()
	var files [][]byte
	for _, d := range docs {
		files = append(files, d.Bytes)
	}
	body, contentType := Multipart(files)
	a, err := s.ask(ctx, http.MethodPost, strings.TrimRight(s.URL, "/")+"/studies", body, map[string]string{"Content-Type": contentType, "Accept": "application/dicom+json"})
	if err != nil {
		return err
	}
	unnamed, err := s.judge(a, docs)
	if err != nil || len(unnamed) == 0 {
		return err
	}
	return s.confirm(ctx, a, unnamed)
}

// judge turns a STOW-RS answer into an error, or into those documents of which it says nothing.
func (s *stow) judge(a answer, docs []pipeline.Document) (unnamed []pipeline.Document, err error) {
	if a.status != http.StatusOK && a.status != http.StatusAccepted && a.status != http.StatusConflict {
		return nil, s.hint(s.refused(a), a)
	}
	r, err := parseStored(a.body)
	if err != nil {
		if a.status == http.StatusConflict {
			return nil, s.hint(s.quoting(fmt.Errorf("destination %s answers %d without saying what failed: %w", s.Name, a.status, Permanent), a), a)
		}
		return docs, nil
	}
	if err := s.failures(r); err != nil {
		return nil, s.hint(err, a)
	}
	named := slices.Clone(r.stored)
	for _, f := range r.failed {
		named = append(named, f.uid)
	}
	return slices.DeleteFunc(slices.Clone(docs), func(d pipeline.Document) bool { return slices.Contains(named, d.SOPInstanceUID) }), nil
}

// confirm asks the receiver by QIDO-RS whether it has documents that its answer does not name: an empty 200, a 202 of one that stores later, an answer of
// another form. What it does not have then was not delivered.
func (s *stow) confirm(ctx context.Context, a answer, docs []pipeline.Document) error {
	claim := fmt.Sprintf("destination %s answers %d without naming %d of the instances as stored", s.Name, a.status, len(docs))
	for _, wait := range s.asking {
		if err := pause(ctx, wait); err != nil {
			return fmt.Errorf("%s, and does not show them within %v", claim, s.Timeout)
		}
		var err error
		if docs, err = s.missing(ctx, docs); err != nil {
			return s.quoting(fmt.Errorf("%s, and whether it has them cannot be told: %w", claim, err), a)
		}
		if len(docs) == 0 {
			return nil
		}
	}
	return s.quoting(fmt.Errorf("%s, and a search there does not find %s", claim, docs[0].SOPInstanceUID), a)
}

// missing are those documents that a search (PS3.18 section 10.6) does not find.
func (s *stow) missing(ctx context.Context, docs []pipeline.Document) (left []pipeline.Document, err error) {
	for _, d := range docs {
		q := url.Values{"SOPInstanceUID": {d.SOPInstanceUID}}
		a, err := s.ask(ctx, http.MethodGet, strings.TrimRight(s.URL, "/")+"/studies/"+url.PathEscape(d.StudyInstanceUID)+"/instances?"+q.Encode(), nil,
			map[string]string{"Accept": "application/dicom+json"})
		if err != nil {
			return nil, err
		}
		var found []struct {
			UID struct{ Value []string } `json:"00080018"`
		}
		switch {
		case a.status == http.StatusNoContent:
		case a.status != http.StatusOK:
			return nil, fmt.Errorf("a search there is answered %d", a.status)
		case json.Unmarshal(a.body, &found) != nil:
			return nil, errors.New("a search there is answered with what is no DICOM JSON")
		}
		there := false
		for _, f := range found {
			there = there || slices.Contains(f.UID.Value, d.SOPInstanceUID)
		}
		if !there {
			left = append(left, d)
		}
	}
	return left, nil
}

// failures is a Refusal of the instances that were not stored; nil where there is none. It is permanent unless one of them may be stored
// later.
func (s *stow) failures(a storeAnswer) error {
	refused := &Refusal{}
	var errs []error
	later := false
	for _, f := range a.failed {
		err := fmt.Errorf("destination %s refuses instance %s, failure reason %s", s.Name, f.uid, cmp.Or(f.reason, "not given"))
		switch {
		case f.reason == "0111H" && !s.ByHand: // duplicate SOP instance: it is there
			continue
		case f.reason == "0111H":
			err = fmt.Errorf("%w: it has the instance, perhaps with other content, and keeps its own", err)
		case strings.HasPrefix(f.reason, "A7"), f.reason == "0110H": // out of resources, processing failure
			later = true
		}
		refused.Instances = append(refused.Instances, f.uid)
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

// hint adds to an error what its status hints at and, for somebody who sends by hand, what the server says in words. Nothing that others have worded comes
// into logs.
func (s *stow) hint(err error, a answer) error {
	var said struct{ Error, Message, Details string } // of this product, and of Orthanc
	if s.ByHand && json.Unmarshal(a.body, &said) == nil {
		if w := strings.TrimSpace(cmp.Or(said.Error, said.Details, said.Message)); w != "" {
			err = fmt.Errorf("%w, %.300q", err, w)
		}
	}
	if a.status == http.StatusNotFound || a.status == http.StatusMethodNotAllowed {
		err = fmt.Errorf("%w; the URL must be the root of a DICOMweb service, which often ends in /dicom-web", err)
	}
	return err
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
