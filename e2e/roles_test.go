package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"chatxray/e2e/postgres"
)

// postgresServer starts a PostgreSQL with a database and returns the URL of that; it ends with the test.
func postgresServer(t *testing.T) (s *postgres.Server, url string) {
	t.Helper()
	s, err := postgres.Start()
	if errors.Is(err, postgres.ErrAbsent) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	url, err = s.Create("chatxray")
	if err != nil {
		t.Fatal(err)
	}
	return s, url
}

// One web and two workers over a PostgreSQL, a Redis and a folder. A worker is killed while it reads, and the web is started anew: each study has one set of
// results, in the archive and in Orthanc, and no more readings were begun than there are studies, and one for the kill.
func TestWebAndWorkers(t *testing.T) {
	built(t)
	redisPort, pacsPort := freePort(t), freePort(t)
	redisServer(t, redisPort)
	_, index := postgresServer(t)
	config, data := filepath.Join(t.TempDir(), "chatxray.yaml"), t.TempDir()
	page := strings.Replace(documented(t, "yaml"), "127.0.0.1:8042", fmt.Sprintf("127.0.0.1:%d", pacsPort), 1)
	page += fmt.Sprintf("\nline:\n  quiet: 500ms\njobs:\n  redis: redis://127.0.0.1:%d/0\n  lease: 5s\narchive:\n  index: %q\n", redisPort, index)
	if err := os.WriteFile(config, []byte(page), 0o644); err != nil {
		t.Fatal(err)
	}
	var files, studies []string
	for i := range 20 {
		file, study := phantom(t, "--seed", fmt.Sprint(700+i), "--rows", "512", "--columns", "430")
		files, studies = append(files, file), append(studies, study)
	}
	start := func(role string, args ...string) *service {
		return serve(t, data, append([]string{"--config", config, "--role", role, "--threads", "1"}, args...)...)
	}
	first, second := start("worker"), start("worker")
	behind := filepath.Join(t.TempDir(), "web.yaml")
	if err := os.WriteFile(behind, []byte(page+"\nrole: web\nworker_url: "+second.root+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	web := serve(t, data, "--config", behind)
	pacs := orthanc(t, pacsPort, web.root)
	chatxray(t, 0, append([]string{"send", web.dicomweb()}, files[:10]...)...)

	// Killed while it reads, which a study's life tells.
	eventually(t, 3*time.Minute, "the first worker to read", func() error {
		b, err := get(web.dicomweb() + "/readings?state=reading")
		if err == nil && !strings.Contains(string(b), fmt.Sprintf("-%d-", first.cmd.Process.Pid)) {
			err = fmt.Errorf("these are read: %s", b)
		}
		return err
	})
	first.stop(syscall.SIGKILL)
	web.stop(syscall.SIGTERM) // a web that is started anew loses nothing
	web = serve(t, data, "--config", behind)
	chatxray(t, 0, append([]string{"send", web.dicomweb()}, files[10:]...)...)
	start("worker")
	eventually(t, 10*time.Minute, "all studies to be delivered", func() error {
		b, err := get(web.dicomweb() + "/readings?state=delivered")
		if n := strings.Count(string(b), "study_instance_uid"); err != nil || n != len(studies) {
			return fmt.Errorf("%d of %d are, %v", n, len(studies), err)
		}
		return nil
	})
	if out, _ := chatxray(t, 0, "jobs", "list", "--json", web.dicomweb()); out != "" {
		t.Errorf("something is still to be done:\n%s", out)
	}
	readings, workers, takenOver := 0, map[string]int{}, 0
	for i, study := range studies {
		var life struct{ Steps []step }
		getJSON(t, web.dicomweb()+"/studies/"+study+"/reading/timeline", &life)
		all := life.Steps
		readings += count(all, "reading")
		for _, s := range all {
			if s.State == "reading" {
				workers[s.Worker]++
			}
			if strings.HasPrefix(s.Reason, "taken over from") {
				takenOver++
			}
		}
		if count(all, "reported") != 1 || count(all, "delivered") != 1 {
			t.Errorf("study %d: %+v", i, all)
		}
		var found []map[string]struct{ Value []any }
		getJSON(t, web.dicomweb()+"/studies/"+study+"/instances", &found)
		if len(found) != 3 {
			t.Errorf("study %d has %d instances, want the radiograph and two documents", i, len(found))
		}
		getJSON(t, pacs+"/dicom-web/studies/"+study+"/instances", &found)
		if len(found) != 2 {
			t.Errorf("Orthanc has %d documents of study %d, want two", len(found), i)
		}
		var shown struct {
			Record struct {
				Deliveries map[string]struct{ Attempts int }
			}
		}
		getJSON(t, web.dicomweb()+"/studies/"+study+"/reading", &shown)
		for to, d := range shown.Record.Deliveries {
			if d.Attempts != 1 {
				t.Errorf("study %d was delivered to %s in %d attempts", i, to, d.Attempts)
			}
		}
	}
	if out, _ := chatxray(t, 0, "studies", "timeline", web.dicomweb(), studies[0]); !strings.Contains(out, "delivered") {
		t.Error(out)
	}
	if readings > len(studies)+1 || takenOver != 1 || len(workers) < 3 {
		t.Errorf("%d readings were begun of %d studies, %d were taken over, by these workers: %v", readings, len(studies), takenOver, workers)
	}
	t.Logf("%d readings by %v", readings, workers)

	// What needs the model is passed on; a worker has nothing else.
	if b, err := get(web.dicomweb() + "/studies/" + studies[0] + "/reading/heatmap"); err != nil || !strings.HasPrefix(string(b), "\x89PNG") {
		t.Errorf("a heat map through the web: %v %.80q", err, b)
	}
	if b, err := get(web.root + "/v1/models"); err != nil || !strings.Contains(string(b), "chatxray") {
		t.Errorf("models through the web: %v %s", err, b)
	}
	if r, err := http.Get(second.dicomweb() + "/studies"); err != nil || r.StatusCode != http.StatusNotFound {
		t.Errorf("a worker answers a search: %v %v", r, err)
	}
	second.stop(syscall.SIGKILL)
	if r, err := http.Get(web.root + "/v1/models"); err != nil || r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("models without the worker: %v %v", r, err)
	}
	for _, command := range []string{"check", "rebuild"} {
		want := map[string]int{"check": 0, "rebuild": 1}[command] // it is open
		if out, said := chatxray(t, want, "archive", command, "--config", config, "--data", data); strings.Contains(out+said, "only-for-tests") {
			t.Error("a password is told")
		}
	}
}

// What a role lacks is told at the start, and no password with it.
func TestRolesRefuse(t *testing.T) {
	built(t)
	for _, role := range []string{"web", "worker"} {
		_, said := chatxray(t, 6, "serve", "--listen", "127.0.0.1:0", "--data", t.TempDir(), "--role", role)
		for _, w := range []string{"archive.index", "PostgreSQL", "jobs.redis"} {
			if !strings.Contains(said, w) {
				t.Errorf("role %s: %q is not named in %s", role, w, said)
			}
		}
	}
	config := filepath.Join(t.TempDir(), "chatxray.yaml")
	page := fmt.Sprintf("role: web\njobs:\n  redis: redis://127.0.0.1:%d/0\narchive:\n  index: postgres://chatxray:hunter2@127.0.0.1:%d/chatxray\n", freePort(t), freePort(t))
	if err := os.WriteFile(config, []byte(page), 0o644); err != nil {
		t.Fatal(err)
	}
	_, said := chatxray(t, 1, "serve", "--listen", "127.0.0.1:0", "--data", t.TempDir(), "--config", config)
	if !strings.Contains(said, "does not answer") || strings.Contains(said, "hunter2") {
		t.Error(said)
	}
}
