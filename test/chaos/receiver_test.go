package chaos

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// receiver stands before the receiving Orthanc and counts what that stores. It can behave badly for a while.
type receiver struct {
	*front
	pacs string // root of Orthanc

	counts  sync.Mutex
	stored  map[string]map[string][]*storing // by study and SOP Instance UID: when Orthanc has said that it has it
	content map[string][32]byte              // by SOP Instance UID
	other   []string                         // documents that came with other content than before
}

func newReceiver(t *testing.T, pacs string) *receiver {
	t.Helper()
	r := &receiver{pacs: pacs, stored: map[string]map[string][]*storing{}, content: map[string][32]byte{}}
	r.front = newFront(t, r)
	return r
}

// ServeHTTP implements http.Handler.
func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	this := storing{came: time.Now()}
	gone := make(chan time.Time, 1)
	defer context.AfterFunc(q.Context(), func() { gone <- time.Now() })()
	body, err := io.ReadAll(q.Body)
	if err != nil {
		return
	}
	mode := r.now()
	switch mode {
	case "receiver hangs":
		r.hang(mode)
	case "receiver 503":
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	case "receiver 202 refused":
		var failed []any
		for _, d := range documents(q.Header.Get("Content-Type"), body) {
			failed = append(failed, map[string]any{"00081150": value("UI", d.class), "00081155": value("UI", d.sop), "00081197": value("US", 0xA700)})
		}
		w.Header().Set("Content-Type", "application/dicom+json")
		w.WriteHeader(http.StatusAccepted)
		_ = json.NewEncoder(w).Encode(map[string]any{"00081198": map[string]any{"vr": "SQ", "Value": failed}})
		return
	}
	status, header, answer, stored := r.forward(q, body)
	defer func() {
		this.ended = time.Now()
		if q.Context().Err() != nil {
			this.sure, this.ended = false, <-gone
		}
		if late := this.came.Add(promptly); this.ended.After(late) {
			this.sure, this.ended = false, late
		}
		r.counts.Lock()
		defer r.counts.Unlock()
		for _, s := range stored {
			*s = this
		}
	}()
	switch {
	case mode == "receiver breaks off" || status == 0:
		panic(http.ErrAbortHandler) // the connection ends without an answer
	case mode == "receiver 202" && status == http.StatusOK:
		status = http.StatusAccepted
	}
	w.Header().Set("Content-Type", header.Get("Content-Type"))
	w.WriteHeader(status)
	_, err = w.Write(answer)
	this.sure = errors.Join(err, http.NewResponseController(w).Flush()) == nil && r.now() != "receiver refuses" // that closes connections
}

// forward gives a request to Orthanc and counts what it says that it has.
func (r *receiver) forward(q *http.Request, body []byte) (status int, header http.Header, answer []byte, stored []*storing) {
	to, err := http.NewRequest(q.Method, r.pacs+q.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		return 0, nil, nil, nil
	}
	to.Header = q.Header.Clone()
	to.Header.Del("Accept-Encoding") // what Orthanc says is read here
	resp, err := patient.Do(to)
	if err != nil {
		return 0, nil, nil, nil
	}
	defer resp.Body.Close()
	if answer, err = io.ReadAll(resp.Body); err != nil {
		return 0, nil, nil, nil
	}
	r.counts.Lock()
	defer r.counts.Unlock()
	for _, d := range documents(q.Header.Get("Content-Type"), body) {
		if !bytes.Contains(answer, []byte(d.sop)) || resp.StatusCode/100 != 2 {
			continue
		}
		if r.stored[d.study] == nil {
			r.stored[d.study] = map[string][]*storing{}
		}
		s := &storing{}
		stored, r.stored[d.study][d.sop] = append(stored, s), append(r.stored[d.study][d.sop], s)
		if c, known := r.content[d.sop]; known && c != d.digest {
			r.other = append(r.other, d.sop)
		}
		r.content[d.sop] = d.digest
	}
	return resp.StatusCode, resp.Header, answer, stored
}

// of returns what Orthanc has stored of a study, each time that it was told to.
func (r *receiver) of(study string) map[string][]storing {
	r.counts.Lock()
	defer r.counts.Unlock()
	out := map[string][]storing{}
	for sop, all := range r.stored[study] {
		for _, s := range all {
			out[sop] = append(out[sop], *s)
		}
	}
	return out
}

type document struct {
	study, sop, class string
	digest            [32]byte
}

// documents takes the body of a STOW-RS request apart.
func documents(contentType string, body []byte) (all []document) {
	_, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return nil
	}
	for parts := multipart.NewReader(bytes.NewReader(body), params["boundary"]); ; {
		p, err := parts.NextRawPart()
		if err != nil {
			return all
		}
		b, err := io.ReadAll(p)
		if err != nil {
			return all
		}
		all = append(all, document{study: uidIn(b, 0x0020, 0x000D), sop: uidIn(b, 0x0002, 0x0003), class: uidIn(b, 0x0002, 0x0002), digest: sha256.Sum256(b)})
	}
}

// uidIn finds the value of an attribute with the VR UI in a file in Explicit VR Little Endian by looking for its bytes; the product's parser would
// be no independent witness.
func uidIn(file []byte, group, element uint16) string {
	tag := binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(nil, group), element)
	i := bytes.Index(file, append(tag, 'U', 'I'))
	if i < 0 || i+8 > len(file) {
		return ""
	}
	n := int(binary.LittleEndian.Uint16(file[i+6:]))
	return strings.TrimRight(string(file[i+8:min(len(file), i+8+n)]), "\x00 ")
}

func value(vr string, v any) map[string]any { return map[string]any{"vr": vr, "Value": []any{v}} }
