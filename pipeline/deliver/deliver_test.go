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

// The answers that STOW-RS servers give, and what we make of them.
func TestAnswers(t *testing.T) {
	const stored = `{"00081155":{"vr":"UI","Value":["1.2"]}}`
	failed := func(reason string) string {
		return `{"00081155":{"vr":"UI","Value":["1.2"]},"00081197":{"vr":"US","Value":[` + reason + `]}}`
	}
	for _, tc := range []struct {
		name      string
		status    int
		body      string
		err       string
		permanent bool
	}{
		{"all stored", 200, `{"00081199":{"vr":"SQ","Value":[` + stored + `,` + stored + `]}}`, "", false},
		{"XML answer", 200, `<NativeDicomModel/>`, "", false},
		{"fewer than sent", 200, `{"00081199":{"vr":"SQ","Value":[` + stored + `]}}`, "1 of 2", false},
		{"one refused", 202, `{"00081199":{"vr":"SQ","Value":[` + stored + `]},"00081198":{"vr":"SQ","Value":[` + failed("49152") + `]}}`, "C000H", true},
		{"duplicates as failures", 409, `{"00081198":{"vr":"SQ","Value":[` + failed("273") + `,` + failed("273") + `]}}`, "", false},
		{"conflict without a word", 409, ``, "without saying", true},
		{"not authorized", 401, ``, "401", false},
		{"out of resources", 409, `{"00081198":{"vr":"SQ","Value":[` + failed("42752") + `]}}`, "A700H", false},
		{"a page of a proxy", 200, `<!DOCTYPE html><html>sign in</html>`, "without saying", true},
		{"moved", 301, ``, "redirects", false},
		{"bad request", 400, ``, "400", true},
		{"unknown type", 415, ``, "415", true},
		{"busy", 503, ``, "503", false},
		{"too many", 429, ``, "429", false},
		{"broken", 500, `oops`, "500", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got [][]byte
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				got = parts(t, r)
				w.WriteHeader(tc.status)
				_, _ = io.WriteString(w, tc.body)
			}))
			defer srv.Close()
			d, err := Open(Config{Name: "pacs", URL: srv.URL + "/dicom-web/", User: "u", Password: "p"})
			if err != nil {
				t.Fatal(err)
			}
			err = d.Deliver(t.Context(), []pipeline.Document{{Bytes: []byte("one")}, {Bytes: []byte("two\r\n--x")}})
			switch {
			case tc.err == "" && err != nil:
				t.Errorf("error %v", err)
			case tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)):
				t.Errorf("error %v does not say %q", err, tc.err)
			}
			if errors.Is(err, Permanent) != tc.permanent {
				t.Errorf("permanent %v, want %v: %v", errors.Is(err, Permanent), tc.permanent, err)
			}
			if len(got) != 2 || string(got[1]) != "two\r\n--x" {
				t.Errorf("received %q", got)
			}
		})
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
	if err := d.Deliver(t.Context(), nil); err == nil || errors.Is(err, Permanent) || !strings.Contains(err.Error(), "destination pacs does not answer") {
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
				return d.Deliver(t.Context(), []pipeline.Document{{Bytes: []byte("one")}, {Bytes: []byte("two")}})
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
			// What others have worded stays out of logs and records.
			if err := send(false); err != nil && (strings.Contains(err.Error(), "no such tag") || strings.Contains(err.Error(), "role store")) {
				t.Error(err)
			}
		})
	}
}
