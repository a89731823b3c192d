package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// When as many studies wait as jobs.max_waiting says, no upload is taken: 503 with Retry-After, and nothing of it is kept. The rest goes on, and uploads do when fewer wait.
func TestTooMuchWaits(t *testing.T) {
	config := filepath.Join(t.TempDir(), "chatxray.yaml")
	if err := os.WriteFile(config, []byte("line: {quiet: 1h}\njobs: {max_waiting: 2}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var files, studies []string
	for i := range 3 {
		file, study := phantom(t, "--seed", fmt.Sprint(900+i), "--rows", "256", "--columns", "215")
		files, studies = append(files, file), append(studies, study)
	}
	s := serve(t, t.TempDir(), "--config", config, "--reader", "stub")
	store := func(file string) *http.Response {
		t.Helper()
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.Post(s.dicomweb()+"/studies", "application/dicom", bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp
	}
	chatxray(t, 0, "send", s.dicomweb(), files[0], files[1])
	eventually(t, time.Minute, "the door to close", func() error { // what is here already is sent
		if resp := store(files[1]); resp.StatusCode != http.StatusServiceUnavailable {
			return fmt.Errorf("it answers %s", resp.Status)
		}
		return nil
	})
	if resp := store(files[2]); resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("a third study is answered %s, %v", resp.Status, resp.Header)
	}
	if _, said := chatxray(t, 7, "send", s.dicomweb(), files[2]); !strings.Contains(said, "2 studies wait to be read (jobs.max_waiting is 2)") {
		t.Errorf("send says %s", said)
	}
	if b, err := get(s.dicomweb() + "/studies"); err != nil || strings.Count(string(b), "0020000D") != 2 || bytes.Contains(b, []byte(studies[2])) {
		t.Errorf("%s %v", b, err)
	}
	if _, err := get(s.root + "/readyz"); err != nil {
		t.Error(err)
	}
	chatxray(t, 0, "studies", "force", s.dicomweb(), studies[0])
	eventually(t, time.Minute, "the third study to be taken", func() error {
		if resp := store(files[2]); resp.StatusCode != http.StatusOK {
			return fmt.Errorf("it is answered %s", resp.Status)
		}
		return nil
	})
}

// Of two services that share a Redis, and whose bundles have one name and one version and are not the same, the later one takes studies in, reads none and says why, until the
// first one has stopped.
func TestTwoBundlesOfOneName(t *testing.T) {
	redisPort := freePort(t)
	redisServer(t, redisPort)
	config := filepath.Join(t.TempDir(), "chatxray.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, "line: {quiet: 200ms}\njobs: {redis: \"redis://127.0.0.1:%d/0\", lease: 3s}\n", redisPort), 0o644); err != nil {
		t.Fatal(err)
	}
	far := elsewhere(t, "The heart is normal in size.")
	bundle := func(prompt string) string {
		return remoteBundle(t, object{"url": far.URL + "/v1", "model": "fixed", "images": 1, "prompt": prompt, "evidence": "none"})
	}
	first := serve(t, t.TempDir(), "--config", config, "--bundle", bundle("Write a report of this chest radiograph."))
	second := launch(t, nil, t.TempDir(), "--config", config, "--bundle", bundle("Write another one."))
	eventually(t, time.Minute, "the second service to say why it does not read", func() error {
		if _, err := get(second.root + "/readyz"); err == nil || !strings.Contains(err.Error(), "reads with another bundle that is called elsewhere 7 too") {
			return fmt.Errorf("it says %v", err)
		}
		return nil
	})
	file, study := phantom(t, "--rows", "256", "--columns", "215")
	chatxray(t, 0, "send", second.dicomweb(), file)
	time.Sleep(2 * time.Second) // ten times its quiet time
	if all := steps(t, second, study); len(all) == 0 || count(all, "reading") != 0 {
		t.Errorf("it is read beside the other bundle: %+v", all)
	}
	if !strings.Contains(second.log.String(), "two bundles have one name and one version") {
		t.Error("the log does not say so")
	}
	if _, err := get(first.root + "/readyz"); err != nil {
		t.Error("the first one stops too:", err)
	}
	first.stop(syscall.SIGTERM)
	eventually(t, time.Minute, "the second service to read", func() error {
		if all := steps(t, second, study); count(all, "reported") != 1 {
			return fmt.Errorf("%+v", all)
		}
		_, err := get(second.root + "/readyz")
		return err
	})
}
