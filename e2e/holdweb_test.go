package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// The sentences of a report that is held: the second one compares with an image that nobody showed.
var heldWords = []string{"The heart is normal in size. ", "Compared with the prior study, ", "the pleural effusion has increased."}

// another makes an instance of the same study and series, the same picture under another SOP Instance UID.
func another(t *testing.T, file, sop string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	other := []byte(sop)
	other[len(other)-1] = '0' + (other[len(other)-1]-'0'+1)%10
	if n := bytes.Count(b, []byte(sop)); n != 2 {
		t.Fatalf("the file names its SOP Instance UID %d times", n)
	}
	out := filepath.Join(t.TempDir(), "another.dcm")
	if err := os.WriteFile(out, bytes.ReplaceAll(b, []byte(sop), other), 0o600); err != nil {
		t.Fatal(err)
	}
	return out
}

// A report that a worker holds is released at a web, which has no model: the worker writes what it has read and delivers it. Where another image came
// meanwhile the release is refused, and says why.
func TestAPersonDecidesAtAWeb(t *testing.T) {
	built(t)
	far := elsewhere(t, heldWords...)
	var shut atomic.Bool
	goOn := make(chan struct{})
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if shut.Load() && r.URL.Path == "/v1/chat/completions" {
			select {
			case <-goOn:
			case <-r.Context().Done():
			}
		}
		far.Config.Handler.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	bundle := remoteBundle(t, object{"url": front.URL + "/v1", "model": "fixed", "images": 1, "prompt": "Write a report of this chest radiograph.", "evidence": "none"})
	redisPort, pacsPort := freePort(t), freePort(t)
	redisServer(t, redisPort)
	_, index := postgresServer(t)
	data := t.TempDir()
	page := strings.Replace(documented(t, "yaml"), "127.0.0.1:8042", fmt.Sprintf("127.0.0.1:%d", pacsPort), 1)
	page += fmt.Sprintf("\nline:\n  quiet: 300ms\nmodel:\n  evidence:\n    policy: hold\njobs:\n  redis: redis://127.0.0.1:%d/0\narchive:\n  index: %q\n", redisPort, index)
	config := filepath.Join(t.TempDir(), "chatxray.yaml")
	if err := os.WriteFile(config, []byte(page), 0o644); err != nil {
		t.Fatal(err)
	}
	worker := serve(t, data, "--config", config, "--role", "worker", "--bundle", bundle)
	web := serve(t, data, "--config", config, "--role", "web")
	pacs := orthanc(t, pacsPort, web.root)

	type reading struct {
		State  string
		Record struct {
			ReleasedBy string `json:"released_by"`
			Reading    struct{ Revision int }
			Documents  []struct {
				Series string `json:"series_instance_uid"`
				SOP    string `json:"sop_instance_uid"`
			}
			Deliveries map[string]struct{ Attempts int }
		}
	}
	until := func(study, state string, revision int) (r reading) {
		t.Helper()
		eventually(t, 2*time.Minute, fmt.Sprintf("revision %d to be %s", revision, state), func() error {
			b, err := get(web.dicomweb() + "/studies/" + study + "/reading")
			r = reading{}
			if err == nil {
				err = json.Unmarshal(b, &r)
			}
			if err == nil && (r.State != state || revision > 0 && r.Record.Reading.Revision != revision) {
				err = fmt.Errorf("it says %s", b)
			}
			return err
		})
		return r
	}
	// documents are how many structured reports an archive has of a study.
	documents := func(root, study string) int {
		t.Helper()
		b, err := get(root + "/instances?Modality=SR&StudyInstanceUID=" + study)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Count(b, []byte(`"00080018"`))
	}
	none := func(study string) {
		t.Helper()
		if ours, theirs := documents(web.dicomweb(), study), documents(pacs+"/dicom-web", study); ours != 0 || theirs != 0 {
			t.Errorf("of a held report we have %d documents, Orthanc %d", ours, theirs)
		}
	}
	sopOf := func(study string) string {
		t.Helper()
		var found []map[string]struct{ Value []any }
		getJSON(t, web.dicomweb()+"/studies/"+study+"/instances", &found)
		if len(found) != 1 {
			t.Fatalf("%d instances", len(found))
		}
		return found[0]["00080018"].Value[0].(string)
	}
	// right looks at what was delivered: the same bytes here and there, of these words, about this image.
	right := func(r reading, study, sop string) {
		t.Helper()
		if ours, theirs := documents(web.dicomweb(), study), documents(pacs+"/dicom-web", study); ours != 2 || theirs != 2 || len(r.Record.Documents) != 2 {
			t.Errorf("of a released report we have %d documents, Orthanc %d, the record names %d", ours, theirs, len(r.Record.Documents))
		}
		for to, d := range r.Record.Deliveries {
			if d.Attempts != 1 {
				t.Errorf("delivered to %s in %d attempts", to, d.Attempts)
			}
		}
		said := false
		for _, d := range r.Record.Documents {
			path := "/studies/" + study + "/series/" + d.Series + "/instances/" + d.SOP
			var whole [2][]byte
			for i, root := range []string{web.dicomweb(), pacs + "/dicom-web"} {
				b, err := get(root + path + "/metadata")
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Contains(b, []byte(sop)) || !bytes.Contains(b, []byte("UNVERIFIED")) {
					t.Errorf("a document is not about the image, or not a draft: %s", b)
				}
				said = said || bytes.Contains(b, []byte("Compared with the prior study, the pleural effusion has increased."))
				ask, err := http.NewRequest(http.MethodGet, root+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				ask.Header.Set("Accept", `multipart/related; type="application/dicom"; transfer-syntax=*`)
				whole[i] = dicomPart(answered(t, ask))
			}
			if len(whole[0]) == 0 || !bytes.Equal(whole[0], whole[1]) {
				t.Errorf("document %s is %d bytes here and %d other ones in Orthanc", d.SOP, len(whole[0]), len(whole[1]))
			}
		}
		if !said {
			t.Error("no document has the sentence that was held")
		}
	}

	file, study := phantom(t, "--rows", "512", "--columns", "430")
	chatxray(t, 0, "send", web.dicomweb(), file)
	until(study, "held", 1)
	none(study)
	image := sopOf(study)
	chatxray(t, 0, "release", web.dicomweb(), study)
	right(until(study, "delivered", 1), study, image)
	line, released := "", ""
	for _, step := range steps(t, web, study) {
		line += step.State + " "
		if step.Reason == "the report was released" {
			released = step.Worker
		}
	}
	if !strings.HasSuffix(line, "reading held queued reading reported delivered ") || !strings.Contains(released, fmt.Sprintf("-%d-", web.cmd.Process.Pid)) {
		t.Errorf("its life was %s; %q released it", line, released)
	}
	if n := worker.metric("chatxray_studies_read_total"); n != "1" {
		t.Errorf("read %s times", n)
	}
	if _, said := chatxray(t, 7, "release", web.dicomweb(), study); !strings.Contains(said, "is not held, the study is delivered") {
		t.Errorf("a second release: %s", said)
	}

	// Another image comes while the report is held, and is being read.
	file, study = phantom(t, "--seed", "2", "--rows", "512", "--columns", "430")
	chatxray(t, 0, "send", web.dicomweb(), file)
	until(study, "held", 1)
	shut.Store(true)
	image = sopOf(study)
	chatxray(t, 0, "send", web.dicomweb(), another(t, file, image))
	until(study, "reading", 0)
	_, said := chatxray(t, 7, "release", web.dicomweb(), study)
	for _, want := range []string{"409", "was held", "the study is reading now", "images came or went"} {
		if !strings.Contains(said, want) {
			t.Errorf("a release of other images says %q, and not %q", said, want)
		}
	}
	none(study)
	shut.Store(false)
	close(goOn)
	until(study, "held", 2)
	none(study)
	resp, err := http.PostForm(web.dicomweb()+"/studies/"+study+"/reading/release", url.Values{})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("the release is answered %s", resp.Status)
	}
	right(until(study, "delivered", 2), study, image)
	if n := worker.metric("chatxray_studies_read_total"); n != "3" {
		t.Errorf("read %s times", n)
	}
}

// dicomPart is the DICOM file in a multipart body of one part.
func dicomPart(b []byte) []byte {
	at := bytes.Index(b, []byte("DICM"))
	if at < 128 {
		return nil
	}
	b = b[at-128:]
	if end := bytes.LastIndex(bytes.TrimRight(b, "\r\n"), []byte("\r\n--")); end >= 0 {
		b = b[:end]
	}
	return b
}
