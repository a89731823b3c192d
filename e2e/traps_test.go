package e2e

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// field is a running service and objects to put into it, for one row of the table of traps.
type field struct {
	t       *testing.T
	s       *service
	objects map[string][]byte // "a1", "a2", "frames", "rle", "large", with UIDs of their own in each row
	prefix  string            // of their UIDs
}

const trapPrefix = "1.2.826.0.1.3680043.9.300"

// framed is a multipart body of the parts.
func framed(boundary string, parts ...[]byte) []byte {
	var b bytes.Buffer
	for _, p := range parts {
		b.WriteString("--" + boundary + "\r\nContent-Type: application/dicom\r\n\r\n")
		b.Write(p)
		b.WriteString("\r\n")
	}
	return append(b.Bytes(), "--"+boundary+"--\r\n"...)
}

const asDICOM = `multipart/related; type="application/dicom"; boundary=bnd`

// store sends a body to /studies and returns the status and how many instances each sequence of the answer has.
func (f *field) store(contentType string, body io.Reader, headers ...string) (status, kept, failed, warned int) {
	f.t.Helper()
	r, err := http.NewRequest(http.MethodPost, f.s.dicomweb()+"/studies", body)
	if err != nil {
		f.t.Fatal(err)
	}
	r.Header.Set("Content-Type", contentType)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	var told map[string]struct{ Value []json.RawMessage }
	_ = json.Unmarshal(b, &told) // a refusal of the whole is of another kind
	return resp.StatusCode, len(told["00081199"].Value), len(told["00081198"].Value) + len(told["0008119A"].Value), bytes.Count(b, []byte(`"00081196"`))
}

// stored demands a 200 that tells of so many instances, and that they can be found.
func (f *field) stored(want int, contentType string, body []byte, headers ...string) {
	f.t.Helper()
	before := f.count()
	status, kept, failed, _ := f.store(contentType, bytes.NewReader(body), headers...)
	if found := f.count() - before; status != http.StatusOK || kept != want || failed != 0 || found != want {
		f.t.Errorf("status %d, %d told as kept, %d as failed, %d found, want %d", status, kept, failed, found, want)
	}
}

// count is how many instances of the row the service finds.
func (f *field) count() int {
	f.t.Helper()
	n := 0
	for _, study := range []string{".1", ".2", ".3"} {
		var found []any
		getJSON(f.t, f.s.dicomweb()+"/studies/"+f.prefix+study+"/instances", &found)
		n += len(found)
	}
	return n
}

// get asks with headers and returns the answer with its body read.
func (f *field) get(path string, headers ...string) (*http.Response, []byte) {
	f.t.Helper()
	r, err := http.NewRequest(http.MethodGet, f.s.dicomweb()+path, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return resp, b
}

// instance is the path of an object.
func (f *field) instance(name string) string {
	series := map[string]string{"a1": ".1/series/%.1.1/instances/%.1.1.1", "rle": ".2/series/%.2.1/instances/%.2.1.1"}[name]
	return "/studies/" + f.prefix + strings.ReplaceAll(series, "%", f.prefix)
}

// one is a body with one object, framed as most clients do.
func (f *field) one(name string) []byte { return framed("bnd", f.objects[name]) }

// Each row of the field's table of traps (which shapes of requests made which servers fail) against the running service.
func TestTraps(t *testing.T) {
	manifest := objects(t, trapPrefix, "large")
	const origin = "https://viewer.example"
	s := serve(t, t.TempDir(), "--config", configured(t, "line:\n  quiet: 200ms\ndicomweb:\n  cors:\n    origins: ["+origin+"]\n"))
	for i, trap := range []struct {
		name string
		try  func(*field)
	}{
		{"1 unquoted type=application/dicom", func(f *field) {
			f.stored(1, "multipart/related; type=application/dicom; boundary=bnd", f.one("a1"))
		}},
		{"2 quoted boundary, an extra transfer-syntax parameter", func(f *field) {
			f.stored(1, `multipart/related; type="application/dicom"; boundary="b n(d)"`, framed("b n(d)", f.objects["a1"]))
			f.stored(1, `multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.1; boundary=bnd`, f.one("a2"))
			f.stored(1, `multipart/related; type="application/dicom; boundary=bnd"`, f.one("frames"))
		}},
		{"3 boundary over 70 characters, look-alike boundary inside the payload", func(f *field) {
			long := strings.Repeat("b", 200)
			f.stored(1, "multipart/related; type=application/dicom; boundary="+long, framed(long, f.objects["a2"]))
			b := bytes.Replace(f.objects["a1"], []byte{1, 2, 3, 4, 5, 6, 7, 8}, []byte("\r\n--bndX"), 1)
			b = bytes.Replace(b, []byte{1, 2, 3, 4, 5, 6, 7}, []byte("\r\n--bnX"), 1)
			f.stored(1, asDICOM, framed("bnd", b))
			if _, got := f.get(f.instance("a1"), "Accept", "application/dicom"); !bytes.Equal(got, b) {
				f.t.Errorf("other bytes come back: %d of %d", len(got), len(b))
			}
		}},
		{"4 preamble CRLF, no trailing CRLF, other part headers, a part without headers", func(f *field) {
			body := []byte("\r\n--bnd\r\nContent-Type: application/dicom\r\nContent-Length: " + strconv.Itoa(len(f.objects["a1"])) +
				"\r\nContent-Location: urn:uuid:1\r\nX-Other: x\r\n\r\n")
			body = append(append(body, f.objects["a1"]...), "\r\n--bnd\r\n\r\n"...)
			body = append(append(body, f.objects["a2"]...), "\r\n--bnd--"...)
			f.stored(2, asDICOM, body)
		}},
		{"5 chunked body accepted with 200 but nothing stored", func(f *field) {
			pipe, in := io.Pipe()
			go func() {
				for _, piece := range slices.Collect(slices.Chunk(f.one("a1"), 777)) {
					if _, err := in.Write(piece); err != nil {
						return
					}
				}
				in.Close()
			}()
			if status, kept, _, _ := f.store(asDICOM, pipe); status != http.StatusOK || kept != 1 || f.count() != 1 {
				f.t.Errorf("status %d, %d told as kept, %d found", status, kept, f.count())
			}
		}},
		{"6 LF-only framing, missing closing delimiter, gzip body, zero parts, empty body: silent loss", func(f *field) {
			whole := f.one("a1")
			for name, body := range map[string][]byte{
				"LF only":     bytes.ReplaceAll(whole, []byte("\r\n"), []byte("\n")),
				"no end":      bytes.TrimSuffix(whole, []byte("\r\n--bnd--\r\n")),
				"half an end": bytes.TrimSuffix(whole, []byte("-\r\n")),
				"zero parts":  []byte("--bnd--\r\n"),
				"empty":       nil,
			} {
				if status, kept, _, _ := f.store(asDICOM, bytes.NewReader(body)); status != http.StatusBadRequest || kept != 0 || f.count() != 0 {
					f.t.Errorf("%s: status %d, %d told as kept, %d found", name, status, kept, f.count())
				}
			}
			var packed bytes.Buffer
			z := gzip.NewWriter(&packed)
			_, _ = z.Write(whole)
			_ = z.Close()
			f.stored(1, asDICOM, packed.Bytes(), "Content-Encoding", "gzip")
		}},
		{"7 one good and one bad part: 202 with both told", func(f *field) {
			body := framed("bnd", f.objects["a1"], []byte("this is no DICOM"), f.objects["a2"][:300])
			if status, kept, failed, _ := f.store(asDICOM, bytes.NewReader(body)); status != http.StatusAccepted || kept != 1 || failed != 2 || f.count() != 1 {
				f.t.Errorf("status %d, %d told as kept, %d as failed, %d found", status, kept, failed, f.count())
			}
		}},
		{"8 duplicates: a success with a warning; other content under the UID is refused", func(f *field) {
			f.stored(1, asDICOM, f.one("a1"))
			if status, kept, failed, warned := f.store(asDICOM, bytes.NewReader(f.one("a1"))); status != http.StatusOK || kept != 1 || failed != 0 || warned != 1 {
				f.t.Errorf("status %d, %d told as kept, %d as failed, %d warnings", status, kept, failed, warned)
			}
			other := bytes.Clone(f.objects["a1"])
			other[len(other)-100] ^= 1
			if status, kept, failed, _ := f.store(asDICOM, bytes.NewReader(framed("bnd", other))); status != http.StatusConflict || kept != 0 || failed != 1 {
				f.t.Errorf("other content: status %d, %d told as kept, %d as failed", status, kept, failed)
			}
		}},
		{"9 whole request in memory", func(f *field) { wholeRequest(f) }},
		{"10 Expect: 100-continue never answered", func(f *field) { expectContinue(f) }},
		{"11 UID with trailing space or NUL, over 64 characters, %2f path traversal", func(f *field) { oddUIDs(f) }},
		{"12 strict versus lenient attribute values", func(f *field) {
			for _, change := range [][2]string{{"20250102", "2025.1.2"}, {"HAND", "Hand"}, {"A-7\x20", "\x01\xff\\ "}} {
				if !bytes.Contains(f.objects["a1"], []byte(change[0])) {
					f.t.Fatalf("no %q to change", change[0])
				}
				f.objects["a1"] = bytes.ReplaceAll(f.objects["a1"], []byte(change[0]), []byte(change[1]))
			}
			f.stored(1, asDICOM, f.one("a1"))
			if _, got := f.get(f.instance("a1"), "Accept", "application/dicom"); !bytes.Equal(got, f.objects["a1"]) {
				f.t.Error("other bytes come back")
			}
			if resp, got := f.get(f.instance("a1") + "/metadata"); resp.StatusCode != http.StatusOK || !json.Valid(got) {
				f.t.Errorf("metadata: %s %s", resp.Status, got)
			}
		}},
		{"13 Accept lists, q-values, *, unquoted types, misquoted transfer syntax", func(f *field) {
			f.stored(1, asDICOM, f.one("a1"))
			for _, accept := range []string{
				"", "*/*", "*", `multipart/related; type="application/dicom"`, "multipart/related; type=application/dicom", "multipart/related",
				`multipart/related; type="application/dicom"; transfer-syntax=*`, `multipart/related; type="application/dicom; transfer-syntax=*"`,
				`multipart/related; type="application/dicom; transfer-syntax=1.2.840.10008.1.2.1"`,
				"text/html, application/xhtml+xml, image/jxr, */*", `image/png;q=0.9, application/dicom;q=0.5`, "multipart/*", "application/dicom",
				`application/dicom; transfer-syntax=*, multipart/related; type="application/octet-stream"`,
			} {
				resp, got := f.get(f.instance("a1"), "Accept", accept)
				if resp.StatusCode != http.StatusOK || !bytes.Contains(got, f.objects["a1"][132:]) {
					f.t.Errorf("Accept: %s: %s %.200s", accept, resp.Status, got)
				}
			}
			if resp, _ := f.get(f.instance("a1"), "Accept", "audio/basic"); resp.StatusCode != http.StatusNotAcceptable {
				f.t.Errorf("Accept: audio/basic: %s", resp.Status)
			}
			if resp, _ := f.get(f.instance("a1"), "Accept", "application/dicom;q=0, multipart/related;q=0"); resp.StatusCode != http.StatusNotAcceptable {
				f.t.Errorf("everything at q=0: %s", resp.Status)
			}
		}},
		{"14 each part labelled with the syntax that it has", func(f *field) { labelled(f) }},
		{"15 empty search: 200 with []", func(f *field) {
			if resp, b := f.get("/studies?PatientID=nobody"); resp.StatusCode != http.StatusOK || string(b) != "[]" || resp.Header.Get("Content-Type") != "application/dicom+json" {
				f.t.Errorf("%s %s %s", resp.Status, resp.Header.Get("Content-Type"), b)
			}
		}},
		{"16 limit and offset ignored or unstable between pages", func(f *field) { pages(f) }},
		{"17 RetrieveURL and BulkDataURI behind a reverse proxy", func(f *field) { addresses(f) }},
		{"18 CORS with credentials and exposed headers", func(f *field) {
			resp, _ := f.get("/studies", "Origin", origin)
			for name, want := range map[string]string{"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": "true"} {
				if got := resp.Header.Get(name); got != want {
					f.t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			for _, want := range []string{"Content-Location", "Content-Range", "ETag", "Warning"} {
				if exposed := resp.Header.Get("Access-Control-Expose-Headers"); !strings.Contains(exposed, want) {
					f.t.Errorf("%s is not exposed: %s", want, exposed)
				}
			}
			if resp, _ := f.get("/studies", "Origin", "https://elsewhere.example"); resp.Header.Get("Access-Control-Allow-Origin") != "" {
				f.t.Error("another origin may read")
			}
		}},
		{"19 answers in UTF-8 whatever Specific Character Set is", func(f *field) {
			if !bytes.Contains(f.objects["a1"], []byte("M\xfcller^J\xf6rg")) {
				f.t.Fatal("the object is not in Latin 1")
			}
			f.stored(1, asDICOM, f.one("a1"))
			for _, path := range []string{f.instance("a1") + "/metadata", "/studies?StudyInstanceUID=" + f.prefix + ".1"} {
				var found []map[string]struct{ Value []any }
				getJSON(f.t, f.s.dicomweb()+path, &found)
				if got := fmt.Sprint(found[0]["00100010"].Value); got != "[map[Alphabetic:Müller^Jörg]]" {
					f.t.Errorf("%s: %s", path, got)
				}
				if set := found[0]["00080005"].Value; len(set) > 0 && set[0] != "ISO_IR 192" {
					f.t.Errorf("%s: Specific Character Set %v", path, set)
				}
			}
		}},
		{"20 required return keys, ModalitiesInStudy, UID lists by comma or backslash", func(f *field) { required(f) }},
		{"21 a transcoder that crashes the service", func(f *field) {
			f.stored(2, asDICOM, framed("bnd", f.objects["a1"], f.objects["rle"]))
			for _, syntax := range []string{"80", "81", "90", "91", "50", "57", "70", "201", "202", "203", "110"} {
				for _, name := range []string{"a1", "rle"} {
					resp, b := f.get(f.instance(name), "Accept", `multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.4.`+syntax)
					if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNotAcceptable {
						f.t.Errorf("to .4.%s: %s %s", syntax, resp.Status, b)
					}
				}
			}
			if _, err := get(f.s.root + "/healthz"); err != nil {
				f.t.Error(err)
			}
		}},
		{"22 own results come back by the PACS's auto-route and are read again", func(f *field) { ownResults(f) }},
	} {
		t.Run(trap.name, func(t *testing.T) {
			f := &field{t: t, s: s, objects: map[string][]byte{}, prefix: fmt.Sprintf("%s%02d", strings.TrimSuffix(trapPrefix, "00"), i+1)}
			for _, name := range []string{"a1", "a2", "frames", "rle", "large"} {
				b, err := os.ReadFile(filepath.Join(filepath.Dir(manifest), name+".dcm"))
				if err != nil {
					t.Fatal(err)
				}
				f.objects[name] = bytes.ReplaceAll(b, []byte(trapPrefix), []byte(f.prefix))
			}
			trap.try(f)
		})
	}
}
