package dicomweb_test

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image"
	_ "image/gif"
	_ "image/jpeg"
	_ "image/png"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"chatxray/dicomweb"
	"chatxray/parts"
	"chatxray/pipeline"
	"chatxray/pipeline/dicom"
)

// codecs points pipeline/dicom to the codec module, as main does.
func codecs(t testing.TB) {
	t.Helper()
	path := os.Getenv("CHATXRAY_CODECS")
	if path == "" {
		path, _ = parts.Path("dcmjs-codecs")
	}
	if _, err := os.Stat(path); err != nil {
		t.Skip("no codec module: CHATXRAY_CODECS does not name dcmjs-native-codecs.wasm, and the run-time part dcmjs-codecs is not fetched")
	}
	dicom.SetCodecModule(path)
}

func instancePath(in *pipeline.Instance) string {
	return "/studies/" + in.StudyInstanceUID + "/series/" + in.SeriesInstanceUID + "/instances/" + in.SOPInstanceUID
}

// TestRetrievePack gets every object of the data pack in every form: nothing fails but by a 406 that says why, labels are true, and the
// pixels are those of our decoder, which is compared with others elsewhere.
func TestRetrievePack(t *testing.T) {
	codecs(t)
	files := append(append(append(pack(t, "dicom/syntaxes/*.dcm"), pack(t, "dicom/edge/*.dcm")...), pack(t, "dicom/sr/*.dcm")...), pack(t, "dicom/chest/*.dcm")...)
	s := start(t)
	counts := map[string]int{}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		in, err := dicom.Open(b)
		if err != nil || len(b) > 8<<20 {
			continue
		}
		if r := s.post("/studies", "application/dicom", bytes.NewReader(b)); r.StatusCode != http.StatusOK || bytes.Contains(r.body, []byte("00081196")) {
			continue // another file of the pack has its UID
		}
		t.Run(filepath.Base(name), func(t *testing.T) {
			s := *s
			s.t = t
			s.everyForm(in, b, counts)
		})
	}
	for what, least := range map[string]int{"explicit": 65, "frame": 45, "rendered": 45, "html": 10, "bulk": 50} {
		if counts[what] < least {
			t.Errorf("only %d times %s", counts[what], what)
		}
	}
	t.Log(counts)
}

func (s *service) everyForm(in *pipeline.Instance, b []byte, counts map[string]int) {
	t, path := s.t, instancePath(in)
	if r := s.get(path, "Accept", "application/dicom; transfer-syntax=*"); !bytes.Equal(r.body, b) || r.Header.Get("Content-Type") != "application/dicom; transfer-syntax="+in.TransferSyntaxUID {
		t.Errorf("as stored: %d %s", r.StatusCode, r.Header.Get("Content-Type"))
	}
	r := s.get(path, "Accept", "application/dicom")
	got, err := dicom.Open(r.body)
	if err != nil || r.Header.Get("Content-Type") != "application/dicom; transfer-syntax="+got.TransferSyntaxUID {
		t.Fatalf("by default: %d %s %v", r.StatusCode, r.Header.Get("Content-Type"), err)
	}
	want, decodeErr := dicom.DecodeFrame(context.Background(), in, 0)
	switch {
	case got.TransferSyntaxUID == dicom.ExplicitVRLittleEndian:
		counts["explicit"]++
	case decodeErr == nil, got.TransferSyntaxUID != in.TransferSyntaxUID:
		t.Errorf("by default it has %s", got.TransferSyntaxUID)
	}
	if decodeErr == nil {
		have, err := dicom.DecodeFrame(context.Background(), got, 0)
		if err != nil || !bytes.Equal(have.Data, want.Data) {
			t.Errorf("other pixels by default, %v", err)
		}
	}

	r = s.get(path + "/metadata")
	var model []map[string]struct{ BulkDataURI string }
	if err := json.Unmarshal(r.body, &model); err != nil || len(model) != 1 {
		t.Fatalf("metadata: %d %v", r.StatusCode, err)
	}
	for tag, v := range model[0] {
		if v.BulkDataURI == "" {
			continue
		}
		if r := s.get(strings.TrimPrefix(v.BulkDataURI, s.root)); r.StatusCode == http.StatusOK {
			counts["bulk"]++
		} else if r.StatusCode != http.StatusNotAcceptable || decodeErr == nil {
			t.Errorf("%s: %d %s", tag, r.StatusCode, r.body)
		}
	}
	if uri := model[0]["7FE00010"].BulkDataURI; decodeErr == nil && uri == "" {
		t.Error("no BulkDataURI of the pixels")
	}

	r = s.get(path+"/frames/1", "Accept", "application/octet-stream")
	switch {
	case r.StatusCode == http.StatusOK:
		counts["frame"]++
		if want.BitsAllocated == 8 && len(r.body) != len(want.Data) {
			break // single bits, shared chroma
		}
		if !bytes.Equal(r.body, want.Data) || r.Header.Get("Content-Type") != "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1" {
			t.Errorf("frame: %s, %d bytes in place of %d", r.Header.Get("Content-Type"), len(r.body), len(want.Data))
		}
	case r.StatusCode != http.StatusNotAcceptable || decodeErr == nil:
		t.Errorf("frame: %d %s", r.StatusCode, r.body)
	}

	r = s.get(path+"/rendered", "Accept", "image/jpeg, text/html;q=0.5")
	switch m, kind, err := image.Decode(bytes.NewReader(r.body)); {
	case r.StatusCode == http.StatusOK && r.Header.Get("Content-Type") == "text/html; charset=utf-8":
		counts["html"]++
	case r.StatusCode == http.StatusOK:
		counts["rendered"]++
		if err != nil || kind != "jpeg" || m.Bounds().Dx() != want.Columns || m.Bounds().Dy() != want.Rows {
			t.Errorf("rendered: %v %s", err, kind)
		}
	case bytes.Contains(r.body, []byte("segmented palettes cannot be read")):
		return
	case r.StatusCode != http.StatusNotAcceptable || decodeErr == nil:
		t.Errorf("rendered: %d %s", r.StatusCode, r.body)
	}
	if r := s.get(path + "/thumbnail"); (r.StatusCode == http.StatusOK) != (decodeErr == nil) {
		t.Errorf("thumbnail: %d %s", r.StatusCode, r.body)
	}
}

// radiograph stores a picture of our own, a ramp from left to right over 12 bits, in a transfer syntax, and returns its path.
func (s *service) radiograph(uid string, frames int, edit func(*pipeline.Dataset)) (string, pipeline.Dataset) {
	s.t.Helper()
	const rows, columns = 40, 60
	d := object(s.t, "1.2.7", "1.2.7.1", "1.2.7.1."+fmt.Sprint(s.kept()+1))
	d.SetInts(pipeline.TagSamplesPerPixel, "US", 1)
	d.SetText(pipeline.TagPhotometricInterpretation, "CS", "MONOCHROME2")
	d.SetText(pipeline.TagNumberOfFrames, "IS", fmt.Sprint(frames))
	for tag, v := range map[pipeline.Tag]int64{pipeline.TagRows: rows, pipeline.TagColumns: columns, pipeline.TagBitsAllocated: 16, pipeline.TagBitsStored: 12,
		pipeline.TagHighBit: 11, pipeline.TagPixelRepresentation: 0} {
		d.SetInts(tag, "US", v)
	}
	d.SetText(pipeline.TagWindowCenter, "DS", "2048")
	d.SetText(pipeline.TagWindowWidth, "DS", "4096")
	words := make([]byte, 2*rows*columns*frames)
	for i := range rows * columns * frames {
		v := i % columns * 4095 / (columns - 1)
		words[2*i], words[2*i+1] = byte(v), byte(v>>8)
	}
	d.SetBytes(pipeline.TagPixelData, "OW", words)
	if edit != nil {
		edit(&d)
	}
	var b bytes.Buffer
	if err := dicom.Write(&b, d, uid); err != nil {
		s.t.Fatal(err)
	}
	if r := s.post("/studies", "application/dicom", &b); r.StatusCode != http.StatusOK {
		s.t.Fatalf("%d %s", r.StatusCode, r.body)
	}
	return "/studies/1.2.7/series/1.2.7.1/instances/" + d.String(pipeline.TagSOPInstanceUID), d
}

// TestFrames: the forms in which clients ask for frames, and the labels they get (PS3.18 tables 8.7.3-4 and -5).
func TestFrames(t *testing.T) {
	codecs(t)
	s := start(t)
	native, d := s.radiograph(dicom.ExplicitVRLittleEndian, 3, nil)
	jls, _ := s.radiograph(dicom.JPEGLSLossless, 3, nil)
	pixels, _ := d.Get(pipeline.TagPixelData)
	one := len(pixels.Bytes) / 3
	const octets, multi = "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1", "multipart/related; type="
	for _, c := range []struct {
		path, accept string
		status       int
		label        string // of the parts; of the body where it is single
		parts        int    // 0: not multipart
	}{
		{native + "/frames/1", "", 200, octets, 1},
		{native + "/frames/1", "*/*", 200, octets, 1},
		{native + "/frames/1,3", multi + "application/octet-stream", 200, octets, 2},
		{native + "/frames/3,1", multi + `"application/octet-stream"; transfer-syntax=*`, 200, octets, 2},
		{native + "/frames/2", multi + `"application/octet-stream; transfer-syntax=*"`, 200, octets, 1}, // misquoted, as OHIF once did
		{native + "/frames/2", "application/octet-stream", 200, octets, 0},
		{native + "/frames/1,2", "application/octet-stream", 406, "", 0},
		{native + "/frames/1", multi + "image/jls", 200, "image/jls; transfer-syntax=1.2.840.10008.1.2.4.80", 1},
		{native + "/frames/1", "image/jls", 200, "image/jls; transfer-syntax=1.2.840.10008.1.2.4.80", 0},
		{native + "/frames/1", multi + "image/jp2", 200, "image/jp2; transfer-syntax=1.2.840.10008.1.2.4.90", 1},
		{native + "/frames/1", multi + "image/jphc", 200, "image/jphc; transfer-syntax=1.2.840.10008.1.2.4.201", 1},
		{native + "/frames/1", multi + "image/jphc; transfer-syntax=1.2.840.10008.1.2.4.202", 200, "image/jphc; transfer-syntax=1.2.840.10008.1.2.4.202", 1},
		{native + "/frames/1", multi + "image/dicom-rle", 200, "image/dicom-rle; transfer-syntax=1.2.840.10008.1.2.5", 1},
		{native + "/frames/1", multi + "image/jpeg", 200, "image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.70", 1},
		{native + "/frames/1", multi + "image/jxl", 406, "", 0},
		{native + "/frames/1", multi + "image/jxl, " + multi + "image/jls; q=0.5", 200, "image/jls; transfer-syntax=1.2.840.10008.1.2.4.80", 1},
		{native + "/frames/1", multi + "image/jls; q=0.2, " + multi + "image/jp2; q=0.9", 200, "image/jp2; transfer-syntax=1.2.840.10008.1.2.4.90", 1},
		{native + "/frames/1", multi + "image/jls; transfer-syntax=1.2.840.10008.1.2.4.90", 406, "", 0},
		{native + "/frames/1", "text/plain", 406, "", 0},
		{native + "/frames/4", "", 404, "", 0},
		{native + "/frames/0", "", 400, "", 0},
		{native + "/frames/1,x", "", 400, "", 0},
		{jls + "/frames/1", "", 200, octets, 1},
		{jls + "/frames/1,2,3", multi + `"application/octet-stream"; transfer-syntax=*`, 200, "image/jls; transfer-syntax=1.2.840.10008.1.2.4.80", 3},
		{jls + "/frames/1", multi + "image/jls", 200, "image/jls; transfer-syntax=1.2.840.10008.1.2.4.80", 1},
		{jls + "/frames/1", multi + "image/*", 200, "image/jls; transfer-syntax=1.2.840.10008.1.2.4.80", 1},
		{jls + "/frames/1", "*/*, " + multi + "application/octet-stream; q=0", 200, "image/jls; transfer-syntax=1.2.840.10008.1.2.4.80", 1},
		{native + "/frames/1", "*/*, " + multi + "application/octet-stream; q=0", 406, "", 0},
		{jls + "/frames/1", multi + "image/jp2", 200, "image/jp2; transfer-syntax=1.2.840.10008.1.2.4.90", 1},
		{jls + "/bulkdata/7FE00010", multi + `"application/octet-stream"; transfer-syntax=*`, 200, "image/jls; transfer-syntax=1.2.840.10008.1.2.4.80", 3},
		{jls + "/bulkdata/7FE00010", "", 200, octets, 3},
	} {
		r := s.get(c.path, "Accept", c.accept)
		if r.StatusCode != c.status {
			t.Errorf("%s %q: %d %s", c.path, c.accept, r.StatusCode, r.body[:min(200, len(r.body))])
			continue
		}
		if c.status != http.StatusOK {
			continue
		}
		if c.parts == 0 {
			if r.Header.Get("Content-Type") != c.label {
				t.Errorf("%s %q: %s", c.path, c.accept, r.Header.Get("Content-Type"))
			}
			continue
		}
		files, types := partsOf(t, r)
		if len(types) != c.parts || slices.ContainsFunc(types, func(s string) bool { return s != c.label }) {
			t.Errorf("%s %q: %v", c.path, c.accept, types)
		}
		for name, b := range files {
			if c.label == octets && !bytes.Equal(b, pixels.Bytes[:one]) { // the frames are alike
				t.Errorf("%s %q: other bytes in frame %s", c.path, c.accept, name)
			}
		}
	}
	if r := s.get(native + "/bulkdata/7FE00010"); !bytes.Equal(r.body, pixels.Bytes) {
		t.Errorf("pixels as a whole: %d, %d bytes", r.StatusCode, len(r.body))
	}
}

// TestConditions: what HTTP caches and downloaders ask for, on every kind of resource (RFC 9110 sections 13 and 14).
func TestConditions(t *testing.T) {
	codecs(t)
	s := start(t)
	path, _ := s.radiograph(dicom.ExplicitVRLittleEndian, 2, nil)
	jls, _ := s.radiograph(dicom.JPEGLSLossless, 1, nil)
	for _, resource := range []string{path, jls, "/studies/1.2.7", path + "/metadata", path + "/frames/1,2", jls + "/frames/1", path + "/bulkdata/7FE00010",
		path + "/rendered", path + "/thumbnail", "/studies/1.2.7/rendered", "/studies/1.2.7/thumbnail", "/wado?requestType=WADO&studyUID=1.2.7&seriesUID=1.2.7.1&objectUID=1.2.7.1.1"} {
		accept := "*/*"
		s := *s
		if strings.HasPrefix(resource, "/wado") {
			s.root = strings.TrimSuffix(s.root, dicomweb.Root)
		}
		whole := s.get(resource, "Accept", accept)
		tag, at := whole.Header.Get("ETag"), whole.Header.Get("Last-Modified")
		if whole.StatusCode != http.StatusOK || tag == "" || at == "" {
			t.Errorf("%s: %d, ETag %s, Last-Modified %s: %.200s", resource, whole.StatusCode, tag, at, whole.body)
			continue
		}
		if again := s.get(resource, "Accept", accept); !bytes.Equal(again.body, whole.body) || again.Header.Get("ETag") != tag {
			t.Errorf("%s: the same tag for other bytes, or another tag for the same", resource)
		}
		ranges := whole.Header.Get("Accept-Ranges") == "bytes"
		if !ranges && !strings.HasPrefix(resource, "/studies/1.2.7") {
			t.Errorf("%s: no ranges", resource)
		}
		n := len(whole.body)
		for _, c := range []struct {
			name, value string
			more        []string
			status      int
			body        []byte
		}{
			{"If-None-Match", tag, nil, 304, nil},
			{"If-None-Match", `"x", W/` + tag, nil, 304, nil},
			{"If-None-Match", `"x"`, nil, 200, whole.body},
			{"If-None-Match", `"x"`, []string{"If-Modified-Since", at}, 200, whole.body},
			{"If-Modified-Since", at, nil, 304, nil},
			{"If-Modified-Since", "Mon, 01 Jan 2001 00:00:00 GMT", nil, 200, whole.body},
			{"Range", "bytes=10-19", nil, 206, whole.body[10:20]},
			{"Range", "bytes=-5", nil, 206, whole.body[n-5:]},
			{"Range", fmt.Sprintf("bytes=%d-", n-7), nil, 206, whole.body[n-7:]},
			{"Range", "bytes=10-19", []string{"If-Range", tag}, 206, whole.body[10:20]},
			{"Range", "bytes=10-19", []string{"If-Range", `"other"`}, 200, whole.body},
			{"Range", fmt.Sprintf("bytes=%d-", n+1), nil, 416, nil},
			{"Range", "bytes=99999999999999999999999-", nil, 416, nil},
			{"Range", "bytes=5-9223372036854775807", nil, 206, whole.body[5:]},
			{"Range", "chars=1-2", nil, 416, nil},
		} {
			if c.name == "Range" && !ranges {
				continue
			}
			r := s.get(resource, append([]string{"Accept", accept, c.name, c.value}, c.more...)...)
			if r.StatusCode != c.status || c.body != nil && !bytes.Equal(r.body, c.body) || c.status == 304 && len(r.body) > 0 {
				t.Errorf("%s %s: %s %v: %d, %d bytes", resource, c.name, c.value, c.more, r.StatusCode, len(r.body))
			}
		}
		r, err := http.NewRequestWithContext(context.Background(), http.MethodHead, s.root+resource, nil)
		if err != nil {
			t.Fatal(err)
		}
		head := s.do(r)
		if head.StatusCode != http.StatusOK || head.Header.Get("ETag") != tag || head.Header.Get("Content-Type") != whole.Header.Get("Content-Type") || len(head.body) > 0 ||
			ranges && head.Header.Get("Content-Length") != fmt.Sprint(n) {
			t.Errorf("HEAD %s: %d %v", resource, head.StatusCode, head.Header)
		}
	}
	if _, err := time.Parse(http.TimeFormat, s.get(path).Header.Get("Last-Modified")); err != nil {
		t.Error(err)
	}
}

// TestZip: a study as one archive, with the bytes that were stored.
func TestZip(t *testing.T) {
	s := start(t)
	want := map[string][]byte{}
	for _, uid := range []string{"1.2.1.1.1", "1.2.1.1.2", "1.2.1.2.1"} {
		d := object(t, "1.2.1", uid[:7], uid)
		want[uid+".dcm"] = file(t, d)
		s.store(d)
	}
	r := s.get("/studies/1.2.1", "Accept", "application/zip")
	z, err := zip.NewReader(bytes.NewReader(r.body), int64(len(r.body)))
	if err != nil || r.Header.Get("Content-Disposition") != `attachment; filename="1.2.1.zip"` {
		t.Fatal(r.StatusCode, r.Header, err)
	}
	for _, f := range z.File {
		b, err := fs.ReadFile(z, f.Name)
		if since := time.Since(f.Modified); since < -2*time.Second || since > time.Hour {
			t.Error(f.Name, "is of", f.Modified)
		}
		if err != nil || !bytes.Equal(b, want[path.Base(f.Name)]) {
			t.Errorf("%s: %v", f.Name, err)
		}
		delete(want, path.Base(f.Name))
	}
	if len(want) > 0 {
		t.Error("not in the archive:", len(want))
	}
}

// TestDocuments: what is no image comes through untouched, and is shown as what it is.
func TestDocuments(t *testing.T) {
	s := start(t)
	pdf := object(t, "1.2.1", "1.2.1.1", "1.2.1.1.1")
	pdf.SetText(pipeline.TagSOPClassUID, "UI", "1.2.840.10008.5.1.4.1.1.104.1")
	pdf.SetText(0x00420012, "LO", "application/pdf")
	pdf.SetBytes(pipeline.TagEncapsulatedDocument, "OB", []byte("%PDF-1.4 synthetic"))
	s.store(pdf)
	const instance = "/studies/1.2.1/series/1.2.1.1/instances/1.2.1.1.1"
	for accept, want := range map[string]string{"application/pdf": "application/pdf", "*/*": "application/pdf"} {
		if r := s.get(instance+"/rendered", "Accept", accept); string(r.body) != "%PDF-1.4 synthetic" || r.Header.Get("Content-Type") != want {
			t.Errorf("%s: %d %s", accept, r.StatusCode, r.body)
		}
	}
	if r := s.get(instance+"/bulkdata/00420011", "Accept", "application/pdf"); string(r.body) != "%PDF-1.4 synthetic" {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
	if r := s.get(instance+"/rendered", "Accept", "image/jpeg"); r.StatusCode != http.StatusNotAcceptable || !bytes.Contains(r.body, []byte("no pixel data")) {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
	if r := s.get(instance + "/thumbnail"); r.StatusCode != http.StatusNotAcceptable {
		t.Error(r.StatusCode)
	}

	report := object(t, "1.2.2", "1.2.2.1", "1.2.2.1.1")
	code := func(text string) pipeline.Dataset {
		var d pipeline.Dataset
		d.SetText(pipeline.TagCodeMeaning, "LO", text)
		return d
	}
	var item pipeline.Dataset
	item.SetText(0x0040A040, "CS", "TEXT")
	item.SetItems(0x0040A043, code("Finding"))
	item.SetText(0x0040A160, "UT", "a <script> & more")
	report.SetText(pipeline.TagSOPClassUID, "UI", "1.2.840.10008.5.1.4.1.1.88.11")
	report.SetItems(0x0040A043, code("Imaging Report"))
	report.SetItems(0x0040A730, item)
	s.store(report)
	r := s.get("/studies/1.2.2/series/1.2.2.1/instances/1.2.2.1.1/rendered", "Accept", "text/html")
	if r.StatusCode != http.StatusOK || !bytes.Contains(r.body, []byte("<b>Finding</b> a &lt;script&gt; &amp; more")) || bytes.Contains(r.body, []byte("<script>")) ||
		!strings.Contains(r.Header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
}
