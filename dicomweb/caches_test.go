package dicomweb_test

import (
	"context"
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
