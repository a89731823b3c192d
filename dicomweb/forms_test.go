package dicomweb_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"chatxray/pipeline"
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
