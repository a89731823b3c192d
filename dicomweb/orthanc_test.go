package dicomweb_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chatxray/pipeline"
)

// orthanc is a real Orthanc with its DICOMweb plugin that knows our service as a server.
type orthanc struct {
	t    testing.TB
	root string
	pid  int
}

func startOrthanc(t testing.TB, ours string) orthanc {
	t.Helper()
	bin, err := exec.LookPath("Orthanc")
	if err != nil {
		bin, err = exec.LookPath("/usr/sbin/Orthanc")
	}
	if err != nil {
		t.Skip("Orthanc is not installed (Debian packages orthanc, orthanc-dicomweb)")
	}
	plugins, _ := filepath.Glob("/usr/share/orthanc/plugins/libOrthancDicomWeb.so*")
	if len(plugins) == 0 {
		t.Skip("Orthanc's DICOMweb plugin is not installed (Debian package orthanc-dicomweb)")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	dir := t.TempDir()
	cfg, _ := json.Marshal(map[string]any{
		"Name": "test", "HttpPort": port, "DicomServerEnabled": false, "RemoteAccessAllowed": false, "AuthenticationEnabled": false,
		"StorageDirectory": dir, "IndexDirectory": dir, "Plugins": plugins[:1], "OverwriteInstances": false,
		"DicomWeb": map[string]any{"Enable": true, "Servers": map[string]any{"chatxray": map[string]any{"Url": ours + "/"}}},
	})
	file := filepath.Join(dir, "orthanc.json")
	if err := os.WriteFile(file, cfg, 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command(bin, file)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("log of Orthanc:\n%s", log.String())
		}
	})
	o := orthanc{t, fmt.Sprintf("http://127.0.0.1:%d", port), cmd.Process.Pid}
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if resp, err := http.Get(o.root + "/system"); err == nil {
			resp.Body.Close()
			return o
		}
		if time.Now().After(end) {
			t.Fatal("Orthanc does not start")
		}
	}
}

// call asks Orthanc and demands a 200.
func (o orthanc) call(method, path string, body any) []byte {
	o.t.Helper()
	b, raw := body.([]byte)
	if !raw && body != nil {
		b, _ = json.Marshal(body)
	}
	r, err := http.NewRequest(method, o.root+path, bytes.NewReader(b))
	if err != nil {
		o.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		o.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		o.t.Fatalf("Orthanc answers %s %s with %d %s (%v)", method, path, resp.StatusCode, answer, err)
	}
	return answer
}

// upload puts a file into Orthanc and returns Orthanc's name of the instance.
func (o orthanc) upload(b []byte) string {
	o.t.Helper()
	var r struct{ ID, Status string }
	if err := json.Unmarshal(o.call("POST", "/instances", b), &r); err != nil || r.Status != "Success" {
		o.t.Fatal(r, err)
	}
	return r.ID
}

// forward lets Orthanc send instances to us by STOW-RS as a job and returns the job's end state.
func (o orthanc) forward(ids ...string) (state, details string) {
	o.t.Helper()
	var job struct{ ID string }
	if err := json.Unmarshal(o.call("POST", "/dicom-web/servers/chatxray/stow", map[string]any{"Resources": ids, "Synchronous": false}), &job); err != nil {
		o.t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		b := o.call("GET", "/jobs/"+job.ID, nil)
		var j struct{ State string }
		if err := json.Unmarshal(b, &j); err != nil {
			o.t.Fatal(err)
		}
		if j.State == "Success" || j.State == "Failure" {
			return j.State, string(b)
		}
	}
	return "timeout", ""
}

// TestOrthanc: stored from Orthanc, found by Orthanc, retrieved back byte for byte, and a second forwarding of the same instances is a
// success as well.
func TestOrthanc(t *testing.T) {
	s := start(t)
	o := startOrthanc(t, s.root)
	sent := map[string][]byte{} // by SOP Instance UID
	var ids []string
	add := func(sop string, b []byte) {
		sent[sop] = b
		ids = append(ids, o.upload(b))
	}
	for _, sop := range []string{"1.2.1.1.1", "1.2.1.1.2"} {
		add(sop, file(t, object(t, "1.2.1", "1.2.1.1", sop, pipeline.TagSpecificCharacterSet, "ISO_IR 192", pipeline.TagPatientName, "Müller^Jörg")))
	}
	large := object(t, "1.2.1", "1.2.1.2", "1.2.1.2.1", pipeline.TagPatientComments, "\r\n--boundary\r\n")
	large.SetBytes(0x00091010, "OB", bytes.Repeat([]byte("\r\n--"), 200_000))
	large.SetText(0x00090010, "LO", "PRIVATE")
	add("1.2.1.2.1", file(t, large))

	for _, round := range []string{"first", "again"} {
		if state, details := o.forward(ids...); state != "Success" {
			t.Fatalf("%s: the job of Orthanc ends with %s: %s", round, state, details)
		}
		if s.kept() != len(sent) {
			t.Fatalf("%s: %d of %d instances kept", round, s.kept(), len(sent))
		}
	}

	var found []map[string]struct{ Value any }
	if err := json.Unmarshal(o.call("POST", "/dicom-web/servers/chatxray/qido", map[string]any{"Uri": "/studies", "Arguments": map[string]string{"PatientName": "m*", "00100020": "SECRET-ID-7"}}), &found); err != nil || len(found) != 1 {
		t.Fatalf("found %v, %v", found, err)
	}
	t.Log("Orthanc finds", found)
	instances := o.call("POST", "/dicom-web/servers/chatxray/qido", map[string]any{"Uri": "/studies/1.2.1/instances"})
	for sop := range sent {
		if !bytes.Contains(instances, []byte(`"`+sop+`"`)) {
			t.Errorf("Orthanc does not find %s: %s", sop, instances)
		}
	}

	for _, id := range ids {
		o.call("DELETE", "/instances/"+id, nil)
	}
	o.call("POST", "/dicom-web/servers/chatxray/retrieve", map[string]any{"Resources": []map[string]string{{"Study": "1.2.1"}}, "Synchronous": true})
	got := 0
	for _, id := range ids {
		var tags struct{ StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID string }
		if err := json.Unmarshal(o.call("GET", "/instances/"+id+"/simplified-tags", nil), &tags); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(o.call("GET", "/instances/"+id+"/file", nil), sent[tags.SOPInstanceUID]) {
			t.Errorf("%s came back with other bytes", tags.SOPInstanceUID)
		}
		got++
	}
	if got != len(sent) {
		t.Errorf("%d of %d came back", got, len(sent))
	}
	for _, r := range []map[string]string{{"Study": "1.2.1", "Series": "1.2.1.2"}, {"Study": "1.2.1", "Series": "1.2.1.1", "Instance": "1.2.1.1.2"}} {
		o.call("POST", "/dicom-web/servers/chatxray/retrieve", map[string]any{"Resources": []any{r}, "Synchronous": true})
	}

	// A conflict must not pass for success: the same UID with other content.
	for _, id := range ids {
		o.call("DELETE", "/instances/"+id, nil)
	}
	changed := o.upload(file(t, object(t, "1.2.1", "1.2.1.1", "1.2.1.1.1", pipeline.TagPatientID, "another")))
	if state, details := o.forward(changed); state != "Failure" {
		t.Errorf("an instance that was refused: the job ends with %s: %s", state, details)
	}
}

// TestOrthancCompressed has Orthanc forward images of the data pack in many transfer syntaxes, find them here, lose them and retrieve them again.
func TestOrthancCompressed(t *testing.T) {
	var files []string
	for _, pattern := range []string{"dicom/chest/*.dcm", "dicom/wg04/CT1_*.dcm", "dicom/syntaxes/cs_*.dcm"} {
		files = append(files, pack(t, pattern)...)
	}
	s := start(t)
	o := startOrthanc(t, s.root)
	type identity struct{ StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID string }
	syntaxes := map[string]int{}
	tried := 0
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.Post(o.root+"/instances", "application/dicom", bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		var up struct{ ID, Status string }
		_ = json.NewDecoder(resp.Body).Decode(&up)
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK || up.Status != "Success" {
			continue // Orthanc does not take it
		}
		var tags identity
		if err := json.Unmarshal(o.call("GET", "/instances/"+up.ID+"/simplified-tags", nil), &tags); err != nil {
			t.Fatal(err)
		}
		if state, details := o.forward(up.ID); state != "Success" {
			t.Fatalf("%s: Orthanc's job ends with %s: %s", filepath.Base(name), state, details)
		}
		tried++
		found := o.call("POST", "/dicom-web/servers/chatxray/qido", map[string]any{"Uri": "/studies/" + tags.StudyInstanceUID + "/instances"})
		if !bytes.Contains(found, []byte(`"`+tags.SOPInstanceUID+`"`)) {
			t.Errorf("%s: Orthanc does not find it", filepath.Base(name))
		}
		o.call("DELETE", "/instances/"+up.ID, nil)
		o.call("POST", "/dicom-web/servers/chatxray/retrieve", map[string]any{"Synchronous": true,
			"Resources": []map[string]string{{"Study": tags.StudyInstanceUID, "Series": tags.SeriesInstanceUID, "Instance": tags.SOPInstanceUID}}})
		back := o.call("GET", "/instances/"+up.ID+"/file", nil)
		if !bytes.Equal(back, b) {
			t.Errorf("%s: %d bytes, %d came back to Orthanc, or others", filepath.Base(name), len(b), len(back))
		}
		syntaxes[string(o.call("GET", "/instances/"+up.ID+"/metadata/TransferSyntax", nil))]++
		r := s.get("/studies/"+tags.StudyInstanceUID+"/series/"+tags.SeriesInstanceUID+"/instances/"+tags.SOPInstanceUID, "Accept", "application/dicom; transfer-syntax=*")
		if !bytes.Equal(r.body, b) {
			t.Errorf("%s: %d, other bytes", filepath.Base(name), r.StatusCode)
		}
		// The files have one image in several syntaxes, and a UID is kept once.
		o.call("DELETE", "/instances/"+up.ID, nil)
		if _, _, err := s.archive.Delete(t.Context(), tags.StudyInstanceUID, "", ""); err != nil {
			t.Fatal(err)
		}
	}
	if len(syntaxes) < 10 {
		t.Errorf("only %d transfer syntaxes were tried: %v", len(syntaxes), syntaxes)
	}
	t.Logf("%d of %d files went through Orthanc to us and back, in these transfer syntaxes: %v", tried, len(files), syntaxes)
}

// pack lists files of the data pack, which lies beside the repository.
func pack(t *testing.T, pattern string) []string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for dir != "/" {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		dir = filepath.Dir(dir)
	}
	files, _ := filepath.Glob(filepath.Join(dir, "..", "shared", "data", pattern))
	if len(files) == 0 {
		t.Skip("../shared absent: no file matches ../shared/data/" + pattern)
	}
	return files
}

// TestCurl uploads with curl in the ways that recipes on the web show.
func TestCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("curl is not installed (Debian package curl)")
	}
	s := start(t)
	dir := t.TempDir()
	b := file(t, object(t, "1.2.1", "1.2.1.1", "1.2.1.1.1"))
	whole, framed := filepath.Join(dir, "a.dcm"), filepath.Join(dir, "a.multipart")
	for name, content := range map[string][]byte{whole: b, framed: multipartOf("curlboundary", b)} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"-H", "Content-Type: multipart/related; type=application/dicom; boundary=curlboundary", "--data-binary", "@" + framed},
		{"-H", `Content-Type: multipart/related; type="application/dicom"; boundary=curlboundary`, "-H", "Transfer-Encoding: chunked", "--data-binary", "@" + framed},
		{"-H", "Content-Type: multipart/related; type=application/dicom", "-F", "file=@" + whole + ";type=application/dicom"},
		{"-H", "Content-Type: application/dicom", "-H", "Expect: 100-continue", "-T", whole, "-X", "POST"},
	} {
		out, err := exec.Command(curl, append([]string{"-sS", "-w", "\n%{http_code} %{time_total}", s.root + "/studies"}, args...)...).Output()
		if err != nil {
			t.Error(args, err)
			continue
		}
		status := strings.Fields(string(out[bytes.LastIndexByte(out, '\n'):]))
		if status[0] != "200" || status[1] > "0.9" {
			t.Errorf("%v: %s", args, out)
		}
	}
	out, err := exec.Command(curl, "-sS", "-H", "Accept: application/dicom", s.root+"/studies/1.2.1/series/1.2.1.1/instances/1.2.1.1.1").Output()
	if err != nil || !bytes.Equal(out, b) {
		t.Error("curl gets other bytes:", err)
	}
}
