package dicomweb_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"chatxray/dicomweb"
	"chatxray/pipeline"
	"chatxray/pipeline/archive"
	"chatxray/pipeline/dicom"
)

// service is a running service over an archive of its own.
type service struct {
	t       testing.TB
	root    string // URL of /dicom-web
	archive *archive.Archive
	log     *logged
}

// logged is what a service has logged so far.
type logged struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// option changes a service before it starts.
type option func(*dicomweb.Config, *dicomweb.Deps, *archive.Options)

func start(t testing.TB, options ...option) *service {
	t.Helper()
	s := &service{t: t, log: &logged{}}
	cfg, deps, opts := dicomweb.Default(), dicomweb.Deps{Lookup: dicom.Lookup, Keyword: dicom.Keyword, Imaging: imaging()}, archive.Options{Header: dicom.OpenHeader}
	deps.Log = zerolog.New(s.log)
	for _, o := range options {
		o(&cfg, &deps, &opts)
	}
	if err := cfg.Check(); err != nil {
		t.Fatal(err)
	}
	var err error
	if deps.Guard, err = dicomweb.NewGuard(cfg, deps.Log); err != nil {
		t.Fatal(err)
	}
	if s.archive, err = archive.Open(t.TempDir(), dicom.OpenFile, opts); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.root = "http://" + l.Addr().String() + dicomweb.Root
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- dicomweb.Serve(ctx, l, dicomweb.New(cfg, s.archive, deps), cfg) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-ended, s.archive.Close()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// host is where the service listens.
func (s *service) host() string {
	return strings.TrimSuffix(strings.TrimPrefix(s.root, "http://"), dicomweb.Root)
}

// imaging is what the product hands in, too.
func imaging() dicomweb.Imaging {
	return dicomweb.Imaging{
		Object:     func(in *pipeline.Instance) (dicomweb.Object, error) { return dicom.OpenObject(in) },
		Transcodes: dicom.Transcodes,
		Assemble:   dicom.Assemble,
		AllowsVR:   dicom.AllowsVR,
	}
}

// object is a data set of the synthetic patient; each pair of edit is a tag and its text.
func object(t testing.TB, study, series, sop string, edit ...any) pipeline.Dataset {
	t.Helper()
	var d pipeline.Dataset
	d.SetText(pipeline.TagSOPClassUID, "UI", "1.2.840.10008.5.1.4.1.1.1.1")
	d.SetText(pipeline.TagSOPInstanceUID, "UI", sop)
	d.SetText(pipeline.TagStudyDate, "DA", "20260102")
	d.SetText(pipeline.TagModality, "CS", "DX")
	d.SetText(pipeline.TagPatientName, "PN", "Probe^Ada")
	d.SetText(pipeline.TagPatientID, "LO", "SECRET-ID-7")
	d.SetText(pipeline.TagStudyInstanceUID, "UI", study)
	d.SetText(pipeline.TagSeriesInstanceUID, "UI", series)
	d.SetText(pipeline.TagSeriesNumber, "IS", "1")
	d.SetText(pipeline.TagInstanceNumber, "IS", "1")
	for i := 0; i < len(edit); i += 2 {
		tag := edit[i].(pipeline.Tag)
		keyword, vr, ok := dicom.Keyword(tag)
		if !ok {
			t.Fatal("no VR of", tag, keyword)
		}
		d.SetText(tag, vr, strings.Split(edit[i+1].(string), `\`)...)
	}
	return d
}

func file(t testing.TB, d pipeline.Dataset) []byte {
	t.Helper()
	b, err := dicom.Encode(d)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// multipartOf frames files as the RFC wants it.
func multipartOf(boundary string, files ...[]byte) []byte {
	var b bytes.Buffer
	for _, f := range files {
		b.WriteString("--" + boundary + "\r\nContent-Type: application/dicom\r\n\r\n")
		b.Write(f)
		b.WriteString("\r\n")
	}
	b.WriteString("--" + boundary + "--\r\n")
	return b.Bytes()
}

// related is the Content-Type for multipartOf.
func related(boundary string) string {
	return `multipart/related; type="application/dicom"; boundary=` + boundary
}

// reply is an answer with its body read.
type reply struct {
	*http.Response
	body []byte
}

func (s *service) do(r *http.Request) reply {
	s.t.Helper()
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return reply{resp, b}
}

// post sends a body; each pair of headers is a name and a value.
func (s *service) post(path, contentType string, body io.Reader, headers ...string) reply {
	s.t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, s.root+path, body)
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Content-Type", contentType)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return s.do(r)
}

func (s *service) get(path string, headers ...string) reply {
	s.t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, s.root+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return s.do(r)
}

// store puts data sets in by STOW-RS.
func (s *service) store(sets ...pipeline.Dataset) {
	s.t.Helper()
	var files [][]byte
	for _, d := range sets {
		files = append(files, file(s.t, d))
	}
	if r := s.post("/studies", related("b"), bytes.NewReader(multipartOf("b", files...))); r.StatusCode != http.StatusOK {
		s.t.Fatalf("%d %s", r.StatusCode, r.body)
	}
}

// kept counts the instances in the archive.
func (s *service) kept() int {
	all, _ := s.archive.Instances(context.Background(), "", "", "")
	return len(all)
}

// jsonModel is a data set in the DICOM JSON model as a client reads it.
type jsonModel map[string]struct {
	VR    string            `json:"vr"`
	Value []json.RawMessage `json:"Value"`
}

func (m jsonModel) items(t testing.TB, tag string) []jsonModel {
	t.Helper()
	var out []jsonModel
	for _, raw := range m[tag].Value {
		var item jsonModel
		if err := json.Unmarshal(raw, &item); err != nil {
			t.Fatal(err)
		}
		out = append(out, item)
	}
	return out
}

// first is the first value of an attribute as JSON text without quotes.
func (m jsonModel) first(tag string) string {
	if v := m[tag].Value; len(v) > 0 {
		return strings.Trim(string(v[0]), `"`)
	}
	return ""
}

func (r reply) model(t testing.TB) jsonModel {
	t.Helper()
	var m jsonModel
	if err := json.Unmarshal(r.body, &m); err != nil {
		t.Fatalf("%v in %s", err, r.body)
	}
	return m
}

func (r reply) models(t testing.TB) []jsonModel {
	t.Helper()
	var m []jsonModel
	if err := json.Unmarshal(r.body, &m); err != nil {
		t.Fatalf("%v in %s", err, r.body)
	}
	return m
}
