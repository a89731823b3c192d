package deliver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"chatxray/pipeline"
	"chatxray/pipeline/archive"
	"chatxray/pipeline/deliver"
	"chatxray/pipeline/dicom"
	"chatxray/pipeline/jobs"
)

const secret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="

// other is the other side of a destination.
type other interface {
	config() deliver.Config
	// fail lets it fail from now on in a way; false where its kind cannot. "" heals it.
	fail(how string) bool
	// got tells how many times each document was taken; stored which it has now.
	got() (taken map[string]int, stored map[string][]byte)
}

// others has the other side of every kind.
var others = map[string]func(t *testing.T) other{
	"stow":    func(t *testing.T) other { return newHTTP(t, "stow", takeInstances) },
	"webhook": func(t *testing.T) other { return newHTTP(t, "webhook", takeEvent) },
	"folder": func(t *testing.T) other {
		return &dir{path: filepath.Join(t.TempDir(), "results"), away: filepath.Join(t.TempDir(), "unmounted")}
	},
}

// each runs a test for every registered kind.
func each(t *testing.T, f func(t *testing.T, o other)) {
	for _, kind := range deliver.Kinds() {
		if others[kind] == nil {
			t.Errorf("the kind %s has no other side in this suite", kind)
			continue
		}
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			o := others[kind](t)
			o.fail("")
			f(t, o)
		})
	}
}

func TestDeliveredOnce(t *testing.T) {
	each(t, func(t *testing.T, o other) {
		s := open(t, t.TempDir(), o)
		s.seed(t, 8)
		s.run(t)
		s.delivered(t, 8)
		taken, stored := o.got()
		for uid, n := range taken {
			if n != 1 {
				t.Errorf("%s was taken %d times", uid, n)
			}
		}
		if len(stored) != 16 {
			t.Errorf("%d documents are there", len(stored))
		}
		for _, st := range s.records(t) {
			if d := st.Deliveries["there"]; d.Attempts != 1 || d.Error != "" || !d.Failing.IsZero() {
				t.Errorf("%+v", d)
			}
		}
	})
}

func TestTriedAgain(t *testing.T) {
	for how, says := range map[string]string{"refused": "", "500": "answers 500", "503": "answers 503", "hang": "no whole answer within 400ms", "half": "broke off", "moved": "redirects to http://elsewhere.example/", "401": "answers 401"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			each(t, func(t *testing.T, o other) {
				if !o.fail(how) {
					return
				}
				s := open(t, t.TempDir(), o)
				s.seed(t, 1)
				s.run(t)
				var d pipeline.Delivery
				s.until(t, "a failure", func() bool { d = *s.records(t)[0].Deliveries["there"]; return d.Error != "" })
				if !strings.Contains(d.Error, says) || d.Dead || d.Next.IsZero() || d.Answer != "" && strings.Contains(d.Error, d.Answer) {
					t.Errorf("%+v", d)
				}
				o.fail("")
				s.delivered(t, 1)
				if d := s.records(t)[0].Deliveries["there"]; d.Attempts < 2 || d.Error != "" || !d.Next.IsZero() {
					t.Errorf("%+v", d)
				}
			})
		})
	}
}

// What is refused for good waits for a person, with what the other side says beside it, and holds up no other.
func TestRefusedForGood(t *testing.T) {
	each(t, func(t *testing.T, o other) {
		s := open(t, t.TempDir(), o)
		s.seed(t, 4)
		o.fail("no 1.2.3")
		log := s.run(t)
		s.until(t, "three deliveries and a refusal", func() bool {
			n := 0
			for _, r := range s.records(t) {
				if d := r.Deliveries["there"]; d.Dead || !d.Delivered.IsZero() {
					n++
				}
			}
			return n == 4
		})
		for _, r := range s.records(t) {
			d := r.Deliveries["there"]
			if refused := r.StudyInstanceUID == "1.2.3"; d.Dead != refused || refused && (d.Attempts != 1 || !strings.Contains(d.Error, "refused for good")) {
				t.Errorf("%s: %+v", r.StudyInstanceUID, d)
			} else if refused && s.line.Destinations[0].Answers().Kind != "folder" && (!strings.Contains(d.Answer, "we do not want it") || len([]rune(d.Answer)) > 501) {
				t.Errorf("the answer is kept as %q", d.Answer)
			}
		}
		if strings.Contains(log.String(), "we do not want it") {
			t.Error("the log quotes the other side")
		}
		o.fail("")
		if err := s.line.Retry(t.Context(), "1.2.3", "there", ""); err != nil {
			t.Fatal(err)
		}
		s.delivered(t, 4)
	})
}

// The process ends after the other side has taken the documents and before that is noted.
func TestTakenUpAfterACrash(t *testing.T) {
	each(t, func(t *testing.T, o other) {
		data := t.TempDir()
		s := open(t, data, o)
		s.seed(t, 3)
		how := "take and hang"
		if !o.fail(how) {
			how = "refused"
			o.fail(how)
		}
		s.run(t)
		s.until(t, "an attempt", func() bool {
			taken, _ := o.got()
			return len(taken) > 0 || how == "refused" && s.records(t)[0].Deliveries["there"].Error != ""
		})
		s.close()
		o.fail("")
		s = open(t, data, o)
		s.run(t)
		s.delivered(t, 3)
		if _, stored := o.got(); len(stored) != 6 {
			t.Errorf("%d documents are there", len(stored))
		}
	})
}

// An answer without an end, or one of gigabytes, costs neither memory nor the delivery.
func TestEndlessAnswer(t *testing.T) {
	each(t, func(t *testing.T, o other) {
		if !o.fail("endless") {
			return
		}
		s := open(t, t.TempDir(), o)
		s.seed(t, 1)
		s.run(t)
		s.delivered(t, 1) // of a webhook the status says it, of STOW-RS a search
	})
}

// site is an archive with a line that only delivers.
type site struct {
	arch  *archive.Archive
	line  *pipeline.Line
	close func()
	begin func(log *syncBuffer)
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}
func (s *syncBuffer) String() string { s.mu.Lock(); defer s.mu.Unlock(); return s.b.String() }

func open(t *testing.T, data string, o other) *site {
	t.Helper()
	arch, err := archive.Open(data, dicom.OpenFile, archive.Options{})
	if err != nil {
		t.Fatal(err)
	}
	claims, err := jobs.Open(t.Context(), jobs.Default())
	if err != nil {
		t.Fatal(err)
	}
	cfg := o.config()
	cfg.Name, cfg.Timeout = "there", 400*time.Millisecond
	to, err := deliver.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s := &site{arch: arch}
	s.line = &pipeline.Line{Config: pipeline.DefaultLine(), Archive: arch, Studies: claims.Queue("studies"), Claims: claims, Worker: "here", Now: time.Now, Log: zerolog.Nop()}
	s.line.Destinations = []pipeline.Destination{deliver.NewCircuit(cfg, to, func(pipeline.DestinationState) {}).Destination(claims.Queue("to"))}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	s.begin = func(log *syncBuffer) {
		s.line.Log = zerolog.New(log)
		go func() { defer close(ended); _ = s.line.Run(ctx, ctx) }()
	}
	var once sync.Once
	s.close = func() {
		once.Do(func() {
			cancel()
			if s.line.Log.GetLevel() != zerolog.Disabled {
				<-ended
			}
			claims.Close()
			if err := arch.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(s.close)
	return s
}

func (s *site) run(t *testing.T) *syncBuffer {
	log := &syncBuffer{}
	s.begin(log)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(log.String())
		}
	})
	return log
}

// seed makes n studies, 1.2.1 and so on, with two documents each that are to be delivered.
func (s *site) seed(t *testing.T, n int) {
	t.Helper()
	for i := range n {
		study := fmt.Sprint("1.2.", i+1)
		staged, err := s.arch.Stage(t.Context(), bytes.NewReader(object(t, study, study+".1", study+".1.1", "1.2.840.10008.5.1.4.1.1.1.1")))
		if err != nil {
			t.Fatal(err)
		}
		if o := s.arch.Commit(t.Context(), []*pipeline.Staged{staged}); o[0].Err != nil {
			t.Fatal(o[0].Err)
		}
		var docs []pipeline.Document
		var refs []pipeline.DocumentRef
		for j, kind := range []pipeline.DocumentKind{pipeline.FindingsSR, pipeline.NarrativeSR} {
			d := pipeline.Document{Kind: kind, StudyInstanceUID: study, SeriesInstanceUID: study + ".9", SOPInstanceUID: fmt.Sprint(study, ".9.", j+1), SOPClassUID: "1.2.840.10008.5.1.4.1.1.88.11"}
			d.Bytes = object(t, study, d.SeriesInstanceUID, d.SOPInstanceUID, d.SOPClassUID)
			docs, refs = append(docs, d), append(refs, pipeline.DocumentRef{Kind: kind, SeriesInstanceUID: d.SeriesInstanceUID, SOPInstanceUID: d.SOPInstanceUID, SOPClassUID: d.SOPClassUID})
		}
		if _, err := s.arch.Report(t.Context(), pipeline.Life{StudyInstanceUID: study}, "k", docs, func(r *pipeline.Record) {
			r.State, r.Documents, r.Completed, r.Reported, r.Deliveries = pipeline.StateReported, refs, time.Now(), time.Now(), map[string]*pipeline.Delivery{"there": {}}
			r.Reading = &pipeline.Reading{Revision: 1, Model: pipeline.ModelRef{Name: "m", Version: "1"}, Inputs: []pipeline.InputRef{{SOPInstanceUID: study + ".1.1"}}}
		}, pipeline.Change{At: time.Now(), State: pipeline.StateReported}); err != nil {
			t.Fatal(err)
		}
	}
}

func object(t *testing.T, study, series, sop, class string) []byte {
	var d pipeline.Dataset
	d.SetText(pipeline.TagSOPClassUID, "UI", class)
	d.SetText(pipeline.TagSOPInstanceUID, "UI", sop)
	d.SetText(pipeline.TagPatientName, "PN", "Probe^Ada")
	d.SetText(pipeline.TagPatientID, "LO", "P1")
	d.SetText(pipeline.TagStudyInstanceUID, "UI", study)
	d.SetText(pipeline.TagSeriesInstanceUID, "UI", series)
	b, err := dicom.Encode(d)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (s *site) records(t *testing.T) (all []pipeline.Record) {
	t.Helper()
	for i := 1; ; i++ {
		r, err := s.arch.Records(t.Context(), fmt.Sprint("1.2.", i))
		if err != nil {
			t.Fatal(err)
		}
		if len(r) == 0 {
			return all
		}
		all = append(all, r...)
	}
}

func (s *site) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func (s *site) delivered(t *testing.T, n int) {
	t.Helper()
	s.until(t, "all to be delivered", func() bool {
		lives, err := s.arch.Lives(t.Context(), pipeline.StateDelivered, "", 100)
		if err != nil {
			t.Fatal(err)
		}
		return len(lives) == n
	})
}

// dir is a folder.
type dir struct{ path, away string }

func (d *dir) config() deliver.Config {
	return deliver.Config{Kind: "folder", Path: d.path, Layout: "{StudyInstanceUID}/{Kind}/{SOPInstanceUID}.dcm"}
}

func (d *dir) fail(how string) bool {
	study, refuse := strings.CutPrefix(how, "no ")
	switch {
	case how == "":
		_ = os.Rename(d.away, d.path)
		_ = os.MkdirAll(d.path, 0o750)
		_ = os.Remove(filepath.Join(d.path, "1.2.3", "findings", "1.2.3.9.1.dcm"))
	case how == "refused":
		_ = os.Rename(d.path, d.away)
	case refuse:
		name := filepath.Join(d.path, study, "findings", study+".9.1.dcm")
		_ = os.MkdirAll(filepath.Dir(name), 0o750)
		_ = os.WriteFile(name, []byte("another"), 0o640)
	default:
		return false
	}
	return true
}

func (d *dir) got() (taken map[string]int, stored map[string][]byte) {
	taken, stored = map[string]int{}, map[string][]byte{}
	_ = filepath.WalkDir(d.path, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			b, _ := os.ReadFile(path)
			taken[e.Name()], stored[e.Name()] = 1, b
		}
		return nil
	})
	return taken, stored
}

// server is an HTTP receiver.
type server struct {
	kind string
	addr string
	take func(r *http.Request) (map[string][]byte, error) // what a request brings, by UID

	mu     sync.Mutex
	how    string
	srv    *http.Server
	taken  map[string]int
	stored map[string][]byte
}

func newHTTP(t *testing.T, kind string, take func(*http.Request) (map[string][]byte, error)) *server {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{kind: kind, addr: l.Addr().String(), take: take, taken: map[string]int{}, stored: map[string][]byte{}}
	s.start(l)
	t.Cleanup(func() { s.srv.Close() })
	return s
}

func (s *server) start(l net.Listener) {
	s.srv = &http.Server{Handler: s}
	go func(srv *http.Server) { _ = srv.Serve(l) }(s.srv)
}

func (s *server) config() deliver.Config {
	c := deliver.Config{Kind: s.kind, URL: "http://" + s.addr + "/in"}
	if s.kind == "webhook" {
		c.Secret = secret
	}
	return c
}

func (s *server) fail(how string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if how == "refused" {
		s.srv.Close()
	} else if s.how == "refused" {
		for range 500 {
			if l, err := net.Listen("tcp", s.addr); err == nil {
				s.start(l)
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	s.how = how
	return true
}

func (s *server) got() (map[string]int, map[string][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.taken), maps.Clone(s.stored)
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	how := s.how
	s.mu.Unlock()
	if r.Method == http.MethodGet { // a search of STOW-RS's sender
		s.mu.Lock()
		_, there := s.stored[r.URL.Query().Get("SOPInstanceUID")]
		s.mu.Unlock()
		if there {
			fmt.Fprintf(w, `[{"00080018":{"vr":"UI","Value":[%q]}}]`, r.URL.Query().Get("SOPInstanceUID"))
		}
		return
	}
	docs, err := s.take(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	study, refuse := strings.CutPrefix(how, "no ")
	for uid := range docs {
		if refuse && strings.HasPrefix(uid, study+".") {
			w.WriteHeader(http.StatusUnprocessableEntity)
			_, _ = io.WriteString(w, "we do not want it\x00\n"+strings.Repeat("x", 10000))
			return
		}
	}
	switch how {
	case "500", "503", "401":
		w.WriteHeader(map[string]int{"500": 500, "503": 503, "401": 401}[how])
		_, _ = io.WriteString(w, "a sentence of others")
		return
	case "hang":
		<-r.Context().Done()
		return
	case "half":
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "half")
		return
	case "moved":
		w.Header().Set("Location", "http://elsewhere.example/?key=hidden")
		w.WriteHeader(http.StatusTemporaryRedirect)
		return
	}
	var stored []string
	s.mu.Lock()
	for uid, b := range docs {
		s.taken[uid]++
		s.stored[uid] = b
		stored = append(stored, fmt.Sprintf(`{"00081155":{"vr":"UI","Value":[%q]}}`, uid))
	}
	s.mu.Unlock()
	switch how {
	case "take and hang":
		<-r.Context().Done()
	case "endless":
		for b := make([]byte, 1<<16); ; {
			if _, err := w.Write(b); err != nil {
				return
			}
		}
	default:
		fmt.Fprintf(w, `{"00081199":{"vr":"SQ","Value":[%s]}}`, strings.Join(stored, ","))
	}
}

func takeInstances(r *http.Request) (map[string][]byte, error) {
	_, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	for m := multipart.NewReader(r.Body, params["boundary"]); ; {
		p, err := m.NextRawPart()
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		b, err := io.ReadAll(p)
		if err != nil {
			return nil, err
		}
		in, err := dicom.Peek(b)
		if err != nil {
			return nil, err
		}
		out[in.SOPInstanceUID] = b
	}
}

func takeEvent(r *http.Request) (map[string][]byte, error) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	var e deliver.Event
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	for _, doc := range e.Data.Documents {
		out[doc.SOPInstanceUID] = []byte(r.Header.Get("webhook-id"))
	}
	return out, verify(r.Header, b)
}
