package dicomweb_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"chatxray/dicomweb"
	"chatxray/pipeline"
	"chatxray/pipeline/archive"
	"chatxray/pipeline/dicom"
)

// frameless stores an object whose codestreams are none, with a fragment for each of its frames, and returns its path.
func (s *service) frameless(syntax string, fragments ...string) string {
	s.t.Helper()
	d := object(s.t, "1.2.8", "1.2.8.1", "1.2.8.1."+fmt.Sprint(s.kept()+1))
	d.SetInts(pipeline.TagSamplesPerPixel, "US", 1)
	d.SetText(pipeline.TagPhotometricInterpretation, "CS", "MONOCHROME2")
	d.SetText(pipeline.TagNumberOfFrames, "IS", fmt.Sprint(len(fragments)))
	for tag, v := range map[pipeline.Tag]int64{pipeline.TagRows: 4, pipeline.TagColumns: 4, pipeline.TagBitsAllocated: 8, pipeline.TagBitsStored: 8,
		pipeline.TagHighBit: 7, pipeline.TagPixelRepresentation: 0} {
		d.SetInts(tag, "US", v)
	}
	var b bytes.Buffer
	var pixels []io.Reader
	var lengths []int64
	for _, f := range fragments {
		pixels, lengths = append(pixels, strings.NewReader(f)), append(lengths, int64(len(f)))
	}
	if err := dicom.Assemble(&b, d, syntax, pixels, lengths); err != nil {
		s.t.Fatal(err)
	}
	if r := s.post("/studies", "application/dicom", &b); r.StatusCode != http.StatusOK {
		s.t.Fatalf("%d %s", r.StatusCode, r.body)
	}
	return "/studies/1.2.8/series/1.2.8.1/instances/" + d.String(pipeline.TagSOPInstanceUID)
}

// TestRefusalHasNoTag: the name of a representation does not stand on the answer that refuses it, which no cache may keep.
func TestRefusalHasNoTag(t *testing.T) {
	s := start(t)
	path := s.frameless(dicom.JPEGLSLossless, "codestream")
	for _, resource := range []string{path + "/rendered", path + "/frames/1/rendered", path + "/thumbnail", "/studies/1.2.8/thumbnail"} {
		r := s.get(resource)
		if r.StatusCode != http.StatusNotAcceptable || r.Header.Get("ETag")+r.Header.Get("Last-Modified")+r.Header.Get("Accept-Ranges") != "" ||
			r.Header.Get("Content-Type") != "application/json; charset=utf-8" || r.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v", resource, r.StatusCode, r.Header)
		}
	}
}

// TestSearchIsNotCached: what has no tag by which a cache can ask whether it is still right is not kept (RFC 9111 section 3).
func TestSearchIsNotCached(t *testing.T) {
	s := start(t)
	s.store(object(t, "1.2.1", "1.2.1.1", "1.2.1.1.1"))
	for _, path := range []string{"/studies", "/studies/count", "/studies?StudyDate=x", "/studies/1.2.9/metadata", "/openapi.json"} {
		if r := s.get(path); r.Header.Get("Cache-Control") != "no-store" || r.Header.Get("Vary") != "Accept" {
			t.Errorf("%s: %d Cache-Control %q, Vary %q", path, r.StatusCode, r.Header.Get("Cache-Control"), r.Header.Get("Vary"))
		}
	}
	if r := s.get("/studies/1.2.1/metadata"); r.Header.Get("Cache-Control") != "private, no-cache" || r.Header.Get("Vary") != "Accept" {
		t.Errorf("metadata: Cache-Control %q, Vary %q", r.Header.Get("Cache-Control"), r.Header.Get("Vary"))
	}
}

// TestChangesAreNoticed: a cache that only knows a date hears of an instance that was taken away, and one that knows a tag, of another
// version of the service.
func TestChangesAreNoticed(t *testing.T) {
	s := start(t)
	s.store(object(t, "1.2.1", "1.2.1.1", "1.2.1.1.1"), object(t, "1.2.1", "1.2.1.1", "1.2.1.1.2"))
	found, err := s.archive.Instances(t.Context(), "1.2.1", "", "")
	if err != nil {
		t.Fatal(err)
	}
	series := filepath.Dir(found[0].Path)
	yesterday := time.Now().Add(-24 * time.Hour)
	for _, path := range []string{found[0].Path, found[1].Path, series, filepath.Dir(series)} {
		if err := os.Chtimes(path, yesterday, yesterday); err != nil {
			t.Fatal(err)
		}
	}
	before := s.get("/studies/1.2.1/metadata")
	at := before.Header.Get("Last-Modified")
	if r := s.get("/studies/1.2.1/metadata", "If-Modified-Since", at); r.StatusCode != http.StatusNotModified {
		t.Errorf("nothing has changed since %s: %d", at, r.StatusCode)
	}
	if _, _, err := s.archive.Delete(t.Context(), "1.2.1", "1.2.1.1", "1.2.1.1.2"); err != nil {
		t.Fatal(err)
	}
	if r := s.get("/studies/1.2.1/metadata", "If-Modified-Since", at); r.StatusCode != http.StatusOK {
		t.Errorf("an instance is gone since %s: %d", at, r.StatusCode)
	}

	newer := start(t, func(_ *dicomweb.Config, d *dicomweb.Deps, _ *archive.Options) { d.Version = "2" })
	newer.store(object(t, "1.2.1", "1.2.1.1", "1.2.1.1.1"))
	const path = "/studies/1.2.1/series/1.2.1.1/instances/1.2.1.1.1"
	if tag := s.get(path, "Accept", "application/dicom").Header.Get("ETag"); tag == "" || tag == newer.get(path, "Accept", "application/dicom").Header.Get("ETag") {
		t.Errorf("two versions have the tag %s", tag)
	}
}

// panicking renders one frame and panics at the second.
type panicking struct {
	dicomweb.Object
	rendered *atomic.Int32
}

func (p panicking) Render(ctx context.Context, frame int, v pipeline.View) (image.Image, error) {
	if p.rendered.Add(1) > 1 {
		panic("at the second frame")
	}
	return p.Object.Render(ctx, frame, v)
}

// TestPanicCutsTheAnswer: an answer that a panic breaks off is not closed as if it were whole.
func TestPanicCutsTheAnswer(t *testing.T) {
	var rendered atomic.Int32
	s := start(t, func(_ *dicomweb.Config, deps *dicomweb.Deps, _ *archive.Options) {
		deps.Object = func(in *pipeline.Instance) (dicomweb.Object, error) {
			o, err := dicom.OpenObject(in)
			return panicking{o, &rendered}, err
		}
	})
	path, _ := s.radiograph(dicom.ExplicitVRLittleEndian, 2, nil)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.root+path+"/rendered", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", `multipart/related; type="image/png"`)
	once := http.Transport{DisableKeepAlives: true} // on a connection used before it would ask again by itself
	resp, err := once.RoundTrip(r)
	defer func() {
		if !strings.Contains(s.log.String(), "a request panicked") {
			t.Error("the log does not tell of it")
		}
	}()
	if err != nil { // cut before the header had left
		return
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("%s, and a whole body of %d bytes: %q", resp.Status, len(b), b[max(0, len(b)-80):])
	}
}

// TestUndecodedFrames: who takes any form of a frame that cannot be decoded gets it as it is stored; who wants it uncompressed, a 406.
func TestUndecodedFrames(t *testing.T) {
	s := start(t)
	path := s.frameless("1.2.840.10008.1.2.4.110", "codestream")
	for _, resource := range []string{path + "/frames/1", path + "/bulkdata/7FE00010"} {
		for accept, want := range map[string]int{"": 200, "*/*": 200, "multipart/related": 200, "multipart/*": 200, `multipart/related; type="image/jxl"`: 200,
			`multipart/related; type="application/octet-stream"`: 406, "application/octet-stream": 406} {
			r := s.get(resource, "Accept", accept)
			if r.StatusCode != want {
				t.Errorf("%s %q: %d %.200s", resource, accept, r.StatusCode, r.body)
			}
			if r.StatusCode != http.StatusOK {
				continue
			}
			files, types := partsOf(t, r)
			if len(types) != 1 || types[0] != "image/jxl; transfer-syntax=1.2.840.10008.1.2.4.110" {
				t.Errorf("%s %q: %v", resource, accept, types)
			}
			for _, b := range files {
				if string(b) != "codestream" {
					t.Errorf("%q", b)
				}
			}
		}
	}
}

// TestVideo: the bulk data of a video are its stream, whatever number of frames and of fragments it has (PS3.5 section 8.2.5).
func TestVideo(t *testing.T) {
	s := start(t)
	const mp4 = "1.2.840.10008.1.2.4.102"
	s.frameless(mp4, "codestream")
	s.frameless(mp4, "code", "stream")
	for _, m := range s.get("/studies/1.2.8/metadata").metadata(t) {
		uri := strings.TrimPrefix(m["7FE00010"].BulkDataURI, s.root)
		for accept, want := range map[string]string{"*/*": "video/mp4", "video/*": "video/mp4", "video/mp4": "video/mp4", "application/octet-stream": "application/octet-stream",
			`multipart/related; type="video/mp4"`: `multipart/related; type="video/mp4"`} {
			if r := s.get(uri, "Accept", accept); r.StatusCode != http.StatusOK || !strings.HasPrefix(r.Header.Get("Content-Type"), want) || !bytes.Contains(r.body, []byte("codestream")) {
				t.Errorf("%s %q: %d %s %q", uri, accept, r.StatusCode, r.Header.Get("Content-Type"), r.body)
			}
		}
		if r := s.get(uri, "Range", "bytes=2-5"); r.StatusCode != http.StatusPartialContent || string(r.body) != "dest" {
			t.Errorf("%s: %d %q", uri, r.StatusCode, r.body)
		}
	}
}

// metadata reads where metadata say that values are.
func (r reply) metadata(t testing.TB) (out []map[string]struct{ BulkDataURI string }) {
	t.Helper()
	if err := json.Unmarshal(r.body, &out); err != nil || len(out) == 0 {
		t.Fatalf("%d %v", r.StatusCode, err)
	}
	return out
}

// TestAcceptInTheQuery: the parameter accept goes before the header, on every resource (PS3.18 section 8.3.3.1).
func TestAcceptInTheQuery(t *testing.T) {
	s := start(t)
	path, _ := s.radiograph(dicom.ExplicitVRLittleEndian, 1, nil)
	for resource, want := range map[string]string{
		path + "?accept=application/dicom":                                        "application/dicom; transfer-syntax=1.2.840.10008.1.2.1",
		path + "/frames/1?accept=application/octet-stream":                        "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1",
		path + "/metadata?accept=application/dicom+xml":                           "application/dicom+xml",
		path + "/metadata?accept=application/dicom%2Bxml":                         "application/dicom+xml",
		path + "/rendered?accept=image/png":                                       "image/png",
		"/studies?accept=application/dicom%2Bjson":                                "application/dicom+json",
		"/studies/1.2.7?accept=application/zip":                                   "application/zip",
		"/studies?accept=multipart/related%3B%20type=%22application/dicom+xml%22": `multipart/related; type="application/dicom+xml"`,
	} {
		if r := s.get(resource, "Accept", "text/plain"); r.StatusCode != http.StatusOK || !strings.HasPrefix(r.Header.Get("Content-Type"), want) {
			t.Errorf("%s: %d %s %.200s", resource, r.StatusCode, r.Header.Get("Content-Type"), r.body)
		}
	}
}
