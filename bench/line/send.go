package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/textproto"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"chatxray/phantom"
	"chatxray/pipeline"
	"chatxray/pipeline/dicom"
)

// The radiograph of every study is the same file with other UIDs, which all have the same length.
var template = sync.OnceValues(func() ([]byte, error) {
	p, err := phantom.Draw(phantom.Options{Seed: 1, Rows: phantom.LeastSide, Columns: phantom.LeastSide})
	if err != nil {
		return nil, err
	}
	ds := p.Dataset()
	ds.SetText(pipeline.TagStudyInstanceUID, "UI", uidOf(1, 0))
	ds.SetText(pipeline.TagSeriesInstanceUID, "UI", uidOf(2, 0))
	ds.SetText(pipeline.TagSOPInstanceUID, "UI", uidOf(3, 0))
	ds.SetText(pipeline.TagRequestedProcedurePriority, "SH", "MEDIUM")
	var b bytes.Buffer
	err = dicom.Write(&b, ds, "1.2.840.10008.1.2.1")
	return b.Bytes(), err
})

func uidOf(kind, n int) string {
	v := new(big.Int).Lsh(big.NewInt(int64(10+kind)), 120)
	return "2.25." + v.Add(v, big.NewInt(int64(n))).String()
}

func (b *bench) uid(n int) string { return uidOf(1, n) }

// store sends n new studies of one radiograph each, so many in a request and so many requests at a time.
func (s *service) store(b *bench, n, each, parallel int, priority string) error {
	t, err := template()
	if err != nil {
		return err
	}
	if priority != "" {
		t = bytes.Replace(t, []byte("MEDIUM"), []byte(fmt.Sprintf("%-6s", priority)), 1)
	}
	var work errgroup.Group
	work.SetLimit(parallel)
	for n > 0 {
		k, first := min(n, each), b.next
		n, b.next = n-k, b.next+k
		work.Go(func() error {
			var body bytes.Buffer
			w := multipart.NewWriter(&body)
			for i := range k {
				file := t
				for kind := 1; kind <= 3; kind++ {
					file = bytes.ReplaceAll(file, []byte(uidOf(kind, 0)), []byte(uidOf(kind, first+i)))
				}
				p, _ := w.CreatePart(textproto.MIMEHeader{"Content-Type": {"application/dicom"}})
				_, _ = p.Write(file)
			}
			_ = w.Close()
			resp, err := http.Post(s.web.root+"/dicom-web/studies", `multipart/related; type="application/dicom"; boundary=`+w.Boundary(), &body)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if said, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
				return fmt.Errorf("STOW-RS answers %s: %.500s (%w)", resp.Status, said, err)
			}
			return nil
		})
	}
	return work.Wait()
}

// receiver answers every STOW-RS request that it has stored all; while it holds, it answers nothing.
type receiver struct {
	*http.Server
	addr string
	gate sync.RWMutex
	held bool
}

func newReceiver() (*receiver, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &receiver{addr: l.Addr().String()}
	r.Server = &http.Server{Handler: r, ReadHeaderTimeout: time.Minute}
	go func() { _ = r.Serve(l) }()
	return r, nil
}

func (r *receiver) hold(on bool) {
	if on && !r.held {
		r.gate.Lock()
	} else if !on && r.held {
		r.gate.Unlock()
	}
	r.held = on
}

// ServeHTTP implements http.Handler: it names each part as stored (PS3.18 section 10.5.3.3), by what its File Meta Information says.
func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	var stored []any
	_, params, _ := mime.ParseMediaType(q.Header.Get("Content-Type"))
	for parts := multipart.NewReader(q.Body, params["boundary"]); ; {
		p, err := parts.NextRawPart()
		if err != nil {
			break
		}
		file, _ := io.ReadAll(p)
		stored = append(stored, map[string]any{"00081150": element(metaUID(file, 2)), "00081155": element(metaUID(file, 3))})
	}
	r.gate.RLock()
	defer r.gate.RUnlock()
	w.Header().Set("Content-Type", "application/dicom+json")
	_ = json.NewEncoder(w).Encode(map[string]any{"00081199": map[string]any{"vr": "SQ", "Value": stored}})
}

func element(uid string) any { return map[string]any{"vr": "UI", "Value": []string{uid}} }

// metaUID is the UID (0002,00NN) of a file.
func metaUID(file []byte, number byte) string {
	_, rest, ok := bytes.Cut(file, []byte{2, 0, number, 0, 'U', 'I'})
	if !ok || len(rest) < 2 || len(rest) < 2+int(rest[0]) {
		return ""
	}
	return string(bytes.TrimRight(rest[2:2+int(rest[0])], "\x00"))
}
