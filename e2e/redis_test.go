package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// redisServer starts a redis-server that keeps nothing on disk and returns its process; it is killed at the end of the test.
func redisServer(t *testing.T, port int) *exec.Cmd {
	t.Helper()
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("redis-server is not installed (Debian package redis-server)")
	}
	cmd := exec.Command(bin, "--port", fmt.Sprint(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", t.TempDir())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	eventually(t, time.Minute, "redis-server to start", func() error { return redisSays(port, "PING", "+PONG") })
	return cmd
}

// redisSays sends a command and compares the answer.
func redisSays(port int, command, want string) error {
	c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), 5*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := fmt.Fprintf(c, "%s\r\n", command); err != nil {
		return err
	}
	b := make([]byte, 64)
	n, err := c.Read(b)
	if err == nil && strings.TrimSpace(string(b[:n])) != want {
		err = fmt.Errorf("redis answers %s with %q", command, b[:n])
	}
	return err
}

type step struct{ State, Reason, Worker string }

// steps returns the timeline of a study, as the command prints it.
func steps(t *testing.T, s *service, study string) (all []step) {
	t.Helper()
	out, _ := chatxray(t, 0, "studies", "timeline", "--json", s.dicomweb(), study)
	for d := json.NewDecoder(strings.NewReader(out)); d.More(); {
		var one step
		if err := d.Decode(&one); err != nil {
			t.Fatalf("%v in\n%s", err, out)
		}
		all = append(all, one)
	}
	return all
}

func count(all []step, state string) (n int) {
	for _, s := range all {
		if s.State == state {
			n++
		}
	}
	return n
}

// The service is killed while it reads, Redis is emptied again and again under load, then killed and started anew: every study is read and
// delivered, none has a second set of results, and only the reading that was under way at a kill is done again.
func TestRedisLosesNothing(t *testing.T) {
	built(t)
	redisPort, pacsPort := freePort(t), freePort(t)
	redis := redisServer(t, redisPort)
	config, data := filepath.Join(t.TempDir(), "chatxray.yaml"), t.TempDir()
	page := strings.Replace(documented(t, "yaml"), "127.0.0.1:8042", fmt.Sprintf("127.0.0.1:%d", pacsPort), 1)
	page += fmt.Sprintf("\nline:\n  quiet: 500ms\njobs:\n  redis: redis://127.0.0.1:%d/0\n  lease: 6s\n", redisPort)
	if err := os.WriteFile(config, []byte(page), 0o644); err != nil {
		t.Fatal(err)
	}
	var files, studies []string
	for i := range 6 {
		file, study := phantom(t, "--seed", fmt.Sprint(300+i), "--rows", "512", "--columns", "430")
		files, studies = append(files, file), append(studies, study)
	}
	first := serve(t, data, "--config", config)
	pacs := orthanc(t, pacsPort, first.root)
	chatxray(t, 0, append([]string{"send", first.dicomweb()}, files[:3]...)...)
	reading := func(s *service) {
		t.Helper()
		eventually(t, 2*time.Minute, "a study to be read", func() error {
			if n := s.metric("chatxray_studies_reading"); n != "1" {
				return fmt.Errorf("%s are read", n)
			}
			return nil
		})
	}
	reading(first)
	first.stop(syscall.SIGKILL)

	s := serve(t, data, "--config", config)
	chatxray(t, 0, append([]string{"send", s.dicomweb()}, files[3:5]...)...)
	for range 4 {
		if err := redisSays(redisPort, "FLUSHALL", "+OK"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1500 * time.Millisecond)
	}
	reading(s)
	_ = redis.Process.Kill()
	_ = redis.Wait()
	chatxray(t, 0, "send", s.dicomweb(), files[5]) // what comes is kept all the same
	eventually(t, time.Minute, "/readyz to tell that Redis is away", func() error {
		if b, err := get(s.root + "/readyz"); err == nil {
			return fmt.Errorf("it says %s", b)
		}
		return nil
	})
	redisServer(t, redisPort)
	eventually(t, time.Minute, "the service to be ready again", func() error { _, err := get(s.root + "/readyz"); return err })

	eventually(t, 5*time.Minute, "all studies to be delivered", func() error {
		out, _ := chatxray(t, 0, "studies", "list", "--json", "--state", "delivered", s.dicomweb())
		if n := strings.Count(out, "study_instance_uid"); n != len(studies) {
			return fmt.Errorf("%d of %d are", n, len(studies))
		}
		return nil
	})
	if out, _ := chatxray(t, 0, "jobs", "list", "--json", s.dicomweb()); out != "" {
		t.Errorf("something is still to be done:\n%s", out)
	}
	if out, _ := chatxray(t, 0, "studies", "show", s.dicomweb(), studies[0]); !strings.Contains(out, "delivered") || !strings.Contains(out, "routine") {
		t.Errorf("studies show prints\n%s", out)
	}
	if _, said := chatxray(t, 7, "jobs", "retry", s.dicomweb(), studies[0]); !strings.Contains(said, "409") {
		t.Errorf("a study that was delivered is retried: %s", said)
	}
	readings := 0
	for i, study := range studies {
		all := steps(t, s, study)
		readings += count(all, "reading")
		if count(all, "reported") != 1 || count(all, "delivered") != 1 {
			t.Errorf("study %d: %+v", i, all)
		}
		var found []map[string]struct{ Value []any }
		getJSON(t, s.dicomweb()+"/studies/"+study+"/instances", &found)
		if len(found) != 3 {
			t.Errorf("study %d has %d instances, want the radiograph and two documents", i, len(found))
		}
		getJSON(t, pacs+"/dicom-web/studies/"+study+"/instances", &found)
		if len(found) != 2 {
			t.Errorf("Orthanc has %d documents of study %d, want two", len(found), i)
		}
	}
	// One that was under way at the first kill, and at most one when Redis was away for so long that its lease ended.
	if most := len(studies) + 2; readings > most {
		t.Errorf("%d readings were begun, want at most %d", readings, most)
	}
}
