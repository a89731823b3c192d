package dicomweb_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptrace"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chatxray/dicomweb"
	"chatxray/pipeline"
	"chatxray/pipeline/archive"
)

// partsOf reads a multipart answer with the standard library's strict parser.
func partsOf(t *testing.T, r reply) (files map[string][]byte, types []string) {
	t.Helper()
	media, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "multipart/related" || params["type"] == "" {
		t.Fatalf("%d %s %v: %s", r.StatusCode, r.Header.Get("Content-Type"), err, r.body)
	}
	files = map[string][]byte{}
	for mr := multipart.NewReader(bytes.NewReader(r.body), params["boundary"]); ; {
		p, err := mr.NextRawPart()
		if err == io.EOF {
			return files, types
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		location := p.Header.Get("Content-Location")
		files[location[strings.LastIndex(location, "/")+1:]] = b
		types = append(types, p.Header.Get("Content-Type"))
	}
}

func TestRetrieve(t *testing.T) {
	s := start(t)
	want := map[string][]byte{}
	for _, uid := range []string{"1.2.1.1.1", "1.2.1.1.2", "1.2.1.2.1"} {
		d := object(t, "1.2.1", uid[:7], uid)
		want[uid] = file(t, d)
		s.store(d)
	}
	for path, uids := range map[string]string{
		"/studies/1.2.1":                                    "1.2.1.1.1 1.2.1.1.2 1.2.1.2.1",
		"/studies/1.2.1/series/1.2.1.1":                     "1.2.1.1.1 1.2.1.1.2",
		"/studies/1.2.1/series/1.2.1.2/instances/1.2.1.2.1": "1.2.1.2.1",
	} {
		files, types := partsOf(t, s.get(path))
		expect := map[string][]byte{}
		for _, uid := range strings.Fields(uids) {
			expect[uid] = want[uid]
		}
		if diff := cmp.Diff(expect, files); diff != "" {
			t.Error(path, diff)
		}
		for _, c := range types {
			if c != "application/dicom; transfer-syntax=1.2.840.10008.1.2.1" {
				t.Error("a part is labelled", c)
			}
		}
	}
	for _, path := range []string{"/studies/1.2.9", "/studies/1.2.1/series/1.2.9", "/studies/1.2.1/series/1.2.1.1/instances/1.2.1.2.1", "/studies/1.2.9/metadata"} {
		if r := s.get(path); r.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %d %s", path, r.StatusCode, r.body)
		}
	}
}

// TestAccept: how clients ask for an instance (13, 14).
func TestAccept(t *testing.T) {
	s := start(t)
	s.store(object(t, "1.2.1", "1.2.1.1", "1.2.1.1.1"))
	const path, multi, single = "/studies/1.2.1/series/1.2.1.1/instances/1.2.1.1.1", "multipart/related", "application/dicom; transfer-syntax=1.2.840.10008.1.2.1"
	for _, c := range []struct {
		accept string
		status int
		want   string
	}{
		{"", 200, multi},
		{"*/*", 200, multi},
		{"*", 200, multi},
		{"text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", 200, multi},
		{"multipart/related", 200, multi},
		{"multipart/related; type=application/dicom", 200, multi},
		{`multipart/related; type="application/dicom"; transfer-syntax=*`, 200, multi},
		{`multipart/related; type="application/dicom; transfer-syntax=*"`, 200, multi},
		{`multipart/related; type="application/dicom"; transfer-syntax="1.2.840.10008.1.2.1"`, 200, multi},
		{`multipart/related;type="application/dicom";transfer-syntax=1.2.840.10008.1.2.4.80, multipart/related;type="application/dicom"`, 200, multi},
		{`multipart/related;type="application/octet-stream", multipart/related;type="application/dicom";q=0.5`, 200, multi},
		{"application/dicom", 200, single},
		{"application/dicom; transfer-syntax=*", 200, single},
		{`multipart/related; type="application/dicom"; q=0.1, application/dicom;q=0.9`, 200, single},
		{"application/dicom; q=0", 406, ""},
		{`*/*, multipart/related; type="application/dicom"; q=0`, 200, single},
		{"multipart/related; q=0, */*; q=0.1", 200, single},
		{"application/dicom; q=0, */*", 200, multi},
		{"*/*, application/dicom; q=0, multipart/*; q=0", 406, ""},
		{`multipart/related; type="image/jpeg"; q=0, */*`, 200, multi},
		{"*/*; q=0, application/dicom", 200, single},
		{"image/jpeg", 406, ""},
		{`multipart/related; type="image/jpeg"`, 406, ""},
		{`multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.4.90`, 200, multi}, // without pixels it stays uncompressed
		{`multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.4.102`, 406, ""},
		{`multipart/related; type="application/dicom"; transfer-syntax=1.2.3`, 406, ""},
		{"application/zip", 200, "application/zip"},
	} {
		r := s.get(path, "Accept", c.accept)
		if r.StatusCode != c.status || !strings.HasPrefix(r.Header.Get("Content-Type"), c.want) {
			t.Errorf("%q: %d %s", c.accept, r.StatusCode, r.Header.Get("Content-Type"))
		}
		if strings.Contains(c.accept, ".4.102") && !bytes.Contains(r.body, []byte("1.2.840.10008.1.2.1, ")) {
			t.Errorf("the answer does not say what is stored: %s", r.body)
		}
	}
}

func TestMetadata(t *testing.T) {
	s := start(t)
	d := object(t, "1.2.1", "1.2.1.1", "1.2.1.1.1", pipeline.TagSpecificCharacterSet, "ISO_IR 192", pipeline.TagPatientName, "Müller^Jörg==ju-ri",
		pipeline.TagPixelSpacing, `0.1430\+1.5e0`, pipeline.TagImageType, `ORIGINAL\\PRIMARY`, pipeline.TagPatientSex, "")
	d.SetInts(pipeline.TagRows, "US", 7, 8)
	d.SetInts(pipeline.TagFrameIncrementPointer, "AT", 0x00181063)
	d.Set(pipeline.Element{Tag: pipeline.TagExposureIndex, VR: "DS", Text: []string{"not a number"}})
	d.Set(pipeline.Element{Tag: 0x00189328, VR: "FD", Floats: []float64{0.1, -2}})
	var code pipeline.Dataset
	code.SetText(pipeline.TagCodeValue, "SH", "R-10202")
	d.SetItems(pipeline.TagViewCodeSequence, code, nil)
	d.SetBytes(pipeline.TagLUTData, "OW", []byte{1, 2, 3, 4})
	long := bytes.Repeat([]byte{5, 6}, 3000)
	d.SetBytes(0x00091010, "OB", long)
	d.SetText(0x00090010, "LO", "PRIVATE")
	s.store(d)

	const instance = "/studies/1.2.1/series/1.2.1.1/instances/1.2.1.1.1"
	r := s.get(instance + "/metadata")
	var got []map[string]any
	if err := json.Unmarshal(r.body, &got); err != nil || len(got) != 1 {
		t.Fatalf("%v %s", err, r.body)
	}
	for tag, want := range map[string]string{
		"00080005": `{"vr":"CS","Value":["ISO_IR 192"]}`,
		"00080008": `{"vr":"CS","Value":["ORIGINAL",null,"PRIMARY"]}`,
		"00100010": `{"vr":"PN","Value":[{"Alphabetic":"Müller^Jörg","Phonetic":"ju-ri"}]}`,
		"00100040": `{"vr":"CS"}`,
		"00200011": `{"vr":"IS","Value":[1]}`,
		"00280030": `{"vr":"DS","Value":[0.143,1.5]}`,
		"00181411": `{"vr":"DS","Value":["not a number"]}`,
		"00280010": `{"vr":"US","Value":[7,8]}`,
		"00280009": `{"vr":"AT","Value":["00181063"]}`,
		"00189328": `{"vr":"FD","Value":[0.1,-2]}`,
		"00540220": `{"vr":"SQ","Value":[{"00080100":{"vr":"SH","Value":["R-10202"]}},{}]}`,
		"00283006": `{"vr":"OW","InlineBinary":"AQIDBA=="}`,
		"00091010": `{"vr":"OB","BulkDataURI":"` + s.root + instance + `/bulkdata/00091010"}`,
	} {
		var expect any
		if err := json.Unmarshal([]byte(want), &expect); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(expect, got[0][tag]); diff != "" {
			t.Error(tag, diff)
		}
	}
	if _, ok := got[0]["00020010"]; ok {
		t.Error("the File Meta Information is in the metadata")
	}
	for _, path := range []string{"/studies/1.2.1/metadata", "/studies/1.2.1/series/1.2.1.1/metadata"} {
		if again := s.get(path); !bytes.Equal(again.body, r.body) {
			t.Errorf("%s: %s", path, again.body)
		}
	}
	if r := s.get(instance+"/bulkdata/00091010", "Accept", "application/octet-stream"); !bytes.Equal(r.body, long) {
		t.Errorf("%d, %d bytes", r.StatusCode, len(r.body))
	}
	files, _ := partsOf(t, s.get(instance+"/bulkdata/00091010", "Accept", `multipart/related; type="application/octet-stream"`))
	if !bytes.Equal(files[""], long) {
		t.Error("bulk data in a part differ")
	}
	for _, path := range []string{"00091011", "x", "00540220/1", "00540220/9/00080100", "00540220/1/00080100"} {
		if r := s.get(instance + "/bulkdata/" + path); r.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %d %s", path, r.StatusCode, r.body)
		}
	}
}

func TestHealth(t *testing.T) {
	broken := errors.New("the model is not loaded")
	s := start(t, func(_ *dicomweb.Config, d *dicomweb.Deps, _ *archive.Options) {
		d.Checks = map[string]func(context.Context) error{"redis": func(context.Context) error { return nil }, "model": func(context.Context) error { return broken }}
	})
	s.root = strings.TrimSuffix(s.root, dicomweb.Root)
	if r := s.get("/healthz"); r.StatusCode != 200 {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
	r := s.get("/readyz")
	if want := `{"checks":{"model":"the model is not loaded","redis":"ok"}}`; r.StatusCode != 503 || string(r.body) != want {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
}

// TestConnectionStaysUsable: the patience with one answer must not end the next one on the same connection.
func TestConnectionStaysUsable(t *testing.T) {
	s := start(t, func(c *dicomweb.Config, _ *dicomweb.Deps, _ *archive.Options) { c.Idle = time.Second })
	s.store(object(t, "1.2.1", "1.2.1.1", "1.2.1.1.1"))
	for _, path := range []string{"/studies/1.2.1", "/studies"} {
		reused := false
		trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }}
		r, err := http.NewRequestWithContext(httptrace.WithClientTrace(context.Background(), trace), http.MethodGet, s.root+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.do(r); got.StatusCode != 200 || !reused {
			t.Errorf("%d, connection reused: %v", got.StatusCode, reused)
		}
		time.Sleep(1200 * time.Millisecond)
	}
}

// TestFileGone: a lost file is an error, never half an answer that looks whole.
func TestFileGone(t *testing.T) {
	s := start(t)
	s.store(object(t, "1.2.1", "1.2.1.1", "1.2.1.1.1"), object(t, "1.2.1", "1.2.1.1", "1.2.1.1.2"))
	all, err := s.archive.Instances(context.Background(), "1.2.1", "", "")
	if err != nil {
		t.Fatal(err)
	}
	_ = os.Remove(all[1].Path)
	for _, path := range []string{"/studies/1.2.1", "/studies/1.2.1/metadata"} {
		if r := s.get(path); r.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %d %s", path, r.StatusCode, r.body)
		}
	}
	_ = os.Remove(all[0].Path)
	if r := s.get("/studies/1.2.1"); r.StatusCode != http.StatusNotFound {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
}
