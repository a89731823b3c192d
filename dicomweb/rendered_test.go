package dicomweb_test

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/color"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"chatxray/dicomweb"
	"chatxray/pipeline"
	"chatxray/pipeline/archive"
	"chatxray/pipeline/dicom"
)

func (s *service) picture(path string, headers ...string) image.Image {
	s.t.Helper()
	r := s.get(path, headers...)
	m, _, err := image.Decode(bytes.NewReader(r.body))
	if r.StatusCode != http.StatusOK || err != nil {
		s.t.Fatalf("%s: %d %v %.200s", path, r.StatusCode, err, r.body)
	}
	return m
}

func gray(m image.Image, x, y int) int {
	return int(color.GrayModel.Convert(m.At(x, y)).(color.Gray).Y)
}

// TestRenderedParameters: window, viewport, region, flip, quality, annotation (PS3.18 section 8.3.5.1), on a ramp of 60 x 40 pixels from
// black to white. PNG keeps every value.
func TestRenderedParameters(t *testing.T) {
	s := start(t)
	path, _ := s.radiograph(dicom.ExplicitVRLittleEndian, 2, nil)
	ramp := func(x int) int { return int(math.Round(float64(x) * 255 / 59)) }
	for _, c := range []struct {
		query         string
		width, height int
		left, right   int // gray values in the middle row
	}{
		{"", 60, 40, 0, 255},
		{"?viewport=30,30", 30, 20, (ramp(0) + ramp(1)) / 2, (ramp(58) + ramp(59)) / 2},
		{"?viewport=30", 30, 20, 2, 253},
		{"?viewport=120,10", 15, 10, 6, 249},
		{"?viewport=120,120", 120, 80, 0, 255},
		{"?viewport=10,10,20,5,10,10", 10, 10, ramp(20), ramp(29)},
		{"?viewport=10,10,20,5,-10,10", 10, 10, ramp(29), ramp(20)},
		{"?viewport=10,10,20,5,10,-10", 10, 10, ramp(20), ramp(29)},
		{"?viewport=20,20,50,30,100,100", 20, 20, ramp(50), 255},
		{"?viewport=60,40,,,-60,", 60, 40, 255, 0},
		{"?window=2048,100000,linear", 60, 40, 122, 133},
		{"?window=1,1,linear", 60, 40, 0, 255},
		{"?window=2048,4096,sigmoid", 60, 40, 30, 225},
		{"?window=2048,4096,linear-exact", 60, 40, 0, 255},
	} {
		m := s.picture(path+"/rendered"+c.query, "Accept", "image/png")
		if m.Bounds().Dx() != c.width || m.Bounds().Dy() != c.height {
			t.Errorf("%s: %v", c.query, m.Bounds())
			continue
		}
		left, right := gray(m, 0, c.height/2), gray(m, c.width-1, c.height/2)
		if math.Abs(float64(left-c.left)) > 2 || math.Abs(float64(right-c.right)) > 2 {
			t.Errorf("%s: from %d to %d", c.query, left, right)
		}
	}
	for query, says := range map[string]string{
		"viewport=100000,100000": "at most 8192", "viewport=0,5": "at least 1", "viewport=5": "", "viewport=a,b": "no number", "viewport=1,2,3": "vw,vh",
		"viewport=5,5,-1,0,5,5": "outside", "viewport=5,5,60,0,5,5": "outside the image", "viewport=NaN,NaN": "no number", "viewport=5,5,1e300,0,1,1": "no number",
		"window=1": "center,width", "window=1,0": "too small", "window=1,2,cubic": "function", "window=NaN,2": "numbers", "quality=0": "1 to 100",
		"quality=101": "1 to 100", "annotation=all": "annotation",
	} {
		r := s.get(path + "/rendered?" + query)
		if want := map[bool]int{true: 200, false: 400}[says == ""]; r.StatusCode != want || says != "" && !bytes.Contains(r.body, []byte(says)) {
			t.Errorf("%s: %d %.200s", query, r.StatusCode, r.body)
		}
	}
	small, large := s.get(path+"/rendered?quality=5"), s.get(path+"/rendered?quality=100")
	if len(small.body) >= len(large.body) {
		t.Error("quality makes no difference")
	}
	big, _ := s.radiograph(dicom.ExplicitVRLittleEndian, 1, func(d *pipeline.Dataset) {
		d.SetText(pipeline.TagSpecificCharacterSet, "CS", "ISO_IR 192")
		d.SetText(pipeline.TagPatientName, "PN", "Größe^Ada=山田^太郎")
	})
	plain, written := s.picture(big+"/rendered?viewport=600,400"), s.picture(big+"/rendered?viewport=600,400&annotation=patient,technique")
	top, bottom := 0, 0
	for x := range 200 {
		for y := range 60 {
			if math.Abs(float64(gray(plain, x, y)-gray(written, x, y))) > 60 {
				top++
			}
			if math.Abs(float64(gray(plain, x, 399-y)-gray(written, x, 399-y))) > 60 {
				bottom++
			}
		}
	}
	if top < 100 || bottom < 50 {
		t.Errorf("%d and %d pixels of text", top, bottom)
	}

	for accept, want := range map[string]string{"": "image/jpeg", "image/png": "image/png", "image/gif": "image/gif", "image/*": "image/jpeg", "image/png;q=0.2, image/jpeg;q=0.1": "image/png", "image/jpeg;q=0, */*": "image/png", "image/*, image/jpeg;q=0, image/png;q=0": "image/gif",
		`multipart/related; type="image/png"`: "multipart/related", `multipart/related; type="image/jpeg"`: "multipart/related"} {
		if r := s.get(path+"/rendered", "Accept", accept); r.StatusCode != 200 || !strings.HasPrefix(r.Header.Get("Content-Type"), want) {
			t.Errorf("%q: %d %s", accept, r.StatusCode, r.Header.Get("Content-Type"))
		}
	}
	if r := s.get(path+"/rendered?accept=image/png", "Accept", "image/jpeg"); r.Header.Get("Content-Type") != "image/png" {
		t.Error("the accept of the query does not win:", r.Header.Get("Content-Type"))
	}
	if r := s.get(path+"/rendered", "Accept", "video/mp4"); r.StatusCode != http.StatusNotAcceptable {
		t.Error("video:", r.StatusCode)
	}
	for what, n := range map[string]int{path + "/rendered": 2, path + "/frames/2,1,2/rendered": 3, "/studies/1.2.7/rendered": 3, "/studies/1.2.7/series/1.2.7.1/rendered": 3} {
		_, types := partsOf(t, s.get(what, "Accept", `multipart/related; type="image/jpeg"`))
		if len(types) != n {
			t.Errorf("%s has %d pictures", what, len(types))
		}
	}
	for _, what := range []string{path, path + "/frames/2", "/studies/1.2.7", "/studies/1.2.7/series/1.2.7.1"} {
		if m := s.picture(what + "/thumbnail"); m.Bounds().Dx() != 128 {
			t.Errorf("%s: the thumbnail is %v", what, m.Bounds())
		}
	}
	if r := s.get(path + "/frames/3/rendered"); r.StatusCode != http.StatusNotFound {
		t.Error(r.StatusCode)
	}
}

// TestWADOURI: what older viewers send (PS3.18 section 9).
func TestWADOURI(t *testing.T) {
	codecs(t)
	s := start(t)
	s.radiograph(dicom.ExplicitVRLittleEndian, 2, nil)
	s.root = strings.TrimSuffix(s.root, dicomweb.Root)
	const base = "/wado?requestType=WADO&studyUID=1.2.7&seriesUID=1.2.7.1&objectUID=1.2.7.1.1"
	for more, want := range map[string]string{
		"": "200 image/jpeg", "&contentType=image/jpeg": "200 image/jpeg", "&contentType=image%2Fpng": "200 image/png",
		"&contentType=application/dicom":                                          "200 application/dicom; transfer-syntax=1.2.840.10008.1.2.1",
		"&contentType=application%2Fdicom&transferSyntax=1.2.840.10008.1.2.4.80":  "200 application/dicom; transfer-syntax=1.2.840.10008.1.2.4.80",
		"&contentType=application%2Fdicom&transferSyntax=1.2.840.10008.1.2.4.102": "406 application/json; charset=utf-8",
		"&frameNumber=2&rows=20&columns=20&windowCenter=2048&windowWidth=4096":    "200 image/jpeg",
		"&region=0.5,0,1,1&imageQuality=50":                                       "200 image/jpeg",
		"&frameNumber=3":                                                          "404 application/json; charset=utf-8",
		"&rows=100000":                                                            "400 application/json; charset=utf-8",
		"&windowCenter=1":                                                         "400 application/json; charset=utf-8",
		"&region=0.5,0,0.2,1":                                                     "400 application/json; charset=utf-8",
		"&region=a":                                                               "400 application/json; charset=utf-8",
		"&anonymize=yes":                                                          "406 application/json; charset=utf-8",
	} {
		r := s.get(base + more)
		if got := r.Status[:4] + r.Header.Get("Content-Type"); got != want {
			t.Errorf("%s: %s %.200s", more, got, r.body)
		}
	}
	if m := s.picture(base + "&region=0.5,0,1,1&contentType=image/png"); m.Bounds().Dx() != 30 || gray(m, 0, 0) < 125 {
		t.Errorf("the right half: %v from %d", m.Bounds(), gray(m, 0, 0))
	}
	for _, wrong := range []string{"/wado", "/wado?requestType=WADO&studyUID=1.2.7&seriesUID=1.2.7.1", strings.Replace(base, "objectUID=1.2.7.1.1", "objectUID=../x", 1)} {
		if r := s.get(wrong); r.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %d", wrong, r.StatusCode)
		}
	}
	if r := s.get(strings.Replace(base, "1.2.7.1.1", "1.2.7.1.9", 1)); r.StatusCode != http.StatusNotFound {
		t.Error(r.StatusCode)
	}
}

// TestRenderedLikeOrthanc compares rendered pictures and frames with Orthanc's, for the radiographs and MR, CT, XA of the data pack. Both
// are told the object's window, because Orthanc 1.10 does not take it by itself; it rounds by its own rules, so a mean difference of two
// grays is let through.
func TestRenderedLikeOrthanc(t *testing.T) {
	codecs(t)
	files := append(pack(t, "dicom/chest/*.dcm"), pack(t, "dicom/syntaxes/*.dcm")...)
	s := start(t)
	o := startOrthanc(t, s.root)
	theirs := &service{t: t, root: o.root + "/dicom-web"}
	rendered, frames := 0, 0
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		in, err := dicom.Open(b)
		if err != nil || len(b) > 8<<20 {
			continue
		}
		if _, err := dicom.DecodeFrame(context.Background(), in, 0); err != nil {
			continue
		}
		resp, err := http.Post(o.root+"/instances", "application/dicom", bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if r := s.post("/studies", "application/dicom", bytes.NewReader(b)); resp.StatusCode != http.StatusOK || r.StatusCode != http.StatusOK || bytes.Contains(r.body, []byte("00081196")) {
			continue
		}
		path, file := instancePath(in), filepath.Base(name)
		const octets = `multipart/related; type="application/octet-stream"`
		if r := theirs.get(path+"/frames/1", "Accept", octets); r.StatusCode == http.StatusOK && bytes.Contains(r.body, []byte("\r\n\r\n")) {
			want := r.body[bytes.Index(r.body, []byte("\r\n\r\n"))+4:]
			got := s.get(path+"/frames/1", "Accept", "application/octet-stream").body
			if frames++; !bytes.HasPrefix(want, got) && otherFrame[file] == "" {
				t.Errorf("%s: frame 1 has other bytes than Orthanc's", file)
			}
		}
		center, width := in.Header.Floats(pipeline.TagWindowCenter), in.Header.Floats(pipeline.TagWindowWidth)
		if len(center) == 0 || len(width) == 0 {
			continue
		}
		query := fmt.Sprintf("/rendered?window=%g,%g,linear", center[0], width[0])
		r := theirs.get(path+query, "Accept", "image/png")
		want, _, err := image.Decode(bytes.NewReader(r.body))
		if r.StatusCode != http.StatusOK || err != nil {
			continue
		}
		got := s.picture(path+query, "Accept", "image/png")
		if got.Bounds() != want.Bounds() {
			t.Errorf("%s: %v, Orthanc's is %v", file, got.Bounds(), want.Bounds())
			continue
		}
		sum, n := 0.0, 0
		for y := 0; y < got.Bounds().Dy(); y += 3 {
			for x := 0; x < got.Bounds().Dx(); x += 3 {
				sum += math.Abs(float64(gray(got, x, y) - gray(want, x, y)))
				n++
			}
		}
		rendered++
		if sum/float64(n) > 2 && otherPicture[file] == "" {
			t.Errorf("%s: differs from Orthanc's by %.1f grays in the mean", file, sum/float64(n))
		}
	}
	if rendered < 8 || frames < 20 {
		t.Errorf("only %d pictures and %d frames were compared", rendered, frames)
	}
	t.Logf("%d pictures, %d frames", rendered, frames)
}

// otherFrame and otherPicture list files that Orthanc gives otherwise, and why that is right for us.
var (
	otherFrame   = map[string]string{}
	otherPicture = map[string]string{}
)

// TestConversionBusy: what is beyond the bounds of conversion is told to come again, and a client that goes away frees its place.
func TestConversionBusy(t *testing.T) {
	block := make(chan struct{})
	s := start(t, func(_ *dicomweb.Config, d *dicomweb.Deps, _ *archive.Options) {
		open := d.Object
		d.Object = func(in *pipeline.Instance) (dicomweb.Object, error) {
			o, err := open(in)
			return slow{o, block}, err
		}
	})
	path, _ := s.radiograph(dicom.ExplicitVRLittleEndian, 1, nil)
	codes := make(chan int, 1000)
	ctx, cancel := context.WithCancel(context.Background())
	ask := func() {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.root+path+"/rendered", nil)
		if err != nil {
			codes <- 0
			return
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			codes <- -1
			return
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") == "" {
			t.Error("a 503 without Retry-After")
		}
		codes <- resp.StatusCode
	}
	const clients = 400
	for range clients {
		go ask()
	}
	for range 20 { // of at least 100 that find the queue full
		if code := <-codes; code != http.StatusServiceUnavailable {
			t.Fatalf("%d", code)
		}
	}
	cancel()
	close(block)
	for range clients - 20 {
		<-codes
	}
	begin := time.Now()
	if r := s.get(path + "/rendered"); r.StatusCode != http.StatusOK || time.Since(begin) > 10*time.Second {
		t.Errorf("afterwards: %d", r.StatusCode)
	}
}

// slow is an object whose pictures wait.
type slow struct {
	dicomweb.Object
	block chan struct{}
}

func (s slow) Render(ctx context.Context, frame int, v pipeline.View) (image.Image, error) {
	<-s.block
	return s.Object.Render(ctx, frame, v)
}

// TestRenderedTogether: pictures that are made at the same time do not mix, though frames are read into memory that was used before.
func TestRenderedTogether(t *testing.T) {
	s := start(t)
	ramp, _ := s.radiograph(dicom.ExplicitVRLittleEndian, 1, nil)
	flat, _ := s.radiograph(dicom.ExplicitVRLittleEndian, 1, func(d *pipeline.Dataset) {
		d.SetBytes(pipeline.TagPixelData, "OW", bytes.Repeat([]byte{0, 8}, 60*40))
	})
	var asked []string
	for _, path := range []string{ramp, flat} {
		asked = append(asked, path+"/rendered", path+"/rendered?viewport=20,20", path+"/rendered?annotation=patient", path+"/thumbnail")
	}
	want := map[string][]byte{}
	for _, path := range asked {
		want[path] = s.get(path).body
	}
	var work sync.WaitGroup
	for i := range 100 { // fewer than a gate of two slots lets wait
		work.Go(func() {
			path := asked[i%len(asked)]
			resp, err := http.Get(s.root + path)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if got, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(got, want[path]) {
				t.Errorf("%s: %d bytes, not those of before, %v", path, len(got), err)
			}
		})
	}
	work.Wait()
}
