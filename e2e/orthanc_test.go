package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// documented returns the code block of docs/orthanc.md in a language, so that what the page says is what is tested.
func documented(t *testing.T, language string) string {
	t.Helper()
	return block(t, "orthanc.md", language)
}

// block is the first block of a language in a page of docs.
func block(t *testing.T, page, language string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, "docs", page))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?s)```" + language + "\n(.*?)```").FindSubmatch(b)
	if m == nil {
		t.Fatalf("docs/%s has no %s block", page, language)
	}
	return string(m[1])
}

// orthanc starts a real Orthanc with the configuration of the page and returns its root URL.
func orthanc(t *testing.T, port int, ours string) string {
	t.Helper()
	bin, err := exec.LookPath("Orthanc")
	if err != nil {
		if bin, err = exec.LookPath("/usr/sbin/Orthanc"); err != nil {
			t.Skip("Orthanc is not installed (Debian packages orthanc, orthanc-dicomweb)")
		}
	}
	plugins, _ := filepath.Glob("/usr/share/orthanc/plugins/libOrthancDicomWeb.so*")
	if len(plugins) == 0 {
		t.Skip("Orthanc's DICOMweb plugin is not installed (Debian package orthanc-dicomweb)")
	}
	dir := t.TempDir()
	lua := filepath.Join(dir, "chatxray.lua")
	if err := os.WriteFile(lua, []byte(documented(t, "lua")), 0o644); err != nil {
		t.Fatal(err)
	}
	var cfg map[string]any
	page := strings.NewReplacer("/etc/orthanc/chatxray.lua", lua, "http://127.0.0.1:8080/dicom-web/", ours+"/dicom-web/").Replace(documented(t, "json"))
	if err := json.Unmarshal([]byte(page), &cfg); err != nil {
		t.Fatal(err)
	}
	cfg["StableAge"] = 1
	for k, v := range map[string]any{"Name": "e2e", "HttpPort": port, "DicomServerEnabled": false, "RemoteAccessAllowed": false,
		"AuthenticationEnabled": false, "StorageDirectory": dir, "IndexDirectory": dir, "Plugins": plugins[:1]} {
		cfg[k] = v
	}
	b, _ := json.Marshal(cfg)
	file := filepath.Join(dir, "orthanc.json")
	if err := os.WriteFile(file, b, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, file)
	log := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = log, log
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
	url := fmt.Sprintf("http://127.0.0.1:%d", port)
	eventually(t, time.Minute, "Orthanc to start", func() error { _, err := get(url + "/system"); return err })
	return url
}

// A radiograph stored in Orthanc comes to us by itself, and the reports appear in the same study in Orthanc.
func TestOrthancForwardsAndGetsTheReports(t *testing.T) {
	built(t)
	port := freePort(t)
	ourConfig := filepath.Join(t.TempDir(), "chatxray.yaml")
	page := strings.Replace(documented(t, "yaml"), "127.0.0.1:8042", fmt.Sprintf("127.0.0.1:%d", port), 1)
	if err := os.WriteFile(ourConfig, []byte(page+"\nline:\n  quiet: 1s\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := serve(t, t.TempDir(), "--config", ourConfig)
	pacs := orthanc(t, port, s.root)

	file, study := phantom(t, "--effusion", "right")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Post(pacs+"/instances", "application/dicom", bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	answer, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("Orthanc does not take the radiograph: %s %s", resp.Status, answer)
	}
	type instance = map[string]struct{ Value []any }
	var found []instance
	eventually(t, 3*time.Minute, "both reports in Orthanc", func() error {
		found = nil
		b, err := get(pacs + "/dicom-web/studies/" + study + "/instances?includefield=00080016")
		if err == nil {
			err = json.Unmarshal(b, &found)
		}
		if err == nil && len(found) != 3 {
			err = fmt.Errorf("%d instances in the study", len(found))
		}
		return err
	})
	classes := map[any]bool{}
	for _, in := range found {
		classes[in["00080016"].Value[0]] = true
	}
	for _, want := range []string{"1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.88.11"} {
		if !classes[want] {
			t.Errorf("no instance of class %s in Orthanc: %v", want, classes)
		}
	}
	// The reports make the study stable again, so Orthanc sends everything once more: nothing is read a second time, no job fails.
	eventually(t, time.Minute, "Orthanc to forward the reports as well", func() error {
		var jobs []struct{ State, Type string }
		getJSON(t, pacs+"/jobs?expand", &jobs)
		done := 0
		for _, j := range jobs {
			if j.State == "Failure" {
				t.Fatalf("a forwarding job failed: %+v", jobs)
			}
			if j.State == "Success" {
				done++
			}
		}
		if done < 2 {
			return fmt.Errorf("%d jobs done", done)
		}
		return nil
	})
	time.Sleep(3 * time.Second)
	if n := s.metric("chatxray_studies_read_total"); n != "1" {
		t.Errorf("read %s times, want once", n)
	}
}

// Radiographs in every transfer syntax that the phantom writes go to Orthanc by our STOW-RS client, from Orthanc to the service by its own,
// are found from there, and come back by its WADO-RS client after it has lost them.
func TestOrthancBothWays(t *testing.T) {
	s := serve(t, t.TempDir(), "--config", configured(t, "line:\n  quiet: 10m\n"))
	pacs := orthanc(t, freePort(t), s.root)
	post := func(path, body string) []byte {
		t.Helper()
		resp, err := http.Post(pacs+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("Orthanc answers %s %s with %s: %s", path, body, resp.Status, answer)
		}
		return answer
	}
	job := func(path, body string) {
		t.Helper()
		var j struct{ ID, State string }
		if err := json.Unmarshal(post(path, body), &j); err != nil {
			t.Fatal(err)
		}
		eventually(t, time.Minute, "a job of Orthanc", func() error {
			b, err := get(pacs + "/jobs/" + j.ID)
			if err == nil {
				err = json.Unmarshal(b, &j)
			}
			if err == nil && j.State == "Failure" {
				t.Fatalf("%s: Orthanc's job fails: %s", path, b)
			}
			if err == nil && j.State != "Success" {
				err = fmt.Errorf("it is %s", j.State)
			}
			return err
		})
	}
	const server = "/dicom-web/servers/chatxray"
	var files, studies, resources []string
	sent := map[string][]byte{} // by syntax
	syntaxes := []string{"implicit", "explicit", "big-endian", "deflated", "rle", "jpeg", "jpeg-lossless", "jpeg-ls", "jpeg2000", "htj2k"}
	for i, syntax := range syntaxes {
		args := []string{"--syntax", syntax, "--seed", fmt.Sprint(100 + i), "--rows", "256", "--columns", "200"}
		if syntax == "jpeg" {
			args = append(args, "--bits", "8")
		}
		file, study := phantom(t, args...)
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		sent[syntax] = b
		files, studies, resources = append(files, file), append(studies, study), append(resources, `{"Study":"`+study+`"}`)
	}
	chatxray(t, 0, append([]string{"send", pacs + "/dicom-web"}, files...)...)

	ids := map[string]string{} // by syntax
	inOrthanc := func(syntax string) {
		t.Helper()
		if got, err := get(pacs + "/instances/" + ids[syntax] + "/file"); err != nil || !bytes.Equal(got, sent[syntax]) {
			t.Errorf("%s: what Orthanc has is not what was sent (%v)", syntax, err)
		}
	}
	var all []string
	for i, syntax := range syntaxes {
		var found []string
		if err := json.Unmarshal(post("/tools/find", `{"Level":"Instance","Query":{"StudyInstanceUID":"`+studies[i]+`"}}`), &found); err != nil || len(found) != 1 {
			t.Fatalf("%s: Orthanc has %v of it (%v)", syntax, found, err)
		}
		ids[syntax] = found[0]
		all = append(all, `"`+found[0]+`"`)
		inOrthanc(syntax)
	}
	// Not synchronously: Orthanc 1.10 then sometimes ends the connection with "Success: Success" in its log and no answer.
	job(server+"/stow", `{"Resources":[`+strings.Join(all, ",")+`],"Synchronous":false}`)
	found := post(server+"/qido", `{"Uri":"/studies"}`)
	for i, syntax := range syntaxes {
		if !bytes.Contains(found, []byte(studies[i])) {
			t.Errorf("%s: Orthanc does not find the study: %s", syntax, found)
		}
		request, err := http.NewRequest(http.MethodDelete, pacs+"/instances/"+ids[syntax], nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp, err := http.DefaultClient.Do(request); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatal(resp, err)
		}
	}
	job(server+"/retrieve", `{"Resources":[`+strings.Join(resources, ",")+`],"Synchronous":false}`)
	for _, syntax := range syntaxes {
		inOrthanc(syntax)
	}
}
