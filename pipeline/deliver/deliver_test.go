package deliver

import (
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"chatxray/pipeline"
)

func TestOpenRefusesWhatItCannotUse(t *testing.T) {
	for _, tc := range []struct {
		name string
		cfg  Config
		want []string
	}{
		{"unknown kind", Config{Name: "a", Kind: "carrier-pigeon"}, []string{`kind "carrier-pigeon"`, "stow"}},
		{"everything", Config{Documents: []pipeline.DocumentKind{"pdf"}, URL: "orthanc:8042"}, []string{"name is missing", `"pdf"`, "not an http(s) URL"}},
		{"keys of other kinds", Config{Name: "a", URL: "http://h/dicom-web", Secret: "s", Path: "/p"}, []string{"secret: means nothing to the kind stow", "path: means"}},
		{"rate", Config{Name: "a", URL: "http://h/dicom-web", Rate: -1, Timeout: -1}, []string{"rate: -1", "timeout: -1ns"}},
		{"no secret", Config{Name: "a", Kind: "webhook", URL: "http://h/"}, []string{"secret: is missing"}},
		{"short secret", Config{Name: "a", Kind: "webhook", URL: "http://h/", Secret: "whsec_c2hvcnQ="}, []string{"24 to 64 bytes"}},
		{"folder", Config{Name: "a", Kind: "folder", Layout: "../{SOPInstanceUID}"}, []string{"path: no folder", "no name below a folder"}},
		{"folder's names", Config{Name: "a", Kind: "folder", Path: "/p", Layout: "{PatientName}.dcm"}, []string{"no {SOPInstanceUID}"}},
		{"two ways in", Config{Name: "a", URL: "http://h/dicom-web", User: "u", Token: "t"}, []string{"exclude each other"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Open(tc.cfg)
			for _, w := range tc.want {
				if err == nil || !strings.Contains(err.Error(), w) {
					t.Errorf("error %v does not say %q", err, w)
				}
			}
		})
	}
}

// The answers that STOW-RS servers give, what a search there finds then, and what we make of it.
func TestAnswers(t *testing.T) {
	named := func(uid string) string { return `{"00081155":{"vr":"UI","Value":["` + uid + `"]}}` }
	failed := func(uid, reason string) string {
		return `{"00081155":{"vr":"UI","Value":["` + uid + `"]},"00081197":{"vr":"US","Value":[` + reason + `]}}`
	}
	all := `{"00081199":{"vr":"SQ","Value":[` + named("1.2.1") + `,` + named("1.2.2") + `]}}`
	one := `{"00081199":{"vr":"SQ","Value":[` + named("1.2.1") + `]}}`
	const inXML = `<?xml version="1.0"?><NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM"><DicomAttribute tag="00081199" vr="SQ">` +
		`<Item number="1"><DicomAttribute tag="00081155" vr="UI"><Value number="1">1.2.1</Value></DicomAttribute></Item>` +
		`<Item number="2"><DicomAttribute tag="00081155" vr="UI"><Value number="1">1.2.2</Value></DicomAttribute></Item></DicomAttribute></NativeDicomModel>`
	const permanent, unavailable = true, true
	for _, tc := range []struct {
		name        string
		status      int
		body        string
		found       string // by a search, for the second time where there are two: "instance status"
		err         string
		permanent   bool
		unavailable bool
	}{
		{"all stored", 200, all, "", "", false, false},
		{"in an array", 200, "[" + all + "]", "", "", false, false},
		{"in XML", 200, inXML, "", "", false, false},
		{"with a warning", 202, all, "", "", false, false},
		{"an empty 200, stored", 200, ``, "1.2.1 1.2.2", "", false, false},
		{"an empty 200, not stored", 200, ``, "", "does not find 1.2.1", false, false},
		{"an empty 200, half of it stored", 200, ``, "1.2.1", "does not find 1.2.2", false, false},
		{"an empty 200, no search", 200, ``, "405", "cannot be told: a search there is answered 405", false, false},
		{"an empty 200, a search of another kind", 200, ``, "html", "no DICOM JSON", false, false},
		{"a 202 of one that stores later", 202, ``, "later", "", false, false},
		{"a 202 of one that loses", 202, `accepted`, "", "answers 202 without naming 2", false, false},
		{"XML without a word", 200, `<NativeDicomModel/>`, "1.2.1 1.2.2", "", false, false},
		{"no JSON", 200, `{"0008`, "1.2.1 1.2.2", "", false, false},
		{"fewer than sent", 200, one, "", "without naming 1 of the instances", false, false},
		{"fewer than sent, all there", 200, one, "1.2.2", "", false, false},
		{"others than sent", 200, `{"00081199":{"vr":"SQ","Value":[` + named("1.9.1") + `,` + named("1.9.2") + `]}}`, "", "without naming 2", false, false},
		{"one refused", 202, `{"00081199":{"vr":"SQ","Value":[` + named("1.2.1") + `]},"00081198":{"vr":"SQ","Value":[` + failed("1.2.2", "49152") + `]}}`, "", "C000H", permanent, false},
		{"duplicates as failures", 409, `{"00081198":{"vr":"SQ","Value":[` + failed("1.2.1", "273") + `,` + failed("1.2.2", "273") + `]}}`, "", "", false, false},
		{"conflict without a word", 409, ``, "", "without saying", permanent, false},
		{"not authorized", 401, ``, "", "401", false, unavailable},
		{"out of resources", 409, `{"00081198":{"vr":"SQ","Value":[` + failed("1.2.1", "42752") + `]}}`, "", "A700H", false, false},
		{"a page of a proxy", 200, `<!DOCTYPE html><html>sign in</html>`, "html", "cannot be told", false, false},
		{"moved", 301, ``, "", "redirects", false, unavailable},
		{"bad request", 400, ``, "", "400", permanent, false},
		{"unknown type", 415, ``, "", "415", permanent, false},
		{"busy", 503, ``, "", "503", false, unavailable},
		{"too many", 429, ``, "", "429", false, unavailable},
		{"broken", 500, `oops`, "", "500", false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got [][]byte
			searches := 0
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodGet {
					search(t, w, r, tc.found, &searches)
					return
				}
				got = parts(t, r)
				w.WriteHeader(tc.status)
				_, _ = io.WriteString(w, tc.body)
			}))
			defer srv.Close()
			d, err := Open(Config{Name: "pacs", URL: srv.URL + "/dicom-web/", User: "u", Password: "p"})
			if err != nil {
				t.Fatal(err)
			}
			d.(*stow).asking = []time.Duration{0, time.Millisecond}
			err = d.Deliver(t.Context(), pipeline.Record{}, []pipeline.Document{{StudyInstanceUID: "1.2", SOPInstanceUID: "1.2.1", Bytes: []byte("one")},
				{StudyInstanceUID: "1.2", SOPInstanceUID: "1.2.2", Bytes: []byte("two\r\n--x")}})
			switch {
			case tc.err == "" && err != nil:
				t.Errorf("error %v", err)
			case tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)):
				t.Errorf("error %v does not say %q", err, tc.err)
			}
			if errors.Is(err, Permanent) != tc.permanent || errors.Is(err, pipeline.ErrUnavailable) != tc.unavailable {
				t.Errorf("permanent %v, unavailable %v: %v", errors.Is(err, Permanent), errors.Is(err, pipeline.ErrUnavailable), err)
			}
			if len(got) != 2 || string(got[1]) != "two\r\n--x" {
				t.Errorf("received %q", got)
			}
		})
	}
}

// search answers QIDO-RS for one instance.
func search(t *testing.T, w http.ResponseWriter, r *http.Request, found string, searches *int) {
	uid := r.URL.Query().Get("SOPInstanceUID")
	if r.URL.Path != "/dicom-web/studies/1.2/instances" || uid == "" {
		t.Errorf("searches %s", r.URL)
	}
	*searches++
	switch {
	case found == "405":
		w.WriteHeader(405)
	case found == "html":
		_, _ = io.WriteString(w, "<html>sign in</html>")
	case slices.Contains(strings.Fields(found), uid), found == "later" && *searches > 2:
		_, _ = io.WriteString(w, `[{"00080018":{"vr":"UI","Value":["`+uid+`"]}}]`)
	case *searches%2 == 0:
		w.WriteHeader(204)
	default:
		_, _ = io.WriteString(w, `[]`)
	}
}

func parts(t *testing.T, r *http.Request) (out [][]byte) {
	t.Helper()
	if u, p, _ := r.BasicAuth(); r.URL.Path != "/dicom-web/studies" || u != "u" || p != "p" {
		t.Errorf("asked %s as %s", r.URL.Path, u)
	}
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/related" || params["type"] != "application/dicom" {
		t.Errorf("Content-Type %q", r.Header.Get("Content-Type"))
	}
	for m := multipart.NewReader(r.Body, params["boundary"]); ; {
		p, err := m.NextRawPart()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Error(err)
			return out
		}
		b, _ := io.ReadAll(p)
		out = append(out, b)
	}
}

func TestNobodyThere(t *testing.T) {
	d, err := Open(Config{Name: "pacs", URL: "http://127.0.0.1:1/dicom-web", Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Deliver(t.Context(), pipeline.Record{}, nil); err == nil || errors.Is(err, Permanent) || !strings.Contains(err.Error(), "destination pacs does not answer") {
		t.Errorf("error %v", err)
	}
}

func TestWanted(t *testing.T) {
	docs := []pipeline.Document{{Kind: pipeline.FindingsSR}, {Kind: pipeline.NarrativeSR}}
	if got := (Config{Documents: []pipeline.DocumentKind{pipeline.NarrativeSR}}).Wanted(docs); len(got) != 1 || got[0].Kind != pipeline.NarrativeSR {
		t.Errorf("wanted %v", got)
	}
	if got := (Config{}).Wanted(docs); len(got) != 2 {
		t.Errorf("wanted %v", got)
	}
}

// TestByHand: who sends files of others hears what the server says, and that an instance was kept from before.
func TestByHand(t *testing.T) {
	const stored = `{"00081155":{"vr":"UI","Value":["1.2.1"]}}`
	failed := func(uid, reason string) string {
		return `{"00081155":{"vr":"UI","Value":["` + uid + `"]},"00081197":{"vr":"US","Value":[` + reason + `]}}`
	}
	for _, tc := range []struct {
		name, body string
		status     int
		says       []string
		refused    []string
		permanent  bool
	}{
		{"other content", `{"00081199":{"vr":"SQ","Value":[` + stored + `]},"00081198":{"vr":"SQ","Value":[` + failed("1.2.2", "273") + `]}}`, 202,
			[]string{"refuses instance 1.2.2", "0111H", "perhaps with other content"}, []string{"1.2.2"}, true},
		{"two for two reasons", `{"00081198":{"vr":"SQ","Value":[` + failed("1.2.1", "49152") + `,` + failed("1.2.2", "42752") + `]}}`, 409,
			[]string{"1.2.1, failure reason C000H", "1.2.2, failure reason A700H"}, []string{"1.2.1", "1.2.2"}, false},
		{"a sentence", `{"error":"forbidden: this needs the role store"}`, 403, []string{"403", "needs the role store"}, nil, false},
		{"Orthanc's sentence", `{"HttpError":"Bad Request","Message":"Bad request","Details":"no such tag"}`, 400, []string{"400", "no such tag"}, nil, true},
		{"another URL", `<html>not here</html>`, 404, []string{"404", "root of a DICOMweb service"}, nil, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tc.status)
				_, _ = io.WriteString(w, tc.body)
			}))
			defer srv.Close()
			send := func(byHand bool) error {
				d, err := Open(Config{Name: "pacs", URL: srv.URL, ByHand: byHand})
				if err != nil {
					t.Fatal(err)
				}
				return d.Deliver(t.Context(), pipeline.Record{}, []pipeline.Document{{SOPInstanceUID: "1.2.1", Bytes: []byte("one")}, {SOPInstanceUID: "1.2.2", Bytes: []byte("two")}})
			}
			err := send(true)
			for _, w := range tc.says {
				if err == nil || !strings.Contains(err.Error(), w) {
					t.Errorf("%v does not say %q", err, w)
				}
			}
			var some *Refusal
			if errors.As(err, &some); (some == nil) != (tc.refused == nil) || some != nil && !slices.Equal(some.Instances, tc.refused) {
				t.Errorf("refused are %+v", some)
			}
			if errors.Is(err, Permanent) != tc.permanent {
				t.Errorf("permanent: %v", err)
			}
			// What others have worded stays out of logs.
			if err := send(false); err != nil && (strings.Contains(err.Error(), "no such tag") || strings.Contains(err.Error(), "role store")) {
				t.Error(err)
			}
		})
	}
}
